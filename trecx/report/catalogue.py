"""Every table of the book, once: what computes it, its caption, units and formats.

The chapters show them and `python -m trecx results` prints them. A table is of one sweep (`TABLES`), of all benchmarks
together (`TOGETHER`), of what goes beyond the paper (`BEYOND`), or of the authors' released weights (`RELEASED`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from trecx.analysis import benchmark, beyond, device, gates, tables, together
from trecx.analysis.claims import printed_counts
from trecx.deploy import records as device_records
from trecx.errors import TrecxError
from trecx.experiments import reference
from trecx.experiments.records import Record
from trecx.experiments.results import alike, gather, published, widened
from trecx.report.page import printed, show_table
from trecx.tasks import TASKS

ALL = "all"  # the name of all benchmarks together for `python -m trecx results`
BEYOND_NAME = "beyond"  # and of what goes beyond the paper
COST = "{cost}"  # stands for the unit of costs


@dataclass(frozen=True)
class Table:
    """A table of the book.

    name: of its file and anchor. compute: results and unit of costs -> frame. caption: one sentence; `{title}` and
    `{samples}` are filled in by the chapter. units, formats: by column; columns that a frame lacks are passed over.
    missing: what stands for NaN. hidden: columns that `python -m trecx results` prints and a page leaves out.
    """

    name: str
    compute: Callable[..., pd.DataFrame]
    caption: str
    units: Mapping[str, str] = field(default_factory=dict)
    formats: Mapping[str, str] = field(default_factory=dict)
    missing: str = "–"
    hidden: tuple[str, ...] = ()

    def show(
        self,
        frame: pd.DataFrame,
        *,
        name: str = "",
        unit: str = "flops",
        title: str = "",
        samples: str = "samples",
        folded: bool | None = None,
    ) -> None:
        """Put a frame on the page under `name`; TrecxError if nothing is in it.

        `folded`: whether a reader opens it first, as `trecx.report.page.show_table`.
        """
        if frame.empty:
            raise TrecxError(f"table {self.name} is empty: these runs have nothing for it")
        frame = frame.drop(columns=[*self.hidden])
        show_table(
            frame,
            name or self.name,
            self.caption.format(title=title, samples=samples),
            units={c: u.format(cost=tables.cost_unit(unit)) for c, u in self.units.items() if c in frame},
            formats={c: f for c, f in self.formats.items() if c in frame},
            missing=self.missing,
            folded=folded,
        )

    def printed(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A frame in the words and numbers of the page, for a terminal, see `trecx.report.page.printed`."""
        units = {c: u.format(cost=tables.cost_unit("flops")) for c, u in self.units.items()}
        return printed(frame, units, self.formats, "-" if self.missing == "–" else self.missing)


def _each(columns: str, value: str) -> dict[str, str]:
    """The same unit or format for several columns, separated by semicolons."""
    return dict.fromkeys(columns.split("; "), value)


_ALONE: dict[str, Any] = {
    "units": {"cost": "MFLOPs"} | _each("accuracy; low; high; paper; authors' weights", "%"),
    "formats": {"cost": ".3f"} | _each("accuracy; low; high; paper; authors' weights", ".2f"),
    "hidden": ("parameters",),
}
_ALONE_OVER = "mean over seeds with its 95 % interval over seeds and test {samples}."
_SAVINGS: dict[str, Any] = {
    "units": {"cost": COST, "drop": "points"}
    | _each("accuracy; exit rate; saved; low; high; saved, paper protocol", "%"),
    "formats": {"threshold": ".3f", "cost": ".2f", "accuracy": ".2f"}
    | _each("exit rate; saved; low; high; saved, paper protocol", ".1f"),
}
_SAVINGS_OVER = (
    "mean over seeds; accuracy on test; reached: seeds with a threshold that keeps the accuracy on validation; 95 % "
    "interval of the saving over seeds alone (three or more), not over other {samples}."
)
_DIFFERENCES: dict[str, Any] = {
    "units": _each("difference; low; high", "points"),
    "formats": _each("difference; low; high", "+.2f") | {"better": ".2f", "p": ".3f", "p, Holm": ".3f"},
}
_STATIC: dict[str, Any] = {
    "units": _each("cost; cost with exit", COST)
    | _each("without exit; with early exit", "%")
    | _each("gain; low; high", "points"),
    "formats": _each("cost; without exit; cost with exit; with early exit", ".2f") | _each("gain; low; high", "+.2f"),
}

TABLES = {
    table.name: table
    for table in (
        Table(
            "runs",
            benchmark.runs,
            "The networks{title}, how often each was trained, what they cost, and the minutes of the fastest run "
            "(which also depend on what else the machine did). The paper's counts are of parameters.",
            {"paper": "thousand"},
            {"minutes": ".0f", "paper": ".1f"},
        ),
        Table(
            "standalone",
            benchmark.standalone,
            f"Standalone test accuracy of every exit{{title}}: {_ALONE_OVER}",
            **_ALONE,
        ),
        Table(
            "table-2",
            benchmark.standalone,
            f"The rows of Table 2{{title}}, every exit alone on the test set: {_ALONE_OVER}",
            **_ALONE | {"hidden": ()},
        ),
        Table(
            "frozen",
            benchmark.frozen,
            f"Standalone test accuracy of every exit{{title}}, heads trained alone on a frozen backbone: {_ALONE_OVER}",
            **_ALONE,
        ),
        Table(
            "frozen-savings",
            benchmark.frozen_savings,
            f"What heads trained alone save{{title}}: {_SAVINGS_OVER}",
            **_SAVINGS,
        ),
        Table(
            "settled",
            benchmark.settled,
            "The paper's differences, and how finely they can be measured here{title}.",
            {"paper": "points", "half-width": "points"},
            {"paper": "+.2f", "half-width": ".2f"},
        ),
        Table(
            "table-1",
            benchmark.table_1,
            "The row of Table 1{title}: mean and 95 % interval over seeds, thresholds from validation, below our "
            "own baseline; the paper's thresholds are from the test set, below the paper's baseline.",
            {},
            _each("ours; low; high; authors' weights; paper", ".2f"),
        ),
        Table(
            "savings",
            benchmark.savings,
            f"What is saved below the mean accuracy of our own baseline{{title}}: {_SAVINGS_OVER}",
            **_SAVINGS,
        ),
        Table(
            "savings-others",
            benchmark.savings_others,
            "The same one point below the other references{title}: the paper's baseline, where its figures apply, and "
            f"each network's own final exit: {_SAVINGS_OVER}",
            **_SAVINGS,
        ),
        Table(
            "savings-all",
            benchmark.all_savings,
            f"What is saved below every reference{{title}}: {_SAVINGS_OVER}",
            **_SAVINGS,
        ),
        Table(
            "differences",
            benchmark.paired,
            "Paired differences in test accuracy{title}, with 95 % intervals.",
            **_DIFFERENCES,
        ),
        Table(
            "static",
            benchmark.static,
            "Smaller networks without exits against early exits at the same mean cost{title}: threshold from "
            "validation, paired by seed, accuracy on test, 95 % interval over seeds and samples. A dash: the method "
            "cannot be that cheap.",
            **_STATIC,
        ),
        Table(
            "loss-weight",
            benchmark.loss_weight,
            "T-RecX under several loss weights{title}, first seed; w is chosen on the final exit's accuracy on "
            "validation.",
            _each("early, validation; final, validation; early, test; final, test", "%"),
            {"w": ".1f"} | _each("early, validation; final, validation; early, test; final, test", ".2f"),
        ),
        Table(
            "placement",
            benchmark.placement,
            "The early exit at several places{title}, and what it saves one point below our own baseline: means "
            "over seeds, and the 95 % interval of the saving.",
            {"cost of the early exit": COST} | _each("early; final; saved at -1 point; low; high", "%"),
            _each("cost of the early exit; early; final", ".2f") | _each("saved at -1 point; low; high", ".1f"),
        ),
        Table(
            "placement-savings",
            benchmark.placement_savings,
            "What an earlier place of the exit saves more than a later one, one point below our own baseline"
            "{title}: percentage points of the unmodified network's cost, paired by seed, with 95 % intervals; "
            "reached: pairs in which both keep the accuracy on validation.",
            _each("saved more; low; high", "points"),
            _each("saved more; low; high", "+.1f"),
        ),
        Table(
            "placement-differences",
            benchmark.placement_differences,
            "A later place of the exit minus an earlier one{title}: paired differences in test accuracy, with "
            "95 % intervals.",
            **_DIFFERENCES,
        ),
        Table(
            "one-more-class",
            benchmark.one_more_class,
            "Accuracy that T-RecX loses to one more class, which no sample has{title}, paired by seed.",
            _each("accuracy lost; low; high", "points"),
            _each("accuracy lost; low; high", "+.2f"),
        ),
        Table(
            "longer",
            benchmark.longer,
            "What claims are judged by{title}, after as many epochs as every other run here and after more: the same "
            "seeds, each time below a baseline that was trained as long; a seed that misses the accuracy on validation "
            "saves nothing; 95 % intervals. Two seeds or fewer get no verdict.",
            {},
            _each("paper; value; low; high", ".2f") | {"epochs": ".0f", "seeds": ".0f"},
        ),
        Table(
            "confusion",
            benchmark.confusion,
            "Wrong answers of T-RecX by class and exit{title}: shares of the persons, and of the images without one, "
            "that each row has; mean over seeds.",
            {"missed": "%", "false alarms": "%"},
            {"images": ".0f", "missed": ".1f", "false alarms": ".1f"},
        ),
        Table(
            "classes",
            benchmark.classes,
            "T-RecX by class{title}: each exit alone, the share that leaves early, and accuracy with the early exit; "
            "mean over seeds.",
            _each("early exit; final exit; leaves early; with early exit", "%"),
            _each("early exit; final exit; leaves early; with early exit", ".1f"),
        ),
        Table(
            "calibration",
            benchmark.calibrated,
            "Calibration of each exit on the test set, before and after the temperature that was fitted on "
            "validation{title}; mean over seeds.",
            _each("accuracy; confidence; ECE; ECE, scaled", "%") | _each("NLL; NLL, scaled", "nats"),
            _each("accuracy; confidence; ECE; ECE, scaled; temperature", ".2f") | _each("NLL; NLL, scaled", ".3f"),
        ),
        Table(
            "oracle",
            benchmark.gates,
            "Which exits are right, in percent of the test samples{title}, and what an oracle gate would reach.",
            _each("both; only early; only final; none; oracle accuracy", "%") | {"oracle cost": COST},
            _each("both; only early; only final; none; oracle accuracy", ".1f") | {"oracle cost": ".2f"},
        ),
        Table(
            "confidences",
            benchmark.early_confidences,
            "The confidences of Figure 5 in numbers{title}: share of test samples in the range, mean and quartiles.",
            {"samples": "%"},
            {"samples": ".1f"} | _each("mean; quartile 1; quartile 3", ".3f"),
        ),
        Table(
            "robustness",
            benchmark.in_noise,
            "Accuracy, exit rate and trust under every condition{title}; means over seeds, as fractions.",
        ),
        Table("claims", benchmark.claims, "The paper's claims{title}, our verdicts, and the numbers behind them."),
    )
}

_TASKS = "ic; kws; vww; CIFAR-10; Speech Commands; Visual Wake Words"  # a page may print their data

TOGETHER = {
    table.name: table
    for table in (
        Table(
            "headline",
            lambda found: together.headline(found, beyond.benchmarks(widened("published", found))),
            "FLOPs saved one point below the accuracy of a reference; 95 % intervals of the mean are over seeds, "
            "those of the unmodified network too, and samples.",
            _each(f"{_TASKS}; mean; low; high", "%"),
            _each(f"{_TASKS}; mean; low; high", ".1f"),
        ),
        Table(
            "headline-intervals",
            together.intervals,
            "FLOPs saved one point below two references, threshold chosen on validation, with 95 % intervals over "
            "samples; 'reached' is the share of resamples.",
            _each("saved; low; high; reached", "%"),
            _each("saved; low; high", ".1f") | {"reached": ".0f"},
            missing="not reached",
        ),
        Table(
            "headline-static",
            together.static,
            "Smaller networks without exits against T-RecX at the same mean cost: accuracy on test, 95 % interval over "
            "seeds and samples, of one seed over samples alone. A dash: T-RecX cannot be that cheap.",
            **_STATIC,
        ),
        Table("claims", together.claims, "The paper's claims, our verdicts, and the numbers behind them."),
        Table(
            "rules",
            together.rules,
            "What the verdict reproduced asks for, on every task that is judged; no verdict is corrected for the "
            "number of claims.",
        ),
        Table(
            "printed-counts",
            lambda found, unit="flops": printed_counts(),
            "Every count that the paper's tables print, and ours.",
            {},
            {"ours": ".3f", "printed": ".2f"},
        ),
        Table(
            "rivals",
            together.rivals,
            "T-RecX against each rival: share of the common cost range in which it is at least as accurate, gain of "
            "the final exit, parameters saved.",
            {"T-RecX ahead": "% of the range", "final exit": "points", "parameters": "% fewer"},
            {"T-RecX ahead": ".0f", "final exit": "+.2f", "parameters": ".1f"},
            missing="no common range",
        ),
        Table(
            "scores",
            together.scores,
            "Accuracy and cost saved two points below our baseline under three measures of confidence.",
            {"accuracy": "%", "reduction": "%"},
            {"accuracy": ".2f", "reduction": ".1f"},
            missing="not reached",
        ),
        Table("runs", together.runs, "Every network of the three sweeps, and what it costs."),
    )
}

BEYOND = {
    table.name: table
    for table in (
        Table(
            "savings",
            beyond.savings,
            "What is saved one point below the accuracy of our own baseline, and at its accuracy, with the price. "
            "Chosen on validation, each seed at its own threshold; a seed that misses the accuracy there runs the "
            "baseline. 95 % intervals over seeds and {samples}; gain: accuracy above networks without exits at the "
            "same cost, paired.",
            _each("saved; low; high; worst case", "%")
            | _each("drop; given up; gain; gain, low; gain, high", "points")
            | {"memory": "KiB"},
            _each("saved; low; high; memory", ".1f")
            | _each("given up", ".2f")
            | _each("gain; gain, low; gain, high", "+.2f")
            | {"parameters": ".0f", "worst case": ".0f"},
        ),
        Table(
            "recommendations",
            beyond.recommendations,
            "What to use when: chosen on validation, on means over seeds, one threshold for all of them; test results "
            "with 95 % intervals over seeds and {samples} at that threshold; the table of savings has a threshold for "
            "each seed, and counts in that other validation samples would choose another one. With a guarantee the "
            "networks lose no more than that, on the mean over seeds, with the given probability.",
            _each("saved; low; high; accuracy; exit rate; worst case", "%") | {"loss": "points"},
            _each("saved; low; high; exit rate", ".1f")
            | {"threshold": ".3f", "accuracy": ".2f", "worst case": ".0f", "loss": "g"},
        ),
        Table(
            "answers",
            beyond.answers,
            "How good an answer is for its cost: exits in the trunk alone, and complete networks; means over seeds.",
            {"cost": COST, "share": "%", "accuracy": "%"},
            {"cost": ".2f", "share": ".1f", "accuracy": ".2f"},
        ),
        Table(
            "tried",
            beyond.tried,
            "Every setting with three trainings or more, where there are any, and cascades of two, answers not mixed: "
            "what it saves one point below our own baseline, beside what smaller networks without exits save; means "
            "over seeds, a seed that misses the accuracy on validation saves nothing.",
            {"saved": "%", "static": "%", "given up": "points"},
            {"saved": ".1f", "static": ".1f", "given up": ".2f"},
        ),
        Table(
            "mixing",
            beyond.mixing,
            "What networks save on validation by the share that an answer keeps of the one before it; nothing is "
            "trained for it. The network of a row is the best one without mixing.",
            {"drop": "points"} | dict.fromkeys(map("{:g}".format, beyond.SHARES), "%"),
            dict.fromkeys(map("{:g}".format, beyond.SHARES), ".1f"),
        ),
        Table(
            "mixed",
            lambda found: beyond.mixing_on_test(beyond.benchmarks(found)),
            "Where validation mixes the answers of a cascade: what that saves on test, beside the best cascade that "
            "does not mix; drop: below our own baseline.",
            {"drop": "points", "saved": "%", "given up": "points"},
            {"drop": "g", "saved": ".1f", "given up": ".2f"},
        ),
        Table(
            "gates",
            gates.gates,
            "What the best network of each way saves one point below our own baseline if another rule says who leaves "
            "early; more: than with one threshold, under which the network was chosen, paired by seed and sample. A "
            "rule is learned on validation, half of the samples for the other half; no network is trained, and what "
            "the rule costs is left out. 95 % intervals over seeds and {samples}, for rules as they were learned.",
            {"saved": "%", "given up": "points"} | _each("more; more, low; more, high", "percentage points"),
            {"saved": ".1f", "given up": ".2f"} | _each("more; more, low; more, high", "+.1f"),
        ),
    )
}


_DEVICE_SAVED = "FLOPs; MACs; instructions; latency; FLOPs, same exits"

# Of all published device records: what computes them takes the records.
ON_A_DEVICE = {
    table.name: table
    for table in (
        Table(
            "answer",
            device.answer,
            "Saved one point below the baseline's accuracy, counted in three units, and the price: threshold from "
            "validation under int8, accuracy on test.",
            {"given up": "points"} | _each("FLOPs; MACs; instructions; exit rate", "%"),
            {"given up": "+.2f"} | _each("FLOPs; MACs; instructions; exit rate", ".1f"),
            missing="not reached",
        ),
        Table(
            "savings",
            device.savings,
            "What is saved below the baseline's accuracy under int8: threshold from validation, accuracy on test; "
            "relative to the baseline in FLOPs, MACs and instructions of a Cortex-M4F. A dash: no threshold keeps "
            "the accuracy. Latency, where measured: float stages on a processor, with the FLOPs of just those exits.",
            {"drop": "points"} | _each(f"accuracy; exit rate; {_DEVICE_SAVED}", "%"),
            {"threshold": ".3f", "accuracy": ".2f"} | _each(f"exit rate; {_DEVICE_SAVED}", ".1f"),
        ),
        Table(
            "costs",
            device.costs,
            "What one inference costs on a Cortex-M4F: instructions up to the first exit and of everything (the most "
            "that a sample costs), the decision's share of the baseline's instructions, and memory. RAM, planned: if "
            "maps that are not needed at the same time shared their place.",
            _each("first exit; all", "million")
            | _each("first, instructions; first, FLOPs; of the baseline; decision", "%")
            | _each("weights; flash; stack; RAM; RAM, planned", "kB"),
            _each("first exit; all; first, instructions; first, FLOPs; of the baseline; per MAC", ".1f")
            | {"decision": ".4f"}
            | _each("weights; flash; stack; RAM; RAM, planned", ".1f"),
        ),
        Table(
            "operators",
            device.operators,
            "Instructions of each kind of operation, fitted over all stages: why instructions are not saved as FLOPs "
            "are.",
            {},
            {"instructions": ".1f"},
        ),
        Table(
            "accuracies",
            device.accuracies,
            "Accuracy of every exit on test in float32 and in int8.",
            _each("float; int8", "%") | _each("lost; lost, validation", "points"),
            _each("float; int8", ".2f") | _each("lost; lost, validation", "+.2f"),
        ),
        Table(
            "thresholds",
            device.thresholds,
            "Thresholds chosen on validation in float32, and what the same thresholds give under int8, on test.",
            {"drop": "points"} | _each("float; int8; exit rate, float; exit rate, int8", "%"),
            {"threshold": ".4f"} | _each("float; int8", ".2f") | _each("exit rate, float; exit rate, int8", ".1f"),
        ),
        Table(
            "sizes",
            device.sizes,
            "Weights, biases and scales as exported, and what int8 saves.",
            _each("float; int8", "kB") | _each("saved; paper", "%"),
            _each("float; int8; saved; paper", ".1f"),
        ),
    )
}


def _released(column: Callable[[Record], pd.DataFrame]) -> pd.DataFrame:
    frames = []
    for record in reference.released():
        frame = column(record)
        for key in ("method", "task"):
            frame.insert(0, key, record.manifest["run"][key])
        frames.append(frame)
    return pd.concat([frame for frame in frames if len(frame)], ignore_index=True)


def _released_accuracies(record: Record) -> pd.DataFrame:
    cost = record.manifest["cost"]["flops"]
    exits = [*map(str, range(1, len(cost))), "final"]
    return pd.DataFrame({"exit": exits, "MFLOPs": np.array(cost) / 1e6, "accuracy": 100 * record.accuracies()})


RELEASED: dict[str, Callable[[], pd.DataFrame]] = {
    "standalone": partial(_released, _released_accuracies),
    "points": lambda: tables.readable(_released(reference.released_points)),  # type: ignore[arg-type]
}


def table(results: str, name: str = "") -> pd.DataFrame:
    """One table of a sweep's published records, of all benchmarks (`all`, `beyond`), of the authors (`reference`),
    or of networks on a microcontroller (`device`).

    Raises:
        TrecxError: unknown results or table, a run without a published record, or nothing in it.
    """
    name, known = _entry(results, name)
    if results == reference.GROUP:
        return known()
    if results == device_records.GROUP:
        on_a_device = known.compute(device_records.published(whole=False))
        if on_a_device.empty:
            raise TrecxError(f"table {name} is empty: {results} has no record for it")
        return on_a_device
    found: Any
    if results == BEYOND_NAME:
        found = {task: alike(task) for task in TASKS}
    else:
        found = gather("published") if results == ALL else published(results)
    try:
        frame: pd.DataFrame = known.compute(found)
    except KeyError as error:
        raise TrecxError(f"table {name} needs records of {error}, which {results} does not have") from error
    if frame.empty:
        raise TrecxError(f"table {name} is empty: {results} has no run for it")
    return frame


def as_text(results: str, name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """A frame that `table` gave for these results and this name, in the words and numbers of the book's pages."""
    known = _entry(results, name)[1]
    return known.printed(frame) if isinstance(known, Table) else printed(frame, missing="-")


def _entry(results: str, name: str) -> tuple[str, Any]:
    """Name and entry of a table, the main one of these results without a name."""
    of_many: dict[str, Mapping[str, Any]] = {
        ALL: TOGETHER,
        BEYOND_NAME: BEYOND,
        reference.GROUP: RELEASED,
        device_records.GROUP: ON_A_DEVICE,
    }
    known = of_many.get(results, TABLES)
    name = name or {ALL: "headline", BEYOND_NAME: "savings", device_records.GROUP: "savings"}.get(results, "standalone")
    if name not in known:
        raise TrecxError(f"unknown table {name!r}: choose one of {', '.join(known)}")
    return name, known[name]
