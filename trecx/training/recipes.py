"""Training recipes as data.

`paper` is the authors' own (their Keras code, where it and the paper differ). `fast` reaches the same
accuracy in a tenth of the epochs: one-cycle SGD. `quick` is `fast` cut to the seconds a book build has. Two more are
for visual wake words with few images: `scratch` from random weights, `finetune` from trained ones.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

from trecx.errors import TrecxError, check_choice
from trecx.tasks import get_task
from trecx.training.augment import AUGMENTATIONS

Optimizer = Literal["adam", "sgd"]
Schedule = Literal["exponential", "steps", "onecycle"]
Batching = Literal["shuffle", "fixed", "pad"]
Precision = Literal["float32", "bfloat16"]


DISTILLED = 0.7  # share of each target that is the teacher's answer, where a run and not its recipe asks for one


@dataclass(frozen=True)
class Recipe:
    """How a network is trained on one task.

    Raises:
        TrecxError: an optimiser, schedule, batching, precision or augmentation that does not exist, or too few
            epochs or samples a batch.
    """

    name: str
    epochs: int
    batch: int
    optimizer: Optimizer  # adam (Keras defaults) or sgd (Nesterov momentum 0.9)
    schedule: Schedule
    rate: float  # learning rate at the start (exponential, steps) or at the peak (onecycle)
    decay: float = 1.0  # exponential: factor an epoch
    steps: tuple[tuple[float, float], ...] = ()  # steps: (from this share of the epochs, this rate)
    weight_decay: float = 2e-4  # coupled, on ordinary convolution kernels: L2 of 1e-4 times the sum of squares
    augment: tuple[tuple[str, tuple[float, ...]], ...] = ()  # functions of trecx.training.augment and their arguments
    batching: Batching = "shuffle"  # shuffle; fixed: compose once, shuffle the order; pad: fill the last with black
    duplicates: int = 0  # random training images repeated so that the batch size divides
    transfer: float = 0.8  # share of the epochs in which EV-assistance copies weights
    restart: tuple[float, ...] = ()  # shares of the epochs at which the optimiser forgets its state
    clip: float = 0.0  # largest norm of the gradient; 0: not clipped
    bn_momentum: float = 0.01  # of the running statistics; short runs need a shorter memory
    precision: Precision = "float32"  # or bfloat16, where the processor is made for it, see trecx.training.device
    ema: float = 0.0  # decay a step of the moving average that is validated and kept; 0: the weights themselves
    head_rate: float = 1.0  # factor on the rate of the early exits, which start fresh where the rest is trained
    teacher: float = 0.0  # share of each target that is the answer of a teacher, the network that training starts from

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, get_args(Optimizer))
        check_choice("schedule", self.schedule, get_args(Schedule))
        check_choice("batching", self.batching, get_args(Batching))
        check_choice("precision", self.precision, get_args(Precision))
        for name, _ in self.augment:
            check_choice("augmentation", name, AUGMENTATIONS)
        if self.epochs < 1:
            raise TrecxError(f"epochs {self.epochs} is impossible: choose a whole number from 1")
        if self.batch < 2:
            raise TrecxError(f"batch {self.batch} is impossible: choose a whole number from 2, for batch norm")


_ROTATE_SHIFT = ("affine", (15.0, 0.1, 0.0))
_ROTATE_SHIFT_ZOOM = ("affine", (10.0, 0.05, 0.1))
_FLIP = ("flip", ())

PAPER = {
    "ic": Recipe(
        name="paper",
        epochs=500,
        batch=32,
        optimizer="adam",
        schedule="exponential",
        rate=1e-3,
        decay=0.99,
        augment=(_ROTATE_SHIFT, _FLIP),
        duplicates=16,  # 50 000 + 16 = 1 563 batches of 32
        transfer=402 / 500,
    ),
    "kws": Recipe(
        name="paper",
        epochs=36,
        batch=100,
        optimizer="adam",
        schedule="steps",
        rate=5e-4,
        steps=((12 / 36, 1e-4), (24 / 36, 2e-5)),
        batching="fixed",  # the authors batch before they shuffle
        transfer=30 / 36,
    ),
    "vww": Recipe(
        name="paper",
        epochs=50,
        batch=32,
        optimizer="adam",
        schedule="steps",
        rate=1e-3,
        steps=((20 / 50, 5e-4), (30 / 50, 2.5e-4)),
        augment=(_ROTATE_SHIFT_ZOOM, _FLIP),
        batching="pad",
        transfer=42 / 50,
        restart=(20 / 50, 30 / 50),  # three separate fits
    ),
}

# bfloat16 makes a training step 15 to 40 % shorter on a processor made for it (depthwise layers stay in float32).
FAST = {
    "ic": Recipe(
        name="fast",
        epochs=30,
        batch=128,
        optimizer="sgd",
        schedule="onecycle",
        rate=0.2,
        weight_decay=5e-4,
        augment=(("crop", (4,)), _FLIP),
        clip=2.0,  # exits without batch norm can run away at the peak rate
        bn_momentum=0.1,
        precision="bfloat16",
    ),
    "kws": Recipe(
        name="fast",
        epochs=14,
        batch=128,
        optimizer="sgd",
        schedule="onecycle",
        rate=0.2,
        weight_decay=2e-4,
        augment=(("shift_rows", (4,)),),
        clip=2.0,  # exits without batch norm can run away at the peak rate
        bn_momentum=0.1,
        precision="bfloat16",
    ),
    "vww": Recipe(
        name="fast",
        epochs=40,
        batch=32,
        optimizer="sgd",
        schedule="onecycle",
        rate=0.05,
        weight_decay=2e-4,
        augment=(_ROTATE_SHIFT_ZOOM, _FLIP),
        clip=2.0,  # exits without batch norm can run away at the peak rate
        bn_momentum=0.1,
        precision="bfloat16",
    ),
}

QUICK = {
    "ic": replace(FAST["ic"], name="quick", epochs=7, batch=64, rate=0.1),
    "kws": replace(FAST["kws"], name="quick", epochs=5, batch=64, rate=0.1),
    "vww": replace(FAST["vww"], name="quick", epochs=5, augment=(("crop", (6,)), _FLIP)),
}

# From scratch on a few thousand images: each pass over other cut-outs in other colours, and averaged weights. The rate
# is high and the distortion mild because this small network, with so few steps, fits its training images too little
# rather than too much. The best of ten trials of the baseline on validation, one seed each.
SCRATCH = {
    "vww": replace(
        FAST["vww"],
        name="scratch",
        epochs=30,
        optimizer="adam",
        rate=8e-3,
        weight_decay=0.0,
        augment=(("resized_crop", (0.6, 1.33)), _FLIP, ("colour", (0.2, 0.2, 0.2))),
        ema=0.999,
    ),
}

# From trained weights: hardly any distortion, a larger rate for the exits, averaged weights, and the trained network as
# a teacher. Rates and epochs are the best of six trials on validation, one seed each.
FINETUNE = {
    "vww": replace(
        FAST["vww"],
        name="finetune",
        epochs=20,
        batch=64,
        rate=0.04,
        augment=(("affine", (5.0, 0.05, 0.05)), _FLIP),
        ema=0.99,
        head_rate=3.0,
        teacher=0.7,  # it has seen all images and the official labels; without it the final exit forgets them
    ),
}

RECIPES = {"paper": PAPER, "fast": FAST, "quick": QUICK, "scratch": SCRATCH, "finetune": FINETUNE}


def get_recipe(name: str, task: str, epochs: int | None = None) -> Recipe:
    """Return the recipe of `task` called `name`, with another number of epochs if given.

    Schedules are shares of the epochs, so they stretch with them.

    Raises:
        TrecxError: unknown recipe, one that the task does not have, or fewer than one epoch.
    """
    get_task(task)
    if name not in RECIPES:
        raise TrecxError(f"unknown recipe {name!r}: choose one of {', '.join(RECIPES)}")
    if task not in RECIPES[name]:
        own = ", ".join(known for known, tasks in RECIPES.items() if task in tasks)
        raise TrecxError(f"task {task} has no recipe {name!r}: choose one of {own}")
    recipe = RECIPES[name][task]
    return recipe if epochs is None else replace(recipe, epochs=epochs)


def learning_rate(recipe: Recipe, epoch: int, fraction: float) -> float:
    """Learning rate when `fraction` of `epoch` (from 0) is done. Only the one-cycle changes inside an epoch."""
    return SCHEDULES[recipe.schedule](recipe, epoch, fraction)


def _exponential(recipe: Recipe, epoch: int, fraction: float) -> float:
    return recipe.rate * recipe.decay**epoch


def _steps(recipe: Recipe, epoch: int, fraction: float) -> float:
    passed = [rate for share, rate in recipe.steps if epoch >= round(share * recipe.epochs)]
    return passed[-1] if passed else recipe.rate


def _onecycle(recipe: Recipe, epoch: int, fraction: float) -> float:
    done, peak = (epoch + fraction) / recipe.epochs, 0.25
    return recipe.rate * (done / peak if done < peak else (1 - done) / (1 - peak))


SCHEDULES: dict[Schedule, Callable[[Recipe, int, float], float]] = {
    "exponential": _exponential,
    "steps": _steps,
    "onecycle": _onecycle,
}
