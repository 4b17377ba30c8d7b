import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from trecx.errors import TrecxError
from trecx.evaluation import calibration, points
from trecx.evaluation import trace as tracing
from trecx.paper import paper

# Two exits, five samples, a tie at 0.6. Costs 4 and 10.
#   sample   0    1    2    3    4
#   score   0.9  0.6  0.6  0.3  1.0
#   early    1    1    0    0    1
#   final    1    0    1    1    1      final exit alone: 4/5, early exit alone: 3/5
TWO = {
    "scores": np.array([[0.9], [0.6], [0.6], [0.3], [1.0]]),
    "correct": np.array([[1, 1], [1, 0], [0, 1], [0, 1], [1, 1]], dtype=bool),
    "cost": np.array([4.0, 10.0]),
}


def two(rule=">"):
    return tracing.Trace(**TWO, rule=rule)


def three(rule=">"):
    # Three exits, four samples; costs 1, 3, 10. Running maxima of the scores in brackets.
    #   sample      0            1            2            3
    #   scores   .8 .9 (.8 .9) .5 .7 (.5 .7) .6 .2 (.6 .6) .1 .4 (.1 .4)
    #   correct   0 1 1        1 0 1        1 1 0        0 0 1
    return tracing.Trace(
        scores=np.array([[0.8, 0.9], [0.5, 0.7], [0.6, 0.2], [0.1, 0.4]]),
        correct=np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 1]], dtype=bool),
        cost=np.array([1.0, 3.0, 10.0]),
        rule=rule,
    )


def naive(trace, thresholds):
    """Accuracy, cost and shares by following every sample at every threshold."""
    accuracy, cost, shares = [], [], []
    n, exits = trace.correct.shape
    for threshold in thresholds:
        right, paid, count = 0, 0.0, np.zeros(exits)
        for i in range(n):
            k = 0
            while k < exits - 1:
                score = trace.scores[i, k]
                if score > threshold or (trace.rule == ">=" and score == threshold):
                    break
                k += 1
            right, paid = right + trace.correct[i, k], paid + trace.cost[k]
            count[k] += 1
        accuracy.append(right / n)
        cost.append(paid / n)
        shares.append(count / n)
    return np.array(accuracy), np.array(cost), np.array(shares)


@st.composite
def traces(draw, rules=tracing.RULES):
    """Random traces; scores on a coarse grid, so that ties and the values 0 and 1 are common."""
    n, k = draw(st.integers(1, 30)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps = draw(st.sampled_from([2, 5, 1000]))
    return tracing.Trace(
        scores=rng.integers(0, steps + 1, size=(n, k - 1)) / steps,
        correct=rng.random((n, k)) < rng.random(k),
        cost=np.cumsum(rng.integers(1, 10, size=k)).astype(float),
        rule=draw(st.sampled_from(rules)),
    )


def test_two_exit_curve_strict():
    curve = tracing.benefit_curve(two(">"))
    # Leaving early: none at 1.0 (1.0 > 1.0 is false), {4} at 0.9, {4, 0} at 0.6, and 1, 2 as well at 0.3, all at 0.
    assert_array_equal(curve.thresholds, [1.0, 0.9, 0.6, 0.3, 0.0])
    assert_allclose(curve.shares[:, 0], [0, 0.2, 0.4, 0.8, 1])
    # Right: final 4; 4 and 0 are right at both; sample 1 gains one and 2 loses one; 3 loses one.
    assert_allclose(curve.accuracy, [0.8, 0.8, 0.8, 0.8, 0.6])
    # 10 - 6 * share.
    assert_allclose(curve.cost, [10, 8.8, 7.6, 5.2, 4])


def test_two_exit_curve_inclusive():
    curve = tracing.benefit_curve(two(">="))
    # A score equal to the threshold leaves: the same routings, each one threshold earlier.
    assert_array_equal(curve.thresholds, [1.0, 0.9, 0.6, 0.3, 0.0])
    assert_allclose(curve.shares[:, 0], [0.2, 0.4, 0.8, 1, 1])
    assert_allclose(curve.accuracy, [0.8, 0.8, 0.8, 0.6, 0.6])
    assert_allclose(curve.cost, [8.8, 7.6, 5.2, 4, 4])


def test_three_exit_curve():
    curve = tracing.benefit_curve(three())
    assert_array_equal(curve.thresholds, [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.1, 0])
    exits = {1.0: "3333", 0.9: "3333", 0.8: "2333", 0.7: "1333", 0.6: "1233"}
    exits |= {0.5: "1213", 0.4: "1113", 0.1: "1112", 0.0: "1111"}
    # Right answers by hand, from the table in `three`:
    #   3333: 1 1 0 1 = 3   2333: 1 1 0 1 = 3   1333: 0 1 0 1 = 2   1233: 0 0 0 1 = 1
    #   1213: 0 0 1 1 = 2   1113: 0 1 1 1 = 3   1112: 0 1 1 0 = 2   1111: 0 1 1 0 = 2
    assert_allclose(curve.accuracy * 4, [3, 3, 3, 2, 1, 2, 3, 2, 2])
    # Sums of 1, 3, 10: 40, 40, 33, 31, 24, 15, 13, 6, 4.
    assert_allclose(curve.cost * 4, [40, 40, 33, 31, 24, 15, 13, 6, 4])
    for threshold, path in exits.items():
        assert "".join(str(k + 1) for k in three().leave(threshold)) == path


def test_frame_of_a_curve():
    table = tracing.at_thresholds(two(), [0.3, 0.9]).frame()
    assert list(table.columns) == ["threshold", "accuracy", "cost", "exit_1", "exit_2"]
    assert_allclose(table["exit_1"], [0.8, 0.2])


@settings(deadline=None)
@given(traces())
def test_curve_equals_the_loop(trace):
    grid = np.concatenate([points.PAPER_GRID, [0, 0.2, 0.5]])
    for curve in (tracing.benefit_curve(trace), tracing.at_thresholds(trace, grid)):
        accuracy, cost, shares = naive(trace, curve.thresholds)
        assert_allclose(curve.accuracy, accuracy, atol=1e-12)
        assert_allclose(curve.cost, cost, atol=1e-12)
        assert_allclose(curve.shares, shares, atol=1e-12)


@settings(deadline=None)
@given(traces())
def test_curve_is_complete(trace):
    """No threshold gives a routing that is not on the curve."""
    curve = tracing.benefit_curve(trace)
    seen = {tuple(np.round(row, 9)) for row in np.column_stack([curve.accuracy, curve.shares])}
    between = (curve.thresholds[:-1] + curve.thresholds[1:]) / 2
    other = tracing.at_thresholds(trace, between)
    assert {tuple(np.round(row, 9)) for row in np.column_stack([other.accuracy, other.shares])} <= seen


@settings(deadline=None)
@given(traces())
def test_curve_properties(trace):
    curve, best = tracing.benefit_curve(trace), points.oracle(trace)
    assert_allclose(curve.shares.sum(axis=1), 1)
    assert np.all(np.diff(curve.thresholds) < 0)
    assert np.all(np.diff(curve.cost) <= 1e-9)  # a lower threshold never costs more
    assert np.all(curve.accuracy <= best.accuracy + 1e-9)
    assert np.all(curve.accuracy >= trace.correct.all(axis=1).mean() - 1e-9)
    # Nor does any routing lie above the limit curve of the oracle.
    assert np.all(curve.accuracy <= np.interp(curve.cost, best.limit_cost, best.limit_accuracy) + 1e-9)


@settings(deadline=None)
@given(traces(rules=[">"]))
def test_threshold_one_is_the_final_exit(trace):
    curve = tracing.benefit_curve(trace)
    assert curve.thresholds[0] == 1
    assert_allclose([curve.accuracy[0], curve.cost[0]], [trace.final_accuracy, trace.cost[-1]])


@settings(deadline=None)
@given(traces(), st.floats(0, 1))
def test_outcome_agrees_with_the_curve(trace, threshold):
    correct, cost = trace.outcome(threshold)
    point = points.point_at(trace, threshold, baseline_cost=2.0)
    assert_allclose([correct.mean(), cost.mean()], [point.accuracy, point.cost], atol=1e-12)
    assert point.reduction == pytest.approx(1 - cost.mean() / 2)


def test_network_without_early_exit():
    trace = tracing.Trace(np.empty((2, 0)), np.array([[True], [False]]), np.array([7.0]))
    assert_allclose(tracing.benefit_curve(trace).accuracy, 0.5)
    assert_allclose(tracing.benefit_curve(trace).cost, 7)


# ---------------------------------------------------------------------------------- traces and scores


def test_confidence_scores():
    log_probs = np.log([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]])
    assert_allclose(tracing.confidence(log_probs), [0.5, 1 / 3])
    assert_allclose(tracing.confidence(log_probs, "margin"), [0.25, 0], atol=1e-12)
    # H = 0.5 ln 2 + 2 * 0.25 ln 4 = 1.5 ln 2.
    assert_allclose(tracing.confidence(log_probs, "entropy"), [1 - 1.5 * np.log(2) / np.log(3), 0], atol=1e-12)
    certain = np.array([[0.0, -np.inf]])  # a saturated softmax
    for score in tracing.SCORES:
        assert tracing.confidence(certain, score)[0] == 1


def test_trace_from_log_probs():
    probs = np.array([[[0.7, 0.3], [0.2, 0.8]], [[0.4, 0.6], [0.1, 0.9]]])  # two samples, two exits, two classes
    trace = tracing.Trace.from_log_probs(np.log(probs), np.array([0, 1]), [1, 2])
    assert_allclose(trace.scores, [[0.7], [0.6]])
    assert_array_equal(trace.correct, [[True, False], [True, True]])
    assert_allclose(trace.standalone, [1, 0.5])
    assert trace.take(np.array([1, 1])).final_accuracy == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([">", ">="]))
def test_a_drawn_trace_has_the_curve_of_its_samples(seed, exits, rule):
    """Read from the order of the trace that it is drawn from, as if the samples were all there were."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 30))
    scores = rng.integers(0, 6, (n, exits - 1)) / 5  # many ties
    whole = tracing.Trace(scores, rng.random((n, exits)) < 0.6, np.arange(1.0, exits + 1), rule)
    draw = rng.integers(0, n, n)
    drawn = whole.take(draw)
    alone = tracing.Trace(whole.scores[draw], whole.correct[draw], whole.cost, rule)
    for made in (drawn, drawn.take(draw)):
        other = alone if made is drawn else tracing.Trace(alone.scores[draw], alone.correct[draw], whole.cost, rule)
        for field in ("thresholds", "accuracy", "cost", "shares"):
            one, two = (getattr(tracing.benefit_curve(trace), field) for trace in (made, other))
            assert_array_equal(one, two)
            one, two = (getattr(tracing.at_thresholds(trace, [0.5, 0.2, 1.0]), field) for trace in (made, other))
            assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "<"}, "choose one of >, >="),
        ({"scores": TWO["scores"][:3]}, r"need scores of shape \(5, 1\)"),
        ({"scores": TWO["scores"] + 1}, r"in \[0, 1\]"),
        ({"scores": TWO["scores"] * np.nan}, r"in \[0, 1\]"),
        ({"correct": TWO["correct"].astype(int)}, "boolean"),
        ({"correct": TWO["correct"][:0]}, r"shape \(0, 2\)"),
        ({"cost": np.array([10.0, 4.0])}, "cumulative"),
        ({"cost": np.array([10.0])}, r"cost of shape \(2,\)"),
    ],
)
def test_bad_traces(change, message):
    with pytest.raises(TrecxError, match=message):
        tracing.Trace(**{**TWO, **change})


def test_bad_requests():
    log_probs = np.log(np.full((2, 2, 2), 0.5))
    with pytest.raises(TrecxError, match="choose one of max_prob, entropy, margin"):
        tracing.confidence(log_probs, "loudness")
    with pytest.raises(TrecxError, match="add up to 1"):
        tracing.confidence(np.array([[2.0, -1.0]]))  # logits
    with pytest.raises(TrecxError, match="labels"):
        tracing.Trace.from_log_probs(log_probs, np.array([0]), [1, 2])
    for threshold in (-0.1, 1.1, np.nan):
        with pytest.raises(TrecxError, match="between 0 and 1"):
            tracing.at_thresholds(two(), [threshold])
        with pytest.raises(TrecxError, match="between 0 and 1"):
            two().leave(threshold)
    for target in (86.2, np.nan):
        with pytest.raises(TrecxError, match="fraction"):
            points.paper_point(two(), target)
        with pytest.raises(TrecxError, match="fraction"):
            points.chosen_point(two(), two(), target)
    with pytest.raises(TrecxError, match="same network"):
        points.chosen_point(two(">="), two(">"), 0.5)


# ---------------------------------------------------------------------------------- operating points


def ladder():
    """Ten samples with scores 0.05 ... 0.95, always right at the end and early from 0.75 on.

    Under `>` the k samples of lowest score stay for a threshold in [0.1 k - 0.05, 0.1 k + 0.05); accuracy is 1 down to
    k = 7 and falls by 0.1 with each step after that. Cost is 1 + 0.1 k.
    """
    scores = np.arange(10)[:, None] / 10 + 0.05
    return tracing.Trace(scores, np.column_stack([scores[:, 0] > 0.7, np.ones(10, bool)]), np.array([1.0, 2.0]))


def test_paper_grid():
    assert (len(points.PAPER_GRID), points.PAPER_GRID[0], points.PAPER_GRID[-1]) == (101, 0.01, 1.0)
    assert_allclose(np.diff(points.PAPER_GRID), 0.0099)


def test_paper_point_takes_the_nearest_even_below():
    # Target 0.86: 0.9 (k = 6) is nearer than 0.8. Target 0.84: 0.8 (k = 5), below the target.
    above, below = (points.paper_point(ladder(), target, baseline_cost=2.0) for target in (0.86, 0.84))
    assert (above.accuracy, below.accuracy) == (0.9, 0.8)
    assert_allclose([above.cost, below.cost], [1.6, 1.5])
    assert_allclose([above.reduction, below.reduction], [0.2, 0.25])
    assert above.reached
    assert above.protocol == "paper"
    assert 0.55 <= above.threshold < 0.65
    assert np.isclose(points.PAPER_GRID, above.threshold).any()


def test_paper_point_breaks_ties_by_cost():
    # 0.85 is equally far from 0.8 (cost 1.5) and 0.9 (cost 1.6); accuracy 1 is had from cost 1.7 on.
    assert points.paper_point(ladder(), 0.85).cost == pytest.approx(1.5)
    assert points.paper_point(ladder(), 1.0).cost == pytest.approx(1.7)


def test_paper_point_not_reached():
    trace = two()  # best accuracy 0.8
    assert points.paper_point(trace, 0.8004).reached  # within 0.05 points
    point = points.paper_point(trace, 0.806, baseline_cost=10.0)
    assert not point.reached
    assert np.isnan([point.threshold, point.accuracy, point.cost, point.reduction, *point.shares]).all()


def test_paper_point_of_a_network_that_is_too_weak():
    # Like the authors' BranchyNet ResNet-8: 85.73 % at the end against a target of 87.2 - 1 points.
    correct = np.arange(10_000)[:, None] < np.array([7246, 8573])
    trace = tracing.Trace(np.linspace(0.1, 1, 10_000)[::-1, None], correct, np.array([15.257948, 32.415572]), ">=")
    assert not points.paper_point(trace, 0.872 - 0.01).reached
    assert points.paper_point(trace, 0.872 - 0.02).reached


def test_point_at_cost_spends_what_validation_allows():
    draw = np.random.default_rng(0)
    val, test = (
        tracing.Trace(draw.random((400, 1)), draw.random((400, 2)) < 0.8, np.array([1.0, 2.0])) for _ in range(2)
    )
    point = points.point_at_cost(val, test, 1.6)
    assert val.outcome(point.threshold)[1].mean() == pytest.approx(1.6)  # 400 samples hit 0.4 exactly
    assert point.cost == test.outcome(point.threshold)[1].mean() != 1.6
    assert not points.point_at_cost(val, test, 0.9).reached
    assert points.point_at_cost(val, test, 5.0).cost == 2.0


def test_chosen_point_is_cheapest_on_validation_and_reported_on_test():
    val = ladder()
    # On test the early exit is right from 0.85 on, so that k = 6 is right for 8 of 10.
    test = tracing.Trace(val.scores, np.column_stack([val.scores[:, 0] > 0.8, np.ones(10, bool)]), val.cost)
    point = points.chosen_point(val, test, 0.9, target_on_test=0.85, baseline_cost=2.0)
    # Validation accuracy 0.9 needs k = 6, the interval that starts at the score 0.55.
    assert point.threshold == pytest.approx(0.55)
    assert (point.accuracy, point.target, point.protocol) == (0.8, 0.85, "validation")
    assert_allclose([point.cost, point.reduction], [1.6, 0.2])
    assert_allclose(point.shares, [0.4, 0.6])


@settings(deadline=None)
@given(traces(), st.floats(0, 1))
def test_chosen_point_is_the_cheapest_by_brute_force(trace, target):
    point, curve = points.chosen_point(trace, trace, target), tracing.benefit_curve(trace)
    enough = curve.accuracy >= target - 1e-9
    assert point.reached == enough.any()
    if point.reached:
        assert point.cost == pytest.approx(curve.cost[enough].min())
        assert point.accuracy >= target - 1e-9


def test_chosen_point_not_reached():
    # 0.9 is beyond the validation trace's best 0.8; that the test trace would reach it must not matter.
    test = tracing.Trace(ladder().scores, ladder().correct, TWO["cost"])
    point = points.chosen_point(two(), test, 0.9, baseline_cost=10.0)
    assert not point.reached
    assert np.isnan([point.threshold, point.accuracy, point.cost, point.reduction, *point.shares]).all()


def test_crossfit_applies_each_half_to_the_other_and_pools():
    calls = []

    def choose(chosen_on, applied_to):
        calls.append((len(chosen_on.correct), len(applied_to.correct)))
        # The five samples fall into halves of three and two; thresholds tell them apart.
        return points.point_at(applied_to, 0.0 if len(chosen_on.correct) == 3 else 1.0, 10.0, target=0.5)

    point = points.crossfit_point(two(), choose)
    assert calls == [(2, 3), (3, 2)]
    assert_allclose([point.threshold, point.target, point.cost], [0.6, 0.5, (3 * 10 + 2 * 4) / 5])
    assert_allclose(point.shares, [0.4, 0.6])
    assert (point.protocol, point.reached) == ("other half", True)


def test_crossfit_of_a_fixed_threshold_is_that_threshold():
    fixed = points.point_at(three(), 0.6, 10.0)
    pooled = points.crossfit_point(three(), lambda _, applied_to: points.point_at(applied_to, 0.6, 10.0))
    assert_allclose([pooled.accuracy, pooled.cost], [fixed.accuracy, fixed.cost])


def test_crossfit_is_reached_only_on_both_halves():
    def choose(chosen_on, applied_to):
        return points.chosen_point(
            chosen_on, applied_to, 1.0 if len(chosen_on.correct) == 3 else 0.0, baseline_cost=10.0
        )

    samples = {**TWO, "correct": TWO["correct"] & np.array([False, False])}  # nobody is ever right
    point = points.crossfit_point(tracing.Trace(**samples), choose)
    assert not point.reached
    assert np.isnan(point.accuracy)
    assert np.isnan(point.reduction)


def test_operating_points_table():
    table = points.operating_points(two(), 8.0, {"paper": 0.9, "own baseline": (0.82, 0.81)}, val=two(), drops=(1, 5))
    assert list(table.columns) == [
        *("reference", "drop", "protocol", "target", "threshold"),
        *("accuracy", "cost", "reduction", "exit_rate", "reached"),
    ]
    assert len(table) == 3 * 2 * 2
    row = table.set_index(["reference", "drop", "protocol"])
    missed = row.loc[("paper", 5, "validation")]  # 0.85 > 0.8
    assert not missed["reached"]
    assert missed[["threshold", "accuracy", "cost", "reduction", "exit_rate"]].isna().all()
    assert not row.loc[("own baseline", 1, "validation"), "reached"]  # 0.81 on validation
    assert row.loc[("own baseline", 1, "paper"), "reached"]  # 0.80 on test
    own = row.loc[("own final exit", 1, "validation")]
    assert own["target"] == pytest.approx(0.79)
    assert_allclose([own["cost"], own["reduction"], own["exit_rate"]], [5.2, 1 - 5.2 / 8, 0.8])
    assert set(points.operating_points(two(), 8.0, {})["protocol"]) == {"paper"}


# ---------------------------------------------------------------------------------- oracle and calibration


def test_oracle_of_two_exits():
    best = points.oracle(two())
    # Right somewhere: all five. Samples 0, 1, 4 leave early, 2 and 3 continue: (3 * 4 + 2 * 10) / 5.
    assert (best.accuracy, best.cost) == (1, 6.4)
    assert_allclose([best.both, best.only_early, best.only_final, best.none], [0.4, 0.2, 0.4, 0])
    assert best.overthinking == best.only_early
    assert_allclose(best.limit_cost, [4, 6.4])
    assert_allclose(best.limit_accuracy, [0.6, 1])


def test_oracle_leaves_at_once_where_no_exit_is_right():
    trace = tracing.Trace(np.array([[0.5], [0.5]]), np.array([[False, False], [False, True]]), np.array([1.0, 3.0]))
    best = points.oracle(trace)
    assert (best.accuracy, best.cost, best.none) == (0.5, 2, 0.5)


def test_oracle_of_three_exits():
    best = points.oracle(three())
    # First right exits 2, 1, 1, 3: cost (3 + 1 + 1 + 10) / 4. Sample 2 is right early and wrong at the end.
    assert (best.accuracy, best.cost, best.overthinking) == (1, 3.75, 0.25)
    assert_allclose(best.limit_cost, [1, 1.5, 3.75])
    assert_allclose(best.limit_accuracy, [0.5, 0.75, 1])


@settings(deadline=None)
@given(traces())
def test_oracle_shares(trace):
    best = points.oracle(trace)
    assert best.both + best.only_early + best.only_final + best.none == pytest.approx(1)
    assert best.both + best.only_final == pytest.approx(trace.final_accuracy)
    assert best.accuracy == pytest.approx(1 - best.none)


def test_reliability_and_calibration_error():
    conf, correct = np.array([0.5, 0.6, 0.9, 1.0]), np.array([True, False, True, True])
    table = calibration.reliability_bins(conf, correct, bins=2)
    # Bins (0, 0.5] and (0.5, 1]: one sample at 0.5 (right), three at 0.6, 0.9, 1.0 (mean 2.5 / 3, two right).
    assert_array_equal(table["count"], [1, 3])
    assert_allclose(table["confidence"], [0.5, 2.5 / 3])
    assert_allclose(table["accuracy"], [1, 2 / 3])
    # 1/4 * 0.5 + 3/4 * (2.5 - 2) / 3 = 0.125 + 0.125.
    assert calibration.expected_calibration_error(conf, correct, bins=2) == pytest.approx(0.25)
    assert calibration.reliability_bins(conf, correct, bins=4)["accuracy"].isna().tolist() == [
        True,
        False,
        False,
        False,
    ]
    assert calibration.expected_calibration_error(conf, correct, bins=4) == pytest.approx(
        (0.5 + 0.6 + 0.1) / 4  # 0.5 alone, 0.6 alone, and 0.9 with 1.0 against 1
    )
    assert calibration.expected_calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0
    with pytest.raises(TrecxError, match="same length"):
        calibration.reliability_bins(conf, correct[:2])
    with pytest.raises(TrecxError, match="at least one bin"):
        calibration.reliability_bins(conf, correct, bins=0)


# ---------------------------------------------------------------------------------- the paper's numbers


def test_headline_follows_from_table_1():
    numbers = paper()
    reductions = []
    for task, quoted in numbers["headline"]["reduction"].items():
        row = numbers["table_1"][task]
        reduction = 100 * (1 - row["trecx"]["mflops_at_drop"][1] / row["baseline"]["mflops"])
        assert reduction == pytest.approx(quoted, abs=0.05)
        reductions.append(reduction)
    assert np.mean(reductions) == pytest.approx(numbers["headline"]["mean_reduction"], abs=0.05)


def test_parameter_reductions_follow_from_table_2():
    numbers = paper()
    for method, quoted in numbers["claims"]["C9"]["mean_parameter_reduction"].items():
        ratios = [
            numbers["table_2"][t]["trecx"]["params_k"] / numbers["table_2"][t][method]["params_k"]
            for t in ("ic", "kws")
        ]
        assert 100 * (1 - np.mean(ratios)) == pytest.approx(quoted, abs=0.15)


def test_every_claim_has_text_and_source():
    claims = paper()["claims"]
    assert list(claims) == [f"C{i}" for i in range(1, 13)]
    assert all(claim["text"] and claim["source"] for claim in claims.values())
    assert paper()["table_1"]["source"] == "Table 1"


def test_varied_takes_each_class_once_before_any_class_twice():
    order, labels = np.array([5, 3, 1, 0, 2, 4]), np.array([0, 1, 0, 0, 2, 0])
    assert tracing.varied(order, labels, 4) == [5, 1, 4, 3]  # classes 0, 1, 2, then 0 again
    assert tracing.varied(order, labels, 2) == [5, 1]
