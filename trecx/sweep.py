"""Sweeps: a list of runs as data, and engines that carry it out.

A specification is a YAML file:

    defaults: {task: ic, data: cifar10, recipe: fast}
    runs:
      - {method: [baseline, trecx_ev], seed: [0, 1, 2]}
      - {method: trecx_ev, w_early: [0.2, 0.8]}

Its keys are the fields of `trecx.runs.Run`; a list of values stands for one run each, several lists for every
combination. Runs keep the order of the file, so what matters most goes first.
"""

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import yaml

from trecx import paths
from trecx.errors import TrecxError
from trecx.pool import fit
from trecx.records import FILES, Record, whole_folder
from trecx.runs import Run, execute, find, publish

ENGINES = ("local", "ray")
ATTEMPTS = 4  # of one run under Ray, if its worker is killed

Say = Callable[[str], None]


def own(name: str) -> Path:
    """The file of one of the project's own sweeps; TrecxError with their names otherwise."""
    names = sorted(path.stem for path in paths.SWEEPS.glob("*.yaml"))
    if name not in names:
        raise TrecxError(f"unknown sweep {name!r}: choose one of {', '.join(names)}")
    return paths.SWEEPS / f"{name}.yaml"


def load(path: Path) -> list[Run]:
    """Read a specification; each run once, in the order of the file.

    Raises:
        TrecxError: no such file, not YAML, an unknown key, or a run that is impossible.
    """
    try:
        spec = yaml.safe_load(path.read_text())
    except OSError as error:
        raise TrecxError(f"no sweep at {path}: give a YAML file, such as those in {paths.SWEEPS}") from error
    except yaml.YAMLError as error:
        raise TrecxError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(spec, dict) or not isinstance(spec.get("runs"), list) or {*spec} - {"defaults", "runs"}:
        raise TrecxError(f"{path} is no sweep: it needs `runs`, a list, and may have `defaults`, nothing else")
    allowed = [field.name for field in fields(Run)]
    defaults = spec.get("defaults") or {}
    runs: list[Run] = []
    for number, entry in enumerate(spec["runs"], start=1):
        if not isinstance(entry, dict) or not isinstance(defaults, dict):
            raise TrecxError(f"entry {number} of {path} is no set of fields: give some of {', '.join(allowed)}")
        settings = {**defaults, **entry}
        if unknown := [key for key in settings if key not in allowed]:
            raise TrecxError(f"unknown field {unknown[0]!r} in {path}: choose from {', '.join(allowed)}")
        if missing := [key for key in ("task", "method") if key not in settings]:
            raise TrecxError(f"entry {number} of {path} has no {missing[0]}")
        choices = [value if isinstance(value, list) else [value] for value in settings.values()]
        for values in itertools.product(*choices):
            given = dict(zip(settings, values, strict=True))
            if isinstance(given.get("taps"), str):
                given["taps"] = tuple(given["taps"].split(","))  # several exits of one network: "block1,block3"
            try:
                runs.append(Run(**given))
            except (TrecxError, TypeError) as error:
                raise TrecxError(f"entry {number} of {path}: {error}") from error
    return list(dict.fromkeys(runs))


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
    return _on_ray(runs, workers, address, say, finished)


def _on_ray(
    runs: Sequence[Run], workers: int | None, address: str | None, say: Say, finished: Callable[[Record], None]
) -> list[Record]:
    try:
        import ray
    except ImportError as error:
        raise TrecxError("engine ray needs the package ray: pip install 'trecx[cluster]'") from error

    missing = [run for run in runs if find(run) is None]
    say(f"{len(runs)} runs, {len(missing)} to train on Ray")
    try:
        # One thread a run. Workers use this process's folders, unless the nodes are others and none was named.
        folders = {"TRECX_DATA": str(paths.DATA), "TRECX_RECORDS": str(paths.RECORDS)}
        named = {name: value for name, value in folders.items() if address is None or name in os.environ}
        ray.init(
            address=address,
            num_cpus=None if address else workers,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", **named}},
            log_to_driver=False,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise TrecxError(f"no Ray cluster at {address!r}: {' '.join(str(error).split())}") from error
    try:
        # Retries take an interrupted run up from its last finished epoch if they land on the same machine.
        task = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(_train_far_away)
        pending = {task.remote(run): run for run in missing}
        while pending:
            (ready,), _ = ray.wait(list(pending), num_returns=1)
            run = pending.pop(ready)
            try:
                content = ray.get(ready)
            except ray.exceptions.RayError as error:
                raise TrecxError(f"{run.name} failed on Ray: {str(error).strip().splitlines()[-1]}") from error
            with whole_folder(paths.RECORDS / run.data / run.name) as folder:
                for name, data in content.items():
                    (folder / name).write_bytes(data)
            finished(Record(paths.RECORDS / run.data / run.name))
            say(f"[{len(missing) - len(pending)}/{len(missing)}] {run.name}")
    finally:
        ray.shutdown()
    return [record for run in runs if (record := find(run)) is not None]


def _train_far_away(run: Run) -> dict[str, bytes]:
    """The files of a run's record: the nodes of a cluster need not share a disk."""
    record = find(run) or execute(run)
    return {name: (record.folder / name).read_bytes() for name in (*FILES, record.weights.name)}
