"""Published records sorted by what was varied, from a sweep that the tests write."""

from pathlib import Path

import numpy as np
import pytest

from tests.small import write_record
from trecx import paths
from trecx.analysis import benchmark
from trecx.errors import TrecxError
from trecx.experiments import sweep
from trecx.experiments.records import Record
from trecx.experiments.results import _changed, gather, published
from trecx.experiments.runs import Run

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


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sweep."""
    folder = tmp_path_factory.mktemp("sweeps")
    (folder / "mine.yaml").write_text(SWEEP)
    return folder


@pytest.fixture(scope="module")
def runs(sweeps: Path) -> list[Run]:
    """The runs of the sweep."""
    return sweep.load(sweeps / "mine.yaml")


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch, sweeps: Path, tmp_path: Path) -> None:
    """The sweep, and an empty folder of published records."""
    monkeypatch.setattr(paths, "SWEEPS", sweeps)
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "published")


def publish(runs: list[Run], *, but: str = "") -> None:
    for run in runs:
        if run.name != but:
            write_record(run, paths.PUBLISHED, n=12)


def names(group: dict) -> dict:
    return {key: [record.name for record in records] for key, records in group.items()}


@pytest.mark.usefixtures("folders")
def test_every_setting_is_a_group_of_its_own(runs: list[Run]) -> None:
    publish(runs)
    found = published("mine")
    tail = "from-mlperf_tiny-fast40"
    seeds = ("seed0", "seed1")
    ev = [f"vww-trecx_ev-{tail}-{seed}" for seed in seeds]
    assert names(found.methods) == {
        "baseline": [f"vww-baseline-{tail}-{seed}" for seed in seeds],
        "trecx_ev": ev,
        "trecx_no_ev": [f"vww-trecx_no_ev-{tail}-{seed}" for seed in seeds],
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
    assert len(found.records) == len(runs)


@pytest.mark.usefixtures("folders")
def test_every_setting_has_one_name_for_people(runs: list[Run]) -> None:
    publish(runs)
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


@pytest.fixture
def twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The same networks in two published sweeps, for 30 epochs and for 100, and a narrow one for 30 alone."""
    short = ["{method: [baseline, trecx_ev, trecx_no_ev], seed: [0, 1, 2, 3]}", "{method: baseline, width: 0.5}"]
    more = ["{method: [baseline, trecx_ev], seed: [0, 1, 2]}"]
    for name, epochs, lines in (("short", "", short), ("more", ", epochs: 100", more)):
        listed = "\n".join(f"  - {line}" for line in lines)
        text = f"defaults: {{task: ic, data: cifar10, recipe: fast{epochs}}}\nruns:\n{listed}\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    monkeypatch.setattr(paths, "SWEEPS", tmp_path)
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "published")
    monkeypatch.setattr(benchmark, "LONGER", {"short": "more"})
    # What is learned in 70 more epochs here: the final exit of T-RecX, nothing else.
    for run in (*sweep.load(tmp_path / "short.yaml"), *sweep.load(tmp_path / "more.yaml")):
        write_record(run, paths.PUBLISHED, 200, 0.9 if (run.method, run.epochs) == ("trecx_ev", 100) else 0.7)
    return tmp_path


@pytest.mark.usefixtures("twice")
def test_only_networks_that_were_trained_as_long_are_held_against_each_other() -> None:
    found = published("more")
    assert {name: len(records) for name, records in found.methods.items()} == {"baseline": 3, "trecx_ev": 3}
    assert not found.static  # the narrow network had 30 epochs
    assert not found.variants
    short = published("short")
    assert {*short.methods} == {"baseline", "trecx_ev", "trecx_no_ev"}
    assert {*short.static} == {"width 0.5"}
    assert all(record.manifest["recipe"]["epochs"] == 30 for record in short.records)


def test_a_list_says_which_of_its_runs_were_trained_for_longer_or_shorter(twice: Path) -> None:
    for name, epochs, other in (("more", 30, "baseline, 30 epochs"), ("short", 100, "baseline, 100 epochs")):
        with (twice / f"{name}.yaml").open("a") as file:
            file.write(f"  - {{method: baseline, epochs: {epochs}}}\n")
        assert {*published(name).variants} == {other}


@pytest.mark.usefixtures("twice")
def test_longer_trainings_are_judged_on_the_seeds_and_networks_that_both_have() -> None:
    rows = benchmark.longer(published("short"))
    assert sorted(set(zip(rows["claim"], rows["epochs"], strict=True))) == [
        (claim, epochs) for claim in ("C2", "C3", "C4", "C5") for epochs in (30, 100)
    ]
    assert set(rows["seeds"]) == {3}
    gain = rows[rows["claim"] == "C3"].set_index("epochs")
    for epochs in (30, 100):
        ours, theirs = (
            np.mean([Record(f).accuracies()[-1] for f in paths.PUBLISHED.glob(f"cifar10/*{m}-fast{epochs}-seed[012]")])
            for m in ("trecx_ev", "baseline")
        )
        assert gain.loc[epochs, "value"] == pytest.approx(100 * (ours - theirs))
    assert gain.loc[100, "value"] > 10
    assert gain["verdict"].to_dict() == {30: "not settled", 100: "reproduced"}


def test_a_longer_training_of_one_seed_gets_no_verdict(twice: Path) -> None:
    more = twice / "more.yaml"
    more.write_text(more.read_text().replace("[0, 1, 2]", "1"))
    rows = benchmark.longer(published("short"))
    assert set(rows["verdict"]) == {"one seed"}
    assert set(rows["seeds"]) == {1}
    assert np.isnan(rows.loc[rows["claim"] == "C4", ["low", "high"]].to_numpy(dtype=float)).all()  # three seeds or more


def test_nothing_is_said_where_nothing_was_trained_for_longer(twice: Path) -> None:
    assert benchmark.longer(published("more")).empty
    more = twice / "more.yaml"
    more.write_text(more.read_text().replace("[0, 1, 2]", "7"))  # a seed that the shorter trainings lack
    for method in ("baseline", "trecx_ev"):
        write_record(Run("ic", method, "cifar10", "fast", 7, epochs=100), paths.PUBLISHED, 12)
    assert benchmark.trained_longer(published("short")) == ({}, {})
    assert benchmark.longer(published("short")).empty


@pytest.mark.usefixtures("folders")
def test_a_list_that_is_not_whole_is_refused(runs: list[Run]) -> None:
    with pytest.raises(TrecxError, match="15 of the 15 runs of sweep 'mine' have no published record"):
        published("mine")
    publish(runs, but="vww-trecx_no_ev-from-mlperf_tiny-fast40-seed1")
    with pytest.raises(TrecxError, match="the first is vww-trecx_no_ev-from-mlperf_tiny-fast40-seed1: run `python -m"):
        published("mine")


@pytest.mark.parametrize(
    ("source", "given", "said"),
    [
        ("published", {"seed": 1, "epochs": 2}, "source published has runs of its own and takes no seed, epochs"),
        ("full", {"n_seeds": 2}, "source full has runs of its own and takes no n_seeds: choose source quick"),
        ("fast", {}, "unknown source 'fast': choose one of published, quick, full"),
    ],
)
def test_a_parameter_that_would_do_nothing_is_refused(source: str, given: dict[str, int], said: str) -> None:
    with pytest.raises(TrecxError, match=said):
        gather(source, ["ic"], **given)  # type: ignore[arg-type]


def test_a_readers_weight_goes_to_the_runs_that_do_not_vary_it() -> None:
    listed = [run for run in sweep.load(sweep.own("quick")) if run.task == "kws"]
    changed = {_changed(run, 1, 0.4).name for run in listed}
    assert {"kws-trecx_ev-w0.4-quick1-seed0", "kws-trecx_ev-w0.1-quick1-seed0", "kws-sdn-quick1-seed0"} <= changed
    assert "kws-baseline-quick1-seed0" in changed
    assert len(changed) == len(listed)


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
