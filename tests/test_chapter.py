"""The sections of a chapter, from made-up records of whole sweeps."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trecx import paths
from trecx.analysis import tables
from trecx.analysis.claims import Material, claims_table
from trecx.analysis.compare import settled
from trecx.errors import TrecxError
from trecx.experiments import reference as ref
from trecx.experiments import sweep
from trecx.experiments.records import Record
from trecx.experiments.results import _sorted
from trecx.experiments.runs import Run
from trecx.report import catalogue, chapter
from trecx.report.chapter import Part

from .small import write_record

pytestmark = pytest.mark.slow  # each builds every table of a benchmark from records

SHOWN = (
    "frozen",
    "frozen-savings",
    "settled",
    "table-1",
    "static",
    "loss-weight",
    "placement",
    "placement-savings",
    "placement-differences",
    "confusion",
    "oracle",
    "calibration",
)
SECTIONS = ("runs", "standalone", "savings", "differences", "verdicts")
TABLES_OF = {"savings": {"savings", "savings-others"}, "verdicts": {"claims"}}  # the others have their own name


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What a page shows: `said` sentences, `tables` by name, `glued` values."""
    import IPython.display

    found: dict[str, Any] = {"said": [], "tables": {}, "glued": {}}
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / ref.GROUP).symlink_to(paths.PUBLISHED / ref.GROUP)
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "published")
    monkeypatch.setattr(IPython.display, "display", lambda shown: found["said"].append(shown.data))
    monkeypatch.setattr(chapter, "glue", lambda name, value: found["glued"].update({name: value}))
    monkeypatch.setattr(catalogue, "show_table", lambda df, name, *args, **kwargs: found["tables"].update({name: df}))
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up records of both sweeps on visual wake words, two seeds of each."""
    folder = tmp_path_factory.mktemp("published")
    for name in ("finetune", "scratch"):
        for run in sweep.load(paths.SWEEPS / f"vww96_{name}.yaml"):
            if run.seed < 2:
                write_record(run, folder, n=200)
    return folder


def part(name: str, folders: Path, **options: Any) -> Part:
    made = [run for run in sweep.load(paths.SWEEPS / f"vww96_{name}.yaml") if run.seed < 2]
    records = [(run, Record(folders / run.data / run.name)) for run in made]
    return Part(_sorted(f"vww96_{name}", records), name, **options)


def show_all(shown: Part, *names: str) -> set[str]:
    """Show every section and these tables; return the names of the tables that ought to be there."""
    for section in SECTIONS:
        getattr(shown, section)()
    for name in names:
        shown.show(name)
    shown.curves("baseline", "trecx_ev", "branchynet").canvas.draw()
    return {f"{shown.name}-{t}" for name in (*SECTIONS, *names) for t in TABLES_OF.get(name, {name})}


@pytest.mark.slow
def test_a_chapter_shows_every_table(page: dict[str, Any], folders: Path) -> None:
    shown = part("finetune", folders, title=", made up")
    assert page["tables"].keys() == show_all(shown, *SHOWN)
    assert not page["said"]
    assert page["glued"]["finetune-recipe"].startswith("20 epochs of one-cycle SGD (Nesterov momentum 0.9), batch 64")
    assert "(3 times that for early exits)" in page["glued"]["finetune-recipe"]
    alone = page["tables"]["finetune-standalone"]
    row = alone[(alone["method"] == "T-RecX") & (alone["exit"] == "final")].iloc[0]
    assert row["seeds"] == 2
    assert row["paper"] == 86.44  # of Table 1, since Table 2 leaves MobileNet out
    assert "parameters" not in alone  # they are in the table of runs
    runs = page["tables"]["finetune-runs"]
    assert {"T-RecX", "T-RecX, heads alone", "Baseline, resolution 64"} <= set(runs["network"])
    assert page["glued"]["finetune-sizes"] == "200 to train on, 200 for validation, 200 test images"
    claims = page["tables"]["finetune-claims"]
    assert {"C2", "C3", "C4", "C5", "C6"} <= set(claims["claim"])
    claims = claims.set_index("claim")
    assert claims.loc["C2", "verdict"] == "not testable here"  # the accuracy comes with the weights
    assert (
        "Visual Wake Words BranchyNet (published)" in claims.loc["C9", "evidence"]
    )  # the paper has none for MobileNet
    assert "paper" not in page["tables"]["finetune-frozen"]
    assert set(page["tables"]["finetune-frozen-savings"]["drop"]) == {1, 2, 3}


def test_a_table_for_which_there_are_no_runs_is_refused(page: dict[str, Any], folders: Path) -> None:
    with pytest.raises(TrecxError, match="table frozen is empty: these runs have nothing for it"):
        part("scratch", folders).show("frozen")


def test_a_chapter_names_the_networks_in_other_arithmetic(page: dict[str, Any], folders: Path) -> None:
    shown = part("finetune", folders)
    shown.runs()
    assert not page["said"]
    for record in [*shown.found.frozen["trecx_ev"], *shown.found.places["trecx_ev"]["layer7"]]:
        record.manifest["arithmetic"] = "float32"  # asked for: bfloat16
    shown.runs()
    said = page["said"][-1]
    assert "without bfloat16: T-RecX, heads alone; T-RecX, exit after layer7. All others in bfloat16" in said


def test_nothing_of_the_papers_stands_beside_other_training_data(page: dict[str, Any], folders: Path) -> None:
    authors = {"baseline": ref.ReferenceRecord(paths.BOOK / "records/reference/vww-baseline")}
    shown = part("scratch", folders, authors=authors)
    show_all(shown)
    assert not {"paper", "authors' weights"} & {*page["tables"]["scratch-standalone"]}
    assert "paper's baseline" not in set(page["tables"]["scratch-savings-others"]["reference"])
    assert "small part" in page["tables"]["scratch-claims"].set_index("claim").loc["C2", "evidence"]
    with pytest.raises(TrecxError, match="so it has no row in Table 1"):
        shown.show("table-1")
    (ax,) = shown.curves("baseline", "trecx_ev").axes
    assert not [text for text in ax.get_legend_handles_labels()[1] if "paper" in text or "released" in text]


def test_pooled_interval_does_not_shrink_with_seeds_alone(tmp_path: Path) -> None:
    """Seeds that answer alike leave the chance of the test samples: 1.96 times the deviation of a proportion."""
    run = Run("vww", "baseline", "vww96", "scratch")
    same = [write_record(run, tmp_path / str(k), n=400) for k in range(5)]
    found = tables.pooled(same, -1)
    p = same[0].accuracies()[-1]
    assert found.estimate == pytest.approx(100 * p)
    assert found.high - found.low == pytest.approx(2 * 196 * np.sqrt(p * (1 - p) / 400), rel=0.1)


def test_confusion_counts_each_kind_of_mistake(tmp_path: Path) -> None:
    record = write_record(Run("vww", "trecx_ev", "vww96", "scratch"), tmp_path, n=300)
    answers, truth = record.predictions["test_log_probs"].argmax(2), record.predictions["test_labels"]
    frame = tables.confusion([record], [0.7]).set_index("exit")
    final = frame.loc["final exit, all images"]
    assert final["images"] == 300
    assert final["missed"] == pytest.approx(100 * np.mean(answers[truth == 1, 1] == 0))
    assert final["false alarms"] == pytest.approx(100 * np.mean(answers[truth == 0, 1] == 1))
    leaves = record.trace().scores[:, 0] > 0.7
    early = frame.loc["early exit, those that leave"]
    assert early["images"] == leaves.sum()
    assert early["missed"] == pytest.approx(100 * np.mean(answers[leaves & (truth == 1), 0] == 0))
    assert len(tables.confusion([record], [float("nan")])) == 2


def test_what_can_be_settled_depends_on_the_width_of_the_interval_alone(tmp_path: Path) -> None:
    def group(samples: int) -> dict[str, Any]:
        folder = tmp_path / str(samples)
        methods = ("baseline", "trecx_ev", "trecx_no_ev")
        return {
            m: [write_record(Run("vww", m, "vww96", "scratch", seed=s), folder, n=samples) for s in range(5)]
            for m in methods
        }

    few, many = (settled(group(n), "vww").set_index("claim") for n in (100, 20_000))
    assert few["paper"].drop("C4", errors="ignore").tolist() == pytest.approx([86.44 - 85.81, 2.9])
    assert set(few["below the paper's"]) == {"no"}
    assert many.loc[["C4", "C6"], "below the paper's"].tolist() == ["yes", "yes"]
    assert many.loc["C4", "paper"] == -1
    assert many["half-width"].max() < few["half-width"].min()


def test_claims_carried_over_and_claims_that_cannot_be_settled(tmp_path: Path) -> None:
    methods = ("baseline", "trecx_ev", "trecx_no_ev", "branchynet", "sdn_fair")
    group = {m: [write_record(Run("vww", m, "vww96", "scratch"), tmp_path)] for m in methods}
    plain = claims_table(Material({"vww": group})).set_index("claim")
    assert "C9" not in plain.index
    asked = claims_table(Material({"vww": group}, carried_over=True, reasons={"C2": {"vww": "too few images"}}))
    asked = asked.set_index("claim")
    assert "vww BranchyNet " in asked.loc["C9", "evidence"]
    assert "vww SDN (published) " in asked.loc["C9", "evidence"]  # no version as coded is there
    assert asked.loc["C2", "verdict"] == "not testable here"
    assert asked.loc["C2", "evidence"].endswith("; too few images")
    pd.testing.assert_series_equal(asked.loc["C3"], plain.loc["C3"])
