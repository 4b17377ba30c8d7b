"""The headline over three tasks, from records that the tests write, and against hand formulas."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from trecx import cli, paths
from trecx.analysis.tables import mean_points, points
from trecx.experiments import reference
from trecx.experiments.results import Published
from trecx.experiments.sweep import load
from trecx.report import headline

from .small import write_record

# The heads of the project's own sweeps: three seeds of baseline and T-RecX, and two smaller networks.
SWEEP = """
defaults: {{task: {task}, data: {data}, recipe: {recipe}, start: "{start}"}}
runs:
  - {{method: [baseline, trecx_ev], seed: [0, 1, 2]}}
  - {{method: baseline, {smaller}}}
"""
WIDTHS = "width: [0.75, 0.5]"
SETTINGS = {
    "ic": {"data": "cifar10", "recipe": "fast", "start": "", "smaller": WIDTHS},
    "kws": {"data": "speech_commands", "recipe": "fast", "start": "", "smaller": WIDTHS},
    "vww": {"data": "vww96", "recipe": "finetune", "start": "mlperf_tiny", "smaller": "resolution: [80, 64]"},
}


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sweeps."""
    folder = tmp_path_factory.mktemp("sweeps")
    for task, name in headline.SWEEPS.items():
        (folder / f"{name}.yaml").write_text(SWEEP.format(task=task, **SETTINGS[task]))
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, sweeps: Path) -> Path:
    """A folder of published records: the authors' weights, and made-up ones of every run."""
    folder = tmp_path_factory.mktemp("published")
    (folder / reference.GROUP).symlink_to(paths.PUBLISHED / reference.GROUP)
    for path in sweeps.iterdir():
        for run in load(path):
            write_record(run, folder, n=400, accuracy=0.8)
    return folder


@pytest.fixture(scope="module")
def gathered(sweeps: Path, written: Path) -> dict[str, Published]:
    """These records, read once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "SWEEPS", sweeps)
        patch.setattr(paths, "PUBLISHED", written)
        return headline.gather()


@pytest.fixture
def found(
    monkeypatch: pytest.MonkeyPatch, sweeps: Path, written: Path, gathered: dict[str, Published]
) -> dict[str, Published]:
    """These records, also for what looks them up again; nothing may be changed in them. Few samples are redrawn."""
    monkeypatch.setattr(paths, "SWEEPS", sweeps)
    monkeypatch.setattr(paths, "PUBLISHED", written)
    monkeypatch.setattr(headline, "redrawn", partial(headline.redrawn, resamples=20))
    return gathered


def fake(cost: float, *accuracies: float) -> list[SimpleNamespace]:
    """Networks without exits of one cost, one a seed, with these accuracies in percent."""
    cost_of = {"flops": [cost], "macs": [cost / 2]}
    return [SimpleNamespace(manifest={"cost": cost_of}, accuracies=lambda a=a: np.array([a / 100])) for a in accuracies]


def test_its_sweeps_are_those_of_the_project() -> None:
    assert {*headline.SWEEPS.values()} <= {path.stem for path in paths.SWEEPS.glob("*.yaml")}


def test_smaller_network_is_interpolated_between_its_neighbours() -> None:
    base = {"baseline": fake(100, 90, 91)}  # 90.5 %, so 89.5 % is asked for
    static = {"narrow": fake(60, 88.5), "middle": fake(80, 90.0, 90.0)}
    # Between 80 (90.0 %) and 60 (88.5 %): a third of the way.
    found = Published(methods=base, static=static)  # type: ignore[arg-type]
    assert headline.smaller(found) == pytest.approx(100 - (80 - 20 / 3))
    accurate = Published(methods=base, static={"middle": static["middle"]})  # type: ignore[arg-type]
    assert headline.smaller(accurate) == pytest.approx(20)  # a lower bound: no smaller one was trained
    assert np.isnan(headline.smaller(Published(methods=base)))  # type: ignore[arg-type]


def test_headline_is_the_mean_over_tasks(found: dict[str, Published]) -> None:
    frame = headline.headline(found)
    rows = frame.set_index(["below", "threshold"])
    tasks = [*headline.SWEEPS]
    for way, protocol in (("chosen on validation", "validation"), ("paper protocol", "paper")):
        row = rows.loc[("our baseline", way)]
        for task, runs in found.items():
            every = points({"trecx_ev": runs.methods["trecx_ev"]}, task, runs.methods["baseline"], with_paper=False)
            at = mean_points(every).set_index(["reference", "drop", "protocol"])
            expected = 100 * float(at.loc[("own baseline", 1, protocol), "reduction"])
            assert row[task] == pytest.approx(expected, nan_ok=True)
    means = frame[tasks].mean(axis=1, skipna=False)
    assert frame["mean"].to_numpy() == pytest.approx(means.to_numpy(), nan_ok=True, abs=0.05)  # the paper rounds
    assert rows.loc[("the paper's baseline", "as the paper prints"), "mean"] == 31.58


def test_a_miss_saves_nothing_or_leaves_no_mean(found: dict[str, Published], monkeypatch: pytest.MonkeyPatch) -> None:
    by_task = {"ic": np.array([10.0, np.nan, 20.0]), "kws": np.full(3, 40.0), "vww": np.full(3, 20.0)}
    monkeypatch.setattr(headline, "saved", lambda runs, task: dict.fromkeys(headline.WAYS.values(), by_task[task]))
    frame = headline.headline(found)
    assert np.isnan(frame.loc[0, ["ic", "mean"]].to_numpy(dtype=float)).all()
    assert frame.loc[1, ["ic", "kws", "vww", "mean"]].tolist() == pytest.approx([10, 40, 20, 70 / 3])


def test_other_samples_widen_the_interval_of_the_mean(found: dict[str, Published]) -> None:
    """Drawn anew, the saving scatters around what the real samples give; the interval has this and the seeds in it."""
    redrawn = {task: headline.redrawn(runs, task, resamples=60) for task, runs in found.items()}
    saved, again = headline.saved(found["vww"], "vww"), redrawn["vww"]
    way = ("own final exit", "validation")
    drawn = again[way].mean(1)
    assert again[way].shape == (60, len(saved[way]))
    assert abs(drawn.mean() - saved[way].mean()) < 2 * drawn.std()
    assert drawn.std() > 0.5
    row = {task: headline.saved(runs, task)[way] for task, runs in found.items()}
    alone = headline._row("", "", row)
    widened = headline._row("", "", row, {task: draws[way] for task, draws in redrawn.items()})
    assert alone["low"] > widened["low"]
    assert alone["mean"] == widened["mean"]


def test_one_task_has_the_wider_interval_too(found: dict[str, Published], monkeypatch: pytest.MonkeyPatch) -> None:
    ways = headline.WAYS.values()
    monkeypatch.setattr(headline, "saved", lambda runs, task: dict.fromkeys(ways, np.array([20.0, 21.0, 22.0])))
    draws = np.random.default_rng(0).normal(21, 3, size=(100, 1)).repeat(3, axis=1)
    monkeypatch.setattr(headline, "redrawn", lambda runs, task: dict.fromkeys(ways, draws))
    interval = headline.saved_interval(found["vww"], "vww")
    assert interval.estimate == 21
    error = np.sqrt(1 / 3 + draws.mean(1).var())  # of the seeds, and of the samples
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * error, rel=0.01)
    monkeypatch.setattr(headline, "saved", lambda runs, task: dict.fromkeys(ways, np.array([20.0, np.nan])))
    assert np.isnan(headline.saved_interval(found["vww"], "vww").estimate)


def test_claims_name_the_task_that_is_left_out(found: dict[str, Published]) -> None:
    verdicts = headline.claims(found).set_index("claim")
    assert "vww left out" in verdicts.loc["C2", "evidence"]
    assert "vww" not in verdicts.loc["C2", "evidence"].split(";")[0]
    assert "C9" not in verdicts.index  # no rival has a record here
    assert "vww" in verdicts.loc["C3", "evidence"]


def test_tables_by_one_command(found: dict[str, Published], capsys: pytest.CaptureFixture[str]) -> None:
    for name in (*headline.TABLES, None):
        assert cli.main(["results", "all", *([name] if name else [])]) == 0
    assert "as the paper prints" in capsys.readouterr().out
    assert cli.main(["results", "all", "rows"]) == 2
    assert "choose one of headline, static, claims, runs" in capsys.readouterr().err


def test_without_any_record_the_tables_say_so(
    monkeypatch: pytest.MonkeyPatch, sweeps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "SWEEPS", sweeps)
    (tmp_path / reference.GROUP).symlink_to(paths.PUBLISHED / reference.GROUP)
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path)
    assert headline.headline(headline.gather())["mean"].notna().sum() == 1  # what the paper prints
    assert cli.main(["results", "all", "static"]) == 2
    assert "no run that it needs is published yet" in capsys.readouterr().err
