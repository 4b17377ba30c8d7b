"""Ctrl-C and SIGTERM at any time: one line, exit status 130 or 143, no process and no file left."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import psutil
import pytest

from trecx import paths
from trecx.command import complain, end_with, guarded
from trecx.errors import TrecxError

from .small import write_small_data

WHICH = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
each_signal = pytest.mark.parametrize(("number", "status", "word"), WHICH, ids=["SIGINT", "SIGTERM"])
PATIENCE = 240  # seconds for anything here, on a machine that has other things to do
SWEEP = "runs: [{task: kws, method: baseline, width: 0.125, seed: [0, 1], epochs: 9000}]"
TRAIN = ["train", "--task", "kws", "--method", "baseline", "--width", "0.125", "--epochs", "9000"]
FIT = (
    "from trecx.experiments.pool import fit\nfrom trecx.experiments.runs import Run\n"
    "fit([Run('kws', 'baseline', width=0.125, seed=seed, epochs=9000) for seed in (0, 1)], workers=2)"
)


@pytest.fixture(scope="module")
def small_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_small_data(folder, {"train": 128, "val": 24, "test": 24}, ["kws"])
    return folder


def heed_signals() -> None:
    """A shell's background job ignores Ctrl-C, and so would what it starts."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


class Started:
    """A command in a session of its own, so that a signal to all of it, as a terminal sends, reaches nothing else."""

    def __init__(
        self, folder: Path, data: Path, *words: str, project: Path = paths.ROOT, module: str = "trecx"
    ) -> None:
        self.records, self.temporary = folder / "records", folder / "tmp"
        self.temporary.mkdir()
        own = {"TRECX_DATA": str(data), "TRECX_RECORDS": str(self.records), "TMPDIR": str(self.temporary)}
        own |= {"PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", module, *words] if module else list(words)
        self.process = subprocess.Popen(
            command,
            cwd=project,
            env={key: value for key, value in os.environ.items() if not key.startswith("MAKE")} | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=heed_signals,  # noqa: PLW1509
        )

    def wait_for(self, ready: Callable[[], object]) -> None:
        give_up = time.monotonic() + PATIENCE
        while not ready():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < give_up
            time.sleep(0.02)

    def trains(self) -> bool:
        """Whether a first epoch is done."""
        return bool(list(self.records.rglob("state.safetensors")))

    def stop(self, number: int, everybody: bool) -> tuple[int, str]:
        """Send a signal to the process alone, or to all; its status and standard error once no process is left."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        (os.killpg if everybody else os.kill)(self.process.pid, number)
        _, err = self.process.communicate(timeout=PATIENCE)
        _, left = psutil.wait_procs(children, PATIENCE if number == signal.SIGKILL else 5)
        assert not left
        return self.process.returncode, err

    def leaves_nothing(self) -> None:
        """No file but whole states of unfinished runs, and locks."""
        files = [path for path in self.records.rglob("*") if path.is_file() and path.suffix != ".lock"]
        assert {path.name for path in files} <= {"state.safetensors", "identity.json"}
        assert {path.parent.suffix for path in files} <= {".partial"}
        assert not self.temporary_files()

    def temporary_files(self) -> list[Path]:
        """Files in the temporary folder; torch makes a folder there whenever it is imported."""
        return [path for path in self.temporary.rglob("*") if path.is_file()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc to see what a process imports")
@each_signal
def test_while_modules_are_imported(number: int, status: int, word: str, tmp_path: Path, small_words: Path) -> None:
    started = Started(tmp_path, small_words, *TRAIN)
    started.wait_for(lambda: "libtorch" in Path(f"/proc/{started.process.pid}/maps").read_text())
    assert started.stop(number, everybody=True) == (status, f"{word}: the same command goes on where it was\n")
    assert not started.records.exists()


@pytest.mark.slow
@each_signal
def test_while_one_run_trains(number: int, status: int, word: str, tmp_path: Path, small_words: Path) -> None:
    started = Started(tmp_path, small_words, *TRAIN)
    started.wait_for(started.trains)
    ended, err = started.stop(number, everybody=number == signal.SIGINT)
    *bar, last = err.splitlines()
    assert (ended, last) == (status, f"{word}: the same command goes on where it was")
    assert all("epoch" in line or not line.strip() for line in bar)  # closed before: on lines of its own
    started.leaves_nothing()


@pytest.mark.slow
def test_while_a_sweep_trains(tmp_path: Path, small_words: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    started = Started(tmp_path, small_words, "sweep", str(tmp_path / "sweep.yaml"), "--workers", "2")
    started.wait_for(started.trains)
    ended, err = started.stop(signal.SIGINT, everybody=True)
    said = [line for line in err.splitlines() if not line.startswith(("training 2 runs", "epoch "))]
    assert (ended, said) == (130, ["interrupted: the same command goes on where it was"])
    started.leaves_nothing()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small copy of this project with a notebook that trains for long."""
    folder = tmp_path / "project"
    shutil.copytree(paths.ROOT / "trecx", folder / "trecx", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(paths.ROOT / "Makefile", folder)
    for name in ("notebooks", "book"):
        (folder / name).mkdir()
    new = nbformat.v4
    cells = [new.new_code_cell("seed = 0  # type: int  # seed", metadata={"tags": ["parameters"]})]
    cells += [new.new_code_cell(FIT)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new.new_notebook(cells=cells, metadata=kernel), folder / "notebooks" / "01_toy.ipynb")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_while_a_notebook_trains(number: int, project: Path, tmp_path: Path, small_words: Path) -> None:
    """After SIGKILL nobody can clean up, but the kernel and its workers end, and the next call sweeps."""
    started = Started(tmp_path, small_words, "01_toy", project=project, module="trecx.report.runner")
    started.wait_for(started.trains)
    ended, err = started.stop(number, everybody=False)
    if number == signal.SIGKILL:
        return
    assert (ended, err) == (143, "terminated: the same command goes on where it was\n")
    started.leaves_nothing()
    left = [path.name for path in (project / "_build" / "runs").rglob("*") if path.is_file()]
    assert sorted(left) == ["01_toy.ipynb", "01_toy.lock"]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_a_notebook_ends_with_make_when_make_alone_is_killed(project: Path, tmp_path: Path, small_words: Path) -> None:
    words = ["make", "notebook", "NB=01_toy", f"TRECX_PYTHON={sys.executable}"]
    started = Started(tmp_path, small_words, *words, project=project, module="")
    started.wait_for(started.trains)
    ended, _ = started.stop(signal.SIGKILL, everybody=False)
    assert ended == -signal.SIGKILL
    give_up = time.monotonic() + PATIENCE
    while started.temporary_files() or list((project / "_build" / "runs").glob(".01_toy")):
        assert time.monotonic() < give_up
        time.sleep(0.1)
    started.leaves_nothing()


# --- The parts


def test_what_a_command_raises_becomes_a_status_and_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    def raising(error: BaseException) -> Callable[[], int]:
        def work() -> int:
            raise error

        return work

    for error, status, line in (
        (TrecxError("a\n  b"), 2, "error: a b"),
        (OSError(28, "No space left on device", "/a"), 2, "error: /a cannot be used (No space left on device): mend"),
        (PermissionError(13, "Permission denied"), 2, "error: the system refuses (Permission denied): mend that, and"),
        (NotADirectoryError(20, "Not a directory", "/a/b"), 2, "error: /a/b is a file, or lies below one, where"),
        (MemoryError(), 2, "error: the memory is full: choose something smaller"),
        (KeyboardInterrupt(), 130, "interrupted: the same command goes on where it was"),
    ):
        assert guarded(raising(error)) == status
        said = capsys.readouterr().err
        assert said.startswith(line)
        assert said.count("\n") == 1
    assert guarded(raising(BrokenPipeError())) == 0
    assert capsys.readouterr().err == ""
    with pytest.raises(ZeroDivisionError):  # a mistake of ours keeps its traceback
        guarded(raising(ZeroDivisionError()))


def test_a_line_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    complain(f"no record {'x' * 5000!r} in /a")
    said = capsys.readouterr().err
    assert said.startswith("no record 'xxx")
    assert said.endswith("xxx' in /a\n")
    assert len(said) < 300


def test_a_process_ends_with_another() -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ended: list[float] = []
    end_with(other.pid, lambda: ended.append(time.monotonic()), every=0.02)
    time.sleep(0.2)
    assert not ended
    other.kill()  # not waited for yet: a process that only its exit status is left of has gone
    give_up = time.monotonic() + 60
    while not ended:
        assert time.monotonic() < give_up
        time.sleep(0.02)
    other.communicate()
