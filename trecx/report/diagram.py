"""Drawings of the networks, made from the model objects: the overview (paper Fig. 1), one exit (Fig. 3), nested ones.

Every name, shape and cost in a drawing is read off the network that is handed in, so a drawing cannot disagree
with the code. The layout is vertical and 5.4 inches wide, so that the text stays readable on a phone.
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor, nn

from trecx.errors import TrecxError
from trecx.models.build import output_shape, tap_shapes
from trecx.models.cost import measure
from trecx.models.heads import ConcatHead, EarlyViewHead, ExitHead, FinalHead
from trecx.models.layers import Channels, Flatten, MixedPool, SamePad2d
from trecx.models.nested import Step as Nested
from trecx.models.network import EarlyExitNetwork, inference, stages
from trecx.models.resolutions import Look

WIDTH = 5.4  # inches
TITLE, BODY = 11, 10.5  # points
LINE = 0.2  # inches a line of text
PAD = 0.1  # inches between a box's edge and its text

# Edge and fill of each kind of box; the edges are colours of the book's figures.
TRUNK = ("#0072B2", "#E8F2F9")
EXIT = ("#C44E00", "#FCEFE6")
FINAL = ("#00865F", "#E6F4EF")
PLAIN = ("#767676", "#F4F4F4")


@dataclass(frozen=True)
class Step:
    """One line of a drawing: what a layer does, and the shape that it gives (C, H, W) or (features,)."""

    text: str
    shape: tuple[int, ...]
    depthwise: bool = False


def steps(module: nn.Module, shape: tuple[int, ...]) -> list[Step]:
    """The layers of a head or a part of it on an input of `shape`, as few readable steps.

    Batch norm and ReLU join the layer before them; padding, dropout and whatever changes nothing are left out.
    """
    found: list[Step] = []
    leaves = list(_leaves(module))
    for k, leaf in enumerate(leaves):
        before, shape = shape, output_shape(leaf, shape)
        joins = {nn.BatchNorm2d: "BN", nn.ReLU: "ReLU"}.get(type(leaf))
        if joins and found:
            found[-1] = replace(found[-1], text=f"{found[-1].text}, {joins}")
        elif isinstance(leaf, Flatten):
            if found and before[1:] == (1, 1):
                found[-1] = replace(found[-1], shape=shape)
            elif not isinstance(leaves[k + 1] if k + 1 < len(leaves) else None, nn.Linear):
                found.append(Step("flatten", shape))
        elif not (isinstance(leaf, SamePad2d | nn.Dropout | nn.Identity) or _keeps_all(leaf, before)):
            found.append(Step(_name(leaf), shape, isinstance(leaf, nn.Conv2d) and leaf.groups > 1))
    return found


def _leaves(module: nn.Module) -> Iterator[nn.Module]:
    if isinstance(module, nn.Sequential):
        for child in module:
            yield from _leaves(child)
    else:
        yield module


def _keeps_all(leaf: nn.Module, before: tuple[int, ...]) -> bool:
    return isinstance(leaf, Channels) and leaf.keep == before[0]


def _name(leaf: nn.Module) -> str:
    if isinstance(leaf, nn.Conv2d):
        window = _times(leaf.kernel_size)
        stride = f" /{leaf.stride[0]}" if leaf.stride[0] > 1 else ""
        return f"depthwise {window}{stride}" if leaf.groups > 1 else f"{window} conv{stride}"
    if isinstance(leaf, nn.AvgPool2d):
        size = leaf.kernel_size
        return f"average pool {_times(size if isinstance(size, tuple) else (size, size))}"
    if isinstance(leaf, MixedPool):
        return f"mixed pool {_times(leaf.window)}"
    if isinstance(leaf, Channels):
        return f"first {leaf.keep} channels"
    if isinstance(leaf, nn.Linear):
        return f"dense {leaf.in_features} → {leaf.out_features}"
    return type(leaf).__name__


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def final_steps(
    head: FinalHead, shape: tuple[int, ...], early: tuple[int, ...] | None
) -> tuple[list[Step], list[Step]]:
    """Steps of a final head on F of `shape`: those that pool F, and those of its second input.

    The second list is empty for the benchmarks' own head. `early` is the shape of the early exit's maps (C, H, W).
    """
    second: list[Step] = []
    if isinstance(head, EarlyViewHead):
        second = steps(nn.Sequential(head.view, head.reduce), shape)
    elif isinstance(head, ConcatHead):
        assert early is not None, "this head needs an early exit before it"
        second = steps(head.reduce, early)
    return steps(head.pool, shape), second


# --- Overview (Fig. 1) -----------------------------------------------------------------------------------------


def draw_network(network: EarlyExitNetwork, input_shape: tuple[int, int, int], *, copies: bool = True) -> Figure:
    """Draw a network from input to final exit: its stages, shapes (C×H×W), exit heads and cumulative MFLOPs.

    A nested network has a column for each step, with the shape of the channels that this step adds; the slanted arrows
    are maps of narrower steps that it uses again. Several resolutions have a column each.

    Args:
        network: any network of the package, or one of your own parts.
        input_shape: channels, height, width.
        copies: show that EV-assistance copies weights (False for the ablation that does not copy).
    """
    cost = [flops / 1e6 for flops in measure(network, input_shape).flops]
    if _in_steps(network):
        return _draw_steps(network, input_shape, cost)
    maps = tap_shapes(network.backbone, input_shape)
    rows = _rows(network)
    heads: dict[str, ExitHead] = dict(network.exits.items())  # type: ignore[arg-type]
    final_box = _final_lines(network.final, list(maps.values())[-1], _early_shape(network, maps))
    trunk_width, left = 1.75, WIDTH - 3.3
    trunk_height = 2 * LINE + 2 * PAD
    exits = {tap: steps(nn.Sequential(head.features, head.classify), maps[tap]) for tap, head in heads.items()}
    heights = [max(trunk_height, _height(len(exits[tap]) + 2)) if tap in exits else trunk_height for _, tap in rows]
    gap, link = 0.32, 0.75 if exits and type(network.final) is not FinalHead else 0.0
    bottom = _height(len(final_box) + 2)
    total = 0.35 + gap + sum(heights) + gap * len(rows) + max(0.0, link - trunk_height) + bottom
    figure, ax = _sheet(total)

    top = total
    _box(ax, 0, top - 0.35, trunk_width, 0.35, PLAIN)
    ax.text(trunk_width / 2, top - 0.175, f"input  {_times(input_shape)}", ha="center", va="center", fontsize=BODY)
    top -= 0.35
    last_exit_bottom = None
    for (names, tap), height in zip(rows, heights, strict=True):
        _arrow(ax, (trunk_width / 2, top), (trunk_width / 2, top - gap))
        top -= gap
        _box(ax, 0, top - trunk_height, trunk_width, trunk_height, TRUNK)
        centre = trunk_width / 2
        ax.text(centre, top - PAD - 0.5 * LINE, names, ha="center", va="center", fontsize=TITLE, weight="bold")
        ax.text(centre, top - PAD - 1.5 * LINE, _times(maps[tap]), ha="center", va="center", fontsize=BODY)
        if tap in exits:
            own = _height(len(exits[tap]) + 2)
            _box(ax, left, top - own, WIDTH - left, own, EXIT)
            number = list(network.exits).index(tap)
            lines = [(step.text, _times(step.shape)) for step in exits[tap]]
            _write(ax, left, top, WIDTH - left, f"exit {number + 1}", lines, _leaves_at(cost, number), EXIT[0])
            _arrow(ax, (trunk_width, top - trunk_height / 2), (left, top - trunk_height / 2))
            last_exit_bottom = top - own
        if height > trunk_height:  # the way down goes on beside the exit
            ax.plot([centre, centre], [top - trunk_height, top - height], color="#000000", linewidth=1.3)
        top -= height
    spare = max(0.0, link - trunk_height)
    _arrow(ax, (trunk_width / 2, top), (trunk_width / 2, top - gap - spare))
    top -= gap + spare
    _box(ax, 0, 0, WIDTH, top, FINAL)
    _write(ax, 0, top, WIDTH, "final exit", final_box, _leaves_at(cost, -1), FINAL[0])
    if last_exit_bottom is not None and link:
        x = left + 0.5
        view = isinstance(network.final, EarlyViewHead)
        if copies or not view:
            _arrow(ax, (x, last_exit_bottom), (x, top), dashed=view, colour=EXIT[0])
            text = "depthwise weights copied\nwhile training" if view else "its feature maps"
            middle = (last_exit_bottom + top) / 2
            ax.text(x + 0.12, middle, text, va="center", fontsize=BODY, color=EXIT[0])
    return figure


def _rows(network: EarlyExitNetwork) -> list[tuple[str, str]]:
    """The stages between two taps as one row: (what to call them, the last of them)."""
    rows: list[tuple[str, str]] = []
    names: list[str] = []
    names_of_stages = [name for name, _ in stages(network.backbone)]
    for name in names_of_stages:
        names.append(name)
        if name in network.exits or name == names_of_stages[-1]:
            rows.append((", ".join(names) if len(names) < 3 else f"{names[0]} – {names[-1]}", name))
            names = []
    return rows


def _early_shape(network: EarlyExitNetwork, maps: dict[str, tuple[int, int, int]]) -> tuple[int, ...] | None:
    """Shape of the maps that the last early exit hands to the final head."""
    if not network.exits:
        return None
    tap = list(network.exits)[-1]
    head = network.exits[tap]
    assert isinstance(head, ExitHead)
    return output_shape(head.features, maps[tap])


def _final_lines(head: FinalHead, shape: tuple[int, ...], early: tuple[int, ...] | None) -> list[tuple[str, str]]:
    pooled, second = final_steps(head, shape, early)
    lines = [(step.text, _times(step.shape)) for step in pooled]
    if second:
        source = "early-view of the last map: " if isinstance(head, EarlyViewHead) else "exit 1's maps: "
        lines += [(source + second[0].text, _times(second[0].shape))]
        lines += [(step.text, _times(step.shape)) for step in second[1:]]
        lines += [("join both", str(head.classifier.in_features))]
    dense = head.classifier
    return [*lines, (f"dense {dense.in_features} → {dense.out_features}", str(dense.out_features))]


def _leaves_at(cost: Sequence[float], k: int) -> str:
    share = f" ({100 * cost[k] / cost[-1]:.0f} %)" if k >= 0 else ""
    return f"{cost[k]:.2f} MFLOPs so far{share}"


# --- One exit (Fig. 3) -----------------------------------------------------------------------------------------


def draw_exit_block(
    network: EarlyExitNetwork, input_shape: tuple[int, int, int], tap: str | None = None, *, copies: bool = True
) -> Figure:
    """Draw an early exit beside the final one, layer by layer, with EV-assistance or concatenation if there is any.

    Args:
        network: with at least one early exit.
        input_shape: channels, height, width.
        tap: which exit; the last one by default, which is the one that the final head may look at.
        copies: show that EV-assistance copies weights.

    Raises:
        TrecxError: a nested network, or one at several resolutions: their exits are no blocks at a tap.
    """
    if _in_steps(network):
        raise TrecxError("a network whose exits lie behind its whole depth has no exit block: use draw_network")
    tap = tap or list(network.exits)[-1]
    maps = tap_shapes(network.backbone, input_shape)
    last, head = list(maps)[-1], network.exits[tap]
    assert isinstance(head, ExitHead)
    early = steps(nn.Sequential(head.features, head.classify), maps[tap])
    pooled, second = final_steps(network.final, maps[last], output_shape(head.features, maps[tap]))
    view, dense = isinstance(network.final, EarlyViewHead), network.final.classifier

    column, wide_gap, gap = 1.56, 0.5, 0.22
    middle = column + wide_gap
    right = WIDTH - column if second else middle
    height = 3 * LINE + 2 * PAD - 0.06
    # A concatenation starts beside the layer whose maps it takes, one row below the depthwise layer's input.
    tied = next((k for k, step in enumerate(early) if step.depthwise), 0) + 1
    first = tied if second and not view else 1
    depth = max(len(early), first + len(second) + 1 if second else len(pooled) + 1)  # rows below the two maps
    total = (depth + 1) * height + depth * gap
    figure, ax = _sheet(total)

    def y(row: int) -> float:
        return total - row * (height + gap)

    def cell(x: float, row: int, step: Step, kind: tuple[str, str], width: float = column) -> None:
        _box(ax, x, y(row) - height, width, height, kind)
        lines = [*textwrap.wrap(step.text, 15 if width == column else 40), _times(step.shape)]
        centre, offset = x + width / 2, y(row) - height / 2 + (len(lines) - 1) * LINE / 2
        for k, line in enumerate(lines):
            weight = "bold" if k == len(lines) - 1 else "normal"
            ax.text(centre, offset - k * LINE, line, ha="center", va="center", fontsize=BODY, weight=weight)

    def down(x: float, row: int, to: int | None = None) -> None:
        _arrow(ax, (x, y(row) - height), (x, y(to if to is not None else row + 1)))

    # The early exit, top to bottom.
    cell(0, 0, Step(f"after {tap}", maps[tap]), TRUNK)
    for k, step in enumerate(early):
        cell(0, k + 1, step, EXIT)
        down(column / 2, k)
    # The final exit: the last map, pooled on the right, seen once more in the middle.
    cell(middle, 0, Step(f"F, after {last}", maps[last]), TRUNK, WIDTH - middle)
    own = WIDTH - right
    for k, step in enumerate(pooled):
        cell(right, k + 1, step, FINAL, own)
        down(right + own / 2, k)
    output = Step(f"dense {dense.in_features} → {dense.out_features}", (dense.out_features,))
    cell(middle, depth, output, FINAL, WIDTH - middle)
    if not second:
        down(right + own / 2, len(pooled), depth)
        return figure
    for k, step in enumerate(second):
        cell(middle, first + k, step, FINAL if view else EXIT)
        if k or view:
            down(middle + column / 2, first + k - 1)
    join = depth - 1
    text = f"join {second[-1].shape[0]} and {pooled[-1].shape[0]}"
    cell(middle, join, Step(text, (dense.in_features,)), FINAL, WIDTH - middle)
    down(middle + column / 2, first + len(second) - 1, join)
    down(right + own / 2, len(pooled), join)
    down((middle + WIDTH) / 2, join)
    # What ties the two: copied weights, or maps handed over.
    if copies or not view:
        target = first + next((k for k, step in enumerate(second) if step.depthwise), 0)
        start, end = (column, y(tied) - height / 2), (middle, y(target) - height / 2)
        _arrow(ax, start, end, dashed=view, colour=EXIT[0])
        ax.text(column + wide_gap / 2, start[1] + 0.14, "copy" if view else "maps", ha="center", va="center",
                fontsize=BODY, color=EXIT[0])  # fmt: skip
    return figure


# --- Steps of the whole depth: nested networks, several resolutions ---------------------------------------------

MOST_ROWS = 6  # where there are more stages, neighbours of one shape share a row
Shapes = list[tuple[int, ...]]  # of one row, an entry a step


def _in_steps(network: EarlyExitNetwork) -> bool:
    return any(isinstance(stage, Nested | Look) for _, stage in stages(network.backbone))


def _draw_steps(network: EarlyExitNetwork, input_shape: tuple[int, int, int], cost: Sequence[float]) -> Figure:
    """A column a step, a row a stage, then each step's pooling and head."""
    looks = [stage for _, stage in stages(network.backbone) if isinstance(stage, Look)]
    rows = _look_rows(looks, input_shape) if looks else _nested_rows(network, input_shape)
    heads: list[nn.Linear] = [head.classify[-1] for head in network.exits.values()]  # type: ignore[index,misc]
    classifiers = [*heads, network.final.classifier]
    columns, names, between, gap = len(classifiers), 0.92, 0.28, 0.34
    column = max(1.3, (WIDTH - names - (columns - 1) * between) / columns)
    title, cell, head = 2 * LINE, LINE + 2 * PAD, 4 * LINE + 2 * PAD
    heights = [cell, *[cell] * len(rows), head]
    total = title + PAD + sum(heights) + gap * (len(heights) - 1)
    figure, ax = _sheet(total, names + columns * column + (columns - 1) * between)
    lefts = [names + k * (column + between) for k in range(columns)]
    tops = [total - title - PAD - sum(heights[:row]) - row * gap for row in range(len(heights))]

    def say(x: float, y: float, text: str, align: str = "center", **look: Any) -> None:
        ax.text(x, y, text, ha=align, va="center", **{"fontsize": BODY, **look})

    _box(ax, names, tops[0] - cell, lefts[-1] + column - names, cell, PLAIN)
    say((names + lefts[-1] + column) / 2, tops[0] - cell / 2, f"input  {_times(input_shape)}")
    for row, (label, _) in enumerate(rows, start=1):
        say(names - PAD, tops[row] - cell / 2, label, "right", weight="bold")
    for k, (left, dense) in enumerate(zip(lefts, classifiers, strict=True)):
        centre, last = left + column / 2, k == columns - 1
        say(centre, total - LINE / 2, f"step {k + 1}", fontsize=TITLE, weight="bold")
        say(centre, total - 1.5 * LINE, "if unsure" if k else "always")
        for row, (_, shapes) in enumerate(rows, start=1):
            _box(ax, left, tops[row] - cell, column, cell, TRUNK)
            say(centre, tops[row] - cell / 2, ("+ " if k and not looks else "") + _times(shapes[k]))
        kind = FINAL if last else EXIT
        _box(ax, left, tops[-1] - head, column, head, kind)
        lines = [tops[-1] - PAD - (line + 0.5) * LINE for line in range(4)]
        say(centre, lines[0], "final exit" if last else f"exit {k + 1}", fontsize=TITLE, weight="bold")
        say(centre, lines[1], f"dense {dense.in_features} → {dense.out_features}")
        say(centre, lines[2], f"{cost[k]:.2f} MFLOPs", weight="bold", color=kind[0])
        say(centre, lines[3], f"so far ({100 * cost[k] / cost[-1]:.0f} %)", weight="bold", color=kind[0])
        for row, height in enumerate(heights[:-1]):
            start, end = tops[row] - height, tops[row + 1]
            _arrow(ax, (centre, start), (centre, end))
            for wider in lefts[k + 1 :] if row and not looks else ():
                _arrow(ax, (left + 0.9 * column, start), (wider + 0.1 * column, end), colour=TRUNK[0])
    return figure


def _look_rows(looks: Sequence[Look], input_shape: tuple[int, int, int]) -> list[tuple[str, Shapes]]:
    """Name of every row, and the shape (C, H, W) that each look has there; the resized images first, pooling last."""
    columns = []
    for look in looks:
        sides = (look.side, look.side) if look.side else input_shape[1:]
        images = (input_shape[0], *sides)
        maps = tap_shapes(look.backbone, images)
        columns.append({"image": images, **maps, "pool": output_shape(look.pool, list(maps.values())[-1])})
    return _fewer_rows([(name, [shapes[name] for shapes in columns]) for name in columns[0]])


def _nested_rows(network: EarlyExitNetwork, input_shape: tuple[int, int, int]) -> list[tuple[str, Shapes]]:
    """Name of every row, and the shape (C, H, W) of the channels that each step adds in it; pooling is the last one."""
    steps = [stage for _, stage in stages(network.backbone) if isinstance(stage, Nested)]
    parts = [dict([*stages(step.backbone), ("pool", step.pool)]) for step in steps]
    columns: list[dict[str, tuple[int, ...]]] = [{} for _ in steps]
    hooks = []
    for found, named in zip(columns, parts, strict=True):
        for name, part in named.items():
            # A stage is run layer by layer, see `trecx.models.nested.Step`: its last layer leaves the stage's shape.
            for leaf in (module for module in part.modules() if not list(module.children())):

                def note(m: nn.Module, x: Any, out: Tensor, *, found: dict[str, Any] = found, name: str = name) -> None:
                    found[name] = tuple(out.shape[1:])

                hooks.append(leaf.register_forward_hook(note))
    try:
        with inference(network):
            network(torch.zeros(1, *input_shape))
    finally:
        for hook in hooks:
            hook.remove()
    return _fewer_rows([(name, [found[name] for found in columns]) for name in parts[0]])


def _fewer_rows(rows: list[tuple[str, Shapes]]) -> list[tuple[str, Shapes]]:
    """The rows, neighbours of the same shapes as one where there are many."""
    if len(rows) <= MOST_ROWS + 1:
        return rows
    runs = [list(run) for _, run in groupby(rows, key=lambda row: row[1])]
    return [(run[0][0] + (f" –\n{run[-1][0]}" if len(run) > 1 else ""), run[0][1]) for run in runs]


# --- Pieces ----------------------------------------------------------------------------------------------------


def _sheet(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """An empty figure whose coordinates are inches, origin at the bottom left."""
    margin = 0.05
    # Not made by pyplot, so that a notebook shows it once and nothing keeps it open.
    figure = Figure(figsize=(width + 2 * margin, height + 2 * margin), facecolor="white")
    figure.set_layout_engine("none")  # the notebooks' own style would move the one axes
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(-margin, width + margin), ylim=(-margin, height + margin))
    ax.axis("off")
    return figure, ax


def _height(lines: int) -> float:
    return lines * LINE + 2 * PAD


def _box(ax: Axes, x: float, y: float, width: float, height: float, kind: tuple[str, str]) -> None:
    edge, fill = kind
    shape = "round,pad=0,rounding_size=0.07"
    ax.add_patch(FancyBboxPatch((x, y), width, height, shape, facecolor=fill, edgecolor=edge, linewidth=1.3))


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], *, dashed: bool = False,
           colour: str = "#000000") -> None:  # fmt: skip
    look: dict[str, Any] = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=look | {"linestyle": "--" if dashed else "-", "mutation_scale": 11})


def _write(
    ax: Axes, x: float, top: float, width: float, title: str, lines: Sequence[tuple[str, str]], last: str, colour: str
) -> None:
    """Title, lines with the text at the left and the shape at the right, and a last line, from `top` downwards."""
    y = top - PAD - 0.5 * LINE
    ax.text(x + PAD, y, title, va="center", fontsize=TITLE, weight="bold")
    for text, shape in lines:
        y -= LINE
        ax.text(x + PAD, y, text, va="center", fontsize=BODY)
        ax.text(x + width - PAD, y, shape, va="center", ha="right", fontsize=BODY, color="#444444")
    ax.text(x + PAD, y - LINE, last, va="center", fontsize=BODY, weight="bold", color=colour)
