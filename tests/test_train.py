"""Losses, schedules and the engine against formulas, and against themselves when interrupted."""

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trecx.errors import TrecxError
from trecx.experiments.runs import Run
from trecx.models.build import build
from trecx.models.layers import Conv2d
from trecx.models.methods import METHODS
from trecx.training.augment import AUGMENTATIONS, affine, colour, crop, flip, resized_crop, shift_rows
from trecx.training.batches import ORDERS, Examples, batches, make_batch, resize, scale, soften
from trecx.training.device import arithmetic, autocast
from trecx.training.loop import Training, _kernels, log_probs, train
from trecx.training.losses import early_weights, exit_losses, joint_loss
from trecx.training.optimizer import OPTIMIZERS, Average, make_optimizer
from trecx.training.recipes import (
    RECIPES,
    SCHEDULES,
    Batching,
    Optimizer,
    Recipe,
    Schedule,
    get_recipe,
    learning_rate,
)
from trecx.training.state import Progress


def tiny(n: int = 96) -> Examples:
    """Keyword-like samples whose class shows in the first coefficients."""
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 12
    x = torch.randn(n, 1, 49, 10, generator=draw) + y[:, None, None, None] * 0.5
    return Examples(x, y, x[:24], y[:24])


def small(**changes: Any) -> Recipe:
    return replace(get_recipe("quick", "kws", 3), batch=32, **changes)


def fit(
    recipe: Recipe, state: Path | None = None, method: str = "trecx_ev", seed: int = 0, **options: Any
) -> tuple[Any, Progress]:
    torch.manual_seed(seed)
    network = build("kws", method)
    shares = (0.5,) * (network.num_exits - 1)
    varied = {name: options.pop(name) for name in ("frozen", "w_early", "teacher", "staged") if name in options}
    training = Training(METHODS[method], recipe, "kws", seed, shares, **varied)
    return network, train(network, training, tiny(), state=state, **options)


# ---- arithmetic


@pytest.mark.parametrize(
    ("has", "asked", "used"),
    [("avx2", "bfloat16", "float32"), ("avx512_bf16", "bfloat16", "bfloat16"), ("avx512_bf16", "float32", "float32")],
)
def test_bfloat16_is_used_only_where_the_processor_has_it(
    has: str, asked: str, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Emulated, a training step takes four to seven times as long as in float32."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False, has: True})
    with autocast(torch.device("cpu"), asked):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == getattr(torch, used)
    assert arithmetic(torch.device("cpu"), asked) == used


# ---- losses


def test_joint_loss_is_w_times_early_plus_final() -> None:
    early, final = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    losses = exit_losses([early, final], torch.tensor([0]))
    by_hand = 0.3 * math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1))
    assert joint_loss(losses, [0.3]).item() == pytest.approx(by_hand, rel=1e-6)


def test_padded_rows_count_for_the_early_exit_only() -> None:
    logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([1, 0, 0, 0])  # the last two are padding
    early, final = exit_losses([logits, logits], labels, padded=2)
    each = F.cross_entropy(logits, labels, reduction="none")
    assert early.item() == pytest.approx(each.mean().item())
    assert final.item() == pytest.approx((each[:2].sum() / 4).item())


def test_loss_weights_of_every_method() -> None:
    def weights(method: str, task: str, w: float | None = None, progress: float = 0.0) -> list[float]:
        return early_weights(METHODS[method], task, w, progress, [0.4, 0.7])

    assert weights("trecx_ev", "ic")[0] == 0.5
    assert weights("trecx_no_ev", "kws")[0] == 0.3
    assert weights("trecx_no_transfer", "vww")[0] == 0.4
    assert weights("trecx_concat", "kws")[0] == weights("baseline_ee", "ic")[0] == 1.0
    assert weights("branchynet", "ic") == [1.0, 0.3]
    assert weights("sdn", "ic", progress=0.9) == [0.01, 0.01]
    assert weights("sdn_fair", "ic", progress=0.5) == pytest.approx([0.01 + 0.2, 0.01 + 0.35])
    assert weights("trecx_ev", "ic", w=0.8)[0] == 0.8
    assert early_weights(METHODS["baseline"], "ic", None, 0, []) == []
    with pytest.raises(TrecxError, match="positive"):
        weights("trecx_ev", "ic", w=-1)


# ---- schedules


def test_learning_rates_of_the_paper() -> None:
    ic, kws, vww = (RECIPES["paper"][task] for task in ("ic", "kws", "vww"))
    assert learning_rate(ic, 0, 0) == 1e-3
    assert learning_rate(ic, 499, 0.9) == pytest.approx(1e-3 * 0.99**499)
    assert [learning_rate(kws, e, 0) for e in (0, 11, 12, 23, 24, 35)] == [5e-4, 5e-4, 1e-4, 1e-4, 2e-5, 2e-5]
    assert [learning_rate(vww, e, 0) for e in (0, 19, 20, 29, 30, 49)] == [1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4, 2.5e-4]


def test_epochs_of_weight_transfer_are_the_papers() -> None:
    transfer = {task: round(r.transfer * r.epochs) for task, r in RECIPES["paper"].items()}
    assert transfer == {"ic": 402, "kws": 30, "vww": 42}


def test_one_cycle_rises_and_falls() -> None:
    recipe = get_recipe("fast", "ic")
    rates = [learning_rate(recipe, e, f) for e in range(recipe.epochs) for f in (0.0, 0.5)]
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert max(rates) == pytest.approx(recipe.rate, rel=0.05)
    assert learning_rate(recipe, recipe.epochs, 0) == 0


def test_unknown_recipe_and_epochs_are_refused() -> None:
    with pytest.raises(TrecxError, match="paper, fast, quick"):
        get_recipe("slow", "ic")
    with pytest.raises(TrecxError, match="from 1"):
        get_recipe("fast", "ic", 0)
    with pytest.raises(TrecxError, match=r"task kws has no recipe 'finetune': choose one of paper, fast, quick$"):
        get_recipe("finetune", "kws")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"optimizer": "adamw"}, "unknown optimizer 'adamw': choose one of 'adam', 'sgd'"),
        ({"schedule": "cosine"}, "unknown schedule 'cosine': choose one of 'exponential', 'steps', 'onecycle'"),
        ({"batching": "fixd"}, "unknown batching 'fixd': choose one of 'shuffle', 'fixed', 'pad'"),
        ({"precision": "float16"}, "unknown precision 'float16': choose one of 'float32', 'bfloat16'"),
        ({"augment": (("flop", ()),)}, "unknown augmentation 'flop': choose one of 'flip', 'crop'"),
        ({"epochs": 0}, "epochs 0 is impossible: choose a whole number from 1"),
        ({"batch": 1}, "batch 1 is impossible: choose a whole number from 2"),
    ],
)
def test_recipes_with_a_wrong_switch_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(TrecxError, match=says):
        replace(get_recipe("fast", "kws"), **changes)


def test_every_switch_of_a_recipe_has_code() -> None:
    for kinds, code in ((Optimizer, OPTIMIZERS), (Schedule, SCHEDULES), (Batching, ORDERS)):
        assert set(get_args(kinds)) == set(code)


def test_a_single_sample_is_refused() -> None:
    with pytest.raises(TrecxError, match="1 training samples are too few: give at least 2"):
        list(batches(small(), 1, 0, 0))


def test_inputs_are_in_the_benchmarks_range() -> None:
    x = torch.tensor([0, 51, 255], dtype=torch.uint8)
    assert scale(x, "vww").tolist() == pytest.approx([0, 0.2, 1])
    assert scale(x, "ic").tolist() == scale(x, "kws").tolist() == [0, 51, 255]


def test_recipes_of_old_average_nothing_and_have_no_teacher() -> None:
    for name in ("paper", "fast", "quick"):
        for recipe in RECIPES[name].values():
            assert (recipe.ema, recipe.head_rate, recipe.teacher) == (0, 1, 0)
    assert RECIPES["finetune"].keys() == RECIPES["scratch"].keys() == {"vww"}


# ---- batches


def test_papers_batches() -> None:
    ic, kws, vww = (RECIPES["paper"][task] for task in ("ic", "kws", "vww"))
    sizes = [len(rows) for rows in batches(ic, 50_000, 0, 0)]
    assert len(sizes) == 1563
    assert set(sizes) == {32}  # 16 duplicates fill the last one
    one, two = ([tuple(sorted(r.tolist())) for r in batches(kws, 1050, epoch, 0)] for epoch in (0, 1))
    assert len(one) == 10  # the remainder is dropped
    assert set(one) == set(two)  # composed once ...
    assert one != two  # ... and shuffled
    rows = list(batches(vww, 50, 0, 0))[-1]
    data = Examples(torch.ones(50, 3, 96, 96), torch.ones(50).long(), torch.empty(0), torch.empty(0))
    x, labels, padded = make_batch(data, rows, vww, "vww", torch.Generator().manual_seed(0))
    assert (len(rows), padded, len(x)) == (18, 14, 32)
    assert x[18:].abs().max() == 0
    assert labels[18:].tolist() == [0] * 14


def test_shuffle_covers_every_sample_in_another_order_each_epoch() -> None:
    recipe = small()
    one, two = (torch.cat(list(batches(recipe, 100, epoch, 0))).tolist() for epoch in (0, 1))
    assert sorted(one) == sorted(two) == list(range(100))
    assert one != two


# ---- augmentation


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_augmentations_keep_shape_and_move_what_they_say() -> None:
    x = torch.rand(64, 3, 8, 8, generator=draws())
    mirrored = flip(x, draws())
    same = (mirrored == x).flatten(1).all(1)
    turned = (mirrored == x.flip(3)).flatten(1).all(1)
    assert (same ^ turned).all()
    assert 10 < same.sum() < 54
    assert torch.equal(crop(x, draws(), 0), x)
    ramp = torch.arange(8.0)[:, None].expand(64, 1, 8, 8).contiguous()
    moved = crop(ramp, draws(), 2)[:, 0, 2:6, 4] - ramp[:, 0, 2:6, 4]
    assert set(moved.flatten().unique().tolist()) == {-2.0, -1.0, 0.0, 1.0, 2.0}
    shifted = shift_rows(ramp, draws(), 4)[:, 0, :, 0]
    assert (shifted.diff(dim=1) >= 0).all()  # edges repeat, nothing wraps round
    assert torch.equal(affine(x, draws(), 0, 0, 0), x) or torch.allclose(affine(x, draws(), 0, 0, 0), x, atol=1e-5)


def test_affine_shift_is_a_share_of_the_side() -> None:
    ramp = torch.arange(100.0).expand(256, 1, 100, 100).contiguous()
    moved = (affine(ramp, draws(), 0, 0.1, 0) - ramp)[:, 0, 50, 50]
    assert moved.abs().max() == pytest.approx(10, abs=0.5)
    assert moved.mean().abs() < 1


@pytest.mark.parametrize(("name", "axis", "most"), [("mask_rows", 2, 12), ("mask_columns", 3, 3)])
def test_masks_blank_out_neighbours_with_the_sample_s_own_mean(name: str, axis: int, most: int) -> None:
    x = torch.randn(400, 1, 49, 10, generator=torch.Generator().manual_seed(1)) + torch.arange(400.0).view(-1, 1, 1, 1)
    mask = AUGMENTATIONS[name]
    out = mask(x, torch.Generator().manual_seed(0), most)
    assert out.shape == x.shape
    assert torch.equal(out, mask(x, torch.Generator().manual_seed(0), most))
    assert not torch.equal(out, mask(x, torch.Generator().manual_seed(2), most))
    changed = out != x
    assert torch.equal(out[changed], x.mean((1, 2, 3), keepdim=True).expand_as(x)[changed])
    lines = changed.movedim(axis, 1).flatten(2)  # (N, rows or columns, the rest)
    hit = lines.any(2)
    assert torch.equal(hit, lines.all(2))  # whole rows or columns
    length = hit.sum(1)
    assert sorted(set(length.tolist())) == list(range(most + 1))  # from none to `most`, a draw a sample
    assert length.float().mean().item() == pytest.approx(most / 2, rel=0.15)
    assert (hit[:, 1:] != hit[:, :-1]).sum(1).max() <= 2  # neighbours
    assert hit.any(0).all()  # every row or column may be hit


def test_masks_without_a_length_change_nothing_and_are_never_longer_than_the_input() -> None:
    x, draw = torch.randn(50, 1, 6, 4), torch.Generator().manual_seed(0)
    for name in ("mask_rows", "mask_columns"):
        assert torch.equal(AUGMENTATIONS[name](x, draw, 0), x)
        assert torch.isfinite(AUGMENTATIONS[name](x, draw, 100)).all()


def test_recipes_may_mask_but_ours_do_not() -> None:
    recipe = replace(
        get_recipe("fast", "kws"), augment=(("shift_rows", (4,)), ("mask_rows", (8,)), ("mask_columns", (2,)))
    )
    x, y = torch.randn(64, 1, 49, 10), torch.arange(64) % 12
    data = Examples(x, y, x[:0], y[:0])
    batch, labels, _ = make_batch(data, torch.arange(64), recipe, "kws", torch.Generator().manual_seed(0))
    assert batch.shape == x.shape
    assert torch.equal(labels, y)
    ours = [name for by_task in RECIPES.values() for each in by_task.values() for name, _ in each.augment]
    assert not [name for name in ours if name.startswith("mask")]


def test_colour_changes_brightness_contrast_and_saturation_and_nothing_else() -> None:
    x = torch.rand(64, 3, 8, 8, generator=draws())
    grey = (x * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)
    assert torch.allclose(colour(x, draws(), 0, 0, 0), x, atol=1e-6)
    assert torch.equal(colour(x, draws(), 0.3, 0.3, 0.3), colour(x, draws(), 0.3, 0.3, 0.3))
    light = (colour(x, draws(), 0.3, 0, 0) / x).flatten(1)
    assert torch.allclose(light, light[:, :1].expand_as(light), rtol=1e-4)  # one factor an image
    assert 0.7 <= light.min() < 0.8 < 1.2 < light.max() <= 1.3001
    spread = colour(x, draws(), 0, 0.3, 0)
    middle = grey.mean((1, 2))[:, None, None, None]
    factors = ((spread - middle) / (x - middle)).flatten(1).median(1).values
    assert torch.allclose(spread, middle + factors[:, None, None, None] * (x - middle), atol=1e-4)
    assert 0.7 <= factors.min() < 0.8 < 1.2 < factors.max() <= 1.3001
    vivid = colour(x, draws(), 0, 0, 0.3)
    moved = (vivid - x).abs().amax((1, 2, 3))
    assert torch.allclose((vivid * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1), grey, atol=1e-5)
    assert moved.max() > 0.1
    flat = torch.full((4, 3, 8, 8), 0.5)  # grey has no contrast and no saturation to change
    assert torch.allclose(colour(flat, draws(), 0, 0.9, 0.9), flat, atol=1e-6)


def test_resized_crop_cuts_an_upright_rectangle_of_the_stated_size_inside_the_image() -> None:
    x = torch.rand(16, 3, 12, 12, generator=draws())
    assert torch.allclose(resized_crop(x, draws(), 1, 1), x, atol=1e-5)
    side = 101
    rows = torch.linspace(-1, 1, side)
    ramps = torch.stack([rows[:, None].expand(side, side), rows[None].expand(side, side)]).expand(512, 2, side, side)
    out = resized_crop(ramps.contiguous(), draws(), 0.4, 1.5)
    inner = out[:, :, 10:91, 10:91]  # away from the repeated edges
    height, width = ((inner[:, k].amax((1, 2)) - inner[:, k].amin((1, 2))) / (rows[90] - rows[10]) for k in (0, 1))
    assert (inner[:, 0].std(2).max(), inner[:, 1].std(1).max()) == (pytest.approx(0, abs=1e-4),) * 2
    area, ratio = height * width, width / height
    assert 0.33 < area.min() < 0.42  # below 0.4 only where a long side was cut to the image's
    assert 0.97 < area.max() <= 1.0001
    assert 1 / 1.5 - 0.01 <= ratio.min() < 0.75
    assert 1.3 < ratio.max() <= 1.51
    assert out.abs().max() <= 1.0001
    centre = out[:, :, 50, 50]
    assert centre.abs().mean(0).min() > 0.03
    assert centre.mean(0).abs().max() < 0.05


def test_resize_averages_and_keeps_type() -> None:
    x = torch.zeros(3, 3, 96, 96, dtype=torch.uint8)
    x[:, :, :, ::2] = 200  # stripes that plain sampling would keep or lose
    small = resize(x, 48)
    assert small.shape == (3, 3, 48, 48)
    assert small.dtype == torch.uint8
    assert (small[:, :, :, 4:-4].int() - 100).abs().max() <= 15
    assert resize(x, 0) is x
    assert resize(x, 96) is x


# ---- engine


def test_training_learns_and_repeats_under_its_seed() -> None:
    network, progress = fit(small())
    again, _ = fit(small())
    other, _ = fit(small(), seed=1)
    assert progress.rows[-1]["loss_2"] < progress.rows[0]["loss_2"]
    state, repeated, different = network.state_dict(), again.state_dict(), other.state_dict()
    assert all(torch.equal(state[k], repeated[k]) for k in state)
    assert not all(torch.equal(state[k], different[k]) for k in state)


@pytest.mark.parametrize(
    "changes",
    [{"optimizer": "sgd"}, {"optimizer": "adam"}, {"ema": 0.9, "head_rate": 3.0}],
    ids=["sgd", "adam", "averaged"],
)
def test_interrupted_run_ends_in_the_same_weights(tmp_path: Path, changes: dict[str, Any]) -> None:
    recipe = small(rate=1e-2, **changes)
    whole, history = fit(recipe)
    state = tmp_path / "state.safetensors"

    class Stop(Exception):
        pass

    def stop(epochs: int, row: dict[str, Any]) -> None:
        if epochs == 2:
            raise Stop

    torch.manual_seed(0)
    network = build("kws", "trecx_ev")
    training = Training(METHODS["trecx_ev"], recipe, "kws", seed=0, shares=(0.5,))
    with pytest.raises(Stop):
        train(network, training, tiny(), state=state, report=stop)
    resumed, continued = fit(recipe, state)
    assert continued.rows == history.rows
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in whole.state_dict().items())
    finished, _ = fit(recipe, state)  # stopped between the last epoch and the record
    assert all(torch.equal(v, finished.state_dict()[k]) for k, v in whole.state_dict().items())


def test_average_is_the_formula_and_is_what_is_kept() -> None:
    network = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    average = Average(network, 0.9)
    weight, mean = network[0].weight, network[1].running_mean
    by_hand = [weight.item(), mean.item()]
    for step in range(100):
        with torch.no_grad():
            weight.fill_(step)
            mean.fill_(-step)
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        by_hand = [decay * old + (1 - decay) * new for old, new in zip(by_hand, (step, -step), strict=True)]
    with average.applied():
        assert [weight.item(), mean.item()] == pytest.approx(by_hand, rel=1e-5)
    assert (weight.item(), mean.item()) == (99, -99)
    average.keep()
    assert [weight.item(), mean.item()] == pytest.approx(by_hand, rel=1e-5)


def test_averaged_weights_are_validated_and_returned() -> None:
    plain, _ = fit(small())
    averaged, history = fit(small(ema=0.9))
    assert not torch.equal(plain.final.classifier.weight, averaged.final.classifier.weight)
    hits = log_probs(averaged, tiny().x_val, "kws").argmax(2) == tiny().y_val[:, None]
    assert [history.rows[-1][f"val_accuracy_{k}"] for k in (1, 2)] == pytest.approx(hits.float().mean(0).tolist())


class Fixed(nn.Module):
    """A teacher with one answer."""

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [torch.log(torch.tensor([0.7, 0.3] + [1e-9] * 10)).expand(len(x), 12)]


def test_targets_are_part_label_part_teacher() -> None:
    targets = soften(torch.zeros(2, 1, 1, 1), torch.tensor([2, 0]), Fixed(), 0.4)
    assert targets[0, :3].tolist() == pytest.approx([0.4 * 0.7, 0.4 * 0.3, 0.6])
    assert targets[1, :3].tolist() == pytest.approx([0.6 + 0.4 * 0.7, 0.4 * 0.3, 0], abs=1e-6)
    logits = torch.randn(2, 12, generator=draws())
    by_hand = -(targets * logits.log_softmax(1)).sum(1).mean()
    assert exit_losses([logits], targets)[0].item() == pytest.approx(by_hand.item())


def test_a_run_that_learns_from_its_teacher_alone_does_not_see_the_labels() -> None:
    data, weights = tiny(), []
    training = Training(METHODS["baseline"], small(teacher=1.0), "kws", seed=0, teacher=Fixed())
    for labels in (data.y_train, data.y_train.flip(0)):
        torch.manual_seed(0)
        network = build("kws", "baseline")
        train(network, training, replace(data, y_train=labels))
        weights.append(network.final.classifier.weight)
    assert torch.equal(*weights)
    assert (log_probs(network, data.x_train, "kws").argmax(2) == 0).all()  # the teacher's answer, whatever the sample


def test_a_recipe_with_a_teacher_needs_one() -> None:
    with pytest.raises(TrecxError, match="learns from a teacher: give the trained network"):
        fit(small(teacher=0.5))
    with pytest.raises(TrecxError, match="recipe 'finetune' learns from trained weights: give start as well"):
        Run("vww", "baseline", "vww96", "finetune")


def test_frozen_backbone_keeps_weights_and_statistics_while_the_heads_learn() -> None:
    torch.manual_seed(0)
    before = {k: v.clone() for k, v in build("kws", "trecx_ev").state_dict().items()}
    network, progress = fit(small(), frozen=True)
    after = network.state_dict()
    assert all(torch.equal(before[k], v) for k, v in after.items() if k.startswith("backbone."))
    heads = [k for k in after if k.startswith(("exits.", "final.")) and k.endswith("weight")]
    assert not any(torch.equal(before[k], after[k]) for k in heads)
    assert progress.rows[-1]["loss_1"] < progress.rows[0]["loss_1"]


def test_interrupted_frozen_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    recipe, state = small(), tmp_path / "state.safetensors"
    whole, _ = fit(recipe, frozen=True)

    def stop(epochs: int, row: dict[str, Any]) -> None:
        if epochs == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(recipe, state, frozen=True, report=stop)
    resumed, _ = fit(recipe, state, frozen=True)
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in whole.state_dict().items())


# ---- one exit after the other


def alone(network: Any) -> Any:
    """The baseline of the first step's width, with that step's weights."""
    narrow = build("kws", "baseline", width=METHODS["nested"].narrow["kws"][0])
    places = {"backbone.": "backbone.step1.backbone.", "final.classifier.": "exits.step1.classify.2."}
    state = network.state_dict()
    found = {new + k.removeprefix(old): v for new, old in places.items() for k, v in state.items() if k.startswith(old)}
    narrow.load_state_dict(found)
    return narrow


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_staged_training_is_that_of_the_narrow_network_and_then_leaves_it_alone(ema: float) -> None:
    torch.manual_seed(0)
    narrow = alone(build("kws", "nested"))  # as `fit` will find it
    by_itself = train(narrow, Training(METHODS["baseline"], small(ema=ema), "kws", seed=0), tiny())
    network, staged = fit(small(ema=ema), method="nested", staged=True)
    assert all(torch.equal(v, narrow.state_dict()[k]) for k, v in alone(network).state_dict().items())
    assert staged.rows[:3] == by_itself.rows
    assert not network.training
    assert all(p.requires_grad for p in network.parameters())


def test_the_second_stage_trains_the_rest_with_a_schedule_of_its_own() -> None:
    torch.manual_seed(0)
    before = {k: v.clone() for k, v in build("kws", "nested").state_dict().items()}
    network, progress = fit(small(), method="nested", staged=True)
    rest = [k for k in before if ("step2" in k or k.startswith("final.")) and k.endswith("weight")]
    assert rest
    assert not any(torch.equal(before[k], network.state_dict()[k]) for k in rest)
    rows = progress.rows
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["learning_rate"] for row in rows[:3]] == [row["learning_rate"] for row in rows[3:]]
    assert all(row.keys() == {"epoch", "learning_rate", "loss_1", "val_accuracy_1"} for row in rows[:3])
    second = {"epoch", "learning_rate", "loss_2", "val_accuracy_1", "val_accuracy_2"}
    assert all(row.keys() == second for row in rows[3:])
    assert {row["val_accuracy_1"] for row in rows[3:]} == {rows[2]["val_accuracy_1"]}
    assert rows[5]["loss_2"] < rows[3]["loss_2"]


def test_every_part_has_its_stage_in_any_network_with_exits() -> None:
    torch.manual_seed(0)
    before = {k: v.clone() for k, v in build("kws", "branchynet").state_dict().items()}
    network, progress = fit(small(epochs=1), method="branchynet", staged=True)
    after = network.state_dict()
    assert not any(torch.equal(before[k], after[k]) for k in before if k.endswith("weight"))
    assert [[key for key in row if key.startswith("loss")] for row in progress.rows] == [
        ["loss_1"],
        ["loss_2"],
        ["loss_3"],
    ]
    modules = [module for part in network.parts() for module in part]
    own = {id(p) for module in modules for p in module.parameters()}
    assert own == {id(p) for p in network.parameters()}
    assert sum(len(list(module.parameters())) for module in modules) == len(own)  # each in one part


@pytest.mark.parametrize(
    ("after", "changes"),
    [(2, {}), (3, {"ema": 0.9}), (5, {"optimizer": "adam"})],
    ids=["in the first stage", "between, averaged", "in the second stage, adam"],
)
def test_interrupted_staged_run_ends_in_the_same_weights(tmp_path: Path, after: int, changes: dict[str, Any]) -> None:
    recipe, state = small(rate=1e-2, **changes), tmp_path / "state.safetensors"
    whole, history = fit(recipe, method="nested", staged=True)

    def stop(epochs: int, row: dict[str, Any]) -> None:
        if epochs == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(recipe, state, method="nested", staged=True, report=stop)
    resumed, continued = fit(recipe, state, method="nested", staged=True)
    assert continued.rows == history.rows
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in whole.state_dict().items())


def test_a_final_exit_that_comes_last_cannot_teach() -> None:
    with pytest.raises(TrecxError, match="in staged training the final exit comes last and cannot teach"):
        Training(METHODS["nested"], small(teacher=0.7), "kws", seed=0, final_teaches=True, staged=True)


def test_head_rate_moves_the_early_exit_only() -> None:
    network = build("vww", "trecx_ev")
    groups = make_optimizer(network, RECIPES["finetune"]["vww"]).param_groups
    exits = {id(p) for p in network.exits.parameters()}
    for group in groups:
        inside = {id(p) in exits for p in group["params"]}
        assert inside == {group["factor"] == RECIPES["finetune"]["vww"].head_rate}
    kernels = {id(p) for p in network.l2_kernels()}
    assert {id(p) for g in groups if g["weight_decay"] for p in g["params"]} == kernels
    assert sum(len(g["params"]) for g in groups) == len(list(network.parameters()))
    assert len(make_optimizer(build("vww", "baseline"), RECIPES["finetune"]["vww"]).param_groups) == 2


def test_ev_weights_are_tied_while_they_are_copied_and_free_afterwards() -> None:
    def distance(transfer: float) -> float:
        network, _ = fit(small(transfer=transfer))
        early, final = network.depthwise_pair()
        return float((early.weight - final.weight).detach().abs().max())

    one_step = distance(1.0)  # copied before each batch, so one update apart at the end
    assert 0 < one_step < distance(1 / 3)


def test_method_without_transfer_never_copies() -> None:
    network, _ = fit(small(), method="trecx_no_transfer")
    early, final = network.depthwise_pair()
    assert (early.weight - final.weight).detach().abs().max() > 0.05


def test_weight_decay_is_the_gradient_of_l2() -> None:
    """Adam's coupled decay 2e-4 * w equals the gradient of 1e-4 * sum(w**2), on ordinary convolutions only."""
    groups = make_optimizer(build("ic", "trecx_ev"), RECIPES["paper"]["ic"]).param_groups
    assert [group["weight_decay"] for group in groups] == [2e-4, 0.0]
    assert sum(len(g["params"]) for g in groups) == len(list(build("ic", "trecx_ev").parameters()))
    assert groups[0]["eps"] == 1e-7


def test_shares_are_one_for_each_early_exit() -> None:
    training = Training(METHODS["trecx_ev"], small(), "kws", seed=0)
    with pytest.raises(TrecxError, match="shares has 0 entries: give one for each of 1 early exits"):
        train(build("kws", "trecx_ev"), training, tiny())


def test_diverging_run_stops_with_one_sentence() -> None:
    with pytest.raises(TrecxError, match="the loss is not finite in epoch 1 of 3: lower the learning rate"):
        fit(small(rate=float("inf"), schedule="steps"))


FEW_CHANNELS = """
import sys
import torch
from torch import nn
from trecx.models.layers import Conv2d
from trecx.training.loop import _kernels

own = sys.argv[1] == "own"
torch.manual_seed(0)
layer = (Conv2d if own else nn.Conv2d)(6, 12, 1, stride=2)
x = torch.randn(32, 6, 32, 32)
exact = nn.Conv2d(6, 12, 1, stride=2).double()
exact.load_state_dict(layer.state_dict())
upstream = torch.randn(32, 12, 16, 16)
wanted = torch.autograd.grad(exact(x.double()), exact.weight, upstream.double())[0]
layer.to(memory_format=torch.channels_last)
x = x.to(memory_format=torch.channels_last).requires_grad_()
with _kernels(layer, torch.device("cpu")):
    for _ in range(40):
        blocks = [torch.randn(n) for n in range(1, 400, 7)]  # what an overrun would destroy
        found = torch.autograd.grad(layer(x), layer.weight, upstream)[0]
torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-3)
with torch.no_grad():
    torch.testing.assert_close(layer(x), exact(x.double()).float(), rtol=1e-4, atol=1e-4)
print("right")
"""


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["own", "a user's"])
def test_a_stride_over_few_channels_has_right_gradients(whose: str) -> None:
    """oneDNN alone writes past its memory there: in a process of its own, since it might not survive."""
    guarded = os.environ | {"MALLOC_CHECK_": "3", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", FEW_CHANNELS, whose]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=guarded, timeout=300)
    assert (done.stdout, done.returncode) == ("right\n", 0), done.stderr


def test_only_what_onednn_gets_wrong_runs_on_other_kernels() -> None:
    cpu = torch.device("cpu")
    for layer, other in (
        (nn.Conv2d(6, 12, 1, stride=2), True),
        (Conv2d(6, 12, 1, stride=2), False),
        (nn.Conv2d(16, 32, 1, stride=2), False),
        (nn.Conv2d(6, 12, 1), False),
        (nn.Conv2d(6, 12, 3, stride=2), False),
    ):
        with _kernels(nn.Sequential(layer), cpu):
            assert torch.backends.mkldnn.enabled is not other
        with _kernels(nn.Sequential(layer), torch.device("cuda")):
            assert torch.backends.mkldnn.enabled
