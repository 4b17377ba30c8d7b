"""Exit heads: what turns a feature map into logits.

An early exit has two steps, `features` (map -> map) and `classify` (map -> logits). The split lets the
final head look at what the exit has already computed, and makes heads easy to recombine.
"""

import torch
from torch import Tensor, nn

from trecx.models.layers import Channels, Flatten, conv, conv_bn, dense
from trecx.tasks import Init


class ExitHead(nn.Module):
    """`features`, then `pool`, flatten and a dense layer: (N, C, H, W) -> maps and logits (N, classes)."""

    def __init__(self, features: nn.Module, pool: nn.Module, flat: int, classes: int, init: Init) -> None:
        super().__init__()
        self.features = features
        self.classify = nn.Sequential(pool, Flatten(), dense(flat, classes, init))

    def forward(self, tap: Tensor) -> tuple[Tensor, Tensor]:
        """Feature maps, which the final head may want to see, and logits."""
        maps = self.features(tap)
        return maps, self.classify(maps)


class DepthwiseExit(nn.Sequential):
    """The feature step of T-RecX's exit (paper section 3, Fig. 3): 1x1 conv, then strided depthwise conv.

    `widen` says whether there is a 1x1 convolution to `channels` (without batch norm and activation); where the
    authors leave it out, the first `channels` of the tap are taken instead.
    """

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int, widen: bool, init: Init) -> None:
        first = conv(in_channels, channels, 1, init=init) if widen else Channels(channels)
        super().__init__(first, conv(channels, channels, kernel, stride, depthwise=True), nn.ReLU())

    @property
    def depthwise(self) -> nn.Conv2d:
        """The depthwise layer, whose weights EV-assistance copies."""
        return self[1][-1]  # type: ignore[index]


def branch_conv(in_channels: int, out_channels: int, *, published: bool, init: Init) -> nn.Sequential:
    """The 3x3 convolution of a BranchyNet branch: linear in the authors' code, BN and ReLU as published."""
    return conv_bn(in_channels, out_channels, init=init) if published else conv(in_channels, out_channels, init=init)


class FinalHead(nn.Module):
    """Average pooling and a dense layer, the benchmarks' own classifier: (N, C, H, W) -> (N, classes)."""

    def __init__(self, channels: int, pool: tuple[int, int], classes: int, init: Init, extra: int = 0) -> None:
        super().__init__()
        self.pool = nn.Sequential(nn.AvgPool2d(pool), Flatten())
        self.classifier = dense(channels + extra, classes, init)

    def forward(self, final: Tensor, early: Tensor | None = None) -> Tensor:
        """`early` holds the early exit's feature maps (None without an exit); this head ignores them."""
        return self.classifier(self.pool(final))


class EarlyViewHead(FinalHead):
    """Final head with EV-assistance (paper section 3.3): a second look at F through the early exit's filter.

    `view` is a depthwise layer of the early exit's shape over the first channels of F; `reduce` pools,
    cuts and flattens its output to `extra` values, which join the pooled F before the dense layer.
    """

    def __init__(
        self,
        channels: int,
        pool: tuple[int, int],
        classes: int,
        init: Init,
        *,
        view: DepthwiseExit,
        reduce: nn.Module,
        extra: int,
    ) -> None:
        super().__init__(channels, pool, classes, init, extra)
        self.view, self.reduce = view, reduce

    def forward(self, final: Tensor, early: Tensor | None = None) -> Tensor:
        return self.classifier(torch.cat([self.pool(final), self.reduce(self.view(final))], dim=1))


class ConcatHead(FinalHead):
    """Final head fed with the early exit's own feature maps (Fig. 6, 'EE-fmaps concat').

    `reduce` pools and flattens the early maps to `extra` values.
    """

    def __init__(
        self, channels: int, pool: tuple[int, int], classes: int, init: Init, *, reduce: nn.Module, extra: int
    ) -> None:
        super().__init__(channels, pool, classes, init, extra)
        self.reduce = reduce

    def forward(self, final: Tensor, early: Tensor | None = None) -> Tensor:
        assert early is not None, "this head needs an early exit before it"
        return self.classifier(torch.cat([self.pool(final), self.reduce(early)], dim=1))
