"""The training engine: one loop for all tasks, methods and recipes.

Data stay in memory (on the GPU, where there is one) as whole tensors; augmentation works on batches. A run
is a function of its seed: the state of every random draw follows from the seed and the epoch, so a run that
was interrupted goes on from its last finished epoch to the same weights.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from trecx.errors import TrecxError
from trecx.models.layers import Conv2d, overruns
from trecx.models.methods import Method
from trecx.models.network import EarlyExitNetwork, inference
from trecx.training.batches import Examples, _mix, batches, make_batch, mix_targets, scale, soften
from trecx.training.device import autocast, default_device
from trecx.training.losses import early_weights, exit_losses, joint_loss
from trecx.training.optimizer import Average, make_optimizer
from trecx.training.recipes import Recipe, learning_rate
from trecx.training.state import Progress, restore, save_state

Report = Callable[[int, dict[str, Any]], None]  # called with the number of finished epochs and the last row


@dataclass(frozen=True)
class Training:
    """What a training minimises, how, and under which seed.

    Args:
        method, recipe, task, w_early: see `trecx.training.losses` and `trecx.training.recipes`.
        seed: of batch order, augmentation and dropout.
        shares: cost of each early exit relative to the whole network.
        frozen: train the heads only; the backbone keeps its weights and its batch norm statistics.
        teacher: a trained network whose last answer every exit learns from, where the recipe asks for it: knowledge
            distillation (Hinton et al. 2015) at temperature 1.
        final_teaches: in place of a teacher the final exit's answers, without their gradient, for the early exits
            (Phuong and Lampert 2019).
        staged: one exit after the other, each with all epochs of the recipe: what leads to the first exit is trained
            alone, then stands still (weights and batch norm statistics) while what leads to the next one is trained.

    Raises:
        TrecxError: the recipe asks for a teacher and there is none, or the final exit is to teach one that is trained
            before it.
    """

    method: Method
    recipe: Recipe
    task: str
    seed: int
    shares: tuple[float, ...] = ()
    w_early: float | None = None
    frozen: bool = False
    teacher: nn.Module | None = None
    final_teaches: bool = False
    staged: bool = False

    def __post_init__(self) -> None:
        if self.staged and self.final_teaches:
            raise TrecxError("in staged training the final exit comes last and cannot teach: give another teacher")
        if self.recipe.teacher and self.teacher is None and not self.final_teaches:
            raise TrecxError(f"recipe {self.recipe.name!r} learns from a teacher: give the trained network")

    def early_weights(self, epoch: int) -> list[float]:
        """Loss weights of the early exits that are trained in `epoch` (from 0) beside another one."""
        if self.staged:
            return []
        return early_weights(self.method, self.task, self.w_early, epoch / self.recipe.epochs, self.shares)

    def copies_weights(self, epoch: int) -> bool:
        """Whether EV-assistance ties its two depthwise layers in `epoch` (from 0)."""
        return self.method.transfer and epoch < round(self.recipe.transfer * self.recipe.epochs)


def train(
    network: EarlyExitNetwork,
    training: Training,
    data: Examples,
    *,
    state: Path | None = None,
    report: Report = lambda epochs, row: None,
    device: torch.device | None = None,
) -> Progress:
    """Train `network` in place, leave it in inference mode, and return its history.

    A staged training has as many rows as the recipe has epochs for every exit; a row of it has the loss of the exit
    that is being trained and the validation accuracy of the exits so far.

    Args:
        network: fresh weights, or those to go on from.
        training: what to minimise and how.
        data: what to learn from, and what to validate on.
        state: file for the state after each epoch; training goes on from it if it exists.
        report: called after each epoch.
        device: a GPU if there is one, by default.

    Raises:
        TrecxError: another number of shares than of early exits, or the loss is not finite any more.
    """
    recipe, device = training.recipe, device or default_device()
    _prepare(network, training, device)
    data = data.to(device)
    optimizer = make_optimizer(network, recipe)
    average = Average(network, recipe.ema) if recipe.ema else None
    progress = restore(network, optimizer, state, average) if state and state.exists() else Progress()
    # Compiling takes longer than a short run saves on a processor; on a GPU these small networks need it.
    forward: Callable[[Tensor], list[Tensor]] = torch.compile(network) if device.type == "cuda" else network
    restarts = {round(share * recipe.epochs) for share in recipe.restart}
    for number in range(progress.epochs, recipe.epochs * (network.num_exits if training.staged else 1)):
        started = time.perf_counter()
        stage, epoch = divmod(number, recipe.epochs)
        if stage and epoch == 0 and average:
            average.keep()  # what stands still from now on is what was validated
            average = Average(network, recipe.ema)
        if epoch in restarts or (stage and epoch == 0):
            optimizer = make_optimizer(network, recipe)
        learner = _Learner(network, forward, optimizer, average, stage if training.staged else None)
        with _kernels(network, device):
            row = _one_epoch(learner, training, data, epoch)
        with average.applied() if average else nullcontext():
            row |= validate(network, data, training.task, learner.stage)
        progress.rows.append(row)
        progress.seconds += time.perf_counter() - started
        if state:
            save_state(network, optimizer, progress, state, average)
        report(number + 1, row)
    if average:
        average.keep()
    if training.staged:
        network.requires_grad_(True)
    network.eval()
    return progress


def _prepare(network: EarlyExitNetwork, training: Training, device: torch.device) -> None:
    """Check that the training fits the network, and move all networks to the device."""
    exits = network.num_exits - 1
    if len(training.shares) != exits:
        raise TrecxError(f"shares has {len(training.shares)} entries: give one for each of {exits} early exits")
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if training.teacher is not None:
        training.teacher.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = training.recipe.bn_momentum
    network.backbone.requires_grad_(not training.frozen)


@contextmanager
def _kernels(network: nn.Module, device: torch.device) -> Iterator[None]:
    """PyTorch's own kernels inside the block, which are slower, where oneDNN's get a layer wrong that is not ours."""
    strange = (m for m in network.modules() if isinstance(m, nn.Conv2d) and not isinstance(m, Conv2d))
    before = torch.backends.mkldnn.enabled
    if device.type == "cpu" and any(map(overruns, strange)):
        torch.backends.mkldnn.enabled = False  # type: ignore[assignment]  # its stubs have only the getter
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


@dataclass(frozen=True)
class _Learner:
    """What changes in a training step; `forward` is the network itself or its compiled form.

    `stage` is the exit that is trained alone, with what leads to it from the exit before; None: all at once.
    """

    network: EarlyExitNetwork
    forward: Callable[..., list[Tensor]]
    optimizer: torch.optim.Optimizer
    average: Average | None
    stage: int | None = None

    def enter(self, frozen: bool) -> None:
        """Training mode, apart from what stands still."""
        self.network.train()
        if self.stage is not None:
            parts = self.network.parts()
            self.network.requires_grad_(False)
            for part in parts[self.stage]:
                part.requires_grad_(True)
            for part in itertools.chain(*parts[: self.stage]):
                part.requires_grad_(False).eval()
        if frozen:
            self.network.backbone.requires_grad_(False).eval()


def _one_epoch(learner: _Learner, training: Training, data: Examples, epoch: int) -> dict[str, Any]:
    """Train for one epoch and return its row of the history: number, last learning rate, mean loss of every exit.

    `epoch` counts from 0, in a staged training in each stage; the row's number goes on.
    """
    network, recipe, stage = learner.network, training.recipe, learner.stage
    number = (stage or 0) * recipe.epochs + epoch
    draw = Generator().manual_seed(_mix(training.seed, number))
    torch.manual_seed(_mix(training.seed, number) + 1)  # dropout
    weights = training.early_weights(epoch)
    sums = torch.zeros(network.num_exits if stage is None else 1, device=data.y_train.device)
    order = list(batches(recipe, len(data.x_train), number, training.seed))
    learner.enter(training.frozen)
    for step, rows in enumerate(order):
        rate = learning_rate(recipe, epoch, (step + 0.5) / len(order))
        for group in learner.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        if training.copies_weights(epoch):
            network.transfer_weights()
        sums += _one_step(learner, training, make_batch(data, rows, recipe, training.task, draw), weights)
        if learner.average:
            learner.average.update(epoch * len(order) + step)
    losses = (sums / len(order)).tolist()
    if not all(map(math.isfinite, losses)):
        raise TrecxError(
            f"the loss is not finite in epoch {epoch + 1} of {recipe.epochs}{_of(stage)}: "
            f"lower the learning rate (now {rate:.3g}) or the loss weight, or train in float32"
        )
    named = {f"loss_{k + 1}": loss for k, loss in enumerate(losses, start=stage or 0)}
    return {"epoch": number + 1, "learning_rate": rate} | named


def _of(stage: int | None) -> str:
    return "" if stage is None else f" of exit {stage + 1}"


def _one_step(learner: _Learner, training: Training, batch: tuple[Tensor, Tensor, int], weights: list[float]) -> Tensor:
    """Learn from one batch; the loss of every exit that learns (exits,) before the step."""
    (x, labels, padded), recipe = batch, training.recipe
    with autocast(x.device, recipe.precision):
        if recipe.teacher and training.teacher is not None:
            labels = soften(x, labels, training.teacher, recipe.teacher)
        logits = learner.forward(x) if learner.stage is None else learner.forward(x, last=learner.stage)[-1:]
    losses = exit_losses(logits, labels, padded)
    if training.final_teaches:
        answers = mix_targets(labels, logits[-1].detach().float().softmax(1), recipe.teacher)
        losses = [*exit_losses(logits, answers, padded)[:-1], losses[-1]]
    learner.optimizer.zero_grad(set_to_none=True)
    joint_loss(losses, weights).backward()
    if recipe.clip:
        nn.utils.clip_grad_norm_(learner.network.parameters(), recipe.clip)
    learner.optimizer.step()
    return torch.stack([loss.detach() for loss in losses])


def validate(network: EarlyExitNetwork, data: Examples, task: str, last: int | None = None) -> dict[str, float]:
    """Accuracy of every exit up to `last` on the validation samples, as `val_accuracy_1`, `val_accuracy_2`, ..."""
    hits = log_probs(network, data.x_val, task).argmax(2) == data.y_val.cpu()[:, None]
    found = hits.float().mean(0).tolist()
    return {f"val_accuracy_{k + 1}": value for k, value in enumerate(found[: None if last is None else last + 1])}


def log_probs(network: nn.Module, x: Tensor, task: str, batch: int = 500) -> Tensor:
    """Log-softmax of every exit on inputs (n, C, H, W), in float32 on the CPU: (n, exits, classes)."""
    with inference(network):
        parts = [torch.stack(network(scale(rows, task)), 1).float().log_softmax(2).cpu() for rows in x.split(batch)]
    return torch.cat(parts)
