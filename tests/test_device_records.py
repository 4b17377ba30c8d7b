"""Device records: damage is told in one sentence where one is opened, and in one line where many are listed."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from trecx import cli, paths
from trecx.analysis import device as tables
from trecx.deploy.export import Export, sha256
from trecx.deploy.records import MACHINE, DeviceRecord, published
from trecx.errors import TrecxError
from trecx.experiments.intact import FORMAT, Damaged, Newer
from trecx.experiments.records import checksum
from trecx.experiments.runs import Run, cost_of
from trecx.models.cascade import shortened
from trecx.models.cost import parameters
from trecx.report import device as figures
from trecx.report.page import draw, drawn
from trecx.report.provenance import origin, provenance

from .small import ALONE, CURVE, change_json, write_device_record, write_record

BASE, EARLY = Run("kws", "baseline", "speech_commands", "fast"), Run("kws", "trecx_ev", "speech_commands", "fast")


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file of a device record with an early exit, beside that of its baseline, in place of the book's."""
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path)
    folder = tmp_path / "device" / MACHINE
    write_device_record(folder, [BASE], [1000], ALONE)
    return write_device_record(folder, [EARLY], [600, 400], CURVE).path


Damage = Callable[[Path], Any]


def content(change: Callable[[bytes], bytes]) -> Damage:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def said(field: str, *value: Any) -> Damage:
    """Another value of a field (numbers in its path are places in a list), or none."""
    return lambda path: change_json(path, field, *value)


def linked(target: str) -> Damage:
    def damage(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return damage


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, tuple[Damage, str]] = {
    "empty": (content(lambda b: b""), "it is no JSON"),
    "cut": (content(lambda b: b[:-9]), "it is no JSON"),
    "binary": (content(lambda b: b"\xff\xfe\0"), "it is no JSON"),
    "deep": (content(lambda b: b"[" * 100_000), "it is no JSON"),
    "a list": (content(lambda b: b"[]"), "it holds list and no set of fields"),
    "a folder": (a_folder, "is damaged (Is a directory)"),
    "a link to nowhere": (linked("nowhere"), "is damaged (No such file or directory)"),
    "a link to itself": (linked(f"{EARLY.name}.json"), "is damaged (Too many levels of symbolic links)"),
    "of another network": (linked(f"{BASE.name}.json"), f"it is of {BASE.name}"),
    "later": (said("format", FORMAT + 1), f"was written by a later version of trecx (format {FORMAT + 1}; this one"),
    "format a text": (said("format", "1"), "format is '1': a whole number is needed"),
    "no runs": (said("runs"), "runs is missing: a list of runs"),
    "runs empty": (said("runs", []), "runs is []"),
    "a run a text": (said("runs.0", "kws"), "runs is ['kws']"),
    "another task": (said("runs.0.task", "asr"), "its runs: unknown task 'asr'"),
    "a run of a later version": (said("runs.0.colour", "red"), "of a later version (its runs: "),
    "rule": (said("rule", "<"), "rule is '<': > or >= is needed"),
    "no cost": (said("cost"), "cost.flops is missing"),
    "a share of all": (said("mix", 1), "mix is 1: a share from 0 to below 1"),
    "a share alone": (said("mix", 0.3), "mix is 0.3: a cascade of two networks has one"),
    "cost falls": (said("cost.macs", [2, 1]), "cost.macs is [2, 1]: a list of rising costs"),
    "cost of one exit": (said("cost.macs", [1]), "cost.macs has 1 exits: stages has 2"),
    "cut short": (said("exits", ["block1"]), f"it is of {EARLY.name}+exits-block1"),
    "an end and no exits": (said("end", "block3"), "end is 'block3': exits says which exits are left before it"),
    "exits a text": (said("exits", "block1"), "exits is 'block1': a list of stages"),
    "bytes a text": (said("bytes.int8", "few"), "bytes.int8 is 'few': a whole number"),
    "no accuracy": (said("accuracy.val"), "accuracy.val.float is missing"),
    "accuracy in percent": (said("accuracy.test.int8", [88, 90]), "accuracy.test.int8 is [88, 90]: a list"),
    "accuracy of one exit": (said("accuracy.test.int8", [0.8]), "accuracy.test.int8 has 1 exits"),
    "no machine": (said("machine", "arm"), "machine.name is missing"),
    "no stages": (said("stages", []), "stages is []: a list of stages"),
    "instructions a text": (said("stages.1.instructions", "1"), "stages[1]: instructions is '1': a whole number"),
    "no decision": (said("stages.0.decision"), "stages[0]: decision is missing"),
    "a stage less": (said("stages.1"), "operations has 2 exits: stages has 1"),
    "no operations": (said("operations"), "operations is missing"),
    "operations a text": (said("operations.0.conv", None), "operations[0]: conv is missing"),
    "flash negative": (said("flash.total", -1), "flash.total is -1"),
    "no RAM": (said("ram", 5), "ram.variables is missing"),
    "checks not finite": (said("checks.host.difference", float("nan")), "checks.host.difference is nan: a number"),
    "no firmware": (said("firmware_sha256"), "firmware_sha256 is missing"),
    "no curve": (said("curve"), "curve.thresholds is missing"),
    "thresholds rise": (said("curve.thresholds", [0, 0.5, 1]), "curve.thresholds is [0, 0.5, 1]: a list of falling"),
    "a point less": (said("curve.val", [0.9]), "curve.val has 1 points: curve.thresholds has 3"),
    "shares of one exit": (said("curve.shares.0", [1]), "curve.shares[0] has 1 exits"),
    "shares add up to 2": (said("curve.shares.0", [1, 1]), "a list of exit rates that add up to 1 is needed"),
    "no shares on validation": (said("curve.val_shares"), "curve.val_shares is missing"),
    "float thresholds": (said("float_thresholds", [5]), "float_thresholds[0] is 5: a set of fields is needed"),
    "a float threshold": (
        said("float_thresholds", [{"drop": 1, "threshold": 0.5, "float": {"accuracy": 0.9, "shares": [1]}}]),
        "float_thresholds[0]: float.shares is [1]: 2 exit rates is needed",
    ),
    "latency": (said("latency", {"points": [{"drop": 1, "shares": [1, 0]}]}), "latency.points[0]: ratio is missing"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "says"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_device_record_is_told_and_stops_no_list(
    early: Path, damage: Damage, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(early)
    with pytest.raises(Newer if "later version of trecx" in says else Damaged) as caught:
        _ = DeviceRecord(early).manifest
    message = str(caught.value)
    assert says in message
    assert message.startswith(str(early))
    assert "\n" not in message
    with pytest.raises(TrecxError):
        published()  # the book is never short of a damaged record
    assert [record.name for record in published(whole=False)] == [BASE.name]
    assert capfd.readouterr().err == f"left out: {message}\n"
    assert cli.main(["results", "device", "costs", "--json"]) == 0
    assert f"left out: {message}\n" in capfd.readouterr().err


def test_whole_ones_and_none_are_listed(early: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert [record.name for record in published()] == [BASE.name, EARLY.name]
    (early.parent / f".{early.name}.1.tmp").write_text("half")
    (early.parent / "notes.txt").write_text("mine")
    away = early.parents[2] / "away.json"
    early.rename(away)
    early.symlink_to(away)  # a link to a whole record is one
    assert len(published()) == 2
    with pytest.raises(TrecxError, match="unknown machine 'arm'"):
        published("arm")
    for path in early.parent.glob("*"):
        path.unlink()
    assert published() == []
    assert capfd.readouterr().err == ""
    assert cli.main(["results", "device"]) == 2
    assert capfd.readouterr().err.endswith("error: table savings is empty: device has no record for it\n")


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1', "\0"])
def test_a_damaged_export_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "export.json").write_text(text)
    (tmp_path / "predictions.npz").write_text(text)
    for field in ("manifest", "predictions"):
        with pytest.raises(Damaged, match="is damaged"):
            getattr(Export(tmp_path), field)


def test_a_figure_says_which_device_records_it_is_drawn_from(
    early: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw=False: shown.append(bundle))
    monkeypatch.setenv("TRECX_COMMAND", "make notebook NB=07_microcontroller")
    monkeypatch.setenv("TRECX_TABLES", str(tmp_path / "tables"))
    cascade = write_device_record(early.parent, [BASE, Run(**{**EARLY.__dict__, "seed": 3})], [10, 20], CURVE)
    records = [*published()]
    assert cascade.name in [record.name for record in records]

    def figure(given: Any) -> Figure:
        made = Figure()
        made.subplots().plot([0, 1], label="line")
        return made

    draw(figure, {"kws": records}, name="fig-toy")
    line = shown[1]["text/plain"]
    assert line.startswith(f"Speech Commands v2 · 2 seeds · 3 records, sha256 {checksum(r.path for r in records)[:12]}")
    assert "drawn by figure" in line
    assert "made by make notebook NB=07_microcontroller" in line
    before = checksum([early])
    said("bytes.int8", 301)(early)
    assert checksum([early]) != before
    run = write_record(BASE, tmp_path / "runs")
    assert checksum([run.folder]) != checksum([run.folder, early])
    rows, note = origin(records, "published")
    provenance(rows, note)
    text = shown[-1]["text/plain"]
    assert text.startswith("Source published · data speech_commands")
    assert "2 seeds (0, 3)" in text
    assert "3 networks and cascades on an emulated Cortex-M4F" in text
    assert "not comparable" not in text


def test_a_point_is_the_cheapest_that_keeps_the_accuracy_on_validation(early: Path) -> None:
    record = DeviceRecord(early)
    point = record.point(0.87)
    assert point is not None
    assert (point["threshold"], point["accuracy"]) == (0.8, 0.86)
    np.testing.assert_array_equal(point["shares"], [0.5, 0.5])
    assert record.point(0.9) is None


# --- The chapter ---

NOTEBOOK = paths.NOTEBOOKS / "07_microcontroller.ipynb"


def test_every_number_of_the_running_text_is_known() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    named = {*re.findall(r"\{glue:text\}`device-([\w-]+):[sd]`|\{device-([\w-]+)\}", text)}
    wanted = {first or second for first, second in named} - {"qute"}
    assert len(wanted) > 30
    assert wanted <= {*tables.in_words(published())}


def test_the_running_text_says_what_the_records_say() -> None:
    """What the sentences of the chapter claim beside their numbers."""
    records = published()
    rows = tables.answer(records).set_index(["data", "network"])
    kws, vww = (rows.loc[(data, "T-RecX")] for data in ("Speech Commands v2", "Visual Wake Words"))
    assert abs(kws["FLOPs"] - kws["instructions"]) < 1
    assert vww["FLOPs"] - vww["instructions"] > 5
    assert np.isnan(rows.loc[("CIFAR-10", "T-RecX")]["FLOPs"])
    (early,) = [r for r in records if r.setting[0] == "cifar10" and [run.method for run in r.runs] == ["trecx_ev"]]
    assert [row["threshold"] for row in early.manifest["float_thresholds"]] == [None, None]  # in float neither
    assert rows.loc[("CIFAR-10", "T-RecX, no EV")][["FLOPs", "instructions"]].is_monotonic_decreasing
    for title, group in tables.benchmarks(records).items():
        assert len({tables.short(record) for record in group}) == len(group)
        base, trecx = group[0], next(r for r in group if [run.method for run in r.runs] == ["trecx_ev"])
        cascades = [r for r in group if len(r.runs) > 1]
        assert base.is_baseline
        assert trecx.manifest["ram"]["total"] < base.manifest["ram"]["total"]
        assert trecx.manifest["ram"]["planned"] >= base.manifest["ram"]["planned"]
        at_one = rows.loc[title]["instructions"]
        if cascades:
            assert at_one.idxmax().startswith("Cascade")
            dearest = max(group, key=lambda r: r.cost("instructions")[-1] / base.cost("instructions")[-1])
            assert dearest in cascades
    cost = {r.name: (r.manifest["flash"]["total"], r.manifest["ram"]["total"]) for r in records}
    nested, plain, cascade = (
        next(v for name, v in cost.items() if name.startswith(start))
        for start in ("kws-nested-", "kws-baseline-fast14", "kws-baseline-width0.375")
    )
    assert plain[0] < nested[0] < cascade[0]
    assert nested[1] > plain[1]
    mixing = "Cascade, taught 1/2 of the filters first"
    assert 0.5 < np.subtract(*rows.loc["CIFAR-10"].loc[[f"{mixing}, mixed", mixing], "instructions"]) < 3
    saved = rows.loc["Speech Commands v2"]["instructions"]
    assert abs(saved["Nested"] - saved["Cascade, 3/8 of the filters first"]) < 2
    exits = tables.accuracies([r for group in tables.benchmarks(records).values() for r in group])
    most = exits[exits["lost"] > 0.5]  # first exits on 1 000 images; all others lose at most half a point
    assert {*most["data"]} == {"Visual Wake Words, from mlperf_tiny"}
    assert {*most["exit"]} == {"1"}
    assert most["lost"].max() < 1.01
    assert tables.costs(records)["decision"].max() < 1


def test_numbers_in_words_by_hand(early: Path) -> None:
    found = tables.in_words(published())
    assert (found["kws-trecx_ev-flops"], found["kws-trecx_ev-given"]) == ("20.0 %", "2.00 points")  # at 0.8: 86 %
    assert found["kws-trecx_ev-instructions"] == f"{100 * (1 - 815 / 1000):.1f} %"
    assert found["kws-trecx_ev-worst"] == "102 %"
    assert found["kws-trecx_ev-first-instructions"] == f"{100 * 610 / 1020:.1f} %"
    assert found["kws-lost"] == "2.00"
    assert found["latency"] == "No record holds it."
    assert found["decision"] == "1.000 %"


def test_of_several_networks_the_text_names_the_one_that_saves_most_on_validation(early: Path) -> None:
    """Also where another saves more on test."""
    for width, val, test in ((0.5, [0.9, 0.1], [0.2, 0.8]), (0.25, [0.6, 0.4], [0.7, 0.3])):
        curve = {"thresholds": [0.5], "val": [0.88], "test": [0.88], "shares": [test], "val_shares": [val]}
        write_device_record(early.parent, [replace(BASE, width=width), BASE], [100, 1000], curve)
    found = tables.in_words(published())
    assert found["kws-cascade-instructions"] == f"{100 * (1 - (110 + 0.8 * 1010) / 1000):.1f} %"
    assert [tables.short(record) for record in published() if len(record.runs) > 1] == [
        "Cascade, 1/4 of the filters first",
        "Cascade, 1/2 of the filters first",
    ]
    taught = write_device_record(early.parent, [replace(BASE, width=0.5, teacher="baseline"), BASE], [100, 1000], curve)
    assert tables.short(taught) == "Cascade, taught 1/2 of the filters first"
    mixed = write_device_record(early.parent, taught.runs, [100, 1000], curve, mix=0.3)
    assert mixed.name == f"{taught.name}+mix0.3"
    assert (tables.short(mixed), mixed.label) == (f"{tables.short(taught)}, mixed", f"{taught.label}, answers mixed")
    three = {"thresholds": [0.5], "val": [0.88], "test": [0.88], "shares": [[0.5, 0.3, 0.2]]}
    runs = [replace(BASE, width=0.25), replace(BASE, method="nested")]
    before = write_device_record(early.parent, runs, [100, 200, 700], three)
    assert tables.short(before) == "Cascade, 1/4 of the filters first, then nested"
    runs[1] = replace(runs[1], teacher="final")
    taught = write_device_record(early.parent, runs, [100, 200, 700], three)
    assert tables.short(taught) == "Cascade, 1/4 of the filters first, then taught nested"
    found = tables.in_words(published())
    assert found["kws-cascade-nested-worst"] == "103 %"
    assert found["kws-cascade-instructions"] == f"{100 * (1 - (110 + 0.8 * 1010) / 1000):.1f} %"


def test_a_network_that_was_cut_short_says_so(early: Path) -> None:
    whole = Run("kws", "sdn_fair", "speech_commands", "fast", taps=("block1", "block2", "block3"))
    left = {"exits": ["block1"], "end": "block3"}
    made = write_device_record(early.parent, [whole], [600, 200], CURVE, **left)
    assert made.name == f"{whole.name}+exits-block1+ends-block3"
    assert made.label == "SDN (published), exit after block1, ends after block3"

    assert tables.short(made) == "SDN (published), ends after block 3"
    assert made.params == parameters(shortened(whole.design.build(), **left))[0] < cost_of(whole).params
    base = replace(BASE, width=0.5)
    assert write_device_record(early.parent, [base], [500], ALONE).params == cost_of(base).params
    alone = write_device_record(early.parent, [whole], [800], ALONE, exits=[], end="block3")
    assert alone.name == f"{whole.name}+no-exit+ends-block3"
    assert tables.short(alone) == "trunk to block 3, no exit"
    assert not any(record.is_baseline for record in (made, alone))
    assert {made.name, alone.name} < {record.name for record in published()}
    assert tables.in_words(published())["kws-sdn_fair-short-worst"] == f"{100 * 820 / 1000:.0f} %"
    change_json(made.path, "exits", ["block1", "block2"])
    made.path.rename(path := made.path.with_name(f"{whole.name}+exits-block1-block2+ends-block3.json"))
    with pytest.raises(Damaged, match=r"exits has 2 exits: stages has 2"):
        _ = DeviceRecord(path).manifest


@pytest.mark.parametrize("name", ["inference", "memory", "saved", "operations", "lost"])
def test_figures_draw_what_the_records_hold(early: Path, name: str) -> None:
    write_device_record(early.parent, [BASE, replace(BASE, seed=1)], [10, 20], CURVE)
    figure = getattr(figures, name)(published())
    shown = drawn(figure)
    assert len(shown)
    if name == "inference":
        ends = shown[shown["series"] == "runs to the end"]["x"].round(8).tolist()
        assert ends == [0, 0.00102, 0.00005]  # the baseline has a bar of its own
        assert figure.axes[0].get_title("left") == "Speech Commands v2"


@pytest.mark.slow
def test_records_of_devices_and_only_those_make_the_chapter_run_again() -> None:
    if not (make := shutil.which("make")):
        pytest.skip("needs make")
    rules = subprocess.run(
        [make, "-np", f"TRECX_PYTHON={sys.executable}"], cwd=paths.ROOT, capture_output=True, text=True, check=False
    ).stdout
    of = {
        name: next(line for line in rules.splitlines() if line.startswith(f"book/notebooks/{name}.ipynb: notebooks/"))
        for name in ("02_keyword_spotting", "06_headline", "07_microcontroller")
    }
    on_a_device = "book/records/device/mps2-an386/kws-baseline-fast14-seed0.json"
    assert on_a_device in of["07_microcontroller"]
    assert "book/records/speech_commands/" not in of["07_microcontroller"]
    assert on_a_device in of["06_headline"]  # the explorer and claim C12
    assert on_a_device not in of["02_keyword_spotting"]


def test_time_in_words_by_hand() -> None:
    rows = {
        "drop": [1, 1, 1, 0],
        tables.LATENCY[0]: [20.0, 30.0, np.nan, 99.0],
        tables.LATENCY[1]: [25.0, 29.0, 50.0, 0.0],
    }
    said = tables._timed(pd.DataFrame(rows))
    assert "0 of 2 networks save no time at all" in said
    assert "lies 2.0 points below that of the FLOPs on average, and at most 5.0 points from it." in said
    assert tables._timed(pd.DataFrame({"drop": [1]})) == "No record holds it."


def test_the_call_of_a_stage_by_hand(tmp_path: Path) -> None:
    """1.5 times the baseline's 0.2 ms, where FLOPs explain 1.02 times (1020 of 1000): 0.096 ms for one more stage."""
    latency = {"samples": 9, "baseline_ms": 0.2, "full_ratio": 1.5, "points": []}
    plain = write_device_record(tmp_path, [BASE], [1000], ALONE)
    assert tables._calling([plain]) == ""
    timed = write_device_record(tmp_path, [EARLY], [610, 410], CURVE, latency=latency)
    said = tables._calling([plain, timed])
    assert "takes 0.10 ms beside its arithmetic (median over 1 networks)" in said


def test_every_published_device_record_can_be_made_again() -> None:
    """From the published weights of its networks, which are those that it was made from."""
    for record in published():
        files = [file for run in record.runs for file in paths.PUBLISHED.glob(f"*/{run.name}/weights.safetensors")]
        assert [sha256(file) for file in files] == record.manifest["weights"], record.name
