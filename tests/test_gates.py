"""Other rules of leaving: a threshold for each class and a learned gate, on answers that are made up to need them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from trecx.analysis import beyond, gates
from trecx.analysis.choice import Candidate
from trecx.evaluation.trace import Trace
from trecx.experiments.results import Results

from .small import write_results


def test_logistic_regression_agrees_with_another_implementation() -> None:
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=(400, 3)) * [1, 5, 0.1] + [0, 3, 0], np.ones(400)])
    y = rng.random(400) < 1 / (1 + np.exp(-(x[:, 0] - 0.4 * x[:, 1] + 1)))
    scaled = (x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), 1)
    other = LogisticRegression(C=1, tol=1e-8).fit(scaled, y).predict_proba(scaled)[:, 1]
    assert gates.logistic(x, y)(x) == pytest.approx(other, abs=1e-3)


def test_where_nothing_is_mended_everybody_may_leave() -> None:
    x = np.random.default_rng(0).normal(size=(50, 2))
    assert gates.logistic(x, np.ones(50, dtype=bool))(x).min() > 0.99


def test_features_of_an_answer() -> None:
    said = np.log([[0.2, 0.5, 0.3], [0.8, 0.1, 0.1]])
    assert gates.per_class(said) == pytest.approx(np.array([[0, 1, 0, 0, 0, 0], [1, 0, 0, np.log(4), 0, 0]]))
    assert gates.whole_answer(said)[0] == pytest.approx([*np.log([0.5, 0.3, 0.2]), 0, 1, 0])
    sure = np.array([[0.0, -np.inf, -np.inf]])
    assert np.isfinite(gates.per_class(sure)).all()
    assert np.isfinite(gates.whole_answer(sure)).all()


def two_classes(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Log probabilities (n, 2 exits, 2 classes) and labels: early answers of class 0 are always right, those of class 1
    by chance, however sure they are; the final answer is right.
    """
    rng = np.random.default_rng(seed)
    said, sure = rng.integers(2, size=n), rng.uniform(0.6, 0.99, size=n)
    labels = np.where((said == 1) & (rng.random(n) < 0.5), 0, said)
    early, final = np.full((n, 2), 0.0), np.full((n, 2), 0.01)
    early[np.arange(n), said], early[np.arange(n), 1 - said] = sure, 1 - sure
    final[np.arange(n), labels] = 0.99
    return np.log(np.stack([early, final], axis=1)), labels


@pytest.mark.parametrize("features", gates.GATES.values())
def test_a_class_that_may_not_be_trusted_goes_on(features: gates.Features) -> None:
    """Half of the samples may leave without any loss, which no single threshold finds."""
    record: Any = SimpleNamespace(predictions={}, rule=">")
    for split, seed in (("val", 0), ("test", 1)):
        said, labels = two_classes(1000, seed)
        record.predictions |= {f"{split}_log_probs": said, f"{split}_labels": labels}
        trace = Trace.from_log_probs(said, labels, [0.4, 1.0])
        setattr(record, split, trace)
    record.trace = lambda split, unit: getattr(record, split)
    candidate = gates.Gated("", "exits", [record], features)
    (test,) = candidate.traces("test")
    assert (test.cost.tolist(), test.rule) == ([0.4, 1.0], ">")
    first = record.test.correct[:, 0]
    answered = record.predictions["test_log_probs"][:, 0].argmax(1)
    assert test.scores[answered == 0].min() > test.scores[answered == 1].max()
    assert first[answered == 0].all()
    (val,) = candidate.traces("val")
    threshold = val.scores[record.predictions["val_log_probs"][:, 0].argmax(1) == 1].max()
    right, paid = test.outcome(threshold)
    assert right.mean() > 0.99
    assert paid.mean() == pytest.approx(0.7, abs=0.03)


def test_half_of_validation_scores_the_other_half() -> None:
    """The score of a validation sample does not know whether going on mends that sample."""
    said, labels = two_classes(400, 2)
    predictions = {f"{split}_log_probs": said for split in ("val", "test")}
    predictions |= {f"{split}_labels": labels for split in ("val", "test")}
    mended = int(np.flatnonzero(said[:, 0].argmax(1) != labels)[0])
    wrong = labels.copy()
    wrong[mended] = 1 - wrong[mended]
    plain: Any = SimpleNamespace(predictions=predictions)
    other: Any = SimpleNamespace(predictions=predictions | {"val_labels": wrong})
    before, after = (gates.scores(record, gates.per_class)["val"][:, 0] for record in (plain, other))
    half = np.random.default_rng(0).permutation(400) % 2
    changed = ~np.isclose(after, before, atol=1e-12)
    assert not changed[half == half[mended]].any()
    assert changed[half != half[mended]].any()


def test_test_samples_are_scored_as_those_that_the_threshold_is_chosen_on() -> None:
    """On the same samples and labels each half's scores are those of the model that the other half taught."""
    said, labels = two_classes(400, 3)
    record: Any = SimpleNamespace(
        predictions={f"{split}_log_probs": said for split in ("val", "test")} | {"val_labels": labels}
    )
    made = gates.scores(record, gates.whole_answer)
    both = np.isclose(made["val"][:, 0], made["test"][:, 0])
    assert 0.3 < both.mean() < 0.7  # the halves of test are other ones
    spread = [np.quantile(made[split][:, 0], [0.1, 0.5, 0.9]) for split in ("val", "test")]
    assert spread[0] == pytest.approx(spread[1], abs=0.03)


@pytest.mark.slow
def test_a_row_a_rule_for_the_best_network_of_every_way(tmp_path: Any) -> None:
    found: dict[str, Results] = {"kws": write_results(tmp_path, "kws")}
    here = beyond.benchmarks(found)
    table = gates.gates(found, here=here)
    for way, rows in table.groupby("way", sort=False):
        best = here["kws"].best(next(key for key, title in beyond.ROWS.items() if title == way), 1)
        assert best is not None
        assert rows["rule"].tolist() == [gates.ONE, *gates.GATES]
        for rule, one in zip(rows["rule"], [best[0], *(_gated(best[0], gate) for gate in gates.GATES)], strict=True):
            line = beyond.saving(here["kws"], one, 1, 0).row(memory=False)
            (row,) = rows[rows["rule"] == rule].to_dict("records")
            keys = ("saved", "given up", "reached")
            assert [row[key] for key in keys] == pytest.approx([line[key] for key in keys])
            if rule != gates.ONE:
                assert row["more"] == pytest.approx(row["saved"] - rows["saved"].iloc[0])
                assert row["more, low"] <= row["more"] <= row["more, high"]


def _gated(one: Candidate, rule: str) -> Candidate:
    return gates.Gated(one.label, one.family, one.records, gates.GATES[rule])
