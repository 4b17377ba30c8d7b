"""What the book's explorer shows: every network's operating points by what may be lost, and by what may be spent.

The explorer is a page of its own. It takes all it shows from the document made here, and a method is an entry in it:
a cascade of two networks, a network with more exits, another unit of cost are data to the page, not code.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trecx.analysis.benchmark import with_paper
from trecx.analysis.beyond import DROPS, Benchmark
from trecx.analysis.choice import FAMILIES
from trecx.analysis.compare import static_place
from trecx.analysis.device import short
from trecx.analysis.tables import cost_unit, pooled
from trecx.analysis.wording import sizes_in_words
from trecx.deploy.records import DeviceRecord
from trecx.errors import TrecxError
from trecx.evaluation.points import cheapest_thresholds, dearest_thresholds, point_at
from trecx.evaluation.stats import paired_difference
from trecx.evaluation.trace import Trace, at_thresholds
from trecx.experiments.composed import Cascaded
from trecx.experiments.records import Record, mean_accuracy
from trecx.experiments.results import Results
from trecx.experiments.runs import run_of
from trecx.models.methods import get_method
from trecx.paper import paper
from trecx.tasks import get_task

UNITS = {  # name in a record's cost -> what the page calls it
    "flops": {"label": "FLOPs", "million": cost_unit("flops")},
    "macs": {"label": "MACs", "million": cost_unit("macs")},
}
# One more where there are device records: a document has, for this unit, a baseline and methods of its own.
ON_A_DEVICE = "instructions"
DEVICE_UNIT = {
    "label": "instructions",
    "million": "million instructions",
    "seeds": 1,  # of what may be recommended
    "note": "Counted on an emulated {processor}, in plain C with int8 numbers. Accuracies are those of int8. Each "
    "network is one training, and so without interval; the reference is one too.",
}
DEVICE_POINTS = 33  # of a curve
LOSSES = tuple(round(0.1 * k, 1) for k in range(31))  # points below our own baseline
BUDGETS = tuple(range(20, 105, 5))  # percent of the baseline's cost
# Thresholds of the drawn curves: dense near 1, where the confidences of a good network lie.
THRESHOLDS: tuple[float, ...] = (
    1,
    0.9999,
    0.9995,
    0.999,
    0.998,
    0.996,
    0.993,
    0.99,
    0.98,
    0.97,
    0.96,
    0.95,
    0.93,
    0.91,
    0.88,
    0.85,
)
THRESHOLDS += (0.82, 0.78, 0.74, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.1, 0)
# What is known of an operating point.
POINTS = ("reached", "threshold", "accuracy", "low", "high", "shares", "val_shares", "val_accuracy")
LEAST_SEEDS = 2  # settings that were trained once are not shown,
ENOUGH_SEEDS = 3  # nor is one recommended that was trained less often than this

MORE = ("exits", "cascade", "nested")  # ways beyond the paper, of which the best are shown

# Methods that the page shows at first; the others are a tick away.
FIRST = ("trecx_ev", "trecx_no_ev", "sdn_fair", "branchynet_fair")
SAMPLES = {"ic": ("image", "images"), "kws": ("clip", "clips"), "vww": ("image", "images")}


@dataclass(frozen=True, eq=False)
class Entry:
    """A way to spend less on easy samples, trained under one or several seeds.

    Args:
        label: its name for people, unique on its benchmark.
        method: the method whose colour and line it has, see `trecx.report.style`.
        about: one line.
        params: trained parameters, all networks that must be stored together.
        cost: unit -> cumulative cost of leaving at each exit (exits,); the last is the most that a sample costs.
        val, test: its traces, one a seed. The costs in them are not used.
        seeds: of its trainings, in the order of the traces.
        first: whether the page shows it without being asked.
    """

    label: str
    method: str
    about: str
    params: int
    cost: Mapping[str, Sequence[float]]
    val: Sequence[Trace]
    test: Sequence[Trace]
    seeds: Sequence[int]
    first: bool = False


# Record and unit -> cumulative cost of leaving at each exit; None where the unit was not counted for its network.
Counted = Callable[[Record, str], Sequence[float] | None]


def recorded(record: Record, unit: str) -> Sequence[float] | None:
    """The cost that the record itself holds."""
    return record.manifest["cost"].get(unit)


def entry(
    label: str,
    records: Sequence[Record],
    *,
    method: str = "",
    about: str = "",
    first: bool = False,
    units: Iterable[str] = UNITS,
    counted: Counted = recorded,
) -> Entry:
    """The entry of one setting's records; `method` and `about` are the records' own unless given."""
    if not (method and about):
        own = get_method(records[0].method)
        method, about = method or own.name, about or own.about
    return Entry(
        label,
        method,
        about,
        records[0].params,
        _costs(records[0], units, counted),
        [record.trace("val") for record in records],
        [record.trace("test") for record in records],
        [record.seed or 0 for record in records],
        first,
    )


def _costs(record: Record, units: Iterable[str], counted: Counted) -> dict[str, list[float]]:
    """Unit -> cost of each exit, of the units that were counted for this network."""
    costs = {unit: counted(record, unit) for unit in units}
    return {unit: [float(value) for value in cost] for unit, cost in costs.items() if cost is not None}


def entries(
    found: Results,
    least_seeds: int = LEAST_SEEDS,
    units: Iterable[str] = UNITS,
    counted: Counted = recorded,
) -> list[Entry]:
    """Every setting of a benchmark that leaves early and was trained often enough, under the name it has elsewhere.

    Networks with one more class than the data have answer another question and are left out.
    """
    kept = []
    for label, records in found.named.items():
        usual = records is found.methods.get(records[0].method)
        if not get_method(records[0].method).head or records[0].run.get("extra_classes"):
            continue
        if len(records) >= least_seeds:
            first = usual and records[0].method in FIRST
            kept.append(entry(label, records, first=first, units=units, counted=counted))
    return kept


def beyond(found: Results, here: Benchmark, least_seeds: int = LEAST_SEEDS) -> list[Entry]:
    """What goes beyond the paper: of every way the networks that validation chooses at a point of loss, and at none.

    Those that `entries` has, and those with fewer seeds, are left out.
    """
    known = {label for label, records in found.named.items() if len(records) >= least_seeds}
    made: dict[str, Entry] = {}
    for way in MORE:
        for drop in DROPS:
            best = here.best(way, drop)
            if best is None or len(best[0].records) < least_seeds or best[0].label in known:
                continue
            one, record = best[0], best[0].records[0]
            about = FAMILIES[one.family] if isinstance(record, Cascaded) else get_method(record.method).about
            label, method = sizes_in_words(one.label), "cascade" if isinstance(record, Cascaded) else record.method
            # The first choice of each way is shown at once; the network for no loss is a tick away.
            shown = drop == DROPS[0]
            made.setdefault(label, entry(label, one.records, method=method, about=about, first=shown))
    return [*made.values()]


def document(
    found: Mapping[str, Results],
    more: Mapping[str, Iterable[Entry]] | None = None,
    *,
    units: Mapping[str, Mapping[str, str]] = UNITS,
    counted: Counted = recorded,
    least_seeds: int = LEAST_SEEDS,
    on_a_device: Sequence[DeviceRecord] = (),
) -> dict[str, Any]:
    """All that the explorer shows, ready for JSON.

    Accuracies, losses, budgets and intervals are in percent or points, thresholds and shares fractions, costs in the
    unit. A list over exits leaves the final one's share out: shares add up to 1. None: no seed reaches it.

    Args:
        found: task -> its runs.
        more: task -> entries that are not in them, such as cascades of two networks.
        units: name in `Entry.cost` -> its `label`, and what a `million` of it is called.
        counted: where the costs of the networks in `found` come from.
        least_seeds: settings with fewer are left out.
        on_a_device: device records. They alone are what the page shows under the unit `instructions`.

    Returns:
        `units`, `enough_seeds`, `losses`, `budgets`, `thresholds`, `benchmarks`. A benchmark has its baseline, the
        paper's savings where they may stand beside ours, and `methods`, each with points by loss, points by budget and
        unit, and the mean curve over its seeds at `thresholds` as `python -m trecx curve` gives it for one. Where there
        are device records of a benchmark, its `on` has, under `instructions`, the baseline and methods in their place.
    """
    made = []
    known: dict[str, Any] = dict(units)
    for task, results in found.items():
        given = [*entries(results, least_seeds, units, counted), *(more or {}).get(task, ())]
        shown = _benchmark(results, given, units, counted)
        if measured := _on_a_device(results, on_a_device):
            shown["on"] = {ON_A_DEVICE: measured}
            processor = on_a_device[0].manifest["machine"]["processor"]
            known[ON_A_DEVICE] = DEVICE_UNIT | {"note": str(DEVICE_UNIT["note"]).format(processor=processor)}
        made.append(shown)
    about = {"units": known, "enough_seeds": ENOUGH_SEEDS}
    grids = {"losses": LOSSES, "budgets": BUDGETS, "thresholds": THRESHOLDS}
    return about | {name: list(grid) for name, grid in grids.items()} | {"benchmarks": made}


def _benchmark(found: Results, given: Sequence[Entry], units: Iterable[str], counted: Counted) -> dict[str, Any]:
    task, base = get_task(found.task), _Baseline(found.methods["baseline"], units, counted)
    labels = [one.label for one in given]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise TrecxError(f"two entries of the explorer are called {twice[0]!r} on {task.full_title}: name them apart")
    methods = [_method(one, base, units) for one in given]
    if found.static:
        methods.append(_static(found.static, base, counted))
    one, several = SAMPLES[found.task]
    shown = {
        "name": found.task,
        "title": task.full_title,
        "network": task.backbone,
        "sample": one,
        "samples": several,
        "baseline": base.shown,
        "methods": methods,
    }
    if with_paper(found):
        printed = paper()["table_1"][found.task]
        whole = printed["baseline"]["mflops"]
        at_drop = printed["trecx"]["mflops_at_drop"].items()
        shown["paper"] = [{"lost": drop, "saved": _percent(1 - cost / whole)} for drop, cost in at_drop]
    return shown


class _Baseline:
    """The unmodified network: what others are compared with, and what one would use where they miss an accuracy."""

    def __init__(self, records: Sequence[Record], units: Iterable[str], counted: Counted) -> None:
        self.records = records
        self.cost = {unit: cost[-1] for unit, cost in _costs(records[0], units, counted).items()}
        self.val_accuracy = mean_accuracy(records, split="val")
        self.hits = {record.seed: record.trace().correct[:, -1] for record in records}

    def right(self, seed: int) -> NDArray[np.bool_]:
        """Which test samples the network of this seed, or else of the first, has right."""
        return self.hits.get(seed, self.hits[self.records[0].seed])

    @cached_property
    def shown(self) -> dict[str, Any]:
        accuracy, low, high = pooled(self.records, -1)
        return {
            "accuracy": _rounded(accuracy, 2),
            "low": _rounded(low, 2),
            "high": _rounded(high, 2),
            "seeds": len(self.records),
            "params": self.records[0].params,
            "cost": self.cost,
        }


def _method(one: Entry, base: _Baseline, units: Iterable[str]) -> dict[str, Any]:
    targets = [base.val_accuracy - loss / 100 for loss in LOSSES]
    by_loss = np.array([cheapest_thresholds(trace, targets) for trace in one.val])
    shown: dict[str, Any] = {
        "label": one.label,
        "method": one.method,
        "about": one.about,
        "first": one.first,
        "params": one.params,
        "seeds": len(one.seeds),
        "cost": {unit: list(one.cost[unit]) for unit in units if unit in one.cost},
        "loss": _without(_points(one, base, by_loss), "val_accuracy"),
        "budget": {},
    }
    for unit in (unit for unit in shown["cost"] if unit in base.cost):
        costs = [budget / 100 * base.cost[unit] for budget in BUDGETS]
        priced = [replace(trace, cost=np.asarray(one.cost[unit], dtype=float)) for trace in one.val]
        by_cost = np.array([dearest_thresholds(trace, costs) for trace in priced])
        shown["budget"][unit] = _without(_points(one, base, by_cost), "val_shares")
    curves = [at_thresholds(trace, THRESHOLDS) for trace in one.test]
    shown["curve"] = {
        "accuracy": [_percent(value) for value in np.mean([curve.accuracy for curve in curves], axis=0)],
        "shares": _shares(np.mean([curve.shares for curve in curves], axis=0)),
    }
    return shown


def _points(one: Entry, base: _Baseline, thresholds: NDArray[np.float64]) -> dict[str, Any]:
    """The operating points of one grid, a list each; thresholds (seeds, points) from validation, NaN where it misses.

    A seed that misses is taken for the unmodified network: its accuracy counts, and it saves nothing. `shares` and
    `threshold` are means over the others. What validation says orders the methods, so that test chooses nothing.
    """
    points: dict[str, list[Any]] = {key: [] for key in POINTS}
    for column in thresholds.T:
        at = [(k, float(t)) for k, t in enumerate(column) if np.isfinite(t)]
        points["reached"].append(len(at))
        if not at:
            for key in POINTS[1:]:
                points[key].append(None)
            continue
        right = np.stack(
            [
                base.right(seed) if np.isnan(t) else trace.outcome(float(t))[0]
                for seed, trace, t in zip(one.seeds, one.test, column, strict=True)
            ]
        )
        accuracy = paired_difference(right, np.zeros_like(right)).in_points()
        for key, value in zip(("accuracy", "low", "high"), accuracy, strict=True):
            points[key].append(_rounded(value, 2))
        points["threshold"].append(_rounded(np.mean([t for _, t in at]), 4))
        ends = [(point_at(one.test[k], t), point_at(one.val[k], t)) for k, t in at]
        points["shares"] += _shares(np.mean([[test.shares] for test, _ in ends], axis=0))
        points["val_shares"] += _shares(np.mean([[val.shares] for _, val in ends], axis=0))
        points["val_accuracy"].append(_percent(float(np.mean([val.accuracy for _, val in ends]))))
    return points


def _static(static: Mapping[str, Sequence[Record]], base: _Baseline, counted: Counted) -> dict[str, Any]:
    """Smaller networks without exits, straight lines between the trained ones, as `trecx.analysis.compare` has them.

    In the terms of an entry: its 'exits' are the networks from the unmodified one down, the shares say where on the
    line between two of them it lies. Nobody leaves early, and a sample never costs more than that network does.
    """
    smaller = dict(sorted(static.items(), key=lambda item: item[1][0].cost()[-1], reverse=True))
    members = [base.records, *smaller.values()]
    tested = [pooled(records, -1) for records in members]
    on_val = [mean_accuracy(records, split="val") for records in members]

    def points(places: Iterable[NDArray[np.float64] | None]) -> dict[str, Any]:
        keys = ("reached", "accuracy", "low", "high", "shares", "val_shares", "val_accuracy")
        rows: dict[str, list[Any]] = {key: [] for key in keys}
        for place in places:
            rows["reached"].append(0 if place is None else 1)
            shares = None if place is None else _shares(place[None])[0]
            rows["shares"].append(shares)
            rows["val_shares"].append(shares)
            # Between two intervals end by end: at least as wide as that of the mean.
            for key, values in zip(("accuracy", "low", "high"), zip(*tested, strict=True), strict=True):
                rows[key].append(None if place is None else _rounded(np.dot(place, values), 2))
            rows["val_accuracy"].append(None if place is None else _percent(np.dot(place, on_val)))
        return rows

    def by_loss(loss: float) -> NDArray[np.float64]:
        place = static_place(base.records, static, loss)
        return np.array([sum(share for records, share in place if records is member) for member in members])

    def by_cost(share: float, costs: Sequence[float]) -> NDArray[np.float64] | None:
        if share * costs[0] < costs[-1]:
            return None
        lines = np.eye(len(costs))
        return np.array([np.interp(share * costs[0], costs[::-1], line[::-1]) for line in lines])

    each = [_costs(records[0], base.cost, counted) for records in members]
    cost = {unit: [costs[unit][-1] for costs in each] for unit in base.cost if all(unit in costs for costs in each)}
    return {
        "label": "Smaller network, no exit",
        "method": "baseline",
        "about": "fewer filters or fewer pixels; a straight line between two sizes that were trained",
        "first": True,
        "members": ["unmodified", *map(sizes_in_words, smaller)],
        "params": [records[0].params for records in members],
        "seeds": 1,
        "trainings": [len(records) for records in members],
        "cost": cost,
        "loss": _without(points(by_loss(loss) for loss in LOSSES), "val_accuracy"),
        "budget": {
            unit: _without(points(by_cost(budget / 100, cost[unit]) for budget in BUDGETS), "val_shares")
            for unit in cost
        },
        "curve": {
            "accuracy": [_rounded(interval.estimate, 2) for interval in tested],
            "shares": _shares(np.eye(len(members))),
        },
    }


def _on_a_device(found: Results, records: Iterable[DeviceRecord]) -> dict[str, Any]:
    """Baseline and methods of a benchmark, counted in instructions; empty without a device record of both.

    A device record is of one training. Thresholds, accuracies and exit rates are those of its curve under int8; only
    the records of the data, recipe and start of the benchmark's own baseline count.
    """
    plain = run_of(found.methods["baseline"][0])
    own = [record for record in records if record.setting == (plain.data, plain.recipe, plain.start)]
    base = next((record for record in own if record.is_baseline), None)
    others = [record for record in own if not record.is_baseline]
    if base is None or not others:
        return {}
    named = [short(record) for record in others]
    labels = [
        f"{label}, seed {record.runs[-1].seed}" if named.count(label) > 1 else label
        for label, record in zip(named, others, strict=True)
    ]
    methods = [_device_method(label, record, base) for label, record in zip(labels, others, strict=True)]
    last = {"accuracy": _percent(base.accuracy("int8")[-1]), "low": None, "high": None}
    cost = {ON_A_DEVICE: base.cost(ON_A_DEVICE)[-1]}
    return {"baseline": last | {"seeds": 1, "params": base.params, "cost": cost}, "methods": methods}


def _device_method(label: str, record: DeviceRecord, base: DeviceRecord) -> dict[str, Any]:
    """As `_method`, of a device record; one without exits as `_static` has it, with a single member."""
    alone, curve = len(record.cost("flops")) == 1, record.manifest["curve"]
    cost, whole = record.cost(ON_A_DEVICE), base.cost(ON_A_DEVICE)[-1]
    by_loss = [record.point(base.accuracy("int8", "val")[-1] - loss / 100) for loss in LOSSES]
    by_cost = [record.within(budget / 100 * whole) for budget in BUDGETS]
    rows = np.unique(np.linspace(0, len(curve["test"]) - 1, DEVICE_POINTS).round().astype(int))
    shown: dict[str, Any] = {
        "label": label,
        "method": record.runs[0].method if len(record.runs) == 1 else "cascade",
        "about": f"one training, int8: {record.name}",
        "first": True,
        "params": [record.params] if alone else record.params,
        "seeds": 1,
        "cost": {ON_A_DEVICE: cost.tolist()},
        "loss": _without(_device_points(by_loss, alone), "val_accuracy"),
        "budget": {ON_A_DEVICE: _without(_device_points(by_cost, alone), "val_shares")},
        "curve": {
            "accuracy": [_percent(curve["test"][k]) for k in rows],
            "shares": _shares(np.asarray(curve["shares"])[rows]),
        },
    }
    return shown | ({"members": [label.removesuffix(", no exit")]} if alone else {})


def _device_points(points: Iterable[dict[str, Any] | None], alone: bool) -> dict[str, Any]:
    rows: dict[str, list[Any]] = {key: [] for key in POINTS if not (alone and key == "threshold")}
    for point in points:
        shown: dict[str, Any] = dict.fromkeys(rows) | {"reached": int(point is not None)}
        if point is not None:
            shown |= {key: _percent(point[key]) for key in ("accuracy", "val_accuracy")}
            shown |= {key: _shares(point[key][None])[0] for key in ("shares", "val_shares")}
            if not alone:
                shown["threshold"] = _rounded(point["threshold"], 4)
        for key, values in rows.items():
            values.append(shown[key])
    return rows


def _without(points: dict[str, Any], key: str) -> dict[str, Any]:
    """A grid's points less what it does not order the methods by."""
    return {name: values for name, values in points.items() if name != key}


def _shares(shares: NDArray[np.float64]) -> list[list[float]]:
    """(points, exits) without the last exit, rounded."""
    return [[_rounded(value, 4) for value in row[:-1]] for row in shares]


def _percent(fraction: float | NDArray[np.float64]) -> float:
    return _rounded(100 * fraction, 2)


def _rounded(value: Any, digits: int) -> float:
    return round(float(value), digits)
