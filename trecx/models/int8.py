"""Post-training int8 quantisation of the weights, for claim C12 (the early-exit MobileNet shrinks by 70.4 %).

The paper quantises with TensorFlow Lite, whose file also holds a graph. Here the size is that of the numbers
alone: one byte a kernel value with one float32 scale an output channel, and float32 biases after batch norm has
been folded into the convolution before it.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from trecx.models.network import EarlyExitNetwork


@dataclass(frozen=True)
class Quantised:
    """A network whose kernels have been rounded to int8, and what that saves."""

    network: EarlyExitNetwork  # batch norm folded, kernels on the int8 grid, still computing in float
    float_bytes: int  # of the network that is shipped without quantisation: batch norm unfolded, float32
    int8_bytes: int

    @property
    def reduction(self) -> float:
        """Share of the float network's bytes that is saved."""
        return 1 - self.int8_bytes / self.float_bytes


@torch.no_grad()
def quantise(network: EarlyExitNetwork) -> Quantised:
    """Fold batch norm and round every convolution and dense kernel to int8, symmetric, per output channel."""
    statistics = sum(2 * m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    float_bytes = 4 * (sum(p.numel() for p in network.parameters()) + statistics)
    folded = fold_batch_norm(network)
    int8_bytes = 0
    for module in folded.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.copy_(round_to_int8(module.weight))
            outputs = len(module.weight)
            int8_bytes += module.weight.numel() + 4 * outputs + 4 * outputs  # kernel, scales, biases
    return Quantised(folded, float_bytes, int8_bytes)


def round_to_int8(kernel: Tensor) -> Tensor:
    """The nearest of 255 levels between -max and max of each output channel: same shape, float."""
    largest = kernel.flatten(1).abs().amax(1).clamp(min=1e-12)
    step = (largest / 127).view(-1, *[1] * (kernel.dim() - 1))
    return (kernel / step).round() * step


def fold_batch_norm(network: EarlyExitNetwork) -> EarlyExitNetwork:
    """A copy in inference mode in which every batch norm is part of the convolution before it."""
    folded = deepcopy(network).eval()
    for sequence in [m for m in folded.modules() if isinstance(m, nn.Sequential)]:
        for k in range(1, len(sequence)):
            before, norm = sequence[k - 1], sequence[k]
            if isinstance(before, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                sequence[k - 1] = fuse_conv_bn_eval(before, norm)
                sequence[k] = nn.Identity()
    return folded
