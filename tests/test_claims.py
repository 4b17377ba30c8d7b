"""Findings as data: what stands in them against hand formulas, how they read, and the limits that decide."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trecx.analysis import claims
from trecx.analysis.claims import CLAIMS, RULES, Material, claims_table, find_claims
from trecx.analysis.compare import curve_gain, judge, judge_all
from trecx.analysis.findings import Evidence, Finding
from trecx.analysis.saving import Saving
from trecx.analysis.wording import WORDING, evidence_text, in_a_line
from trecx.evaluation.stats import Interval, mean_of_means
from trecx.experiments.records import Record
from trecx.experiments.runs import Run
from trecx.paper import paper

from .small import write_record

pytestmark = pytest.mark.slow  # each builds every table of a benchmark from records


def records(method: str, folder: Path, accuracy: float, task: str = "kws", extra: int = 0) -> list[Record]:
    data = {"kws": "speech_commands", "ic": "cifar10"}[task]
    runs = [Run(task, method, data, "fast", seed, extra_classes=extra) for seed in (0, 1, 2)]
    return [write_record(run, folder, 300, accuracy) for run in runs]


def test_a_gain_is_told_with_its_interval_and_the_papers(tmp_path: Path) -> None:
    group = {"trecx_ev": records("trecx_ev", tmp_path, 0.8), "baseline": records("baseline", tmp_path, 0.7)}
    finding = CLAIMS["C3"](Material({"kws": group}))
    assert finding is not None
    (gain,) = finding.evidence
    ours, base = (100 * np.mean([r.accuracies()[-1] for r in rs]) for rs in group.values())
    assert gain.estimate == pytest.approx(ours - base)
    assert gain.low < gain.estimate < gain.high
    assert gain.paper == pytest.approx(92.37 - 92.2)  # Table 1
    assert (gain.label, gain.unit, finding.claim) == ("kws", "points", "C3")
    assert evidence_text(finding).startswith(f"final exit minus baseline, points: kws {gain.estimate:+.2f} [")


def test_savings_are_told_by_seed_with_students_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = {"trecx_ev": records("trecx_ev", tmp_path, 0.8), "baseline": records("baseline", tmp_path, 0.8)}
    found = Saving((35.0, 36.0, 37.0), mean_of_means([[35.0, 36.0, 37.0]]))
    monkeypatch.setattr(claims, "saving", lambda *a: found)
    monkeypatch.setattr(claims, "reductions", lambda *a: np.array([35.0, 36.0, 37.0]))
    finding = CLAIMS["C4"](Material({"kws": group}))
    assert finding is not None
    saved = finding.evidence[0]
    assert saved.by_seed == (35, 36, 37)
    assert saved.high - saved.estimate == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)  # s = 1, two degrees of freedom
    assert finding.verdict == "reproduced"  # the interval reaches the paper's 37.7
    assert evidence_text(finding) == (
        "FLOPs saved one point below the baseline's accuracy, threshold from validation: "
        "kws 36.0 % [33.5, 38.5] (by seed 35.0, 36.0, 37.0; paper protocol 36.0 %; paper 37.7 %)"
    )


def test_exits_are_matched_by_name_whatever_the_order_of_the_papers_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, more = records("trecx_ev", tmp_path, 0.8, "ic"), records("trecx_ev", tmp_path, 0.7, "ic", extra=1)
    turned = deepcopy(paper())
    turned["claims"]["C11"]["accuracy_loss"]["ic"] = {"final": 0.75, "early": 0.54}
    monkeypatch.setattr(claims, "paper", lambda: turned)
    finding = CLAIMS["C11"](Material({"ic": {"trecx_ev": ours}}, extra_class=more))
    assert finding is not None
    for item, exit_index, printed in zip(finding.evidence, (0, 1), (0.54, 0.75), strict=True):
        lost = np.mean([100 * (a.accuracies() - b.accuracies())[exit_index] for a, b in zip(ours, more, strict=True)])
        assert (item.estimate, item.paper) == (pytest.approx(lost), printed)
    assert [item.label for item in finding.evidence] == ["early", "final"]


def test_findings_and_table_say_the_same_and_what_was_left_out(tmp_path: Path) -> None:
    groups = {task: {"baseline": records("baseline", tmp_path, 0.99, task)} for task in ("ic", "kws")}
    material = Material(groups, reasons={"C2": {"ic": "of another kind"}})
    found, table = find_claims(material), claims_table(material).set_index("claim")
    assert [finding.claim for finding in found] == table.index.tolist() == ["C1", "C2"]
    (_, accuracy) = found
    assert (accuracy.verdict, accuracy.notes) == ("reproduced", ("ic left out: of another kind",))
    assert table.loc["C2", "evidence"].endswith("% (paper 92.2); ic left out: of another kind")
    nowhere = Material(groups, reasons={"C2": dict.fromkeys(groups, "of another kind")})
    (_, unsettled) = find_claims(nowhere)
    assert (unsettled.verdict, unsettled.notes) == ("not testable here", ("of another kind, of another kind",))
    assert not find_claims(Material({}))


def test_a_count_may_be_half_a_percent_off(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = claims.printed_counts(["kws"])
    assert set(costs["task"]) == {"kws"}
    for factor, verdict in ((1.0049, "reproduced"), (1.0051, "contradicted")):
        monkeypatch.setattr(claims, "printed_counts", lambda tasks, f=factor: costs.assign(ours=f * costs["printed"]))
        finding = CLAIMS["C1"](Material({"kws": {}}))
        assert finding is not None
        assert finding.verdict == verdict
        assert evidence_text(finding).endswith(f"the largest difference is {100 * (factor - 1):.2f} %")


def test_curves_without_a_common_cost_read_as_such() -> None:
    def text(ours: float, theirs: float) -> str:
        apart = Evidence("ahead", "ic SDN", float("nan"), "%", by_seed=(float("nan"),), sides=(ours, theirs))
        return evidence_text(Finding("C9", "partly", (apart, Evidence("fewer", "ic SDN", -2.0, "%"))))

    assert text(20, 30) == (
        "ahead: ic SDN no common range, its cheapest answer costs more (30.00 MFLOPs) than T-RecX as a whole, "
        "2.0 % more parameters"
    )
    assert "as a whole it costs less (10.00 MFLOPs) than T-RecX's early exit alone" in text(20, 10)


def test_what_the_paper_found_is_outside_an_interval_or_in_it() -> None:
    assert Evidence.of("gain", "ic", Interval(0.1, -0.1, 0.3), paper=0.6).outside
    assert not Evidence.of("gain", "ic", Interval(0.1, -0.1, 0.3), paper=0.3).outside


def test_every_claim_has_a_rule_and_words() -> None:
    assert [*RULES] == [*WORDING] == [*CLAIMS] == [*paper()["claims"]]
    assert RULES["C2"].startswith("the accuracy's interval above one point below the paper's")
    assert "at 99 % of the common costs, with fewer parameters (partly: at half of them" in RULES["C9"]
    assert RULES["C12"].startswith("the saved share of the bytes within five points of the paper's")


@pytest.mark.parametrize(
    ("low", "high", "claimed", "verdict"),
    [
        (0.1, 0.7, 0.6, "reproduced"),
        (0.7, 0.9, 0.6, "reproduced"),  # more than claimed
        (0.1, 0.5, 0.6, "partly"),  # surely something, surely less
        (-0.1, 0.7, 0.6, "not settled"),  # holds zero and the claim
        (-0.1, 0.5, 0.6, "contradicted"),  # excludes the claim
        (-0.7, -0.1, 0.6, "contradicted"),
        (-0.1, 0.1, np.nan, "not settled"),  # a claim without a size
        (-0.2, -0.1, np.nan, "contradicted"),
        (0.1, 0.2, np.nan, "reproduced"),
        (np.nan, np.nan, 0.6, "not settled"),
    ],
)
def test_an_interval_has_one_verdict(low: float, high: float, claimed: float, verdict: str) -> None:
    assert judge(Interval((low + high) / 2, low, high), claimed) == verdict


def test_verdicts_on_several_numbers_are_one() -> None:
    for given, verdict in (
        (("reproduced", "reproduced"), "reproduced"),
        (("reproduced", "contradicted"), "partly"),
        (("partly", "partly"), "partly"),
        (("contradicted", "not settled"), "contradicted"),
        (("not settled", "not settled"), "not settled"),
    ):
        assert judge_all(given) == verdict


def test_a_number_is_told_in_a_line() -> None:
    gain = replace(Evidence.of("gain", "ic", Interval(-0.43, -0.78, -0.08), paper=0.6), verdict="contradicted")
    assert (
        in_a_line(gain)
        == "The paper: +0.60. We: \N{MINUS SIGN}0.43 [\N{MINUS SIGN}0.78, \N{MINUS SIGN}0.08]. Contradicted."
    )
    saved = Evidence(
        "FLOPs saved", "ic", 8.9, "%", -9.0, 26.7, 20.7, by_seed=(17.4, np.nan, 9.1), verdict="not settled"
    )
    assert in_a_line(saved) == (
        "The paper: 20.7 %. We: 8.9 % [\N{MINUS SIGN}9.0, 26.7] (2 of 3 seeds reach the accuracy). Not settled."
    )


def test_a_copy_of_a_method_gains_nothing_over_its_curve(tmp_path: Path) -> None:
    better, worse = records("trecx_ev", tmp_path, 0.9), records("trecx_no_transfer", tmp_path, 0.6)
    assert curve_gain(better, better, resamples=2).estimate == 0
    gain = curve_gain(better, worse)
    assert gain.low > 0
    assert gain.high - gain.low < 30
