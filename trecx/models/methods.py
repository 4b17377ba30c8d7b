"""The methods as data: what sits where, how it is trained, and when a sample leaves.

Where the authors have no version of a method for a task, the rule of the nearest task is carried over (see the book's
page 'Deviations').
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from trecx.errors import TrecxError
from trecx.models.network import Rule


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
    rule: Rule = ">"  # a sample leaves if its score is > (T-RecX) or >= (the baselines) the threshold
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


def method_of(name: str) -> Method:
    """The method of a group: what stands before the comma of a variant's name."""
    return get_method(name.partition(",")[0])


def label_of(name: str) -> str:
    """What a group is called in tables and figures: 'EE-fmaps concat, w = 0.3' for 'trecx_concat, w = 0.3'."""
    _, comma, variant = name.partition(",")
    return method_of(name).label + comma + variant
