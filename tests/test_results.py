"""The tables of published results: the committed records give them, and nothing is trained."""

import json
from dataclasses import replace

import numpy as np
import pytest

from trecx import cli, paths
from trecx.analysis import benchmark, tables
from trecx.analysis.claims import CONCAT_ALIKE
from trecx.analysis.compare import difference
from trecx.analysis.saving import saving
from trecx.errors import TrecxError
from trecx.experiments.records import Record
from trecx.experiments.results import Results, alike, published
from trecx.experiments.runs import settings
from trecx.models import methods
from trecx.paper import paper
from trecx.report.catalogue import TABLES, table


@pytest.fixture(scope="module")
def cifar10() -> Results:
    return published("cifar10")


@pytest.fixture(scope="module")
def speech() -> Results:
    return published("speech_commands")


@pytest.fixture(scope="module")
def trained() -> Results:
    return published("vww96_finetune")


def test_standalone_is_the_mean_over_seeds(cifar10: Results) -> None:
    frame = benchmark.standalone(cifar10)
    for name, records in cifar10.methods.items():
        expected = np.mean([100 * r.accuracies() for r in records], axis=0)
        label = methods.label_of(name)
        assert frame.loc[frame["method"] == label, "accuracy"].to_numpy() == pytest.approx(expected)
    assert frame.set_index(["method", "exit"]).loc[("T-RecX", "final"), "authors' weights"] == pytest.approx(87.40)


def test_baseline_reaches_the_papers_accuracy_within_half_a_point(cifar10: Results) -> None:
    printed = paper()["table_1"]["ic"]["baseline"]["accuracy"]
    assert np.mean([100 * r.accuracies()[-1] for r in cifar10.methods["baseline"]]) > printed - 0.5


def test_every_run_shares_recipe_and_data(cifar10: Results) -> None:
    # Older manifests lack the fields that recipes got later.
    assert len({json.dumps(settings(r)["recipe"], sort_keys=True) for r in cifar10.records}) == 1
    assert {r.manifest["data"]["checksum"] for r in cifar10.records} == {
        cifar10.records[0].manifest["data"]["checksum"]
    }
    assert {tuple(r.manifest["data"]["sizes"].values()) for r in cifar10.records} == {(45000, 5000, 10000)}


def test_savings_name_a_miss(cifar10: Results) -> None:
    """A mean over seeds that did not all reach the accuracy is not given."""
    frame = benchmark.all_savings(cifar10)
    reached = frame["reached"].map(lambda text: text.split(" of ")[0] == text.split(" of ")[1])
    assert (frame["saved"].notna() == reached).all()


def test_table_1_holds_the_papers_and_the_authors_figures(cifar10: Results) -> None:
    row = benchmark.table_1(cifar10).set_index("quantity")
    assert row.loc["cost at -1 point", "paper"] == 20.04
    assert row.loc["cost at -1 point", "authors' weights"] == pytest.approx(19.825, abs=5e-4)
    assert row.loc["baseline cost", "ours"] == pytest.approx(25.271004)


def test_groups_hold_only_their_own_runs(cifar10: Results) -> None:
    def varied(record: Record) -> dict[str, object]:
        run = record.manifest["run"]
        standard = {"width": 1.0, "extra_classes": 0, "w_early": None, "taps": None}
        return {key: run[key] for key, value in standard.items() if run[key] != value}

    assert all(not varied(r) for rs in cifar10.methods.values() for r in rs)
    assert all({*varied(r)} == {"width"} for rs in cifar10.static.values() for r in rs)
    assert all({*varied(r)} == {"extra_classes"} for r in cifar10.extra_class)
    assert all({*varied(r)} <= {"w_early"} for rs in cifar10.weights.values() for r in rs)


def test_settings_of_sweeps_are_of_sweeps_that_exist() -> None:
    assert {*benchmark.APART, *benchmark.MATERIAL} <= {path.stem for path in paths.SWEEPS.glob("*.yaml")}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("cifar10", "confusion"), "for visual wake words only"),
        (("cifar10", "frozen"), "table frozen is empty"),
        (("cifar10", "frozen-savings"), "table frozen-savings is empty"),
        (("cifar10", "robustness"), "table robustness is empty"),
    ],
)
def test_tables_of_other_tasks_are_refused(arguments: tuple[str, str], says: str) -> None:
    with pytest.raises(TrecxError, match=says):
        table(*arguments)


@pytest.mark.parametrize("name", ["settled", "calibration", "placement-savings", "placement-differences", "classes"])
def test_tables_of_what_else_the_chapters_show(name: str, cifar10: Results) -> None:
    assert len(TABLES[name].compute(cifar10))


def test_classes_are_not_told_of_networks_that_miss_the_accuracy(cifar10: Results) -> None:
    """As the authors coded it, BranchyNet keeps it in no training, so no mean is given."""
    missing = {"trecx_ev": cifar10.methods["branchynet"], "baseline": cifar10.methods["baseline"]}
    assert benchmark.classes(replace(cifar10, methods=missing)).empty


@pytest.mark.parametrize("table", ["standalone", "points"])
def test_tables_of_the_released_weights(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["results", "reference", table, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["task"] for row in rows} >= {"ic", "kws"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("cifar11", "standalone"), "unknown sweep 'cifar11': choose one of"),
        (("cifar10", "standlone"), "unknown table 'standlone': choose one of runs, standalone"),
        (("reference", "runs"), "unknown table 'runs': choose one of standalone, points"),
    ],
)
def test_unknown_names_are_refused(arguments: tuple[str, str], says: str) -> None:
    with pytest.raises(TrecxError, match=says):
        table(*arguments)


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["results", "cifar10", "savings", "--json"]) == 0
    json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def test_what_the_page_says_in_bold_is_in_the_records(cifar10: Results) -> None:
    """The bold statements of 'What surprised us' are words, so the records have to be held against them."""
    groups = cifar10.methods
    assert difference(groups["trecx_ev"], groups["trecx_no_ev"]).high < 0  # early-view assistance does not help
    assert difference(groups["trecx_ev"], groups["baseline"]).estimate < 0  # the final exit gains nothing
    assert difference(groups["trecx_no_ev"], groups["baseline"]).estimate < 0
    copying = difference(groups["trecx_ev"], groups["trecx_no_transfer"])
    assert copying.low < 0 < copying.high
    for method, printed in (("trecx_ev", 73.4), ("branchynet", 72.4), ("sdn", 63.3)):  # the paper's Table 2
        assert np.mean([100 * r.accuracies()[0] for r in groups[method]]) > printed
    narrower = benchmark.static(cifar10).set_index("network")
    assert (narrower.loc[["width 0.875", "width 0.75"], "gain"] < 0).all()  # hard to beat
    assert narrower.loc["width 0.75", "high"] < 0
    early = groups["trecx_ev"][0].manifest["cost"]["flops"][0]
    for small in cifar10.static["width 0.625"]:
        assert small.manifest["cost"]["flops"][-1] < early
        assert small.accuracies()[-1] > max(r.accuracies()[0] for r in groups["trecx_ev"])
    assert difference(groups["trecx_ev"], groups["sdn"]).estimate < 0  # SDN keeps up
    found = saving(groups, 1)  # the paper's saving lies in our interval
    assert found.interval.low < paper()["headline"]["reduction"]["ic"] < found.interval.high
    assert found.reached == len(found.by_seed)


def test_what_the_keyword_spotting_page_says_in_bold_is_in_the_records(speech: Results) -> None:
    groups = speech.groups
    for ours, theirs in (("trecx_ev", "trecx_no_ev"), ("trecx_ev", "trecx_no_transfer"), ("trecx_ev", CONCAT_ALIKE)):
        final = difference(groups[ours], groups[theirs])  # nothing makes a measurable difference
        assert final.low < 0 < final.high
    early = difference(groups["trecx_ev"], groups["trecx_no_ev"], 0)
    assert early.low < 0 < early.high
    against = difference(groups["trecx_ev"], groups["baseline"])  # neither costs the final exit anything nor gives it
    assert against.low < 0 < against.high
    weight = difference(groups["trecx_concat"], groups[CONCAT_ALIKE], 0)  # a point comes with the loss weight alone
    assert weight.low > 0
    assert weight.estimate == pytest.approx(1, abs=0.1)
    assert difference(groups["baseline_ee"], groups["trecx_ev"], 0).low > 0
    places = speech.places["trecx_ev"]  # the exit belongs after block 1
    moved = difference(places["block1"], places["block2"])
    assert moved.low < 0 < moved.high
    more = benchmark.placement_savings(speech).set_index(["method", "exit after", "minus"])
    assert more.loc[("T-RecX", "block1", "block2"), "low"] > 0
    near = {  # the advantage is gone near the baseline's accuracy
        tap: tables.method_points({"trecx_ev": places[tap]}, "kws", groups["baseline"], with_paper=False, drops=(0,))
        for tap in ("block1", "block2")
    }
    reached = {
        tap: f.loc[(f["reference"] == "own baseline") & (f["protocol"] == "validation"), "reached"].sum()
        for tap, f in near.items()
    }
    assert reached["block1"] < reached["block2"]
    smaller = benchmark.static(speech).set_index("network")  # the better bargain
    assert smaller.loc["width 0.75", "high"] < 0
    assert (smaller.loc[["width 0.875", "width 0.8125"], "low"] < 0).all()
    (early_path,) = {r.manifest["cost"]["flops"][0] for r in groups["trecx_ev"]}
    for record in speech.static["width 0.5"]:
        assert record.manifest["cost"]["flops"][-1] < early_path
        assert record.accuracies()[-1] > np.mean([r.accuracies()[0] for r in groups["trecx_ev"]])
    rivals = {name: groups[name] for name in ("sdn_fair", "trecx_ev")}  # SDN as published saves more
    points = tables.method_points(rivals, "kws", groups["baseline"], with_paper=False, drops=(1,))
    final = points[(points["reference"] == "own final exit") & (points["protocol"] == "validation")]
    by_seed = final.pivot(index="seed", columns="method", values="reduction").astype(float)
    assert (by_seed["sdn_fair"] > by_seed["trecx_ev"]).all()
    points = points[points["reference"] == "own baseline"].set_index(["protocol", "seed"])
    sdn, ours = (points[points["method"] == name] for name in rivals)
    assert (sdn.loc["paper", "reduction"] > ours.loc["paper", "reduction"]).all()
    assert (~sdn.loc["validation", "reached"].astype(bool)).sum() == 1
    for name in ("branchynet", "branchynet_fair"):  # costs more than it can save
        assert groups[name][0].manifest["cost"]["flops"][0] > groups["baseline"][0].manifest["cost"]["flops"][-1]


def test_what_the_visual_wake_words_page_says_in_bold_of_trained_weights(trained: Results) -> None:
    groups, layers = trained.groups, trained.places["trecx_ev"]
    for ours, theirs in (("trecx_ev", "baseline"), ("trecx_ev", "trecx_no_ev"), ("trecx_ev", "trecx_no_transfer")):
        final = difference(groups[ours], groups[theirs])  # does not mind the exit; adds nothing
        assert final.low < 0 < final.high
    assert difference(groups["trecx_ev"], groups["trecx_no_ev"]).high < 2.9  # the paper's is outside
    dearest, strided, pooled = (
        groups[name][0].manifest["cost"]["flops"][0] for name in ("trecx_ev", "trecx_stride_first", "baseline_ee")
    )
    assert dearest > strided > pooled
    for other in ("trecx_stride_first", "baseline_ee"):
        early = difference(groups[other], groups["trecx_ev"], 0)
        assert early.low < 0 < early.high
    points = benchmark.points(trained)
    points = points[(points["drop"] == 1) & (points["protocol"] == "validation")]
    own, final = (
        points[points["reference"] == name].pivot(index="seed", columns="method", values="reduction").astype(float)
        for name in ("own baseline", "own final exit")
    )
    assert own["baseline_ee"].isna().sum() == 1  # misses in one training
    assert 1.7 < own["sdn_fair"].mean() / own["trecx_ev"].mean() < 2  # nearly twice as much
    assert final["trecx_ev"].mean() < final[["baseline_ee", "trecx_stride_first"]].mean().min()
    third = difference(groups["sdn_fair"], groups["baseline"], 2, against=-1)
    assert third.low < 0 < third.high
    assert difference(layers["layer7"], layers["layer4"], 0).low > 0  # may belong further back
    more = benchmark.placement_savings(trained).set_index(["exit after", "minus"]).loc[("layer4", "layer7")]
    assert more["low"] < 0 < more["high"]
    for record in trained.static["resolution 64"]:  # fewer pixels beat the early exit alone
        assert record.manifest["cost"]["flops"][-1] < dearest
        assert record.accuracies()[-1] > np.mean([r.accuracies()[0] for r in groups["trecx_ev"]])
    fewer = benchmark.static(trained).set_index("network").loc["resolution 80"]
    assert fewer["low"] < 0 < fewer["high"]


def test_what_the_visual_wake_words_page_says_in_bold_of_training_from_scratch() -> None:
    fresh = published("vww96_scratch")
    groups = fresh.groups
    final = difference(groups["trecx_ev"], groups["baseline"])  # better on the test images, and only there
    assert min(final.low, difference(groups["trecx_no_ev"], groups["baseline"]).low) > 0
    validation = difference(groups["trecx_ev"], groups["baseline"], split="val")
    assert validation.low < 0 < validation.high
    for name in ("trecx_ev", "baseline_ee"):  # depth buys little
        assert difference(groups[name], groups["baseline"], 0, against=-1).estimate > -1.5
    copied = difference(groups["trecx_ev"], groups["trecx_no_transfer"])
    assert 0 < copied.low < 0.1  # only just
    view = difference(groups["trecx_ev"], groups["trecx_no_ev"])
    assert view.low < 0 < view.high
    assert difference(groups["trecx_ev"], fresh.static["resolution 64"], 0, against=-1).low > 0  # no better bargain
    half = benchmark.static(fresh, methods=("baseline_ee",)).set_index("network").loc["width 0.5"]
    assert half["low"] > 0


def test_narrower_networks_are_compared_at_equal_cost(cifar10: Results) -> None:
    frame = benchmark.static(cifar10).dropna()
    assert frame["cost with exit"].to_numpy() == pytest.approx(frame["cost"].to_numpy(), rel=0.02)
    assert (frame["with early exit"] - frame["without exit"]).to_numpy() == pytest.approx(frame["gain"].to_numpy())


def test_smaller_networks_are_all_that_were_trained_alike() -> None:
    """Also those of other lists: a page must not hold an exit against fewer or worse rivals than another page does."""
    for name, task in (("cifar10", "ic"), ("speech_commands", "kws"), ("vww96_finetune", "vww")):
        found, everything = published(name), alike(task)
        assert found.static == everything.static
        folders = {record.folder for record in found.records}
        assert folders >= {record.folder for records in found.static.values() for record in records}
        assert len(folders) == len(found.records)
    assert {len(records) for records in published("cifar10").static.values()} == {3}
    assert {len(records) for records in published("speech_commands").static.values()} == {5}
