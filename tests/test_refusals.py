"""Bad input, wherever it comes in: one sentence with field, value and what is allowed, exit status 2, at once."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trecx import paths
from trecx.cli import main
from trecx.errors import TrecxError, system_errors
from trecx.experiments.records import open_record
from trecx.experiments.runs import Run, execute, publish
from trecx.files import whole_file
from trecx.report import runner

from .small import write_record
from .test_notebooks import CHECK, write_toy

LONG = "x" * 5000
KWS = ["train", "--task", "kws", "--method", "trecx_ev"]
VWW = ["train", "--task", "vww", "--method", "baseline"]
LISTED = "curve", "evaluate"

# Words of the command line -> part of the sentence.
COMMANDS: list[tuple[list[str], str]] = [
    *[([*KWS, "--width", value], f"width {said} is impossible: choose") for value, said in (
        ("inf", "inf"), ("nan", "nan"), ("0", "0.0"), ("-1", "-1.0"), ("1e-9", "1e-09"), ("1e6", "1000000.0"),
        ("300", "300.0"),
    )],
    *[([*KWS, "--seed", value], f"seed {value} is impossible: choose a whole number from 0 to 4294967295")
      for value in ("-1", str(2**64), str(2**32))],
    *[([*KWS, "--extra-classes", value], f"extra_classes {value} is impossible: choose a whole number from 0 to 1000")
      for value in ("-1", "1000000000", "1001")],
    *[([*KWS, "--epochs", value], f"epochs {value} is impossible: choose a whole number from 1 to 10000")
      for value in ("0", "-3", "1000000000", "10001")],
    *[([*KWS, "--w-early", value], f"w_early {said} is impossible: choose a positive loss weight from 1e-06 to 100")
      for value, said in (
          ("inf", "inf"), ("nan", "nan"), ("0", "0.0"), ("-0.5", "-0.5"), ("1e30", "1e+30"), ("1e-300", "1e-300"),
      )],
    *[([*KWS, f"--{field}", value], f"argument --{field}: invalid {kind} value: '{value}'") for field, kind, value in (
        ("seed", "int", "1.5"), ("seed", "int", "1e3"), ("seed", "int", "one"), ("seed", "int", ""),
        ("epochs", "int", "1.5"), ("extra-classes", "int", "1.5"), ("width", "float", "wide"),
        ("w-early", "float", "much"), ("resolution", "int", "64px"),
    )],
    *[([*KWS, "--taps", value], says) for value, says in (
        ("block1,block1", "names a stage twice: give each stage once"), ("block9", "block9"), (",", "''"),
        ("block1,", "''"), ("block1, block2", "' block2'"), ("Block1", "Block1"),
    )],
    *[([*KWS, f"--{field}", value], says) for field, value, says in (
        ("recipe", "papper", "unknown recipe 'papper': choose one of paper"),
        ("recipe", "", "unknown recipe '': choose one of paper"),
        ("recipe", "scratch", "task kws has no recipe 'scratch': choose one of paper, fast, quick"),
        ("data", "cifar10", "is not of task kws: choose quick_words or speech_commands"),
        ("data", "../data", "is not of task kws: choose"),
        ("data", LONG, "is not of task kws: choose"),
        ("start", "keras", "unknown start 'keras': choose one of mlperf_tiny"),
        ("start", "mlperf_tiny", "start 'mlperf_tiny' is of task vww, not kws"),
        ("resolution", "48", "resolution 48"), ("resolution", "-1", "resolution -1"),
        ("resolution", "1000000000", "resolution 1000000000"),
    )],
    ([*KWS, "--frozen"], "a frozen backbone needs trained weights: give start as well"),
    ([*KWS[:-1], "baseline", "--w-early", "0.7"], "w_early 0.7 is impossible for method 'baseline': it has no early"),
    ([*KWS[:-1], "sdn_fair", "--w-early", "0.7"], "its loss weights follow a ramp, so leave it out"),
    ([*KWS[:-1], "baseline", "--taps", "block1"], "method 'baseline' has no exit to place: choose"),
    ([*KWS[:-1], "T-RecX"], "unknown method 'T-RecX' for task 'kws': choose one of baseline"),
    ([*KWS[:-1], ""], "unknown method '' for task 'kws': choose"),
    ([*KWS[:-1], LONG], "for task 'kws': choose one of baseline"),
    (["train", "--task", "ic", "--method", "baseline_mlperf"], "unknown method 'baseline_mlperf' for task 'ic'"),
    (["train", "--task", "KWS", "--method", "sdn"], "unknown task 'KWS': choose one of ic, kws, vww"),
    (["train", "--task", "", "--method", "sdn"], "unknown task '': choose one of ic, kws, vww"),
    ([*VWW, "--recipe", "finetune"], "recipe 'finetune' learns from trained weights: give start as well"),
    ([*VWW, "--start", "mlperf_tiny", "--width", "0.5"], "it takes width 1 and no extra classes"),
    ([*VWW, "--start", "mlperf_tiny", "--extra-classes", "1"], "it takes width 1 and no extra classes"),
    ([*VWW, "--resolution", "33"], "resolution 33"),
    ([*KWS, "--taps", ""], "unknown tap '' for kws: choose one of"),
    *[([*KWS[:-1], "nested", "--narrow", value], says) for value, says in (
        ("", "narrow '' is impossible: give widths, such as 0.5,0.75"), ("wide", "narrow 'wide' is impossible"),
        ("0", "narrow 0.0 is impossible: choose positive factors"), ("inf", "narrow inf is impossible"),
        ("0.5,0.25", "choose ascending widths above 0 and below 1"), ("0.5,0.5", "choose ascending widths"),
        ("2", "narrow (2.0,) is impossible"),
    )],
    ([*KWS, "--narrow", "0.5"], "method 'trecx_ev' has no network inside: narrow is for method 'nested'"),
    ([*KWS, "--ends", "roof"], "no stage 'roof' to end after in kws: choose one of block1"),
    ([*KWS, "--teacher", "keras"], "unknown teacher 'keras': choose one of 'baseline', 'final'"),
    ([*KWS[:-1], "baseline", "--teacher", "final"], "method 'baseline' has no early exit to teach"),
    ([*KWS[:-1], "baseline", "--staged"], "method 'baseline' has one exit and so one stage"),
    (["recommend", "--task", "asr"], "unknown task 'asr': choose one of ic, kws, vww"),
    (["device", "any", "--machine", "z80"], "no record 'any'"),
    (["export", "any"], "the following arguments are required: OUT"),
    (["curve", "any", "other"], "no record 'any'"),
    ([*KWS, "--sed", "1"], "unrecognized arguments: --sed 1"),
    ([*KWS, "--seed"], "argument --seed: expected one argument"),
    (["train", "--task", "kws"], "the following arguments are required: --method"),
    *[([command, name], says) for command in LISTED for name, says in (
        ("a**b", "no record 'a**b': give a record's folder, or a name from"), ("*", "no record '*'"),
        ("", "no record ''"), (".", "is no complete run record"), (".staging", "no record '.staging'"),
        (".locks", "no record '.locks'"), (LONG, "no record"), ("quick_words", "no record 'quick_words'"),
        ("a\nb", "no record 'a\\nb'"), ("..", "is no complete run record"),
    )],
    *[(["curve", "any", "--points", value], f"points {value} is impossible: choose 0 for all thresholds, or 2 to")
      for value in ("1", "-2", "1000000000000")],
    (["curve", "any", "--split", "train"], "argument --split: invalid choice: 'train'"),
    (["curve", "any", "--score", "max"], "argument --score: invalid choice: 'max'"),
    (["curve", "any", "--unit", "ms"], "argument --unit: invalid choice: 'ms'"),
    (["curve"], "the following arguments are required: RECORD"),
    (["evaluate", "any", "--threshold", "high"], "argument --threshold: invalid float value: 'high'"),
    (["sweep", "cifar"], "unknown sweep 'cifar': choose one of cifar10, "),
    (["sweep", LONG], "choose one of cifar10, "),
    (["sweep", f"{LONG}.yaml"], "no sweep at"),
    (["sweep", "../cifar10"], "unknown sweep '../cifar10'"),
    (["sweep", "/none.yaml"], "no sweep at /none.yaml: give a YAML file"),
    (["sweep", "cifar10", "--workers", "0"], "workers 0 is impossible: choose a whole number from 1"),
    (["sweep", "cifar10", "--workers", "-1"], "workers -1 is impossible"),
    (["sweep", "cifar10", "--engine", "slurm"], "unknown engine 'slurm': choose one of local, ray"),
    (["robustness", "any", "--audio", "/none"], "no record 'any'"),
    (["robustness", "any"], "the following arguments are required: --audio"),
    (["robustness", "any", "--audio", "/none", "--per-class", "-1"], "per-class -1 is impossible"),
    (["reference", "/none"], "/none is no folder: give a clone"),
    (["reference", LONG], "cannot be used (File name too long)"),
    (["reference", "/dev/null"], "/dev/null is no folder"),
    (["results", "cifar"], "unknown sweep 'cifar': choose one of"),
    (["results", LONG], "choose one of"),
    (["results", "cifar10", "table-9"], "unknown table 'table-9': choose one of"),
    (["results", "all", "table-1"], "unknown table 'table-1': choose one of"),
    (["data", "mnist"], "unknown data set 'mnist': choose one of cifar10"),
    (["data", LONG], "choose one of cifar10"),
    (["data", "../cifar10"], "unknown data set '../cifar10'"),
    (["models", "--task", "asr"], "argument --task: invalid choice: 'asr'"),
    (["fly"], "argument COMMAND: invalid choice: 'fly'"),
    ([], "the following arguments are required: COMMAND"),
]  # fmt: skip

ENTRY = "runs: [{{task: kws, method: trecx_ev, {}}}]"
# A sweep file -> part of the sentence.
FILES: list[tuple[str | bytes, str]] = [
    *[(ENTRY.format(field), says) for field, says in (
        ("epochs: 1.5", "epochs 1.5 is impossible: choose a whole number from 1 to 10000"),
        ("epochs: 0", "epochs 0 is impossible"), ("epochs: true", "epochs True is impossible"),
        ("seed: true", "seed True is impossible: choose a whole number from 0"),
        ("seed: yes", "seed True is impossible"), ("seed: 1.0", "seed 1.0 is impossible"),
        ("seed: null", "seed None is impossible"), ("seed: one", "seed 'one' is text in YAML"),
        ("seed: '1'", "seed '1' is text in YAML: write it as a plain number"), ("seed: []", "seed is an empty list"),
        ("seed: [0, [1]]", "seed has list [1] for one value"), ("seed: {a: 1}", "seed has dict"),
        ("seed: 18446744073709551616", "seed 18446744073709551616 is impossible"),
        (f"seed: {'9' * 5000}", "is not YAML"), ("seed: 2020-99-99", "is not YAML"),
        ("seed: 2020-01-01", "seed datetime.date(2020, 1, 1) is impossible"),
        ("seed: !!python/object/apply:os.getcwd []", "is not YAML"), ("seed: *none", "is not YAML"),
        ("w_early: 5e-1", "w_early '5e-1' is text in YAML: write it as a plain number"),
        ("w_early: .inf", "w_early inf is impossible"), ("w_early: .nan", "w_early nan is impossible"),
        ("w_early: -1", "w_early -1 is impossible"), ("width: wide", "width 'wide' is text in YAML"),
        ("width: 0", "width 0 is impossible"), ("width: .inf", "width inf is impossible"),
        ("taps: 5", "taps 5 is impossible: give a tuple of stages"), ("taps: ''", "''"),
        ("taps: [[stack1]]", "taps has list ['stack1'] for one value"), ("taps: stack1", "stack1"),
        ("taps: 'block1,block1'", "names a stage twice"), ("taps: true", "taps True is impossible"),
        ("frozen: maybe", "frozen 'maybe' is impossible: choose True or False"),
        ("frozen: 1", "frozen 1 is impossible"), ("recipe: 5", "recipe 5 is impossible: give a name, as text"),
        ("data: !!binary aGVsbG8=", "data b'hello' is impossible: give a name"),
        ("data: null", "data None is impossible: give a name"), ("start: 1", "start 1 is impossible: give a name"),
        ("resolution: big", "resolution 'big' is impossible"), ("sed: 1", "has an unknown field 'sed': choose from"),
        ("1: 1", "has an unknown field 1: choose from"), ("seed: 1, seed: 2", "the key 'seed' is given twice"),
        ("extra_classes: 1000000000", "extra_classes 1000000000 is impossible"),
        (", ".join(f"{field}: {[*range(1, 101)]}" for field in ("seed", "epochs", "extra_classes")), "1000000 runs"),
    )],
    ("runs: [{task: kws, method: no}]", "method False is impossible: give a name, as text"),
    ("runs: [{task: kws}]", "entry 1 of"), ("runs: [{method: sdn}]", "has no task"),
    ("runs: [{task: [], method: sdn}]", "task is an empty list"), ("runs: [5]", "is no set of fields"),
    ("runs: [[]]", "is no set of fields"), ("runs: &a [*a]", "is no set of fields"),
    ("runs: []", "lists no run: give `runs` one entry or more"), ("runs:", "is no sweep: it needs `runs`, a list"),
    ("runs: {}", "is no sweep"), ("runs: sdn", "is no sweep"), ("- {task: kws}", "is no sweep"), ("", "is no sweep"),
    ("5", "is no sweep"), ("run: []", "is no sweep"), ("runs: [{}]\nmore: 1", "is no sweep"),
    ("defaults: 5\nruns: [{task: kws, method: sdn}]", "defaults of"),
    ("defaults: []\nruns: [{task: kws, method: sdn}]", "is no set of fields: give some of task"),
    ("defaults: {}\ndefaults: {}\nruns: [{}]", "the key 'defaults' is given twice"),
    ("? [a]\n: 1", "is not YAML"), ("runs: [[", "is not YAML"), ("a: b: c", "is not YAML"), ("\t- a", "is not YAML"),
    ("[" * 5000, "lie too deep in each other"), (b"runs: \xff\xfe", "is no text in UTF-8"),
    ("runs: [] # \u00e9".encode("latin-1"), "is no text in UTF-8"), (b"\x7fELF\0\1", "is not YAML"),
    ("runs: [{task: kws, method: méthode}]", "unknown method 'méthode'"),
]  # fmt: skip

# Options of a notebook, as in P='...' -> part of the sentence.
PARAMETERS = [
    ("-p seed", "argument -p: expected 2 arguments"), ("-p", "argument -p: expected 2 arguments"),
    ("-p seed 1 2", "unrecognized arguments: 2"), ("-p sead 1", "unknown parameter sead: choose from profile, seed"),
    ("-p seed x", "parameter seed is 'x': give a value of type int"), ("-p seed 1.5", "parameter seed is '1.5'"),
    ("-p seed True", "parameter seed is 'True'"), ("-p w_early much", "parameter w_early is 'much'"),
    ("-p seeds 3", "parameter seeds is '3': give a value of type list"), ("-p limit x", "parameter limit is 'x'"),
    ("-p seed '{[]: 1}'", "parameter seed is '{[]: 1}'"), (f"-p seed {'(' * 5000}", "parameter seed is"),
    (f"-p seed {'9' * 5000}", "parameter seed is"), ("-p 'seed 1", "are no options (No closing quotation)"),
    ("-p seed 1; touch here", "unrecognized arguments: touch here"), ("--quiet", "unrecognized arguments: --quiet"),
]  # fmt: skip

SECONDS = 10  # of this process for any of them, imports aside; most take a hundredth


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Empty folders of records and an empty folder to stand in."""
    monkeypatch.setenv("TRECX_RECORDS", str(tmp_path / "records"))
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "published")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def refused(words: list[str], says: str, capsys: pytest.CaptureFixture[str], prefix: str = "error: ") -> None:
    import trecx.experiments.sweep  # noqa: F401 (not a part of the time below)

    started = time.process_time()
    status = (main if prefix else runner.main)(words)
    captured = capsys.readouterr()
    assert (status, captured.out) == (2, ""), captured
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith(prefix)
    assert says in captured.err
    assert len(captured.err) < 1500
    assert time.process_time() - started < SECONDS
    assert not list(Path().iterdir())


def names(cases: list[tuple[object, str]]) -> list[str]:
    return [f"{number} {str(case)[:40]}" for number, (case, _) in enumerate(cases, start=1)]


@pytest.mark.parametrize(("words", "says"), COMMANDS, ids=names(COMMANDS))  # type: ignore[arg-type]
def test_a_bad_command(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(words, says, capsys)


@pytest.mark.parametrize(("content", "says"), FILES, ids=names(FILES))  # type: ignore[arg-type]
def test_a_bad_sweep(content: str | bytes, says: str, empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = empty / "sweep.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(["sweep", str(path), "--list"], says, capsys)


@pytest.mark.parametrize(("options", "says"), PARAMETERS, ids=names(PARAMETERS))  # type: ignore[arg-type]
def test_bad_options_of_a_notebook(
    options: str, says: str, empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "NOTEBOOKS", empty)
    write_toy(empty, CHECK)
    refused([f"--words={options}", "01_toy"], says, capsys, prefix="")


def test_how_many_bad_inputs_there_are() -> None:
    assert len(COMMANDS) + len(FILES) + len(PARAMETERS) >= 150


def test_a_run_made_in_a_script_is_refused_alike() -> None:
    with pytest.raises(TrecxError, match="width inf is impossible: choose a positive factor from"):
        Run("kws", "trecx_ev", width=float("inf"))


def test_the_threshold_is_refused_before_anything_is_evaluated(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = write_record(Run("kws", "sdn"), empty / "made")
    for value in ("1.5", "-0.1", "nan", "inf"):
        says = f"threshold {float(value)} is impossible: choose a confidence from 0 to 1"
        refused(["evaluate", str(record.folder), "--threshold", value], says, capsys)


# --- What the operating system refuses


def test_a_records_folder_that_is_a_file(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.RECORDS.write_text("")
    for folder in (paths.RECORDS, paths.RECORDS / "deeper"):
        monkeypatch.setenv("TRECX_RECORDS", str(folder))
        with pytest.raises(TrecxError, match="is a file, or lies below one, where a folder is needed"):
            execute(Run("kws", "sdn"))


def test_a_folder_without_permission_and_the_same_command_afterwards(empty: Path) -> None:
    record = write_record(Run("kws", "sdn"), empty / "made")
    if os.geteuid() == 0:
        pytest.skip("nothing is forbidden to root")
    paths.PUBLISHED.mkdir(mode=0o500)
    with pytest.raises(TrecxError, match=r"published.* cannot be used \(Permission denied\): mend that, and the same"):
        publish(record)
    paths.PUBLISHED.chmod(0o700)
    assert publish(record).accuracies().all()


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No byte can be flushed to the disk any more, as on a full one."""

    def fsync(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield


def test_a_full_disk_loses_nothing_and_the_same_command_finishes_with_room(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = write_record(Run("kws", "sdn"), empty / "made")
    with full_disk(monkeypatch), pytest.raises(TrecxError, match=r"kws-sdn.* cannot be used \(No space left on device"):
        publish(record)
    assert not list(paths.PUBLISHED.rglob("*.json"))
    assert publish(record).accuracies().all()
    target = empty / "state"
    target.write_text("old")
    says = "state cannot be used"
    with full_disk(monkeypatch), pytest.raises(TrecxError, match=says), system_errors(), whole_file(target) as file:
        file.write(b"new")
    assert [(path.name, path.read_text()) for path in empty.glob("*state*")] == [("state", "old")]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_answer_that_cannot_be_written() -> None:
    """In a process of its own: Python flushes once more when it ends."""
    command = [sys.executable, "-m", "trecx", "data"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=paths.ROOT)
        silent = subprocess.run([*command, "x"], stdout=full, stderr=full, check=False, cwd=paths.ROOT)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the system refuses (No space left on device): mend that" in done.stderr
    assert silent.returncode == 2


def test_a_reader_that_leaves_is_no_error() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "trecx", "data", "--json"]
    done = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, text=True, check=False, cwd=paths.ROOT)
    os.close(writes)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_text_that_is_no_ascii_in_a_c_locale(empty: Path) -> None:
    path = empty / "sweep.yaml"
    path.write_text("runs: [{task: kws, method: méthode}]", encoding="utf-8")
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "trecx", "sweep", str(path), "--list"],
        env=os.environ | locale,
        capture_output=True,
        check=False,
        cwd=paths.ROOT,
    )
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert rb"unknown method 'm\xe9thode'" in done.stderr


@pytest.mark.parametrize("value", ["~nobody-of-this-name/records", "loop", LONG, ""])
def test_a_folder_in_the_environment_that_cannot_be(
    value: str, empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty / "loop").symlink_to("loop")
    env = os.environ | {"TRECX_RECORDS": value, "PYTHONPATH": str(paths.ROOT)}
    code = "from trecx import paths; print(paths.RECORDS)"
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=empty, capture_output=True, text=True, check=True)
    folder = Path(done.stdout.removesuffix("\n"))
    assert folder.is_absolute()
    assert folder.is_relative_to(empty if value else paths.BUILD)
    if value:
        monkeypatch.setenv("TRECX_RECORDS", str(folder))
        refused(["curve", "any"], "File name too long" if value == LONG else "no record 'any'", capsys)
        with pytest.raises(TrecxError):
            execute(Run("kws", "sdn")) if value != "~nobody-of-this-name/records" else open_record("any")


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "9" * 5000])
def test_workers_in_the_environment(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from trecx.experiments.pool import default_workers

    monkeypatch.setenv("TRECX_WORKERS", value)
    with pytest.raises(TrecxError, match=r"TRECX_WORKERS is '.*': give a whole number of processes from 1"):
        default_workers()


# --- Scripts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "stdin"),
    [("execute_all(wanted, workers=2)", False), ("fit(wanted, workers=2)", True)],
)
def test_a_script_without_a_main_guard_is_told_so(call: str, stdin: bool, empty: Path) -> None:
    """Its workers import it and would train in their turn, in hundreds of lines of tracebacks."""
    script = empty / "script.py"
    script.write_text(
        "from trecx.experiments.pool import fit\nfrom trecx.experiments.sweep import execute_all\n"
        "from trecx.experiments.runs import Run\n"
        f"wanted = [Run('kws', 'baseline', width=0.125, epochs=1, seed=seed) for seed in (0, 1)]\n{call}\n"
    )
    env = os.environ | {"TRECX_RECORDS": str(empty / "records"), "PYTHONPATH": str(paths.ROOT)}
    with script.open() as source:
        done = subprocess.run(
            [sys.executable, *([] if stdin else [str(script)])],
            stdin=source,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
    says = "<stdin> is no file: write the script into one" if stdin else "put the call under `if __name__ =="
    assert says in done.stderr.splitlines()[-1]
    assert done.stderr.count("Traceback") == 1  # of the script itself, whose error it is
    assert not list((empty / "records").rglob("*.json"))


# --- make


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize(
    ("goal", "name", "quoted"),
    [
        ("notebook", "NB", "<{}>"),
        ("notebook", "P", "<--words={}>"),
        ("data", "NAME", "<{}>"),
        ("test", "WORKERS", "<{}>"),
        ("_build/profile", "PROFILE", "PROFILE is '{}': choose quick or full."),
    ],
)
@pytest.mark.parametrize("by", ["command line", "environment"])
def test_what_a_user_gives_make_is_no_command(goal: str, name: str, quoted: str, by: str, empty: Path) -> None:
    shutil.copy(paths.ROOT / "Makefile", empty)
    for folder in ("trecx", "book", "here"):
        (empty / folder).mkdir(exist_ok=True)
    shell = empty / "python"
    shell.write_text("#!/bin/sh\nprintf '<%s>\\n' \"$@\"\n")
    shell.chmod(0o755)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MAKE") and key not in quoted}
    for value in ("x'; touch pwned; '", '-p seed 1; touch pwned; "', "$(shell touch pwned)", "`touch pwned`", "a\\$$b"):
        given = [f"{name}={value}"] if by == "command line" else []
        env = clean | {"TRECX_PYTHON": str(shell)} | ({} if given else {name: value})
        done = subprocess.run(
            ["make", goal, *given], cwd=empty, env=env, capture_output=True, text=True, check=False, timeout=60
        )
        assert quoted.format(value) in (done.stdout + done.stderr).splitlines()
        assert not (empty / "pwned").exists()
