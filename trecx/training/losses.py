"""Training losses: a weighted sum of the exits' cross-entropies, and how each method weighs them.

T-RecX minimises L = w * L_early + L_final with 0 < w < 1 (paper section 3.2). L2 on the convolution
kernels is left to the optimiser's weight decay, see `trecx.training.recipes`.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from trecx.errors import TrecxError
from trecx.models.methods import Method, Ramp, TaskWeight
from trecx.tasks import get_task


def early_weights(
    method: Method, task: str, w_early: float | None, progress: float, shares: Sequence[float]
) -> list[float]:
    """Loss weights of the early exits, cheapest first; the final exit always weighs 1.

    Args:
        method: whose rule applies.
        task: gives the paper's w where `w_early` is None.
        w_early: one weight for every early exit, in place of the method's own.
        progress: epoch / epochs, in [0, 1).
        shares: cost of each early exit relative to the whole network, for the ramp of SDN.

    Raises:
        TrecxError: `w_early` is not positive.
    """
    if w_early is not None and not w_early > 0:
        raise TrecxError(f"w_early {w_early} is impossible: choose a positive loss weight, the paper's are below 1")
    if isinstance(method.loss, Ramp):
        # The authors of T-RecX meant the same, but their weight stays at its first value: method `sdn`.
        return [method.loss.start + progress * share for share in shares]
    if w_early is not None:
        return [w_early] * len(shares)
    if isinstance(method.loss, TaskWeight):
        return [get_task(task).w] * len(shares)
    weights = [float(weight) for weight in method.loss.weights]
    return (weights + weights[-1:] * len(shares))[: len(shares)]


def exit_losses(logits: Sequence[Tensor], labels: Tensor, padded: int = 0) -> list[Tensor]:
    """Mean cross-entropy of every exit: [(N, classes), ...] and labels (N,) -> [scalar, ...].

    In place of labels there may be a distribution over the classes for every sample, (N, classes).

    The last `padded` rows are the black images that fill the last batch of the paper's visual wake words
    recipe: their label vector is all zero, so they add nothing to the final loss; the early loss takes the
    arg max of that vector and trains on class 0.
    """
    losses = [F.cross_entropy(row.float(), labels) for row in logits[:-1]]
    real = len(labels) - padded
    final = F.cross_entropy(logits[-1][:real].float(), labels[:real], reduction="sum") / len(labels)
    return [*losses, final]


def joint_loss(losses: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Weighted early losses plus the final one: the scalar to minimise."""
    total = losses[-1]
    for weight, loss in zip(weights, losses[:-1], strict=True):
        total = total + weight * loss
    return total
