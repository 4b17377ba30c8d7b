"""Every count of the paper's networks to the last unit, and each rule against its formula by hand.

The integers were measured on the authors' Keras models with keras-flops 0.1.2 and `count_params`.
"""

from functools import cache

import pytest
import torch
from torch import nn

from trecx.models.build import build
from trecx.models.cost import KERAS_RULES, MAC_RULES, Cost, count, measure
from trecx.models.heads import FinalHead
from trecx.models.layers import conv, conv_bn, dense
from trecx.models.network import EarlyExitNetwork
from trecx.tasks import TASKS

# task, method: parameters, cumulative FLOPs (keras-flops), cumulative MACs, fvcore's default
GOLDEN = {
    ("ic", "baseline"): (78_666, [25_271_004], [12_501_632], [12_649_088]),
    ("ic", "trecx_ev"): (89_780, [11_659_612, 26_459_416], [5_723_136, 13_070_976], [5_821_440, 13_218_432]),
    ("ic", "trecx_no_ev"): (84_500, [11_659_612, 26_444_568], [5_723_136, 13_063_808], [5_821_440, 13_211_264]),
    ("ic", "baseline_ee"): (88_916, [10_522_972, 25_307_928], [5_171_200, 12_511_872], [5_269_504, 12_659_328]),
    ("ic", "sdn"): (
        94_046,
        [10_522_972, 17_947_416, 25_326_420],
        [5_171_200, 8_846_336, 12_516_992],
        [5_269_504, 8_977_408, 12_664_448],
    ),
    ("ic", "branchynet"): (
        98_430,
        [15_257_948, 25_036_568, 32_415_572],
        [7_530_496, 12_382_720, 16_053_376],
        [7_628_800, 12_513_792, 16_200_832],
    ),
    ("kws", "baseline"): (24_908, [5_540_744], [2_656_768], [2_800_768]),
    ("kws", "baseline_mlperf"): (24_908, [5_541_064], [2_656_768], [2_800_768]),
    ("kws", "trecx_ev"): (28_248, [3_127_080, 5_647_920], [1_501_536, 2_706_688], [1_581_536, 2_850_688]),
    ("kws", "trecx_no_ev"): (27_544, [3_127_080, 5_569_904], [1_501_536, 2_670_304], [1_581_536, 2_814_304]),
    ("kws", "trecx_concat"): (27_928, [3_127_080, 5_571_920], [1_501_536, 2_670_688], [1_581_536, 2_814_688]),
    ("kws", "sdn"): (
        38_768,
        [1_896_584, 3_128_784, 4_360_984, 5_587_040],
        [908_608, 1_497_216, 2_085_824, 2_670_592],
        [956_608, 1_577_216, 2_197_824, 2_814_592],
    ),
    ("kws", "branchynet"): (
        62_628,
        [6_497_832, 12_331_280, 14_774_104],
        [3_208_384, 6_096_768, 7_265_536],
        [3_256_384, 6_176_768, 7_409_536],
    ),
    ("vww", "baseline"): (221_794, [15_692_716], [7_489_664], [7_952_768]),
    ("vww", "trecx_ev"): (226_276, [7_090_284, 18_189_688], [3_309_696, 8_710_208], [3_586_176, 9_173_312]),
    ("vww", "trecx_no_ev"): (225_380, [7_090_284, 18_183_352], [3_309_696, 8_707_328], [3_586_176, 9_170_432]),
}
BN_CHANNELS = {"ic": 240, "kws": 576, "vww": 2_736}


@cache
def cost_of(task: str, method: str) -> Cost:
    return measure(build(task, method), TASKS[task].input_shape)


@pytest.mark.parametrize(("task", "method"), GOLDEN)
def test_integers_of_the_authors_models(task: str, method: str) -> None:
    params, flops, macs, fvcore = GOLDEN[task, method]
    cost = cost_of(task, method)
    assert cost.params == params
    assert cost.trainable_params == params - 2 * BN_CHANNELS[task]
    assert list(cost.flops) == flops
    assert list(cost.macs) == macs
    assert list(cost.fvcore) == fvcore


def test_network_without_transfer_is_the_ev_network() -> None:
    for task in TASKS:
        assert cost_of(task, "trecx_no_transfer") == cost_of(task, "trecx_ev")


# Of the exit that strides first: the tap's channels and side lengths, the blocks' channels, the pooled cells, classes.
STRIDE_FIRST = {
    "ic": (16, (32, 32), [32, 64], (4, 2 * 2), 10),
    "kws": (64, (25, 5), [64], (2, 6 * 1), 12),
    "vww": (32, (24, 24), [64], (4, 3 * 3), 2),
}


@pytest.mark.parametrize("task", TASKS)
def test_exit_that_strides_first_against_its_formula(task: str) -> None:
    channels, (height, width), blocks, (window, cells), classes = STRIDE_FIRST[task]
    macs = flops = params = 0
    for out in blocks:
        height, width = -(-height // 2), -(-width // 2)
        here = height * width
        macs += 9 * channels * here + channels * out * here
        flops += 2 * 9 * channels * here + 3 * channels * here + 6 * channels  # depthwise, bias, batch norm
        flops += 2 * channels * out * here + 3 * out * here + 6 * out  # 1x1, bias, batch norm
        params += 9 * channels + channels + 4 * channels + channels * out + out + 4 * out
        channels = out
    features = channels * cells
    macs += features * classes
    flops += window * window * features + 2 * features * classes + classes + 5 * classes
    params += features * classes + classes
    network, base = build(task, "trecx_stride_first"), build(task, "baseline")
    (tap,) = network.exits
    names = [name for name, _ in network.backbone.named_children()]
    trunk, x = network.backbone[: names.index(tap) + 1], torch.zeros(1, *TASKS[task].input_shape)
    cost, before = measure(network, TASKS[task].input_shape), measure(base, TASKS[task].input_shape)
    assert cost.macs == (count(trunk, x, MAC_RULES) + macs, before.macs[0] + macs)
    assert cost.flops == (count(trunk, x, KERAS_RULES) + flops, before.flops[0] + flops)
    assert cost.params == before.params + params


def test_smaller_pictures_cost_less_by_the_formula_of_each_layer() -> None:
    """MobileNet at 64 x 64: maps of 32, 32, 16, 16, 8, 8, 4 x 6, 2, 2; everything but the pooled end shrinks so."""
    sides = [32, 32, 16, 16, 8, 8, *[4] * 6, 2, 2]
    widths = [8, 16, 32, 32, 64, 64, *[128] * 6, 256, 256]
    macs = 27 * 8 * 32 * 32 + 256 * 2
    for k in range(1, 14):
        macs += (9 * widths[k - 1] + widths[k - 1] * widths[k]) * sides[k] ** 2
    cost = measure(build("vww", "baseline", resolution=64), (3, 64, 64))
    assert cost.macs == (macs,)
    assert cost.params == 221_794


# One layer each, on a map of 5 channels, 8 x 6; the expectation is the formula worked out by hand.
X = torch.zeros(1, 5, 8, 6)
BY_HAND = [
    (conv(5, 7, 3), 5 * 3 * 3 * 7 * 48, 2 * 5 * 3 * 3 * 7 * 48 + 7 * 48),
    (conv(5, 7, 3, 2), 5 * 3 * 3 * 7 * 12, 2 * 5 * 3 * 3 * 7 * 12 + 7 * 12),
    (conv(5, 5, (2, 2), 2, depthwise=True), 2 * 2 * 5 * 12, 2 * 2 * 2 * 5 * 12 + 5 * 12),
    (conv_bn(5, 7, 1), 5 * 7 * 48, 2 * 5 * 7 * 48 + 7 * 48 + 2 * 7 * 48 + 6 * 7),
    (nn.AvgPool2d((4, 3)), 0, 4 * 3 * 5 * 2 * 2),
    (nn.AvgPool2d((3, 4)), 0, 3 * 4 * 5 * 2 * 1),  # valid windows only: the dropped rows are free
    (nn.Sequential(nn.Flatten(), dense(240, 10), nn.Softmax(1)), 240 * 10, 2 * 240 * 10 + 10 + 5 * 10),
    (nn.ReLU(), 0, 0),
    # 240 elements: 6 each for statistics of the sample itself, 3 a pair of them, 3 a scale.
    (nn.GroupNorm(5, 5), 0, 6 * 240 + 3 * 5 + 3 * 5),
    (nn.GroupNorm(1, 5, affine=False), 0, 6 * 240 + 3),
    (nn.LayerNorm([5, 8, 6]), 0, 6 * 240 + 3 + 3 * 240),
    (nn.LayerNorm(6), 0, 6 * 240 + 3 * 5 * 8 + 3 * 6),
    (nn.InstanceNorm2d(5, affine=True), 0, 6 * 240 + 3 * 5 + 3 * 5),
    (nn.InstanceNorm2d(5, affine=True, track_running_stats=True), 0, 2 * 240 + 6 * 5),  # as batch norm
    (nn.Upsample(scale_factor=2), 0, 0),
    (nn.Upsample(scale_factor=2, mode="bilinear"), 0, 0),
]


@pytest.mark.parametrize(("layer", "macs", "flops"), BY_HAND)
def test_each_rule_against_its_formula(layer: nn.Module, macs: int, flops: int) -> None:
    assert count(layer, X, MAC_RULES) == macs
    assert count(layer, X, KERAS_RULES) == flops


@pytest.mark.parametrize(
    "norm", [nn.GroupNorm(2, 8), nn.LayerNorm([8, 16, 16]), nn.InstanceNorm2d(8), nn.BatchNorm2d(8)]
)
def test_macs_are_those_of_convolutions_and_dense_layers_whatever_is_between(norm: nn.Module) -> None:
    network = nn.Sequential(conv(3, 8, 1), norm, nn.AvgPool2d(16), nn.Flatten(), dense(8, 10))
    assert count(network, torch.zeros(1, 3, 16, 16), MAC_RULES) == 3 * 8 * 256 + 8 * 10 == 6_224


def test_residual_sum_counts_one_per_element() -> None:
    class Sum(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x

    assert count(Sum(), X, KERAS_RULES) == X.numel()


def test_a_module_at_several_places_counts_at_each_of_them() -> None:
    """A shared 3x3 convolution at two of four places: 8 channels at 8 x 8, a first one from 3, a 1x1 between them."""
    shared, backbone = conv(8, 8, 3), nn.Sequential()
    for name, stage in {"first": conv(3, 8, 3), "a": shared, "mix": conv(8, 8, 1), "b": shared}.items():
        backbone.add_module(name, stage)
    cost = measure(EarlyExitNetwork(backbone, {}, FinalHead(8, (8, 8), 10, "he_normal")), (3, 8, 8))
    assert cost.macs == (3 * 8 * 9 * 64 + 2 * 8 * 8 * 9 * 64 + 8 * 8 * 64 + 8 * 10,) == (91_728,)
    biases, pool = 4 * 8 * 64 + 10, 8 * 64
    assert cost.flops == (2 * 91_728 + biases + pool + 5 * 10,)
    assert cost.params == (3 * 8 * 9 + 8) + (8 * 8 * 9 + 8) + (8 * 8 + 8) + (8 * 10 + 10)


def test_conventions_differ_by_the_stated_terms() -> None:
    """FLOPs = 2 MACs + biases + 2 BN elements + 6 BN channels + residual sums + pool windows + 5 classes."""
    cost = cost_of("ic", "baseline")
    maps = 3 * 16 * 32 * 32 + 2 * 32 * 16 * 16 + 2 * 64 * 8 * 8  # outputs of the convolutions before a batch norm
    shortcuts = 32 * 16 * 16 + 64 * 8 * 8
    sums = 16 * 32 * 32 + 32 * 16 * 16 + 64 * 8 * 8
    biases = maps + shortcuts + 10
    by_hand = 2 * cost.macs[0] + biases + 2 * maps + 6 * 240 + sums + 64 * 64 + 5 * 10
    assert cost.flops[0] == by_hand == 25_271_004


def test_taps_of_mobilenet_baselines_are_the_nearest_to_the_published_shares() -> None:
    """The paper leaves MobileNet out; the rule is 1/3, 2/3 (BranchyNet) and 1/4, 1/2, 3/4 (SDN) of the cost."""
    from trecx.models.methods import BRANCHYNET_TAPS, SDN_TAPS

    base = build("vww", "baseline")
    x = torch.zeros(1, 3, 96, 96)
    names = [name for name, _ in base.backbone.named_children()]
    total = cost_of("vww", "baseline").macs[0]
    share = {name: count(base.backbone[: k + 1], x, MAC_RULES) / total for k, name in enumerate(names)}
    for taps, wanted in ((BRANCHYNET_TAPS["vww"], (1 / 3, 2 / 3)), (SDN_TAPS["vww"], (1 / 4, 1 / 2, 3 / 4))):
        assert taps == tuple(min(share, key=lambda name: abs(share[name] - w)) for w in wanted)


def test_sums_and_products_in_place_count_like_any_other() -> None:
    """One FLOP per element of a map, by hand: 4 x 6 x 6 for the sum and as many for the product."""

    class InPlace(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            doubled = x * 1.0
            doubled += x
            return doubled

    assert count(InPlace(), torch.zeros(1, 4, 6, 6), KERAS_RULES) == 2 * 4 * 6 * 6
    assert count(InPlace(), torch.zeros(1, 4, 6, 6), MAC_RULES) == 0
