"""The training engine: one loop for all tasks, methods and recipes.

Data stay in memory (on the GPU, where there is one) as whole tensors; augmentation works on batches. A run
is a function of its seed: the state of every random draw follows from the seed and the epoch, so a run that
was interrupted goes on from its last finished epoch to the same weights.
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from trecx.errors import TrecxError
from trecx.models.methods import Method
from trecx.models.network import EarlyExitNetwork, inference
from trecx.training.batches import _mix, batches, make_batch, scale, soften
from trecx.training.device import autocast, default_device
from trecx.training.losses import early_weights, exit_losses, joint_loss
from trecx.training.optimizer import Average, make_optimizer
from trecx.training.recipes import Recipe, learning_rate
from trecx.training.state import Progress, restore, save_state

Report = Callable[[int, dict[str, Any]], None]  # called with the number of finished epochs and the last row


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
    """Train `network` in place, leave it in inference mode, and return its history.

    Args:
        network: fresh weights, or those to go on from.
        method, recipe, task, w_early: what to minimise and how: `trecx.training.losses`, `trecx.training.recipes`.
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
    network.eval()
    return progress


def log_probs(network: nn.Module, x: Tensor, task: str, batch: int = 500) -> Tensor:
    """Log-softmax of every exit on inputs (n, C, H, W), in float32 on the CPU: (n, exits, classes)."""
    with inference(network):
        parts = [torch.stack(network(scale(rows, task)), 1).float().log_softmax(2).cpu() for rows in x.split(batch)]
    return torch.cat(parts)
