"""Folding changes nothing, rounding little; sizes follow from the layer shapes."""

import pytest
import torch
from torch import nn

from trecx.models.build import build
from trecx.models.int8 import fold_batch_norm, quantise, round_to_int8


def warm(task: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    network = build(task, "trecx_ev")
    x = torch.randn(16, *{"ic": (3, 32, 32), "vww": (3, 96, 96)}[task])
    network.train()(x)  # so that batch norm has something to fold
    return network.eval(), x


def test_folding_leaves_the_outputs_alone() -> None:
    network, x = warm("ic")
    folded = fold_batch_norm(network)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    for before, after in zip(network(x), folded(x), strict=True):
        assert torch.allclose(before, after, atol=1e-3)


def test_rounding_keeps_each_channel_within_half_a_step() -> None:
    kernel = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    rounded = round_to_int8(kernel)
    step = kernel.flatten(1).abs().amax(1) / 127
    assert ((rounded - kernel).abs().flatten(1).amax(1) <= step / 2 + 1e-7).all()
    assert all(len(channel.unique()) <= 255 for channel in rounded)


def test_size_of_mobilenet_by_hand() -> None:
    """226 276 parameters; folding drops 4 a batch norm channel (2 736 of them); a kernel value is one byte."""
    network, _ = warm("vww")
    result = quantise(network)
    assert result.float_bytes == 4 * 226_276
    outputs = sum(len(m.weight) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    kernels = 226_276 - 4 * 2_736 - outputs  # each output also has a bias
    assert result.int8_bytes == kernels + 8 * outputs
    assert result.reduction == pytest.approx(0.735, abs=0.03)
