"""The pictures of the page on the method. Nothing here is trained: weights are random, samples are made up."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import nn

from trecx.evaluation.points import oracle
from trecx.evaluation.trace import Trace, at_thresholds, benefit_curve
from trecx.models.build import build, tap_shapes
from trecx.models.cost import KERAS_RULES, MAC_RULES, count, measure
from trecx.models.heads import EarlyViewHead
from trecx.models.layers import conv
from trecx.models.methods import METHODS
from trecx.report.diagram import EXIT, FINAL, PLAIN
from trecx.report.style import style
from trecx.tasks import TASKS
from trecx.training.losses import early_weights

# The colours of the drawings of networks: orange is the early exit, green the final one.
EARLY_COLOUR, FINAL_COLOUR, GREY = EXIT[0], FINAL[0], PLAIN[0]


def rule(trace: Trace, rho: float) -> Figure:
    """The samples of a trace in the given order, those above the threshold `rho` coloured; marks: right or wrong."""
    figure = Figure(figsize=(5.4, 3.3), layout="constrained")
    ax = figure.subplots()
    place = np.arange(1, len(trace.scores) + 1)
    leaves = trace.leave(rho) == 0
    ax.bar(place[leaves], trace.scores[leaves, 0], color=EARLY_COLOUR, edgecolor=GREY)
    ax.bar(place[~leaves], trace.scores[~leaves, 0], color="#D9D9D9", edgecolor=GREY, hatch="//")
    for row, (name, colour) in enumerate((("early", EARLY_COLOUR), ("final", FINAL_COLOUR))):
        y = -0.13 - 0.12 * row
        ax.text(0.3, y + 0.01, name, ha="right", color=colour, fontsize=11)
        for k, right in zip(place.tolist(), trace.correct[:, row], strict=True):
            ax.text(k, y, "✓" if right else "✗", ha="center", color=colour, fontsize=14)
    ax.axhline(rho, color="#000000", linestyle="--")
    ax.text(place[-1] + 0.5, rho + 0.02, f"threshold ρ = {rho:g}", ha="right")
    ax.set(ylabel="confidence of the early exit", xticks=[], ylim=(0, 1.02), xlim=(0.4, place[-1] + 0.6))
    return figure


def curve(trace: Trace, rho: float) -> Figure:
    """The benefit curve of a trace with costs in MFLOPs, its point at `rho`, and the best possible gate."""
    point, found, best = at_thresholds(trace, [rho]), benefit_curve(trace), oracle(trace)
    figure = Figure(figsize=(5.4, 3.9), layout="constrained")
    ax = figure.subplots()
    ax.plot(best.limit_cost, 100 * best.limit_accuracy, color=GREY, linestyle="--", label="best possible gate")
    ax.plot(found.cost, 100 * found.accuracy, color=EARLY_COLOUR, marker="o", label="benefit curve")
    at = (float(point.cost[0]), 100 * float(point.accuracy[0]))
    ax.plot(*at, marker="o", markersize=12, markerfacecolor="none", color="#000000")
    look: dict[str, Any] = {"textcoords": "offset points"}
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    ax.annotate(f"ρ = {rho:g}", at, (-8, 10), ha="right", bbox=box, **look)
    for k, text in ((0, "all to the end"), (-1, "all leave early")):
        ends = (float(found.cost[k]), 100 * float(found.accuracy[k]))
        ax.annotate(text, ends, (0, -18), ha="left" if k else "right", **look)
    for x, y, text, colour in (
        (found.cost, found.accuracy, "benefit curve", EARLY_COLOUR),
        (best.limit_cost, best.limit_accuracy, "best possible gate", GREY),
    ):
        k = int(np.argmax(y))  # of the highest, the cheapest
        above = (0, 8) if colour == EARLY_COLOUR else (8, 0)
        ax.annotate(text, (float(x[k]), 100 * float(y[k])), above, color=colour, **look)
    ax.set(xlabel="mean cost (MFLOPs)", ylabel="total accuracy (%)", ylim=(50, 100))
    return figure


def locality() -> Figure:
    """The inputs on which one output value of each kind of convolution depends, as the layers' gradients say."""
    layers = {
        "3×3 conv": conv(4, 4, 3),
        "1×1 conv (pointwise)": conv(4, 4, 1),
        "3×3 depthwise": conv(4, 4, 3, depthwise=True),
    }
    figure = Figure(figsize=(5.4, 4.3), layout="constrained")
    axes = figure.subplots(len(layers), 4)
    for row, (name, layer) in zip(axes, layers.items(), strict=True):
        maps = torch.rand(1, 4, 5, 5, requires_grad=True)  # one map of 4 channels
        layer(maps)[0, 1, 2, 2].backward()  # the middle of output channel 2
        assert maps.grad is not None
        sees = maps.grad[0].abs() > 0  # (4, 5, 5)
        for ax, channel in zip(row, sees, strict=True):
            _map(ax, channel.numpy(), vmax=1.4)
        row[0].set_title(f"{name}: {int(sees.sum())} inputs", loc="left", fontsize=12)
    for k, ax in enumerate(axes[-1], start=1):
        ax.set_xlabel(f"channel {k}")
    return figure


def _map(ax: Any, values: NDArray[Any], vmax: float) -> Any:
    picture = ax.imshow(values, cmap="Oranges", vmin=0, vmax=vmax)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set(visible=True, color=GREY)
    return picture


def coverage(task: str) -> NDArray[np.float64]:
    """Share of F's channels that EV-assistance depends on at each place of F: (H, W), from 0 to 1."""
    head = build(task, "trecx_ev").final
    assert isinstance(head, EarlyViewHead)
    nn.init.ones_(head.view.depthwise.weight)  # so that no ReLU hides a connection
    shape = list(tap_shapes(build(task, "baseline").backbone, TASKS[task].input_shape).values())[-1]
    last_map = torch.rand(1, *shape, requires_grad=True)
    head.reduce(head.view(last_map)).sum().backward()
    assert last_map.grad is not None
    found: NDArray[np.float64] = (last_map.grad[0] > 0).double().mean(0).numpy()
    return found


def view() -> Figure:
    """Where EV-assistance looks at the last map F, a panel a benchmark's network."""
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.subplots(1, len(TASKS), width_ratios=[8, 5, 6])
    for ax, (name, task) in zip(axes, TASKS.items(), strict=True):
        share = coverage(name)
        picture = _map(ax, 100 * share, vmax=60)
        ax.set(title=task.backbone.split("-0")[0], xlabel=f"F, {share.shape[0]}×{share.shape[1]}")
    figure.colorbar(
        picture, ax=axes, orientation="horizontal", label="channels of F that the view uses (%)", shrink=0.8
    )
    return figure


def loss_weights(task: str) -> Figure:
    """The weight of every early exit's loss during training, method by method; the final exit always weighs 1."""
    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    ax = figure.subplots()
    progress = np.linspace(0, 1, 51)
    macs = measure(build(task, "sdn_fair"), TASKS[task].input_shape).macs
    for method in ("trecx_ev", "branchynet", "sdn", "sdn_fair"):
        # Only the ramp looks at the shares of the cost; the others need to know how many exits there are.
        ramp = method == "sdn_fair"
        shares = [m / macs[-1] for m in macs[:-1]] if ramp else [1.0] * len(METHODS[method].taps[task])
        lines = np.array([early_weights(METHODS[method], task, None, p, shares) for p in progress])
        look = style(method) | {"markevery": 10}
        for k, line in enumerate(dict.fromkeys(map(tuple, lines.T)), start=1):
            ax.plot(100 * progress, line, **look)
            words = f"{look['label']}, exit {k}" if len(lines.T) > 1 and method != "sdn" else look["label"]
            ax.annotate(words, (100, line[-1]), (8, 0), textcoords="offset points", va="center", color=look["color"],
                        fontsize=10, annotation_clip=False)  # fmt: skip
    ax.set(xlabel="training (% of the epochs)", ylabel="loss weight of an early exit", ylim=(-0.04, 1.08))
    return figure


def cost_by_stage() -> Figure:
    """Share of the unmodified network's cost that is spent after each stage, in MACs and FLOPs, a panel a network."""
    figure = Figure(figsize=(5.4, 6.0), layout="constrained")
    axes = figure.subplots(len(TASKS), 1, sharex=True)
    rules: Mapping[str, tuple[Any, dict[str, Any]]] = {
        "MACs": (MAC_RULES, {"color": "#000000", "linestyle": "-", "marker": "o"}),
        "FLOPs": (KERAS_RULES, {"color": "#0072B2", "linestyle": "--", "marker": "s"}),
    }
    for ax, (name, task) in zip(axes, TASKS.items(), strict=True):
        base = build(name, "baseline")
        shapes = tap_shapes(base.backbone, task.input_shape)
        names, inputs = list(shapes), [task.input_shape, *shapes.values()]
        for label, (by, look) in rules.items():
            total = count(base, torch.zeros(1, *task.input_shape), by)
            parts = zip(base.backbone, inputs, strict=False)
            spent = np.cumsum([0, *[count(stage, torch.zeros(1, *shape), by) for stage, shape in parts]])
            ax.plot(100 * spent / total, range(len(names) + 1), label=label, **look)
        (exit_after,) = METHODS["trecx_ev"].taps[name]
        at = names.index(exit_after) + 1
        ax.axhline(at, color=EARLY_COLOUR, linestyle=":")
        ax.text(100, at - 0.1, "T-RecX's exit", ha="right", va="bottom", color=EARLY_COLOUR, fontsize=10.5)
        step = 1 if len(names) < 6 else 3
        ax.set_yticks(range(0, len(names) + 1, step), ["input", *names][::step])
        ax.invert_yaxis()
        ax.set_title(task.backbone, loc="left")
    axes[-1].set_xlabel("cost so far (% of the unmodified network)")
    axes[0].legend(loc="lower left")
    return figure
