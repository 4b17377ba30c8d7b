"""What goes beyond the paper: the table of savings with its price, held against a second way to compute each cell."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trecx.analysis import beyond, gates, together
from trecx.analysis.beyond import Benchmark
from trecx.analysis.choice import MIX
from trecx.analysis.compare import interpolation
from trecx.cli import main
from trecx.evaluation.points import chosen_point
from trecx.evaluation.stats import paired_difference
from trecx.experiments.composed import cascade, peak_memory
from trecx.experiments.records import Record
from trecx.experiments.results import Results, alike, gather, widened
from trecx.experiments.runs import Run
from trecx.report import catalogue, figures
from trecx.report.style import WAYS

from .small import write_record, write_results

pytestmark = pytest.mark.slow  # each builds every table of a benchmark from records


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Results]:
    root = tmp_path_factory.mktemp("records")
    return {task: write_results(root, task) for task in ("ic", "kws")}


@pytest.fixture(scope="module")
def table(found: dict[str, Results]) -> pd.DataFrame:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beyond, "RESAMPLES", 20)
        patch.setattr(beyond, "DROPS", (5, 0))
        return beyond.savings(found)


def test_the_straight_line_between_two_networks() -> None:
    """From 90 % down to 89: a third of the way between 89.5 and 88; the last that is reached is not passed."""
    assert interpolation([90, 89.5, 88, 92], 89).tolist() == pytest.approx([0, 2 / 3, 1 / 3, 0])
    assert interpolation([90, 88], 90).tolist() == [1, 0]
    assert interpolation([90, 91, 90], 89).tolist() == [0, 0, 1]
    assert interpolation([90], 89).tolist() == [1]


def test_what_a_teacher_gives_is_held_against_a_taught_baseline(found: dict[str, Results], tmp_path: Path) -> None:
    """Records are made anew: as the module's, but the small and the whole network were taught."""
    assert beyond.equally_taught(found["kws"]) is None
    assert beyond.taught(found).empty

    def seeds(accuracy: float, number: int, **settings: Any) -> list[Record]:
        runs = [Run("kws", "baseline", seed=s, **settings) for s in range(number)]
        return [write_record(run, tmp_path, 240, accuracy) for run in runs]

    plain, whole = seeds(0.85, 3), seeds(0.9, 2, teacher="baseline")
    small, untaught = seeds(0.88, 3, teacher="baseline", width=0.5), seeds(0.86, 3, width=0.25)
    variants = {"baseline, taught by the baseline": whole, "baseline, width 0.5, taught by the baseline": small}
    results = Results("quick", "kws", {"baseline": plain}, static={"width 0.25": untaught}, variants=variants)
    alone = beyond.equally_taught(results)
    assert alone is not None
    assert {tuple(r.name for r in records) for records in alone.named.values()} == {
        tuple(r.name for r in records) for records in (whole, small)
    }
    (row,) = beyond.taught({"kws": results}).to_dict("records")
    assert row["trainings"] == 2
    assert row["network"] == "width 0.5 first, taught by the baseline, then the baseline"
    for key, records in (("taught", whole), ("untaught", plain)):
        assert row[key] == pytest.approx(100 * np.mean([r.accuracies()[-1] for r in records]))
    both = [cascade(a, b) for a, b in zip(small[:2], whole, strict=True)]
    targets = [np.mean([r.accuracies(split)[-1] for r in whole]) - 0.01 for split in ("val", "test")]
    points = [chosen_point(r.trace("val"), r.trace(), *targets, whole[0].cost()[-1]) for r in both]
    assert row["saved"] == pytest.approx(np.mean([100 * p.reduction if p.reached else 0 for p in points]))
    # Nobody is measured against an untaught network with a taught whole one behind it.
    assert not [one.label for one in Benchmark(results).candidates if one.label.endswith("then taught by the baseline")]


def test_a_cheaper_head_is_held_against_the_papers(found: dict[str, Results], tmp_path: Path) -> None:
    assert beyond.cheaper_head({task: Benchmark(of) for task, of in found.items()}).empty  # nobody trained one
    here = {}
    for task, of in found.items():
        made = {
            name: [write_record(Run(task, name, seed=seed), tmp_path, 240, accuracy) for seed in range(3)]
            for name, accuracy in (("trecx_no_ev", 0.7), ("trecx_stride_first", 0.8))
        }
        here[task] = Benchmark(replace(of, methods=of.methods | made))
    frame = beyond.cheaper_head(here, 5).set_index("task")
    assert frame.index.tolist() == ["ic", "kws", "mean"]
    for task, on in here.items():
        for column, method in (("own", "trecx_ev"), ("no EV", "trecx_no_ev"), ("saved", "trecx_stride_first")):
            (one,) = (one for one in on.candidates if one.records is on.found.methods[method])
            assert frame.loc[task, column] == pytest.approx(beyond.saving(on, one, 5, 0).saved.mean())
    for column in ("own", "no EV", "saved", "given up"):
        assert frame.loc["mean", column] == pytest.approx(frame.loc[["ic", "kws"], column].mean())
    made = {task: on.found.methods["trecx_stride_first"][0] for task, on in here.items()}
    for column, shares in (
        ("parameters", {task: record.params / here[task].baseline[0].params for task, record in made.items()}),
        ("worst case", {task: record.cost()[-1] / here[task].base for task, record in made.items()}),
    ):
        assert frame[column].to_dict() == pytest.approx(
            {k: 100 * v for k, v in shares.items()} | {"mean": 100 * max(shares.values())}
        )
    head = next(one for one in here["ic"].candidates if one.records is here["ic"].found.methods["trecx_stride_first"])
    assert head.family == "exits"  # not the paper's


def test_exits_that_are_trained_alone_are_held_against_the_end_of_their_trunk(tmp_path: Path) -> None:
    def seeds(method: str, accuracy: float | list[float], **settings: Any) -> list[Record]:
        runs = [Run("vww", method, "vww96", "finetune", seed=s, start="mlperf_tiny", **settings) for s in range(3)]
        return [write_record(run, tmp_path, 240, accuracy) for run in runs]

    whole = seeds("baseline", 0.8)
    heads = seeds("sdn_fair", [0.6, 0.85, 0.9], frozen=True, taps=("layer4", "layer8"))
    here = Benchmark(Results("quick", "vww", {"baseline": whole}, frozen={"sdn_fair": heads}))
    (row,) = beyond.heads_alone({"vww": here}).to_dict("records")
    ends = {split: float(np.mean([r.accuracies(split)[-1] for r in heads])) for split in ("val", "test")}
    assert row["released"] == pytest.approx(100 * ends["test"])
    assert row["trained"] == pytest.approx(100 * np.mean([r.accuracies()[-1] for r in whole]))
    best = here.best("exits", 1)
    assert best is not None
    targets = ends["val"] - 0.01, ends["test"] - 0.01
    traces = [(one.trace("val"), one.trace()) for one in best[0].records]
    points = [chosen_point(*both, *targets, whole[0].cost()[-1]) for both in traces]
    assert row["saved"] == pytest.approx(np.mean([100 * p.reduction if p.reached else 0 for p in points]))
    assert not beyond.heads_alone({"vww": Benchmark(Results("quick", "vww", {"baseline": whole}))}).size


@pytest.mark.parametrize(("whole", "kept"), [(0.9, 3), (0.6, 0)])
def test_all_of_a_nested_network_is_held_against_the_unmodified_one(tmp_path: Path, whole: float, kept: int) -> None:
    def seeds(method: str, accuracy: Any, width: float = 1.0) -> list[Record]:
        return [write_record(Run("kws", method, seed=s, width=width), tmp_path, 2000, accuracy) for s in range(3)]

    def nested(found: Results) -> pd.DataFrame:
        here = {"kws": Benchmark(found)}
        return beyond.nested(beyond.savings({"kws": found}, here=here, drops=[1], memory=False), here)

    methods = {"baseline": seeds("baseline", 0.8), "nested": seeds("nested", [0.1, whole])}
    half = seeds("baseline", 0.6, 0.5)
    found = Results("quick", "kws", methods, static={"width 0.5": half})
    (row,) = nested(found).to_dict("records")
    plain, inside = methods["baseline"], methods["nested"]
    assert row["cost"] == pytest.approx(100 * inside[0].cost()[-1] / plain[0].cost()[-1])
    assert row["whole"] == pytest.approx(100 * np.mean([r.trace().final_accuracy for r in inside]))
    assert row["unmodified"] == pytest.approx(100 * np.mean([r.trace().final_accuracy for r in plain]))
    first, share = half[0].cost()[0] / plain[0].cost()[0], row["cost"] / 100
    low, high = np.mean([r.trace().final_accuracy for r in half]), row["unmodified"] / 100
    assert row["smaller"] == pytest.approx(100 * (low + (high - low) * (share - first) / (1 - first)))
    assert row["reached"] == f"{kept} of 3"
    assert (row["saved"] > 0) == bool(kept)
    (row,) = nested(Results("quick", "kws", methods)).to_dict("records")
    assert np.isnan(row["smaller"])  # no smaller network was trained
    assert nested(Results("quick", "kws", {"baseline": plain, "sdn": seeds("sdn", 0.7)})).empty


def test_a_mixed_answer_keeps_a_share_of_the_one_before(found: dict[str, Results]) -> None:
    """Each saving again from a network's own loop over samples; T-RecX has two exits, SDN four."""
    here = Benchmark(found["kws"])
    table = beyond.mixing({"kws": found["kws"]}).set_index(["drop", "way"])
    wanted = here.val.mean() - 0.01
    for way in ("trecx", "exits"):
        best = here.best(way, 1)
        assert best is not None
        spent = []
        for record in best[0].records:
            probabilities = np.exp(record.predictions["val_log_probs"])
            for k in range(1, probabilities.shape[1]):
                probabilities[:, k] = 0.3 * probabilities[:, k - 1] + 0.7 * probabilities[:, k]
            right = probabilities.argmax(2) == record.predictions["val_labels"][:, None]
            cost = record.cost() + 36 * np.arange(probabilities.shape[1])  # of 12 classes
            cheapest = here.base
            for threshold in np.unique(probabilities.max(2)[:, :-1]):
                leaves = [next((k for k, p in enumerate(row) if p > threshold), len(row)) for row in
                          probabilities.max(2)[:, :-1]]  # fmt: skip
                if np.mean([r[k] for r, k in zip(right, leaves, strict=True)]) >= wanted - 1e-9:
                    cheapest = min(cheapest, cost[leaves].mean())
            spent.append(cheapest)
        assert table.loc[(1, beyond.ROWS[way]), "0.3"] == pytest.approx(100 * (1 - np.mean(spent) / here.base), abs=1)
        assert table.loc[(1, beyond.ROWS[way]), "0"] == pytest.approx(best[1])
    both, plain = (here.best("cascade", 1, mixed=mixed) for mixed in (True, False))
    assert both is not None
    assert plain is not None
    row = table.loc[(1, beyond.ROWS["cascade"])]
    assert both[1] == pytest.approx(max(row["0"], row["0.3"]))
    assert plain[1] == pytest.approx(row["0"])


def test_mixing_is_held_against_the_best_without_it_on_test(found: dict[str, Results]) -> None:
    here = beyond.benchmarks(found)
    table = beyond.mixing_on_test(here)
    for (task, drop), rows in table.groupby(["task", "drop"]):
        assert rows["mixed"].tolist() == ["yes", "no"]
        for row, mixed in zip(rows.to_dict("records"), (True, False), strict=True):
            best = here[str(task)].best("cascade", drop, mixed=mixed)
            assert best is not None
            assert row["network"] == best[0].label
            expected = beyond.saving(here[str(task)], best[0], drop, best[1]).row(memory=False)
            assert [row[key] for key in ("saved", "given up", "reached")] == [
                expected[key] for key in ("saved", "given up", "reached")
            ]
    assert beyond.mixing_on_test({}).columns.tolist() == table.columns.tolist()
    both = [(task, drop) for task in found for drop in beyond.DROPS]
    mixes = [pair for pair in both if (best := here[pair[0]].best("cascade", pair[1])) and best[0].mix]
    assert {*table.groupby(["task", "drop"]).groups} == {*mixes} if mixes else table.empty


def test_no_share_of_the_answers_saves_half_a_point_more_on_the_validation_images_of_cifar_10() -> None:
    """The share was chosen there, before the baseline had five trainings."""
    table = beyond.mixing({"ic": alike("ic")})
    (row,) = table[(table["drop"] == 1) & (table["way"] == beyond.ROWS["cascade"])].to_dict("records")
    assert max(row[f"{share:g}"] for share in beyond.SHARES) - row[f"{MIX:g}"] < 0.5


@pytest.mark.parametrize(("accuracy", "kept"), [(0.85, False), (0.89, True)])
def test_a_coin_between_two_networks_beats_a_third(tmp_path: Path, accuracy: float, kept: bool) -> None:
    """3/4 of the filters cost 61 % of DS-CNN, half of them 31 %: the line from 84 to 90 % passes there at 86.6 %."""

    def seeds(accuracy: float, width: float = 1.0) -> list[Record]:
        runs = [Run("kws", "baseline", seed=s, width=width) for s in range(3)]
        return [write_record(run, tmp_path, 4000, accuracy) for run in runs]

    static = {f"width {width:g}": seeds(right, width) for width, right in ((0.75, accuracy), (0.5, 0.84))}
    here = Benchmark(Results("quick", "kws", {"baseline": seeds(0.9)}, static=static))
    found = [float(np.mean([t.final_accuracy for t in one.traces("val")])) for one in here.made[:3]]
    costs = [one.records[0].cost()[-1] / here.base for one in here.made[:3]]
    line = found[2] + (found[0] - found[2]) * (costs[1] - costs[2]) / (1 - costs[2])
    assert (found[1] > line) == kept
    labels = ["Baseline", *["Baseline, width 0.75"] * kept, "Baseline, width 0.5"]
    assert [one.label for one in here.ladder] == labels


def test_every_way_has_a_row_on_every_task(table: pd.DataFrame) -> None:
    ways = [title for way, title in beyond.ROWS.items() if way != "nested"]  # no such record here
    for drop in (5, 0):
        rows = table[table["drop"] == drop]
        for task in ("ic", "kws"):
            assert rows.loc[rows["task"] == task, "way"].tolist() == ways
        assert rows.loc[rows["task"] == "mean", "way"].tolist() == [*ways, "chosen on each task"]


def test_rows_are_means_over_seeds_with_a_miss_as_nothing(found: dict[str, Results], table: pd.DataFrame) -> None:
    for task, runs in found.items():
        base = runs.methods["baseline"]
        targets = [np.mean([r.accuracies(split)[-1] for r in base]) for split in ("val", "test")]
        for drop in (5, 0):
            row = table[(table["task"] == task) & (table["drop"] == drop) & (table["way"] == "T-RecX")].iloc[0]
            saved, lost = [], []
            for record in runs.methods["trecx_ev"]:
                point = chosen_point(
                    record.trace("val"), record.trace(), targets[0] - drop / 100, baseline_cost=base[0].cost()[-1]
                )
                saved.append(100 * point.reduction if point.reached else 0.0)
                lost.append(100 * (targets[1] - point.accuracy) if point.reached else 0.0)
            assert row["saved"] == pytest.approx(np.mean(saved))
            assert row["given up"] == pytest.approx(np.mean(lost))
            assert row["parameters"] == runs.methods["trecx_ev"][0].params
            assert row["memory"] == peak_memory(runs.methods["trecx_ev"][0]) / 1024
    here = Benchmark(found["kws"])
    (paper,) = (one for one in here.made if one.label == "T-RecX")
    missed = beyond.saving(here, paper, 100 * (here.val.mean() - 0.98), 0)  # nobody is right so often
    assert (missed.reached, missed.saved.tolist(), missed.given_up.tolist()) == (0, [0, 0, 0], [0, 0, 0])
    assert missed.gain == (0, 0, 0)


def test_the_row_of_a_cascade_names_its_price(found: dict[str, Results], table: pd.DataFrame) -> None:
    row = table[(table["task"] == "kws") & (table["drop"] == 5) & (table["way"] == beyond.ROWS["cascade"])].iloc[0]
    small, whole = found["kws"].static["width 0.5"][0], found["kws"].methods["baseline"][0]
    assert row["network"] == "width 0.5 first, then the baseline"
    assert row["parameters"] == small.params + whole.params
    assert row["worst case"] == pytest.approx(100 * (1 + small.cost()[-1] / whole.cost()[-1]))
    assert row["memory"] == 16_000 / 1024
    assert row["low"] <= row["saved"] <= row["high"]


def test_what_is_gained_over_a_smaller_network_of_the_same_cost(found: dict[str, Results]) -> None:
    here = Benchmark(found["kws"])
    assert here.ladder[0].label == "Baseline"
    costs = [rung.records[0].cost()[-1] for rung in here.ladder]
    assert costs == sorted(costs, reverse=True)
    best = here.best("cascade", 1)
    assert best is not None
    one = best[0]
    line = beyond.saving(here, one, 5, best[1])
    outcomes = []
    for record in one.records:
        point = chosen_point(record.trace("val"), record.trace(), here.val.mean() - 0.05)
        assert point.reached
        outcomes.append(record.trace().outcome(point.threshold))
    cost = np.mean([paid for _, paid in outcomes])
    k = next(i for i, c in enumerate(costs) if c < cost)  # between network k - 1 and network k
    share = (costs[k - 1] - cost) / (costs[k - 1] - costs[k])
    theirs = [
        (1 - share) * here.ladder[k - 1].records[s].trace().correct[:, -1]
        + share * here.ladder[k].records[s].trace().correct[:, -1]
        for s in range(3)
    ]
    expected = paired_difference(np.stack([right for right, _ in outcomes]), np.stack(theirs)).in_points()
    assert line.gain == pytest.approx(expected)


def test_networks_without_exits_are_interpolated_by_seed(found: dict[str, Results]) -> None:
    here = Benchmark(found["ic"])
    line = beyond.static_saving(here, 5)
    assert line is not None
    costs = np.array([rung.records[0].cost()[-1] for rung in here.ladder])
    for seed in range(3):
        accuracies = [here.val.mean(), *(rung.records[seed].accuracies("val")[-1] for rung in here.ladder[1:])]
        weights = interpolation(accuracies, here.val.mean() - 0.05)
        assert line.saved[seed] == pytest.approx(100 * (1 - weights @ costs / costs[0]))
    without = []  # what is saved on the mean if one training of the unmodified network were not there
    for top in (np.delete(here.val, k, axis=0).mean() for k in range(len(here.val))):
        theirs = [[top, *(r.records[s].accuracies("val")[-1] for r in here.ladder[1:])] for s in range(3)]
        without.append(np.mean([100 * (1 - interpolation(row, top - 0.05) @ costs / costs[0]) for row in theirs]))
    assert line.reference.trainings == len(here.val)
    assert line.reference.variance == pytest.approx((len(without) - 1) * np.var(without))
    assert line.reference.variance > 0
    smaller = here.ladder[1:]
    best = max(np.mean([r.accuracies("val")[-1] for r in rung.records]) for rung in smaller)
    assert np.mean([r.accuracies("val")[-1] for r in smaller[0].records]) == best  # none that a cheaper one equals


def test_the_mean_is_that_of_the_tasks(table: pd.DataFrame) -> None:
    for drop in (5, 0):
        rows = table[table["drop"] == drop].set_index(["task", "way"])["saved"]
        for way in ("T-RecX", beyond.ROWS["cascade"]):
            assert rows["mean", way] == pytest.approx((rows["ic", way] + rows["kws", way]) / 2)


def test_one_way_of_a_task_is_chosen_on_validation(
    found: dict[str, Results], table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beyond, "DROPS", (5, 0))
    for task, runs in found.items():
        here = Benchmark(runs)
        for drop in (5, 0):
            rows = table[(table["task"] == task) & (table["drop"] == drop)]
            (row,) = rows[rows["chosen"] == "yes"].to_dict("records")
            bests = {way: here.best(way, drop) for way in beyond.ROWS if way != "static"}
            scores = {beyond.ROWS[way]: best[1] for way, best in bests.items() if best}
            assert scores[row["way"]] == max(scores.values())
    assert set(table.loc[table["task"] == "mean", "chosen"]) == {""}


def test_what_was_tried_has_every_trained_setting(found: dict[str, Results]) -> None:
    frame = beyond.tried(found)
    for _, rows in frame.groupby("task"):
        assert sorted(rows["network"]) == ["SDN", "T-RecX", "width 0.5 first, then the baseline"]
        assert rows["saved"].is_monotonic_decreasing
    paper = frame[(frame["task"] == "kws") & (frame["network"] == "T-RecX")].iloc[0]
    here = Benchmark(found["kws"])
    (one,) = (one for one in here.made if one.label == "T-RecX")
    assert paper["saved"] == pytest.approx(beyond.saving(here, one, 1, 0).saved.mean())


def test_figures_show_every_way_and_every_answer(found: dict[str, Results]) -> None:
    (panel,) = figures.ways(Benchmark(found["kws"])).axes
    labels = panel.get_legend_handles_labels()[1]
    assert labels == ["Baseline", "T-RecX", *(beyond.ROWS[way] for way in ("exits", "cascade", "static"))]
    frame = beyond.answers(found)
    assert len(frame) == sum(1 + 1 + 1 + len(runs.methods["sdn"][0].cost()) - 1 for runs in found.values())
    panels = figures.answers(frame).axes
    assert [panel.get_title() for panel in panels] == ["CIFAR-10, ResNet-8", "Speech Commands, DS-CNN"]


def test_looks_of_the_ways_differ() -> None:
    for key in ("color", "linestyle", "marker"):
        assert len({WAYS[way][key] for way in WAYS}) >= 3
    assert len({tuple(sorted(look.items())) for look in WAYS.values()}) == len(WAYS)


def test_every_table_has_units_and_formats_for_columns_that_it_has(
    found: dict[str, Results], table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "show_table", lambda *args, **kwargs: None)
    frames = {"savings": table, "answers": beyond.answers(found), "recommendations": beyond.recommendations(found)}
    frames["tried"] = beyond.tried(found)
    frames |= {"mixing": beyond.mixing(found), "gates": gates.gates(found)}
    frames["mixed"] = beyond.mixing_on_test(beyond.benchmarks(found))
    for name, shown in catalogue.BEYOND.items():
        frame = frames[name]
        assert {*shown.units, *shown.formats} <= {*frame.columns}, name
        if name != "mixed" or len(frame):  # made-up answers may gain nothing from mixing
            shown.show(frame)
    made = frames["recommendations"]
    assert len(made) == 2 * 3 * 2
    assert (made.loc[made["guarantee"] == "none", "loss"].unique() == [0, 1, 2]).all()


@pytest.mark.slow
def test_published_savings(capsys: pytest.CaptureFixture[str]) -> None:
    """T-RecX saves what the headline says, and what single runs had shown before is there."""
    assert main(["results", "beyond", "savings", "--json"]) == 0
    rows = pd.DataFrame(json.loads(capsys.readouterr().out))
    saved = rows[rows["drop"] == 1].set_index(["task", "way"])["saved"]
    for task, runs in gather("published").items():
        headline = np.nan_to_num(together.saved(runs.methods, task)["own baseline", "validation"]).mean()
        assert saved[task, "T-RecX"] == pytest.approx(headline)
    assert saved["kws", beyond.ROWS["cascade"]] > 70
    assert saved["vww", beyond.ROWS["exits"]] > 48
    assert saved["mean", "chosen on each task"] > 50
    # What chapter 05 advises: a smaller network first, but on images of people exits in the trunk.
    chosen = rows[(rows["drop"] == 1) & (rows["chosen"] == "yes")].set_index("task")["way"]
    assert chosen.to_dict() == {
        "ic": beyond.ROWS["cascade"],
        "kws": beyond.ROWS["cascade"],
        "vww": beyond.ROWS["exits"],
    }
    # Chapter 05: with a cheaper head T-RecX saves about what a smaller network saves, and more than with the paper's.
    head = (
        beyond.cheaper_head(beyond.benchmarks(widened("published", gather("published")))).set_index("task").loc["mean"]
    )
    assert abs(head["saved"] - saved["mean", beyond.ROWS["static"]]) < 3
    assert head["low"] > head["own"]
    assert saved["vww", beyond.ROWS["cascade"]] < saved["vww", beyond.ROWS["static"]]
