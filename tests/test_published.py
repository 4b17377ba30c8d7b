"""Published records sorted by what was varied, from a sweep that the tests write."""

from pathlib import Path

import pytest

from trecx import paths
from trecx.errors import TrecxError
from trecx.experiments import sweep
from trecx.experiments.records import FILES
from trecx.experiments.results import published

SWEEP = """
defaults: {task: vww, data: vww96, recipe: fast, start: mlperf_tiny}
runs:
  - {method: [baseline, trecx_ev, trecx_no_ev], seed: [0, 1]}
  - {method: trecx_ev, frozen: true, seed: [0, 1]}
  - {method: baseline, resolution: [80, 64]}
  - {method: trecx_ev, w_early: 0.8}
  - {method: trecx_ev, taps: layer5}
  - {method: [baseline, trecx_ev], start: ""}
  - {method: baseline, width: 0.5, start: ""}
"""


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(paths, "SWEEPS", tmp_path)
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "published")
    (tmp_path / "mine.yaml").write_text(SWEEP)
    return tmp_path


def publish_all_but(folder: Path, *missing: str) -> None:
    for run in sweep.load(folder / "mine.yaml"):
        if run.name not in missing:
            target = paths.PUBLISHED / run.data / run.name
            target.mkdir(parents=True)
            for name in FILES:
                (target / name).write_text("{}")


def names(group: dict) -> dict:
    return {key: [record.name for record in records] for key, records in group.items()}


def test_every_setting_is_a_group_of_its_own(folders: Path) -> None:
    publish_all_but(folders, "vww-trecx_no_ev-from-mlperf_tiny-fast40-seed1")
    found = published("mine")
    tail = "from-mlperf_tiny-fast40"
    seeds = ("seed0", "seed1")
    ev = [f"vww-trecx_ev-{tail}-{seed}" for seed in seeds]
    assert names(found.methods) == {
        "baseline": [f"vww-baseline-{tail}-{seed}" for seed in seeds],
        "trecx_ev": ev,
        "trecx_no_ev": [f"vww-trecx_no_ev-{tail}-seed0"],
    }
    assert names(found.frozen) == {"trecx_ev": [f"vww-trecx_ev-from-mlperf_tiny-frozen-fast40-{s}" for s in seeds]}
    assert names(found.static) == {
        "resolution 80": [f"vww-baseline-res80-{tail}-seed0"],
        "resolution 64": [f"vww-baseline-res64-{tail}-seed0"],
    }
    assert names(found.weights) == {0.4: ev, 0.8: [f"vww-trecx_ev-w0.8-{tail}-seed0"]}
    assert names(found.places["trecx_ev"]) == {"layer4": ev, "layer5": [f"vww-trecx_ev-tap-layer5-{tail}-seed0"]}
    assert names(found.variants) == {
        "baseline, from scratch": ["vww-baseline-fast40-seed0"],
        "trecx_ev, from scratch": ["vww-trecx_ev-fast40-seed0"],
        "baseline, width 0.5, from scratch": ["vww-baseline-width0.5-fast40-seed0"],
    }
    assert found.missing == ["vww-trecx_no_ev-from-mlperf_tiny-fast40-seed1"]
    assert len(found.records) == len(sweep.load(folders / "mine.yaml")) - 1


def test_every_setting_has_one_name_for_people(folders: Path) -> None:
    publish_all_but(folders)
    found = published("mine")
    assert {*found.named} == {
        "Baseline",
        "T-RecX",
        "T-RecX, no EV",
        "T-RecX, heads alone",
        "Baseline, resolution 80",
        "Baseline, resolution 64",
        "T-RecX, w = 0.8",
        "T-RecX, exit after layer5",
        "Baseline, from scratch",
        "T-RecX, from scratch",
        "Baseline, width 0.5, from scratch",
    }
    assert sum(map(len, found.named.values())) == len(found.records)


def test_nothing_published_is_refused_or_empty(folders: Path) -> None:
    with pytest.raises(TrecxError, match="no run of sweep 'mine' has a published record: run `python -m trecx sweep"):
        published("mine")
    found = published("mine", may_be_empty=True)
    assert [found.records, found.methods, found.frozen, found.static] == [[], {}, {}, {}]
    assert len(found.missing) == len(sweep.load(folders / "mine.yaml"))


def test_the_two_settings_of_visual_wake_words_are_never_mixed() -> None:
    trained, fresh = (sweep.load(paths.SWEEPS / f"vww96_{name}.yaml") for name in ("finetune", "scratch"))
    assert {(run.start, run.recipe) for run in trained} == {("mlperf_tiny", "finetune")}
    assert {(run.start, run.recipe) for run in fresh} == {("", "scratch")}
    for runs, seeds in ((trained, 5), (fresh, 3)):
        assert {run.data for run in runs} == {"vww96"}
        plain = [r for r in runs if r.w_early is None and not (r.taps or r.frozen or r.resolution or r.width != 1)]
        asked = {"baseline", "trecx_ev", "trecx_no_ev", "trecx_no_transfer", "baseline_ee"}
        asked |= {"branchynet_fair", "sdn_fair"}  # the authors coded no rivals for MobileNet
        asked |= {"trecx_stride_first"} if runs is trained else set()
        assert {r.method for r in plain} == asked
        assert all(sum(r.method == method for r in plain) == seeds for method in asked)
