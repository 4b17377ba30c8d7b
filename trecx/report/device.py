"""The figures of networks on a microcontroller, drawn from device records."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trecx.analysis import device
from trecx.analysis.device import benchmarks, operators, savings, short
from trecx.deploy.records import DeviceRecord
from trecx.report.style import OURS, PLAIN, labelled

LATER, OTHER = "#B8B8B8", "#C44E00"
SHOWN = ("trecx_ev", "nested")  # methods whose memory is shown beside the baseline's, and cascades'


# Place -> part of it in a record -> what it is called, colour.
MEMORY = {
    "flash": {"weights": ("weights", OURS), "code": ("code", "#6F6A00")},
    "ram": {"variables": ("buffers", "#A0437D"), "stack": ("stack", "#A97400")},
}


def _panels(heights: Sequence[int], **options: Any) -> tuple[Figure, Any]:
    """Panels one below the other, each as high as its number of rows."""
    figure = Figure(figsize=(6.2, 0.41 * sum(heights) + 0.62 * len(heights) + 0.8), layout="constrained")
    return figure, figure.subplots(len(heights), height_ratios=list(heights), squeeze=False, **options)[:, 0]


def _rows(ax: Axes, labels: Sequence[str]) -> None:
    """Rows with a name each, the first on top; a long name takes two lines, so that the drawing keeps its width."""
    ax.set_yticks(range(len(labels)), [fill(label, 36) for label in labels], linespacing=0.95)
    ax.set_ylim(len(labels) - 0.45, -0.55)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)


def _legend(figure: Figure, axes: Sequence[Axes], columns: int = 2) -> None:
    """One legend below, every label once."""
    handles = labelled(*axes)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)


def inference(records: Sequence[DeviceRecord]) -> Figure:
    """Instructions of one inference: of a sample that leaves at the first exit, and of one that runs to the end."""
    groups = benchmarks(records)
    figure, axes = _panels([len(group) for group in groups.values()])
    for ax, (title, group) in zip(axes, groups.items(), strict=True):
        costs = [record.cost("instructions") / 1e6 for record in group]
        early = np.array([cost[0] if len(cost) > 1 else 0 for cost in costs])
        alone = np.array([0 if len(cost) > 1 else cost[0] for cost in costs])
        rest = np.array([cost[-1] for cost in costs]) - early - alone
        rows = np.arange(len(group))
        ax.barh(rows, early, color=OURS, height=0.62, label="leaves at the first exit")
        ax.barh(rows, rest, left=early, color=LATER, height=0.62, label="runs to the end")
        ax.barh(rows, alone, color=PLAIN, height=0.62, label="no early exit")
        _rows(ax, [short(record) for record in group])
        ax.set_title(title, loc="left")
    axes[-1].set_xlabel("million instructions")
    _legend(figure, axes, 3)
    return figure


def _with_memory(records: Sequence[DeviceRecord]) -> Mapping[str, list[DeviceRecord]]:
    return {
        title: [r for r in group if r.is_baseline or len(r.runs) > 1 or r.runs[0].method in SHOWN]
        for title, group in benchmarks(records).items()
    }


def memory(records: Sequence[DeviceRecord]) -> Figure:
    """Where the memory goes: weights and code in flash; buffers and stack in RAM, with the least that RAM could be."""
    groups = _with_memory(records)
    figure, axes = _panels([2 * len(group) for group in groups.values()])
    for ax, (title, group) in zip(axes, groups.items(), strict=True):
        for k, (place, parts) in enumerate(MEMORY.items()):
            rows, start = 2 * np.arange(len(group)) + k, np.zeros(len(group))
            for part, (label, colour) in parts.items():
                size = np.array([record.manifest[place][part] / 1e3 for record in group])
                ax.barh(rows, size, left=start, color=colour, height=0.62, label=label)
                start = start + size
        planned = [record.manifest["ram"]["planned"] / 1e3 for record in group]
        look: dict[str, Any] = {"linestyle": "none", "marker": "|", "markersize": 14, "markeredgewidth": 2.5}
        label = "maps, if they shared their places"
        ax.plot(planned, 2 * np.arange(len(group)) + 1, color=PLAIN, **look, label=label)
        _rows(ax, [f"{short(record)}: {place}" for record in group for place in ("flash", "RAM")])
        ax.set_title(title, loc="left")
    axes[-1].set_xlabel("kB")
    _legend(figure, axes)
    return figure


def saved(records: Sequence[DeviceRecord], drop: int = 1) -> Figure:
    """What is saved `drop` points below the baseline, as FLOPs and as instructions; what misses it is left out."""
    groups = {}
    for title, group in benchmarks(records).items():
        table = savings(group)
        table = table[(table["drop"] == drop) & np.isfinite(table["accuracy"])].set_index("network")
        groups[title] = [(short(record), table.loc[record.label]) for record in group if record.label in table.index]
    groups = {title: rows for title, rows in groups.items() if rows}
    figure, axes = _panels([len(rows) for rows in groups.values()], sharex=True)
    for ax, (title, rows) in zip(axes, groups.items(), strict=True):
        for k, (_, row) in enumerate(rows):
            ax.plot([row["FLOPs"], row["instructions"]], [k, k], color=LATER, linewidth=3, zorder=1)
        for unit, marker, colour in (("FLOPs", "o", OTHER), ("instructions", "s", OURS)):
            look: dict[str, Any] = {"linestyle": "none", "marker": marker, "color": colour, "markersize": 7}
            ax.plot([row[unit] for _, row in rows], range(len(rows)), label=f"{unit} saved", **look)
        _rows(ax, [label for label, _ in rows])
        ax.axvline(0, color="#767676", linewidth=1)
        ax.set_title(title, loc="left")
    axes[-1].set_xlabel("saved (%)")
    _legend(figure, axes)
    return figure


def operations(records: Sequence[DeviceRecord]) -> Figure:
    """Instructions that each kind of operation takes, fitted over all stages of all records."""
    table = operators(records).iloc[:-1]
    figure, (ax,) = _panels([len(table)])
    ax.barh(range(len(table)), table["instructions"], color=OURS, height=0.62, label="instructions")
    for k, value in enumerate(table["instructions"]):
        ax.annotate(f"{value:.0f}", (value, k), (4, 0), textcoords="offset points", va="center", fontsize=11)
    _rows(ax, [SHORTER[name] for name in device.OPERATIONS])
    ax.set_xlabel("instructions each")
    ax.margins(x=0.1)
    return figure


SHORTER = {
    "conv": "multiplication, convolution",
    "pointwise": "multiplication, 1x1 or dense",
    "depthwise": "multiplication, depthwise",
    "outputs": "convolution's output to 8 bits",
    "other": "value of another operator",
}


def lost(records: Sequence[DeviceRecord]) -> Figure:
    """Points of accuracy that int8 takes from every exit, on test; right of zero int8 is the worse."""
    groups = benchmarks(records)
    figure, axes = _panels([len(group) for group in groups.values()], sharex=True)
    for ax, (title, group) in zip(axes, groups.items(), strict=True):
        for place, marker, colour in (("early exits", "o", OURS), ("final exit", "s", PLAIN)):
            xs: list[float] = []
            ys: list[int] = []
            for k, record in enumerate(group):
                each = 100 * (record.accuracy("float") - record.accuracy("int8"))
                part = each[-1:] if place == "final exit" else each[:-1]
                xs += part.tolist()
                ys += [k] * len(part)
            ax.plot(xs, ys, linestyle="none", marker=marker, color=colour, markersize=6, label=place)
        _rows(ax, [short(record) for record in group])
        ax.axvline(0, color="#767676", linewidth=1)
        ax.set_title(title, loc="left")
    axes[-1].set_xlabel("accuracy lost to int8 (points)")
    _legend(figure, axes)
    return figure
