"""What a killed process leaves behind: nothing that is listed, nothing that is lost, nothing in the next one's way."""

import builtins
import errno
import io
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from tests.small import write_record
from trecx import paths
from trecx.data import store
from trecx.errors import TrecxError
from trecx.experiments import runs
from trecx.experiments.records import FILES, STAGING, WEIGHTS, Record, all_records, locked, settle, whole_folder
from trecx.experiments.runs import Run, execute, publish
from trecx.files import sweep, whole_file
from trecx.report.page import show_table
from trecx.training.optimizer import Average
from trecx.training.state import Progress, restore, save_state
from trecx.training.weights import load_tensors, save_tensors

DATA = "quick_words"
CALLS = (
    (os, "replace"),
    (os, "rename"),
    (os, "unlink"),
    (os, "rmdir"),
    (os, "mkdir"),
    (os, "fsync"),
    (shutil, "copyfile"),
    (io, "open"),
    (builtins, "open"),
)


class Killed(BaseException):
    """What nobody handles."""


WRITES = ("mkdir", "fsync", "copyfile", "open")  # what a full disk refuses; it still renames and deletes


@contextmanager
def killed_at(number: int, error: BaseException | None = None, calls: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """The process is dead from the `number`-th file operation on: that one and all later ones do nothing but raise.

    With `error` the system refuses instead, and only `calls`.
    """
    done: list[str] = []

    def deadly(name: str, call: Any) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            mode = arguments[1] if len(arguments) > 1 else options.get("mode", "r")
            if (name != "open" or set("wxa+") & set(mode)) and (not calls or name in calls):
                done.append(name)
                if len(done) >= number:
                    raise error or Killed
            return call(*arguments, **options)

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        for module, name in CALLS:
            patch.setattr(module, name, deadly(name, getattr(module, name)))
        yield done


@pytest.fixture
def roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Empty folders of records."""
    monkeypatch.setenv("TRECX_RECORDS", str(tmp_path / "records"))
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "published")
    return tmp_path


def tree(root: Path) -> dict[str, bytes | None]:
    """Every path under `root` with its content (None for a folder), the lock files aside."""
    found = {str(p.relative_to(root)): p.read_bytes() if p.is_file() else None for p in sorted(root.rglob("*"))}
    return {name: content for name, content in found.items() if ".locks" not in name}


def weights_saying(text: str) -> bytes:
    """A file of weights that can be told from others."""
    return save({"weight": torch.zeros(1)}, {"of": text})


def trained(seed: int, root: Path, accuracy: float = 0.7) -> Record:
    """A made-up record with weights that tell whose they are."""
    record = write_record(Run("kws", "baseline", DATA, seed=seed), root, accuracy=accuracy)
    record.weights.write_bytes(weights_saying(f"seed {seed}, {accuracy}"))
    return record


def every_kill(begin: Path, root: Path, action: Callable[[], Any], check: Callable[[], None]) -> int:
    """Kill `action` before each of its file operations, `check`, repeat it; the number of places where it was killed.

    `begin` is the state that `root` has before each attempt; afterwards `root` is as without any disturbance.
    """

    def reset() -> None:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(begin, root)

    reset()
    action()
    expected, number = tree(root), 0
    while True:
        reset()
        number += 1
        try:
            with killed_at(number):
                action()
        except Killed:
            check()
            action()
            assert tree(root) == expected, f"killed before operation {number}"
        else:
            assert tree(root) == expected
            return number - 1


@pytest.mark.slow
@pytest.mark.parametrize("there", [False, True], ids=["new", "over an old one"])
def test_a_record_whose_writing_is_killed_anywhere_is_whole_or_as_before(roots: Path, there: bool) -> None:
    old = trained(0, roots / "begin" / "records")
    source = roots / "source"
    shutil.copytree(old.folder, source)
    new = weights_saying("new")
    (source / WEIGHTS).write_bytes(new)
    known = {new, weights_saying("seed 0, 0.7")}
    if not there:
        shutil.rmtree(old.folder)
    target = paths.RECORDS / DATA / old.name

    def write() -> None:
        with whole_folder(target) as folder:
            for name in (*FILES, WEIGHTS):
                shutil.copyfile(source / name, folder / name)

    def check() -> None:
        assert {r.weights.read_bytes() for r in all_records(DATA)} <= known
        settle(paths.RECORDS)
        assert not there or all_records(DATA)

    points = every_kill(roots / "begin" / "records", paths.RECORDS, write, check)
    print(f"{points} places to be killed at")
    assert points >= 15


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True], ids=["first", "again"])
def test_publishing_that_is_killed_anywhere_loses_no_record_and_no_weights(roots: Path, again: bool) -> None:
    worse, better = trained(0, roots / "made", 0.3), trained(1, roots / "made", 0.9)
    (roots / "begin").mkdir()
    shutil.copytree(worse.folder, roots / "begin" / DATA / worse.name)
    if again:
        shutil.copytree(better.folder, roots / "begin" / DATA / better.name)
        (roots / "begin" / DATA / worse.name / WEIGHTS).unlink()
    wanted = (better.weights if again else worse.weights).read_bytes()

    def check() -> None:
        settle(paths.PUBLISHED)
        listed = all_records(DATA, published_only=True)
        assert {r.name for r in listed} >= {worse.name, *([better.name] if again else [])}
        assert {wanted, better.weights.read_bytes()} & {r.weights.read_bytes() for r in listed if r.weights.is_file()}

    points = every_kill(roots / "begin", paths.PUBLISHED, lambda: publish(better), check)
    print(f"{points} places to be killed at")
    assert points >= 15
    assert [r.name for r in all_records(DATA) if r.weights.is_file()] == [better.name]


@pytest.mark.slow
def test_a_training_that_is_killed_anywhere_goes_on_to_the_same_record(
    roots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the identity of the run to its record; the epochs themselves are made up, each with its state."""
    run = Run("kws", "baseline", DATA, epochs=2)
    part = (torch.zeros(4, 1, 49, 10), torch.zeros(4, dtype=torch.long))
    fake = SimpleNamespace(
        name=DATA,
        title="toy",
        description="toy",
        stand_in=True,
        checksum="abc",
        y_train=[0],
        y_val=[0] * 4,
        y_test=[0] * 4,
    )
    monkeypatch.setattr(runs.datasets, "load", lambda name: fake)
    monkeypatch.setattr(runs.datasets, "checksum", lambda name: fake.checksum)
    monkeypatch.setattr(runs, "inputs", lambda *_: part[0])
    monkeypatch.setattr(runs, "labels", lambda *_: part[1])
    monkeypatch.setattr(runs, "log_probs", lambda *_: torch.zeros(4, 1, 12).log_softmax(2))
    monkeypatch.setattr(runs, "datetime", SimpleNamespace(now=lambda zone: datetime(2026, 1, 1, tzinfo=UTC)))
    trained: list[int] = []

    def train(network: nn.Module, *_: Any, state: Path, **__: Any) -> Progress:
        optimizer = torch.optim.SGD(network.parameters())
        progress = restore(network, optimizer, state) if state.exists() else Progress()
        for epoch in range(progress.epochs + 1, 3):
            trained.append(epoch)
            progress.rows.append({"epoch": epoch, "loss": 1.0})
            save_state(network, optimizer, progress, state)
        return progress

    monkeypatch.setattr(runs, "train", train)
    (roots / "begin").mkdir()

    def check() -> None:
        assert len(all_records(DATA)) <= 1

    points = every_kill(roots / "begin", paths.RECORDS, lambda: execute(run), check)
    print(f"{points} places to be killed at")
    assert points >= 30
    assert trained.count(2) < 2 * points  # what was trained is not trained again


def test_a_table_whose_writing_is_killed_anywhere(roots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython.display

    monkeypatch.setattr(IPython.display, "display", lambda *_, **__: None)
    monkeypatch.setattr(paths, "TABLES", roots / "tables")
    monkeypatch.setenv("TRECX_TABLES", str(paths.TABLES))
    (roots / "begin").mkdir()
    (roots / "begin" / "one.csv").write_text("old\n1\n")
    new = pd.DataFrame({"n": [1, 2]})

    def check() -> None:
        assert (paths.TABLES / "one.csv").read_text() in ("old\n1\n", "n\n1\n2\n")

    points = every_kill(roots / "begin", paths.TABLES, lambda: show_table(new, "one", "Numbers."), check)
    print(f"{points} places to be killed at")
    assert points >= 4


def test_prepared_data_whose_writing_is_killed_anywhere(tmp_path: Path) -> None:
    path, begin = tmp_path / "data" / "set.npz", tmp_path / "begin"
    old, new = ({key: np.full(3, value, np.uint8) for key in store.REQUIRED} for value in (1, 2))
    store.write(begin / path.name, old, 1)

    def action() -> None:
        store.write(path, new, 1)
        for note in path.parent.glob("*.json"):  # names inode and times
            note.unlink()

    def check() -> None:
        arrays, _ = store.read(path, "make it again")
        assert arrays["x_train"].tolist() in ([1, 1, 1], [2, 2, 2])
        for note in path.parent.glob("*.json"):
            note.unlink()

    for note in begin.glob("*.json"):
        note.unlink()
    points = every_kill(begin, path.parent, action, check)
    print(f"{points} places to be killed at")
    assert points >= 4


def test_a_file_that_another_process_is_writing_is_not_swept(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    stale = tmp_path / ".set.npz.999999999.tmp"
    stale.write_text("half")
    with whole_file(path) as file:
        assert not stale.exists()
        file.write(b"whole")
        (ours,) = tmp_path.glob(".*.tmp")
        sweep(path)
        assert ours.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["set.npz"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "reason", "calls"),
    [
        (errno.ENOSPC, "No space left on device", WRITES),
        (errno.EROFS, "Read-only file system", tuple(name for _, name in CALLS)),
        (errno.EACCES, "Permission denied", tuple(name for _, name in CALLS)),
    ],
)
def test_what_the_system_refuses_anywhere_is_one_sentence_and_loses_nothing(
    number: int, reason: str, calls: tuple[str, ...], roots: Path
) -> None:
    """Publishing over an old record; the same command finishes once the system lets it."""
    old, new = trained(0, roots / "begin", 0.3), trained(0, roots / "made", 0.9)
    before = old.weights.read_bytes()
    publish(new)
    expected, place = tree(paths.PUBLISHED), paths.PUBLISHED / DATA / new.name
    for point in itertools.count(1):
        shutil.rmtree(paths.PUBLISHED)
        shutil.copytree(roots / "begin", paths.PUBLISHED)
        said = ""
        try:
            with killed_at(point, OSError(number, reason), calls):
                publish(new)
        except TrecxError as error:
            said = str(error)
        if not said:
            break
        assert f"({reason}): mend that, and the same command goes on" in said
        settle(paths.PUBLISHED)
        assert (place / WEIGHTS).read_bytes() in (before, new.weights.read_bytes())
        publish(new)
        assert tree(paths.PUBLISHED) == expected
    assert point > 8


def test_half_written_folders_and_unfinished_runs_are_not_listed(roots: Path) -> None:
    real = trained(0, paths.PUBLISHED)
    for ghost in (f".{real.name}.abcd", f"{real.name}.partial"):
        shutil.copytree(real.folder, real.folder.with_name(ghost))
    shutil.copytree(real.folder, paths.PUBLISHED / STAGING / "new" / "ghost")
    assert [r.folder for r in all_records(DATA)] == [real.folder]
    assert publish(real).weights.is_file()


def test_a_setting_keeps_weights_when_its_best_record_has_none(roots: Path) -> None:
    best, other = trained(0, paths.PUBLISHED, 0.9), trained(1, paths.RECORDS, 0.3)
    best.weights.unlink()
    assert publish(other).weights.is_file()
    assert other.weights.is_file()
    other.weights.unlink()
    assert publish(other).weights.is_file()  # the same training: its published weights stay


def test_files_have_the_permissions_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        save_tensors({"a": torch.zeros(1)}, tmp_path / WEIGHTS)
        part = {"x": np.zeros((1, 2), np.float32), "y": np.zeros(1, np.uint8)}
        store.write(tmp_path / "set.npz", {f"{k}_{s}": part[k] for s in ("train", "val", "test") for k in "xy"}, 1)
        with whole_folder(tmp_path / "record") as folder:
            (folder / "a").write_text("a")
    finally:
        os.umask(before)
    modes = {p.name: p.stat().st_mode & 0o777 for p in tmp_path.iterdir()}
    assert modes == {WEIGHTS: 0o644, "set.npz": 0o644, "set.sha256.json": 0o644, "record": 0o755}


# --- the state of an interrupted training


def learner() -> tuple[nn.Module, torch.optim.Optimizer, Average]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    return network, torch.optim.Adam(network.parameters()), Average(network, 0.9)


def stepped(path: Path) -> None:
    """A state after one step."""
    network, optimizer, average = learner()
    network(torch.ones(2, 1, 5, 5)).square().sum().backward()
    optimizer.step()
    average.update(0)
    save_state(network, optimizer, Progress([{"epoch": 1}], 1.5), path, average)


def _altered(change: Callable[[dict[str, Tensor], dict[str, str]], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        tensors, text = load_tensors(path)
        change(tensors, text)
        save_tensors(tensors, path, text)

    return damage


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _not_finite(path: Path) -> None:
    network, optimizer, average = learner()
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    save_state(network, optimizer, Progress([{"epoch": 1}]), path, average)


def _of_another_network(path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
    save_state(network, torch.optim.Adam(network.parameters()), Progress([{"epoch": 1}]), path, Average(network, 0.9))


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "cut in its header": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "text": lambda path: path.write_text("hello"),
    "a folder": _as_folder,
    "wrong shape": _altered(lambda tensors, text: tensors.update({"network.0.bias": torch.zeros(3)})),
    "no weights": _altered(lambda tensors, text: tensors.pop("network.0.bias")),
    "no average": _altered(lambda tensors, text: tensors.pop("average.0.bias")),
    "no moment": _altered(lambda tensors, text: tensors.pop("optimizer.0.exp_avg")),
    "no optimiser": _altered(lambda tensors, text: [tensors.pop(k) for k in [*tensors] if k[:3] == "opt"]),
    "other values": _altered(lambda tensors, text: tensors["network.0.bias"].add_(1)),
    "no metadata": _altered(lambda tensors, text: text.clear()),
    "other history": _altered(lambda tensors, text: text.update(rows="[]")),
    "not finite": _not_finite,
    "another network": _of_another_network,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_state_is_removed_with_one_line_and_changes_nothing(
    damage: Callable[[Path], Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "state.safetensors"
    stepped(path)
    damage(path)
    network, optimizer, average = learner()
    assert restore(network, optimizer, path, average).epochs == 0
    assert not path.exists()
    assert capfd.readouterr().err.count("\n") == 1
    fresh = learner()[0].state_dict()
    assert all(torch.equal(v, fresh[k]) and torch.equal(v, average.tensors[k]) for k, v in network.state_dict().items())
    assert not optimizer.state


def test_a_whole_state_comes_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stepped(tmp_path / "state")
    network, optimizer, average = learner()
    assert restore(network, optimizer, tmp_path / "state", average) == Progress([{"epoch": 1}], 1.5)
    assert len(optimizer.state) == len(list(network.parameters()))
    assert not capfd.readouterr().err


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (lambda partial: partial.write_text(""), "starts over"),
        (lambda partial: (partial.mkdir(), (partial / "state.safetensors").touch()), "starts over"),
        (lambda partial: (partial.mkdir(), (partial / "identity.json").touch()), "starts over"),
        (lambda partial: (partial.mkdir(), (partial / "identity.json").write_text("{}")), ""),
    ],
    ids=["a file", "without identity", "empty identity", "of another run"],
)
def test_a_damaged_folder_of_an_unfinished_run_is_replaced(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], broken: Callable[[Path], Any], says: str
) -> None:
    partial = tmp_path / "run.partial"
    broken(partial)
    runs._start_or_go_on(partial, {"run": 1})
    assert [p.name for p in partial.iterdir()] == ["identity.json"]
    assert json.loads((partial / "identity.json").read_text()) == {"run": 1}
    said = capfd.readouterr().err
    assert says in said
    assert said.count("\n") == bool(says)


# --- one run, two processes


def _hold(records: Path, name: str, ready: Any) -> None:
    paths.RECORDS = records
    with locked(name):
        ready.set()
        signal.pause()


@pytest.mark.slow
def test_the_lock_of_a_killed_process_is_free_again(roots: Path, capfd: pytest.CaptureFixture[str]) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(paths.RECORDS, "a-run", ready))
    holder.start()
    assert ready.wait(240)
    timer = threading.Timer(0.5, lambda: os.kill(holder.pid or 0, signal.SIGKILL))
    timer.start()
    with locked("a-run", "waiting for the other"):
        holder.join(60)
        assert holder.exitcode == -signal.SIGKILL
    assert capfd.readouterr().err == "waiting for the other\n"


def test_a_run_that_another_process_finished_is_not_trained_again(roots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run("kws", "baseline", DATA)
    calls: list[str] = []

    def train(run: Run, target: Path, report: Any) -> None:
        calls.append(run.name)
        write_record(run, paths.RECORDS)
        (target / WEIGHTS).write_bytes(weights_saying("trained"))

    monkeypatch.setattr(runs, "_train", train)
    monkeypatch.setattr(runs, "find", lambda run, say=True: Record(target) if target.exists() else None)
    target = paths.RECORDS / DATA / run.name
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(execute, [run, run])
    assert first.folder == second.folder == target
    assert calls == [run.name]
