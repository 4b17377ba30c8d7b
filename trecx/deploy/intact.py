"""Whether a device record is whole: every field that this package reads there, of the right type, and of one piece."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trecx.errors import TrecxError
from trecx.experiments.intact import Damaged, Field, check_fields, is_a, is_costs, is_count, is_number, read_json
from trecx.experiments.runs import Run

TOLERANCE = 1e-3  # how far from 1 exit rates may add up after rounding


def _counts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_count, value))


def _fraction(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def _fractions(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_fraction, value))


def _sets(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _thresholds(value: Any) -> bool:
    """Falling; of a network without early exits a single None."""
    if value == [None]:
        return True
    return _fractions(value) and value == sorted(value, reverse=True)


def _stages(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_a(str), value))


def _shares(value: Any) -> bool:
    return isinstance(value, list) and all(_fractions(row) and abs(sum(row) - 1) < TOLERANCE for row in value)


_NEEDED: tuple[Field, ...] = (
    ("runs", "a list of runs", _sets),
    ("rule", "> or >=", lambda value: value in (">", ">=")),
    ("cost.flops", "a list of rising costs", is_costs),
    ("cost.macs", "a list of rising costs", is_costs),
    *((f"bytes.{kind}", "a whole number", is_count) for kind in ("float", "int8")),
    *(
        (f"accuracy.{split}.{kind}", "a list of fractions", _fractions)
        for split in ("val", "test")
        for kind in ("float", "int8")
    ),
    ("machine.name", "a text", is_a(str)),
    ("machine.processor", "a text", is_a(str)),
    ("stages", "a list of stages", _sets),
    ("operations", "a list of stages", _sets),
    *((f"flash.{part}", "a whole number", is_count) for part in ("weights", "code", "data", "total")),
    *((f"ram.{part}", "a whole number", is_count) for part in ("variables", "stack", "total", "planned")),
    *(
        (f"checks.{where}.{what}", "a number", is_number)
        for where in ("host", "emulated")
        for what in ("samples", "difference", "tolerance")
    ),
    ("firmware_sha256", "a text", is_a(str)),
    ("versions", "a set of fields", is_a(dict)),
    ("curve.thresholds", "a list of falling thresholds", _thresholds),
    ("curve.val", "a list of fractions", _fractions),
    ("curve.test", "a list of fractions", _fractions),
    *((f"curve.{kind}", "a list of exit rates that add up to 1", _shares) for kind in ("shares", "val_shares")),
    ("float_thresholds", "a list", is_a(list)),
)
_OPTIONAL: tuple[Field, ...] = (
    ("mix", "a share from 0 to below 1", lambda value: is_number(value) and 0 <= value < 1),
    ("exits", "a list of stages", _stages),
    ("end", "a stage", is_a(str)),
    ("baseline", "a text", is_a(str)),
    ("weights", "a list", is_a(list)),
    ("data.checksum", "a text", is_a(str)),
    ("latency.samples", "a whole number", is_count),
    ("latency.full_ratio", "a number", is_number),
    ("latency.points", "a list", is_a(list)),
)
_STAGE: tuple[Field, ...] = tuple(
    (name, "a whole number", is_count) for name in ("instructions", "least", "most", "decision", "stack")
)
_OPERATIONS: tuple[Field, ...] = tuple(
    (name, "a whole number", is_count) for name in ("conv", "pointwise", "depthwise", "outputs", "other")
)


def name(runs: Sequence[Run], mix: float = 0.0, exits: Sequence[str] | None = None, end: str = "") -> str:
    """What the device record of these runs is called; `exits` and `end` of a network that was cut short."""
    parts = [*(run.name for run in runs), *[f"mix{mix:g}"] * bool(mix)]
    if exits is not None:
        parts += ["-".join(("exits", *exits)) if exits else "no-exit", *[f"ends-{end}"] * bool(end)]
    return "+".join(parts)


def read(path: Path) -> dict[str, Any]:
    """What a device record says, every field that this package reads of the right type.

    Raises:
        Damaged: there is no such file, or it is not whole.
        Newer: a later version of this package wrote it.
    """
    found = read_json(path)
    check_fields(path, found, _NEEDED, _OPTIONAL)

    def need(fits: bool, what: str) -> None:
        if not fits:
            raise Damaged(f"{path} is damaged ({what})")

    try:
        runs = [Run(**run) for run in found["runs"]]
    except (TypeError, TrecxError) as error:  # a field that this version does not know, or an impossible value
        raise Damaged(f"{path} is damaged, or of a later version (its runs: {error})") from error
    mix = found.get("mix") or 0
    need(not mix or len(runs) == 2, f"mix is {mix:g}: a cascade of two networks has one")
    exits, end = found.get("exits"), found.get("end") or ""
    need(exits is None or len(runs) == 1, "exits is of a network that was cut short: runs names one")
    need(exits is not None or not end, f"end is {end!r}: exits says which exits are left before it")
    own = name(runs, mix, exits, end)
    need(path.stem == own, f"it is of {own}")
    for group, wanted in (("stages", _STAGE), ("operations", _OPERATIONS)):
        for k, stage in enumerate(found[group]):
            _each(path, f"{group}[{k}]", stage, wanted)
    stages = len(found["stages"])
    need(exits is None or len(exits) + 1 == stages, f"exits has {len(exits or ())} exits: stages has {stages}")
    of_exits = {"operations": found["operations"], "cost.flops": found["cost"]["flops"]}
    of_exits["cost.macs"] = found["cost"]["macs"]
    for split, kinds in found["accuracy"].items():
        of_exits |= {f"accuracy.{split}.{kind}": values for kind, values in kinds.items()}
    curve = found["curve"]
    for kind in ("shares", "val_shares"):
        of_exits |= {f"curve.{kind}[{k}]": row for k, row in enumerate(curve[kind])}
    for field, values in of_exits.items():
        need(len(values) == stages, f"{field} has {len(values)} exits: stages has {stages}")
    points = len(curve["thresholds"])
    for key in ("val", "test", "shares", "val_shares"):
        need(len(curve[key]) == points, f"curve.{key} has {len(curve[key])} points: curve.thresholds has {points}")
    need((curve["thresholds"] == [None]) == (stages == 1), f"curve.thresholds does not fit {stages} exits")
    for k, row in enumerate(found["float_thresholds"]):
        _float_threshold(path, f"float_thresholds[{k}]", row, stages)
    for k, point in enumerate((found.get("latency") or {}).get("points", [])):
        _each(path, f"latency.points[{k}]", point, (("drop", "a number", is_number), ("ratio", "a number", is_number)))
        _each(path, f"latency.points[{k}]", point, (("shares", f"{stages} exit rates", _rates(stages)),))
    return found


def _float_threshold(path: Path, where: str, row: Any, exits: int) -> None:
    _each(path, where, row, (("drop", "a number", is_number),))
    if row.get("threshold") is None:  # none reaches the accuracy
        return
    wanted: list[Field] = [("threshold", "a number", is_number)]
    for kind in ("float", "int8"):
        wanted.append((f"{kind}.accuracy", "a fraction", _fraction))
        wanted.append((f"{kind}.shares", f"{exits} exit rates", _rates(exits)))
    _each(path, where, row, wanted)


def _rates(exits: int) -> Any:
    return lambda value: _shares([value]) and len(value) == exits


def _each(path: Path, where: str, item: Any, wanted: Sequence[Field]) -> None:
    """As `check_fields`, for a part of the record; its place is named."""
    if not isinstance(item, dict):
        raise Damaged(f"{path} is damaged ({where} is {item!r:.80}: a set of fields is needed)")
    check_fields(path, item, wanted, where=f"{where}: ")
