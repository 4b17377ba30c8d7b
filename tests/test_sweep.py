"""Sweeps: what a specification means, and that no finished run is lost or run twice."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest

from trecx import paths
from trecx.errors import TrecxError
from trecx.experiments import pool, sweep
from trecx.experiments.records import Record
from trecx.experiments.runs import Run, execute, find, publish

from .small import write_small_data


@pytest.fixture(scope="module")
def small_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_small_data(folder, {"train": 256, "val": 60, "test": 60}, ["kws"])
    return folder


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small_words: Path) -> Path:
    """Few data and empty folders of records; worker processes read theirs from the environment."""
    monkeypatch.setenv("TRECX_DATA", str(small_words))
    monkeypatch.setenv("TRECX_RECORDS", str(tmp_path / "records"))
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "published")
    return tmp_path


def spec(folder: Path, text: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text)
    return path


def test_lists_stand_for_every_combination_in_order(tmp_path: Path) -> None:
    path = spec(
        tmp_path,
        """
        defaults: {task: kws, seed: [0, 1]}
        runs:
          - {method: [baseline, trecx_ev]}
          - {method: trecx_ev, taps: [block1, block3], seed: 0}
          - {method: sdn, taps: "block1,block3", seed: 0}
          - {method: baseline}
        """,
    )
    assert sweep.load(path) == [
        Run("kws", "baseline", seed=0),
        Run("kws", "trecx_ev", seed=0),
        Run("kws", "baseline", seed=1),
        Run("kws", "trecx_ev", seed=1),
        Run("kws", "trecx_ev", taps=("block1",)),
        Run("kws", "trecx_ev", taps=("block3",)),
        Run("kws", "sdn", taps=("block1", "block3")),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("runs: [{task: kws, method: baseline, sed: 1}]", "unknown field 'sed'.*seed"),
        ("runs: [{task: kws, method: basline}]", "entry 1 .*unknown method 'basline' for task 'kws': choose one of"),
        ("runs: [{task: kws}]", "entry 1 .*has no method"),
        ("runs: [{task: kws, method: trecx_ev, epochs: 0}]", "epochs 0 is impossible"),
        ("runs: [{task: kws, method: trecx_ev, seed: one}]", "entry 1"),
        ("run: []", "needs `runs`"),
        ("runs: []", "sweep.yaml lists no run: give `runs` one entry or more"),
        ("runs: [{task: kws, method: baseline, seed: []}]", "entry 1 of .*: seed is an empty list"),
        ("runs: [{task: kws, method: baseline, seed: 1, seed: 2}]", "the key 'seed' is given twice"),
        (
            "defaults: {task: kws}\ndefaults: {task: ic}\nruns: [{method: baseline}]",
            "the key 'defaults' is given twice",
        ),
        (
            "runs: [{task: kws, method: trecx_ev, w_early: 5e-1}]",
            "entry 1 of .*: w_early '5e-1' is text in YAML: write",
        ),
        ("runs: [{task: kws, method: trecx_ev, w_early: [0.2, .inf]}]", "entry 1 of .*: w_early inf is impossible"),
        ("runs: [{task: kws, method: trecx_ev, w_early: .nan}]", "entry 1 of .*: w_early nan is impossible"),
        ("runs: [{task: ic, method: trecx_ev, taps: 5}]", "entry 1 of .*: taps 5 is impossible: give"),
        (
            "runs: [{task: ic, method: trecx_ev, taps: [[stack1]]}]",
            r"entry 1 of .*: taps has list \['stack1'\].*one text",
        ),
        ("runs: [{task: ic, method: trecx_ev, taps: [1]}]", "entry 1 of .*: taps 1 is impossible"),
        ("runs: [{task: ic, method: trecx_ev, seed: {a: 1}}]", "entry 1 of .*: seed has dict"),
        (
            "runs: [{task: kws, method: baseline}, {task: kws, method: baseline, seed: yes}]",
            "entry 2 of .*: seed True is",
        ),
        (
            "runs: [{task: vww, method: baseline, data: 2020-01-01}]",
            "entry 1 of .*: data .* is impossible: give a name",
        ),
        ("runs: [[", "is not YAML"),
    ],
)
def test_bad_specifications_are_refused_in_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(TrecxError, match=says) as caught:
        sweep.load(spec(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"runs: \xff\xfe", "is no text in UTF-8"),
        ("runs: [] # \u00e9".encode("latin-1"), "UTF-8"),
        (b"\0\1", "not YAML"),
    ],
)
def test_files_that_are_no_text_are_refused_in_one_sentence(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_bytes(content)
    with pytest.raises(TrecxError, match=says) as caught:
        sweep.load(path)
    assert "\n" not in str(caught.value)


def test_a_long_list_of_seeds_is_read_quickly(tmp_path: Path) -> None:
    path = spec(tmp_path, f"runs: [{{task: kws, method: [baseline, sdn, trecx_ev], seed: {list(range(2900))}}}]")
    started = time.monotonic()
    assert len(sweep.load(path)) == 8700
    assert time.monotonic() - started < 30  # a network built for each took minutes


def test_missing_file_and_unknown_engine(tmp_path: Path) -> None:
    with pytest.raises(TrecxError, match="no sweep at"):
        sweep.load(tmp_path / "none.yaml")
    with pytest.raises(TrecxError, match="unknown engine 'slurm': choose one of local, ray"):
        sweep.execute_all([], engine="slurm")


@pytest.mark.parametrize("path", sorted(paths.SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_projects_own_sweeps_load(path: Path) -> None:
    names = [run.name for run in sweep.load(path)]
    assert len(names) == len(set(names)) > 0


def tiny(seed: int = 0, epochs: int = 1) -> Run:
    return Run("kws", "trecx_ev", width=0.125, seed=seed, epochs=epochs)


@pytest.mark.slow
def test_finished_runs_are_kept_and_published(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep that fails in its second run has the first; the next trains only the second."""
    first = execute(tiny(0))
    weights = first.weights.read_bytes()
    lines: list[str] = []
    records = sweep.execute_all([tiny(0), tiny(1)], workers=1, to_publish=True, say=lines.append)
    assert lines[0] == "training 1 runs, 1 epochs, 1 at a time"
    assert first.weights.read_bytes() == weights
    published = [Record(folders / "published" / "quick_words" / record.name) for record in records]
    # Of two seeds only the better on validation keeps its weights in the book's folder.
    best = max(records, key=lambda record: record.accuracies("val")[-1])
    assert [record.weights.is_file() for record in published] == [record.name == best.name for record in records]
    shutil.rmtree(folders / "records")
    assert (found := find(tiny(1))) is not None
    assert found.folder == published[1].folder
    monkeypatch.setattr(pool, "execute", lambda *_: pytest.fail("a published run was trained again"))
    sweep.execute_all([tiny(0), tiny(1)], to_publish=True, say=lines.append)


@pytest.mark.slow
def test_publishing_is_repeatable(folders: Path) -> None:
    record = publish(execute(tiny()))
    before = {path.name: path.read_bytes() for path in record.folder.iterdir()}
    again = publish(record)
    assert {path.name: path.read_bytes() for path in again.folder.iterdir()} == before


def after_first_epoch(run: Run, action: Any) -> threading.Thread:
    """Call `action` once `run` has a state on disk."""

    def watch() -> None:
        state = paths.RECORDS / run.data / f"{run.name}.partial" / "state.safetensors"
        give_up = time.monotonic() + 120
        while not state.exists() and time.monotonic() < give_up:
            time.sleep(0.02)
        action()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.slow
def test_killed_worker_is_taken_up_again(folders: Path) -> None:
    long, lines = tiny(epochs=40), []  # type: tuple[Run, list[str]]

    def kill() -> None:
        for process in active_children():
            if process.pid:
                os.kill(process.pid, signal.SIGKILL)

    watcher = after_first_epoch(long, kill)
    records = sweep.execute_all([long, tiny(1)], workers=1, say=lines.append)
    watcher.join()
    assert any("was killed" in line for line in lines)
    assert [record.name for record in records] == [long.name, tiny(1).name]
    # The state of finished epochs was used: the same weights come out as without the interruption.
    killed = records[0].weights.read_bytes()
    shutil.rmtree(records[0].folder)
    assert execute(long).weights.read_bytes() == killed


@pytest.mark.slow
def test_workers_end_with_a_killed_parent(folders: Path, tmp_path: Path) -> None:
    """Otherwise the next call's workers would share their states with these."""
    path = spec(tmp_path, "runs: [{task: kws, method: trecx_ev, width: 0.125, seed: [0, 1], epochs: 1000}]")
    folder = {"TRECX_DATA": str(paths.DATA), "TRECX_RECORDS": str(paths.RECORDS)}
    command = [sys.executable, "-m", "trecx", "sweep", str(path), "--workers", "2"]
    parent = subprocess.Popen(command, env=os.environ | folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after_first_epoch(sweep.load(path)[0], lambda: None).join()
    listed = subprocess.run(["pgrep", "-P", str(parent.pid), "-f", "spawn_main"], capture_output=True, check=True)
    parent.kill()
    parent.wait()
    workers = [Path("/proc") / pid for pid in listed.stdout.decode().split()]
    assert len(workers) == 2
    give_up = time.monotonic() + 30
    while any(_runs(worker) for worker in workers):
        assert time.monotonic() < give_up, "the workers still run"
        time.sleep(0.1)


def _runs(process: Path) -> bool:
    """Whether there is such a process, not only its exit status."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_worker_that_is_killed_again_and_again_ends_the_sweep(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise pool.BrokenProcessPool

    monkeypatch.setattr(pool, "_train_all", broken)
    with pytest.raises(TrecxError, match="was killed 4 times in a row"):
        sweep.execute_all([tiny()], say=lambda line: None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_trains_what_is_missing_and_survives_a_killed_worker(folders: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra `cluster`")
    done = execute(tiny(0)).weights.stat().st_mtime_ns
    long, lines = tiny(1, epochs=12), []  # type: tuple[Run, list[str]]
    watcher = after_first_epoch(long, lambda: subprocess.run(["pkill", "-9", "-f", "ray::_train_far_away"], check=True))
    records = sweep.execute_all([tiny(0), long], engine="ray", workers=2, say=lines.append)
    watcher.join()
    assert lines[0] == "2 runs, 1 to train on Ray"
    assert [record.name for record in records] == [tiny(0).name, long.name]
    assert len(records[1].history) == 12
    assert records[0].weights.stat().st_mtime_ns == done


def test_ray_missing_is_said(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(TrecxError, match="needs the package ray"):
        sweep.execute_all([tiny()], engine="ray", say=lambda line: None)
