"""The networks compute what the paper's do, and `predict` really stops early."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import nn

from trecx import paths
from trecx.errors import TrecxError
from trecx.evaluation.trace import Trace
from trecx.models.backbones import BACKBONES
from trecx.models.build import EXIT_HEADS, FINAL_HEADS, STEPPED, build, output_shape, tap_shapes
from trecx.models.cost import MAC_RULES, count, measure
from trecx.models.heads import ExitHead, FinalHead
from trecx.models.layers import INITIALISERS, Flatten, SamePad2d, conv, init_kernel
from trecx.models.methods import METHODS, ExitKind, FinalKind
from trecx.models.network import EarlyExitNetwork
from trecx.report.diagram import draw_network
from trecx.tasks import TASKS, Init
from trecx.training.loop import log_probs
from trecx.training.weights import load_weights, save_weights

from .small import samples_per_layer

PAIRS = [(task, m.name) for m in METHODS.values() for task in m.tasks]


def inputs(task: str, n: int = 8) -> torch.Tensor:
    return torch.randn(n, *TASKS[task].input_shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("task", "method"), PAIRS)
def test_forward_gives_the_logits_of_every_exit(task: str, method: str) -> None:
    network = build(task, method).eval()
    logits = network(inputs(task, 2))
    assert len(logits) == network.num_exits == len(METHODS[method].taps[task]) + 1
    assert {row.shape for row in logits} == {(2, len(TASKS[task].classes))}


@pytest.mark.parametrize(("task", "method"), PAIRS)
def test_predict_agrees_with_forward_at_every_threshold(task: str, method: str) -> None:
    torch.manual_seed(0)
    network = build(task, method).eval()
    x = inputs(task)
    with torch.no_grad():
        softmax = torch.stack([row.softmax(1) for row in network(x)], 1)  # (N, exits, classes)
    confidence = softmax[:, :-1].amax(2)
    for threshold in [0.0, 0.5, 1.0, *np.quantile(confidence, [0.3, 0.6]).tolist()] if confidence.numel() else [0.5]:
        probabilities, taken = network.predict(x, threshold)
        sure = confidence > threshold if METHODS[method].rule == ">" else confidence >= threshold
        leaves = torch.cat([sure, torch.ones(len(x), 1, dtype=torch.bool)], 1)
        expected = leaves.int().argmax(1)  # the first exit whose confidence exceeds or reaches the threshold
        assert torch.equal(taken, expected)
        assert torch.allclose(probabilities, softmax[torch.arange(len(x)), expected], atol=1e-5)


def test_predict_gives_a_large_batch_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven samples in parts of four: the same answers and exits as all together."""
    torch.manual_seed(0)
    network = build("kws", "sdn").eval()
    x = inputs("kws", 11)
    with torch.no_grad():
        half = float(network(x)[0].softmax(1).amax(1).sort().values[5:7].mean())
    together, exits = network.predict(x, half)
    monkeypatch.setattr("trecx.models.network.AT_A_TIME", 4)
    in_parts, taken = network.predict(x, half)
    assert torch.equal(taken, exits)
    assert torch.allclose(in_parts, together, atol=1e-6)
    assert [len(part) for part in network.predict(x[:0], half)] == [0, 0]


def test_samples_that_exit_do_not_run_through_the_rest() -> None:
    torch.manual_seed(0)
    network, x = build("ic", "trecx_ev").eval(), inputs("ic")
    with torch.no_grad():
        confidence = network(x)[0].softmax(1).amax(1)
    threshold = confidence.median().item()
    stay = int((confidence <= threshold).sum())
    assert 0 < stay < len(x)
    seen = samples_per_layer(network, x, threshold)
    for name, samples in seen.items():
        before = name.startswith(("backbone.stem", "backbone.stack1", "exits"))
        assert samples == (len(x) if before else stay), name
    executed = samples_per_layer(network, x, 0.0)  # every sample exits early: nothing else is executed
    assert all(name.startswith(("backbone.stem", "backbone.stack1", "exits")) for name in executed)
    assert set(samples_per_layer(network, x, 1.0).values()) == {len(x)}


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_impossible_threshold_is_refused(threshold: float) -> None:
    with pytest.raises(TrecxError, match="from 0 to 1"):
        build("kws", "trecx_ev").predict(inputs("kws"), threshold)


@pytest.mark.parametrize("method", ["trecx_no_ev", "branchynet", "sdn"])
def test_predict_leaves_where_a_curve_does_at_a_threshold_that_is_a_score(method: str) -> None:
    """T-RecX's rule is >, the baselines' >=; they differ only for samples whose score is the threshold itself."""
    torch.manual_seed(0)
    network = build("kws", method, taps=("block2",)).eval()
    x = inputs("kws")
    with torch.no_grad():
        scores = network(x)[0].softmax(1).amax(1, keepdim=True).double().numpy()
    trace = Trace(scores, np.zeros((len(x), 2), dtype=bool), np.array([1.0, 2.0]), METHODS[method].rule)
    for k, threshold in enumerate(scores[:, 0]):
        _, taken = network.predict(x, float(threshold))
        assert taken.tolist() == trace.leave(threshold).tolist()
        assert taken[k] == (1 if METHODS[method].rule == ">" else 0)
        between = float(np.nextafter(threshold, 0))  # no float32: below the score, though it would round to it
        assert network.predict(x, between)[1].tolist() == trace.leave(between).tolist()


def test_unknown_exit_rule_is_refused() -> None:
    with pytest.raises(TrecxError, match=r"unknown exit rule '=>': choose one of '>', '>='"):
        EarlyExitNetwork(BACKBONES["kws"](), {}, FinalHead(64, (24, 5), 12, "glorot_uniform"), "=>")


def modes(network: nn.Module) -> list[bool]:
    return [module.training for module in network.modules()]


@pytest.mark.parametrize(
    "look",
    [
        lambda network: network.predict(inputs("kws"), 0.5),
        lambda network: measure(network, (1, 49, 10)),
        lambda network: count(network.backbone, inputs("kws", 1), MAC_RULES),
        lambda network: output_shape(network.backbone, (1, 49, 10)),
        lambda network: tap_shapes(network.backbone, (1, 49, 10)),
        lambda network: log_probs(network, inputs("kws"), "kws", batch=1),
        lambda network: draw_network(network, (1, 49, 10)),
    ],
    ids=["predict", "measure", "count", "output_shape", "tap_shapes", "log_probs", "draw_network"],
)
def test_whoever_looks_at_a_network_leaves_every_part_in_its_mode(look: Callable[[EarlyExitNetwork], object]) -> None:
    network = build("kws", "trecx_ev").train()
    network.backbone.eval()  # frozen: its statistics stand still while the heads learn
    network.exits["block2"].features.eval()
    before, state = modes(network), {k: v.clone() for k, v in network.state_dict().items()}
    look(network)
    assert modes(network) == before
    assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_an_error_on_the_way_leaves_the_modes_alone_too() -> None:
    network = build("kws", "trecx_ev").train()
    network.backbone.eval()
    before, wrong = modes(network), torch.zeros(1, 3, 49, 10)
    for look in (
        lambda: network.predict(wrong, 0.5),
        lambda: measure(network, (3, 49, 10)),
        lambda: output_shape(network, (3, 49, 10)),
        lambda: log_probs(network, wrong, "kws"),
    ):
        with pytest.raises(RuntimeError):
            look()
        assert modes(network) == before


def repeating() -> EarlyExitNetwork:
    """A shared 3x3 convolution and a shared ReLU at two places each, 8 channels at 8 x 8, an exit in between."""
    shared, relu = conv(8, 8, 3), nn.ReLU()
    backbone = nn.Sequential()
    places = {"first": conv(3, 8, 3), "relu1": relu, "a": shared, "mix": conv(8, 8, 1), "relu2": relu, "b": shared}
    for name, stage in places.items():
        backbone.add_module(name, stage)
    head = ExitHead(nn.Identity(), nn.AvgPool2d(8), flat=8, classes=10, init="he_normal")
    return EarlyExitNetwork(backbone, {"relu2": head}, FinalHead(8, (8, 8), 10, "he_normal"))


def test_a_module_at_several_places_runs_at_each_of_them() -> None:
    torch.manual_seed(0)
    network, x = repeating().eval(), torch.randn(6, 3, 8, 8)
    first, relu1, a, mix, relu2, b = network.backbone
    with torch.no_grad():
        middle = relu2(mix(a(relu1(first(x)))))
        early, final = network(x)
        assert torch.equal(early, network.exits["relu2"](middle)[1])
        assert torch.equal(final, network.final(b(middle)))
    assert torch.allclose(network.predict(x, 1.0)[0], final.softmax(1), atol=1e-6)
    assert torch.allclose(network.predict(x, 0.0)[0], early.softmax(1), atol=1e-6)
    assert list(tap_shapes(network.backbone, (3, 8, 8))) == ["first", "relu1", "a", "mix", "relu2", "b"]
    drawn = " ".join(text.get_text() for text in draw_network(network, (3, 8, 8)).axes[0].texts)
    assert "first – relu2" in drawn
    assert " b " in drawn


def test_weights_of_a_module_at_several_places_survive_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, other = repeating(), repeating()
    save_weights(network, tmp_path / "weights.safetensors")
    load_weights(other, tmp_path / "weights.safetensors")
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in network.state_dict().items())
    assert other.backbone.a is other.backbone.b


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "before", "after"),
    [
        ((96, 96), (3, 3), 2, (0, 0), (1, 1)),  # the numbers that TensorFlow pads, top and left, bottom and right
        ((49, 10), (10, 4), 2, (4, 1), (5, 1)),
        ((25, 5), (3, 3), 2, (1, 1), (1, 1)),
        ((3, 3), (2, 2), 1, (0, 0), (1, 1)),
        ((32, 32), (2, 2), 2, (0, 0), (0, 0)),
        ((16, 16), (1, 1), 2, (0, 0), (0, 0)),
    ],
)
def test_same_padding_is_tensorflows(
    size: tuple[int, int], kernel: tuple[int, int], stride: int, before: tuple[int, int], after: tuple[int, int]
) -> None:
    padded = SamePad2d(kernel, stride)(torch.ones(1, 1, *size))[0, 0]
    assert padded.shape == tuple(s + b + a for s, b, a in zip(size, before, after, strict=True))
    rows, columns = padded.nonzero().amin(0).tolist()
    assert (rows, columns) == before
    out = conv(1, 1, kernel, stride)(torch.ones(1, 1, *size))
    assert out.shape[2:] == tuple(-(-s // stride) for s in size)


def test_flatten_orders_height_width_channel() -> None:
    x = torch.arange(2 * 3 * 4).reshape(1, 2, 3, 4)  # C, H, W
    assert Flatten()(x)[0, :4].tolist() == [0, 12, 1, 13]  # both channels of the first pixel, then the next pixel


def test_initialisers_have_keras_spread() -> None:
    torch.manual_seed(0)
    he = torch.empty(512, 64, 3, 3)
    init_kernel(he, "he_normal")
    std = (2 / (64 * 9)) ** 0.5
    assert he.std().item() == pytest.approx(std, rel=0.01)
    assert he.abs().max().item() <= 2 * std / 0.8796 + 1e-6
    depthwise = torch.empty(4096, 1, 3, 3)
    init_kernel(depthwise, "glorot_uniform", depthwise=True)
    limit = (6 / (9 * 4096 + 9)) ** 0.5  # fans k*k*C and k*k
    assert depthwise.abs().max().item() == pytest.approx(limit, rel=0.01)


def test_transfer_copies_kernel_and_bias_one_way() -> None:
    for task in TASKS:
        network = build(task, "trecx_ev")
        pair = network.depthwise_pair()
        assert pair is not None
        early, final = pair
        nn.init.ones_(early.bias)
        kernel = early.weight.clone()
        network.transfer_weights()
        assert torch.equal(final.weight, kernel)
        assert torch.equal(final.bias, torch.ones_like(final.bias))
        assert torch.equal(early.weight, kernel)
    assert build("ic", "trecx_no_ev").depthwise_pair() is None


def test_l2_covers_ordinary_convolutions_only() -> None:
    network = build("kws", "trecx_ev")
    kernels = list(network.l2_kernels())
    assert [tuple(k.shape) for k in kernels] == [(64, 1, 10, 4), *[(64, 64, 1, 1)] * 4]


def test_taps_of_resnet_are_those_of_the_paper() -> None:
    shapes = tap_shapes(BACKBONES["ic"](), (3, 32, 32))
    assert shapes == {"stem": (16, 32, 32), "stack1": (16, 32, 32), "stack2": (32, 16, 16), "stack3": (64, 8, 8)}
    assert tap_shapes(BACKBONES["vww"](), (3, 96, 96))["layer4"] == (32, 24, 24)
    assert tap_shapes(BACKBONES["kws"](), (1, 49, 10))["block2"] == (64, 25, 5)


@pytest.mark.slow
def test_every_tap_takes_every_head() -> None:
    for task, backbone in BACKBONES.items():
        for tap in list(tap_shapes(backbone(), TASKS[task].input_shape))[:-1]:
            for method in ("trecx_ev", "trecx_concat", "trecx_stride_first", "baseline_ee", "branchynet", "sdn_fair"):
                logits = build(task, method, taps=(tap,)).eval()(inputs(task, 1))
                assert len(logits) == 2


def test_own_parts_recombine() -> None:
    """The example of the book's page on extending: a new backbone with an exit in a few lines."""
    backbone = nn.Sequential()
    backbone.add_module("a", conv(3, 8, 3, 2))
    backbone.add_module("b", conv(8, 16, 3, 2))
    head = ExitHead(nn.ReLU(), nn.AvgPool2d(8), flat=4 * 8, classes=5, init="glorot_uniform")
    network = EarlyExitNetwork(backbone, {"a": head}, FinalHead(16, (8, 8), 5, "glorot_uniform"))
    assert [row.shape for row in network(torch.zeros(2, 3, 32, 32))] == [(2, 5), (2, 5)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("asr", "baseline"), "ic, kws, vww"),
        (("ic", "resnet"), "trecx_ev"),
        (("ic", "baseline_mlperf"), "choose one of baseline, trecx_ev"),
    ],
)
def test_unknown_names_are_refused_with_the_allowed_ones(arguments: tuple[str, str], says: str) -> None:
    with pytest.raises(TrecxError, match=says):
        build(*arguments)


def test_unknown_tap_and_width_are_refused() -> None:
    with pytest.raises(TrecxError, match="stem, block1, block2, block3"):
        build("kws", "trecx_ev", taps=("block9",))
    with pytest.raises(TrecxError, match="no exit to place"):
        build("kws", "baseline", taps=("block1",))
    with pytest.raises(TrecxError, match="positive"):
        build("kws", "baseline", width=0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"head": "treckx"}, "unknown kind of exit head 'treckx': choose one of '', 'trecx', 'stride_first', 'pool'"),
        ({"final": "veiw"}, "unknown kind of final head 'veiw': choose one of 'plain', 'view', 'concat'"),
        ({"rule": "=>"}, "unknown exit rule '=>': choose one of '>', '>='"),
        ({"loss": "w"}, "unknown loss 'w': choose a TaskWeight, FixedWeights or Ramp"),
        ({"head": ""}, "method 'trecx_ev' has taps but no exit"),
    ],
)
def test_methods_with_a_wrong_switch_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(TrecxError, match=re.escape(says)):
        replace(METHODS["trecx_ev"], **changes)


def test_every_kind_of_head_can_be_built() -> None:
    assert {"", *STEPPED, *EXIT_HEADS} == set(get_args(ExitKind))
    assert set(FINAL_HEADS) == set(get_args(FinalKind))
    assert set(INITIALISERS) == set(get_args(Init))


def test_unknown_initialiser_is_refused() -> None:
    with pytest.raises(TrecxError, match="unknown initialiser 'he': choose one of 'he_normal', 'glorot_uniform'"):
        conv(3, 8, init="he")


@pytest.mark.parametrize("taps", [(), ("block1", "block3")])
def test_a_final_head_that_looks_at_one_exit_takes_one_tap(taps: tuple[str, ...]) -> None:
    with pytest.raises(TrecxError, match=f"'trecx_concat' pairs one early exit .* give one tap, not {len(taps)}"):
        build("kws", "trecx_concat", taps=taps)


def test_tasks_are_those_of_the_paper() -> None:
    facts = {name: (task.full_title, task.tap, task.w, task.input_scale) for name, task in TASKS.items()}
    assert facts == {
        "ic": ("CIFAR-10", "stack1", 0.5, 1),
        "kws": ("Speech Commands", "block2", 0.3, 1),
        "vww": ("Visual Wake Words", "layer4", 0.4, 255),
    }
    assert all((paths.SWEEPS / f"{sweep}.yaml").is_file() for task in TASKS.values() for sweep in task.sweeps)


def test_tasks_need_no_torch() -> None:
    code = "import sys, trecx.tasks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, check=False).returncode == 0


def test_smaller_inputs_pass_every_method() -> None:
    for resolution in (32, 64, 80):
        for method in (m.name for m in METHODS.values() if "vww" in m.tasks):
            network = build("vww", method, resolution=resolution).eval()
            logits = network(torch.zeros(1, 3, resolution, resolution))
            assert {row.shape for row in logits} == {(1, 2)}
    with pytest.raises(TrecxError, match="resolution 64 is impossible for kws"):
        build("kws", "baseline", resolution=64)


def test_width_scales_the_network() -> None:
    half = sum(p.numel() for p in build("ic", "baseline", width=0.5).parameters())
    assert half < 0.3 * sum(p.numel() for p in build("ic", "baseline").parameters())
