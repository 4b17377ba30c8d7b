"""The three MLPerf Tiny benchmarks of the paper (its section 4, Table 1)."""

from dataclasses import dataclass

from trecx.errors import TrecxError


@dataclass(frozen=True)
class Task:
    """One benchmark: what goes in, what comes out, and which data sets carry it."""

    name: str
    title: str
    backbone: str
    input_shape: tuple[int, int, int]  # channels, height, width
    classes: tuple[str, ...]
    full_data: str  # prepared data set of the `full` profile
    quick_data: str  # stand-in of the `quick` profile, built on the spot


IC = Task(
    name="ic",
    title="image classification",
    backbone="ResNet-8",
    input_shape=(3, 32, 32),
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    full_data="cifar10",
    quick_data="quick_photos",
)
KWS = Task(
    name="kws",
    title="keyword spotting",
    backbone="DS-CNN",
    input_shape=(1, 49, 10),  # MFCC frames by coefficients
    classes=("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes", "silence", "unknown"),
    full_data="speech_commands",
    quick_data="quick_words",
)
VWW = Task(
    name="vww",
    title="visual wake words",
    backbone="MobileNetV1-0.25",
    input_shape=(3, 96, 96),
    classes=("no person", "person"),
    full_data="vww96",
    quick_data="quick_faces",
)

TASKS = {task.name: task for task in (IC, KWS, VWW)}


def get_task(name: str) -> Task:
    """Return the task called `name`; raise TrecxError with the allowed names otherwise."""
    if name not in TASKS:
        raise TrecxError(f"unknown task {name!r}: choose one of {', '.join(TASKS)}")
    return TASKS[name]
