"""What an early exit saves below an accuracy: by seed, when samples are drawn anew, and as one interval."""

from dataclasses import dataclass

import numpy as np

from trecx.analysis.tables import Group, method_points
from trecx.evaluation.points import chosen_point, paper_point
from trecx.evaluation.stats import Interval, Jackknife, jackknife, leaving_one_out, mean_of_means
from trecx.paper import paper

# Row of the table (below which reference, how the threshold is chosen) -> reference and protocol of
# `trecx.analysis.tables.method_points`.
WAYS = {
    ("our baseline", "chosen on validation"): ("own baseline", "validation"),
    ("our baseline", "paper protocol"): ("own baseline", "paper"),
    ("the paper's baseline", "paper protocol"): ("paper's baseline", "paper"),
    ("its own final exit", "chosen on validation"): ("own final exit", "validation"),
}
OURS = ("own baseline", "validation")  # the way that the headline and the claims go


@dataclass(frozen=True)
class Saving:
    """What a method saves, percent of the unmodified network's cost, with its 95 % interval.

    by_seed: NaN for a seed that misses the accuracy; interval: such a seed counts as saving nothing, since one would
    then use the unmodified network. It is over seeds, of the unmodified network too, and the samples of validation and
    test together; its ends are NaN with fewer than three seeds, and where every seed misses.
    """

    by_seed: tuple[float, ...]
    interval: Interval

    @property
    def reached(self) -> int:
        """How many seeds keep the accuracy on validation."""
        return int(np.isfinite(self.by_seed).sum())

    @property
    def seeds(self) -> str:
        """The same in words: `2 of 3 seeds`."""
        return f"{self.reached} of {len(self.by_seed)} seeds"


def saved(groups: Group, task: str, method: str = "trecx_ev") -> dict[tuple[str, str], np.ndarray]:
    """FLOPs that a method saves one point below each reference of `WAYS`, percent of the unmodified network's, by seed.

    Way (reference, protocol) -> (seeds,): NaN for a seed that does not reach the accuracy, empty without the runs.
    """
    if not (groups.get(method) and groups.get("baseline")):
        return {way: np.empty(0) for way in WAYS.values()}
    frame = method_points({method: groups[method]}, task, groups["baseline"], with_paper=True, drops=(1,))
    by_way = {way: rows["reduction"].to_numpy(dtype=float) for way, rows in frame.groupby(["reference", "protocol"])}
    return {way: 100 * by_way[way] for way in WAYS.values()}


def redrawn(groups: Group, task: str, resamples: int = 100, seed: int = 0) -> dict[tuple[str, str], np.ndarray]:
    """`saved` of T-RecX when validation and test samples are drawn anew: way -> (resamples, seeds).

    Weights stay; all seeds, and the baseline that sets the reference, see the same draw. Empty without the runs.
    """
    if not (groups.get("trecx_ev") and groups.get("baseline")):
        return {}
    rng = np.random.default_rng(seed)
    ours = [(record.trace("val"), record.trace("test")) for record in groups["trecx_ev"]]
    base = [np.stack([r.trace(split).correct[:, -1] for r in groups["baseline"]]) for split in ("val", "test")]
    cost = groups["baseline"][0].cost()[-1]
    printed = paper()["table_1"][task]["baseline"]["accuracy"] / 100
    rows: dict[tuple[str, str], list[list[float]]] = {way: [] for way in WAYS.values()}
    for _ in range(resamples):
        draws = [rng.integers(hits.shape[1], size=(hits.shape[1],)) for hits in base]
        own = [float(hits[:, draw].mean()) for hits, draw in zip(base, draws, strict=True)]
        drawn = [[trace.take(draw) for trace, draw in zip(pair, draws, strict=True)] for pair in ours]
        for way, kept in rows.items():
            kept.append([])
            for val, test in drawn:
                finals = val.final_accuracy, test.final_accuracy
                wanted = {"own baseline": own, "paper's baseline": (printed, printed), "own final exit": finals}[way[0]]
                chosen_on, target = (accuracy - 1 / 100 for accuracy in wanted)
                if way[1] == "paper":
                    point = paper_point(test, target, cost)
                else:
                    point = chosen_point(val, test, chosen_on, target, cost)
                kept[-1].append(100 * point.reduction)
    return {way: np.array(kept) for way, kept in rows.items()}


def rereferenced(groups: Group, task: str) -> dict[tuple[str, str], Jackknife]:
    """How far the mean of `saved` of T-RecX varies with the trainings of the baseline that sets the reference, by way.

    A seed that misses the accuracy counts as saving nothing here. Empty without the runs.
    """
    if not (groups.get("trecx_ev") and groups.get("baseline")):
        return {}
    base = [*groups["baseline"]]
    rest = [{"trecx_ev": groups["trecx_ev"], "baseline": [r for r in base if r is not left]} for left in base]
    again = [saved(others, task) for others in rest if others["baseline"]]
    return {way: jackknife([np.nan_to_num(values[way]).mean() for values in again]) for way in WAYS.values()}


def saved_interval(groups: Group, task: str) -> Interval:
    """What T-RecX saves one point below our own baseline, threshold from validation: percent, with a 95 % interval.

    Over seeds, those of the baseline too, and, with them, the samples of validation and test; NaN without the runs or
    where a seed misses it.
    """
    values = saved(groups, task)[OURS]
    if not (len(values) and np.isfinite(values).all()):
        return Interval(float("nan"), float("nan"), float("nan"))
    known = float(np.nanvar(redrawn(groups, task)[OURS].mean(1)))
    return mean_of_means([values], known=[known], references=[rereferenced(groups, task)[OURS]])


def saving(
    groups: Group, drop: float = 1, method: str = "trecx_ev", unit: str = "flops", resamples: int = 100
) -> Saving:
    """What a method saves `drop` points below our own baseline, threshold from validation, misses counted as nothing.

    Its interval: Student's over seeds, widened by the variance under `resamples` new draws of validation and test
    samples, which all seeds and the baseline share, and by that of the baseline's mean over its own trainings.
    """
    base = [np.stack([r.trace(split).correct[:, -1] for r in groups["baseline"]]) for split in ("val", "test")]
    cost = float(groups["baseline"][0].cost(unit)[-1])
    traces = [(r.trace("val", unit=unit), r.trace("test", unit=unit)) for r in groups[method]]

    def by_seed(draws: list[np.ndarray] | None = None, reference: tuple[float, float] | None = None) -> np.ndarray:
        on_val, on_test = base if draws is None else [hits[:, d] for hits, d in zip(base, draws, strict=True)]
        of_val, of_test = reference or (float(on_val.mean()), float(on_test.mean()))
        target, tested = of_val - drop / 100, of_test - drop / 100
        found = []
        for pair in traces:
            val, test = pair if draws is None else [t.take(d) for t, d in zip(pair, draws, strict=True)]
            found.append(100 * chosen_point(val, test, target, tested, cost).reduction)
        return np.array(found, dtype=float)

    once = by_seed()
    rng = np.random.default_rng(0)
    sizes = [hits.shape[1] for hits in base]
    again = [np.nan_to_num(by_seed([rng.integers(n, size=n) for n in sizes])).mean() for _ in range(resamples)]
    others = zip(*(leaving_one_out(hits.mean(1)).tolist() for hits in base), strict=True)
    trainings = jackknife([np.nan_to_num(by_seed(reference=pair)).mean() for pair in others])
    interval = mean_of_means([np.nan_to_num(once)], known=[float(np.var(again))], references=[trainings])
    return Saving(tuple(once.tolist()), interval)
