"""Every network of the replication: `build(task, method)` puts backbone, exits and final head together."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from trecx.errors import TrecxError
from trecx.models.backbones import BACKBONES
from trecx.models.heads import ConcatHead, DepthwiseExit, EarlyViewHead, ExitHead, FinalHead, branch_conv
from trecx.models.layers import Channels, Flatten, MixedPool, separable
from trecx.models.methods import GEOMETRY, Geometry, get_method
from trecx.models.network import EarlyExitNetwork, inference, stages
from trecx.tasks import get_task

RESOLUTIONS = range(32, 96, 16)  # of visual wake words; its own is 96


def build(
    task: str,
    method: str,
    *,
    taps: tuple[str, ...] | None = None,
    width: float = 1.0,
    classes: int | None = None,
    resolution: int = 0,
) -> EarlyExitNetwork:
    """Build a network with fresh weights from torch's random state.

    Args:
        task: `ic`, `kws` or `vww`.
        method: a name in METHODS.
        taps: stages to exit after, instead of the method's own (exit placement, Fig. 2).
        width: factor on every channel count.
        classes: number of classes, instead of the task's own (claim C11 adds one).
        resolution: side of the square inputs in pixels, 0 for the task's own; the final pooling covers what is left.

    Raises:
        TrecxError: unknown task, method or tap, an impossible resolution, or a width that is not positive.
    """
    spec, m, g = get_task(task), get_method(method, task), GEOMETRY[task]
    if not width > 0:
        raise TrecxError(f"width {width} is impossible: choose a positive factor, 1.0 for the benchmark")
    classes = classes or len(spec.classes)
    backbone = BACKBONES[task](width)
    maps = tap_shapes(backbone, input_shape(task, resolution))
    final_shape = list(maps.values())[-1]
    chosen = m.taps[task] if taps is None else taps
    if taps and not m.head:
        raise TrecxError(f"method {method!r} has no exit to place: choose a method with an early exit")
    for tap in chosen:
        if tap not in list(maps)[:-1]:
            raise TrecxError(f"unknown tap {tap!r} for {task}: choose one of {', '.join(list(maps)[:-1])}")
    exits = {tap: _exit_head(m.head, g, maps[tap], final_shape[0], classes) for tap in chosen}
    pool = (25, 5) if method == "baseline_mlperf" else g.final_pool
    if resolution:
        pool = final_shape[1:]
    final = _final_head(m.final, g, pool, exits, maps, chosen, classes)
    return EarlyExitNetwork(backbone, exits, final, m.rule)


def input_shape(task: str, resolution: int = 0) -> tuple[int, int, int]:
    """Channels, height and width of a task's inputs at `resolution` (0: its own).

    Raises:
        TrecxError: unknown task, or a resolution that this task cannot have.
    """
    channels, *_ = shape = get_task(task).input_shape
    if not resolution:
        return shape
    if task != "vww" or resolution not in RESOLUTIONS:
        allowed = f"vww at one of {', '.join(map(str, RESOLUTIONS))}, or 0 for the task's own"
        raise TrecxError(f"resolution {resolution} is impossible for {task}: choose {allowed}")
    return channels, resolution, resolution


def _exit_head(kind: str, g: Geometry, shape: tuple[int, int, int], final_channels: int, classes: int) -> ExitHead:
    channels, *size = shape
    conv_init, dense_init, _ = g.init
    features: nn.Module = nn.Identity()
    pool: nn.Module = _window(4, size)
    if kind == "trecx":
        # The paper wants the view no wider than half of F; this binds where the tap itself is wide.
        width = min(2 * channels, final_channels // 2) if g.widen else channels // 2
        features = DepthwiseExit(channels, width, g.kernel, 2, g.widen, conv_init)
        pool = _window(g.pool, output_shape(features, shape)[1:])
    elif kind == "stride_first":
        # The task's own pooling follows, so that only the convolutions differ from T-RecX's exit.
        widths = [channels, *(min(round(factor * channels), final_channels) for factor in g.stride_first)]
        features = nn.Sequential(*(separable(a, b, 2, init=conv_init) for a, b in pairwise(widths)))
        pool = _window(g.pool, output_shape(features, shape)[1:])
    elif kind in ("branch", "branch_published"):
        out = min(g.branch or max(1, channels // 2), channels)
        features = branch_conv(channels, out, published=kind == "branch_published", init="he_normal")
        pool = nn.AvgPool2d(g.branch_pool or (size[0], size[1]))
    elif kind == "mixed":
        pool = MixedPool((size[0], size[1]))
    flat = _numel(output_shape(nn.Sequential(features, pool), shape))
    return ExitHead(features, pool, flat, classes, dense_init)


def _final_head(
    kind: str,
    g: Geometry,
    pool: tuple[int, int],
    exits: Mapping[str, ExitHead],
    maps: Mapping[str, tuple[int, int, int]],
    taps: tuple[str, ...],
    classes: int,
) -> FinalHead:
    final_shape = list(maps.values())[-1]
    channels, init = final_shape[0], g.init[2]
    if kind == "plain":
        return FinalHead(channels, pool, classes, init)
    (tap,) = taps  # EV-assistance and concatenation pair one early exit with the final one
    features = exits[tap].features
    early_shape = output_shape(features, maps[tap])
    if kind == "concat":
        reduce: nn.Module = nn.Sequential(nn.AvgPool2d(early_shape[1:]), Flatten())
        return ConcatHead(channels, pool, classes, init, reduce=reduce, extra=early_shape[0])
    view = DepthwiseExit(channels, early_shape[0], g.kernel, g.view_stride, widen=False, init=init)
    reduce = nn.Sequential(
        nn.AvgPool2d(g.view_pool) if g.view_pool else nn.Identity(),
        Channels(round(g.view_keep * early_shape[0])),
        Flatten(),
    )
    extra = _numel(output_shape(nn.Sequential(view, reduce), final_shape))
    return EarlyViewHead(channels, pool, classes, init, view=view, reduce=reduce, extra=extra)


def tap_shapes(backbone: nn.Sequential, input_shape: tuple[int, int, int]) -> dict[str, tuple[int, int, int]]:
    """Channels, height and width of the map behind every stage."""
    shapes, shape = {}, input_shape
    for name, stage in stages(backbone):
        shape = shapes[name] = output_shape(stage, shape)
    return shapes


def output_shape(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Shape, without the batch, that `module` makes of an input of `shape`; leaves mode and BN statistics alone."""
    with inference(module):
        out: Tensor = module(torch.zeros(1, *shape))
    return tuple(out.shape[1:])  # type: ignore[return-value]


def _window(side: int, size: Sequence[int]) -> nn.AvgPool2d:
    """Average pooling over `side` x `side`, or over the whole of a smaller map."""
    return nn.AvgPool2d((min(side, size[0]), min(side, size[1])))


def _numel(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()
