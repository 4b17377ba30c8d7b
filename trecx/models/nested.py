"""Nested networks: a complete narrow network inside the full one, its feature maps used again when a sample goes on.

Not the paper's. Each layer's output channels are split into groups, the narrow ones first: a group sees its own and
all narrower groups, never a wider one. So the first step is a complete network of its own, and going on computes only
the channels that are missing. The kernels from wide to narrow do not exist: with share s of the channels in the first
of two groups, the whole needs about 1 - s(1 - s) of the unmodified network's multiplications.

The idea is known as a subnetwork in a wider one (SteppingNet, arXiv 2211.14926; ENAS4D, arXiv 2009.09182).
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trecx.errors import TrecxError
from trecx.models.backbones import Residual
from trecx.models.heads import ExitHead, FinalHead
from trecx.models.layers import Flatten
from trecx.models.network import Maps, stages
from trecx.tasks import Init


class Step(nn.Module):
    """One group of channels of every layer: it reads what the steps before it left, and leaves its own.

    Args:
        backbone: the network of this step's width, without the output channels that narrower steps compute.
        pool: what makes the last map's features.

    Its input is the images (N, C, H, W) in the first step, later what the step before returned: for every ordinary
    convolution, in the order they run, the maps that it reads, one a group; last the pooled features, one a group.
    """

    def __init__(self, backbone: nn.Sequential, pool: nn.Module) -> None:
        super().__init__()
        self.backbone, self.pool = backbone, pool

    def forward(self, x: Tensor | tuple[Maps, ...]) -> tuple[Maps, ...]:
        before: Iterator[Maps] = iter(x if isinstance(x, tuple) else ())
        seen: list[Maps] = []
        own = x if isinstance(x, Tensor) else None  # every step sees the images, the first one hands them on
        for _, stage in stages(self.backbone):
            own = self._run(stage, own, before, seen)
        assert own is not None
        return *seen, (*next(before, ()), self.pool(own))

    def _run(self, layer: nn.Module, own: Tensor | None, before: Iterator[Maps], seen: list[Maps]) -> Tensor | None:
        """This group's output of a layer: only ordinary convolutions mix groups, all else works channel by channel."""
        if isinstance(layer, Residual):
            body = self._run(layer.body, own, before, seen)
            shortcut = self._run(layer.shortcut, own, before, seen)
            assert body is not None
            assert shortcut is not None
            return F.relu(body + shortcut)
        if isinstance(layer, nn.Sequential):
            for part in layer:
                own = self._run(part, own, before, seen)
            return own
        if isinstance(layer, nn.Conv2d) and layer.groups == 1:
            groups = (*next(before, ()), *([] if own is None else [own]))
            seen.append(groups)
            return layer(torch.cat(groups, 1) if len(groups) > 1 else groups[0])
        return None if own is None else layer(own)


class Pooled(nn.Module):
    """The pooled features of all groups so far, as one map (N, C, h, w)."""

    def forward(self, seen: tuple[Maps, ...]) -> Tensor:
        return torch.cat(seen[-1], 1)


def nested_parts(
    backbones: Sequence[nn.Sequential], pool: tuple[int, int], classes: int, init: Init
) -> tuple[nn.Sequential, dict[str, ExitHead], FinalHead]:
    """Backbone, exits and final head of a nested network, for `EarlyExitNetwork`; its stages are the steps.

    Args:
        backbones: the plain backbone at every width, narrowest first; they are taken apart.
        pool: window of the final pooling.
        classes, init: of the dense layers, one a step, each on the features of all groups so far.

    Raises:
        TrecxError: a step that adds fewer than two channels to a layer.
    """
    widths = [_channels(backbone) for backbone in backbones]
    for narrow, wide in reversed(list(pairwise(backbones))):
        _cut(wide, narrow)
    steps: OrderedDict[str, nn.Module] = OrderedDict(
        (f"step{k}", Step(b, nn.AvgPool2d(pool))) for k, b in enumerate(backbones, start=1)
    )
    return nn.Sequential(steps), *step_heads([*steps], widths, classes, init)


def step_heads(
    names: Sequence[str], widths: Sequence[int], classes: int, init: Init
) -> tuple[dict[str, ExitHead], FinalHead]:
    """Exits and final head of a network whose stages are steps that pool by themselves: a dense layer each.

    Args:
        names, widths: of every step, and how many pooled features it leaves.
        classes, init: of the dense layers.
    """
    exits = {
        name: ExitHead(Pooled(), nn.Identity(), width, classes, init)
        for name, width in zip(names[:-1], widths[:-1], strict=True)
    }
    final = FinalHead(widths[-1], (1, 1), classes, init)
    final.pool = nn.Sequential(Pooled(), Flatten())
    return exits, final


def _channels(backbone: nn.Sequential) -> int:
    """Channels of the last map."""
    return [layer for layer in backbone.modules() if isinstance(layer, nn.Conv2d)][-1].out_channels


def _cut(wide: nn.Module, narrow: nn.Module) -> None:
    """Take from every layer of `wide` the output channels that the same layer of `narrow` has."""
    for layer, other in zip(wide.modules(), narrow.modules(), strict=True):
        if isinstance(layer, nn.Conv2d) and isinstance(other, nn.Conv2d):
            done = other.out_channels
            if layer.out_channels - done < 2 or done < 2:
                raise TrecxError(
                    f"a nested step would have {min(done, layer.out_channels - done)} of {layer.out_channels} channels "
                    "of a layer: choose widths further apart, every step needs two or more"
                )
            if layer.groups > 1:
                layer.groups = layer.in_channels = layer.in_channels - done
            layer.out_channels -= done
            _keep_from(layer, ("weight", "bias"), done)
        elif isinstance(layer, nn.BatchNorm2d) and isinstance(other, nn.BatchNorm2d):
            done = other.num_features
            layer.num_features -= done
            _keep_from(layer, ("weight", "bias", "running_mean", "running_var"), done)


def _keep_from(layer: nn.Module, names: Sequence[str], first: int) -> None:
    """Drop the first entries of some of a layer's tensors."""
    for name in names:
        kept = getattr(layer, name).detach()[first:].clone()
        setattr(layer, name, nn.Parameter(kept) if name in layer._parameters else kept)
