"""Networks and records made from trained ones: two in a row, and one cut short."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from trecx.cli import main
from trecx.errors import TrecxError
from trecx.evaluation.trace import Trace, at_thresholds
from trecx.experiments.composed import cascade, network_of, peak_memory, shorten, shortenings
from trecx.experiments.records import Record, open_record
from trecx.experiments.runs import Run
from trecx.models.build import build
from trecx.models.cascade import Cascade, Resize, shortened
from trecx.models.cost import head_costs, measure, peak_activations
from trecx.tasks import TASKS
from trecx.training.batches import resize, scale

from .small import curve, samples_per_layer, write_record


def inputs(task: str, n: int = 16) -> torch.Tensor:
    return torch.randn(n, *TASKS[task].input_shape, generator=torch.Generator().manual_seed(1))


def narrow_first(task: str, first: str = "baseline", second: str = "baseline", mix: float = 0.0) -> Cascade:
    torch.manual_seed(0)
    return Cascade(build(task, first, width=0.5).eval(), build(task, second).eval(), mix=mix)


def test_the_second_network_does_not_run_for_samples_that_leave_the_first() -> None:
    network, x = narrow_first("kws"), inputs("kws")
    with torch.no_grad():
        confidence = network.first(x)[-1].softmax(1).amax(1)
    threshold = confidence.median().item()
    stay = int((confidence <= threshold).sum())
    assert 0 < stay < len(x)
    seen = samples_per_layer(network, x, threshold)
    assert len(seen) == 2 * 10  # a stem, four blocks of two convolutions and a dense layer, twice
    for name, samples in seen.items():
        assert samples == (len(x) if name.startswith("first.") else stay), name
    assert all(name.startswith("first.") for name in samples_per_layer(network, x, 0.0))
    assert set(samples_per_layer(network, x, 1.0).values()) == {len(x)}


@pytest.mark.parametrize("mix", [0.0, 0.3])
@pytest.mark.parametrize(
    ("first", "second", "rule"),
    [("baseline", "baseline", ">"), ("sdn", "trecx_ev", ">="), ("trecx_ev", "sdn", ">"), ("baseline", "sdn", ">=")],
)
def test_predict_leaves_where_the_trace_of_both_does(first: str, second: str, rule: str, mix: float) -> None:
    """Also at a threshold that is a score, where the two rules differ."""
    network, x = narrow_first("kws", first, second, mix), inputs("kws")
    assert network.rule == rule
    with torch.no_grad():
        log_probs = torch.stack([logits.log_softmax(1) for logits in network(x)], 1)
    trace = Trace.from_log_probs(log_probs.numpy(), np.zeros(len(x), int), np.arange(network.num_exits), rule)
    places = np.linspace(0, trace.scores.size - 1, 7).astype(int)
    for threshold in [0.0, 1.0, *np.sort(trace.scores.ravel())[places].tolist()]:
        between = float(np.clip(threshold + 1e-5, 0, 1))
        probabilities, taken = network.predict(x, between)
        assert taken.tolist() == trace.leave(between).tolist()
        expected = log_probs[torch.arange(len(x)), taken].exp()
        assert torch.allclose(probabilities, expected, atol=1e-5)


def test_the_networks_keep_their_own_rule_and_share_their_weights() -> None:
    first, second = build("kws", "trecx_ev"), build("kws", "sdn")
    network = Cascade(first, second)
    assert (first.rule, second.rule, network.second.rule) == (">", ">=", ">")
    assert network.first.final.classifier.weight is first.final.classifier.weight


def test_both_networks_cost_is_paid_by_a_sample_that_goes_on() -> None:
    """MACs of DS-CNN by hand at c channels: 125 (40 c + 4 (9 c + c²)) + 12 c, on a map of 25 x 5."""
    by_hand = [125 * (40 * c + 4 * (9 * c + c * c)) + 12 * c for c in (32, 64)]
    cost = measure(narrow_first("kws"), TASKS["kws"].input_shape)
    assert cost.macs == (by_hand[0], sum(by_hand))
    parts = [measure(build("kws", "baseline", width=w), TASKS["kws"].input_shape) for w in (0.5, 1)]
    assert cost.flops == (parts[0].flops[0], parts[0].flops[0] + 5_540_744)
    assert cost.params == parts[0].params + 24_908


def test_the_second_network_keeps_a_share_of_the_first_answer() -> None:
    """Its every exit: three tenths of the first network's softmax and seven of its own, on more samples than one run.

    Mixing costs one FLOP a class for the share of the first and two for each exit behind it, of 12 classes here.
    """
    mixed, plain, x = narrow_first("kws", "baseline", "sdn", 0.3), narrow_first("kws", "baseline", "sdn"), inputs("kws")
    x = x.repeat(7, 1, 1, 1) + 0.1 * torch.randn(112, *x.shape[1:], generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        first, *later = (logits.softmax(1) for logits in plain(x))
        answers = [logits.softmax(1) for logits in mixed(x)]
    expected = [first, *(0.3 * first + 0.7 * own for own in later)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(answers, expected, strict=True))
    probabilities, taken = mixed.predict(x, 1.0)
    assert taken.tolist() == [4] * len(x)
    assert torch.allclose(probabilities, expected[-1], atol=1e-5)
    for before, mix in ((None, 0.3), (first[:16], 0.3), (first[:, :2], 0.0)):
        with pytest.raises(TrecxError, match=r"mixing needs answers of shape \(112, 12\) from before, not "):
            mixed.second.predict(x, 0.5, before, mix)
    costs = [measure(network, TASKS["kws"].input_shape) for network in (plain, mixed)]
    assert np.subtract(costs[1].flops, costs[0].flops).tolist() == [0, 36, 60, 84, 108]
    assert costs[0].macs == costs[1].macs


def test_networks_of_different_tasks_make_no_cascade() -> None:
    with pytest.raises(TrecxError, match="the first has 10 classes, the second 12"):
        Cascade(build("ic", "baseline"), build("kws", "baseline"))
    with pytest.raises(TrecxError, match="unknown exit rule '<'"):
        Cascade(build("kws", "baseline"), build("kws", "baseline"), rule="<")  # type: ignore[arg-type]
    with pytest.raises(TrecxError, match="mix 1 is impossible: choose a share from 0 to below 1"):
        Cascade(build("kws", "baseline"), build("kws", "baseline"), mix=1)


def test_smaller_pictures_are_those_that_training_makes() -> None:
    x = torch.randint(256, (4, 3, 96, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    trained_on = scale(resize(x, 64), "vww")
    made = Resize(64, 255.0)(scale(x, "vww"))
    different = (made - trained_on).abs() > 1e-6  # a value half-way between two may round the other way
    assert different.float().mean() < 1e-3
    assert (made - trained_on).abs().max() < 1.01 / 255
    network = Cascade(
        build("vww", "baseline", resolution=64).eval(), build("vww", "baseline").eval(), (Resize(64), None)
    )
    seen: dict[str, torch.Size] = {}
    for name in ("first", "second"):
        getattr(network, name).backbone.layer1.register_forward_hook(
            lambda m, a, o, n=name: seen.update({n: a[0].shape})
        )
    network.predict(inputs("vww", 2), 1.0)
    assert {name: shape[2] for name, shape in seen.items()} == {"first": 64, "second": 96}


# A network cut short.
def test_a_shortened_network_is_the_whole_one_up_to_its_end() -> None:
    torch.manual_seed(0)
    whole, x = build("kws", "sdn_fair").eval(), inputs("kws")
    left = shortened(whole, ["block1"], "block3").eval()
    with torch.no_grad():
        expected = whole(x)
        assert [torch.equal(a, b) for a, b in zip(left(x), [expected[0], expected[2]], strict=True)] == [True, True]
    assert not any("block4" in name or "final.pool" in name for name, _ in left.named_modules())
    assert {*samples_per_layer(left, x, 1.0)} == {
        name for name, module in left.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
    }


@pytest.mark.parametrize(
    ("method", "exits", "end", "message"),
    [
        ("sdn", ["block4"], "", "unknown exit 'block4': choose one of 'block1', 'block2', 'block3'"),
        ("sdn", ["block2"], "block2", "'block2' does not come before the end 'block2': choose from block1"),
        ("sdn", ["block2"], "block1", "'block2' does not come before the end 'block1': no exit does, so give none"),
        ("trecx_concat", [], "", "reads the early exit's maps"),
    ],
)
def test_impossible_shortenings_are_refused(method: str, exits: list[str], end: str, message: str) -> None:
    with pytest.raises(TrecxError, match=message):
        shortened(build("kws", method), exits, end)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["kws", "ic"])
def test_costs_of_shortened_records_are_those_of_the_network(task: str, tmp_path: Path) -> None:
    record = write_record(Run(task, "sdn_fair"), tmp_path)
    for exits, end in [*shortenings(record)][::3]:
        made = shorten(record, exits, end)
        network = network_of(made)
        counted = measure(network, TASKS[task].input_shape)  # type: ignore[arg-type]
        assert made.cost("macs").tolist() == [*counted.macs]
        assert made.cost("flops").tolist() == [*counted.flops]
        assert made.params == counted.params
        assert made.trace().correct.shape == (48, len(exits) + 1)
        if not end and exits:  # the same network, built with these taps
            assert measure(build(task, "sdn_fair", taps=exits), TASKS[task].input_shape) == counted


def test_a_head_that_is_left_out_is_not_paid() -> None:
    """SDN's head on DS-CNN by hand: average pooling 4 x 4 to 6 x 1, dense from 384 to 12, softmax."""
    heads = head_costs(build("kws", "sdn"), TASKS["kws"].input_shape)
    by_hand = 16 * 6 * 64 + 2 * 384 * 12 + 12 + 5 * 12
    assert {tap: cost.flops for tap, cost in heads.items()} == dict.fromkeys(("block1", "block2", "block3"), (by_hand,))
    assert heads["block1"].macs == (384 * 12,)
    assert heads["block1"].params == 385 * 12


def test_what_can_be_left_out(tmp_path: Path) -> None:
    sdn = write_record(Run("kws", "sdn"), tmp_path)
    assert len([*shortenings(sdn)]) == 1 + 2 + 4 + 8 - 1  # subsets before each end, but for the whole
    assert [*shortenings(write_record(Run("kws", "trecx_ev"), tmp_path))] == []
    assert shorten(sdn, ["block1"], "block3").name.endswith(", exit after block1, ends after block3")
    with pytest.raises(TrecxError, match="is made from other records"):
        shorten(shorten(sdn, ["block1"]), [])


# A cascade of two records.
@pytest.fixture
def pair(tmp_path: Path) -> tuple[Record, Record]:
    return write_record(Run("kws", "baseline", width=0.5), tmp_path), write_record(Run("kws", "sdn"), tmp_path)


def test_the_curve_of_two_records_is_computed_by_hand(pair: tuple[Record, Record]) -> None:
    first, second = pair
    made = cascade(first, second)
    assert made.rule == ">="
    costs = first.cost()[0] + np.array([0, *second.cost()])
    assert made.cost().tolist() == costs.tolist()
    threshold, right, paid, shares = 0.6, 0, 0.0, [0] * 5
    for k in range(48):
        rows = [*first.predictions["test_log_probs"][k], *second.predictions["test_log_probs"][k]]
        leaves = next((i for i, row in enumerate(rows[:-1]) if np.exp(row.astype(float)).max() >= threshold), 4)
        right += int(rows[leaves].argmax() == first.predictions["test_labels"][k])
        paid += costs[leaves]
        shares[leaves] += 1
    curve = at_thresholds(made.trace(), [threshold])
    assert (curve.accuracy[0], curve.cost[0]) == pytest.approx((right / 48, paid / 48))
    assert curve.shares[0].tolist() == pytest.approx([n / 48 for n in shares])


def test_the_command_line_prints_the_curve_of_two_records(
    pair: tuple[Record, Record], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = pair
    rows = curve(first, capsys, str(second.folder), "--points", "3", "--unit", "macs")
    assert [row["threshold"] for row in rows] == [1, 0.5, 0]
    assert rows[-1]["macs"] == pair[0].cost("macs")[0]
    assert rows[-1]["shares"] == [1, 0, 0, 0, 0]
    assert rows[0]["macs"] <= pair[0].cost("macs")[0] + pair[1].cost("macs")[-1]


def test_the_curve_of_two_records_may_mix_their_answers(
    pair: tuple[Record, Record], capsys: pytest.CaptureFixture[str]
) -> None:
    """At threshold 1 the last exit's answer counts: half the first network's probabilities, half its own."""
    first, second = (str(record.folder) for record in pair)
    rows = curve(pair[0], capsys, second, "--mix", "0.5", "--points", "2")
    ends = [np.exp(record.predictions["test_log_probs"][:, -1].astype(float)) for record in pair]
    right = (sum(ends).argmax(1) == pair[0].predictions["test_labels"]).mean()  # type: ignore[union-attr]
    assert rows[0]["accuracy"] == pytest.approx(100 * right)
    assert main(["curve", first, "--mix", "0.5"]) == 2
    assert "give two records" in capsys.readouterr().err
    assert main(["curve", first, second, "--mix", "1.5"]) == 2
    assert "mix 1.5 is impossible: choose a share from 0 to below 1" in capsys.readouterr().err


@pytest.mark.parametrize("mix", [0.0, 0.3])
def test_a_recorded_cascade_has_a_network_with_its_costs(pair: tuple[Record, Record], mix: float) -> None:
    made = cascade(*pair, mix)
    network = network_of(made)
    assert isinstance(network, Cascade)
    cost = measure(network, TASKS["kws"].input_shape)
    assert made.cost("flops").tolist() == [*cost.flops]
    assert made.params == cost.params
    assert made.seconds == 1200
    with pytest.raises(TrecxError, match="no weights at"):
        network_of(made, trained=True)


def test_records_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    def made(folder: str, run: Run, n: int = 48) -> Record:
        return write_record(run, tmp_path / folder, n)

    first = made("a", Run("kws", "baseline", width=0.5))
    other = made("b", Run("kws", "baseline"))
    (other.folder / "manifest.json").write_text(
        json.dumps(other.manifest | {"data": other.manifest["data"] | {"checksum": "def"}})
    )
    shuffled = made("c", Run("kws", "baseline"))
    arrays = {k: v[::-1] for k, v in shuffled.predictions.items()}
    np.savez_compressed(shuffled.folder / "predictions.npz", **arrays)
    cases = [
        (made("d", Run("ic", "baseline")), "one is of task kws, the other of ic"),
        (made("e", Run("kws", "baseline", "speech_commands")), "one is on quick_words, the other on speech_commands"),
        (Record(other.folder), "has two checksums"),
        (Record(shuffled.folder), "val samples differ in number or order"),
        (made("f", Run("kws", "baseline"), 24), "val samples differ in number or order"),
        (made("g", Run("kws", "baseline", extra_classes=1)), "one has 12 classes, the other 13"),
        (cascade(first, made("h", Run("kws", "sdn"))), "is a cascade already"),
    ]
    for record, message in cases:
        with pytest.raises(TrecxError, match=message):
            cascade(first, record)


def test_published_records_give_what_was_found_by_hand() -> None:
    """CIFAR-10, 0.625 of the filters first: 40.1 % of the cost for 83.03 %, and both for 87.57 % (first seeds)."""
    first, second = (open_record(f"ic-baseline-{name}fast30-seed0") for name in ("width0.625-", ""))
    made = cascade(first, second)
    assert made.cost()[0] / 25_271_004 == pytest.approx(0.401, abs=5e-4)
    assert 100 * made.accuracies() == pytest.approx([83.03, 87.57])
    assert made.params == 78_666 + first.params


# Memory.
def test_peak_memory_by_hand() -> None:
    """ResNet-8: input of a residual block, and what its sum reads and writes. MobileNet: its second 1x1 convolution."""
    for task, by_hand in {"ic": 3 * 16 * 32 * 32, "kws": 2 * 64 * 25 * 5, "vww": (8 + 16) * 48 * 48}.items():
        assert peak_activations(build(task, "baseline"), TASKS[task].input_shape) == by_hand
    # T-RecX's exit on ResNet-8: the tap, 32 channels of the 1x1 convolution, the strided depthwise layer's output.
    exit_by_hand = 16 * 32 * 32 + 32 * 32 * 32 + 32 * 16 * 16
    assert peak_activations(build("ic", "trecx_ev"), TASKS["ic"].input_shape) == exit_by_hand
    # Early maps that the final head reads stay until it has run: 32 channels of 13 x 3 beside two maps of a block.
    assert peak_activations(build("kws", "trecx_concat"), TASKS["kws"].input_shape) == 16_000 + 32 * 13 * 3


@pytest.mark.slow
def test_a_cascade_keeps_its_input_while_the_first_network_runs(tmp_path: Path) -> None:
    wide, narrow = build("kws", "baseline"), build("kws", "baseline", width=0.5)
    assert peak_activations(Cascade(wide, narrow), TASKS["kws"].input_shape) == 16_000 + 49 * 10
    assert peak_activations(Cascade(narrow, wide), TASKS["kws"].input_shape) == 16_000
    record = write_record(Run("vww", "baseline", resolution=64), tmp_path)
    whole = write_record(Run("vww", "baseline"), tmp_path)
    assert peak_memory(record) == (8 + 16) * 32 * 32
    assert peak_memory(cascade(record, whole)) == (8 + 16) * 48 * 48
