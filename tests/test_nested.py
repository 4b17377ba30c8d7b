"""Nested networks: a narrow network inside the full one."""

import pytest
import torch
from torch import nn

from trecx.errors import TrecxError
from trecx.experiments.runs import Run
from trecx.models.backbones import BACKBONES
from trecx.models.build import build, input_shape
from trecx.models.cost import measure
from trecx.models.methods import METHODS
from trecx.models.nested import Step
from trecx.models.network import EarlyExitNetwork
from trecx.tasks import TASKS

WIDTHS = {"ic": (0.625,), "kws": (0.375,), "vww": (0.5,)}


def randomise(network: nn.Module) -> nn.Module:
    """Weights and statistics that hide no mistake, in inference mode."""
    draw = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=draw)
            scale = value.dim() == 1 and name.endswith(("weight", "var"))
            value.copy_(1 + 0.1 * noise.abs() if scale else 0.2 * noise)
    return network.eval()


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]


@pytest.mark.parametrize("task", TASKS)
@torch.no_grad()
def test_the_narrow_part_is_the_narrow_network(task: str) -> None:
    (width,) = WIDTHS[task]
    nested, alone = randomise(build(task, "nested", narrow=(width,))), build(task, "baseline", width=width).eval()
    step, head = nested.backbone[0], nested.exits["step1"]
    own = {f"backbone.{k}": v for k, v in step.backbone.state_dict().items()}
    own |= {f"final.classifier.{k}": v for k, v in head.classify[2].state_dict().items()}
    alone.load_state_dict(own)
    x = torch.randn(3, *input_shape(task))
    assert torch.equal(nested(x, last=0)[0], alone(x)[0])
    cost, narrow = measure(nested, input_shape(task)), measure(alone, input_shape(task))
    assert (cost.macs[0], cost.flops[0]) == (narrow.macs[0], narrow.flops[0])


@pytest.mark.parametrize(
    ("task", "narrow"), [*((t, WIDTHS[t]) for t in TASKS), ("kws", (0.25, 0.5)), ("ic", (0.5, 0.75))]
)
@torch.no_grad()
def test_the_whole_is_the_full_network_with_zeros_from_wide_to_narrow(task: str, narrow: tuple[float, ...]) -> None:
    """The same weights in an ordinary full-width network, with zeros where the nested one has no kernel."""
    nested, full = randomise(build(task, "nested", narrow=narrow)), build(task, "baseline").eval()
    steps = [step for step in nested.backbone if isinstance(step, Step)]
    parts = [dict(step.backbone.named_modules()) for step in steps]
    for name, layer in full.backbone.named_modules():
        if isinstance(layer, nn.Conv2d):
            first = 0
            layer.weight.zero_()
            for part in parts:
                kernel = part[name].weight
                layer.weight[first : first + len(kernel), : kernel.shape[1]] = kernel
                first += len(kernel)
            layer.bias.copy_(torch.cat([part[name].bias for part in parts]))
        elif isinstance(layer, nn.BatchNorm2d):
            for key, value in layer.state_dict().items():
                if value.dim():
                    value.copy_(torch.cat([part[name].state_dict()[key] for part in parts]))
    full.final.classifier.load_state_dict(nested.final.classifier.state_dict())
    x = torch.randn(3, *input_shape(task))
    torch.testing.assert_close(nested(x)[-1], full(x)[0], rtol=1e-3, atol=1e-3)


def test_counts_follow_by_hand() -> None:
    """DS-CNN with 24 of 64 channels inside: stem 10x4 on 25x5, four blocks of depthwise 3x3 and 1x1, dense."""
    narrow, rest, places = 24, 40, 25 * 5
    cost = measure(build("kws", "nested", narrow=(0.375,)), input_shape("kws"))
    first = places * narrow * (40 + 4 * (9 + narrow)) + 12 * narrow
    second = places * rest * (40 + 4 * (9 + narrow + rest)) + 12 * 64
    assert cost.macs == (first, first + second)
    kernels = 40 * 64 + 4 * (9 * 64 + narrow * narrow + rest * 64)
    norms = 9 * 64 * (1 + 4)  # a bias a convolution; scale, shift, mean and variance a batch norm
    assert cost.params == kernels + norms + (narrow + 1) * 12 + (64 + 1) * 12


# (outputs' places, size of the kernel, channels in, channels out); 0 channels in: depthwise.
RESNET = [
    (32 * 32, 9, 3, 16), (32 * 32, 9, 16, 16), (32 * 32, 9, 16, 16),
    (16 * 16, 9, 16, 32), (16 * 16, 9, 32, 32), (16 * 16, 1, 16, 32),
    (8 * 8, 9, 32, 64), (8 * 8, 9, 64, 64), (8 * 8, 1, 32, 64),
]  # fmt: skip
MOBILENET = [(48 * 48, 9, 3, 8)] + [
    layer
    for side, before, after in (
        [(48, 8, 16), (24, 16, 32), (24, 32, 32), (12, 32, 64), (12, 64, 64), (6, 64, 128)]
        + 5 * [(6, 128, 128)]
        + [(3, 128, 256), (3, 256, 256)]
    )
    for layer in ((side * side, 9, 0, before), (side * side, 1, before, after))
]


@pytest.mark.parametrize(("task", "layers", "classes"), [("ic", RESNET, 10), ("vww", MOBILENET, 2)])
def test_half_of_the_channels_inside_counts_by_hand(
    task: str, layers: list[tuple[int, int, int, int]], classes: int
) -> None:
    """The narrow half sees itself, the rest sees everything; the image's three channels are whole for both."""
    cost = measure(build(task, "nested", narrow=(0.5,)), input_shape(task))
    first = second = 0
    for places, kernel, before, after in layers:
        inside = before if before == 3 else before // 2 or 1
        first += places * kernel * inside * after // 2
        second += places * kernel * (before or 1) * after // 2
    last = layers[-1][3]
    first, second = first + classes * last // 2, second + classes * last
    assert cost.macs == (first, first + second)
    plain = measure(build(task, "baseline"), input_shape(task)).macs[-1]
    whole = sum(places * kernel * (before or 1) * after for places, kernel, before, after in layers) + classes * last
    assert plain == whole  # the list of layers is the baseline's


@pytest.mark.parametrize("step", [0, 1])
def test_going_on_runs_only_what_is_missing(step: int) -> None:
    """At the median confidence of a step half of the samples leave there."""
    network = randomise(build("kws", "nested", narrow=(0.25, 0.5)))
    ran: list[tuple[int, int]] = []
    for k, part in enumerate(network.backbone):
        for layer in convolutions(part):
            layer.register_forward_hook(lambda m, i, o, k=k: ran.append((k, len(o))))
    x = 50 * torch.randn(64, *input_shape("kws"), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = network(x)
    confidence = torch.stack([row.softmax(1).amax(1) for row in logits[:-1]], 1)
    threshold = float(confidence[:, step].median())
    left = [64, int((confidence[:, 0] <= threshold).sum()), int((confidence <= threshold).all(1).sum())]
    assert 20 < left[step + 1] < left[step]
    ran.clear()
    probabilities, taken = network.predict(x, threshold)
    layers = len(convolutions(build("kws", "baseline")))
    assert ran == [(k, left[k]) for k in range(3) for _ in range(layers) if left[k]]
    assert taken.bincount(minlength=3).tolist() == [64 - left[1], left[1] - left[2], left[2]]
    expected = torch.stack([logits[k][row].softmax(0) for row, k in enumerate(taken.tolist())])
    torch.testing.assert_close(probabilities, expected)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"narrow": (0.5, 1.0)}, "choose ascending widths above 0 and below 1"),
        ({"narrow": (0.5, 0.25)}, "choose ascending widths"),
        ({"narrow": ()}, "choose ascending widths"),
        ({"narrow": (0.02,)}, "every step needs two or more"),
        ({"narrow": (0.5, 0.51)}, "every step needs two or more"),
        ({"narrow": 0.5}, "give a tuple of widths"),
        ({"narrow": (float("nan"),)}, "choose positive factors"),
        ({"taps": ("block1",)}, "exits by width, not by stage"),
        ({"method": "trecx_ev", "narrow": (0.5,)}, "narrow is for method 'nested'"),
        ({"ends": "block9"}, "choose one of block1, block2, block3, block4"),
        ({"teacher": "me"}, "choose one of 'baseline', 'final'"),
        ({"method": "baseline", "teacher": "final"}, "has no early exit to teach"),
        ({"staged": 1}, "staged 1 is impossible: choose True or False"),
        ({"staged": True, "teacher": "final"}, "has the final exit last: choose teacher 'baseline', or none"),
        ({"staged": True, "w_early": 0.5}, "each exit is trained alone: leave it out"),
        ({"method": "baseline", "staged": True}, "has one exit and so one stage: leave staged out"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, object], says: str) -> None:
    with pytest.raises(TrecxError, match=says):
        Run(**{"task": "kws", "method": "nested", **given})  # type: ignore[arg-type]


def test_the_whole_backbone_is_no_other_run() -> None:
    assert Run("kws", "baseline", ends="block4") == Run("kws", "baseline")


def test_the_methods_own_widths_are_no_other_run() -> None:
    own = METHODS["nested"].narrow["kws"]
    assert Run("kws", "nested", narrow=own) == Run("kws", "nested")
    assert Run("kws", "nested").name == "kws-nested-quick5-seed0"
    assert Run("kws", "nested", narrow=(0.25, 0.5), teacher="final").name == (
        "kws-nested-narrow0.25-0.5-teacher-final-quick5-seed0"
    )


def test_a_staged_run_has_its_name_and_the_epochs_of_every_stage() -> None:
    plain, staged = (Run("kws", "nested", narrow=(0.25, 0.5), staged=staged) for staged in (False, True))
    assert (plain.total_epochs, staged.total_epochs) == (5, 15)
    assert staged.name == "kws-nested-narrow0.25-0.5-staged-quick5-seed0"
    assert staged.design == plain.design


@pytest.mark.parametrize("method", ["baseline", "sdn_fair", "nested"])
def test_a_trunk_may_end_early(method: str) -> None:
    taps = ("layer4",) if method == "sdn_fair" else None
    whole, ended = (build("vww", method, ends=ends, taps=taps) for ends in ("", "layer9"))
    assert isinstance(ended, EarlyExitNetwork)
    trunk = ended.backbone[-1].backbone if method == "nested" else ended.backbone
    assert [name for name, _ in trunk.named_children()] == [name for name, _ in BACKBONES["vww"]().named_children()][:9]
    assert measure(ended, input_shape("vww")).macs[-1] < 0.7 * measure(whole, input_shape("vww")).macs[-1]
