"""One network at several resolutions: fewer pixels first, all of them if it is unsure.

Not the paper's. The looks share their convolutions, and each has batch norm layers and a head of its own, since the
statistics of the maps differ between resolutions (Wang et al. 2020, 'Resolution Switchable Networks'). So they need
hardly more memory for weights than one network; nothing that a look has computed is used by the next one.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from trecx.models.heads import ExitHead, FinalHead
from trecx.models.nested import step_heads
from trecx.models.network import Maps
from trecx.tasks import Init


class Look(nn.Module):
    """The whole backbone on images of one size.

    Args:
        backbone: with batch norm layers of its own.
        pool: what makes the last map's features.
        side: height and width in pixels that images are brought to, bilinear with antialiasing; 0: as they come.

    Its input is the images (N, C, H, W) in the first look, later what the look before returned: the images, for the
    next look, and the pooled features.
    """

    def __init__(self, backbone: nn.Sequential, pool: nn.Module, side: int) -> None:
        super().__init__()
        self.backbone, self.pool, self.side = backbone, pool, side

    def forward(self, x: Tensor | tuple[Maps, ...]) -> tuple[Maps, ...]:
        images = x if isinstance(x, Tensor) else x[0][0]
        seen = F.interpolate(images, (self.side, self.side), mode="bilinear", antialias=True) if self.side else images
        return (images,), (self.pool(self.backbone(seen)),)


def resolution_parts(
    backbones: Sequence[nn.Sequential],
    sides: Sequence[int],
    pools: Sequence[tuple[int, int]],
    channels: int,
    classes: int,
    init: Init,
) -> tuple[nn.Sequential, dict[str, ExitHead], FinalHead]:
    """Backbone, exits and final head of a network at several resolutions, for `EarlyExitNetwork`; its stages are looks.

    Args:
        backbones: the same plain backbone for every look, the first to run first; all get the last one's convolutions.
        sides: of every look's images in pixels, 0 for the images as they come.
        pools: window of the final pooling at every resolution.
        channels: of the last map.
        classes, init: of the dense layers, one a look.
    """
    for backbone in backbones[:-1]:
        _share_convolutions(backbone, backbones[-1])
    looks: OrderedDict[str, nn.Module] = OrderedDict(
        (f"step{k}", Look(backbone, nn.AvgPool2d(pool), side))
        for k, (backbone, pool, side) in enumerate(zip(backbones, pools, sides, strict=True), start=1)
    )
    return nn.Sequential(looks), *step_heads([*looks], [channels] * len(looks), classes, init)


def _share_convolutions(backbone: nn.Module, other: nn.Module) -> None:
    """Put the convolutions of `other`, a network of the same make, in place of those of `backbone`."""
    for name, layer in other.named_children():
        if isinstance(layer, nn.Conv2d):
            setattr(backbone, name, layer)
        else:
            _share_convolutions(getattr(backbone, name), layer)
