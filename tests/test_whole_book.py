"""The real notebooks and pages, from training to HTML, on a few samples of each stand-in data set."""

import base64
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from trecx import paths

from .browser import axe, browser, pages, show, too_wide, violations
from .small import write_small_data
from .test_book import check_html

SIZES = {"train": 128, "val": 60, "test": 100}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this project with small data, and its built book; tests side by side build it once."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder = shared / "whole"
    with FileLock(shared / "whole.lock"):
        if not (folder / "built").exists():
            build(folder)
            (folder / "built").touch()
    return folder


@pytest.fixture
def driver() -> Iterator[Any]:
    made = browser()
    yield made
    made.quit()


def build(folder: Path) -> None:
    """Copy this project to `folder`, with small data, and build its book."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("book/_ext", "book/_static", "book/records", "trecx", "notebooks", "benchmarks"):
        if (paths.ROOT / name).exists():
            shutil.copytree(paths.ROOT / name, folder / name, ignore=ignore, dirs_exist_ok=True)
    for path in [*paths.BOOK.glob("*.*"), paths.ROOT / "Makefile", paths.ROOT / "_config.yml"]:
        shutil.copy(path, folder / path.relative_to(paths.ROOT))
    write_small_data(folder / "data", SIZES)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TRECX_", "MAKE"))}
    built = subprocess.run(
        ["make", f"TRECX_PYTHON={sys.executable}", "-j2", "book"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-6000:]
    assert "WARNING" not in built.stdout + built.stderr


COMMON = {
    "runs",
    "standalone",
    "table-1",
    "savings",
    "savings-others",
    "differences",
    "static",
    "oracle",
    "claims",
}
PLACES = {"loss-weight", "placement", "placement-savings", "placement-differences"}
# Tables that each benchmark's page has beside the common ones; visual wake words from scratch have no row in Table 1.
PAGES = {
    "cifar10": COMMON | PLACES | {"settled", "confidences", "one-more-class", "longer"},
    "ic-live": COMMON | {"confidences", "one-more-class"},
    "speech": COMMON
    | PLACES
    | {"settled", "classes", "calibration", "robustness", "robustness-thresholds", "robustness-gain"},
    "kws-live": COMMON | PLACES | {"calibration"},
    "vww96-finetune": (COMMON | PLACES | {"settled", "confusion", "frozen", "frozen-savings"}) - {"oracle"},
    "vww96-scratch": (COMMON | {"settled", "loss-weight", "confusion"}) - {"table-1"},
    "vww-live": COMMON | {"confusion"},
}
TOGETHER = {"headline", "headline-static", "rules", "printed-counts", "prior-rivals", "prior-scores"}
TOGETHER |= {f"{table}-{task}" for table in ("prior", "table-1") for task in ("ic", "kws", "vww")}
TOGETHER |= {f"ablation-{name}" for name in ("placement", "placement-savings", "confidences", "transfer", "weight")}
TOGETHER |= {"ablation-class"}
TOGETHER |= {f"beyond-{name}" for name in ("best", "savings", "tried", "answers", "advice-point", "recommendations")}
TOGETHER |= {"beyond-mixing", "beyond-gates"}
MIXED = {"beyond-mixed"}  # only where validation chooses to mix answers


@pytest.mark.slow
def test_every_page_is_whole_offline_and_says_where_its_numbers_come_from(project: Path) -> None:
    check_html(project / "_build/html")
    for number in ("01", "02", "03", "04", "05", "06"):
        for ending, data in (("", "Source published"), ("_live", "stand-in data")):
            pages = sorted((project / "_build/html/notebooks").glob(f"{number}_*{ending}.html"))
            text = pages[0].read_text()
            assert "Where these numbers come from" in text
            assert data in text
            assert ("These numbers are not comparable" in text) == bool(ending)
            assert 'class="sortable"' in text
            assert "Download CSV" in text
            assert "Not of a piece" not in text
    claims = (project / "_build/html/notebooks/06_headline_live.html").read_text()
    assert all(f'<section class="trecx-claim" id="c{k}">' in claims for k in range(1, 13))
    # C1 and C12 do not need the paper's data
    assert claims.count("trecx-verdict trecx-not-testable-here") == 10


@pytest.mark.slow
def test_every_chapter_and_its_twin_have_all_their_tables(project: Path) -> None:
    made = {path.stem for path in (project / "book/tables").glob("*.csv")}
    for page, names in PAGES.items():
        rest = {name.removeprefix(f"{page}-") for name in made if name.startswith(f"{page}-")}
        assert rest == names, page
    live = {name.removeprefix("live-") for name in made if name.startswith("live-")}
    assert live - MIXED == TOGETHER | {"headline-intervals"}
    assert {"headline-full"} | (TOGETHER - {"headline"}) | MIXED <= made


@pytest.mark.slow
def test_numbers_in_the_pages_come_from_the_records(project: Path) -> None:
    intro = (project / "_build/html/intro.html").read_text()
    assert "glue" not in intro
    records = list((project / "_build/records").glob("quick_*/*/manifest.json"))
    assert len(records) > 30
    runs = (project / "book/tables/runs.csv").read_text().splitlines()
    assert len(runs) == len(records) + 1


@pytest.mark.slow
def test_a_sentence_that_a_notebook_wrote_is_plain_text_and_not_in_bold(project: Path, driver: Any) -> None:
    for page in pages(project / "_build/html"):
        show(driver, page)
        glued = driver.execute_script(
            "return [...document.querySelectorAll('span.pasted-text')].map(span => [span.textContent, "
            "getComputedStyle(span).fontWeight, getComputedStyle(span.parentElement).fontWeight])"
        )
        for text, weight, around in glued:
            assert not re.search(r"[*`{}]", text), text  # markup would be seen as it is
            assert weight == around or len(text) <= 40, text


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(8.27, 11.69), (8.5, 11)])  # inches: A4, and the American letter
def test_the_summary_fits_on_one_printed_sheet(project: Path, driver: Any, width: float, height: float) -> None:
    show(driver, project / "_build/html/summary.html")
    paper = {"paperWidth": width, "paperHeight": height}
    printed = base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", paper)["data"])
    assert len(printed) > 20_000  # not an empty sheet
    assert re.findall(rb"/Count (\d+)", printed) == [b"1"]


@pytest.mark.slow
def test_no_table_is_cut_off_on_a_laptop_and_no_page_scrolls_sideways(project: Path, driver: Any) -> None:
    for page in pages(project / "_build/html"):
        show(driver, page)
        assert too_wide(driver) == [], page.name
        show(driver, page, width=390)
        assert "the page" not in too_wide(driver), page.name


@pytest.mark.slow
def test_axe_finds_nothing_on_any_page(project: Path, driver: Any) -> None:
    script = axe()
    for page in pages(project / "_build/html"):
        for width, theme in ((1300, "light"), (1300, "dark"), (390, "light")):
            show(driver, page, width, theme)
            assert violations(driver, script) == [], f"{page.name}, {width} pixels, {theme}"
