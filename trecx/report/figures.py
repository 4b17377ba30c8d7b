"""The book's figures, each drawn from run records. Styles come from `trecx.report.style`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from trecx.analysis.beyond import COMPLETE, IN_TRUNK, ROWS, Benchmark, frontier
from trecx.analysis.tables import Group, cost_unit, early_confidences
from trecx.evaluation.calibration import expected_calibration_error, reliability_bins, scaled
from trecx.evaluation.trace import benefit_curve, confidence, mean_line, varied
from trecx.experiments.records import Record, mean_accuracy, temperatures
from trecx.experiments.robustness import RobustnessRecord, summary
from trecx.models.methods import label_of, method_of
from trecx.paper import paper
from trecx.report.style import COLOURS, WAYS, labelled, style
from trecx.tasks import TASKS

_PLACES = (  # looks of the places of an exit, from the input on
    {"color": "#C44E00", "linestyle": "--", "marker": "^"},
    {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    {"color": "#00865F", "linestyle": "-.", "marker": "s"},
)

NAME_SIZE = 10  # points, of a curve's name at its end
PANEL = 2.3  # inches: about the height of one of two panels
LOWEST = 15  # points below one point below the baseline: what is less accurate is cut off


def _subplots(rows: int = 1, columns: int = 1, *, figsize: tuple[float, float] | None = None, **kwargs: Any) -> Any:
    """Like `plt.subplots`, without pyplot: a figure that a cell returns is then shown once, not twice."""
    figure = Figure(figsize=figsize, layout="constrained")
    return figure, figure.subplots(rows, columns, **kwargs)


def learning_curves(records: Sequence[Record]) -> Figure:
    """Validation accuracy by epoch: the final exit solid, earlier exits dashed, a colour a method."""
    figure, ax = _subplots()
    for record in records:
        look = style(record.manifest["run"]["method"])
        columns = [c for c in record.history if c.startswith("val_accuracy")]
        for k, column in enumerate(columns):
            final = k == len(columns) - 1
            label = look["label"] + (", final" if final else f", exit {k + 1}") * (len(columns) > 1)
            dashes = "-" if final else "--"
            values = 100 * record.history[column]
            ax.plot(record.history.epoch, values, color=look["color"], linestyle=dashes, label=label)
    ax.set(xlabel="epoch", ylabel="validation accuracy (%)")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend()
    return figure


def draw_curves(ax: Axes, groups: Group, unit: str = "flops") -> None:
    """Benefit curves of several methods, the mean over seeds in bold; a network without early exit is a dot.

    Mean FLOPs are given in millions, accuracies in percent. A curve ends left where every sample leaves
    at the first exit and right where every sample runs to the end.
    """
    for method, records in groups.items():
        look = style(method)
        if not method_of(method).head:
            cost = [record.manifest["cost"][unit][-1] / 1e6 for record in records]
            accuracy = [100 * record.accuracies()[-1] for record in records]
            look |= {"linestyle": "none", "markersize": 8, "zorder": 5}
            ax.plot([np.mean(cost)], [np.mean(accuracy)], **look)
            continue
        _draw_seeds(ax, records, look, unit)
    ax.set(xlabel=f"mean {cost_unit(unit)} per sample", ylabel="test accuracy (%)")


def _draw_seeds(ax: Axes, records: Sequence[Record], look: Mapping[str, Any], unit: str) -> None:
    """The benefit curves of one setting: their mean in bold, a thin line a seed where there are several."""
    lines = [curve_line(record, unit) for record in records]
    for x, y in lines if len(lines) > 1 else []:
        ax.plot(x, y, color=look["color"], linestyle=look["linestyle"], linewidth=0.6, alpha=0.4)
    ax.plot(*mean_line(lines), **look, markevery=0.12)


def curve_line(record: Record, unit: str = "flops") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A record's benefit curve as millions (rising) and percent."""
    curve = benefit_curve(record.trace(unit=unit))
    order = np.argsort(curve.cost, kind="stable")
    return curve.cost[order] / 1e6, 100 * curve.accuracy[order]


def benefit_curves(
    groups: Group,
    *,
    target: float | None = None,
    unit: str = "flops",
    static: Mapping[str, Sequence[Record]] | None = None,
) -> Figure:
    """One panel of `draw_curves`, with a line at `target` percent (the accuracy one point below the baseline).

    `static` adds smaller networks without exits, see `static_points`.
    """
    figure, ax = _subplots(figsize=(6.2, 4.4))
    draw_curves(ax, groups, unit)
    if target is not None:
        ax.axhline(target, color="#767676", linewidth=1, linestyle=":", label="baseline - 1 point")
    static_points(ax, static or {}, unit)
    ax.legend(loc="lower right")
    return figure


def label_ends(ax: Axes, height: float) -> list[str]:
    """Write the names of curves at their right ends, one below the other where ends are close; return those names.

    Where a curve ends far left of another, its name would stand among others' lines: then none is written, and the
    names are for the legend. `height`: of the axes, in inches.
    """
    low, high = ax.get_ylim()
    left, right = ax.get_xlim()
    ends = []
    for line in ax.lines:
        x, y = (np.ravel(np.asarray(values, dtype=float)) for values in line.get_data())
        curve = line.get_transform() == ax.transData and x.size > 1 and line.get_linestyle() != "None"
        if curve and not str(line.get_label()).startswith("_"):
            if x[-1] < right - 0.35 * (right - left):
                return []
            ends.append((float(y[-1]), float(x[-1]), line))
    ends.sort(key=lambda end: end[0])
    step = 1.35 * NAME_SIZE / 72 / height
    places: list[float] = [(y - low) / (high - low) for y, _, _ in ends]
    for k in range(1, len(places)):
        places[k] = max(places[k], places[k - 1] + step)
    for k, most in enumerate(reversed([1.0 - step * k for k in range(len(places))])):
        places[k] = min(places[k], most)
    for (end, reach, line), place in zip(ends, places, strict=True):
        look: dict[str, Any] = {"color": line.get_color(), "fontsize": NAME_SIZE, "va": "center"}
        leader = {"arrowstyle": "-", "color": line.get_color(), "linewidth": 0.6, "shrinkA": 1, "shrinkB": 2}
        where: dict[str, Any] = {"xycoords": "data", "textcoords": "axes fraction", "arrowprops": leader}
        ax.annotate(str(line.get_label()), (reach, end), (1.04, place), annotation_clip=False, **where, **look)
    return [str(line.get_label()) for _, _, line in ends]


def curves_and_released(
    groups: Group,
    static: Group,
    authors: Group,
    target: float,
    unit: str = "flops",
    printed: str = "",
) -> Figure:
    """Benefit curves of our trainings above, and those of the authors' released weights below, if there are any.

    Accuracies far below the baseline are cut off: they would squeeze what is compared.

    target: percent, one point below our baseline. printed: the task whose points in Table 1 stand in the lower panel.
    """
    below = bool(authors or printed)
    figure, axes = _subplots(1 + below, figsize=(6.2, 6.6 if below else 4.6), sharex=True, squeeze=False)
    ours = axes[0, 0]
    draw_curves(ours, groups, unit)
    ours.axhline(target, color="#767676", linewidth=1, linestyle=":", label="baseline - 1 point")
    static_points(ours, static, unit)
    if below:
        ours.set_title("Trained here, the mean over seeds", loc="left")
        ours.set_xlabel("")
        theirs = axes[1, 0]
        draw_curves(theirs, authors, unit)
        title = "The authors' released weights, one training each" if authors else "As the paper prints"
        theirs.set_title(title, loc="left")
        if printed:
            paper_points(theirs, printed)
    handles: dict[str, Any] = {}
    for ax in axes[::-1, 0]:
        ax.set_ylim(bottom=max(ax.get_ylim()[0], target - LOWEST))
    for ax in axes[::-1, 0]:
        named = label_ends(ax, PANEL)
        handles |= {name: handle for name, handle in labelled(ax).items() if name not in named}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2 + (len(handles) < 7))
    return figure


def panels(tasks: Mapping[str, Group], unit: str = "flops", static: Mapping[str, Group] | None = None) -> Figure:
    """One panel of `draw_curves` a task, one below the other, with a common legend.

    `static` adds a task's smaller networks without exits, see `static_points`.
    """
    figure, axes = _subplots(len(tasks), figsize=(5.4, 3.3 * len(tasks) + 0.8), squeeze=False)
    handles: dict[str, Any] = {}
    for ax, (title, groups) in zip(axes[:, 0], tasks.items(), strict=True):
        draw_curves(ax, groups, unit)
        static_points(ax, (static or {}).get(title, {}), unit)
        ax.set_title(title)
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
    return figure


def confidence_violins(groups: Group, low: float = 0.65, high: float = 0.9) -> Figure:
    """Distribution of the first exit's largest softmax in [low, high), all seeds together (Fig. 5)."""
    rows = []
    for method, records in groups.items():
        label = label_of(method)
        rows += [{"method": label, "confidence": value} for value in early_confidences(records, low, high)]
    figure, ax = _subplots()
    sns.violinplot(
        pd.DataFrame(rows, columns=["method", "confidence"]),
        x="method",
        y="confidence",
        order=[label_of(m) for m in groups],
        hue="method",
        palette={label_of(m): COLOURS[method_of(m).name] for m in groups},
        cut=0,
        inner="quart",
        ax=ax,
        alpha=0.6,
    )
    ax.set(xlabel="", ylabel="largest softmax at the early exit")
    return figure


def placement(groups: Mapping[str, Sequence[Record]], baseline: Sequence[Record]) -> Figure:
    """Final and early accuracy by place of the exit (Fig. 2); the dashed line is the unmodified network, if given."""
    figure, ax = _subplots()
    taps = list(groups)
    for exit_index, (label, colour, marker) in enumerate(
        [("early exit", "#C44E00", "s"), ("final exit", "#0072B2", "o")]
    ):
        values = [[100 * r.accuracies()[exit_index] for r in groups[tap]] for tap in taps]
        ax.plot(range(len(taps)), [np.mean(v) for v in values], color=colour, marker=marker, label=label)
        for k, v in enumerate(values):
            ax.plot([k] * len(v), v, color=colour, marker=marker, linestyle="none", alpha=0.35, markersize=4)
    if baseline:
        mean = np.mean([100 * r.accuracies()[-1] for r in baseline])
        ax.axhline(mean, color="#000000", linestyle="--", linewidth=1.2, label="baseline")
    ax.set_xticks(range(len(taps)), [f"after {tap}" for tap in taps])
    ax.set(ylabel="test accuracy (%)")
    ax.legend()
    return figure


def placement_curves(
    groups: Mapping[str, Sequence[Record]], baseline: Sequence[Record] = (), unit: str = "flops"
) -> Figure:
    """Benefit curves by place of the exit: the mean over seeds, a thin line a seed, and the unmodified network."""
    figure, ax = _subplots(figsize=(6.2, 4.4))
    for (tap, records), look in zip(groups.items(), _PLACES, strict=False):
        _draw_seeds(ax, records, look | {"label": f"after {tap}"}, unit)
    if baseline:
        draw_curves(ax, {"baseline": baseline}, unit)
    ax.set(xlabel=f"mean {cost_unit(unit)} per sample", ylabel="test accuracy (%)")
    ax.legend(loc="lower right")
    return figure


def loss_weight(groups: Mapping[float, Sequence[Record]]) -> Figure:
    """Validation accuracy of both exits by the loss weight w: what w is chosen on."""
    figure, ax = _subplots()
    weights = sorted(groups)
    for k, (label, colour, marker) in enumerate([("early exit", "#C44E00", "s"), ("final exit", "#0072B2", "o")]):
        means = [np.mean([100 * r.accuracies("val")[k] for r in groups[w]]) for w in weights]
        ax.plot(weights, means, color=colour, marker=marker, label=label)
    ax.set(xlabel="loss weight w of the early exit", ylabel="validation accuracy (%)")
    ax.legend()
    return figure


def confidences(record: Record) -> Figure:
    """Share of right and wrong answers of the first exit by its confidence."""
    trace = record.trace()
    figure, ax = _subplots()
    bins = np.linspace(0, 1, 21).tolist()
    right, wrong = trace.scores[trace.correct[:, 0], 0], trace.scores[~trace.correct[:, 0], 0]
    ax.hist([right, wrong], bins, stacked=True, color=["#0072B2", "#C44E00"], label=["right", "wrong"])
    ax.set(xlabel="largest softmax at the early exit", ylabel="test samples")
    ax.legend(loc="upper left")
    return figure


def reliability(records: Sequence[Record], bins: int = 10) -> Figure:
    """Reliability diagram of each exit on the test set, all seeds together: confidence against accuracy.

    Bars are the recorded confidences, open circles those under the temperature fitted on validation; the dotted
    diagonal is perfect. Grey bars below: how many samples have such a confidence.
    """
    exits = records[0].predictions["test_log_probs"].shape[1]
    figure, axes = _subplots(
        2, exits, figsize=(3.1 * exits, 4.2), height_ratios=[4, 1], sharex=True, sharey="row", squeeze=False
    )
    fitted = [temperatures(record) for record in records]
    right = np.concatenate([record.trace().correct for record in records])
    raw = [record.predictions["test_log_probs"] for record in records]
    before = confidence(np.concatenate(raw))
    after = confidence(np.concatenate([scaled(x, t) for x, t in zip(raw, fitted, strict=True)]))
    for k, (ax, below) in enumerate(axes.T):
        table = reliability_bins(before[:, k], right[:, k], bins)
        middle, width = (table.low + table.high) / 2, 0.92 / bins
        ax.bar(middle, 100 * table.accuracy, width, color="#0072B2", alpha=0.75, label="as trained")
        points = reliability_bins(after[:, k], right[:, k], bins)
        look: dict[str, Any] = {"color": "#C44E00", "marker": "o", "linestyle": "none", "markerfacecolor": "none"}
        ax.plot(points.confidence, 100 * points.accuracy, **look, label="with temperature")
        ax.plot([0, 1], [0, 100], color="#767676", linewidth=1, linestyle=":")
        ece = 100 * expected_calibration_error(before[:, k], right[:, k])
        name = "final exit" if k == exits - 1 else "early exit" if exits == 2 else f"exit {k + 1}"
        ax.set_title(f"{name}, ECE {ece:.1f} %")
        below.bar(middle, 100 * table["count"] / table["count"].sum(), width, color="#767676")
        below.set(xlabel="largest softmax", xlim=(0, 1))
    axes[0, 0].set(ylabel="accuracy (%)", ylim=(0, 100))
    axes[1, 0].set(ylabel="samples (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def examples(
    x: NDArray[np.generic], labels: NDArray[np.integer], record: Record, classes: Sequence[str], n: int = 6
) -> Figure:
    """Test inputs (N, H, W, C) on which the first exit is surest (top row) and least sure (bottom row).

    Each shows its class and the exit's confidence; one sample a class first, so that the rows are not all alike.
    """
    scores = record.trace().scores[:, 0]
    rows = [k for order in (np.argsort(-scores), np.argsort(scores)) for k in varied(order, labels, n)]
    return example_rows(x[rows], labels[rows], scores[rows], classes)


def example_rows(
    x: NDArray[np.generic], labels: NDArray[np.integer], scores: NDArray[np.floating], classes: Sequence[str]
) -> Figure:
    """Inputs (2n, H, W, C) with class and confidence: the first half leaves early, the second goes on."""
    n = len(x) // 2
    figure, axes = _subplots(2, n, figsize=(1.35 * n, 3.6))
    for ax, sample, label, score in zip(axes.flat, x, labels, scores, strict=True):
        if sample.shape[2] == 1:
            ax.imshow(sample[:, :, 0].T, aspect="auto", origin="lower", cmap="viridis")
        else:
            ax.imshow(sample)
        ax.set_title(f"{classes[label]}\n{score:.2f}", fontsize=10)
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
    axes[0, 0].set_ylabel("exits early")
    axes[1, 0].set_ylabel("goes on")
    return figure


def robustness(groups: Mapping[str, Sequence[RobustnessRecord]]) -> Figure:
    """Accuracy of networks at their thresholds (left), and who leaves early (right), under every condition.

    Means over seeds, percent. The right panel and the single exits are of the first method with an early exit.
    """
    figure, (left, right) = _subplots(1, 2, figsize=(8.2, 5.0), sharey=True)
    conditions: list[str] = []
    for method, records in groups.items():
        frame = summary(records)
        conditions = frame["condition"].tolist()
        look = style(method) | {"linestyle": "none", "markersize": 7}
        left.plot(100 * frame["accuracy"], range(len(frame)), **look)
        if method_of(method).head and not right.patches:
            wrong, share = 100 * frame["wrong_early"], 100 * frame["exit_rate"]
            place = np.arange(len(frame))
            right.barh(place, share - wrong, color="#0072B2", label="leaves early, right")
            right.barh(place, wrong, left=share - wrong, color="#C44E00", hatch="//", label="leaves early, wrong")
            last = max(column for column in frame if column.startswith("accuracy_"))
            left.plot(100 * frame["accuracy_1"], place, "x", color="#C44E00", label="its early exit alone")
            left.plot(100 * frame[last], place, "+", color="#00865F", markersize=8, label="its final exit alone")
    left.set_yticks(range(len(conditions)), conditions)
    left.invert_yaxis()
    left.set(xlabel="accuracy (%)", xlim=(0, 100))
    right.set(xlabel="test clips (%)", xlim=(0, 100))
    for ax in (left, right):
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=1)
    return figure


def static_points(ax: Axes, groups: Mapping[str, Sequence[Record]], unit: str = "flops") -> None:
    """Smaller networks without exits as open circles: the competitor that an early exit must beat.

    `groups`: what was changed (`width 0.75`, `resolution 64`) -> records. A name that would cover another is left out.
    """
    found = sorted(
        (
            np.mean([r.manifest["cost"][unit][-1] / 1e6 for r in records]),
            np.mean([100 * r.accuracies()[-1] for r in records]),
            label.replace("width ", "×").replace("resolution ", "") + " px" * label.startswith("resolution"),
        )
        for label, records in groups.items()
    )
    if not found:
        return
    costs, accuracies, _ = zip(*found, strict=True)
    ax.plot(costs, accuracies, "o", markerfacecolor="none", color="#000000", label="Baseline, smaller")
    ax.margins(x=0.1, y=0.1)  # room for the names
    left, right = ax.get_xlim()
    last = {5: -np.inf, -14: -np.inf}  # the last name's cost, above and below the circles (offset in points)
    for cost, accuracy, name in found:
        offset = next((y for y, x in last.items() if cost - x > 0.12 * (right - left)), None)
        if offset is None:
            continue
        last[offset] = cost
        text = ax.annotate(name, (cost, accuracy), (0, offset), textcoords="offset points", ha="center", fontsize=9)
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])  # readable on top of curves


def ways(benchmark: Benchmark, drop: float = 1) -> Figure:
    """Benefit curves of T-RecX and of the best of every other way, as validation chose them for `drop` points of loss.

    The unmodified network is the black square, smaller ones without exits the open circles on a thin line; the dotted
    line is the accuracy that is kept.
    """
    figure, ax = _subplots(figsize=(6.2, 4.4))
    _draw_ways(ax, benchmark, drop)
    ax.legend(loc="lower right")
    return figure


def all_ways(benchmarks: Mapping[str, Benchmark], drop: float = 1) -> Figure:
    """`ways` of several benchmarks, a panel each, one below the other, with a common legend; title -> benchmark."""
    figure, axes = _subplots(len(benchmarks), figsize=(5.4, 3.5 * len(benchmarks) + 0.8), squeeze=False)
    for ax, (title, benchmark) in zip(axes[:, 0], benchmarks.items(), strict=True):
        _draw_ways(ax, benchmark, drop)
        ax.set_title(title)
    handles = labelled(*axes[:, 0])
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
    return figure


def _draw_ways(ax: Axes, benchmark: Benchmark, drop: float) -> None:
    draw_curves(ax, {"baseline": benchmark.baseline}, benchmark.unit)
    for way, look in WAYS.items():
        if best := benchmark.best(way, drop):
            _draw_seeds(ax, best[0].records, look | {"label": ROWS[way]}, benchmark.unit)
    rungs = [rung.records for rung in benchmark.ladder]
    costs = [records[0].cost(benchmark.unit)[-1] / 1e6 for records in rungs]
    line: dict[str, Any] = {"color": "#000000", "marker": "o", "markerfacecolor": "none", "linewidth": 0.8}
    ax.plot(costs, [100 * mean_accuracy(records) for records in rungs], **line, label=ROWS["static"])
    ax.axhline(100 * benchmark.test.mean() - drop, color="#767676", linewidth=1, linestyle=":")
    lowest = min(np.nanmin(line.get_ydata()) for line in ax.lines)
    ax.set_ylim(bottom=max(100 * benchmark.test.mean() - 12, lowest) - 0.5)


def answers(frame: pd.DataFrame) -> Figure:
    """How good an answer is for its cost, a panel a task: exits in the trunk, and complete networks.

    Lines join those that are more accurate than everything cheaper of their kind, see `trecx.analysis.beyond.frontier`.
    `frame`: see `trecx.analysis.beyond.answers`.
    """
    tasks = frame["task"].unique()
    figure, axes = _subplots(len(tasks), figsize=(5.4, 3.1 * len(tasks) + 0.5), squeeze=False)
    looks = {
        IN_TRUNK: {"color": "#0072B2", "marker": "x", "linestyle": "--"},
        COMPLETE: {"color": "#C44E00", "marker": "o", "linestyle": "-"},
    }
    for ax, task in zip(axes[:, 0], tasks, strict=True):
        shown = frame[(frame["task"] == task) & (frame["share"] <= 100)]
        for kind, look in looks.items():
            rows = shown[shown["kind"] == kind]
            best = frontier(rows)
            ax.plot(rows["share"], rows["accuracy"], **look | {"linestyle": "none", "alpha": 0.45})
            ax.plot(best["share"], best["accuracy"], **look, label=kind)
        ax.set(ylabel="test accuracy (%)", title=f"{TASKS[task].full_title}, {TASKS[task].backbone}", xlim=(0, 103))
        top = shown["accuracy"].max()
        ax.set_ylim(bottom=max(shown["accuracy"].min(), top - 20) - 1)
    axes[-1, 0].set(xlabel="cost of the answer (% of the baseline's)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def dots(frame: pd.DataFrame, xlabel: str) -> Figure:
    """A dot with its interval a row, stars for the paper's values; the line marks zero.

    Columns of `frame`: label, estimate, low, high (NaN: no interval), and paper, if it says anything.
    """
    printed = frame.get("paper", pd.Series(np.nan, frame.index))
    figure, ax = _subplots(figsize=(6.6, 0.36 * len(frame) + 1.1))
    for k, row in enumerate(frame.itertuples()):
        ends = [[row.estimate - row.low], [row.high - row.estimate]] if np.isfinite(row.low) else None
        ax.errorbar([row.estimate], [k], xerr=ends, fmt="o", color=COLOURS["trecx_ev"], capsize=3, label="here")
        if np.isfinite(printed.iloc[k]):
            look: dict[str, Any] = {"markersize": 10, "markerfacecolor": "none", "linestyle": "none"}
            ax.plot([printed.iloc[k]], [k], "*", color="#000000", label="the paper", **look)
    ax.axvline(0, color="#000000", linewidth=0.8)
    ax.set_yticks(range(len(frame)), frame["label"])
    ax.set_ylim(len(frame) - 0.4, -0.6)
    ax.set_xlabel(xlabel)
    ax.grid(axis="y", visible=False)
    if np.isfinite(printed).any():
        handles = labelled(ax)
        figure.legend(handles.values(), handles.keys(), loc="outside upper right", ncols=2)
    return figure


def paper_points(ax: Axes, task: str) -> None:
    """What Table 1 prints, in MFLOPs and percent: the baseline, and T-RecX one, two and three points below it."""
    printed = paper()["table_1"][task]
    base, at = printed["baseline"], printed["trecx"]["mflops_at_drop"]
    points = [(base["mflops"], base["accuracy"]), *((cost, base["accuracy"] - drop) for drop, cost in at.items())]
    look: dict[str, Any] = {"markersize": 9, "markerfacecolor": "none", "linestyle": "none"}
    ax.plot(*points[0], marker="*", color=COLOURS["baseline"], label="Baseline, paper", **look)
    ax.plot(*zip(*points[1:], strict=True), marker="*", color=COLOURS["trecx_ev"], label="T-RecX, paper", **look)
