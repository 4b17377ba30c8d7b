"""Temperature scaling against cases with a known answer."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax

from trecx.analysis.tables import calibration
from trecx.errors import TrecxError
from trecx.evaluation.calibration import expected_calibration_error, fit_temperature, negative_log_likelihood, scaled
from trecx.evaluation.trace import confidence
from trecx.experiments.records import temperatures
from trecx.experiments.runs import Run
from trecx.report import figures

from .small import write_record


def test_temperature_of_one_repeated_answer_is_its_logit_over_its_true_log_odds() -> None:
    """8 of 10 answers with the logit 5 are right: calibrated is a logit of ln 4, so T = 5 / ln 4."""
    log_probs = log_softmax(np.tile([0.0, 5.0], (10, 1)), axis=1)
    labels = np.array([1] * 8 + [0] * 2)
    found = fit_temperature(log_probs, labels)
    assert found == pytest.approx(5 / np.log(4), rel=1e-3)
    after = scaled(log_probs, found)
    assert np.exp(after[0, 1]) == pytest.approx(0.8, abs=1e-3)
    before = expected_calibration_error(confidence(log_probs), labels == 1)
    assert before == pytest.approx(1 / (1 + np.exp(-5)) - 0.8)
    assert expected_calibration_error(confidence(after), labels == 1) < 1e-3
    assert negative_log_likelihood(after, labels) == pytest.approx(-0.8 * np.log(0.8) - 0.2 * np.log(0.2), abs=1e-6)


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_temperature_undoes_a_factor_on_the_logits(factor: float) -> None:
    draw = np.random.default_rng(0)
    true = draw.normal(0, 2, (20_000, 6))
    labels = (true + draw.gumbel(size=true.shape)).argmax(1)  # drawn from the softmax of `true`
    assert fit_temperature(log_softmax(factor * true, axis=1), labels) == pytest.approx(factor, rel=0.03)


def test_answers_that_are_always_right_take_the_lowest_temperature_and_wrong_shapes_are_refused() -> None:
    log_probs = log_softmax(np.tile([0.0, 0.5], (10, 1)), axis=1)
    assert fit_temperature(log_probs, np.ones(10)) == pytest.approx(0.05, rel=0.01)
    with pytest.raises(TrecxError, match=r"not \(10, 2\) and \(9,\)"):
        fit_temperature(log_probs, np.ones(9))


def test_one_temperature_an_exit() -> None:
    log_probs = np.random.default_rng(0).normal(size=(5, 2, 3))
    both = scaled(log_probs, [2.0, 0.5])
    np.testing.assert_allclose(both[:, 1], scaled(log_probs[:, 1], 0.5))
    np.testing.assert_allclose(np.exp(both).sum(2), 1)
    assert (both.argmax(2) == log_probs.argmax(2)).all()


def test_calibration_of_records_uses_validation_for_the_fit_and_test_for_the_error(tmp_path: Path) -> None:
    runs = [Run("kws", "trecx_ev", "speech_commands", "fast", seed) for seed in (0, 1)]
    records = [write_record(run, tmp_path, n=600) for run in runs]
    fitted = np.stack([temperatures(record) for record in records])
    assert fitted.shape == (2, 2)
    table = calibration(records).set_index("exit")
    assert list(table.index) == ["early", "final"]
    np.testing.assert_allclose(table["temperature"], fitted.mean(0))
    np.testing.assert_allclose(table["accuracy"], 100 * np.mean([r.accuracies() for r in records], axis=0))
    assert (table["NLL, scaled"] < table["NLL"]).all()
    assert (table["ECE, scaled"] < table["ECE"]).all()
    expected = [100 * expected_calibration_error(r.trace().scores[:, 0], r.trace().correct[:, 0]) for r in records]
    assert table.loc["early", "ECE"] == pytest.approx(np.mean(expected))
    sdn = calibration([write_record(Run("kws", "sdn", "speech_commands", "fast"), tmp_path)])
    assert sdn["exit"].tolist() == ["1", "2", "3", "final"]


def test_reliability_diagram_has_a_column_an_exit(tmp_path: Path) -> None:
    record = write_record(Run("kws", "trecx_ev", "speech_commands", "fast"), tmp_path, n=600)
    figure = figures.reliability([record])
    titles = [ax.get_title() for ax in figure.axes[:2]]
    assert titles[0].startswith("early exit, ECE")
    assert titles[1].startswith("final exit, ECE")
    shares = sum(bar.get_height() for bar in figure.axes[2].patches)
    assert shares == pytest.approx(100)
    only = write_record(Run("kws", "baseline", "speech_commands", "fast"), tmp_path, n=600)
    assert len(figures.reliability([only]).axes) == 2
