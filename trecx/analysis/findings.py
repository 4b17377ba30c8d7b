"""A finding about a claim as data: a verdict and the numbers behind it, for text, tables and figures alike."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from trecx.evaluation.stats import Interval

NAN = float("nan")


@dataclass(frozen=True)
class Evidence:
    """One number behind a verdict.

    measure: what is measured, in words; label: where (a task, an exit, a place of the exit, a task and a rival).
    estimate, low, high: the number and its 95 % interval, over seeds and test samples (savings: also validation samples
    and the trainings of the baseline), in `unit`; NaN where there is none. paper: what the paper has there, in the same
    unit, NaN if it says nothing. by_seed: the same number of each seed, NaN for one that missed its target. sides:
    (ours, theirs), what was compared. verdict: that on this number alone, empty where it is only shown beside others.
    """

    measure: str
    label: str
    estimate: float
    unit: str
    low: float = NAN
    high: float = NAN
    paper: float = NAN
    by_seed: tuple[float, ...] = ()
    sides: tuple[float, float] = (NAN, NAN)
    verdict: str = ""

    @classmethod
    def of(cls, measure: str, label: str, interval: Interval, unit: str = "points", paper: float = NAN) -> "Evidence":
        """Evidence that is an interval."""
        return cls(measure, label, interval.estimate, unit, interval.low, interval.high, paper)

    @property
    def interval(self) -> Interval:
        """The number with its interval, as judged."""
        return Interval(self.estimate, self.low, self.high)

    @property
    def seen(self) -> float:
        """The half-width of the interval: an effect that is smaller than it would mostly go unnoticed."""
        return (self.high - self.low) / 2

    @property
    def outside(self) -> bool:
        """Whether the interval excludes what the paper found."""
        return not self.low <= self.paper <= self.high


@dataclass(frozen=True)
class Finding:
    """What was found about a claim.

    claim: C1 to C12. verdict: one of `trecx.analysis.claims.VERDICTS`. evidence: the numbers it rests on, those of one
    measure in the order of their labels. notes: sentences on what was left out, and why.
    """

    claim: str
    verdict: str
    evidence: tuple[Evidence, ...]
    notes: tuple[str, ...] = ()

    def measures(self) -> dict[str, list[Evidence]]:
        """The evidence by measure, in its order."""
        found: dict[str, list[Evidence]] = {}
        for item in self.evidence:
            found.setdefault(item.measure, []).append(item)
        return found

    def renamed(self, names: Mapping[str, str]) -> "Finding":
        """The same with other names for the tasks: `names` is task -> name, for the first word of labels and notes."""

        def other(text: str) -> str:
            first, rest = re.fullmatch(r"(\w*)(.*)", text, flags=re.DOTALL).groups()  # type: ignore[union-attr]
            return names.get(first, first) + rest

        evidence = tuple(replace(item, label=other(item.label)) for item in self.evidence)
        return replace(self, evidence=evidence, notes=tuple(map(other, self.notes)))
