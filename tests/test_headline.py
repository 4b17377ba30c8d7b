"""The headline over three tasks, from records that the tests write, and against hand formulas."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from trecx import cli, paths
from trecx.analysis import compare, saving, together
from trecx.analysis.beyond import benchmarks
from trecx.analysis.tables import mean_points, method_points
from trecx.experiments import reference
from trecx.experiments.results import Results, gather
from trecx.experiments.sweep import load
from trecx.report.catalogue import TOGETHER
from trecx.tasks import TASKS

from .small import write_record

pytestmark = pytest.mark.slow  # each builds every table of a benchmark from records

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
    for name, task in TASKS.items():
        (folder / f"{task.sweeps[0]}.yaml").write_text(SWEEP.format(task=name, **SETTINGS[name]))
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
def gathered(sweeps: Path, written: Path) -> dict[str, Results]:
    """These records, read once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "SWEEPS", sweeps)
        patch.setattr(paths, "PUBLISHED", written)
        return gather("published")


@pytest.fixture
def found(
    monkeypatch: pytest.MonkeyPatch, sweeps: Path, written: Path, gathered: dict[str, Results]
) -> dict[str, Results]:
    """These records, also for what looks them up again; nothing may be changed in them. Few samples are redrawn."""
    monkeypatch.setattr(paths, "SWEEPS", sweeps)
    monkeypatch.setattr(paths, "PUBLISHED", written)
    monkeypatch.setattr(together, "redrawn", partial(together.redrawn, resamples=20))
    return gathered


def fake(cost: float, *accuracies: float) -> list[SimpleNamespace]:
    """Networks without exits of one cost, one a seed, with these accuracies in percent on both parts of the data."""
    return [
        SimpleNamespace(cost=lambda unit: np.array([cost]), accuracies=lambda split, a=a: np.array([a / 100]))
        for a in accuracies
    ]


def test_its_sweeps_are_those_of_the_project() -> None:
    named = {name for task in TASKS.values() for name in task.sweeps}
    assert named <= {path.stem for path in paths.SWEEPS.glob("*.yaml")}


def test_smaller_network_is_interpolated_between_its_neighbours() -> None:
    base = {"baseline": fake(100, 90, 91)}  # 90.5 %, so 89.5 % is asked for
    static = {"narrow": fake(60, 88.5), "middle": fake(80, 90.0, 90.0)}
    # Between 80 (90.0 %) and 60 (88.5 %): a third of the way.
    for split in together.SMALLER:
        saved = compare.static_saving(base["baseline"], static, split=split)  # type: ignore[arg-type]
        assert saved.saved == pytest.approx(100 - (80 - 20 / 3))
        accurate = compare.static_saving(base["baseline"], {"middle": static["middle"]}, split=split)  # type: ignore
        assert accurate.saved == pytest.approx(20)  # a lower bound: no smaller one was trained
        assert np.isnan(compare.static_saving(base["baseline"], {}, split=split).saved)  # type: ignore[arg-type]


def test_headline_is_the_mean_over_tasks(found: dict[str, Results]) -> None:
    frame = together.headline(found, benchmarks(found))
    rows = frame.set_index(["below", "threshold"])
    tasks = [*TASKS]
    for way, protocol in (("chosen on validation", "validation"), ("paper protocol", "paper")):
        row = rows.loc[("our baseline", way)]
        for task, runs in found.items():
            every = method_points(
                {"trecx_ev": runs.methods["trecx_ev"]}, task, runs.methods["baseline"], with_paper=False
            )
            at = mean_points(every).set_index(["reference", "drop", "protocol"])
            expected = 100 * float(at.loc[("own baseline", 1, protocol), "reduction"])
            assert row[task] == pytest.approx(expected, nan_ok=True)
    means = frame[tasks].mean(axis=1, skipna=False)
    assert frame["mean"].to_numpy() == pytest.approx(means.to_numpy(), nan_ok=True, abs=0.05)  # the paper rounds
    assert rows.loc[("the paper's baseline", "as the paper prints"), "mean"] == 31.58


def test_a_miss_saves_nothing_or_leaves_no_mean(found: dict[str, Results], monkeypatch: pytest.MonkeyPatch) -> None:
    by_task = {"ic": np.array([10.0, np.nan, 20.0]), "kws": np.full(3, 40.0), "vww": np.full(3, 20.0)}
    monkeypatch.setattr(together, "saved", lambda runs, task: dict.fromkeys(together.WAYS.values(), by_task[task]))
    frame = together.headline(found, benchmarks(found))
    assert np.isnan(frame.loc[0, ["ic", "mean"]].to_numpy(dtype=float)).all()
    assert frame.loc[1, ["ic", "kws", "vww", "mean"]].tolist() == pytest.approx([10, 40, 20, 70 / 3])


def test_other_samples_widen_the_interval_of_the_mean(found: dict[str, Results]) -> None:
    """Drawn anew, the saving scatters around what the real samples give; the interval has this and the seeds in it."""
    redrawn = {task: saving.redrawn(runs.methods, task, resamples=60) for task, runs in found.items()}
    saved, again = saving.saved(found["vww"].methods, "vww"), redrawn["vww"]
    way = ("own final exit", "validation")
    drawn = again[way].mean(1)
    assert again[way].shape == (60, len(saved[way]))
    assert abs(drawn.mean() - saved[way].mean()) < 2 * drawn.std()
    assert drawn.std() > 0.5
    row = {task: saving.saved(runs.methods, task)[way] for task, runs in found.items()}
    alone = together._row("", "", row)
    widened = together._row("", "", row, {task: draws[way] for task, draws in redrawn.items()})
    assert alone["low"] > widened["low"]
    assert alone["mean"] == widened["mean"]


def test_one_task_has_the_wider_interval_too(found: dict[str, Results], monkeypatch: pytest.MonkeyPatch) -> None:
    ways = saving.WAYS.values()
    monkeypatch.setattr(saving, "saved", lambda runs, task: dict.fromkeys(ways, np.array([20.0, 21.0, 22.0])))
    draws = np.random.default_rng(0).normal(21, 3, size=(100, 1)).repeat(3, axis=1)
    monkeypatch.setattr(saving, "redrawn", lambda runs, task: dict.fromkeys(ways, draws))
    interval = saving.saved_interval(found["vww"].methods, "vww")
    assert interval.estimate == 21
    error = np.sqrt(1 / 3 + draws.mean(1).var())  # of the seeds, and of the samples
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * error, rel=0.01)
    monkeypatch.setattr(saving, "saved", lambda runs, task: dict.fromkeys(ways, np.array([20.0, np.nan])))
    assert np.isnan(saving.saved_interval(found["vww"].methods, "vww").estimate)


def test_claims_name_the_task_that_is_left_out(found: dict[str, Results]) -> None:
    verdicts = together.claims(found).set_index("claim")
    assert "Visual Wake Words left out" in verdicts.loc["C2", "evidence"]
    assert "Visual Wake Words" not in verdicts.loc["C2", "evidence"].split(";")[0]
    assert "C9" not in verdicts.index  # no rival has a record here
    assert "Visual Wake Words" in verdicts.loc["C3", "evidence"]


def test_tables_by_one_command(found: dict[str, Results], capsys: pytest.CaptureFixture[str]) -> None:
    for name in (*(name for name in TOGETHER if name not in ("rivals", "scores")), None):
        assert cli.main(["results", "all", *([name] if name else [])]) == 0
    assert "as the paper prints" in capsys.readouterr().out
    assert cli.main(["results", "all", "rivals"]) == 2  # none has a record here
    assert "table rivals is empty" in capsys.readouterr().err
    assert cli.main(["results", "all", "rows"]) == 2
    assert f"choose one of {', '.join(TOGETHER)}" in capsys.readouterr().err


def test_without_any_record_the_tables_say_so(
    monkeypatch: pytest.MonkeyPatch, sweeps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "SWEEPS", sweeps)
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path)
    assert cli.main(["results", "all", "headline"]) == 2
    assert "8 of the 8 runs of sweep 'cifar10' have no published record" in capsys.readouterr().err
