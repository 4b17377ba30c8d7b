"""The layers that all networks share, with the conventions of the authors' Keras code.

Three of them differ from PyTorch's habits and matter to the last unit of every count:
every convolution has a bias, also before batch norm; "same" padding is asymmetric where
TensorFlow's is; and a flattened map is ordered height, width, channel.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trecx.errors import check_choice
from trecx.tasks import Init


class SamePad2d(nn.Module):
    """Zero-pad (N, C, H, W) so that a strided window gives ceil(H / stride) rows, as TensorFlow does.

    An odd total goes to the bottom and the right: a 3x3 window with stride 2 on an even map pads
    nothing at the top and the left. PyTorch's symmetric padding would shift the sampling grid.
    """

    def __init__(self, kernel: tuple[int, int], stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for size, kernel in ((int(x.shape[3]), self.kernel[1]), (int(x.shape[2]), self.kernel[0])):
            total = max((math.ceil(size / self.stride) - 1) * self.stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return F.pad(x, pads) if any(pads) else x


def conv(
    in_channels: int,
    out_channels: int,
    kernel: int | tuple[int, int] = 3,
    stride: int = 1,
    *,
    depthwise: bool = False,
    init: Init = "he_normal",
) -> nn.Sequential:
    """Convolution with bias and "same" padding: (N, in, H, W) -> (N, out, ceil(H/stride), ceil(W/stride)).

    A depthwise kernel is always Glorot-uniform and free of L2: the authors pass an initialiser and a
    regulariser to it under argument names that Keras ignores.
    """
    kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
    groups = in_channels if depthwise else 1
    # An odd window with stride 1 needs the same padding on both sides: the convolution can do it itself.
    symmetric = stride == 1 and kh % 2 == 1 and kw % 2 == 1
    padding = (kh // 2, kw // 2) if symmetric else 0
    layer = Conv2d(in_channels, out_channels, (kh, kw), stride, padding, groups=groups)
    init_kernel(layer.weight, "glorot_uniform" if depthwise else init, depthwise=depthwise)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    if symmetric or (kh, kw) == (1, 1):
        return nn.Sequential(layer)
    return nn.Sequential(SamePad2d((kh, kw), stride), layer)


def conv_bn(*args: Any, relu: bool = True, **kwargs: Any) -> nn.Sequential:
    """`conv`, batch norm and, unless told otherwise, ReLU."""
    layers = [*conv(*args, **kwargs)]
    layers.append(nn.BatchNorm2d(layers[-1].out_channels, eps=1e-3, momentum=0.01))
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


def separable(in_channels: int, out_channels: int, stride: int = 1, init: Init = "he_normal") -> nn.Sequential:
    """Depthwise 3x3, batch norm, ReLU, then 1x1, batch norm, ReLU: the block of DS-CNN and MobileNet."""
    return nn.Sequential(
        *conv_bn(in_channels, in_channels, 3, stride, depthwise=True),
        *conv_bn(in_channels, out_channels, 1, init=init),
    )


def dense(in_features: int, out_features: int, init: Init = "glorot_uniform") -> nn.Linear:
    """Fully connected layer with bias: (N, in) -> (N, out)."""
    layer = nn.Linear(in_features, out_features)
    init_kernel(layer.weight, init)
    nn.init.zeros_(layer.bias)
    return layer


FEWEST = 16  # input channels, from which on oneDNN's 1x1 convolutions with a stride are right


def overruns(layer: nn.Conv2d) -> bool:
    """Whether oneDNN, PyTorch's kernels for processors, writes past its memory in this layer's backward pass.

    That of a 1x1 convolution with a stride and few input channels, on maps in channels_last: wrong gradients, a crash
    or a hang, on a processor without AVX-512 below 8 channels (oneDNN 3.12, https://github.com/uxlfoundation/oneDNN/issues/6035).
    """
    return layer.kernel_size == (1, 1) and max(layer.stride) > 1 and layer.in_channels < FEWEST


class Conv2d(nn.Conv2d):
    """A convolution that stays in float32 under autocast if it is depthwise, and whose gradients are right.

    Processors have no fast backward pass of a depthwise convolution in bfloat16: one 2x2 layer would take a
    third of ResNet-8's training step. Where oneDNN `overruns` its memory, what the stride leaves out is dropped first.
    """

    def forward(self, x: Tensor) -> Tensor:
        if overruns(self) and self.groups == 1 and x.device.type == "cpu" and torch.is_grad_enabled():
            rows, columns = self.stride
            return F.conv2d(x[:, :, ::rows, ::columns], self.weight, self.bias)
        if self.groups == 1 or not torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class Dropout(nn.Dropout):
    """Dropout whose mask comes, on a processor, from NumPy's fastest generator, under a seed that PyTorch draws.

    With PyTorch's own dropout the random numbers took a fifth of DS-CNN's training step; these take a fiftieth.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        if x.is_cuda:
            uniform = torch.rand_like(x, dtype=torch.float32)
        else:
            uniform = torch.empty_like(x, dtype=torch.float32)
            draw = np.random.Generator(np.random.SFC64(int(torch.randint(2**62, ()))))
            draw.random(dtype=np.float32, out=uniform.as_strided((x.numel(),), (1,)).numpy())  # in the order of memory
        return x * (uniform >= self.p).to(x.dtype).div_(1 - self.p)


class Flatten(nn.Module):
    """(N, C, H, W) -> (N, H*W*C), channels fastest: Keras's order, so that released weights fit unchanged."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


class Channels(nn.Module):
    """The first `keep` channels of a map: (N, C, H, W) -> (N, keep, H, W). Costs nothing."""

    def __init__(self, keep: int) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : self.keep]


class MixedPool(nn.Module):
    """Learned mix of max and average pooling, a*max + (1-a)*mean, to at most `cells` x `cells`.

    Feature reduction of Shallow-Deep Networks (Kaya et al. 2019, section 4.1); the windows do not overlap.
    """

    def __init__(self, size: tuple[int, int], cells: int = 4) -> None:
        super().__init__()
        self.window = tuple(math.ceil(s / cells) for s in size)
        self.mix = nn.Parameter(torch.zeros(()))  # sigmoid(0): half and half

    def forward(self, x: Tensor) -> Tensor:
        a = torch.sigmoid(self.mix)
        return a * F.max_pool2d(x, self.window, ceil_mode=True) + (1 - a) * F.avg_pool2d(x, self.window, ceil_mode=True)


def _he_normal(weight: Tensor, fan_in: int, fan_out: int) -> None:
    # Cutting a unit normal at +-2 leaves a deviation of 0.8796; Keras divides it out.
    std = math.sqrt(2 / fan_in) / 0.87962566103423978
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def _glorot_uniform(weight: Tensor, fan_in: int, fan_out: int) -> None:
    limit = math.sqrt(6 / (fan_in + fan_out))
    nn.init.uniform_(weight, -limit, limit)


INITIALISERS: dict[Init, Callable[[Tensor, int, int], None]] = {
    "he_normal": _he_normal,
    "glorot_uniform": _glorot_uniform,
}


@torch.no_grad()
def init_kernel(weight: Tensor, rule: Init, *, depthwise: bool = False) -> None:
    """Fill a kernel as Keras does: He-normal (truncated at two deviations) or Glorot-uniform.

    A depthwise kernel has fans k*k*C in and k*k out, because Keras reads them off the shape (k, k, C, 1).

    Raises:
        TrecxError: unknown rule.
    """
    check_choice("initialiser", rule, INITIALISERS)
    window = weight[0, 0].numel() if weight.dim() == 4 else 1
    fan_out, fan_in = weight.shape[0] * window, weight.shape[1] * window
    if depthwise:
        fan_in, fan_out = fan_out, window
    INITIALISERS[rule](weight, fan_in, fan_out)
