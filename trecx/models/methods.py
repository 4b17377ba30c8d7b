"""The methods as data: what sits where, how it is trained, and when a sample leaves.

Where the authors have no version of a method for a task, the rule of the nearest task is carried over (see the book's
page 'Deviations').
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from trecx.errors import TrecxError, check_choice
from trecx.tasks import TASKS

Rule = Literal[">", ">="]  # how a score must compare with the threshold for its sample to leave
ExitKind = Literal["", "trecx", "stride_first", "pool", "mixed", "branch", "branch_published", "nested", "resolutions"]
FinalKind = Literal["plain", "view", "concat"]
Taps = Mapping[str, tuple[str, ...]]  # stages by task


# Taps of the two baselines. For MobileNet, which the paper leaves out, the stages whose share of the
# cost is nearest to 1/3, 2/3 (BranchyNet) and 1/4, 1/2, 3/4 (SDN).
BRANCHYNET_TAPS = {"ic": ("stack1", "stack2"), "kws": ("block1", "block2"), "vww": ("layer5", "layer9")}

SDN_TAPS = {
    "ic": ("stack1", "stack2"),
    "kws": ("block1", "block2", "block3"),
    "vww": ("layer4", "layer8", "layer10"),
}

# Width of the narrow network inside a nested one, as a factor on the channels: where to begin. Which width serves a
# budget is chosen on validation, see `trecx.analysis.choice`.
NARROW = {"ic": (0.625,), "kws": (0.375,), "vww": (0.5,)}

NO_TAPS: Taps = dict.fromkeys(TASKS, ())


def _own_tap() -> Taps:
    """Where T-RecX exits."""
    return {name: (task.tap,) for name, task in TASKS.items()}


# DS-CNN's own exit has no 1x1 convolution and costs next to nothing; one that has pays off a block earlier.
STRIDE_FIRST_TAPS: Taps = {**_own_tap(), "kws": ("block1",)}


@dataclass(frozen=True)
class TaskWeight:
    """Every early loss weighs the task's w (paper section 3.2)."""


@dataclass(frozen=True)
class FixedWeights:
    """Weights of the early losses, cheapest exit first; the last one holds for all exits behind it."""

    weights: tuple[float, ...]


@dataclass(frozen=True)
class Ramp:
    """Each early weight grows from `start` to the exit's relative cost, linear in the epochs (Kaya et al. 2019)."""

    start: float = 0.01


Loss = TaskWeight | FixedWeights | Ramp
NO_LOSS = FixedWeights(())


@dataclass(frozen=True)
class Method:
    """How a network exits and how it is trained.

    Raises:
        TrecxError: a kind of head, loss or exit rule that does not exist.
    """

    name: str
    label: str  # in tables and figures
    about: str  # one line
    head: ExitKind = ""  # kind of exit head, see `trecx.models.build.EXIT_HEADS`; none for a baseline
    final: FinalKind = "plain"  # kind of final head: plain, view (EV-assistance) or concat
    taps: Taps = field(default_factory=_own_tap)
    transfer: bool = False  # copy the early depthwise weights onto the EV layer while training
    loss: Loss = TaskWeight()  # how the early losses are weighed
    rule: Rule = ">"  # a sample leaves if its score is > (T-RecX) or >= (the baselines) the threshold
    tasks: tuple[str, ...] = tuple(TASKS)
    final_pool: tuple[int, int] | None = None  # in place of the task's own
    narrow: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # nested: widths inside, by task
    looks: tuple[float, ...] = ()  # resolutions: side of the images in the looks before the last, relative to theirs

    def __post_init__(self) -> None:
        check_choice("kind of exit head", self.head, get_args(ExitKind))
        check_choice("kind of final head", self.final, get_args(FinalKind))
        check_choice("exit rule", self.rule, get_args(Rule))
        if not self.head and any(self.taps.values()):
            raise TrecxError(f"method {self.name!r} has taps but no exit: give head, the kind of its exit heads")
        if not isinstance(self.loss, Loss):
            raise TrecxError(f"unknown loss {self.loss!r}: choose a TaskWeight, FixedWeights or Ramp")

    @property
    def in_trunk(self) -> bool:
        """Whether its early exits sit in the trunk; else each has a complete network behind it, or there are none."""
        return bool(self.head) and not (self.narrow or self.looks)


METHODS = {
    m.name: m
    for m in (
        Method("baseline", "Baseline", "the unmodified benchmark network", taps=NO_TAPS, loss=NO_LOSS),
        Method(
            "baseline_mlperf",
            "Baseline (MLPerf)",
            "the released MLPerf Tiny network, which pools all 25 frames",
            taps=NO_TAPS,
            loss=NO_LOSS,
            tasks=("kws",),
            final_pool=(25, 5),
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
            loss=FixedWeights((1.0,)),
        ),
        Method(
            "trecx_stride_first",
            "T-RecX-improved: stride first",
            "not the paper's: an exit that strides before it widens, batch norm and ReLU in it; no EV-assistance",
            "stride_first",
            taps=STRIDE_FIRST_TAPS,
        ),
        Method(
            "baseline_ee",
            "Baseline EE",
            "pooling and a dense layer as the exit (Fig. 5)",
            "pool",
            loss=FixedWeights((1.0,)),
        ),
        Method(
            "branchynet",
            "BranchyNet",
            "two branches, as the authors coded it",
            "branch",
            taps=BRANCHYNET_TAPS,
            loss=FixedWeights((1.0, 0.3)),
            rule=">=",
        ),
        Method(
            "branchynet_fair",
            "BranchyNet (published)",
            "two branches with batch norm and ReLU",
            "branch_published",
            taps=BRANCHYNET_TAPS,
            loss=FixedWeights((1.0, 0.3)),
            rule=">=",
        ),
        Method(
            "sdn",
            "SDN",
            "internal classifiers, as the authors coded it: loss weight frozen at 0.01",
            "pool",
            taps=SDN_TAPS,
            loss=FixedWeights((0.01, 0.01, 0.01)),
            rule=">=",
        ),
        Method(
            "sdn_fair",
            "SDN (published)",
            "internal classifiers with learned pooling mix and the true loss ramp",
            "mixed",
            taps=SDN_TAPS,
            loss=Ramp(),
            rule=">=",
        ),
        Method(
            "nested",
            "Nested",
            "not the paper's: a complete narrow network inside, its maps used again when a sample goes on",
            "nested",
            taps=dict.fromkeys(TASKS, ("step1",)),
            loss=FixedWeights((1.0,)),
            narrow=NARROW,
        ),
        Method(
            "two_resolutions",
            "Two resolutions",
            "not the paper's: the whole network on fewer pixels, then on all; shared convolutions, own batch norms",
            "resolutions",
            taps=dict.fromkeys(TASKS, ("step1",)),
            loss=FixedWeights((1.0,)),
            tasks=("vww",),
            looks=(2 / 3,),  # 64 of 96 pixels
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
