"""One network at two resolutions: the looks share their convolutions, and the second runs only where it is needed."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.test_nested import convolutions, randomise
from trecx.errors import TrecxError
from trecx.experiments.runs import Run
from trecx.models.build import build
from trecx.models.cost import measure
from trecx.models.methods import METHODS
from trecx.models.network import EarlyExitNetwork
from trecx.training.batches import Examples, resize
from trecx.training.loop import Training, train
from trecx.training.recipes import get_recipe
from trecx.training.weights import load_weights, save_weights

METHOD = METHODS["two_resolutions"]


def alone(network: EarlyExitNetwork, look: str) -> EarlyExitNetwork:
    """One look as an ordinary network at its resolution, with the same weights."""
    dense = {"step1": "exits.step1.classify.2", "step2": "final.classifier"}[look]
    places = {f"backbone.{look}.backbone.": "backbone.", f"{dense}.": "final.classifier."}
    state = network.state_dict()
    own = {new + k.removeprefix(old): v for old, new in places.items() for k, v in state.items() if k.startswith(old)}
    plain = build("vww", "baseline", resolution={"step1": 64, "step2": 0}[look])
    plain.load_state_dict(own)
    return plain.eval()


@torch.no_grad()
def test_each_look_is_the_plain_network_at_its_resolution() -> None:
    network = randomise(build("vww", "two_resolutions"))
    pictures = torch.randint(256, (4, 3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    x = pictures / 255
    small, full = network(x)
    assert torch.equal(full, alone(network, "step2")(x)[0])
    # Stored pictures are resized and rounded to whole values, which a network cannot do to its inputs.
    torch.testing.assert_close(small, alone(network, "step1")(resize(pictures, 64) / 255)[0], rtol=0.02, atol=0.02)
    images = nn.functional.interpolate(x, (64, 64), mode="bilinear", antialias=True)
    assert torch.equal(small, alone(network, "step1")(images)[0])


def test_costs_add_up_and_only_batch_norm_and_dense_layers_are_there_twice() -> None:
    both = measure(build("vww", "two_resolutions"), (3, 96, 96))
    small = measure(build("vww", "baseline", resolution=64), (3, 64, 64))
    full = measure(build("vww", "baseline"), (3, 96, 96))
    assert both.macs == (small.macs[0], small.macs[0] + full.macs[0])
    assert both.flops == (small.flops[0], small.flops[0] + full.flops[0])
    # Channels under a batch norm: the first layer's, then those into and out of each of 13 separable blocks.
    widths = [8, 16, 32, 32, 64, 64, *[128] * 6, 256, 256]
    channels = widths[0] + sum(a + b for a, b in pairwise(widths))
    assert both.params == full.params + 4 * channels + (256 + 1) * 2


def test_the_second_look_is_for_unsure_samples_only() -> None:
    torch.manual_seed(0)
    network = build("vww", "two_resolutions")
    x = torch.rand(12, 3, 96, 96) * torch.linspace(0.1, 1, 12)[:, None, None, None]
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0  # the statistics of one batch, so that the samples' answers differ
    with torch.no_grad():
        network.train()(x)
        small, full = network.eval()(x)
    confidence = small.softmax(1).amax(1)
    threshold = float(confidence.median())
    stay = int((confidence <= threshold).sum())
    assert 0 < stay < 12
    seen: Counter[tuple[int, int]] = Counter()  # samples and side of the map in the last convolution
    last = convolutions(network)[-1]
    last.register_forward_hook(lambda m, args, out: seen.update([(len(out), out.shape[2])]))
    probabilities, taken = network.predict(x, threshold)
    assert seen == {(12, 2): 1, (stay, 3): 1}
    assert taken.bincount(minlength=2).tolist() == [12 - stay, stay]
    expected = torch.where(taken[:, None] == 0, small.softmax(1), full.softmax(1))
    torch.testing.assert_close(probabilities, expected)
    seen.clear()
    network.predict(x, 0.0)
    assert seen == {(12, 2): 1}


def fit(state: Path | None = None, **options: Any) -> EarlyExitNetwork:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randint(256, (16, 3, 96, 96), dtype=torch.uint8, generator=draw), torch.arange(16) % 2
    recipe = replace(get_recipe("finetune", "vww", 2), teacher=0.0, batch=8)
    torch.manual_seed(0)
    network = build("vww", "two_resolutions")
    training = Training(METHOD, recipe, "vww", seed=0, shares=(0.3,))
    train(network, training, Examples(x, y, x[:4], y[:4]), state=state, **options)
    return network


@pytest.mark.slow
def test_training_keeps_the_convolutions_shared_and_goes_on_after_a_stop(tmp_path: Path) -> None:
    network, state = fit(), tmp_path / "state.safetensors"
    first, second = network.backbone
    assert [id(layer) for layer in convolutions(first)] == [id(layer) for layer in convolutions(second)]
    norms = [[m for m in look.modules() if isinstance(m, nn.BatchNorm2d)] for look in (first, second)]
    assert not any(a is b or torch.equal(a.running_mean, b.running_mean) for a, b in zip(*norms, strict=True))
    save_weights(network, tmp_path / "weights.safetensors")
    loaded = build("vww", "two_resolutions")
    load_weights(loaded, tmp_path / "weights.safetensors")
    assert convolutions(loaded.backbone[0])[0] is convolutions(loaded.backbone[1])[0]

    def stop(epochs: int, row: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(state, report=stop)
    resumed = fit(state)
    for other in (loaded, resumed):
        assert all(torch.equal(v, other.state_dict()[k]) for k, v in network.state_dict().items())


def test_the_smaller_look_follows_the_resolution_and_the_looks_have_no_taps() -> None:
    network = build("vww", "two_resolutions", resolution=48).eval()
    assert [look.side for look in network.backbone] == [32, 0]
    assert [row.shape for row in network(torch.zeros(1, 3, 48, 48))] == [(1, 2), (1, 2)]
    with pytest.raises(TrecxError, match="'two_resolutions' exits by resolution, not by stage: give no taps"):
        Run("vww", "two_resolutions", taps=("layer4",))
    with pytest.raises(TrecxError, match="unknown method 'two_resolutions' for task 'ic'"):
        Run("ic", "two_resolutions")
