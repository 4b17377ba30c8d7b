"""Texts of the full-scale chapters against the records behind them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from trecx.errors import TrecxError
from trecx.experiments.records import Record
from trecx.experiments.results import Results
from trecx.experiments.runs import Run
from trecx.report import remarks

from .small import write_record

RUN = Run("kws", "trecx_ev", data="speech_commands", recipe="fast")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Two seeds of T-RecX, the baseline, and smaller baselines; nothing may be changed in them."""
    folder = tmp_path_factory.mktemp("published")

    def seeds(run: Run, accuracy: float) -> list[Record]:
        return [write_record(replace(run, seed=seed), folder, n=400, accuracy=accuracy) for seed in (0, 1)]

    small = {width: seeds(replace(RUN, method="baseline", width=width), 0.6) for width in (0.75, 0.5)}
    return Results(
        methods={"trecx_ev": seeds(RUN, 0.8), "baseline": seeds(replace(RUN, method="baseline"), 0.7)},
        static={f"width {width:g}": records for width, records in small.items()},
    )


def test_effects_and_accuracies_are_those_of_the_records(found: Results) -> None:
    ours, theirs = (
        [100 * np.mean(r.predictions["test_log_probs"][:, -1].argmax(1) == r.predictions["test_labels"]) for r in rs]
        for rs in (found.methods["trecx_ev"], found.methods["baseline"])
    )
    assert remarks.accuracy(found.methods, "trecx_ev") == f"{np.mean(ours):.2f} %"
    text = remarks.effect(found.methods, "trecx_ev", "baseline")
    assert text.startswith(f"{np.mean(ours) - np.mean(theirs):+.2f} [+")  # ten points over 800 samples are certain
    first = np.mean([100 * r.accuracies()[0] for r in found.methods["trecx_ev"]])
    text = remarks.effect(found.methods, "trecx_ev", "baseline", 0, against=-1)
    assert text.startswith(f"{first - np.mean(theirs):+.2f} [")
    assert remarks.ahead(found.methods, "trecx_ev") == "100%"  # of itself


def test_costs_are_of_the_exit_and_unit_asked_for(found: Results) -> None:
    exits = found.methods["trecx_ev"][0].manifest["cost"]
    assert remarks.cost(found.methods, "trecx_ev") == f"{exits['flops'][0] / 1e6:.2f} MFLOPs" == "3.13 MFLOPs"
    whole = found.methods["baseline"][0].manifest["cost"]["flops"][-1]
    assert remarks.cheaper(found.methods, "trecx_ev", "baseline") == f"{100 - 100 * exits['flops'][0] / whole:.1f} %"
    assert remarks.cost(found.methods, "trecx_ev", -1, "macs") == f"{exits['macs'][1] / 1e6:.2f} million MACs"


def test_a_smaller_network_is_met_at_its_cost(found: Results) -> None:
    """0.75 of the filters cost more than T-RecX's early exit, half of them less."""
    assert remarks.at_cost_of(found, "width 0.75").startswith("+")
    assert remarks.at_cost_of(found, "width 0.5") == "out of reach"
    worse = found.static["width 0.75"]  # a network against itself, at its own cost
    assert remarks.at_cost_of(found, "width 0.75", records=worse).startswith("+0.00")


def test_a_saving_needs_every_seed() -> None:
    row = {"method": "m", "drop": 1, "reference": "own baseline", "protocol": "validation", "reached": True}
    points = pd.DataFrame([row | {"seed": 0, "reduction": 0.4}, row | {"seed": 1, "reduction": 0.3}])
    assert remarks.saves(points, "m") == "35.0 %"
    rival = pd.DataFrame([row | {"method": "rival", "seed": 1, "reduction": 0.1}])
    assert remarks.saves(pd.concat([points, rival]), "m", like="rival") == "30.0 %"
    for other in ({"protocol": "paper"}, {"reference": "own final exit"}):
        with pytest.raises(TrecxError, match="no operating point of m below"):
            remarks.saves(points, "m", **other)
    other = pd.DataFrame([row | {"reference": "own final exit", "seed": 0, "reduction": 0.2}])
    assert remarks.saves(pd.concat([points, other]), "m", reference="own final exit") == "20.0 %"
    assert remarks.saves(points.assign(reached=[True, False]), "m") == "not in every training"


def test_what_is_really_given_up_is_counted_on_test(found: Results) -> None:
    baseline = found.methods["baseline"]
    own = np.mean([100 * r.accuracies()[-1] for r in baseline])
    row = {"method": "m", "drop": 1, "reference": "own baseline", "protocol": "validation", "reached": True}
    points = pd.DataFrame([row | {"accuracy": own / 100 - 0.013}, row | {"accuracy": own / 100 - 0.014}])
    assert remarks.lost(points, "m", baseline) == "1.35"
    assert remarks.lost(points.assign(reached=[True, False]), "m", baseline) == "(not known: a seed misses)"
    ours = np.mean([100 * r.accuracies("val")[-1] for r in found.methods["trecx_ev"]])
    theirs = np.mean([100 * r.accuracies("val")[-1] for r in baseline])
    text = remarks.effect(found.methods, "trecx_ev", "baseline", split="val")
    assert text.startswith(f"{ours - theirs:+.2f} [")


def judged(epochs: int, verdicts: dict[str, str]) -> pd.DataFrame:
    values = {"C2": 80 + epochs / 10, "C3": epochs / 100, "C4": epochs / 2, "C6": -epochs / 100}
    return pd.DataFrame(
        [{"claim": c, "value": v, "epochs": epochs, "verdict": verdicts.get(c, "partly")} for c, v in values.items()]
    )


def test_longer_trainings_are_told_beside_the_shorter() -> None:
    text = remarks.longer(pd.concat([judged(30, {}), judged(100, {})]))
    assert text == {
        "verdict": "With 100 epochs in place of 30 no verdict changes.",
        "epochs": "100",
        "epochs-before": "30",
        "baseline": "90.00 %",
        "baseline-before": "83.00 %",
        "saves": "50.0 %",
        "saves-before": "15.0 %",
        "exit": "+1.00",
        "exit-before": "+0.30",
        "ev": "-1.00",
        "ev-before": "-0.30",
    }


def test_longer_trainings_name_the_verdicts_that_they_change_or_the_seeds_they_lack() -> None:
    text = remarks.longer(pd.concat([judged(100, {"C4": "contradicted"}), judged(30, {})]))
    assert text["verdict"] == (
        "With 100 epochs in place of 30 verdicts change: the saving one point below (C4) from partly to contradicted."
    )
    one = dict.fromkeys(("C2", "C3", "C4", "C6"), "two seeds")
    text = remarks.longer(pd.concat([judged(100, one), judged(30, one)]))
    assert text["verdict"] == "Two seeds had 100 epochs in place of 30: too few for a verdict."
