"""What tables and comparisons are made of, and smaller networks without exits, against hand-worked numbers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.small import write_record
from trecx.analysis.compare import static_saving
from trecx.evaluation.points import at
from trecx.evaluation.trace import mean_line
from trecx.experiments.records import mean_accuracy
from trecx.experiments.runs import Run


@dataclass(frozen=True)
class Network:
    """Stands in for a record of a network without exits: its cost, and its accuracies in percent."""

    flops: float
    val: float
    test: float

    def cost(self, unit: str = "flops") -> np.ndarray:
        return np.array([self.flops if unit == "flops" else self.flops / 4])

    def accuracies(self, split: str = "test") -> np.ndarray:
        return np.array([getattr(self, split) / 100])


BASE = [Network(100, 90, 91), Network(100, 92, 91)]  # on validation 91 %, so 90 % is asked for
STATIC = {
    "narrow": [Network(60, 88.5, 86)],
    "middle": [Network(80, 90, 90), Network(80, 91, 88), Network(80, 90.5, 89)],  # 90.5 % and 89 %
}


def test_the_width_is_chosen_on_validation_and_tested_on_test() -> None:
    """From 80 (90.5 %) to 60 (88.5 %) on validation: a quarter of the way; on test from 89 to 86."""
    found = static_saving(BASE, STATIC)  # type: ignore[arg-type]
    assert found.saved == pytest.approx(100 - 75)
    assert found.given_up == pytest.approx(91 - 88.25)
    assert (found.seeds, found.lower_bound) == ((3, 1), False)
    assert static_saving(BASE, STATIC, unit="macs").saved == pytest.approx(25)  # type: ignore[arg-type]


def test_on_test_another_width_is_chosen_and_exactly_the_drop_is_given_up() -> None:
    """90 % is asked for on test: from 100 (91 %) to 80 (89 %) half the way."""
    found = static_saving(BASE, STATIC, split="test")  # type: ignore[arg-type]
    assert found.saved == pytest.approx(10)
    assert found.given_up == pytest.approx(1)
    assert found.seeds == (2, 3)


def test_a_larger_drop_than_any_network_has_is_a_lower_bound() -> None:
    found = static_saving(BASE, STATIC, drop=3)  # type: ignore[arg-type]
    assert found.saved == pytest.approx(40)
    assert found.given_up == pytest.approx(5)
    assert (found.seeds, found.lower_bound) == ((1,), True)


def test_nothing_is_known_without_smaller_networks() -> None:
    found = static_saving(BASE, {})  # type: ignore[arg-type]
    assert np.isnan([found.saved, found.given_up]).all()
    assert found.seeds == ()


def test_the_mean_accuracy_is_over_seeds() -> None:
    assert mean_accuracy(BASE, split="val") == pytest.approx(0.91)  # type: ignore[arg-type]
    assert mean_accuracy(STATIC["middle"]) == pytest.approx(0.89)  # type: ignore[arg-type]


def test_a_record_knows_what_its_manifest_says(tmp_path: Path) -> None:
    record = write_record(Run("kws", "trecx_ev", seed=3), tmp_path, n=12)
    assert (record.task, record.method, record.seed, record.stand_in) == ("kws", "trecx_ev", 3, False)
    assert (record.params, record.seconds) == (28_248, 600)
    assert record.cost().tolist() == [3_127_080, 5_647_920]
    assert record.cost("macs").tolist() == record.manifest["cost"]["macs"]
    del record.run["seed"]
    assert record.seed is None  # released weights


def test_mean_of_lines_is_over_what_all_of_them_cover() -> None:
    lines = [(np.array([0.0, 4.0]), np.array([0.0, 4.0])), (np.array([2.0, 6.0]), np.array([10.0, 10.0]))]
    x, y = mean_line(lines, n=3)
    assert x.tolist() == [2, 3, 4]
    assert y.tolist() == [6, 6.5, 7]
    _, y = mean_line(lines, np.array([1.0, 3.0]))
    assert np.isnan(y[0])  # the second line begins at 2
    assert y[1] == 6.5


def test_operating_points_are_found_by_reference_protocol_and_drop() -> None:
    frame = pd.DataFrame(
        [
            {"reference": reference, "protocol": protocol, "drop": drop}
            for reference in ("own baseline", "own final exit")
            for protocol in ("paper", "validation")
            for drop in (1, 2)
        ]
    )
    assert at(frame).to_numpy().tolist() == [["own baseline", "validation", 1]]
    assert at(frame, reference="own final exit", protocol="paper", drop=None)["drop"].tolist() == [1, 2]
