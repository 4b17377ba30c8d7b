"""The chapters at full scale run whatever is published: one record, or everything on the list."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from trecx import paths
from trecx.experiments import robustness
from trecx.experiments.records import Record
from trecx.experiments.sweep import load
from trecx.report import headline
from trecx.training.weights import save_weights

from .small import write_audio, write_record
from .test_chapter import TABLES

CHAPTERS = {"10_cifar10": "cifar10", "11_speech_commands": "speech_commands"}  # and the sweeps that they show
EVERYWHERE = TABLES - {"frozen", "frozen-savings", "confusion"}  # those are for visual wake words
ALONE = {
    "10_cifar10": {"cifar10-one-more-class"},
    "11_speech_commands": {
        "speech-classes",
        "speech-calibration",
        "speech-robustness",
        "speech-robustness-thresholds",
        "speech-robustness-gain",
    },
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return without_records(tmp_path_factory.mktemp("full"))


def without_records(folder: Path) -> Path:
    """A copy of the package, the chapters and the records of the authors' weights, without any other record."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(paths.ROOT / "trecx", folder / "trecx", ignore=ignore)
    shutil.copytree(paths.PUBLISHED / "reference", folder / "book/records/reference")
    (folder / "notebooks").mkdir()
    for chapter in CHAPTERS:
        shutil.copy(paths.NOTEBOOKS / f"{chapter}.ipynb", folder / "notebooks")
    return folder


def run_chapter(project: Path, chapter: str) -> tuple[str, set[str]]:
    """Everything that the page says, and the names of its tables."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRECX_")}
    done = subprocess.run(
        [sys.executable, "-m", "trecx.report.runner", chapter],
        cwd=project,
        env=environment | {"PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    page = nbformat.read(project / f"_build/runs/{chapter}.ipynb", as_version=4)
    outputs = [output for cell in page.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    texts = [str(output.get("data", {}).get("text/markdown", "")) for output in outputs]
    return "\n".join(texts), {file.stem for file in (project / f"_build/runs/{chapter}_tables").glob("*.csv")}


@pytest.mark.slow
def test_chapter_with_a_single_record_says_what_is_missing(project: Path) -> None:
    (run,) = [r for r in load(paths.SWEEPS / "speech_commands.yaml") if r.name == "kws-trecx_ev-fast14-seed0"]
    record = write_record(run, project / "book/records", n=60)
    said, tables = run_chapter(project, "11_speech_commands")
    assert "93 of the 94 runs on the list have no published record yet" in said
    assert "Not shown yet: there is no published run of Baseline" in said
    assert "robustness RECORD --audio FOLDER --publish" in said
    assert {"speech-standalone", "speech-calibration", "speech-classes", "speech-claims"} <= tables
    assert not {"speech-table-1", "speech-robustness", "speech-static", "speech-differences"} & tables
    shutil.rmtree(record.folder)


@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapter_with_every_record_leaves_nothing_out(
    project: Path, chapter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "PUBLISHED", project / "book/records")
    monkeypatch.setattr(paths, "RECORDS", project / "_build/records")
    heard: list[Record] = []
    for run in load(paths.SWEEPS / f"{CHAPTERS[chapter]}.yaml"):
        record = write_record(run, paths.PUBLISHED, n=60)
        if run.name in (f"kws-{method}-fast14-seed{seed}" for method in ("baseline", "trecx_ev") for seed in (0, 1)):
            save_weights(run.network(), record.weights)
            heard.append(record)
    if heard:
        robustness.evaluate(heard, robustness.read_clips(write_audio(project / "audio")), publish=True)
    said, tables = run_chapter(project, chapter)
    assert "ot shown" not in said
    assert "no published record yet" not in said
    assert "Not of a piece" not in said
    prefix = "speech" if heard else "cifar10"
    assert {f"{prefix}-{name}" for name in EVERYWHERE} | ALONE[chapter] == tables


@pytest.mark.slow
def test_visual_wake_words_without_records_and_with_a_few(project: Path) -> None:
    """Its sections are tested one by one in test_chapter."""
    chapter = "12_visual_wake_words"
    shutil.copy(paths.NOTEBOOKS / f"{chapter}.ipynb", project / "notebooks")
    said, tables = run_chapter(project, chapter)
    assert said.count("Not shown yet") > 20
    assert not tables
    for name in ("finetune", "scratch"):
        for run in load(paths.SWEEPS / f"vww96_{name}.yaml"):
            if run.method in ("baseline", "trecx_ev", "trecx_no_ev") and run.seed < 2:
                write_record(run, project / "book/records", n=60)
    said, tables = run_chapter(project, chapter)
    assert "ot shown" not in said
    assert {
        "vww96-finetune-frozen",
        "vww96-finetune-frozen-savings",
        "vww96-finetune-table-1",
        "vww96-scratch-static",
    } <= tables
    assert "vww96-scratch-table-1" not in tables  # no figure of the paper's beside other training data


@pytest.mark.slow
def test_the_headline_says_which_runs_are_missing(tmp_path: Path) -> None:
    project = without_records(tmp_path)
    shutil.copy(paths.NOTEBOOKS / "13_headline.ipynb", project / "notebooks")
    for sweep in headline.SWEEPS.values():
        for run in load(paths.SWEEPS / f"{sweep}.yaml"):
            if run.method == "baseline" or (run.method == "trecx_ev" and run.w_early is None and run.taps is None):
                write_record(run, project / "book/records", n=60)
    said, tables = run_chapter(project, "13_headline")
    assert "on image classification" in said
    assert "on visual wake words" in said
    assert tables == {"headline-full", "headline-static", "claims-full", "rules"}
