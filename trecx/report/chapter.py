"""One benchmark's chapter: the tables and figures of one sweep's results, and the values of its running text."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from trecx.analysis import benchmark, tables
from trecx.analysis.claims import TOPICS, VERDICTS
from trecx.experiments.records import Record
from trecx.experiments.results import Results
from trecx.models.methods import label_of
from trecx.report import figures
from trecx.report.catalogue import TABLES
from trecx.report.page import glue, plain, say
from trecx.report.provenance import as_asked, recipe_text, recipes

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

    def show(self, name: str, **options: object) -> pd.DataFrame:
        """Put a table of the catalogue on the page, and return it."""
        frame = TABLES[name].compute(self.found, self.unit, **options)
        TABLES[name].show(frame, name=f"{self.name}-{name}", unit=self.unit, title=self.title, samples=self.samples)
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
        at = self.show("standalone")
        at = at.set_index(["method", at["exit"] == "final"])["accuracy"]
        for key, place in (("baseline", ("Baseline", True)), ("final", ("T-RecX", True)), ("early", ("T-RecX", False))):
            self.glue(key, f"{at[place]:.2f} %")
        base = [100 * r.accuracies("val")[-1] for r in self.found.methods["baseline"]]
        self.glue("baseline-validation", f"{np.mean(base):.2f} %")
        self.glue("seeds", len(self.found.methods["trecx_ev"]))

    def curves(self, *methods: str) -> Figure:
        """Benefit curves of those of the methods that were trained.

        Beside them smaller networks, and on the paper's data its points and the released weights.
        """
        groups = {m: self.found.groups[m] for m in methods if m in self.found.groups}
        own = tables.references(self.found.task, self.found.methods["baseline"], with_paper=False)["own baseline"]
        target = 100 * float(np.ravel(own)[-1]) - 1
        figure = figures.benefit_curves(groups, target=target, unit=self.unit, static=self.found.static, legend=False)
        (ax,) = figure.axes
        if self.with_paper and self.unit == "flops":
            figures.paper_points(ax, self.found.task)
        if self.with_paper:
            figures.released(ax, {m: self.authors[m] for m in methods if m in self.authors}, self.unit)
        figure.set_size_inches(6.2, 6.0)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return figure

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

    def verdicts(self) -> None:
        """The paper's claims that these runs speak to, and glue for them in a line."""
        frame = self.show("claims")
        named = [f"{TOPICS[claim]} ({claim})" for claim in frame["claim"]]
        grouped = [(v, ", ".join(np.array(named)[frame["verdict"] == v])) for v in VERDICTS]
        self.glue("verdicts", "; ".join(f"{verdict}: {claims}" for verdict, claims in grouped if claims))
