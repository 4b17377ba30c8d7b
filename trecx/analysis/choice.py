"""Choosing on validation what to run: which networks, which exits, which threshold; test is touched once, at the end.

A choice is made on means over seeds, with one threshold for all of them: it is one for networks that a user trains.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from trecx.analysis.compare import pairs
from trecx.analysis.tables import cost_unit
from trecx.errors import TrecxError
from trecx.evaluation.risk import certified_threshold
from trecx.evaluation.stats import paired_difference
from trecx.evaluation.trace import Trace, at_thresholds
from trecx.experiments.composed import MIXED, Cascaded, Shortened, cascade, remainder, shorten, shortenings, sources
from trecx.experiments.records import Record
from trecx.experiments.results import Results
from trecx.models.methods import METHODS

FAMILIES = {
    "baseline": "the unmodified network",
    "static": "a smaller network without exits",
    "wider": "a wider network without exits",
    "trecx": "the paper's exit",
    "exits": "other exits in the trunk",
    "cascade": "a smaller network first",
    "nested": "a narrow network inside the whole one",
}
# Share of the first network's answer in those of the second, of cascades that mix: chosen on the validation images of
# CIFAR-10 and three trainings of each network; see `beyond.mixing`.
MIX = 0.3
SEEDS = 3  # fewer trainings show no interval: such a candidate is taken only where its family has no other

_GRID = 1000  # thresholds that a choice is made among; with a guarantee, each is tried in turn
_TRIED = 200
_FOR_CHOICE = 1 / 3  # share of validation on which a candidate is chosen whose threshold the rest must certify
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Candidate:
    """A setting that could be run: its name, one of FAMILIES, and its records, one a seed."""

    label: str
    family: str
    records: Sequence[Record] = field(repr=False)

    def traces(self, split: str, unit: str = "flops") -> list[Trace]:
        """What each seed's network did on `val` or `test`."""
        return [record.trace(split, unit=unit) for record in self.records]

    @property
    def exits(self) -> int:
        """Number of exits, the final one included."""
        return len(self.records[0].cost())

    @property
    def mix(self) -> float:
        """Share of the first network's answer in those of the second; 0 for all but cascades that mix."""
        first = self.records[0]
        return first.mix if isinstance(first, Cascaded) else 0.0


def candidates(found: Results) -> list[Candidate]:
    """Everything that the records of one task offer, the unmodified network first.

    Networks with exits as they were trained; those with several exits also with fewer, or ending earlier; smaller
    networks without exits; each of these in front of every larger one that is complete, the unmodified network, wider
    ones and nested ones included, seed by seed, once with the second network's answers as they are and once with MIX of
    the first one's in them.

    Raises:
        TrecxError: no record of the unmodified network.
    """
    baseline = found.methods.get("baseline")
    if not baseline:
        raise TrecxError(f"sweep {found.sweep!r} has no baseline, which all others are measured against")
    made = [Candidate("Baseline", "baseline", baseline)]
    for label, records in found.named.items():
        if records is baseline or records[0].run.get("extra_classes"):
            continue
        made.append(Candidate(label, _family(records[0]), records))
        made += _shortened(label, records)
    whole = baseline[0].cost()[-1]
    smaller = [one for one in made if one.family == "static" and one.records[0].method == "baseline"]
    smaller = [one for one in smaller if one.records[0].cost()[-1] < whole]
    larger = [made[0], *smaller, *(one for one in made if one.family in ("wider", "nested"))]
    for first, second in product(smaller, larger):
        if first.records[0].cost()[-1] < second.records[0].cost()[-1] and _seeds(first) & _seeds(second):
            size, comma, more = first.label.removeprefix("Baseline, ").partition(", ")
            size = f"trunk that {size}" if size.startswith("ends") else size
            label = f"{size} first{comma}{more}, then {_then(second.label)}"
            for mix, name in ((0.0, label), (MIX, label + MIXED)):
                both = [cascade(*pair, mix) for pair in pairs(first.records, second.records)]
                made.append(Candidate(name, "cascade", both))
    return made


def _seeds(one: Candidate) -> set[int | None]:
    return {record.seed for record in one.records}


def _then(label: str) -> str:
    """What the second network of a cascade is called behind 'then'."""
    named = {"Baseline": "the baseline", "Nested": "the nested network"}
    name, comma, more = label.partition(", ")
    return more if name == "Baseline" and more else f"{named.get(name, name)}{comma}{more}"


def _family(record: Record) -> str:
    if record.method.startswith("nested"):
        return "nested"
    if len(record.cost()) == 1:
        return "wider" if record.run["width"] > 1 else "static"
    if not METHODS[record.method].in_trunk:
        return "cascade"  # all of the network on fewer pixels, then again on more
    return "trecx" if METHODS[record.method].head == "trecx" else "exits"


def _shortened(label: str, records: Sequence[Record]) -> Iterator[Candidate]:
    """A network with several early exits in its trunk, with every choice of fewer exits and of the end."""
    if not (METHODS[records[0].method].in_trunk and len(records[0].cost()) > 2):
        return
    for exits, end in shortenings(records[0]):
        family = "exits" if exits else "static"
        yield Candidate(f"{label}, {remainder(exits, end)}", family, [shorten(r, exits, end) for r in records])


def eligible(made: Sequence[Candidate]) -> list[Candidate]:
    """Those with enough seeds for an interval; of a family where none has, all."""
    enough = {one.family for one in made if len(one.records) >= SEEDS}
    return [one for one in made if one.family not in enough or len(one.records) >= SEEDS]


@dataclass(frozen=True)
class Recommendation:
    """What to run, and what it did on the test set.

    Attributes:
        method: name of the setting.
        threshold: one for all exits and seeds; None for a network without early exits.
        saved: mean cost saved, as a share of the unmodified network's, mean over seeds.
        low, high: its 95 % interval over seeds and test samples, at this threshold; another draw of the validation
            samples would choose another one, which `trecx.analysis.beyond.Saving` counts in and this does not.
        accuracy: mean over seeds, a fraction.
        exit_rate: share of the samples that leaves before the final exit.
        params: parameters of all networks together.
        worst_case: cost of a sample that goes through everything, as a share of the unmodified network's.
        records: by seed, the names of the records of its networks, a cascade's first network first.
        mix: the share that answers keep of a cascade's first network, 0 for none.
        exits, end: of a record's network that is cut short: the exits that are left, None for it as it was trained,
            and the stage that it ends after, empty for its own end.
    """

    method: str
    threshold: float | None
    saved: float
    low: float
    high: float
    accuracy: float
    exit_rate: float
    params: int
    worst_case: float
    records: tuple[tuple[str, ...], ...]
    mix: float
    exits: tuple[str, ...] | None
    end: str


@dataclass(frozen=True)
class _Choice:
    """A candidate with a threshold, and how good that looked where it was chosen."""

    candidate: Candidate
    threshold: float
    score: float


def recommend(
    found: Results | Sequence[Candidate],
    *,
    loss: float = 1.0,
    budget: float | None = None,
    unit: str = "flops",
    guarantee: float | None = None,
) -> Recommendation:
    """The candidate and threshold that save most on validation for a loss of accuracy, or are best for a budget.

    Args:
        found: records of one task, see `trecx.experiments.results.alike`, or their `candidates`.
        loss: accuracy that may be lost against the unmodified network's mean over seeds, in points.
        budget: in place of a loss, mean cost of a sample in millions of `unit`: then the most accurate is chosen.
        unit: of costs, `flops` (keras-flops) or `macs`.
        guarantee: probability, over the draw of the validation samples, with which the networks at hand lose no more
            than `loss` on the population. A third of validation then chooses the candidate, the rest the threshold
            (`trecx.evaluation.risk`); where nothing passes, the unmodified network is recommended. MIX alone was chosen
            on all of one task's validation.

    Raises:
        TrecxError: loss, budget or guarantee out of range, a guarantee for a budget, or a budget below the cheapest
            network.
    """
    if budget is not None and not 0 < budget < np.inf:
        raise TrecxError(f"budget {budget:g} is impossible: choose a number of millions above 0")
    if not 0 <= loss < 100:
        raise TrecxError(f"loss {loss} is impossible: choose from 0 to below 100 points of accuracy")
    if guarantee is not None and not 0 < guarantee < 1:
        raise TrecxError(f"guarantee {guarantee} is impossible: choose a probability between 0 and 1, such as 0.9")
    if guarantee is not None and budget is not None:
        raise TrecxError("a guarantee is about accuracy lost, not about a budget: give guarantee with loss")
    made = candidates(found) if isinstance(found, Results) else found
    # A choice among all families asks for an interval; only the unmodified network itself may have fewer seeds.
    kept = [made[0], *(one for one in made[1:] if len(one.records) >= min(SEEDS, len(made[0].records)))]
    base = made[0].records[0].cost(unit)[-1]
    if budget is not None:
        best = _within(kept, 1e6 * budget, unit)
    elif guarantee is None:
        best = _saving_most(kept, loss / 100, unit)
    else:
        best = _certified(kept, loss / 100, unit, guarantee)
    return _tested(best, float(base), unit)


def _tested(best: _Choice, base: float, unit: str) -> Recommendation:
    """The test set, once."""
    one = best.candidate
    traces = one.traces("test", unit)
    outcomes = [trace.outcome(best.threshold) for trace in traces]
    saved = 1 - np.stack([cost for _, cost in outcomes]) / base
    interval = paired_difference(saved, np.zeros_like(saved))
    early = [np.mean(trace.leave(best.threshold) < one.exits - 1) for trace in traces]
    first = one.records[0]
    return Recommendation(
        method=one.label,
        threshold=best.threshold if one.exits > 1 else None,
        saved=interval.estimate,
        low=interval.low,
        high=interval.high,
        accuracy=float(np.mean([right for right, _ in outcomes])),
        exit_rate=float(np.mean(early)),
        params=first.params,
        worst_case=float(traces[0].cost[-1] / base),
        records=tuple(tuple(part.name for part in sources(record)) for record in one.records),
        mix=one.mix,
        exits=first.exits if isinstance(first, Shortened) else None,
        end=first.end if isinstance(first, Shortened) else "",
    )


def thresholds(traces: Sequence[Trace], n: int = _GRID) -> NDArray[np.float64]:
    """At most about `n` thresholds, falling from 1 to 0, evenly spread over how sure the networks' exits are."""
    sure = [trace.highest.ravel() for trace in traces]
    inner = np.quantile(np.concatenate(sure), np.linspace(0, 1, n)) if sure[0].size else []
    return np.unique(np.append(inner, [0.0, 1.0]))[::-1]


def _means(traces: Sequence[Trace], at: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Accuracy and cost at each threshold, means over the seeds."""
    curves = [at_thresholds(trace, at) for trace in traces]
    return np.mean([curve.accuracy for curve in curves], axis=0), np.mean([curve.cost for curve in curves], axis=0)


def _cheapest(one: Candidate, traces: Sequence[Trace], target: float) -> _Choice | None:
    """The cheapest threshold that keeps `target`; its score is minus its cost."""
    at = thresholds(traces)
    accuracy, cost = _means(traces, at)
    enough = np.flatnonzero(accuracy >= target - _ROUNDING)
    return _Choice(one, float(at[enough[-1]]), -float(cost[enough[-1]])) if len(enough) else None


def _best(choices: Sequence[_Choice]) -> _Choice:
    return max(choices, key=lambda choice: choice.score)


def _saving_most(made: Sequence[Candidate], loss: float, unit: str) -> _Choice:
    wanted = float(np.mean([trace.final_accuracy for trace in made[0].traces("val", unit)])) - loss
    found = [_cheapest(one, one.traces("val", unit), wanted) for one in made]
    return _best([choice for choice in found if choice])


def _within(made: Sequence[Candidate], budget: float, unit: str) -> _Choice:
    found, least = [], np.inf
    for one in made:
        traces = one.traces("val", unit)
        at = thresholds(traces)
        accuracy, cost = _means(traces, at)
        least = min(least, float(cost.min()))
        allowed = np.where(cost <= budget, accuracy, -np.inf)
        if np.isfinite(allowed.max()):
            best = int(allowed.argmax())
            found.append(_Choice(one, float(at[best]), float(allowed[best])))
    if not found:
        what = cost_unit(unit)
        raise TrecxError(
            f"budget {budget / 1e6:g} is below the cheapest network: choose {least / 1e6:.4g} {what} or more"
        )
    return _best(found)


def _certified(made: Sequence[Candidate], loss: float, unit: str, guarantee: float) -> _Choice:
    whole = made[0]
    hits = np.mean([trace.correct[:, -1] for trace in whole.traces("val", unit)], axis=0)
    order = np.random.default_rng(0).permutation(len(hits))
    chosen_on, rest = np.split(order, [round(_FOR_CHOICE * len(order))])
    wanted = float(hits[chosen_on].mean()) - loss
    # What a candidate saves without a guarantee bounds what it saves with one, so the best are looked at first.

    def seen(one: Candidate, samples: NDArray[np.int_]) -> list[Trace]:
        return [trace.take(samples) for trace in one.traces("val", unit)]

    hopes = [_cheapest(one, seen(one, chosen_on), wanted) for one in made]
    best = _Choice(whole, 1.0, -float(whole.records[0].cost(unit)[-1]))
    for hope in sorted((hope for hope in hopes if hope), key=lambda choice: -choice.score):
        if hope.score <= best.score:
            break
        here = seen(hope.candidate, chosen_on)
        passed = certified_threshold(here, hits[chosen_on], loss, guarantee, thresholds(here, _TRIED))
        if passed is not None:
            cost = float(_means(here, np.array([passed]))[1][0])
            best = _best([best, _Choice(hope.candidate, passed, -cost)])
    tried = thresholds(seen(best.candidate, chosen_on), _TRIED)
    passed = certified_threshold(seen(best.candidate, rest), hits[rest], loss, guarantee, tried)
    return _Choice(whole, 1.0, 0.0) if passed is None else _Choice(best.candidate, passed, 0.0)
