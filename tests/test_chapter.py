"""The chapters at full scale: every section with no, some and all runs published."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trecx import paths
from trecx.analysis import tables
from trecx.analysis.claims import Material, claims_table
from trecx.analysis.compare import settled
from trecx.experiments import reference as ref
from trecx.experiments import sweep
from trecx.experiments.results import published
from trecx.experiments.runs import Run
from trecx.report import chapter
from trecx.report.chapter import Part
from trecx.report.remarks import NOT_YET

from .small import write_record

SECTIONS = (
    "runs",
    "standalone",
    "frozen",
    "settled",
    "table_1",
    "savings",
    "differences",
    "static",
    "weights",
    "places",
    "confusion",
    "verdicts",
)
TABLES = {
    "runs",
    "standalone",
    "frozen",
    "frozen-savings",
    "settled",
    "table-1",
    "savings",
    "savings-others",
    "differences",
    "static",
    "loss-weight",
    "placement",
    "placement-savings",
    "placement-differences",
    "confusion",
    "claims",
}


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What a page shows: `said` sentences, `tables` by name, `glued` values."""
    import IPython.display

    found: dict[str, Any] = {"said": [], "tables": {}, "glued": {}}
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "published")
    monkeypatch.setattr(IPython.display, "display", lambda shown: found["said"].append(shown.data))
    monkeypatch.setattr(chapter, "glue", lambda name, value: found["glued"].update({name: value}))
    monkeypatch.setattr(chapter, "show_table", lambda df, name, *args, **kwargs: found["tables"].update({name: df}))
    return found


def part(name: str, **options: Any) -> Part:
    sweep_name = f"vww96_{name}"
    return Part(published(sweep_name, may_be_empty=True), "vww", name, **options)


def publish(name: str, keep: Any = lambda run: True) -> None:
    for run in sweep.load(paths.SWEEPS / f"vww96_{name}.yaml"):
        if keep(run):
            write_record(run, paths.PUBLISHED, n=200)


def show_all(shown: Part) -> None:
    for section in SECTIONS:
        getattr(shown, section)()
    shown.curves("baseline", "trecx_ev", "branchynet").canvas.draw()


@pytest.mark.parametrize("name", ["finetune", "scratch"])
def test_a_chapter_without_runs_says_so_in_every_section(page: dict[str, Any], name: str) -> None:
    authors = {"baseline": ref.ReferenceRecord(paths.BOOK / "records" / "reference" / "vww-baseline")}
    shown = part(name, authors=authors)
    assert not shown
    show_all(shown)
    assert len(page["said"]) == len(SECTIONS)
    assert all(sentence.startswith("*Not shown yet: there is no published run of ") for sentence in page["said"])
    assert not page["tables"]
    assert page["glued"].pop(f"{name}-seeds") == 0
    assert page["glued"].pop(f"{name}-least-p") == "1"
    assert set(page["glued"].values()) == {NOT_YET}


@pytest.mark.slow
def test_a_chapter_with_all_runs_shows_every_table(page: dict[str, Any]) -> None:
    publish("finetune")
    shown = part("finetune", title=", made up")
    show_all(shown)
    assert page["tables"].keys() == {f"finetune-{name}" for name in TABLES}
    assert not page["said"]
    assert NOT_YET not in page["glued"].values()
    assert page["glued"]["finetune-recipe"].startswith("20 epochs of one-cycle SGD (Nesterov momentum 0.9), batch 64")
    assert "(3 times that for early exits)" in page["glued"]["finetune-recipe"]
    alone = page["tables"]["finetune-standalone"]
    row = alone[(alone["method"] == "T-RecX") & (alone["exit"] == "final")].iloc[0]
    assert row["seeds"] == 5
    assert row["paper"] == 86.44  # of Table 1, since Table 2 leaves MobileNet out
    runs = page["tables"]["finetune-runs"]
    assert {"T-RecX", "T-RecX, heads alone", "Baseline, resolution 64"} <= set(runs["network"])
    assert page["glued"]["finetune-sizes"] == "200 to train on, 200 for validation, 200 test images"
    claims = page["tables"]["finetune-claims"]
    assert {"C2", "C3", "C4", "C5", "C6"} <= set(claims["claim"])
    claims = claims.set_index("claim")
    assert claims.loc["C2", "verdict"] == "not testable here"  # the accuracy comes with the weights
    assert "vww BranchyNet (published)" in claims.loc["C9", "evidence"]  # the paper has none for MobileNet
    assert "paper" not in page["tables"]["finetune-frozen"]
    assert set(page["tables"]["finetune-frozen-savings"]["drop"]) == {1, 2, 3}


def test_a_chapter_with_some_runs_shows_what_they_allow(page: dict[str, Any]) -> None:
    publish("scratch", lambda run: run.method == "trecx_ev" and run.seed == 0 and not run.taps)
    show_all(part("scratch"))
    assert page["tables"].keys() == {f"scratch-{name}" for name in ("runs", "standalone", "loss-weight", "claims")}
    assert any("run of Baseline." in sentence for sentence in page["said"])
    assert page["glued"]["scratch-baseline"] == NOT_YET
    assert page["glued"]["scratch-final"].endswith(" %")


def test_a_chapter_names_the_networks_in_other_arithmetic(page: dict[str, Any]) -> None:
    publish("finetune", lambda run: run.method in ("baseline", "trecx_ev") and run.seed == 0)
    shown = part("finetune")
    shown.runs()
    assert not page["said"][1:]  # the list is not whole
    for record in [*shown.found.frozen["trecx_ev"], *shown.found.places["trecx_ev"]["layer7"]]:
        record.manifest["arithmetic"] = "float32"  # asked for: bfloat16
    shown.runs()
    said = page["said"][-1]
    assert "without bfloat16: T-RecX, heads alone; T-RecX, exit after layer7. All others in bfloat16" in said


def test_nothing_of_the_papers_stands_beside_other_training_data(page: dict[str, Any]) -> None:
    publish("scratch", lambda run: run.method in ("baseline", "trecx_ev") and not (run.taps or run.w_early))
    shown = part("scratch", authors={"baseline": ref.ReferenceRecord(paths.BOOK / "records/reference/vww-baseline")})
    show_all(shown)
    assert not {"paper", "authors' weights"} & {*page["tables"]["scratch-standalone"]}
    assert "paper's baseline" not in set(page["tables"]["scratch-savings-others"]["reference"])
    assert "small part" in page["tables"]["scratch-claims"].set_index("claim").loc["C2", "evidence"]
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
