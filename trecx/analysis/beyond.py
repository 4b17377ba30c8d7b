"""Beyond the paper: what other ways of answering early save on the same benchmarks, and at what price.

Everything is chosen on validation; a seed without a threshold that keeps the accuracy there runs the unmodified
network: it saves nothing and gives nothing up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trecx.analysis.choice import FAMILIES, SEEDS, Candidate, candidates, eligible, recommend, thresholds
from trecx.analysis.compare import interpolation
from trecx.evaluation.points import OperatingPoint, chosen_point
from trecx.evaluation.stats import Interval, Jackknife, jackknife, leaving_one_out, mean_of_means, paired_difference
from trecx.evaluation.trace import Trace, at_thresholds, mixed
from trecx.experiments.composed import Cascaded, Shortened, cascade, peak_memory, shorten
from trecx.experiments.records import Record
from trecx.experiments.results import Results
from trecx.models.cascade import mixed_flops
from trecx.models.methods import METHODS

DROPS = (1, 0)  # points below the baseline's mean accuracy
# Row of the table -> what it says. A row takes the best of its candidates on validation, T-RecX has one.
NO_EXIT = ("baseline", "static", "wider")  # families of networks that answer once
ROWS = {
    "trecx": "T-RecX",
    "static": "smaller network, no exit",
    "exits": "best exits in the trunk",
    "cascade": "smaller network first",
    "nested": "narrow network inside",
}
CHOSEN = "chosen on each task"  # the row of the mean over the ways that validation chooses
RESAMPLES = 100
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)  # of the earlier answer, that are tried where answers are mixed
IN_TRUNK, COMPLETE = "exit in the trunk", "complete network"  # where an answer comes from

Found = Mapping[str, Results]  # task -> its runs
_NONE = Interval(np.nan, np.nan, np.nan)
_ROUNDING = 1e-9


class Benchmark:
    """The records of one task, with what every row is measured against."""

    def __init__(self, found: Results, unit: str = "flops") -> None:
        self.found, self.unit = found, unit
        self.candidates = candidates(found)
        self.made = eligible(self.candidates)
        self.baseline = found.methods["baseline"]
        self.base = float(self.baseline[0].cost(unit)[-1])
        # seeds x samples: whether the unmodified network is right
        self.val, self.test = (np.stack([r.trace(s).correct[:, -1] for r in self.baseline]) for s in ("val", "test"))

    @property
    def without_one(self) -> list[tuple[float, float]]:
        """The unmodified network's mean accuracy on validation and test without one of its trainings, each in turn."""
        return [*zip(*(leaving_one_out(hits.mean(1)).tolist() for hits in (self.val, self.test)), strict=True)]

    @cached_property
    def draws(self) -> list[tuple[NDArray[np.int_], NDArray[np.int_]]]:
        """Samples of validation and test, drawn anew; the same for every row, so that rows are paired."""
        rng, val, test = np.random.default_rng(0), self.val.shape[1], self.test.shape[1]
        return [(rng.integers(val, size=(val,)), rng.integers(test, size=(test,))) for _ in range(RESAMPLES)]

    def on_validation(self, traces: Sequence[Trace]) -> dict[float, float]:
        """Drop -> mean saving, percent of the baseline's cost, of what each seed's network did on validation."""
        at = thresholds(traces)
        curves = [at_thresholds(trace, at) for trace in traces]
        saved: dict[float, float] = {}
        for drop in DROPS:
            costs = []
            for curve in curves:
                enough = np.flatnonzero(curve.accuracy >= self.val.mean() - drop / 100 - _ROUNDING)
                costs.append(curve.cost[enough[-1]] if len(enough) else self.base)
            saved[drop] = 100 * (1 - float(np.mean(costs)) / self.base)
        return saved

    @cached_property
    def scores(self) -> list[tuple[Candidate, dict[float, float]]]:
        """Every candidate that could be a row, with what it saves on validation."""
        rows = [one for one in self.made if one.family not in NO_EXIT]
        return [(one, self.on_validation(one.traces("val", self.unit))) for one in rows]

    def best(self, row: str, drop: float, mixed: bool = True) -> tuple[Candidate, float] | None:
        """The candidate of a row that saves most on validation, and how much; None without one.

        `mixed`: also of those that mix their answers.
        """
        families = {"exits": ("exits", "trecx")}.get(row, (row,))
        fitting = [(one, saved[drop]) for one, saved in self.scores if one.family in families]
        fitting = [(one, saved) for one, saved in fitting if mixed or not one.mix]
        if row == "trecx":
            paper = self.found.methods.get("trecx_ev")
            fitting = [(one, saved) for one, saved in fitting if one.records is paper]
        return max(fitting, key=lambda entry: entry[1], default=None)

    @cached_property
    def ladder(self) -> list[Candidate]:
        """Networks without exits, dearest first, the unmodified one first; none that a coin between two others beats.

        Of networks with exits, those that are left when all exits go belong here: a trunk that ends early.
        """
        return unbeaten([one for one in self.made if one.family == "static"], self.made[0], self.unit)


def unbeaten(smaller: Sequence[Candidate], whole: Candidate, unit: str = "flops") -> list[Candidate]:
    """The unmodified network and those cheaper ones that no coin between two others beats, dearest first."""
    rungs = [(float(one.records[0].cost(unit)[-1]), one) for one in [*smaller, whole]]
    kept: list[tuple[float, float, Candidate]] = []  # cost, accuracy on validation
    for cost, one in sorted((rung for rung in rungs if rung[0] < rungs[-1][0]), key=lambda rung: rung[0]) + rungs[-1:]:
        accuracy = float(np.mean([trace.final_accuracy for trace in one.traces("val")]))
        if one is not whole and kept and accuracy <= kept[-1][1]:
            continue
        point = cost, accuracy, one
        while len(kept) > 1 and not _above(kept[-2], kept[-1], point):
            kept.pop()
        kept.append(point)
    return [one for _, _, one in reversed(kept)]


def _above(left: tuple[float, float, Any], middle: tuple[float, float, Any], right: tuple[float, float, Any]) -> bool:
    """Whether a point (cost, accuracy) lies above the straight line between two others."""
    return (middle[1] - left[1]) * (right[0] - left[0]) > (right[1] - left[1]) * (middle[0] - left[0])


@dataclass(frozen=True, eq=False)
class Saving:
    """What one setting saves: percent by seed, with what a table says beside it.

    saved, given_up: (seeds,) percent of the baseline's cost, and points below its mean accuracy on test. reached: seeds
    that keep the accuracy on validation. known: variance of the mean from other samples; reference: from other
    trainings of the unmodified network, which sets the accuracy that is asked for. gain: accuracy above that of
    networks without exits at the same cost, points. score: what it saves on validation. record: of one of its networks.
    worst: cost of a sample that goes through everything, percent of the baseline's.
    """

    network: str
    saved: NDArray[np.float64]
    given_up: NDArray[np.float64]
    reached: int
    known: float
    reference: Jackknife
    gain: Interval
    score: float
    record: Record
    worst: float

    @property
    def interval(self) -> Interval:
        """Mean saving with its 95 % interval over seeds, those of the unmodified network too, and samples."""
        return mean_saving([self])

    def row(self, memory: bool = True) -> dict[str, Any]:
        """Columns of the table; that of memory takes a second for each network."""
        mean = self.interval
        row: dict[str, Any] = {"network": self.network, "saved": mean.estimate, "low": mean.low, "high": mean.high}
        row |= {"given up": float(self.given_up.mean()), "reached": f"{self.reached} of {len(self.saved)}"}
        row |= {"gain": self.gain.estimate, "gain, low": self.gain.low, "gain, high": self.gain.high}
        row |= {"parameters": self.record.params}
        row |= {"memory": peak_memory(self.record) / 1024} if memory else {}
        return row | {"worst case": self.worst}


def mean_saving(lines: Sequence[Saving]) -> Interval:
    """Mean over tasks of what is saved, percent, with its 95 % interval; see `Saving.interval`."""
    known, references = [line.known for line in lines], [line.reference for line in lines]
    return mean_of_means([line.saved for line in lines], known=known, references=references)


def saving(here: Benchmark, one: Candidate, drop: float, score: float) -> Saving:
    """What a setting with exits saves `drop` points below the baseline, each seed at its own threshold."""
    val, test = one.traces("val", here.unit), one.traces("test", here.unit)
    points, saved, lost = by_seed(here, val, test, drop)
    return Saving(
        one.label,
        saved,
        lost,
        sum(point.reached for point in points),
        _variance(here, val, test, drop),
        jackknife([by_seed(here, val, test, drop, pair)[1].mean() for pair in here.without_one]),
        _gain(here, one, points, test),
        score,
        one.records[0],
        100 * float(one.records[0].cost(here.unit)[-1]) / here.base,
    )


def by_seed(
    here: Benchmark,
    val: Sequence[Trace],
    test: Sequence[Trace],
    drop: float,
    reference: tuple[float, float] | None = None,
) -> tuple[list[OperatingPoint], NDArray[np.float64], NDArray[np.float64]]:
    """By seed: the point that validation chooses, what it saves (percent) and gives up on test (points); 0 if none.

    `reference`: accuracy that the drop is counted from, on validation and test; the unmodified network's mean if None.
    """
    on_val, on_test = (x - drop / 100 for x in reference or (here.val.mean(), here.test.mean()))
    points = [chosen_point(v, t, on_val, on_test, here.base) for v, t in zip(val, test, strict=True)]
    saved = np.array([100 * point.reduction if point.reached else 0 for point in points])
    lost = np.array([100 * (here.test.mean() - point.accuracy) if point.reached else 0 for point in points])
    return points, saved, lost


def _variance(here: Benchmark, val: Sequence[Trace], test: Sequence[Trace], drop: float) -> float:
    """Variance of the mean saving when samples are drawn anew and thresholds chosen again; weights stay."""
    grids = [thresholds([trace]) for trace in val]
    means = []
    for chosen_on, tested in here.draws:
        wanted = here.val[:, chosen_on].mean() - drop / 100 - _ROUNDING
        costs = []
        for grid, v, t in zip(grids, val, test, strict=True):
            enough = np.flatnonzero(at_thresholds(v.take(chosen_on), grid).accuracy >= wanted)
            costs.append(t.outcome(grid[enough[-1]])[1][tested].mean() if len(enough) else here.base)
        means.append(100 * (1 - np.mean(costs) / here.base))
    return float(np.var(means))


def _gain(here: Benchmark, one: Candidate, points: Sequence[OperatingPoint], test: Sequence[Trace]) -> Interval:
    """Accuracy above networks without exits at the same mean cost, points, paired by seed and sample.

    Between two trained sizes a coin decides for each sample which of them answers: the straight line between them.
    Below the cheapest of them that one is taken, which costs more. NaN without smaller networks.
    """
    ladder = [_by_seed(rung.records) for rung in here.ladder]
    shared = [k for k, record in enumerate(one.records) if all(record.seed in rung for rung in ladder)]
    if len(ladder) < 2 or not shared:
        return _NONE
    outcomes = []
    for k in shared:
        missed = ladder[0][one.records[k].seed].trace(unit=here.unit)
        outcomes.append(test[k].outcome(points[k].threshold) if points[k].reached else missed.outcome(1.0))
    cost = float(np.mean([paid for _, paid in outcomes]))
    costs = np.array([rung.records[0].cost(here.unit)[-1] for rung in here.ladder])
    # Cost falls along the ladder as accuracy does in `interpolation`, which then finds the place between two costs.
    weights = interpolation(costs, cost) if cost <= costs[0] else np.eye(len(costs))[0]
    theirs = [
        sum(w * rung[one.records[k].seed].trace().correct[:, -1] for w, rung in zip(weights, ladder, strict=True) if w)
        for k in shared
    ]
    return paired_difference(np.stack([right for right, _ in outcomes]), np.stack(theirs)).in_points()


def benchmarks(found: Found, unit: str = "flops") -> dict[str, Benchmark]:
    """What the functions below look at, task by task: made once where several of them are called."""
    return {task: Benchmark(results, unit) for task, results in found.items()}


def _by_seed(records: Sequence[Record]) -> dict[int | None, Record]:
    return {record.seed: record for record in records}


def static_saving(here: Benchmark, drop: float, ladder: Sequence[Candidate] | None = None) -> Saving | None:
    """The same of networks without exits: on the straight line between the two sizes that validation chooses.

    By seed, of the seeds that all sizes have; None without smaller networks. `ladder`: those to choose among, see
    `unbeaten`; by default all of `here`.
    """
    ladder = ladder or here.ladder
    smaller = [_by_seed(rung.records) for rung in ladder[1:]]
    seeds = sorted(set.intersection(*(set(rung) for rung in smaller))) if smaller else []  # type: ignore[type-var]
    if not seeds:
        return None
    costs = np.array([rung.records[0].cost(here.unit)[-1] for rung in ladder])
    val, test = (
        [np.stack([rung[seed].trace(split).correct[:, -1] for rung in smaller]) for seed in seeds]  # sizes x samples
        for split in ("val", "test")
    )

    def weights(k: int, samples: NDArray[np.int_] | slice, top: float | None = None) -> NDArray[np.float64]:
        top = here.val[:, samples].mean() if top is None else top
        return interpolation([top, *val[k][:, samples].mean(1)], top - drop / 100)

    everything = slice(None)
    places = [weights(k, everything) for k in range(len(seeds))]
    tested = [[here.test.mean(), *rows.mean(1)] for rows in test]
    again = [
        np.mean([100 * (1 - weights(k, chosen_on) @ costs / here.base) for k in range(len(seeds))])
        for chosen_on, _ in here.draws
    ]
    others = [
        np.mean([100 * (1 - weights(k, everything, top) @ costs / here.base) for k in range(len(seeds))])
        for top, _ in here.without_one
    ]
    mean = np.mean(places, axis=0)
    ends = [rung for rung, weight in zip(ladder, mean, strict=True) if weight > 0]
    saved = np.array([100 * (1 - place @ costs / here.base) for place in places])
    return Saving(
        " to ".join(dict.fromkeys((ends[0].label, ends[-1].label))),
        saved,
        np.array([100 * (here.test.mean() - place @ row) for place, row in zip(places, tested, strict=True)]),
        len(seeds),
        float(np.var(again)),
        jackknife(others),
        _NONE,
        float(saved.mean()),
        ends[0].records[0],
        100 * float(ends[0].records[0].cost(here.unit)[-1]) / here.base,
    )


def savings(
    found: Found,
    unit: str = "flops",
    here: Mapping[str, Benchmark] | None = None,
    drops: Sequence[float] | None = None,
    memory: bool = True,
) -> pd.DataFrame:
    """What every way saves one point below our own baseline, and at its accuracy, with its price.

    Columns: task (or mean), drop (points), way, chosen ('yes' for the way of a task that saves most on validation,
    smaller networks without exits aside), network (the one that validation chose), saved (percent of the
    baseline's cost), low, high (95 %, over seeds and the samples of validation and test), given up (points on test),
    reached (seeds that keep the accuracy on validation), gain (accuracy in points above networks without exits at the
    same cost, paired, with its 95 % interval), parameters, memory (peak of the activations, KiB in int8), worst case
    (cost of a sample that goes through everything, percent of the baseline's). The rows of the mean end with that of
    the chosen ways. `here`: `benchmarks` of the same results, if they are at hand; `drops`: some of DROPS; `memory`:
    with its column, which takes most of the time.
    """
    here = here or benchmarks(found, unit)
    rows = []
    for drop in DROPS if drops is None else drops:
        made: dict[str, dict[str, Saving]] = {task: {} for task in here}
        for task, benchmark in here.items():
            for way in ROWS:
                if way == "static":
                    line = static_saving(benchmark, drop)
                else:
                    best = benchmark.best(way, drop)
                    line = saving(benchmark, best[0], drop, best[1]) if best else None
                if line:
                    made[task][way] = line
            most = _most_saving(made[task])
            for way, line in made[task].items():
                about = {"task": task, "drop": drop, "way": ROWS[way], "chosen": "yes" if way == most else ""}
                rows.append(about | line.row(memory))
        rows += _means(made, drop)
    return pd.DataFrame(rows)


def chosen(frame: pd.DataFrame, drop: float = 1) -> pd.DataFrame:
    """Rows of `savings` of the way that validation chooses on each task, by task."""
    return frame[(frame["chosen"] == "yes") & (frame["drop"] == drop)].set_index("task")


def _most_saving(lines: Mapping[str, Saving]) -> str | None:
    """The way that saves most on validation, smaller networks without exits aside; None without any."""
    return max((way for way in lines if way != "static"), key=lambda way: lines[way].score, default=None)


def _means(made: Mapping[str, Mapping[str, Saving]], drop: float) -> list[dict[str, Any]]:
    """A row a way that every task has, and one for the best way of each task."""
    lines = {ROWS[way]: [of[way] for of in made.values()] for way in ROWS if all(way in of for of in made.values())}
    best = {task: _most_saving(of) for task, of in made.items()}
    if all(best.values()):
        lines[CHOSEN] = [of[way] for of, way in zip(made.values(), best.values(), strict=True) if way]
    rows = []
    for way, of in lines.items():
        mean = mean_saving(of)
        row = {"task": "mean", "drop": drop, "way": way, "chosen": "", "network": ""}
        if way == CHOSEN:
            row["network"] = "; ".join(line.network for line in of)
        row |= {"saved": mean.estimate, "low": mean.low, "high": mean.high}
        rows.append(row | {"given up": float(np.mean([line.given_up.mean() for line in of]))})
    return rows


def equally_taught(found: Results) -> Results | None:
    """Of the records those that a trained baseline taught, the unmodified network among them; None without that."""
    whole = found.variants.get("baseline, taught by the baseline")
    if not whole:
        return None
    others = {k: v for k, v in found.variants.items() if v is not whole and v[0].run.get("teacher") == "baseline"}
    return Results(found.sweep, found.task, {"baseline": whole}, variants=others, records=found.records)


def taught(found: Found, unit: str = "flops") -> pd.DataFrame:
    """Whether what a teacher gives is more than it gives the unmodified network: tasks on which that was taught, too.

    Columns: task, trainings (of the taught unmodified network), untaught, taught (its accuracy on test in percent, mean
    over seeds), network (the cascade of taught networks that validation chooses), saved (percent, one point below the
    taught unmodified network), low, high (95 %), given up (points on test).
    """
    rows = []
    for task, results in found.items():
        alone = equally_taught(results)
        here = Benchmark(alone, unit) if alone else None
        best = here.best("cascade", 1) if here else None
        if here and best:
            row: dict[str, Any] = {"task": task, "trainings": len(here.baseline)}
            for name, records in (("untaught", results.methods["baseline"]), ("taught", here.baseline)):
                row[name] = _right(records)
            line = saving(here, best[0], 1, best[1]).row(memory=False)
            rows.append(row | {name: line[name] for name in ("network", "saved", "low", "high", "given up")})
    return pd.DataFrame(rows)


def cheaper_head(here: Mapping[str, Benchmark], drop: float = 1) -> pd.DataFrame:
    """What T-RecX saves with an exit head that strides before it widens; empty where a task has none.

    Columns: task (or mean), own (saved by the paper's T-RecX, percent), no EV (the same without early view, as the
    other head has none), saved (with the other head), low, high (95 %), given up (points on test), parameters and worst
    case (percent of the unmodified network's; the largest of the tasks).
    """

    def lines(method: str) -> list[Saving]:
        made = [(on, one, on.found.methods.get(method)) for on in here.values() for one in on.candidates]
        return [saving(on, one, drop, 0) for on, one, records in made if records and one.records is records]

    papers, plain, cheaper = (lines(method) for method in ("trecx_ev", "trecx_no_ev", "trecx_stride_first"))
    if not len(papers) == len(plain) == len(cheaper) == len(here) > 0:
        return pd.DataFrame()
    params = [100 * line.record.params / on.baseline[0].params for line, on in zip(cheaper, here.values(), strict=True)]
    groups = [(task, slice(k, k + 1)) for k, task in enumerate(here)]
    rows: list[dict[str, Any]] = []
    for task, part in [*groups, ("mean", slice(None))]:
        own, without, others = papers[part], plain[part], cheaper[part]
        found = mean_saving(others)
        row: dict[str, Any] = {"task": task, "own": mean_saving(own).estimate, "no EV": mean_saving(without).estimate}
        row |= {"saved": found.estimate, "low": found.low, "high": found.high}
        row |= {"given up": float(np.mean([line.given_up.mean() for line in others]))}
        row |= {"parameters": max(params[part]), "worst case": max(line.worst for line in others)}
        rows.append(row)
    return pd.DataFrame(rows)


def heads_alone(here: Mapping[str, Benchmark]) -> pd.DataFrame:
    """Tasks whose best exits were trained alone, held against the end of the trunk that they leave as it was released.

    Columns: task, released (accuracy there on test, percent, mean over seeds), trained (of our own unmodified network),
    saved (percent, one point below the end of the released trunk), low, high (95 %), given up (points on test).
    """
    rows = []
    for task, benchmark in here.items():
        best = benchmark.best("exits", 1)
        if not best or not best[0].records[0].run.get("frozen"):
            continue
        wholes = [r.whole if isinstance(r, Shortened) else r for r in best[0].records]
        released = Results(task=task, methods={"baseline": [shorten(record, ()) for record in wholes]})
        against = Benchmark(released, benchmark.unit)
        row = {"task": task, "released": 100 * against.test.mean(), "trained": 100 * benchmark.test.mean()}
        line = saving(against, best[0], 1, best[1]).row(memory=False)
        rows.append(row | {name: line[name] for name in ("saved", "low", "high", "given up")})
    return pd.DataFrame(rows)


def nested(frame: pd.DataFrame, here: Mapping[str, Benchmark]) -> pd.DataFrame:
    """Tasks with nested networks: what the one that validation chooses saves, and how good all of it is.

    Columns: task, network, cost (of all of it, percent of the unmodified network's), whole, unmodified (accuracy of all
    of it and of the unmodified network on test, percent, mean over seeds), smaller (the same of networks without exits
    that cost as much as all of it: the straight line between two sizes, NaN beyond them), saved (percent, one point
    below the unmodified network), low, high (95 %), reached (seeds that keep the accuracy on validation). `frame`: see
    `savings`.
    """
    rows = []
    inside = frame[(frame["way"] == ROWS["nested"]) & (frame["drop"] == 1)].set_index("task")
    for task, benchmark in here.items():
        best = benchmark.best("nested", 1)
        if best:
            line, ladder = inside.loc[task], benchmark.ladder[::-1]
            costs = [100 * one.records[0].cost(benchmark.unit)[-1] / benchmark.base for one in ladder]
            accuracies = [_right(one.records) for one in ladder]
            row = {"task": task, "network": line["network"], "cost": line["worst case"]}
            row |= {"whole": _right(best[0].records), "unmodified": _right(benchmark.baseline)}
            row["smaller"] = float(np.interp(row["cost"], costs, accuracies, left=np.nan, right=np.nan))
            rows.append(row | {name: line[name] for name in ("saved", "low", "high", "reached")})
    return pd.DataFrame(rows)


def _right(records: Sequence[Record]) -> float:
    """Accuracy of the last answer on test, percent, mean over seeds."""
    return 100 * float(np.mean([record.accuracies()[-1] for record in records]))


def mixing(found: Found, unit: str = "flops", here: Mapping[str, Benchmark] | None = None) -> pd.DataFrame:
    """What is saved on validation if later answers keep a share of earlier ones; nothing is trained for it.

    Columns: task, drop (points below our own baseline), way, network (the one that validation chooses without mixing),
    and one a share of SHARES: percent saved on validation where each answer keeps so much of the one before: in a
    cascade, the second network's answers of the first network's last; in one network with several exits, every exit's
    of the exit's before, which is mixed itself. `here`: as in `savings`.
    """
    rows: list[dict[str, Any]] = []
    for task, benchmark in (here or benchmarks(found, unit)).items():
        known: dict[str, dict[str, dict[float, float]]] = {}  # network -> share -> drop -> saved
        for drop in DROPS:
            for way in (way for way in ROWS if way != "static"):
                best = benchmark.best(way, drop, mixed=False)
                if best is None:
                    continue
                one = best[0]
                if one.label not in known:
                    known[one.label] = {
                        f"{share:g}": benchmark.on_validation([_mixed(r, share, benchmark.unit) for r in one.records])
                        for share in SHARES
                    }
                row: dict[str, Any] = {"task": task, "drop": drop, "way": ROWS[way], "network": one.label}
                rows.append(row | {share: saved[drop] for share, saved in known[one.label].items()})
    return pd.DataFrame(rows)


def _mixed(record: Record, share: float, unit: str) -> Trace:
    """What a network did on validation if each answer kept `share` of the one before."""
    if isinstance(record, Cascaded):
        return cascade(record.first, record.second, share).trace("val", unit=unit)
    said, cost = record.predictions["val_log_probs"].copy(), record.cost(unit)
    for k in range(1, said.shape[1]):
        said[:, k - 1 : k + 1] = mixed(said[:, k - 1 : k + 1], share, 1)
    if share and unit == "flops":
        (once,) = mixed_flops(said.shape[2], 1)
        cost = cost + once * np.arange(len(cost))
    return Trace.from_log_probs(said, record.predictions["val_labels"], cost, record.rule)


def mixing_on_test(here: Mapping[str, Benchmark]) -> pd.DataFrame:
    """Where validation mixes the answers of a cascade: what it saves on test, beside the best one that does not.

    Columns: task, drop, mixed (yes or no), network, saved (percent), given up (points on test), reached (seeds
    that keep the accuracy on validation); two rows a task and drop.
    """
    columns, rows = ("network", "saved", "given up", "reached"), []
    for drop in DROPS:
        for task, benchmark in here.items():
            best, plain = (benchmark.best("cascade", drop, mixed=mixed) for mixed in (True, False))
            if best is None or plain is None or not best[0].mix:
                continue
            for one, score in (best, plain):
                line = saving(benchmark, one, drop, score).row(memory=False)
                row = {"task": task, "drop": drop, "mixed": "yes" if one.mix else "no"}
                rows.append(row | {name: line[name] for name in columns})
    return pd.DataFrame(rows, columns=["task", "drop", "mixed", *columns])


def recommendations(
    found: Found,
    unit: str = "flops",
    losses: Sequence[float] = (0, 1, 2),
    here: Mapping[str, Benchmark] | None = None,
) -> pd.DataFrame:
    """What to use when: `trecx.analysis.choice.recommend` for several losses, without and with a guarantee of 90 %.

    Columns: task, loss (points), guarantee, method, threshold, saved, low, high, accuracy, exit rate (percent),
    parameters, worst case (percent of the baseline's cost). `here`: as in `savings`.
    """
    rows = []
    for task, benchmark in (here or benchmarks(found, unit)).items():
        for loss in losses:
            for guarantee in (None, 0.9):
                made = recommend(benchmark.candidates, loss=loss, unit=unit, guarantee=guarantee)
                row: dict[str, Any] = {"task": task, "loss": loss, "guarantee": "90 %" if guarantee else "none"}
                row |= {"method": made.method, "threshold": made.threshold, "saved": 100 * made.saved}
                row |= {"low": 100 * made.low, "high": 100 * made.high, "accuracy": 100 * made.accuracy}
                row |= {"exit rate": 100 * made.exit_rate, "parameters": made.params}
                rows.append(row | {"worst case": 100 * made.worst_case})
    return pd.DataFrame(rows)


def answers(found: Found, unit: str = "flops") -> pd.DataFrame:
    """How good an answer is for its cost: every early exit alone, and complete networks that are smaller.

    Columns: task, kind (IN_TRUNK, also of a trunk that ends early, or COMPLETE, as the narrow part of a nested network
    is), fewer (what it has less of: layers, filters or pixels), network, exit, cost (millions), share (percent of the
    baseline's cost), accuracy (percent, test, mean over seeds), seeds.
    """
    rows = []
    for task, results in found.items():
        base = float(results.methods["baseline"][0].cost(unit)[-1])
        for label, records in results.named.items():
            if records[0].run.get("extra_classes"):
                continue
            accuracies = np.mean([record.accuracies() for record in records], axis=0)
            costs = records[0].cost(unit)
            in_trunk = METHODS[records[0].method].in_trunk if len(costs) > 1 else bool(records[0].run.get("ends"))
            pixels = bool(records[0].run.get("resolution") or METHODS[records[0].method].looks)
            for k in range(max(1, len(costs) - 1)):
                row: dict[str, Any] = {"task": task, "kind": IN_TRUNK if in_trunk else COMPLETE, "network": label}
                row["fewer"] = "layers" if in_trunk else "pixels" if pixels else "filters"
                row |= {"exit": k + 1, "cost": costs[k] / 1e6, "share": 100 * costs[k] / base}
                rows.append(row | {"accuracy": 100 * accuracies[k], "seeds": len(records)})
    return pd.DataFrame(rows)


def frontier(rows: pd.DataFrame) -> pd.DataFrame:
    """Of rows of `answers` of one task and kind, those more accurate than everything cheaper; cheapest first.

    Of settings with enough trainings for an interval, where there are any.
    """
    enough = rows["seeds"] >= SEEDS
    rows = rows[enough] if enough.any() else rows
    rows = rows[rows["share"] <= 100 + _ROUNDING].sort_values(["share", "accuracy"], ascending=[True, False])
    return rows[rows["accuracy"] > rows["accuracy"].astype(float).cummax().shift(fill_value=-np.inf)]


def width_over_depth(frame: pd.DataFrame) -> pd.DataFrame:
    """How much more accurate complete networks are than the best exits in the trunk at the same cost, by task.

    Columns: task, fewer (what the smaller complete networks have less of: filters, pixels, `filters or pixels`, empty
    without any), exits (the best ones of the trunk between the cheapest and the dearest complete network), ahead (how
    many of them a complete network beats), gain (mean over them, points). Between two trained sizes a straight line.
    NaN without such an exit. `frame`: see `answers`.
    """
    rows = []
    for task, part in frame.groupby("task", sort=False):
        exits, whole = (frontier(part[part["kind"] == kind]) for kind in (IN_TRUNK, COMPLETE))
        exits = exits[exits["share"].between(whole["share"].min(), whole["share"].max())] if len(whole) else exits[:0]
        gain = np.interp(exits["share"], whole["share"], whole["accuracy"]) - exits["accuracy"] if len(exits) else []
        smaller = sorted(part.loc[(part["kind"] == COMPLETE) & (part["share"] < 100 - _ROUNDING), "fewer"].unique())
        row = {"task": task, "fewer": " or ".join(smaller), "exits": len(exits)}
        row["ahead"] = int(np.sum(np.asarray(gain) > 0))
        rows.append(row | {"gain": float(np.mean(gain)) if len(exits) else np.nan})
    return pd.DataFrame(rows)


def late_exits(frame: pd.DataFrame, most: float = 60) -> pd.DataFrame:
    """How far the best exit of the trunk with at most `most` percent of the cost is from the unmodified network.

    Columns: task, share (percent of the cost), gap (its accuracy minus the unmodified network's, points, test); tasks
    without such an exit are left out. `frame`: see `answers`.
    """
    rows = []
    for task, part in frame.groupby("task", sort=False):
        exits = frontier(part[(part["kind"] == IN_TRUNK) & (part["share"] <= most)])
        if len(exits):
            whole = part.loc[part["network"] == "Baseline", "accuracy"].iloc[0]
            best = exits.iloc[-1]
            rows.append({"task": task, "share": best["share"], "gap": best["accuracy"] - whole})
    return pd.DataFrame(rows, columns=["task", "share", "gap"])


def tried(found: Found, unit: str = "flops", here: Mapping[str, Benchmark] | None = None) -> pd.DataFrame:
    """What every trained setting saves one point below our own baseline: those that fail, too.

    Columns: task, way, network, seeds, reached (seeds that keep the accuracy on validation), saved (percent, mean over
    seeds), given up (points on test), static (what smaller networks without exits save for the same loss). Networks
    made from others, but for cascades, are left out, and so are answers that are mixed; of a task, the best comes
    first. `here`: as in `savings`.
    """
    rows: list[dict[str, Any]] = []
    for task, benchmark in (here or benchmarks(found, unit)).items():
        smaller, start = static_saving(benchmark, 1), len(rows)
        for one in benchmark.made:
            if one.family in NO_EXIT or one.mix or isinstance(one.records[0], Shortened):
                continue
            traces = one.traces("val", benchmark.unit), one.traces("test", benchmark.unit)
            points, saved, lost = by_seed(benchmark, *traces, drop=1)
            row: dict[str, Any] = {"task": task, "way": FAMILIES[one.family], "network": one.label}
            row |= {"seeds": len(points), "reached": sum(point.reached for point in points)}
            row |= {"saved": float(saved.mean()), "given up": float(lost.mean())}
            rows.append(row | {"static": smaller.saved.mean() if smaller else np.nan})
        rows[start:] = sorted(rows[start:], key=lambda row: -row["saved"])
    return pd.DataFrame(rows)
