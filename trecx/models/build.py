"""Every network of the replication: `build(task, method)` puts backbone, exits and final head together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from trecx.errors import TrecxError
from trecx.models.backbones import BACKBONES
from trecx.models.heads import ConcatHead, DepthwiseExit, EarlyViewHead, ExitHead, FinalHead, branch_conv
from trecx.models.layers import Channels, Flatten, MixedPool, separable
from trecx.models.methods import ExitKind, FinalKind, Method, get_method
from trecx.models.nested import nested_parts
from trecx.models.network import EarlyExitNetwork, inference, one_thread, stages
from trecx.models.resolutions import resolution_parts
from trecx.tasks import TASKS, Geometry, Init, get_task

Shape = tuple[int, int, int]  # channels, height, width
Parts = tuple[nn.Module, nn.Module]  # features and pooling of an exit head


def build(
    task: str,
    method: str,
    *,
    taps: tuple[str, ...] | None = None,
    width: float = 1.0,
    classes: int | None = None,
    resolution: int = 0,
    narrow: tuple[float, ...] | None = None,
    ends: str = "",
) -> EarlyExitNetwork:
    """Build a network with fresh weights from torch's random state (paper Fig. 1 to 6).

    Its `forward` gives the logits of every exit, (N, C, H, W) -> [(N, classes), ...], cheapest first.

    Args:
        task: `ic`, `kws` or `vww`.
        method: a name in METHODS.
        taps: stages to exit after, instead of the method's own (exit placement, Fig. 2).
        width: factor on every channel count.
        classes: number of classes, instead of the task's own (claim C11 adds one).
        resolution: side of the square inputs in pixels, 0 for the task's own; the final pooling covers what is left.
        narrow: of method `nested`, widths of the networks inside, ascending and below `width`, instead of its own.
        ends: the backbone's last stage, the rest of it is left out; empty for all of it. The final pooling covers the
            whole map there.

    Raises:
        TrecxError: unknown task, method, tap or stage, taps that the method cannot have, an impossible resolution, a
            width that is not positive, or narrow widths that are not below it.
    """
    spec, m = get_task(task), get_method(method, task)
    if not width > 0:
        raise TrecxError(f"width {width} is impossible: choose a positive factor, 1.0 for the benchmark")
    classes = classes or len(spec.classes)
    backbone = _trunk(task, width, ends)
    maps = tap_shapes(backbone, input_shape(task, resolution))
    final_shape = list(maps.values())[-1]
    g = spec.geometry
    pool = final_shape[1:] if resolution or ends else m.final_pool or g.final_pool
    widths = _narrow_widths(m, task, width, narrow)
    if m.head in STEPPED and taps not in (None, m.taps[task]):
        raise TrecxError(f"method {method!r} exits {STEPPED[m.head]}")
    if m.head == "resolutions":
        trunks = [*(_trunk(task, width, ends) for _ in m.looks), backbone]
        channels, side, _ = input_shape(task, resolution)
        sides = [round(look * side) for look in m.looks]
        pools = [output_shape(backbone, (channels, s, s))[1:] for s in sides]
        parts = resolution_parts(trunks, [*sides, 0], [*pools, pool], final_shape[0], classes, g.init[2])
        return EarlyExitNetwork(*parts, m.rule)
    if m.head == "nested":
        trunks = [*(_trunk(task, w, ends) for w in widths), backbone]
        return EarlyExitNetwork(*nested_parts(trunks, pool, classes, g.init[2]), m.rule)
    chosen = m.taps[task] if taps is None else taps
    if taps and not m.head:
        raise TrecxError(f"method {method!r} has no exit to place: choose a method with an early exit")
    for tap in chosen:
        if tap not in list(maps)[:-1]:
            raise TrecxError(f"unknown tap {tap!r} for {task}: choose one of {', '.join(list(maps)[:-1])}")
    if m.final != "plain" and len(chosen) != 1:
        raise TrecxError(f"method {method!r} pairs one early exit with the final one: give one tap, not {len(chosen)}")
    exits = {tap: _exit_head(m.head, g, maps[tap], final_shape[0], classes) for tap in chosen}
    early = (exits[chosen[0]].features, maps[chosen[0]]) if chosen else None
    final = FINAL_HEADS[m.final](_Ending(g, final_shape, pool, classes, early))
    return EarlyExitNetwork(backbone, exits, final, m.rule)


def _trunk(task: str, width: float, ends: str) -> nn.Sequential:
    """A task's backbone up to and including the stage `ends`, all of it for an empty name."""
    backbone = BACKBONES[task](width)
    names = [name for name, _ in stages(backbone)]
    if ends and ends not in names[1:]:
        raise TrecxError(f"no stage {ends!r} to end after in {task}: choose one of {', '.join(names[1:])}")
    return backbone[: names.index(ends) + 1] if ends else backbone


def _narrow_widths(m: Method, task: str, width: float, narrow: tuple[float, ...] | None) -> tuple[float, ...]:
    """The widths inside a nested network; none for other methods."""
    if m.head != "nested":
        if narrow:
            raise TrecxError(f"method {m.name!r} has no network inside: narrow is for method 'nested'")
        return ()
    widths = m.narrow[task] if narrow is None else narrow
    if not widths or not all(a < b for a, b in pairwise((0.0, *widths, width))):
        raise TrecxError(f"narrow {widths} is impossible: choose ascending widths above 0 and below {width}")
    return widths


def input_shape(task: str, resolution: int = 0) -> Shape:
    """Channels, height and width of a task's inputs at `resolution` (0: its own).

    Raises:
        TrecxError: unknown task, or a resolution that this task cannot have.
    """
    spec = get_task(task)
    channels, *_ = shape = spec.input_shape
    if not resolution:
        return shape
    if resolution not in spec.resolutions:
        sizes = [f"{t.name} at one of {', '.join(map(str, t.resolutions))}" for t in TASKS.values() if t.resolutions]
        allowed = f"{'; '.join(sizes)}, or 0 for the task's own"
        raise TrecxError(f"resolution {resolution} is impossible for {task}: choose {allowed}")
    return channels, resolution, resolution


def _trecx(g: Geometry, shape: Shape, widest: int) -> Parts:
    channels = shape[0]
    # The paper wants the view no wider than half of F; this binds where the tap itself is wide.
    width = min(2 * channels, widest // 2) if g.widen else channels // 2
    features = DepthwiseExit(channels, width, g.kernel, 2, g.widen, g.init[0])
    return features, _window(g.pool, output_shape(features, shape)[1:])


def _stride_first(g: Geometry, shape: Shape, widest: int) -> Parts:
    # The task's own pooling follows, so that only the convolutions differ from T-RecX's exit.
    widths = [shape[0], *(min(round(factor * shape[0]), widest) for factor in g.stride_first)]
    features = nn.Sequential(*(separable(a, b, 2, init=g.init[0]) for a, b in pairwise(widths)))
    return features, _window(g.pool, output_shape(features, shape)[1:])


def _branch(g: Geometry, shape: Shape, widest: int, published: bool = False) -> Parts:
    channels, *size = shape
    out = min(g.branch or max(1, channels // 2), channels)
    features = branch_conv(channels, out, published=published, init="he_normal")
    return features, nn.AvgPool2d(g.branch_pool or (size[0], size[1]))


def _pool(g: Geometry, shape: Shape, widest: int) -> Parts:
    return nn.Identity(), _window(4, shape[1:])


def _mixed(g: Geometry, shape: Shape, widest: int) -> Parts:
    return nn.Identity(), MixedPool(shape[1:])


# Kinds that exit behind steps of the whole backbone -> why they have no taps.
STEPPED: dict[ExitKind, str] = {
    "nested": "by width, not by stage: give narrow, its widths, and no taps",
    "resolutions": "by resolution, not by stage: give no taps",
}

# Kind -> what makes features and pooling from the task's geometry, the tap's shape and the channels of F.
EXIT_HEADS: dict[ExitKind, Callable[[Geometry, Shape, int], Parts]] = {
    "trecx": _trecx,
    "stride_first": _stride_first,
    "pool": _pool,
    "mixed": _mixed,
    "branch": _branch,
    "branch_published": partial(_branch, published=True),
}


def _exit_head(kind: ExitKind, g: Geometry, shape: Shape, widest: int, classes: int) -> ExitHead:
    features, pool = EXIT_HEADS[kind](g, shape, widest)
    flat = _numel(output_shape(nn.Sequential(features, pool), shape))
    return ExitHead(features, pool, flat, classes, g.init[1])


@dataclass(frozen=True)
class _Ending:
    """What a final head is made from; `early` are the features of its early exit and the shape of their input."""

    geometry: Geometry
    shape: Shape  # of F
    pool: tuple[int, int]
    classes: int
    early: tuple[nn.Module, Shape] | None

    @property
    def common(self) -> tuple[int, tuple[int, int], int, Init]:
        """The arguments that all final heads share."""
        return self.shape[0], self.pool, self.classes, self.geometry.init[2]

    def early_maps(self) -> Shape:
        """Shape of the early exit's maps."""
        assert self.early is not None
        return output_shape(*self.early)


def _plain(e: _Ending) -> FinalHead:
    return FinalHead(*e.common)


def _concat(e: _Ending) -> FinalHead:
    channels, *size = e.early_maps()
    reduce = nn.Sequential(nn.AvgPool2d((size[0], size[1])), Flatten())
    return ConcatHead(*e.common, reduce=reduce, extra=channels)


def _view(e: _Ending) -> FinalHead:
    g, width = e.geometry, e.early_maps()[0]
    view = DepthwiseExit(e.shape[0], width, g.kernel, g.view_stride, widen=False, init=g.init[2])
    reduce = nn.Sequential(
        nn.AvgPool2d(g.view_pool) if g.view_pool else nn.Identity(),
        Channels(round(g.view_keep * width)),
        Flatten(),
    )
    extra = _numel(output_shape(nn.Sequential(view, reduce), e.shape))
    return EarlyViewHead(*e.common, view=view, reduce=reduce, extra=extra)


FINAL_HEADS: dict[FinalKind, Callable[[_Ending], FinalHead]] = {"plain": _plain, "view": _view, "concat": _concat}


def tap_shapes(backbone: nn.Sequential, input_shape: Shape) -> dict[str, Shape]:
    """Channels, height and width of the map behind every stage."""
    shapes, shape = {}, input_shape
    for name, stage in stages(backbone):
        shape = shapes[name] = output_shape(stage, shape)
    return shapes


def output_shape(module: nn.Module, shape: tuple[int, ...]) -> Shape:
    """Shape, without the batch, that `module` makes of an input of `shape`; leaves mode and BN statistics alone."""
    with inference(module), one_thread():
        out: Tensor = module(torch.zeros(1, *shape))
    return tuple(out.shape[1:])  # type: ignore[return-value]


def _window(side: int, size: Sequence[int]) -> nn.AvgPool2d:
    """Average pooling over `side` x `side`, or over the whole of a smaller map."""
    return nn.AvgPool2d((min(side, size[0]), min(side, size[1])))


def _numel(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()
