"""Sentences on what goes beyond the paper: they say what the numbers say, whatever these are."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trecx.analysis import overview as rows
from trecx.analysis.beyond import CHOSEN, COMPLETE, IN_TRUNK, ROWS, SHARES, frontier, late_exits, width_over_depth
from trecx.analysis.gates import ONE
from trecx.analysis.wording import sizes_in_words
from trecx.evaluation.stats import Interval
from trecx.report import beyond, overview
from trecx.report.catalogue import BEYOND

TITLES = {"ic": "CIFAR-10", "kws": "Speech Commands"}
HERE: Any = {task: SimpleNamespace(baseline=[SimpleNamespace(params=1000)]) for task in TITLES}


def saved(*gains: tuple[float, float, float], mean: float = 50.0) -> pd.DataFrame:
    """Rows of `trecx.analysis.beyond.savings`: the chosen way of each task with these gains, and means."""
    made: list[dict[str, Any]] = []
    for task, (gain, low, high) in zip(TITLES, gains, strict=True):
        row = {"task": task, "drop": 1, "way": ROWS["cascade"], "chosen": "yes", "saved": 40.0, "low": np.nan}
        row |= {"reached": "3 of 3"}
        row |= {"high": np.nan, "network": "width 0.625 first, then the baseline", "given up": 0.9, "parameters": 1400}
        made.append(row | {"gain": gain, "gain, low": low, "gain, high": high, "worst case": 140.0})
    for way, value in ((CHOSEN, mean), (ROWS["trecx"], 24.0)):
        row = {"task": "mean", "drop": 1, "way": way, "chosen": "", "saved": value, "low": 20.0, "high": np.nan}
        made.append(row | {"network": "", "given up": 1.0} | dict.fromkeys(["gain", "gain, low", "gain, high"], np.nan))
    frame = pd.DataFrame(made)
    frame.loc[frame["way"] == ROWS["trecx"], ["low", "high"]] = 17.4, 30.1
    frame.loc[frame["way"] == CHOSEN, "low"] = np.nan
    return frame


BETTER, WORSE, ALIKE = (1.0, 0.5, 1.5), (-1.0, -1.5, -0.5), (0.2, -0.3, 0.7)
UNKNOWN = (np.nan,) * 3
MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ((BETTER, BETTER), ""),
        ((BETTER, ALIKE), "On Speech Commands the best way is not measurably better than networks without exits at "
         f"the same cost (by +0.20 [{MINUS}0.30, +0.70] points of accuracy)."),
        ((WORSE, UNKNOWN), "On CIFAR-10 the best way is less accurate than networks without exits at the same cost "
         f"(by {MINUS}1.00 [{MINUS}1.50, {MINUS}0.50] points of accuracy). On Speech Commands the best way has not "
         "been compared often enough with networks without exits at the same cost."),
        ((ALIKE, ALIKE), "On CIFAR-10 and Speech Commands the best way is not measurably better than networks without "
         f"exits at the same cost (by +0.20 [{MINUS}0.30, +0.70] and +0.20 [{MINUS}0.30, +0.70] points of accuracy)."),
    ],
)  # fmt: skip
def test_where_it_is_not_better_is_said(gains: Any, said: str) -> None:
    frame = saved(*gains)
    assert beyond.reservation(frame, TITLES) == said
    assert beyond.sentence(frame, HERE, TITLES).endswith(said or "of the FLOPs.")


def test_a_saving_stands_with_its_price() -> None:
    frame = saved(BETTER, BETTER)
    assert beyond.answer(frame, TITLES) == (
        "The best way saves 50.0 % of the FLOPs on average: 40.0 % on CIFAR-10 (5/8 of the filters first, then the "
        "baseline) and 40.0 % on Speech Commands (5/8 of the filters first, then the baseline). T-RecX saves "
        "24.0 % [17.4, 30.1], smaller networks without exits not known."
    )
    assert beyond.price(frame, HERE, TITLES, "macs") == (
        "The price on CIFAR-10 and Speech Commands: 140 % and 140 % of the unmodified network's parameters, and a "
        "single sample may cost 140 % and 140 % of its MACs."
    )
    said = beyond.sentence(frame, HERE, TITLES)
    assert "up to 140 % of the parameters, and one sample costs up to 140 % of the FLOPs." in said
    assert beyond.means(frame) == "T-RecX 24.0 % [17.4, 30.1]"
    table = beyond.use(frame, HERE, TITLES)
    assert table.count("<tr>") == 3
    assert "<td>smaller network first: 5/8 of the filters</td><td>40.0 %</td><td>140 %</td>" in table


def test_a_number_of_one_or_two_trainings_says_so() -> None:
    frame = saved(BETTER, BETTER)
    frame.loc[frame["task"] == "ic", "reached"] = "1 of 1"
    assert "40.0 % on CIFAR-10 in one training and 40.0 % on Speech Commands." in beyond.sentence(frame, HERE, TITLES)
    assert "(5/8 of the filters first, then the baseline; one training) and" in beyond.answer(frame, TITLES)
    frame.loc[frame["task"] == "ic", "reached"] = "0 of 2"
    assert "40.0 % on CIFAR-10 in two trainings and" in beyond.sentence(frame, HERE, TITLES)


def test_a_page_has_words_and_one_column_for_a_gain() -> None:
    frame = beyond.readable(saved(ALIKE, UNKNOWN), TITLES)
    assert frame["benchmark"].tolist()[:2] == [*TITLES.values()]
    shown = BEYOND["savings"].printed(frame)
    assert shown["gain (points)"].tolist()[:2] == ["+0.20 [-0.30, +0.70]", "-"]
    assert not [column for column in shown if column.startswith("gain, ")]


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("width 0.625 first, then the baseline", "5/8 of the filters first, then the baseline"),
        ("resolution 64", "64 × 64 pixels"),
        ("Nested, widths 0.5, 0.75 inside", "Nested, 1/2 and 3/4 of the filters inside"),
        ("Nested, width 0.25 inside", "Nested, 1/4 of the filters inside"),
        ("SDN (published), ends after layer10", "SDN (published), ends after layer 10"),
        (
            "SDN, after layer4-layer6-layer8, heads alone, exits after layer4, layer6 and layer8, ends after layer10",
            "SDN, heads alone, exits after layers 4, 6 and 8, ends after layer 10",
        ),
        (
            "SDN, exits after layer4, layer5, layer6, layer7 and layer8, ends after layer9",
            "SDN, exits after layers 4 to 8, ends after layer 9",
        ),
        ("SDN, after layer4-layer5", "SDN, after layers 4 and 5"),
        ("SDN, after layer4-layer8, ends after layer10, no exit", "SDN, ends after layer 10, no exit"),
        ("T-RecX, exit after layer7", "T-RecX, exit after layer 7"),
        ("T-RecX, w = 0.1, after block1-block3", "T-RecX, w = 0.1, after blocks 1 and 3"),
    ],
)
def test_sizes_in_words(label: str, words: str) -> None:
    assert sizes_in_words(label) == words


def answers(*triples: tuple[str, float, float], task: str = "ic") -> pd.DataFrame:
    rows = [{"task": task, "kind": k, "share": s, "accuracy": a, "seeds": 3, "fewer": "filters"} for k, s, a in triples]
    return pd.DataFrame(rows)


def test_width_against_depth_is_read_off_the_line_between_complete_networks() -> None:
    frame = answers((COMPLETE, 20, 80), (COMPLETE, 100, 90), (IN_TRUNK, 60, 83), (IN_TRUNK, 70, 82), (IN_TRUNK, 10, 50))
    assert frontier(frame[frame["kind"] == IN_TRUNK])["share"].tolist() == [10, 60]
    (row,) = width_over_depth(frame).to_dict("records")  # at 60 % the line has 85
    assert row == {"task": "ic", "fewer": "filters", "exits": 1, "ahead": 1, "gain": pytest.approx(2)}
    other = answers((COMPLETE, 20, 80), (COMPLETE, 100, 90), (IN_TRUNK, 60, 89), task="kws")
    found = width_over_depth(pd.concat([frame, other]))
    assert beyond.depth_or_width(found, TITLES) == (
        f"Width beats depth on CIFAR-10 (+2.0 points). Width does not beat depth on Speech Commands ({MINUS}4.0 "
        "points)."
    )
    pixels = width_over_depth(other.assign(fewer="pixels"))
    assert beyond.depth_or_width(pixels, TITLES) == (
        f"Fewer pixels do not beat depth on Speech Commands ({MINUS}4.0 points); no narrower network was trained alike "
        "there."
    )
    beaten = answers((COMPLETE, 30, 79), task="kws")  # a narrower network that is no better was trained, too
    assert "Width does not beat" in beyond.depth_or_width(
        width_over_depth(pd.concat([other.assign(fewer="pixels"), beaten])), TITLES
    )
    single = answers((IN_TRUNK, 65, 84)).assign(seeds=1)  # below three trainings: left out where others have them
    assert width_over_depth(pd.concat([frame, single]))["gain"].tolist() == [pytest.approx(2)]
    none = width_over_depth(answers((COMPLETE, 100, 90), (IN_TRUNK, 60, 83)))
    assert np.isnan(none["gain"]).all()
    assert beyond.depth_or_width(none, TITLES).startswith("No exit in a trunk")


def test_the_best_late_exit_is_held_against_the_whole_network() -> None:
    frame = answers((IN_TRUNK, 40, 70), (IN_TRUNK, 55, 82), (IN_TRUNK, 80, 89), (COMPLETE, 100, 90))
    frame["network"] = ["a", "b", "c", "Baseline"]
    found = late_exits(frame)
    assert found.to_dict("records") == [{"task": "ic", "share": 55, "gap": pytest.approx(-8)}]
    assert beyond.late_exits(found, TITLES) == f"{MINUS}8.0 points on CIFAR-10"
    assert beyond.late_exits(late_exits(frame, most=30), TITLES) == "not known"


def test_words_go_between_their_marks() -> None:
    page = f"a {beyond.START}old\\1{beyond.END} b"
    assert beyond.put_into(page, r"n\1w") == rf"a {beyond.START}n\1w{beyond.END} b"


def test_the_first_figure_names_the_best_way() -> None:
    frame = pd.DataFrame(
        [["CIFAR-10", "5/8 of the filters first, then the baseline", "beyond", 0.9, 42.5, np.nan, np.nan]],
        columns=rows.COLUMNS,
    )
    (panel,) = overview.savings(frame).axes
    assert [text.get_text() for text in panel.texts] == ["5/8 of the filters first"]
    assert "best of other ways" in panel.get_legend_handles_labels()[1]


def test_what_a_teacher_gives_in_words() -> None:
    network = "width 0.5 first, taught by the baseline, then the baseline"
    row = {"task": "ic", "trainings": 2, "untaught": 87.34, "taught": 88.0, "network": network}
    frame = pd.DataFrame([row | {"saved": 46.96, "low": np.nan, "high": np.nan, "given up": 1.0}])
    assert beyond.taught(frame, TITLES) == (
        "On CIFAR-10 a trained network taught the small one. Taught in the same way, the unmodified network has "
        "88.00 % of the answers right in place of 87.34 % (two trainings). One point below that, 1/2 of the filters "
        "first, then the baseline, both taught, saves 47.0 %."
    )
    assert "(12 trainings)" in beyond.taught(frame.assign(trainings=12), TITLES)
    assert beyond.taught(frame[:0], TITLES) == ""


def test_what_mixing_adds_in_words() -> None:
    """A remark where what is saved is paid with more accuracy."""
    lost = {(1, "yes"): 1.2, (1, "no"): 1.0, (0, "yes"): -0.1, (0, "no"): 0.0}
    tested = pd.DataFrame(
        [{"task": "ic", "drop": drop, "mixed": kind, "given up": given} for (drop, kind), given in lost.items()]
    )
    columns = {f"{share:g}": [10 + 10 * share, 80.0] for share in SHARES}
    shares = pd.DataFrame({"way": [ROWS["exits"], ROWS["cascade"]], **columns})
    assert beyond.mixed(shares, tested) == (
        "With answers mixed, what the second network says keeps a share of 0.3 of what the first one said; nothing "
        "is trained for it. The table of mixed answers at the end of this page has what it saves on test. Part of what "
        "it saves is accuracy that it gives up. Within one network with exits no share adds more than 5.0 points on "
        "validation."
    )
    assert "gives up. Within" not in beyond.mixed(shares, tested[tested["drop"] == 0])
    assert "Within" not in beyond.mixed(shares[1:], tested)
    assert beyond.mixed(shares, tested[:0]).startswith("Nothing here: ")


def test_other_rules_of_leaving_in_words() -> None:
    """More and less are said where the interval excludes zero; a page shows it beside the difference."""
    a, b = "a threshold a class", "a learned gate"
    numbers = [
        ("ic", ROWS["trecx"], ONE, (np.nan,) * 3, 1.0),
        ("ic", ROWS["trecx"], a, (4.0, 1.0, 7.0), 1.2),
        ("ic", ROWS["trecx"], b, (-1.0, -1.5, -0.5), 0.9),
        ("kws", ROWS["exits"], ONE, (np.nan,) * 3, 1.0),
        ("kws", ROWS["exits"], a, (-1.0, -3.0, 1.0), 1.1),
        ("kws", ROWS["exits"], b, (0.02, -0.5, 0.5), 0.8),
    ]
    keys = ["task", "way", "rule", "more", "more, low", "more, high", "given up"]
    frame = pd.DataFrame([[task, way, rule, *more, lost] for task, way, rule, more, lost in numbers], columns=keys)
    assert beyond.gated(frame, TITLES) == (
        "A threshold a class saves measurably more with 1 of the 2, most with T-RecX on CIFAR-10 (+4.0), and "
        "measurably less with 0. On average it changes what they save by +1.5 percentage points, and what they give up "
        "on test by +0.15 points of accuracy. A learned gate saves measurably more with 0 of the 2, and measurably "
        f"less with 1. On average it changes what they save by {MINUS}0.5 percentage points, and what they give up "
        f"on test by {MINUS}0.15 points of accuracy."
    )
    assert beyond.gated(frame[:0], TITLES).startswith("Nothing here: ")
    page = BEYOND["gates"].printed(beyond.readable(frame, TITLES))
    more = page["more (percentage points)"].tolist()
    assert more[:4] == ["-", "+4.0 [+1.0, +7.0]", "-1.0 [-1.5, -0.5]", "-"]
    assert not [column for column in page if column.startswith("more, ")]


def test_exits_that_are_trained_alone_in_words() -> None:
    row = {"task": "ic", "released": 85.04, "trained": 84.944, "saved": 51.66, "low": 26.7, "high": 76.6}
    said = beyond.heads_alone(pd.DataFrame([row]), TITLES)
    assert said.startswith(
        "On CIFAR-10 the best exits are heads trained alone, on a trunk that stays as it was released."
    )
    assert "has 85.04 % of the answers right" in said
    assert said.endswith("has 84.94 %. One point below the former the exits save 51.7 % [26.7, 76.6].")
    assert beyond.heads_alone(pd.DataFrame(), TITLES) == ""


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"network": "Nested", "saved": 60.0, "low": 55.0, "high": 65.0, "reached": "5 of 5"},
         "a nested network saves 60.0 % [55.0, 65.0] for a point of accuracy. All of it"),
        ({"network": "Nested, taught by its final exit", "saved": 20.0, "low": np.nan, "high": np.nan,
          "reached": "1 of 2"},
         "a nested network (taught by its final exit) saves 20.0 % for a point of accuracy, as 1 of two trainings keep "
         "the accuracy. All of it"),
        ({"network": "Nested, 1/2 of the filters inside", "saved": 0.0, "low": 0.0, "high": 0.0, "reached": "0 of 3"},
         "a nested network (1/2 of the filters inside) saves nothing for a point of accuracy. All of it"),
    ],
)  # fmt: skip
def test_what_a_nested_network_saves_in_words(row: dict[str, Any], said: str) -> None:
    row |= {"task": "ic", "cost": 76.1, "whole": 85.704, "unmodified": 87.34}
    for smaller, words in ((np.nan, "."), (86.24, ", and a smaller one without exits that costs as much 86.24 %.")):
        assert beyond.nested(pd.DataFrame([row | {"smaller": smaller}]), TITLES) == (
            f"On CIFAR-10 {said} costs 76 % and has 85.70 % of the answers right. "
            f"The unmodified network has 87.34 %{words}"
        )
    assert beyond.nested(pd.DataFrame(), TITLES) == ""


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("width 0.625 first, then the baseline", "5/8 of the filters"),
        ("width 0.5 first, taught by the baseline, then the baseline", "1/2 of the filters, taught by the baseline"),
        ("width 0.25 first, then the nested network", "1/4 of the filters, then the nested network"),
    ],
)
def test_what_one_would_use_is_named_in_few_words(network: str, said: str) -> None:
    frame = saved(BETTER, BETTER)
    frame.loc[frame["task"] == "ic", "network"] = network
    assert f"<td>smaller network first: {said}</td>" in beyond.use(frame, HERE, TITLES)


def test_percentages_have_a_true_minus() -> None:
    assert beyond.percent(Interval(3.14, -2.0, 8.28)) == f"3.1 % [{MINUS}2.0, 8.3]"
    assert beyond.percent(Interval(3.14, np.nan, np.nan)) == "3.1 %"
