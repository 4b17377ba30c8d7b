"""Sweeps: a list of runs as data, and engines that carry it out.

A specification is a YAML file:

    defaults: {task: ic, data: cifar10, recipe: fast}
    runs:
      - {method: [baseline, trecx_ev], seed: [0, 1, 2]}
      - {method: trecx_ev, w_early: [0.2, 0.8]}

Its keys are the fields of `trecx.experiments.runs.Run`; a list of values stands for one run each, several lists for
every combination. Runs keep the order of the file, so what matters most goes first.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from trecx import paths
from trecx.errors import TrecxError
from trecx.experiments.pool import fit
from trecx.experiments.ray import Say, on_ray
from trecx.experiments.records import Record
from trecx.experiments.runs import NUMBERS, Run, find, publish

ENGINES = ("local", "ray")
MOST_RUNS = 100_000  # of one file: every combination of long lists is soon more than anybody can train

# Fields that hold several values of one network, which are one text, and an example of each.
TEXTS = {"taps": "block1,block3", "narrow": "0.5,0.75"}


def as_tuple(field: str, text: Any) -> Any:
    """The values in a text of TEXTS, as `Run` takes them; what is no such text as it is.

    Raises:
        TrecxError: a width that is no number.
    """
    if field == "narrow" and isinstance(text, int | float) and not isinstance(text, bool):
        return (text,)
    if not isinstance(text, str):
        return text
    if field == "taps":
        return tuple(text.split(","))
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise TrecxError(f"narrow {text!r} is impossible: give widths, such as {TEXTS['narrow']}") from error


def own(name: str) -> Path:
    """The file of one of the project's own sweeps; TrecxError with their names otherwise."""
    names = sorted(path.stem for path in paths.SWEEPS.glob("*.yaml"))
    if name not in names:
        raise TrecxError(f"unknown sweep {name!r}: choose one of {', '.join(names)}")
    return paths.SWEEPS / f"{name}.yaml"


def load(path: Path) -> list[Run]:
    """Read a specification; each run once, in the order of the file.

    Raises:
        TrecxError: no such file, not YAML, an unknown key or one given twice, no run, or a run that is impossible.
    """
    try:
        spec = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise TrecxError(f"no sweep at {path}: give a YAML file, such as those in {paths.SWEEPS}") from error
    except UnicodeDecodeError as error:
        raise TrecxError(f"{path} is no text in UTF-8: give a YAML file, such as those in {paths.SWEEPS}") from error
    except (yaml.YAMLError, ValueError) as error:  # a number or a date that cannot be is a ValueError
        raise TrecxError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise TrecxError(f"{path} is no sweep: its lists lie too deep in each other") from error
    if not isinstance(spec, dict) or not isinstance(spec.get("runs"), list) or {*spec} - {"defaults", "runs"}:
        raise TrecxError(f"{path} is no sweep: it needs `runs`, a list, and may have `defaults`, nothing else")
    if not spec["runs"]:
        raise TrecxError(f"{path} lists no run: give `runs` one entry or more")
    allowed = [field.name for field in fields(Run)]
    defaults = {} if spec.get("defaults") is None else spec["defaults"]
    if not isinstance(defaults, dict):
        raise TrecxError(f"defaults of {path} is no set of fields: give some of {', '.join(allowed)}")
    runs: list[Run] = []
    for number, entry in enumerate(spec["runs"], start=1):
        if not isinstance(entry, dict):
            raise TrecxError(f"entry {number} of {path} is no set of fields: give some of {', '.join(allowed)}")
        settings = {**defaults, **entry}
        if unknown := [key for key in settings if key not in allowed]:
            raise TrecxError(
                f"entry {number} of {path} has an unknown field {unknown[0]!r}: choose from {', '.join(allowed)}"
            )
        if missing := [key for key in ("task", "method") if key not in settings]:
            raise TrecxError(f"entry {number} of {path} has no {missing[0]}")
        try:
            choices = [_choices(field, value) for field, value in settings.items()]
            if (count := len(runs) + math.prod(map(len, choices))) > MOST_RUNS:
                raise TrecxError(f"its lists make {count} runs with those before: choose {MOST_RUNS} or fewer")
            runs += [Run(**dict(zip(settings, values, strict=True))) for values in itertools.product(*choices)]
        except TrecxError as error:
            raise TrecxError(f"entry {number} of {path}: {error}") from error
    return list(dict.fromkeys(runs))


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice, of which PyYAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice[0]!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _choices(field: str, value: Any) -> list[Any]:
    """The values of one field that runs are made for, as `Run` takes them; TrecxError for what is no value."""
    values = value if isinstance(value, list) else [value]
    if not values:
        raise TrecxError(f"{field} is an empty list: give one value or more")
    for one in values:
        if isinstance(one, list | dict):
            hint = f"; several of one network are one text, such as {TEXTS[field]!r}" if field in TEXTS else ""
            raise TrecxError(f"{field} has {type(one).__name__} {one!r} for one value: give a plain value{hint}")
        if field in NUMBERS and isinstance(one, str):
            raise TrecxError(f"{field} {one!r} is text in YAML: write it as a plain number, such as 2 or 0.5")
    return [as_tuple(field, one) if field in TEXTS and one is not None else one for one in values]


def execute_all(
    runs: Sequence[Run],
    *,
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
    to_publish: bool = False,
    say: Say = lambda line: print(line, flush=True),
) -> list[Record]:
    """Records of `runs`, training those that have none; finished ones are kept, whatever happens to the others.

    Args:
        runs: what is wanted, the most important first.
        engine: `local` (processes on this machine) or `ray` (a cluster, or this machine).
        workers: runs side by side; the default is one a core (local) or what the cluster has (ray).
        address: of a running Ray cluster; without it Ray starts on this machine.
        to_publish: copy each finished record into the book's folder at once.
        say: receives progress, one line at a time.

    Raises:
        TrecxError: unknown engine, Ray missing or not reachable, or a run that failed.
    """
    if engine not in ENGINES:
        raise TrecxError(f"unknown engine {engine!r}: choose one of {', '.join(ENGINES)}")

    def finished(record: Record) -> None:
        if to_publish:
            publish(record)

    for run in runs:
        if (record := find(run)) is not None:
            finished(record)
    if engine == "local":
        return fit(runs, workers=workers, in_order=True, say=say, finished=finished)
    return on_ray(runs, workers, address, say, finished)
