"""Every network of the replication: `build(task, method)`.

A method is data: which head sits at which taps, which final head, how it is trained and when a sample
leaves. `build` puts the parts of `backbones` and `heads` together with the geometry of each task.
Where the authors have no version for a task, the rule of the nearest task is carried over (see the
book's page 'Deviations').
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn

from trecx.backbones import BACKBONES
from trecx.errors import TrecxError
from trecx.heads import ConcatHead, DepthwiseExit, EarlyViewHead, ExitHead, FinalHead, branch_conv
from trecx.layers import Channels, Flatten, MixedPool, separable
from trecx.network import EarlyExitNetwork
from trecx.tasks import get_task


@dataclass(frozen=True)
class Geometry:
    """The numbers that differ between the tasks' exit blocks (paper section 3 and the authors' code)."""

    tap: str  # where T-RecX exits
    final_pool: tuple[int, int]  # the benchmark's own average pooling
    widen: bool  # a 1x1 convolution doubles the channels; False: take half of the tap's channels
    kernel: int  # of the exit's depthwise layer, stride 2
    pool: int  # average pooling of the exit
    view_stride: int  # of the EV depthwise layer on F
    view_pool: tuple[int, int] | None
    view_keep: float  # share of the EV channels that reach the classifier
    branch: int | None  # output channels of a BranchyNet branch; None: half of the tap's
    branch_pool: tuple[int, int] | None  # None: the whole map
    stride_first: tuple[float, ...]  # channels of the blocks of the exit that strides first, relative to the tap's
    init: tuple[str, str, str]  # convolutions, early dense, final dense


GEOMETRY = {
    "ic": Geometry(
        tap="stack1",
        final_pool=(8, 8),
        widen=True,
        kernel=2,
        pool=4,
        view_stride=2,
        view_pool=None,
        view_keep=1.0,
        branch=16,
        branch_pool=(4, 4),
        stride_first=(2, 4),
        init=("he_normal", "he_normal", "he_normal"),
    ),
    "kws": Geometry(
        tap="block2",
        final_pool=(24, 5),  # drops the last of 25 frames, as the authors' training code does
        widen=False,
        kernel=3,
        pool=2,
        view_stride=1,
        view_pool=(13, 3),  # so the view sees frames 0-12 and coefficients 0-2 only
        view_keep=1.0,
        branch=None,
        branch_pool=(24, 5),
        stride_first=(1,),
        init=("glorot_uniform", "glorot_uniform", "glorot_uniform"),
    ),
    "vww": Geometry(
        tap="layer4",
        final_pool=(3, 3),
        widen=True,
        kernel=2,
        pool=4,
        view_stride=1,
        view_pool=None,
        view_keep=0.5,  # 64 channels are computed, 32 are used
        branch=None,
        branch_pool=None,
        stride_first=(2,),
        init=("he_normal", "he_normal", "glorot_uniform"),
    ),
}

RESOLUTIONS = range(32, 96, 16)  # of visual wake words; its own is 96

# Taps of the two baselines. For MobileNet, which the paper leaves out, the stages whose share of the
# cost is nearest to 1/3, 2/3 (BranchyNet) and 1/4, 1/2, 3/4 (SDN).
BRANCHYNET_TAPS = {"ic": ("stack1", "stack2"), "kws": ("block1", "block2"), "vww": ("layer5", "layer9")}
SDN_TAPS = {
    "ic": ("stack1", "stack2"),
    "kws": ("block1", "block2", "block3"),
    "vww": ("layer4", "layer8", "layer10"),
}
T_RECX_TAP = {task: (geometry.tap,) for task, geometry in GEOMETRY.items()}
# DS-CNN's own exit has no 1x1 convolution and costs next to nothing; one that has pays off a block earlier.
STRIDE_FIRST_TAP = {**T_RECX_TAP, "kws": ("block1",)}
NO_TAP: Mapping[str, tuple[str, ...]] = dict.fromkeys(GEOMETRY, ())


@dataclass(frozen=True)
class Method:
    """How a network exits and how it is trained."""

    name: str
    label: str  # in tables and figures
    about: str  # one line
    head: str = ""  # kind of exit head, see EXIT_HEADS
    final: str = "plain"  # kind of final head: plain, view (EV-assistance) or concat
    taps: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: T_RECX_TAP)
    transfer: bool = False  # copy the early depthwise weights onto the EV layer while training
    loss: tuple[float, ...] | str = "w"  # weights of the early losses; 'w': the task's w; 'ramp': SDN's
    rule: str = ">"  # a sample leaves if its score is > (T-RecX) or >= (the baselines) the threshold
    tasks: tuple[str, ...] = ("ic", "kws", "vww")


METHODS = {
    m.name: m
    for m in (
        Method("baseline", "Baseline", "the unmodified benchmark network", taps=NO_TAP, loss=()),
        Method(
            "baseline_mlperf",
            "Baseline (MLPerf)",
            "the released MLPerf Tiny network, which pools all 25 frames",
            taps=NO_TAP,
            loss=(),
            tasks=("kws",),
        ),
        Method("trecx_ev", "T-RecX", "T-RecX with EV-assistance: the paper's method", "trecx", "view", transfer=True),
        Method("trecx_no_ev", "T-RecX, no EV", "T-RecX's exit, the benchmark's own final head", "trecx"),
        Method(
            "trecx_no_transfer",
            "T-RecX, no transfer",
            "T-RecX's network with EV-assistance, weights never copied",
            "trecx",
            "view",
        ),
        Method(
            "trecx_concat",
            "EE-fmaps concat",
            "the early exit's maps join the final head (Fig. 6)",
            "trecx",
            "concat",
            loss=(1.0,),
        ),
        Method(
            "trecx_stride_first",
            "T-RecX-improved: stride first",
            "not the paper's: an exit that strides before it widens, batch norm and ReLU in it; no EV-assistance",
            "stride_first",
            taps=STRIDE_FIRST_TAP,
        ),
        Method("baseline_ee", "Baseline EE", "pooling and a dense layer as the exit (Fig. 5)", "pool", loss=(1.0,)),
        Method(
            "branchynet",
            "BranchyNet",
            "two branches, as the authors coded it",
            "branch",
            taps=BRANCHYNET_TAPS,
            loss=(1.0, 0.3),
            rule=">=",
        ),
        Method(
            "branchynet_fair",
            "BranchyNet (published)",
            "two branches with batch norm and ReLU",
            "branch_published",
            taps=BRANCHYNET_TAPS,
            loss=(1.0, 0.3),
            rule=">=",
        ),
        Method(
            "sdn",
            "SDN",
            "internal classifiers, as the authors coded it: loss weight frozen at 0.01",
            "pool",
            taps=SDN_TAPS,
            loss=(0.01, 0.01, 0.01),
            rule=">=",
        ),
        Method(
            "sdn_fair",
            "SDN (published)",
            "internal classifiers with learned pooling mix and the true loss ramp",
            "mixed",
            taps=SDN_TAPS,
            loss="ramp",
            rule=">=",
        ),
    )
}


def get_method(name: str, task: str | None = None) -> Method:
    """Return the method called `name`; raise TrecxError with the allowed names (for `task`) otherwise."""
    allowed = [m.name for m in METHODS.values() if task is None or task in m.tasks]
    if name not in allowed:
        where = f" for task {task!r}" if task else ""
        raise TrecxError(f"unknown method {name!r}{where}: choose one of {', '.join(allowed)}")
    return METHODS[name]


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
    return EarlyExitNetwork(backbone, exits, _final_head(m.final, g, pool, exits, maps, chosen, classes))


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
    for name, stage in backbone.named_children():
        shape = shapes[name] = output_shape(stage, shape)
    return shapes


@torch.no_grad()
def output_shape(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Shape, without the batch, that `module` makes of an input of `shape`; leaves its BN statistics alone."""
    was_training = module.training
    out: Tensor = module.eval()(torch.zeros(1, *shape))
    module.train(was_training)
    return tuple(out.shape[1:])  # type: ignore[return-value]


def _window(side: int, size: Sequence[int]) -> nn.AvgPool2d:
    """Average pooling over `side` x `side`, or over the whole of a smaller map."""
    return nn.AvgPool2d((min(side, size[0]), min(side, size[1])))


def _numel(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()
