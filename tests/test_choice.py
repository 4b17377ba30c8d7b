"""What to run, chosen on validation, and thresholds whose loss of accuracy is under control."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from trecx.analysis.choice import Candidate, Recommendation, candidates, eligible, recommend
from trecx.cli import main
from trecx.errors import TrecxError
from trecx.evaluation.risk import certified_threshold, excess_pvalue
from trecx.evaluation.trace import Trace, at_thresholds
from trecx.experiments.composed import Cascaded, cascade, joined, shorten
from trecx.experiments.records import Record, open_record
from trecx.experiments.results import Results, alike
from trecx.experiments.runs import Run
from trecx.models.methods import label_of

from .small import write_record, write_results

KWS_SDN = "kws-sdn_fair-fast14-seed0"  # published, with three early exits


def test_the_bet_on_one_sample_by_hand() -> None:
    """Loss -1 against a limit of 0: x = 0, mean 1/2, so the stake is the most that is allowed, 0.75 / (1/2)."""
    assert excess_pvalue(np.array([-1.0]), 0.0) == pytest.approx(1 / (1 + 1.5 * 0.5))
    assert excess_pvalue(np.array([1.0]), 0.0) == 1.0
    # Two losses of -1: the second stake knows the first, variance (1/4 + (0 - 1/4)²) / 2.
    stake = np.sqrt(2 * np.log(10) / (2 * (0.25 + 0.0625) / 2))
    first = np.sqrt(2 * np.log(10) / (2 * 0.25))
    capital = np.prod([1 + min(s, 1.5) * 0.5 for s in (first, stake)])
    assert excess_pvalue(np.array([-1.0, -1.0]), 0.0) == pytest.approx(1 / capital)


def test_the_test_is_right_where_the_loss_is_just_the_limit() -> None:
    draw = np.random.default_rng(0)
    losses = draw.choice([-1.0, 0.0, 1.0], p=[0.04, 0.90, 0.06], size=(1000, 800))  # mean 0.02
    at_limit = np.mean([excess_pvalue(row, 0.02) <= 0.1 for row in losses])
    far_below = np.mean([excess_pvalue(row, 0.08) <= 0.1 for row in losses])
    assert at_limit <= 0.1
    assert far_below > 0.9


@pytest.mark.parametrize(
    ("losses", "limit", "message"),
    [([], 0, "at least one number"), ([2.0], 0, "between -1 and 1"), ([0.0], 1.0, "limit 1.0 is impossible")],
)
def test_impossible_losses_are_refused(losses: list[float], limit: float, message: str) -> None:
    with pytest.raises(TrecxError, match=message):
        excess_pvalue(np.array(losses), limit)


def drawn(n: int, draw: np.random.Generator) -> tuple[Trace, np.ndarray]:
    """A cheap network, the better the surer it is, in front of the reference itself; and the reference's hits."""
    sure, hard = draw.random(n), draw.random(n)
    whole = hard < 0.9
    first = np.where(draw.random(n) < 0.1, draw.random(n) < 0.5, hard < 0.55 + 0.4 * sure)
    return Trace(sure[:, None], np.stack([first, whole], 1), np.array([0.3, 1.3])), whole.astype(float)


def test_the_guarantee_holds_in_a_simulation() -> None:
    """Of 300 validation sets at most a tenth give a threshold that loses more than the limit on the population.

    Without the guarantee, about every second does.
    """
    draw, grid, limit = np.random.default_rng(0), np.linspace(0, 1, 51), 0.02
    population, whole = drawn(400_000, draw)
    curve = at_thresholds(population, grid)
    lost = dict(zip(grid.tolist(), whole.mean() - curve.accuracy, strict=True))
    saved = dict(zip(grid.tolist(), 1 - curve.cost, strict=True))
    exceeds, plainly, kept, best = 0, 0, [], max(s for t, s in saved.items() if lost[t] <= limit)
    for _ in range(300):
        trace, reference = drawn(1500, draw)
        found = certified_threshold([trace], reference, limit, 0.9, grid)
        assert found is not None  # threshold 1 is the reference itself
        exceeds += lost[found] > limit
        kept.append(saved[found])
        enough = at_thresholds(trace, grid).accuracy >= reference.mean() - limit
        plainly += lost[grid[np.flatnonzero(enough)[0]].item()] > limit
    assert exceeds <= 0.1 * 300
    assert plainly > 0.3 * 300
    assert best - 0.15 < np.mean(kept) < best  # it costs something, and not everything


def test_certified_thresholds_stop_at_the_first_that_fails() -> None:
    """At 0.5 the answers are far worse than at 0.9 and at 0.1; the lower one must not be reached behind it."""
    n = 4000
    scores = np.repeat([0.95, 0.7, 0.3], [n // 2, n // 4, n // 4])[:, None]
    right = np.stack([np.repeat([True, False, True], [n // 2, n // 4, n // 4]), np.ones(n, bool)], 1)
    trace = Trace(scores, right, np.array([1.0, 2.0]))
    mixed = trace.take(np.random.default_rng(0).permutation(n))
    assert certified_threshold([mixed], np.ones(n), 0.1, 0.9, np.array([0.1, 0.5, 0.9, 1.0])) == 0.9
    assert certified_threshold([mixed], np.ones(n), -0.01, 0.9, np.array([0.5, 1.0])) is None
    with pytest.raises(TrecxError, match="guarantee 1 is impossible"):
        certified_threshold([mixed], np.ones(n), 0.1, 1, np.array([0.5]))


# The choice among records.
@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return write_results(tmp_path_factory.mktemp("records"), "kws")


def test_everything_that_the_records_offer(found: Results) -> None:
    made = candidates(found)
    families = [one.family for one in made]
    assert made[0].label == "Baseline"
    assert {family: families.count(family) for family in set(families)} == {
        "baseline": 1,
        "trecx": 1,
        "static": 1 + 4,  # SDN without exits, ending after any block or at the end
        "exits": 1 + 10,  # SDN whole, and its 14 shortenings but for those four
        "cascade": 2,  # the second network's answers as they are, and mixed
    }
    assert len({one.label for one in made}) == len(made)
    both, mixed = (one for one in made if one.family == "cascade")
    assert mixed.label == "width 0.5 first, then the baseline, answers mixed"
    assert [record.manifest["run"]["mix"] for record in (*both.records, *mixed.records)] == [0, 0, 0, 0.3, 0.3, 0.3]
    assert both.label == "width 0.5 first, then the baseline"
    assert [r.name for r in both.records] == [
        cascade(a, b).name for a, b in zip(found.static["width 0.5"], found.methods["baseline"], strict=True)
    ]


def test_a_smaller_network_goes_before_every_larger_one_that_is_complete(tmp_path: Path) -> None:
    def seeds(method: str, width: float = 1.0) -> list[Record]:
        return [write_record(Run("kws", method, seed=s, width=width), tmp_path) for s in range(2)]

    found = Results(
        "quick",
        "kws",
        methods={"baseline": seeds("baseline")[:1], "nested": seeds("nested"), "sdn": seeds("sdn")},
        static={f"width {width:g}": seeds("baseline", width) for width in (0.75, 0.25)},
        variants={"baseline, width 1.25": seeds("baseline", 1.25)},
    )
    assert [one.label for one in candidates(found) if one.family == "wider"] == ["Baseline, width 1.25"]
    made = {one.label: one for one in candidates(found) if one.family == "cascade"}
    plain = {label for label in made if not label.endswith(", answers mixed")}
    assert {*made} == plain | {f"{label}, answers mixed" for label in plain}
    assert plain == {
        "width 0.75 first, then the baseline",
        "width 0.75 first, then width 1.25",
        "width 0.75 first, then the nested network",
        "width 0.25 first, then the baseline",
        "width 0.25 first, then width 0.75",
        "width 0.25 first, then width 1.25",
        "width 0.25 first, then the nested network",
    }
    three = made["width 0.25 first, then the nested network"]
    narrow, nested = found.static["width 0.25"], found.methods["nested"]
    assert [record.name for record in three.records] == [
        cascade(a, b).name for a, b in zip(narrow, nested, strict=True)
    ]
    first = narrow[0].cost()[0]
    np.testing.assert_array_equal(three.records[0].cost(), [first, *(first + nested[0].cost())])
    assert len(made["width 0.25 first, then the baseline"].records) == 1  # the seeds that both have


def by_hand(found: Results, loss: float, unit: str = "flops") -> tuple[str, float]:
    """The choice and its cost on validation, over every threshold that makes a difference."""
    baseline = found.methods["baseline"]
    wanted = np.mean([r.accuracies("val")[-1] for r in baseline]) - loss / 100
    best = ("", np.inf)
    for one in candidates(found):
        traces = one.traces("val", unit)
        at = np.unique(np.concatenate([[0.0, 1.0], *(trace.scores.ravel() for trace in traces)]))
        accuracy = np.mean([[trace.outcome(t)[0].mean() for t in at] for trace in traces], axis=0)
        cost = np.mean([[trace.outcome(t)[1].mean() for t in at] for trace in traces], axis=0)
        cheapest = min(cost[accuracy >= wanted - 1e-9], default=np.inf)
        best = min(best, (one.label, cheapest), key=lambda entry: entry[1])
    return best


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "unit"), [(0, "flops"), (5, "flops"), (5, "macs")])
def test_the_recommendation_is_the_cheapest_on_validation(found: Results, loss: float, unit: str) -> None:
    label, _ = by_hand(found, loss, unit)
    made = recommend(found, loss=loss, unit=unit)
    assert made.method == label
    (one,) = (one for one in candidates(found) if one.label == label)
    base = found.methods["baseline"][0].cost(unit)[-1]
    outcomes = [trace.outcome(made.threshold or 0.0) for trace in one.traces("test", unit)]
    assert made.accuracy == pytest.approx(np.mean([right.mean() for right, _ in outcomes]))
    assert made.saved == pytest.approx(1 - np.mean([cost.mean() for _, cost in outcomes]) / base)
    assert made.low <= made.saved <= made.high
    assert made.worst_case == pytest.approx(one.records[0].cost(unit)[-1] / base)
    assert made.params == one.records[0].params
    parts = [(r.first, r.second) if isinstance(r, Cascaded) else (getattr(r, "whole", r),) for r in one.records]
    names = [[part.name for part in of_a_seed] for of_a_seed in parts]
    assert [[*of_a_seed] for of_a_seed in made.records] == names
    assert made.mix == one.mix


def test_the_test_set_is_touched_for_the_chosen_one_only(found: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    trace = Record.trace

    def watched(self: Record, split: str = "test", **options: str) -> Trace:
        if split == "test":
            looked.append(self.name)
        return trace(self, split, **options)

    monkeypatch.setattr(Record, "trace", watched)
    for options in ({"loss": 5.0}, {"loss": 30.0, "guarantee": 0.9}, {"budget": 3.0}):
        looked.clear()
        made = recommend(found, **options)
        (one,) = (one for one in candidates(found) if one.label == made.method)
        assert looked == [record.name for record in one.records]


def test_a_budget_buys_the_most_accurate_on_validation(found: Results) -> None:
    base = found.methods["baseline"][0].cost()[-1]
    small = found.static["width 0.5"][0].cost()[-1]
    tight = recommend(found, budget=small / 1e6)
    assert (1 - tight.saved) * base <= 1.05 * small  # chosen on validation, so the test samples may cost a little more
    assert recommend(found, budget=100).accuracy > tight.accuracy
    with pytest.raises(TrecxError, match=r"budget 0.1 is below the cheapest network: choose 1.\d+ MFLOPs or more"):
        recommend(found, budget=0.1)


def test_a_guarantee_saves_less_and_falls_back_on_the_baseline(found: Results) -> None:
    plain, sure = recommend(found, loss=30), recommend(found, loss=30, guarantee=0.9)
    assert 0 < sure.saved <= plain.saved
    nothing = recommend(found, loss=0, guarantee=0.99)
    assert (nothing.method, nothing.threshold, nothing.saved, nothing.worst_case) == ("Baseline", None, 0.0, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": -1}, "loss -1 is impossible: choose from 0 to below 100"),
        ({"guarantee": 1.0}, "guarantee 1.0 is impossible"),
        ({"budget": float("nan")}, "budget nan is impossible: choose a number of millions above 0"),
        ({"budget": float("inf")}, "budget inf is impossible: choose a number of millions above 0"),
        ({"budget": -1.0}, "budget -1 is impossible: choose a number of millions above 0"),
        ({"guarantee": 0.9, "budget": 3.0}, "a guarantee is about accuracy lost"),
    ],
)
def test_impossible_questions_are_refused(found: Results, options: dict[str, float], message: str) -> None:
    with pytest.raises(TrecxError, match=message):
        recommend(found, **options)


def test_few_seeds_count_only_for_want_of_others(tmp_path: Path) -> None:
    record = write_record(Run("kws", "baseline"), tmp_path)
    three, one = [record] * 3, [record]
    kept = eligible([Candidate("a", "static", three), Candidate("b", "static", one), Candidate("c", "cascade", one)])
    assert [candidate.label for candidate in kept] == ["a", "c"]


# Published records.
@pytest.mark.slow
def test_records_that_are_held_against_each_other_are_trained_alike() -> None:
    found = alike("vww")
    assert {(r.run["recipe"], r.run["start"], r.run["epochs"]) for r in found.records} == {
        ("finetune", "mlperf_tiny", None)
    }
    assert [r.seed for r in found.methods["baseline"]] == [0, 1, 2, 3, 4]
    assert "width 0.375" in alike("kws").static  # from another list
    with pytest.raises(TrecxError, match="unknown task 'asr'"):
        alike("asr")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "least", "options"),
    [("vww", 0.48, []), ("kws", 0.77, []), ("kws", 0.75, ["--guarantee", "0.9"]), ("vww", 0.0, ["--loss", "0"])],
)
def test_recommendations_of_published_records(
    task: str, least: float, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two exits in a trunk that ends early save 49 %; a narrow network before a nested one 78 %, 76 % guaranteed."""
    assert main(["recommend", "--task", task, *options, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [*answer] == [*asdict(Recommendation("", 0, 0, 0, 0, 0, 0, 0, 0, (), 0, None, ""))]
    assert answer["saved"] >= least
    if (task, options) == ("kws", []):
        assert answer["saved"] == pytest.approx(0.7861, abs=1e-4)
        assert (
            answer["method"]
            == "width 0.25 first, taught by the baseline, then the nested network, taught by its final exit"
        )
        assert answer["worst_case"] < 1
        made = [joined([open_record(name) for name in names], answer["mix"]) for names in answer["records"]]
        right = [record.trace().outcome(answer["threshold"])[0].mean() for record in made]
        assert np.mean(right) == pytest.approx(answer["accuracy"])
    assert answer["low"] <= answer["saved"] <= answer["high"]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["ic", "kws", "vww"])
def test_the_answer_names_what_other_commands_take(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Records with weights, which `export` and `device` need; `curve` gives what the answer says, but for the seed."""
    assert main(["recommend", "--task", task]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    names = rows["records"].split()
    assert all(open_record(name).weights.is_file() for name in names)
    cut = [word for key in ("exits", "end") if key in rows for word in (f"--{key}", rows[key].strip('"'))]
    assert main(["curve", *names, "--mix", rows["mix"], *cut, "--points", "0", "--json"]) == 0
    curve = json.loads(capsys.readouterr().out)
    point = min(curve, key=lambda row: abs(row["threshold"] - float(rows["threshold"])))
    assert point["accuracy"] == pytest.approx(100 * float(rows["accuracy"]), abs=1.5)
    assert 1 - point["flops"] / alike(task).methods["baseline"][0].cost()[-1] == pytest.approx(
        float(rows["saved"]), abs=0.06
    )


def test_two_networks_cannot_be_cut_short(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["kws-baseline-width0.25-fast14-seed0", "kws-baseline-fast14-seed0"]
    assert main(["curve", *names, "--end", "block1"]) == 2
    assert "exits and end cut one network short: give one record" in capsys.readouterr().err


def test_loss_and_budget_are_two_questions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", "--task", "kws", "--loss", "1", "--budget", "2"]) == 2
    assert "give one of them" in capsys.readouterr().err


def test_an_answer_without_any_exit_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--exits ""` of a shell; nothing would be the network with all its exits."""
    best = Recommendation("SDN, no exit", None, 0.1, 0.0, 0.2, 0.9, 0.0, 5, 1.0, ((KWS_SDN,),), 0.0, (), "")
    monkeypatch.setattr("trecx.analysis.choice.recommend", lambda found, **limits: best)
    assert main(["recommend", "--task", "kws"]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (rows["exits"], "end" in rows) == ('""', False)
    for words, exits in (((), 4), (("--exits", ""), 1)):
        assert main(["curve", KWS_SDN, *words, "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)[0]["shares"]) == exits


@pytest.mark.parametrize("run", [Run("kws", "nested", narrow=(0.25, 0.5)), Run("vww", "two_resolutions")])
def test_a_network_whose_answers_are_complete_networks_is_not_cut_short(run: Run, tmp_path: Path) -> None:
    record = write_record(run, tmp_path, n=240)
    with pytest.raises(TrecxError, match=f"a network of method '{run.method}' has no exits in its trunk"):
        shorten(record, [])
    found = write_results(tmp_path, run.task)
    found.variants[f"{run.method}, more"] = [record]
    label = label_of(f"{run.method}, more")
    assert [one.label for one in candidates(found) if one.label.startswith(label)] == [label]
