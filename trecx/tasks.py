"""The three MLPerf Tiny benchmarks of the paper (its section 4, Table 1)."""

from dataclasses import dataclass
from typing import Literal

from trecx.errors import TrecxError

Init = Literal["he_normal", "glorot_uniform"]  # rules of Keras that fill a kernel


@dataclass(frozen=True)
class Geometry:
    """The numbers that differ between the tasks' exit blocks (paper section 3 and the authors' code)."""

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
    init: tuple[Init, Init, Init]  # convolutions, early dense, final dense


@dataclass(frozen=True)
class Task:
    """One benchmark: what goes in, what comes out, which data sets carry it, and how T-RecX exits there."""

    name: str
    title: str
    full_title: str  # as the benchmark is called in print
    backbone: str
    input_shape: tuple[int, int, int]  # channels, height, width
    classes: tuple[str, ...]
    full_data: str  # prepared data set of the `full` profile
    quick_data: str  # stand-in of the `quick` profile, built on the spot
    sweeps: tuple[str, ...]  # lists of its published runs, the first is the headline's
    tap: str  # stage behind which T-RecX exits
    w: float  # the paper's loss weight of that exit (section 3.2)
    geometry: Geometry
    input_scale: float = 1.0  # stored samples are divided by it
    resolutions: tuple[int, ...] = ()  # sides in pixels that its inputs may have in place of their own


IC = Task(
    name="ic",
    title="image classification",
    full_title="CIFAR-10",
    backbone="ResNet-8",
    input_shape=(3, 32, 32),
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    full_data="cifar10",
    quick_data="quick_photos",
    sweeps=("cifar10",),
    tap="stack1",
    w=0.5,
    geometry=Geometry(
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
)
KWS = Task(
    name="kws",
    title="keyword spotting",
    full_title="Speech Commands",
    backbone="DS-CNN",
    input_shape=(1, 49, 10),  # MFCC frames by coefficients
    classes=("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes", "silence", "unknown"),
    full_data="speech_commands",
    quick_data="quick_words",
    sweeps=("speech_commands",),
    tap="block2",
    w=0.3,
    geometry=Geometry(
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
)
VWW = Task(
    name="vww",
    title="visual wake words",
    full_title="Visual Wake Words",
    backbone="MobileNetV1-0.25",
    input_shape=(3, 96, 96),
    classes=("no person", "person"),
    full_data="vww96",
    quick_data="quick_faces",
    sweeps=("vww96_finetune", "vww96_scratch"),
    tap="layer4",
    w=0.4,
    geometry=Geometry(
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
    input_scale=255.0,  # MobileNet takes [0, 1], the other two raw values
    resolutions=(32, 48, 64, 80),
)

TASKS = {task.name: task for task in (IC, KWS, VWW)}


def get_task(name: str) -> Task:
    """Return the task called `name`; raise TrecxError with the allowed names otherwise."""
    if name not in TASKS:
        raise TrecxError(f"unknown task {name!r}: choose one of {', '.join(TASKS)}")
    return TASKS[name]
