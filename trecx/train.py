"""The training engine: one loop for all tasks, methods and recipes.

Data stay in memory (on the GPU, where there is one) as whole tensors; augmentation works on batches. A run
is a function of its seed: the state of every random draw follows from the seed and the epoch, so a run that
was interrupted goes on from its last finished epoch to the same weights.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from trecx.augment import AUGMENTATIONS, mixup
from trecx.environment import arithmetic
from trecx.errors import TrecxError
from trecx.losses import early_weights, exit_losses, joint_loss
from trecx.network import EarlyExitNetwork
from trecx.recipes import Recipe, learning_rate
from trecx.records import load_tensors, save_tensors
from trecx.zoo import Method

Report = Callable[[int, dict[str, Any]], None]  # called with the number of finished epochs and the last row


@dataclass
class Progress:
    """How far a run has come: what is kept between epochs besides the weights."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def epochs(self) -> int:
        """Finished epochs."""
        return len(self.rows)


def default_device() -> torch.device:
    """A CUDA GPU where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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
    return x.float() / 255 if task == "vww" else x.float()


class Average:
    """Exponential moving average of a network's weights and batch norm statistics.

    The memory is shorter in the first steps, min(decay, (1 + step) / (10 + step)), so that it forgets the start.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.live = dict(network.state_dict())  # these share memory with the network
        self.tensors = {name: tensor.detach().clone() for name, tensor in self.live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the network as it is after `step` (from 0)."""
        new = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, tensor in self.live.items():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(tensor, new)
            else:
                self.tensors[name].copy_(tensor)  # a count of batches

    @torch.no_grad()
    def keep(self) -> None:
        """Give the network the averaged weights for good."""
        for name, tensor in self.live.items():
            tensor.copy_(self.tensors[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network has the averaged weights inside the block, its own again behind it."""
        own = {name: tensor.clone() for name, tensor in self.live.items()}
        self.keep()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in self.live.items():
                    tensor.copy_(own[name])


def train(
    network: EarlyExitNetwork,
    method: Method,
    recipe: Recipe,
    task: str,
    data: tuple[Tensor, Tensor, Tensor, Tensor],
    *,
    seed: int,
    w_early: float | None = None,
    shares: tuple[float, ...] = (),
    frozen: bool = False,
    teacher: nn.Module | None = None,
    state: Path | None = None,
    report: Report = lambda epochs, row: None,
    device: torch.device | None = None,
) -> Progress:
    """Train `network` in place and return its history.

    Args:
        network: fresh weights, or those to go on from.
        method, recipe, task, w_early: what to minimise and how, see `trecx.losses` and `trecx.recipes`.
        data: training inputs (N, C, H, W) and labels (N,), then those of validation.
        seed: of batch order, augmentation and dropout.
        shares: cost of each early exit relative to the whole network.
        frozen: train the heads only; the backbone keeps its weights and its batch norm statistics.
        teacher: a trained network whose last answer every exit learns from, where the recipe asks for it: knowledge
            distillation (Hinton et al. 2015) at temperature 1.
        state: file for the state after each epoch; training goes on from it if it exists.
        report: called after each epoch.
        device: a GPU if there is one, by default.

    Raises:
        TrecxError: the recipe asks for a teacher and there is none, or the loss is not finite any more.
    """
    if recipe.teacher and teacher is None:
        raise TrecxError(f"recipe {recipe.name!r} learns from a teacher: give the trained network")
    device = device or default_device()
    if len(shares) != network.num_exits - 1:
        raise TrecxError(f"shares has {len(shares)} entries: give one for each of {network.num_exits - 1} early exits")
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if teacher is not None:
        teacher.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    x_train, y_train, x_val, y_val = (part.to(device) for part in data)
    y_train, y_val = y_train.long(), y_val.long()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = recipe.bn_momentum
    network.backbone.requires_grad_(not frozen)
    optimizer = make_optimizer(network, recipe)
    average = Average(network, recipe.ema) if recipe.ema else None
    progress = restore(network, optimizer, state, average) if state and state.exists() else Progress()
    # Compiling takes longer than a short run saves on a processor; on a GPU these small networks need it.
    forward: Callable[[Tensor], list[Tensor]] = torch.compile(network) if device.type == "cuda" else network
    restarts = {round(share * recipe.epochs) for share in recipe.restart}
    transfer_epochs = round(recipe.transfer * recipe.epochs) if method.transfer else 0

    for epoch in range(progress.epochs, recipe.epochs):
        started = time.perf_counter()
        draw = Generator().manual_seed(_mix(seed, epoch))
        torch.manual_seed(_mix(seed, epoch) + 1)  # dropout
        if epoch in restarts:
            optimizer = make_optimizer(network, recipe)
        weights = early_weights(method, task, w_early, epoch / recipe.epochs, shares)
        sums = torch.zeros(network.num_exits, device=device)
        order = list(batches(recipe, len(x_train), epoch, seed))
        network.train()
        if frozen:
            network.backbone.eval()
        for step, rows in enumerate(order):
            rate = learning_rate(recipe, epoch, (step + 0.5) / len(order))
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            if epoch < transfer_epochs:
                network.transfer_weights()
            x, labels, padded = make_batch(x_train, y_train, rows.to(device), recipe, task, draw)
            with autocast(device, recipe.precision):
                if recipe.mixup or recipe.teacher:
                    x, labels = soften(x, labels, network.num_classes, recipe, draw, padded, teacher)
                logits = forward(x)
            losses = exit_losses(logits, labels, padded)
            optimizer.zero_grad(set_to_none=True)
            joint_loss(losses, weights).backward()
            if recipe.clip:
                nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
            optimizer.step()
            if average:
                average.update(epoch * len(order) + step)
            sums += torch.stack([loss.detach() for loss in losses])
        losses_of_epoch = (sums / len(order)).tolist()
        if not all(map(math.isfinite, losses_of_epoch)):
            raise TrecxError(
                f"the loss is not finite in epoch {epoch + 1} of {recipe.epochs}: "
                f"lower the learning rate (now {rate:.3g}) or the loss weight, or train in float32"
            )
        with average.applied() if average else nullcontext():
            hits = log_probs(network, x_val, task).argmax(2) == y_val.cpu()[:, None]
        row = {"epoch": epoch + 1, "learning_rate": rate}
        row |= {f"loss_{k + 1}": loss for k, loss in enumerate(losses_of_epoch)}
        row |= {f"val_accuracy_{k + 1}": value for k, value in enumerate(hits.float().mean(0).tolist())}
        progress.rows.append(row)
        progress.seconds += time.perf_counter() - started
        if state:
            save_state(network, optimizer, progress, state, average)
        report(epoch + 1, row)
    if average:
        average.keep()
    return progress


def batches(recipe: Recipe, n: int, epoch: int, seed: int) -> Iterator[Tensor]:
    """Row numbers (N,) of every batch of an epoch.

    `shuffle` drops no sample; the last batch may be short. `fixed` composes full batches once, drops the
    remainder and shuffles their order. `pad` leaves the last batch short for `make_batch` to fill.
    """
    draw = Generator().manual_seed(_mix(seed, epoch) + 2)
    if recipe.batching == "fixed":
        composed = torch.randperm(n, generator=Generator().manual_seed(seed)).split(recipe.batch)
        composed = composed[: max(1, n // recipe.batch)]
        yield from (composed[k] for k in torch.randperm(len(composed), generator=draw).tolist())
        return
    rows = torch.arange(n)
    if recipe.duplicates:
        extra = torch.randperm(n, generator=Generator().manual_seed(seed))[: recipe.duplicates]
        rows = torch.cat([rows, extra])
    shuffled = rows[torch.randperm(len(rows), generator=draw)].split(recipe.batch)
    # Batch norm cannot learn from a single sample.
    yield from (batch for batch in shuffled if len(batch) > 1)


def make_batch(
    x: Tensor, y: Tensor, rows: Tensor, recipe: Recipe, task: str, draw: Generator
) -> tuple[Tensor, Tensor, int]:
    """Augmented inputs (N, C, H, W), labels (N,) and how many of the last rows are black padding."""
    batch, labels = scale(x[rows], task), y[rows]
    for name, arguments in recipe.augment:
        batch = AUGMENTATIONS[name](batch, draw, *arguments)
    padded = recipe.batch - len(rows) if recipe.batching == "pad" else 0
    if padded:
        batch = torch.cat([batch, batch.new_zeros(padded, *batch.shape[1:])])
        labels = torch.cat([labels, labels.new_zeros(padded)])
    return batch.contiguous(memory_format=torch.channels_last), labels, padded


def soften(
    x: Tensor, labels: Tensor, classes: int, recipe: Recipe, draw: Generator, padded: int, teacher: nn.Module | None
) -> tuple[Tensor, Tensor]:
    """Blended inputs (N, C, H, W), and for each a distribution over the classes (N, classes) in place of its label."""
    targets = F.one_hot(labels, classes).float()
    if recipe.mixup:
        x, partner, share = mixup(x, draw, recipe.mixup, padded)
        targets = torch.lerp(targets[partner], targets, share)
    if teacher is not None:
        with torch.no_grad():
            answers = teacher(x)[-1].float().softmax(1)
        targets = torch.lerp(targets, answers, recipe.teacher)
    return x, targets


def make_optimizer(network: EarlyExitNetwork, recipe: Recipe) -> torch.optim.Optimizer:
    """Adam with Keras's epsilon, or SGD with Nesterov momentum; weight decay on ordinary convolutions only.

    Each group's `factor` multiplies the learning rate: `head_rate` for the early exits, 1 for all else.
    """
    kernels = list(network.l2_kernels())
    under_l2 = {id(p) for p in kernels}
    others = [p for p in network.parameters() if id(p) not in under_l2]
    in_exits = {id(p) for p in network.exits.parameters()} if recipe.head_rate != 1 else set()
    groups = [
        {"params": [p for p in params if (id(p) in in_exits) == exits], "weight_decay": decay, "factor": factor}
        for exits, factor in ((False, 1.0), (True, recipe.head_rate))
        for params, decay in ((kernels, recipe.weight_decay), (others, 0.0))
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, lr=recipe.rate, eps=1e-7)
    return torch.optim.SGD(groups, lr=recipe.rate, momentum=0.9, nesterov=True)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """bfloat16 arithmetic where the recipe asks for it and the device is made for it."""
    low = arithmetic(device, precision) == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16) if low else nullcontext()


@torch.no_grad()
def log_probs(network: nn.Module, x: Tensor, task: str, batch: int = 500) -> Tensor:
    """Log-softmax of every exit on inputs (n, C, H, W), in float32 on the CPU: (n, exits, classes)."""
    network.eval()
    parts = [torch.stack(network(scale(rows, task)), 1).float().log_softmax(2).cpu() for rows in x.split(batch)]
    return torch.cat(parts)


def save_state(
    network: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, path: Path, average: Average | None = None
) -> None:
    """Write what a run needs to go on: weights, their average, optimiser and history, in one safetensors file."""
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.tensors.items()} if average else {}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v for k, v in values.items() if isinstance(v, Tensor)}
    save_tensors(tensors, path, {"rows": json.dumps(progress.rows), "seconds": str(progress.seconds)})


def restore(
    network: nn.Module, optimizer: torch.optim.Optimizer, path: Path, average: Average | None = None
) -> Progress:
    """Read what `save_state` wrote into `network`, `optimizer` and `average`."""
    tensors, text = load_tensors(path)
    network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})
    for name, value in average.tensors.items() if average else ():
        value.copy_(tensors[f"average.{name}"])
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return Progress(json.loads(text["rows"]), float(text["seconds"]))


def _mix(seed: int, epoch: int) -> int:
    """One seed for every pair, far apart, so that no two epochs of any two runs draw alike."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 2)
