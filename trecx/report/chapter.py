"""What the chapters at full scale have in common: the tables and figures of one sweep's published records.

Every method of `Part` works with whatever is published. Where runs that it needs are missing it says so in one
sentence, so that a chapter can be built at any time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from trecx.analysis import tables
from trecx.analysis.claims import TOPICS, VERDICTS
from trecx.experiments.records import Record
from trecx.experiments.results import Published
from trecx.models import methods
from trecx.models.methods import get_method
from trecx.report import catalogue as results
from trecx.report import figures
from trecx.report.page import glue, having, say, show_table
from trecx.report.provenance import as_asked, recipe_text, recipes
from trecx.report.remarks import NOT_YET

DIFFERENCE = dict.fromkeys(("difference", "low", "high"), "+.2f") | {"better": ".2f", "p": ".3f", "p, Holm": ".3f"}


@dataclass(frozen=True)
class Part:
    """The published runs of one sweep, to be shown.

    Args:
        found: the runs; any may be missing.
        task: of all of them.
        name: first part of the names of tables and glued values.
        title: what ends a caption, such as ', from scratch'.
        unit: of costs, `flops` or `macs`.
        authors: method -> record of released weights, to stand beside where the paper's figures may.
        samples: what the test set has, in the plural.
    """

    found: Published
    task: str
    name: str
    title: str = ""
    unit: str = "flops"
    authors: Mapping[str, Record] = field(default_factory=dict)
    samples: str = "images"

    def __bool__(self) -> bool:
        return bool(self.found.records)

    @property
    def with_paper(self) -> bool:
        """Whether the paper's accuracies stand beside ours, and are a reference."""
        return results.with_paper(self.found)

    @property
    def cost_unit(self) -> str:
        """Of cost columns."""
        return tables.cost_unit(self.unit)

    def having(self, *methods: str) -> bool:
        """Whether every one of these methods has records; if not, the page says so."""
        return having(self.found.groups, *methods)

    def say_missing(self, what: str) -> None:
        """One sentence in place of a table."""
        say(f"*Not shown yet: there is no published run of {what}{self.title}.*")

    def _table(self, frame: pd.DataFrame, name: str, caption: str, **options: Any) -> None:
        show_table(frame, f"{self.name}-{name}", caption, **options)

    # --- what was run ---

    def recipe(self) -> str:
        """The recipe of the first run in words."""
        return recipe_text(self.found.records[0]) if self else NOT_YET

    def sizes(self) -> str:
        """Sizes of the splits in words."""
        if not self:
            return NOT_YET
        sizes = self.found.records[0].manifest["data"]["sizes"]
        return f"{sizes['train']:,} to train on, {sizes['val']:,} for validation, {sizes['test']:,} test {self.samples}"

    def runs(self) -> None:
        """How often each network was trained, and what it costs."""
        glue(f"{self.name}-recipe", self.recipe())
        glue(f"{self.name}-sizes", self.sizes())
        if not self:
            return self.say_missing("this list")
        if missing := len(self.found.missing):
            runs = missing + len(self.found.records)
            say(f"*{missing} of the {runs} runs on the list{self.title} have no published record yet.*")
        for text, names in list(recipes(self.found.records).items())[1:]:
            say(f"*Not of a piece: {', '.join(names)} had another recipe: {text}.*")
        settings = self.found.named
        if apart := [name for name, records in settings.items() if not all(map(as_asked, records))]:
            others = "All others in bfloat16: a comparison between the two also holds what that changes, not measured."
            say(f"*In float32, on a processor without bfloat16: {'; '.join(apart)}. {others}*")
        return self._table(
            results.runs(self.found),
            "runs",
            f"The networks{self.title}, how often each was trained, what they cost, and the minutes of the fastest run "
            "(which also depend on what else the machine did). The paper's counts are of parameters.",
            units={"paper": "thousand"},
            formats={"minutes": ".0f", "paper": ".1f"},
        )

    # --- accuracies ---

    def standalone(self) -> None:
        """Every exit alone, and glue for baseline, early and final exit (texts, in percent) and the number of seeds."""
        groups = self.found.groups
        glue(f"{self.name}-seeds", len(groups.get("trecx_ev", [])))
        if not groups:
            self.say_missing("this list")
            for key in ("baseline", "baseline-validation", "final", "early"):
                glue(f"{self.name}-{key}", NOT_YET)
            return
        alone = results.standalone(self.found, self.authors)
        self._alone(alone, "standalone", f"Standalone test accuracy of every exit{self.title}")
        at = alone.set_index(["method", alone["exit"] == "final"])["accuracy"]
        for key, place in (("baseline", ("Baseline", True)), ("final", ("T-RecX", True)), ("early", ("T-RecX", False))):
            glue(f"{self.name}-{key}", f"{at[place]:.2f} %" if place in at.index else NOT_YET)
        base = [100 * r.accuracies("val")[-1] for r in groups.get("baseline", [])]
        glue(f"{self.name}-baseline-validation", f"{np.mean(base):.2f} %" if base else NOT_YET)

    def frozen(self) -> None:
        """The same for heads trained alone."""
        if not self.found.frozen:
            return self.say_missing("heads trained alone")
        self._alone(
            results.frozen(self.found),
            "frozen",
            f"Standalone test accuracy of every exit{self.title}, heads trained alone on a frozen backbone",
        )
        if not self.having("baseline"):
            return None
        frame = results.frozen_savings(self.found, self.unit)
        return self._savings(frame, "frozen-savings", f"What heads trained alone save{self.title}")

    def _alone(self, alone: pd.DataFrame, name: str, caption: str) -> None:
        percent = [c for c in ("accuracy", "low", "high", "paper", "authors' weights") if c in alone]
        self._table(
            alone.drop(columns="parameters"),
            name,
            f"{caption}: mean over seeds with its 95 % interval over seeds and test {self.samples}.",
            units={"cost": "MFLOPs"} | dict.fromkeys(percent, "%"),
            formats={"cost": ".3f"} | dict.fromkeys(percent, ".2f"),
        )

    def settled(self) -> None:
        """Which of the paper's differences these runs could tell from none."""
        frame = results.settled(self.found) if self else pd.DataFrame()
        if frame.empty:
            return self.say_missing("two methods with a common seed")
        return self._table(
            frame,
            "settled",
            f"The paper's differences, and how finely they can be measured here{self.title}.",
            units={"paper": "points", "half-width": "points"},
            formats={"paper": "+.2f", "half-width": ".2f"},
        )

    # --- curves and operating points ---

    def curves(self, *methods: str) -> Figure:
        """Benefit curves of these methods, beside smaller networks, the paper's points and released weights."""
        groups = {m: self.found.groups[m] for m in methods if self.found.groups.get(m)}
        target = None
        if self.found.methods.get("baseline"):
            own = tables.references(self.task, self.found.methods["baseline"], with_paper=False)["own baseline"]
            target = 100 * float(np.ravel(own)[-1]) - 1
        figure = figures.benefit_curves(groups, target=target, unit=self.unit, static=self.found.static, legend=False)
        (ax,) = figure.axes
        if self.with_paper and self.unit == "flops":
            figures.paper_points(ax, self.task)
        if self.with_paper:
            figures.released(ax, {m: self.authors[m] for m in methods if m in self.authors}, self.unit)
        figure.set_size_inches(6.2, 6.0)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return figure

    def table_1(self, authors: pd.Series | None = None) -> None:
        """The row of Table 1."""
        if not self.having("baseline", "trecx_ev"):
            return None
        row = tables.table_1(self.found.methods, self.task, authors=authors)
        return self._table(
            row,
            "table-1",
            f"The row of Table 1{self.title}: mean and 95 % interval over seeds, thresholds from validation, below our "
            "own baseline; the paper's thresholds are from the test set, below the paper's baseline.",
            formats=dict.fromkeys([c for c in row if c not in ("quantity", "unit")], ".2f"),
        )

    def points(self) -> pd.DataFrame:
        """Operating points of every method and seed, see `tables.points`; empty without a baseline or an exit."""
        groups = {m: records for m, records in self.found.groups.items() if methods.method_of(m).head}
        return (
            results.points(self.found, self.unit) if groups and self.found.methods.get("baseline") else pd.DataFrame()
        )

    def savings(self) -> None:
        """What every method saves, and glue for T-RecX's savings one point below each reference (texts)."""
        every = self.points()
        keys = {"own baseline": "own", "paper's baseline": "constant", "own final exit": "final"}
        if not self.with_paper:
            del keys["paper's baseline"]
        frame = tables.savings(every, [*keys]) if len(every) else pd.DataFrame(columns=["method", "drop"])
        mine = frame[(frame["method"] == get_method("trecx_ev").label) & (frame["drop"] == 1)]
        for reference, key in keys.items():
            for column, protocol in (("saved", "validation"), ("saved, paper protocol", "paper")):
                text = NOT_YET
                if len(mine):
                    row = mine.set_index("reference").loc[reference]
                    seeds = f" ({row['reached']})" if protocol == "validation" else ""
                    text = f"{row[column]:.1f} %" if row[column] == row[column] else f"not reached by every seed{seeds}"
                glue(f"{self.name}-saved-{key}-{protocol}", text)
        if frame.empty:
            return self.say_missing("the baseline and a method with an early exit")
        own = frame["reference"] == "own baseline"
        below = f"What is saved below the mean accuracy of our own baseline{self.title}"
        self._savings(frame[own].drop(columns="reference"), "savings", below)
        others = "the paper's baseline and below each network's" if self.with_paper else "each network's"
        one = frame[~own & (frame["drop"] == 1)].drop(columns="drop")
        return self._savings(one, "savings-others", f"The same one point below {others} own final exit{self.title}")

    def _savings(self, frame: pd.DataFrame, name: str, caption: str) -> None:
        percent = ["accuracy", "exit rate", "saved", "low", "high", "saved, paper protocol"]
        over = (
            "mean over seeds; accuracy on test; reached: seeds with a threshold that keeps the accuracy on validation; "
            f"95 % interval of the saving over seeds alone (three or more), not over other {self.samples}"
        )
        self._table(
            frame,
            name,
            f"{caption}: {over}.",
            units={"cost": self.cost_unit, **({"drop": "points"} if "drop" in frame else {})}
            | dict.fromkeys(percent, "%"),
            formats={"threshold": ".3f", "cost": ".2f"} | dict.fromkeys(percent, ".1f") | {"accuracy": ".2f"},
        )

    # --- comparisons ---

    def differences(self) -> None:
        """Paired differences between methods."""
        paired = results.paired(self.found)
        seeds = max((len(records) for records in self.found.groups.values()), default=0)
        glue(f"{self.name}-least-p", f"{min(1.0, 2 / 2**seeds):.3g}")
        if paired.empty:
            return self.say_missing("two methods with a common seed")
        return self._table(
            paired,
            "differences",
            f"Paired differences in test accuracy{self.title}, with 95 % intervals.",
            units=dict.fromkeys(("difference", "low", "high"), "points"),
            formats=DIFFERENCE,
        )

    def static(self, methods: Sequence[str] = ("trecx_ev",)) -> None:
        """Smaller networks without exits against each method at their cost."""
        have = [m for m in methods if self.found.methods.get(m)]
        if not (have and self.found.static):
            return self.say_missing("smaller networks without exits")
        frames = []
        for method in have:
            frame = results.static(self.found, self.unit, method)
            frame.insert(0, "method", get_method(method).label)
            frames.append(frame)
        return self._table(
            pd.concat(frames, ignore_index=True),
            "static",
            f"Smaller networks without exits against early exits at the same mean cost{self.title}: threshold from "
            "validation, paired by seed, accuracy on test, 95 % interval over seeds and samples. A dash: the method "
            "cannot be that cheap.",
            units=dict.fromkeys(("cost", "cost with exit"), self.cost_unit)
            | dict.fromkeys(("without exit", "with early exit"), "%")
            | dict.fromkeys(("gain", "low", "high"), "points"),
            formats=dict.fromkeys(("cost", "without exit", "cost with exit", "with early exit"), ".2f")
            | dict.fromkeys(("gain", "low", "high"), "+.2f"),
        )

    def weights(self) -> None:
        """Accuracies by loss weight, one seed."""
        if len(self.found.weights) < 2:
            return self.say_missing("other loss weights")
        frame = results.loss_weight(self.found)
        best = frame.loc[frame["final, validation"].idxmax(), "w"]
        percent = list(frame.columns[1:])
        return self._table(
            frame,
            "loss-weight",
            f"T-RecX under several loss weights{self.title}, first seed; w = {best:g} is the best on validation.",
            units=dict.fromkeys(percent, "%"),
            formats={"w": ".1f"} | dict.fromkeys(percent, ".2f"),
        )

    def places(self) -> None:
        """Accuracies and savings by place of the early exit, and paired differences between places."""
        if not self.having("baseline"):
            return None
        several = {method: taps for method, taps in self.found.places.items() if len(taps) > 1}
        if not several:
            return self.say_missing("exits at other places")
        percent = ("early", "final", "saved at -1 point", "low", "high")
        self._table(
            results.placement(self.found, self.unit),
            "placement",
            f"The early exit at several places{self.title}, and what it saves one point below our own baseline: means "
            "over seeds, and the 95 % interval of the saving.",
            units={"cost of the early exit": self.cost_unit} | dict.fromkeys(percent, "%"),
            formats=dict.fromkeys(("cost of the early exit", "early", "final"), ".2f")
            | dict.fromkeys(percent[2:], ".1f"),
        )
        self._table(
            results.placement_savings(self.found, self.unit),
            "placement-savings",
            "What an earlier place of the exit saves more than a later one, one point below our own baseline"
            f"{self.title}: percentage points of the unmodified network's cost, paired by seed, with 95 % intervals; "
            "reached: pairs in which both keep the accuracy on validation.",
            units=dict.fromkeys(("saved more", "low", "high"), "points"),
            formats=dict.fromkeys(("saved more", "low", "high"), "+.1f"),
        )
        return self._table(
            results.placement_differences(self.found),
            "placement-differences",
            f"A later place of the exit minus an earlier one{self.title}: paired differences in test accuracy, with "
            "95 % intervals.",
            units=dict.fromkeys(("difference", "low", "high"), "points"),
            formats=DIFFERENCE,
        )

    def one_more_class(self) -> None:
        """What a class without samples costs (claim C11)."""
        if not (self.found.extra_class and self.having("trecx_ev")):
            return self.say_missing("one more class")
        return self._table(
            results.one_more_class(self.found),
            "one-more-class",
            f"Accuracy that T-RecX loses to one more class, which no sample has{self.title}, paired by seed.",
            units={"accuracy lost": "points", "low": "points", "high": "points"},
            formats={"accuracy lost": "+.2f", "low": "+.2f", "high": "+.2f"},
        )

    def confusion(self, method: str = "trecx_ev") -> None:
        """Whom each exit misses, one point below our own baseline."""
        if not self.having("baseline", method):
            return None
        return self._table(
            results.confusion(self.found, method),
            "confusion",
            f"Wrong answers of {get_method(method).label} by class and exit{self.title}: shares of the persons, and of "
            "the images without one, that each row has; mean over seeds.",
            units={"missed": "%", "false alarms": "%"},
            formats={"images": ".0f", "missed": ".1f", "false alarms": ".1f"},
        )

    def verdicts(self) -> None:
        """The paper's claims that these runs speak to, and glue for them in a line."""
        if not self.found.methods:
            glue(f"{self.name}-verdicts", NOT_YET)
            return self.say_missing("this list")
        frame = results.claims(self.found)
        named = [f"{TOPICS[claim]} ({claim})" for claim in frame["claim"]]
        grouped = [(v, ", ".join(np.array(named)[frame["verdict"] == v])) for v in VERDICTS]
        glue(f"{self.name}-verdicts", "; ".join(f"{verdict}: {claims}" for verdict, claims in grouped if claims))
        return self._table(
            frame,
            "claims",
            f"The paper's claims{self.title}, our verdicts, and the numbers behind them.",
        )
