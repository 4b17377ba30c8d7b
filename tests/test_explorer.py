"""The explorer: its data against the chapters' tables and `python -m trecx curve`, its page in a browser."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trecx import paths
from trecx.analysis import benchmark, device, explorer
from trecx.analysis.beyond import Benchmark
from trecx.analysis.compare import static_saving
from trecx.deploy.records import DeviceRecord, published
from trecx.errors import TrecxError
from trecx.experiments.records import Record
from trecx.experiments.results import Results, gather
from trecx.experiments.runs import Run
from trecx.models.methods import METHODS
from trecx.report import explorer as page

from .browser import browser
from .small import curve, write_device_record, write_record

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Results]:
    """Two benchmarks: three seeds of an accurate baseline, of T-RecX and SDN, and two narrower networks."""
    root = tmp_path_factory.mktemp("records")

    def made(task: str, data: str, method: str, accuracy: Any, seeds: Any = SEEDS, **given: Any) -> list[Record]:
        runs = [Run(task, method, data, "fast", seed=seed, **given) for seed in seeds]
        return [write_record(run, root, n=500, accuracy=accuracy) for run in runs]

    results = {}
    for task, data in (("ic", "cifar10"), ("kws", "speech_commands")):
        methods = {
            "baseline": made(task, data, "baseline", 0.9),
            "trecx_ev": made(task, data, "trecx_ev", (0.75, 0.9)),
            "sdn_fair": made(task, data, "sdn_fair", np.linspace(0.5, 0.89, 3 if task == "ic" else 4)),
            "branchynet": made(task, data, "branchynet", 0.9, seeds=[0]),
        }
        static = {f"width {w}": made(task, data, "baseline", a, width=w) for w, a in ((0.75, 0.89), (0.5, 0.86))}
        records = [record for group in (*methods.values(), *static.values()) for record in group]
        results[task] = Results(data, task, methods=methods, static=static, records=records)
    return results


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> list[DeviceRecord]:
    """On CIFAR-10: the baseline, T-RecX, half the filters, a cascade, and T-RecX under another recipe."""
    root = tmp_path_factory.mktemp("device")
    base, half = (Run("ic", "baseline", "cifar10", "fast", seed=1, width=width) for width in (1, 0.5))
    levels = np.linspace(1, 0, 101)
    rises = {
        "thresholds": levels.tolist(),
        "val": np.linspace(0.88, 0.8, 101).tolist(),
        "test": np.linspace(0.875, 0.79, 101).tolist(),
        "shares": np.stack([1 - levels**4, levels**4], axis=1).tolist(),
        "val_shares": np.stack([1 - levels**2, levels**2], axis=1).tolist(),
    }

    def alone(accuracy: float) -> dict[str, Any]:
        return {"thresholds": [None], "val": [accuracy], "test": [accuracy - 0.005], "shares": [[1.0]]}

    return [
        write_device_record(root, [base], [1000], alone(0.88)),
        write_device_record(root, [Run("ic", "trecx_ev", "cifar10", "fast")], [500, 600], rises),
        write_device_record(root, [half], [400], alone(0.865)),
        write_device_record(root, [half, base], [400, 1000], rises),
        write_device_record(root, [Run("ic", "trecx_ev", "cifar10", "paper")], [1, 1], rises),
    ]


@pytest.fixture(scope="module")
def document(found: dict[str, Results], devices: list[DeviceRecord]) -> dict[str, Any]:
    return explorer.document(found, on_a_device=devices)


def method(document: dict[str, Any], task: str, label: str) -> dict[str, Any]:
    (bench,) = [b for b in document["benchmarks"] if b["name"] == task]
    (one,) = [m for m in bench["methods"] if m["label"] == label]
    return one


def whole(shares: list[float]) -> np.ndarray:
    return np.append(shares, 1 - sum(shares))


# --- The data ---


@pytest.mark.parametrize("label", ["T-RecX", "SDN (published)"])
def test_curves_are_those_of_the_command_line(
    found: dict[str, Results], document: dict[str, Any], capsys: pytest.CaptureFixture[str], label: str
) -> None:
    one = method(document, "ic", label)
    records = found["ic"].methods[one["method"]]
    printed = [curve(record, capsys, "--points", "10001") for record in records]
    for k, threshold in enumerate(document["thresholds"]):
        rows = [lines[round((1 - threshold) * 10000)] for lines in printed]
        assert rows[0]["threshold"] == pytest.approx(threshold, abs=1e-9)
        assert one["curve"]["accuracy"][k] == pytest.approx(np.mean([r["accuracy"] for r in rows]), abs=0.006)
        cost = whole(one["curve"]["shares"][k]) @ one["cost"]["flops"]
        assert cost == pytest.approx(np.mean([r["flops"] for r in rows]), rel=2e-4)


def test_points_at_a_loss_are_those_of_the_chapters(found: dict[str, Results], document: dict[str, Any]) -> None:
    for unit in ("flops", "macs"):
        table = benchmark.savings(found["ic"], unit).set_index(["method", "drop"])
        base = document["benchmarks"][0]["baseline"]["cost"][unit]
        compared = 0
        for (label, drop), row in table.iterrows():
            if label not in ("T-RecX", "SDN (published)"):
                continue
            one = method(document, "ic", label)
            at, k = one["loss"], document["losses"].index(drop)
            assert row["reached"] == f"{at['reached'][k]} of {one['seeds']}"
            if at["reached"][k] == one["seeds"]:  # the chapters give no mean over some of the seeds
                compared += 1
                saved = 100 * (1 - whole(at["shares"][k]) @ one["cost"][unit] / base)
                assert saved == pytest.approx(row["saved"], abs=0.02)
                assert at["accuracy"][k] == pytest.approx(row["accuracy"], abs=0.006)
                assert at["threshold"][k] == pytest.approx(row["threshold"], abs=1e-4)
        assert compared >= 3


def test_a_training_that_misses_counts_as_the_unmodified_network(
    found: dict[str, Results], document: dict[str, Any]
) -> None:
    base = found["ic"].methods["baseline"]
    kept = [record for record in found["ic"].methods["trecx_ev"] if record.seed]
    never = explorer.entry("Half", kept)
    low = [replace(trace, correct=np.zeros_like(trace.correct)) for trace in (never.val[0], never.test[0])]
    half = replace(never, val=[never.val[0], low[0]], test=[never.test[0], low[1]])
    one = method(explorer.document({"ic": found["ic"]}, {"ic": [half]}), "ic", "Half")
    k = document["losses"].index(3)
    assert one["loss"]["reached"][k] == 1
    t = one["loss"]["threshold"][k]
    right = np.concatenate([never.test[0].outcome(t)[0], base[2].trace().correct[:, -1]])
    assert one["loss"]["accuracy"][k] == pytest.approx(100 * right.mean(), abs=0.25)  # the threshold is rounded


def test_smaller_networks_are_those_of_the_headline(found: dict[str, Results], document: dict[str, Any]) -> None:
    results = found["kws"]
    one = method(document, "kws", "Smaller network, no exit")
    assert one["members"] == ["unmodified", "3/4 of the filters", "1/2 of the filters"]
    base = one["cost"]["macs"][0]
    for drop in (0, 1, 2, 3):
        k = document["losses"].index(drop)
        wanted = static_saving(results.methods["baseline"], results.static, drop, unit="macs")
        saved = 100 * (1 - whole(one["loss"]["shares"][k]) @ one["cost"]["macs"] / base)
        assert saved == pytest.approx(wanted.saved, abs=0.02)
    budget = one["budget"]
    for k, percent in enumerate(document["budgets"]):
        if budget["macs"]["reached"][k]:
            assert whole(budget["macs"]["shares"][k]) @ one["cost"]["macs"] == pytest.approx(
                percent / 100 * base, rel=2e-4
            )
        else:
            assert percent / 100 * base < one["cost"]["macs"][-1]


def test_a_budget_is_kept_on_validation(found: dict[str, Results], document: dict[str, Any]) -> None:
    one, base = method(document, "ic", "T-RecX"), document["benchmarks"][0]["baseline"]["cost"]["macs"]
    records = found["ic"].methods["trecx_ev"]
    for k, percent in enumerate(document["budgets"]):
        at = one["budget"]["macs"]
        assert bool(at["reached"][k]) == (one["cost"]["macs"][0] <= percent / 100 * base)
        if at["reached"][k]:
            spent = whole(at["shares"][k]) @ one["cost"]["macs"]
            assert spent <= 1.1 * percent / 100 * base  # on test, so not exactly
            accuracy = [benchmark_accuracy(record, percent / 100 * base) for record in records]
            assert at["accuracy"][k] == pytest.approx(100 * np.mean(accuracy), abs=0.006)


def benchmark_accuracy(record: Record, cost: float) -> float:
    """By hand: the dearest of all thresholds that validation knows within the budget, on test."""
    val, test = record.trace("val", unit="macs"), record.trace(unit="macs")
    fits = [t for t in np.unique([0, 1, *val.scores.ravel()]) if val.outcome(t)[1].mean() <= cost]
    return float(test.outcome(max(fits))[0].mean())


def test_other_methods_and_units_are_data(found: dict[str, Results]) -> None:
    second = found["ic"].methods["trecx_ev"]
    own = explorer.entry("Two networks", second, method="cascade", about="one after the other", first=True)
    two = replace(own, cost={"instructions": [3.0, 9.0], **own.cost})
    units = explorer.UNITS | {"instructions": {"label": "instructions", "million": "million instructions"}}

    def counted(record: Record, unit: str) -> list[float] | None:
        plain = record.method == "baseline" and record.run.get("width", 1) == 1
        return ([10.0] if plain else None) if unit == "instructions" else record.cost(unit).tolist()

    made = explorer.document({"ic": found["ic"]}, {"ic": [two]}, units=units, counted=counted)
    assert made["benchmarks"][0]["baseline"]["cost"]["instructions"] == 10
    one = method(made, "ic", "Two networks")
    assert set(one["budget"]) == {"flops", "macs", "instructions"}
    assert "instructions" not in method(made, "ic", "T-RecX")["cost"]
    assert page.look("Two networks", "cascade")["color"] == page.OTHER["color"]
    with pytest.raises(TrecxError, match=r"two entries of the explorer are called 'T-RecX' on CIFAR-10"):
        explorer.document({"ic": found["ic"]}, {"ic": [explorer.entry("T-RecX", second)]})


def on_a_device(document: dict[str, Any], task: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Baseline and methods (by label) under the unit instructions."""
    (bench,) = [b for b in document["benchmarks"] if b["name"] == task]
    part = bench["on"]["instructions"]
    return part["baseline"], {method["label"]: method for method in part["methods"]}


def test_instructions_are_those_of_device_records_and_of_nothing_else(
    document: dict[str, Any], devices: list[DeviceRecord]
) -> None:
    base, methods = on_a_device(document, "ic")
    assert base["cost"] == {"instructions": 1000}
    assert base["accuracy"] == 88
    assert [*methods] == ["T-RecX", "1/2 of the filters, no exit", "Cascade, 1/2 of the filters first"]
    assert "on" not in document["benchmarks"][1]
    assert "instructions" in document["units"]
    assert "instructions" not in document["benchmarks"][0]["baseline"]["cost"]
    assert "Cortex-M4F" in document["units"]["instructions"]["note"]
    one, k = methods["T-RecX"], document["losses"].index(2)
    at = devices[1].point(0.88 - 0.02)  # the made-up baseline has 88 % on validation
    assert at is not None
    assert one["loss"]["threshold"][k] == pytest.approx(at["threshold"]) == pytest.approx(0.75)
    assert one["loss"]["accuracy"][k] == pytest.approx(100 * at["accuracy"], abs=0.006)
    assert one["loss"]["shares"][k] == [pytest.approx(1 - 0.75**4, abs=1e-4)]
    assert one["cost"]["instructions"] == [510, 1120]
    # At most 80 % of 1000: 510 + 610 * level^2 on validation.
    place = document["budgets"].index(80)
    assert one["budget"]["instructions"]["threshold"][place] == pytest.approx(np.floor(np.sqrt(290 / 610) * 100) / 100)
    assert one["budget"]["instructions"]["reached"][document["budgets"].index(50)] == 0
    small = methods["1/2 of the filters, no exit"]
    assert small["members"] == ["1/2 of the filters"]
    assert [small["loss"]["reached"][document["losses"].index(loss)] for loss in (1, 2)] == [0, 1]


def test_without_device_records_there_is_no_such_unit(found: dict[str, Results], devices: list[DeviceRecord]) -> None:
    for given in ([], devices[1:], devices[:1]):  # a baseline and something to compare with it are needed
        assert "instructions" not in explorer.document({"ic": found["ic"]}, on_a_device=given)["units"]


def test_published_instructions_are_those_of_the_table(found: dict[str, Results]) -> None:
    """Saved at a point and at none: as `python -m trecx results device savings`; curves: as their records have them."""
    records = published()
    table = device.savings(records).set_index(["data", "network", "drop"])
    document = explorer.document(found, on_a_device=records)
    for task in found:
        base, methods = on_a_device(document, task)
        whole_cost, compared = base["cost"]["instructions"], 0
        for record in records:
            (one,) = [m for m in methods.values() if m["about"].endswith(f": {record.name}")] or [None]
            if one is None:
                continue
            for drop in (0, 1):
                row, k = table.loc[(device.data_title(record), record.label, drop)], document["losses"].index(drop)
                assert one["loss"]["reached"][k] == (not np.isnan(row["accuracy"]))
                if one["loss"]["reached"][k]:
                    compared += 1
                    saved = 100 * (1 - whole(one["loss"]["shares"][k]) @ one["cost"]["instructions"] / whole_cost)
                    assert saved == pytest.approx(row["instructions"], abs=0.01)
                    assert one["loss"]["accuracy"][k] == pytest.approx(row["accuracy"], abs=0.006)
            if "members" not in one:
                known = device.curve(record)
                costs = np.array([whole(s) @ one["cost"]["instructions"] for s in one["curve"]["shares"]])
                for cost, accuracy in zip(costs, one["curve"]["accuracy"], strict=True):
                    near = known[np.isclose(known["instructions"], cost, rtol=1e-3)]
                    assert np.isclose(near["accuracy"], accuracy, atol=0.006).any()
        assert compared >= 3


def test_the_best_ways_beyond_the_paper_are_shown(found: dict[str, Results]) -> None:
    more = {task: explorer.beyond(results, Benchmark(results)) for task, results in found.items()}
    for task, made in more.items():
        cascades = [one for one in made if one.method == "cascade"]
        assert cascades
        assert all("of the filters first, then " in one.label for one in cascades)
        assert len(cascades[0].seeds) == 3
        known = {one.label for one in explorer.entries(found[task])}
        assert not known & {one.label for one in made}
    bench = explorer.document(found, more)["benchmarks"][0]
    assert {one.label for one in more["ic"]} <= {shown["label"] for shown in bench["methods"]}


def test_one_training_is_not_shown(document: dict[str, Any]) -> None:
    assert "BranchyNet" not in [m["label"] for b in document["benchmarks"] for m in b["methods"]]


def test_looks_tell_variants_apart() -> None:
    assert page.look("T-RecX", "trecx_ev")["hollow"] is False
    assert page.look("T-RecX, exit after block1", "trecx_ev")["hollow"] is True
    assert {page.look(m.label, m.name)["marker"] for m in METHODS.values()} <= set("osDd^v<>Px")


def test_too_much_data_is_refused(document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRECX_TABLES", str(tmp_path))
    monkeypatch.setattr(page, "MOST_BYTES", 1000)
    with pytest.raises(TrecxError, match=r"the explorer's data take [\d,]+ bytes, at most 1,000 fit"):
        page.write(document)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_published_data_fit_and_say_what_the_chapters_say() -> None:
    found = gather("published")
    document = explorer.document(found, on_a_device=published())
    assert all("on" in bench for bench in document["benchmarks"])
    assert len(json.dumps(document, separators=(",", ":"))) < page.MOST_BYTES
    for bench in document["benchmarks"]:
        table = benchmark.savings(found[bench["name"]]).set_index(["method", "drop"])
        at = method(document, bench["name"], "T-RecX")
        for drop in (1, 2, 3):
            row, k = table.loc[("T-RecX", drop)], document["losses"].index(drop)
            if at["loss"]["reached"][k] == at["seeds"]:
                saved = 1 - whole(at["loss"]["shares"][k]) @ at["cost"]["flops"] / bench["baseline"]["cost"]["flops"]
                assert 100 * saved == pytest.approx(row["saved"], abs=0.02)
        assert bench["paper"][0]["saved"] == pytest.approx(
            {"ic": 20.7, "kws": 37.7, "vww": 36.3}[bench["name"]], abs=0.1
        )


# --- The page, in a browser ---


@pytest.fixture(scope="module")
def html(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page that Sphinx makes with the directive, the book's script and style sheet."""
    from sphinx.application import Sphinx

    folder = tmp_path_factory.mktemp("page")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("TRECX_TABLES", str(folder))
    monkeypatch.syspath_prepend(str(paths.BOOK / "_ext"))
    for name in ("explorer.js", "custom.css"):
        shutil.copy(paths.BOOK / "_static" / name, folder)
    page.still(document).savefig(page.write(document).with_suffix(".svg"))
    (folder / "index.rst").write_text(
        "Explorer\n========\n\n.. explorer::\n   :data: explorer.json\n   :figure: explorer.svg\n   :alt: A figure.\n"
    )
    config = {"extensions": ["explorer"], "html_static_path": ["explorer.js", "custom.css"]}
    config |= {"html_js_files": ["explorer.js"], "html_css_files": ["custom.css"], "html_theme": "basic"}
    app = Sphinx(folder, None, folder / "html", folder / "doctrees", "html", config, status=None, warningiserror=True)
    app.build()
    monkeypatch.undo()
    return folder / "html" / "index.html"


def test_the_data_travel_in_the_page(html: Path, document: dict[str, Any]) -> None:
    text = html.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="explorer-data">(.*?)</script>', text, flags=re.DOTALL)
    assert json.loads(data)["benchmarks"][0]["baseline"] == document["benchmarks"][0]["baseline"]
    assert 'alt="A figure."' in text


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    driver = browser()
    yield driver
    driver.quit()


@pytest.fixture
def opened(chromium: Any, html: Path) -> Any:
    chromium.get("about:blank")
    chromium.get(html.as_uri())  # file://
    yield chromium
    assert not [line for line in chromium.get_log("browser") if line["level"] == "SEVERE"]


def css(driver: Any, selector: str) -> Any:
    return driver.find_element("css selector", selector)


def said(driver: Any) -> str:
    return css(driver, ".trecx-answer").text.replace("\u00a0", " ")


def row(driver: Any, label: str) -> list[str]:
    """The cells of a method's row in the table."""
    for line in driver.find_elements("css selector", ".trecx-explore tbody tr"):
        if line.find_element("css selector", "th").text.strip() == label:
            return [cell.text.replace("\u00a0", " ") for cell in line.find_elements("css selector", "td")]
    raise AssertionError(f"no row {label}")


@pytest.mark.slow
def test_keys_move_the_slider_and_with_it_sentence_chart_and_table(opened: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    slider = css(opened, "input[type=range]")
    assert slider.accessible_name == "At most so many points of accuracy lost"
    assert slider.get_attribute("aria-valuetext") == "1 point"
    before = said(opened), css(opened, ".trecx-chart svg").get_attribute("outerHTML"), row(opened, "T-RecX")
    for _ in range(15):
        slider.send_keys(Keys.ARROW_RIGHT)
    assert slider.get_attribute("aria-valuetext") == "2.5 points"
    after = said(opened), css(opened, ".trecx-chart svg").get_attribute("outerHTML"), row(opened, "T-RecX")
    assert all(a != b for a, b in zip(before, after, strict=True))
    assert opened.current_url.endswith("#benchmark=cifar-10&lose=2.5&unit=flops")
    assert re.search(r"Use .+: \d+ % of the FLOPs saved", after[0])
    assert css(opened, ".trecx-chart svg").get_attribute("role") == "img"
    assert "at most 2.5 points lost" in css(opened, ".trecx-explore caption").text
    assert not css(opened, ".trecx-still").is_displayed()


@pytest.mark.slow
def test_the_address_restores_the_state(opened: Any, html: Path) -> None:
    css(opened, "input[value=speech-commands]").click()
    css(opened, "input[value=spend]").click()
    css(opened, "#explorer-unit option[value=macs]").click()
    css(opened, "#explorer-all").click()
    css(opened, 'button[data-method="T-RecX"]').click()
    assert css(opened, 'button[data-method="T-RecX"]').get_attribute("aria-pressed") == "true"
    there, text = opened.current_url, said(opened)
    assert there.endswith("#benchmark=speech-commands&spend=60&unit=macs&method=T-RecX&all=1")
    assert "T-RecX on DS-CNN" in text
    opened.get("about:blank")
    opened.get(there)
    assert (said(opened), opened.current_url) == (text, there)
    for strange in ("#benchmark=x&lose=much&unit=y&method=z", "#lose=99"):
        opened.get("about:blank")
        opened.get(html.as_uri() + strange)
        assert said(opened).startswith("Use ")


@pytest.mark.slow
def test_the_table_has_the_numbers_of_the_command_line(
    opened: Any, html: Path, found: dict[str, Results], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two points below the baseline: thresholds from the curves on validation, applied to those on test."""
    opened.get("about:blank")
    opened.get(html.as_uri() + "#benchmark=cifar-10&lose=2&unit=macs")
    base, records = found["ic"].methods["baseline"], found["ic"].methods["trecx_ev"]
    wanted = 100 * np.mean([record.accuracies("val")[-1] for record in base]) - 2
    at = []
    for record in records:
        val = curve(record, capsys, "--points", "0", "--split", "val", "--unit", "macs")
        threshold = min(line["threshold"] for line in val if line["accuracy"] >= wanted - 1e-6)
        test = curve(record, capsys, "--points", "0", "--split", "test", "--unit", "macs")
        # T-RecX leaves above its threshold: nothing changes from one value of the test set up to the next.
        at.append(max((line for line in test if line["threshold"] <= threshold), key=lambda line: line["threshold"]))
    whole_cost = base[0].cost("macs")[-1]
    cells = row(opened, "T-RecX")
    assert cells[1] == f"{100 * (1 - np.mean([line['macs'] for line in at]) / whole_cost):.1f} %"
    assert cells[2] == f"{100 * (1 - np.mean([line['shares'][-1] for line in at])):.0f} %"
    assert cells[3].startswith(f"{np.mean([line['accuracy'] for line in at]):.1f} % [")
    assert cells[5] == f"{records[0].params:,}"
    assert cells[6] == f"{100 * records[0].cost('macs')[-1] / whole_cost:.0f} %"


@pytest.mark.slow
def test_instructions_show_the_networks_that_were_counted(opened: Any, html: Path) -> None:
    css(opened, 'button[data-method="SDN (published)"]').click()
    css(opened, "#explorer-unit option[value=instructions]").click()
    assert opened.current_url.endswith("#benchmark=cifar-10&lose=1&unit=instructions")
    assert re.search(r"Use .+: \d+ % of the instructions saved", said(opened))
    assert "Counted on an emulated Cortex-M4F" in said(opened)
    assert row(opened, "1/2 of the filters, no exit")[0] == "not reached"
    assert row(opened, "T-RecX")[3] == "86.5 %"  # a single training: no interval
    with pytest.raises(AssertionError, match="no row SDN"):
        row(opened, "SDN (published)")
    css(opened, 'button[data-method="T-RecX"]').click()
    there, text = opened.current_url, said(opened)
    opened.get("about:blank")
    opened.get(there)
    assert said(opened) == text
    css(opened, "input[value=speech-commands]").click()  # where nothing was counted
    assert opened.current_url.endswith("benchmark=speech-commands&lose=1&unit=instructions")
    assert "of the FLOPs saved" in said(opened)
    assert not css(opened, "#explorer-unit option[value=instructions]").is_enabled()


@pytest.mark.slow
def test_it_fits_a_phone(opened: Any) -> None:
    narrow = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
    opened.refresh()
    assert opened.execute_script("return document.querySelector('.trecx-chart').scrollWidth") <= 390
    assert opened.execute_script("return document.querySelector('.trecx-chart svg').clientWidth") <= 390
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.slow
def test_without_scripts_the_figure_stands_there(html: Path) -> None:
    driver = browser(scripts=False)
    try:
        driver.get(html.as_uri())
        assert css(driver, ".trecx-still img").is_displayed()
        assert not driver.find_elements("css selector", ".trecx-explore")
    finally:
        driver.quit()
