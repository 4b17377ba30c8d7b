"""One benchmark's chapter: the tables and figures of one sweep's results, and the values of its running text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from trecx.analysis import benchmark, beyond, tables
from trecx.analysis.choice import Candidate
from trecx.analysis.claims import TOPICS, VERDICTS, as_table
from trecx.analysis.compare import against_static, difference
from trecx.analysis.findings import Finding
from trecx.analysis.saving import saving
from trecx.analysis.wording import sizes_in_words
from trecx.experiments.records import Record
from trecx.experiments.results import Results
from trecx.models.methods import label_of
from trecx.paper import paper
from trecx.report import figures, overview, remarks
from trecx.report.catalogue import TABLES
from trecx.report.page import draw, glue, plain, say
from trecx.report.provenance import as_asked, recipe_text, recipes

# Claims about a gain of the final exit -> what is compared.
GAINS = {"C3": "T-RecX minus baseline", "C6": "with minus without EV-assistance"}
# Reference of the operating points -> what the values about it are called in the text.
REFERENCES = {"own baseline": "own", "paper's baseline": "constant", "own final exit": "final"}


@dataclass(frozen=True)
class Part:
    """The results of one sweep, to be shown.

    Args:
        found: the results.
        name: first part of the names of tables.
        key: first part of the names of glued values, the same whatever the results are of.
        title: what ends a caption, such as ', from scratch'.
        unit: of costs, `flops` or `macs`.
        authors: method -> record of released weights, to stand beside where the paper's figures may.
        samples: what the test set has, in the plural.
    """

    found: Results
    name: str
    key: str = ""
    title: str = ""
    unit: str = "flops"
    authors: Mapping[str, Record] = field(default_factory=dict)
    samples: str = "images"

    @property
    def with_paper(self) -> bool:
        """Whether the paper's accuracies stand beside ours, and are a reference."""
        return benchmark.with_paper(self.found)

    def glue(self, name: str, value: object) -> None:
        """Store a value for the running text."""
        glue(f"{self.key or self.name}-{name}", value)

    def show(self, name: str, folded: bool | None = True, **options: object) -> None:
        """Put a table of the catalogue on the page, folded unless told."""
        self._show(name, folded, **options)

    def _show(self, name: str, folded: bool | None = True, **options: object) -> pd.DataFrame:
        frame = TABLES[name].compute(self.found, self.unit, **options)
        about = {"title": self.title, "samples": self.samples}
        TABLES[name].show(frame, name=f"{self.name}-{name}", unit=self.unit, folded=folded, **about)
        return frame

    def runs(self) -> None:
        """How often each network was trained, and what it costs; glue for recipe and sizes."""
        records = self.found.records
        sizes = records[0].manifest["data"]["sizes"]
        self.glue("data", f"{records[0].manifest['data']['title']}, {sizes['test']:,} test {self.samples}")
        self.glue("recipe", recipe_text(records[0]))
        self.glue(
            "sizes",
            f"{sizes['train']:,} to train on, {sizes['val']:,} for validation, {sizes['test']:,} test {self.samples}",
        )
        for text, names in list(recipes(records).items())[1:]:
            say(f"*Not of a piece: {plain(', '.join(names))} had another recipe: {plain(text)}.*")
        apart = [name for name, runs in self.found.named.items() if not all(map(as_asked, runs))]
        if apart and len(apart) < len(self.found.named):
            others = "All others in bfloat16: a comparison between the two also holds what that changes, not measured."
            say(f"*In float32, on a processor without bfloat16: {plain('; '.join(apart))}. {others}*")
        self.show("runs")

    def standalone(self) -> None:
        """Every exit alone, and glue for baseline, early and final exit (texts, in percent) and the number of seeds."""
        at = self._show("standalone")
        at = at.set_index(["method", at["exit"] == "final"])["accuracy"]
        for key, place in (("baseline", ("Baseline", True)), ("final", ("T-RecX", True)), ("early", ("T-RecX", False))):
            self.glue(key, f"{at[place]:.2f} %")
        base = [100 * r.accuracies("val")[-1] for r in self.found.methods["baseline"]]
        self.glue("baseline-validation", f"{np.mean(base):.2f} %")
        self.glue("seeds", len(self.found.methods["trecx_ev"]))

    def curves(self, *methods: str) -> Figure:
        """Benefit curves of those of the methods that were trained, with the smaller networks without exits.

        On the paper's data a second panel has the authors' released weights and what the paper prints: one training
        each, mostly less accurate than ours, so that one panel for both would squeeze the two.
        """
        groups = {m: self.found.groups[m] for m in methods if m in self.found.groups}
        own = tables.references(self.found.task, self.found.methods["baseline"], with_paper=False)["own baseline"]
        target = 100 * float(np.ravel(own)[-1]) - 1
        authors = {m: [self.authors[m]] for m in methods if m in self.authors} if self.with_paper else {}
        printed = self.found.task if self.with_paper and self.unit == "flops" else ""
        return figures.curves_and_released(groups, self.found.static, authors, target, self.unit, printed)

    def show_curves(self, *methods: str, name: str) -> None:
        """Put `curves` on the page, with what they were drawn from; `name` is that of the figure."""
        groups = [self.found.groups.get(m, []) for m in methods]
        beside = [self.authors.get(m) for m in methods] if self.with_paper else []
        draw(self.curves, *methods, name=name, records=[groups, self.found.static, beside])

    def show_smaller(self, name: str, method: str = "trecx_ev") -> None:
        """A figure of what a method is better than each smaller network without exits, at that network's cost."""
        frame = against_static(self.found.methods[method], self.found.static, self.unit)
        frame = frame[np.isfinite(frame["gain"])].rename(columns={"gain": "estimate"})
        frame["label"] = [
            f"{sizes_in_words(str(network))} ({cost:.1f} M)"
            for network, cost in zip(frame["network"], frame["cost"], strict=True)
        ]
        records = [self.found.methods[method], self.found.static]
        label = f"{label_of(method)} minus the smaller network (points)"
        draw(figures.dots, frame, label, name=name, records=records)

    def show_differences(self, name: str, versus: Mapping[str, tuple[str, str]], exit_index: int = -1) -> None:
        """A figure of paired differences at one exit: `versus` is what a row is called -> two methods."""
        groups, printed = self.found.groups, self._printed()
        rows = []
        for label, (first, second) in versus.items():
            if groups.get(first) and groups.get(second):
                gain = difference(groups[first], groups[second], exit_index)
                rows.append({"label": label} | gain._asdict() | {"paper": printed.get((first, second), np.nan)})
        used = [groups.get(m, []) for pair in versus.values() for m in pair]
        draw(figures.dots, pd.DataFrame(rows), "difference in test accuracy (points)", name=name, records=used)

    def show_longer(self, name: str) -> None:
        """A figure of the accuracy gained after longer trainings and after these, a folded table, and glue."""
        frame = self._show("longer")
        for key, text in remarks.longer(frame).items():
            self.glue(f"longer-{key}", text)
        rows = frame[frame["claim"].isin([*GAINS])].rename(columns={"value": "estimate"})
        rows["label"] = [
            f"{GAINS[claim]}, {epochs:g} epochs" for claim, epochs in zip(rows["claim"], rows["epochs"], strict=True)
        ]
        label = "difference in test accuracy (points)"
        draw(figures.dots, rows, label, name=name, records=[*benchmark.trained_longer(self.found)])

    def _printed(self) -> dict[tuple[str, str], float]:
        """What the paper says of the final exit of one method minus that of another, where its figures may stand."""
        if not self.with_paper:
            return {}
        row, gain = paper()["table_1"][self.found.task], paper()["claims"]["C6"]["final_accuracy_gain"]
        return {
            ("trecx_ev", "baseline"): row["trecx"]["final_accuracy"] - row["baseline"]["accuracy"],
            ("trecx_ev", "trecx_no_ev"): gain[self.found.task],
        }

    def show_savings(self, name: str, methods: Sequence[str]) -> None:
        """A figure of what methods save one point below our own baseline, and glue for T-RecX's saving.

        The threshold is chosen on validation; a seed that misses the accuracy counts as saving nothing.
        """
        groups = self.found.groups
        rows: list[dict[str, Any]] = []
        for method in (m for m in methods if m in groups):
            found = saving(groups, 1, method, self.unit)
            missed = "" if found.reached == len(found.by_seed) else f" ({found.seeds})"
            rows.append({"label": label_of(method) + missed} | found.interval._asdict())
            if method == "trecx_ev":
                self.glue("saves", "{:.1f} % [{:.1f}, {:.1f}]".format(*found.interval))
                self.glue("reached", found.seeds)
                rows[-1]["paper"] = paper()["headline"]["reduction"][self.found.task] if self.with_paper else np.nan
        if smaller := self.smaller():
            rows.append({"label": "a smaller network, no exit"} | smaller.interval._asdict())
            self.glue("smaller-saves", "{:.1f} % [{:.1f}, {:.1f}]".format(*smaller.interval))
        used = [groups.get(m, []) for m in ("baseline", *methods)] + [self.found.static]
        draw(
            figures.dots,
            pd.DataFrame(rows),
            f"{'FLOPs' if self.unit == 'flops' else 'MACs'} saved (%)",
            name=name,
            records=used,
        )

    def smaller(self) -> beyond.Saving | None:
        """What the smaller networks that were trained save one point below our own baseline; None without any."""
        here = beyond.Benchmark(self.found, self.unit)
        sizes = [Candidate(label, "static", records) for label, records in self.found.static.items()]
        return beyond.static_saving(here, 1, beyond.unbeaten(sizes, here.made[0], self.unit))

    def findings(self) -> list[Finding]:
        """The claims that these runs speak to, and glue for the verdicts in a line."""
        found = benchmark.findings(self.found)
        grouped = [(v, ", ".join(f"{TOPICS[f.claim]} ({f.claim})" for f in found if f.verdict == v)) for v in VERDICTS]
        self.glue("verdicts", "; ".join(f"{verdict}: {claims}" for verdict, claims in grouped if claims))
        return found

    def points(self) -> pd.DataFrame:
        """Operating points of every method and seed, see `trecx.analysis.tables.method_points`."""
        return benchmark.points(self.found, self.unit)

    def savings(self) -> None:
        """What every method saves, and glue for T-RecX's savings one point below each reference (texts)."""
        frame = benchmark.all_savings(self.found, self.unit)
        mine = frame[(frame["method"] == label_of("trecx_ev")) & (frame["drop"] == 1)].set_index("reference")
        for reference, row in mine.iterrows():
            for column, protocol in (("saved", "validation"), ("saved, paper protocol", "paper")):
                seeds = f" ({row['reached']})" if protocol == "validation" else ""
                text = f"{row[column]:.1f} %" if row[column] == row[column] else f"not reached by every seed{seeds}"
                self.glue(f"saved-{REFERENCES[str(reference)]}-{protocol}", text)
        self.show("savings")
        self.show("savings-others")

    def differences(self) -> None:
        """Paired differences between methods, and glue for the least p that so many seeds can give."""
        seeds = max(len(records) for records in self.found.groups.values())
        self.glue("least-p", f"{min(1.0, 2 / 2**seeds):.3g}")
        self.show("differences")

    def verdicts(self, figure: str = "") -> None:
        """The claims that these runs speak to: a forest plot named `figure`, and a folded table of the evidence."""
        found = self.findings()
        if figure:
            draw(overview.forest, found, name=figure, records=self.found.records)
        TABLES["claims"].show(as_table(found), name=f"{self.name}-claims", title=self.title, folded=True)
