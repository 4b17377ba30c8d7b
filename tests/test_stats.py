import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats as scipy_stats

from trecx.errors import TrecxError
from trecx.evaluation import points, stats
from trecx.evaluation import trace as tracing


def sample_trace(n=400, seed=0):
    """A plausible two-exit network: the surer the early exit, the more often it is right."""
    rng = np.random.default_rng(seed)
    scores = rng.random(n)
    correct = np.column_stack([rng.random(n) < scores, rng.random(n) < 0.9])
    return tracing.Trace(scores[:, None], correct, np.array([4.0, 10.0]))


def test_mean_interval_is_students():
    # Mean 2, standard deviation 1, n = 3: 2 -+ t(0.975, 2) / sqrt(3), t = 4.30265.
    assert_allclose(stats.mean_interval([1, 2, 3]), [2, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5], rtol=1e-6)
    values = np.random.default_rng(0).normal(size=10)
    expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert_allclose(stats.mean_interval(values, 0.9)[1:], expected)


def test_mean_interval_of_one_seed_and_of_a_miss():
    assert np.isnan(stats.mean_interval([1.0, 2.0])[1:]).all()  # one degree of freedom says nothing
    one = stats.mean_interval([5.0])
    assert one.estimate == 5
    assert np.isnan(one.low)
    assert np.isnan(one.high)
    assert np.isnan(stats.mean_interval([1.0, np.nan, 3.0])).all()  # not the mean of the other two


def test_mean_of_means_is_welchs():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=5), rng.normal(2, 3, size=4)
    # Half of the difference between a and -b, whose interval scipy knows.
    welch = scipy_stats.ttest_ind(a, -b, equal_var=False).confidence_interval(0.9)
    found = stats.mean_of_means([a, b], 0.9)
    assert_allclose(found, [(a.mean() + b.mean()) / 2, welch.low / 2, welch.high / 2])
    assert_allclose(stats.mean_of_means([a]), stats.mean_interval(a))


def test_mean_of_means_gives_no_interval_it_cannot_know():
    few = stats.mean_of_means([[1.0, 2.0], [4.0, 5.0, 6.0]])  # two seeds of a task
    assert few.estimate == pytest.approx(3.25)
    assert np.isnan(few[1:]).all()
    assert np.isnan(stats.mean_of_means([[1.0] * 3, [2.0] * 3])[1:]).all()
    assert np.isnan(stats.mean_of_means([[1.0, np.nan, 2.0], [1.0, 2.0, 3.0]])).all()  # a miss


def test_a_jackknife_of_means_is_the_variance_of_the_mean():
    values = np.random.default_rng(0).normal(size=6)
    without = stats.leaving_one_out(values)
    assert_allclose(without[2], np.delete(values, 2).mean())
    assert_allclose(stats.jackknife(without), (values.var(ddof=1) / 6, 6))
    assert np.isnan(stats.jackknife([1.0]).variance)  # one training shows nothing
    assert len(stats.leaving_one_out([1.0])) == 0
    assert stats.leaving_one_out([25 / 48, 1, 1, 1, 1]).max() == 1  # an accuracy stays one


def test_the_trainings_of_the_reference_widen_an_interval_as_welch_says():
    """A difference of two means, the second of which is the reference."""
    rng = np.random.default_rng(0)
    ours, reference = rng.normal(2, 1, size=3), rng.normal(size=5)
    spread = stats.jackknife([ours.mean() - mean for mean in stats.leaving_one_out(reference)])
    found = stats.mean_of_means([ours - reference.mean()], references=[spread])
    welch = scipy_stats.ttest_ind(ours, reference, equal_var=False).confidence_interval(0.95)
    assert_allclose(found[1:], [welch.low, welch.high])
    unknown = stats.mean_of_means([ours], references=[stats.jackknife([1.0])])
    assert np.isnan(unknown[1:]).all()


def test_percentile_interval():
    values = np.random.default_rng(0).normal(size=1000)
    assert_allclose(stats.percentile_interval(values, 0.1), [0.1, *np.percentile(values, [2.5, 97.5])])


def test_percentile_interval_counts_misses_as_worst():
    values = np.arange(100.0)
    values[:10] = np.nan  # 10 % of the resamples miss the target
    interval = stats.percentile_interval(values, 50.0)
    assert np.isnan(interval.low)
    assert interval.high == pytest.approx(np.percentile(np.arange(100), 97.5))
    values[:10] = np.arange(10)
    values[50] = np.nan  # 1 % lies beyond the 2.5 % end
    assert np.isfinite(stats.percentile_interval(values, 50.0)).all()
    assert np.isnan(stats.percentile_interval([np.nan] * 5, np.nan)).all()


def test_bootstrap_of_a_fixed_threshold():
    test = sample_trace()
    result = stats.bootstrap_points(test, lambda _, t: points.point_at(t, 0.7, baseline_cost=9.0), resamples=2000)
    assert_allclose(result.fixed, result.rechosen)  # this choice ignores the data
    # The standard error of a proportion, and of a mean of two costs 6 apart.
    p, share = result.point.accuracy, result.point.shares[0]
    assert result.fixed["accuracy"].std() == pytest.approx(np.sqrt(p * (1 - p) / 400), rel=0.06)
    assert result.fixed["reduction"].std() == pytest.approx(6 / 9 * np.sqrt(share * (1 - share) / 400), rel=0.06)
    table = result.summary().set_index(["threshold", "quantity"])
    assert table.loc[("fixed", "accuracy"), "estimate"] == p
    assert table.loc[("fixed", "accuracy"), "low"] < p < table.loc[("fixed", "accuracy"), "high"]
    assert (table["reached"] == 1).all()


def test_bootstrap_with_the_threshold_chosen_again():
    val, test = sample_trace(seed=1), sample_trace(seed=2)

    def choose(val, test):
        return points.chosen_point(val, test, val.final_accuracy - 0.03, baseline_cost=10.0)

    result = stats.bootstrap_points(test, choose, val, resamples=200)
    assert len(result.fixed) == len(result.rechosen) == 200
    # Choosing adds its own variation.
    assert result.rechosen["reduction"].std() > result.fixed["reduction"].std()
    again = stats.bootstrap_points(test, choose, val, resamples=200)
    assert again.rechosen.equals(result.rechosen)
    other = stats.bootstrap_points(test, choose, val, resamples=200, seed=1)
    assert not other.rechosen.equals(result.rechosen)


def test_bootstrap_reports_misses():
    test = sample_trace()
    target = float(tracing.benefit_curve(test).accuracy.max())  # about half of the resamples lie below

    result = stats.bootstrap_points(test, lambda _, t: points.paper_point(t, target, 10.0), resamples=200)
    table = result.summary().set_index(["threshold", "quantity"])
    assert 0 < table.loc[("re-chosen", "reduction"), "reached"] < 1
    assert np.isnan(table.loc[("re-chosen", "reduction"), "low"])
    never = stats.bootstrap_points(test, lambda _, t: points.paper_point(t, 1.0, 10.0), resamples=5)
    assert never.summary()[["estimate", "low", "high"]].isna().all(axis=None)
    assert (never.summary()["reached"] == 0).all()


def test_paired_difference_of_one_seed_is_the_paired_t_interval():
    rng = np.random.default_rng(0)
    a, b = rng.random((1, 500)) < 0.9, rng.random((1, 500)) < 0.8
    known = scipy_stats.ttest_rel(a[0].astype(float), b[0].astype(float)).confidence_interval(0.95)
    interval = stats.paired_difference(a, b)
    assert interval.estimate == pytest.approx(a.mean() - b.mean())
    assert interval[1:] == pytest.approx((known.low, known.high))


def test_paired_difference_keeps_what_seeds_share():
    # Ten identical seeds carry no more information about the test set than one.
    rng = np.random.default_rng(0)
    a, b = rng.random(500) < 0.9, rng.random(500) < 0.8
    one = stats.paired_difference(a, b)
    ten = stats.paired_difference(np.tile(a, (10, 1)), np.tile(b, (10, 1)))
    assert ten == pytest.approx(one, rel=1e-3)
    # With every sample equal within a seed only the seeds vary: Student's interval over their means.
    seeds = np.repeat([[1.0], [2.0], [4.0]], 50, axis=1)
    assert stats.paired_difference(seeds, 0 * seeds) == pytest.approx(stats.mean_interval([1, 2, 4]), rel=1e-6)
    assert stats.paired_difference(seeds, seeds - 1) == (1, 1, 1)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(("by_seed", "by_sample"), [(0.02, 0.05), (0.009, 0.2), (0.0, 0.25)])
def test_paired_difference_covers_the_truth(seeds, by_seed, by_sample):
    """Tables with known effects of seeds and samples, and hits that change one by one: 95 % of intervals contain 0."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(600):
        table = rng.normal(0, by_seed, (seeds, 1)) + rng.normal(0, by_sample, (1, 300))
        table = table + rng.choice([-1, 0, 1], size=(seeds, 300), p=[0.05, 0.9, 0.05])
        interval = stats.paired_difference(table, np.zeros_like(table))
        covered.append(interval.low <= 0 <= interval.high)
    assert np.mean(covered) > (0.93 if seeds > 2 else 0.9)


def test_paired_difference_refuses_unpaired_input():
    with pytest.raises(TrecxError, match="one shape"):
        stats.paired_difference(np.zeros((2, 5)), np.zeros((3, 5)))
    with pytest.raises(TrecxError, match="NaN"):
        stats.paired_difference(np.full((2, 5), np.nan), np.zeros((2, 5)))


def test_sign_flip_is_exact_for_few_seeds():
    # All of one sign: only the two extreme patterns of 2**5 reach the mean.
    assert stats.sign_flip_test([1, 2, 3, 4, 5]) == pytest.approx(2 / 32)
    # 3, 1, -1: sums +-3 +-1 +-1 are 5, 3, 3, 1 and their negatives; |sum| >= 3 for 6 of 8.
    assert stats.sign_flip_test([3, 1, -1]) == pytest.approx(6 / 8)
    assert stats.sign_flip_test([0, 0, 0]) == 1
    assert stats.sign_flip_test([0.7]) == 1


def test_sign_flip_monte_carlo_is_seeded_and_near_the_t_test():
    values = np.random.default_rng(3).normal(0.4, 1, size=30)
    p = stats.sign_flip_test(values, seed=1)
    assert p == stats.sign_flip_test(values, seed=1)
    assert p == pytest.approx(scipy_stats.ttest_1samp(values, 0).pvalue, abs=0.02)


def test_probability_of_improvement():
    # Wins 2, tie 1, loss 1: (2 + 0.5) / 4.
    result = stats.probability_of_improvement([2, 3, 1, 0], [1, 2, 1, 5])
    assert result.estimate == 0.625
    assert result.low < 0.625 < result.high
    assert stats.probability_of_improvement([2, 3], [1, 1]) == (1, 1, 1)
    mirrored = stats.probability_of_improvement([1, 2, 1, 5], [2, 3, 1, 0])
    assert_allclose(mirrored, [1 - result.estimate, 1 - result.high, 1 - result.low], atol=0.13)


def test_bootstrap_of_the_mean_is_near_the_interval_of_the_difference():
    a, b = np.random.default_rng(0).normal(size=(2, 12, 400))
    (mean, spread) = stats.bootstrap_statistics(a + 0.5, b, lambda x: np.array([x.mean(), x.std()]), resamples=3000)
    known = stats.paired_difference(a + 0.5, b)
    assert_allclose(mean.estimate, known.estimate)
    assert_allclose(mean[1:], known[1:], atol=0.02)
    assert spread.low < spread.estimate == a.std() - b.std() < spread.high
    with pytest.raises(TrecxError, match="one shape"):
        stats.bootstrap_statistics(a, b[:, :2], np.mean)


def test_holm():
    # Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.5; never falling.
    assert_allclose(stats.holm([0.03, 0.01, 0.5, 0.02]), [0.06, 0.04, 0.5, 0.06])
    assert_allclose(stats.holm([0.03, 0.02]), [0.04, 0.04])  # 2 * 0.02 = 0.04 holds for 0.03 as well
    assert_allclose(stats.holm([0.9, 0.8]), [1, 1])


@pytest.mark.parametrize(
    "call",
    [
        lambda: stats.sign_flip_test([0.1, np.nan]),
        lambda: stats.probability_of_improvement([0.1, np.nan], [0, 0]),
        lambda: stats.holm([0.1, np.nan]),
    ],
)
def test_misses_are_refused(call):
    with pytest.raises(TrecxError, match="not reached"):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.mean_interval([]), "at least one"),
        (lambda: stats.mean_interval([1, 2, 3], level=95), "between 0 and 1, not 95"),
        (lambda: stats.probability_of_improvement([1, 2], [1]), "same seed"),
        (lambda: stats.holm([1.5]), "between 0 and 1"),
        (lambda: stats.bootstrap_statistics(np.zeros((1, 2)), np.zeros((1, 2)), np.mean, resamples=0), "one resample"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(TrecxError, match=message):
        call()
