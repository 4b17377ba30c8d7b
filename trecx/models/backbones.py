"""The three MLPerf Tiny backbones: a row of named stages, any of which an exit can tap.

A backbone is an `nn.Sequential` whose child names are the tap names; its last stage gives the final
feature maps F. It has no classifier: heads live in `trecx.models.heads`. `width` scales every channel count
(1.0 is the benchmark; smaller gives the static competitors that an early exit has to beat).
"""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from trecx.models.layers import Dropout, conv, conv_bn, separable


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, in, H, W) -> (N, out, H/stride, W/stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *conv_bn(in_channels, out_channels, 3, stride),
            *conv_bn(out_channels, out_channels, 3, relu=False),
        )
        # The shortcut of a striding block is a bare 1x1 convolution, without batch norm.
        self.shortcut = conv(in_channels, out_channels, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def resnet8(width: float = 1.0) -> nn.Sequential:
    """ResNet-8 of MLPerf Tiny on (N, 3, 32, 32), raw 0-255 values."""
    c = [_scaled(c, width) for c in (16, 16, 32, 64)]
    return nn.Sequential(
        OrderedDict(
            stem=conv_bn(3, c[0]),
            stack1=Residual(c[0], c[1], 1),  # 16 x 32 x 32, tap A
            stack2=Residual(c[1], c[2], 2),  # 32 x 16 x 16, tap B
            stack3=Residual(c[2], c[3], 2),  # 64 x 8 x 8
        )
    )


def ds_cnn(width: float = 1.0, blocks: int = 4) -> nn.Sequential:
    """DS-CNN of MLPerf Tiny on (N, 1, 49, 10), ten MFCCs of 49 frames."""
    c = _scaled(64, width)
    stages: OrderedDict[str, nn.Module] = OrderedDict(
        stem=nn.Sequential(*conv_bn(1, c, (10, 4), 2, init="glorot_uniform"), Dropout(0.2))  # 64 x 25 x 5
    )
    for k in range(1, blocks + 1):
        block = separable(c, c, init="glorot_uniform")
        stages[f"block{k}"] = nn.Sequential(*block, Dropout(0.4)) if k == blocks else block
    return nn.Sequential(stages)


# Stride and channels of layers 2 to 14; layer 4 is the paper's tap.
_MOBILENET = [(1, 16), (2, 32), (1, 32), (2, 64), (1, 64), (2, 128), *[(1, 128)] * 5, (2, 256), (1, 256)]


def mobilenet(width: float = 1.0) -> nn.Sequential:
    """MobileNetV1 with width multiplier 0.25 (`width` multiplies on top) on (N, 3, 96, 96) in [0, 1]."""
    channels = _scaled(8, width)
    stages: OrderedDict[str, nn.Module] = OrderedDict(layer1=conv_bn(3, channels, 3, 2))  # 8 x 48 x 48
    for k, (stride, out) in enumerate(_MOBILENET, start=2):
        out = _scaled(out, width)
        stages[f"layer{k}"] = separable(channels, out, stride)
        channels = out
    return nn.Sequential(stages)  # 256 x 3 x 3


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


BACKBONES = {"ic": resnet8, "kws": ds_cnn, "vww": mobilenet}
