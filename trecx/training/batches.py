"""From stored samples to training batches: inputs, their range, order, augmentation and targets."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from trecx.errors import TrecxError
from trecx.tasks import get_task
from trecx.training.augment import AUGMENTATIONS
from trecx.training.recipes import Batching, Recipe


@dataclass(frozen=True)
class Examples:
    """What a training learns from and what it is validated on: inputs (n, C, H, W) as stored, labels (n,)."""

    x_train: Tensor
    y_train: Tensor
    x_val: Tensor
    y_val: Tensor

    def to(self, device: torch.device) -> "Examples":
        """The same on another device, with labels as integers of 64 bits."""
        x_train, y_train, x_val, y_val = (getattr(self, f.name).to(device) for f in fields(self))
        return Examples(x_train, y_train.long(), x_val, y_val.long())


def to_input(x: NDArray[Any]) -> Tensor:
    """Stored samples (N, H, W, C) as network inputs (N, C, H, W), still in their own type.

    The permuted view is already in channels-last order, the fastest layout for these networks.
    """
    return torch.from_numpy(np.ascontiguousarray(x)).permute(0, 3, 1, 2)


def resize(x: Tensor, side: int, batch: int = 500) -> Tensor:
    """Images (N, C, H, W) uint8 at `side` x `side` pixels, bilinear with antialiasing; as they are if they fit or 0."""
    if side in (0, x.shape[3]):
        return x
    parts = [
        F.interpolate(rows.float(), (side, side), mode="bilinear", antialias=True).round().clamp(0, 255).to(x.dtype)
        for rows in x.split(batch)
    ]
    return torch.cat(parts).contiguous(memory_format=torch.channels_last)


def scale(x: Tensor, task: str) -> Tensor:
    """Float inputs in the range that the benchmark expects: raw 0-255 (ic), raw MFCC (kws), [0, 1] (vww)."""
    divisor = get_task(task).input_scale
    return x.float() if divisor == 1 else x.float() / divisor


def batches(recipe: Recipe, n: int, epoch: int, seed: int) -> Iterator[Tensor]:
    """Row numbers (N,) of every batch of an epoch.

    `shuffle` drops no sample; the last batch may be short. `fixed` composes full batches once, drops the
    remainder and shuffles their order. `pad` leaves the last batch short for `make_batch` to fill.

    Raises:
        TrecxError: fewer than two samples.
    """
    if n < 2:
        raise TrecxError(f"{n} training samples are too few: give at least 2, batch norm cannot learn from one")
    draw = Generator().manual_seed(_mix(seed, epoch) + 2)
    yield from ORDERS[recipe.batching](recipe, n, seed, draw)


def _composed_once(recipe: Recipe, n: int, seed: int, draw: Generator) -> Iterator[Tensor]:
    composed = torch.randperm(n, generator=Generator().manual_seed(seed)).split(recipe.batch)
    composed = composed[: max(1, n // recipe.batch)]
    yield from (composed[k] for k in torch.randperm(len(composed), generator=draw).tolist())


def _shuffled(recipe: Recipe, n: int, seed: int, draw: Generator) -> Iterator[Tensor]:
    rows = torch.arange(n)
    if recipe.duplicates:
        extra = torch.randperm(n, generator=Generator().manual_seed(seed))[: recipe.duplicates]
        rows = torch.cat([rows, extra])
    shuffled = rows[torch.randperm(len(rows), generator=draw)].split(recipe.batch)
    # Batch norm cannot learn from a single sample.
    yield from (batch for batch in shuffled if len(batch) > 1)


ORDERS: dict[Batching, Callable[[Recipe, int, int, Generator], Iterator[Tensor]]] = {
    "shuffle": _shuffled,
    "fixed": _composed_once,
    "pad": _shuffled,
}


def make_batch(data: Examples, rows: Tensor, recipe: Recipe, task: str, draw: Generator) -> tuple[Tensor, Tensor, int]:
    """Augmented training inputs (N, C, H, W), labels (N,) and how many of the last rows are black padding."""
    rows = rows.to(data.x_train.device)
    batch, labels = scale(data.x_train[rows], task), data.y_train[rows]
    for name, arguments in recipe.augment:
        batch = AUGMENTATIONS[name](batch, draw, *arguments)
    padded = recipe.batch - len(rows) if recipe.batching == "pad" else 0
    if padded:
        batch = torch.cat([batch, batch.new_zeros(padded, *batch.shape[1:])])
        labels = torch.cat([labels, labels.new_zeros(padded)])
    return batch.contiguous(memory_format=torch.channels_last), labels, padded


@torch.no_grad()
def soften(x: Tensor, labels: Tensor, teacher: nn.Module, share: float) -> Tensor:
    """In place of each label a distribution over the classes (N, classes), `share` of it the teacher's answer."""
    return mix_targets(labels, teacher(x)[-1].float().softmax(1), share)


def mix_targets(labels: Tensor, answers: Tensor, share: float) -> Tensor:
    """`share` of the answers (N, classes), the rest of the labels (N,): a distribution over the classes a sample."""
    return torch.lerp(F.one_hot(labels, answers.shape[1]).float(), answers, share)


def _mix(seed: int, epoch: int) -> int:
    """One seed for every pair, far apart, so that no two epochs of any two runs draw alike."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 2)
