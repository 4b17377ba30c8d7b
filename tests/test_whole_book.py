"""The real notebooks and pages, from training to HTML, on a few samples of each stand-in data set."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trecx import paths

from .small import write_small_data
from .test_book import check_html

SIZES = {"train": 128, "val": 60, "test": 100}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this project with small data, and its built book."""
    folder = tmp_path_factory.mktemp("whole")
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("book/_ext", "book/_static", "book/records", "trecx", "notebooks", "benchmarks"):
        if (paths.ROOT / name).exists():
            shutil.copytree(paths.ROOT / name, folder / name, ignore=ignore)
    for path in [*paths.BOOK.glob("*.*"), paths.ROOT / "Makefile", paths.ROOT / "_config.yml"]:
        shutil.copy(path, folder / path.relative_to(paths.ROOT))
    write_small_data(folder / "data", SIZES)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TRECX_", "MAKE"))}
    built = subprocess.run(
        ["make", f"TRECX_PYTHON={sys.executable}", "book"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-6000:]
    assert "WARNING" not in built.stdout + built.stderr
    return folder


@pytest.mark.slow
def test_every_page_is_whole_offline_and_says_where_its_numbers_come_from(project: Path) -> None:
    check_html(project / "_build/html")
    for number in ("01", "02", "03", "04", "05", "06"):
        (page,) = (project / "_build/html/notebooks").glob(f"{number}_*.html")
        text = page.read_text()
        assert "Where these numbers come from" in text
        assert "stand-in data" in text
        assert 'class="sortable"' in text
        assert "Download CSV" in text
    claims = (project / "book/tables/claims.csv").read_text()
    assert all(f"C{k}," in claims for k in range(1, 13))
    assert claims.count("not testable here") == 10  # C1 and C12 do not need the paper's data


@pytest.mark.slow
def test_numbers_in_the_pages_come_from_the_records(project: Path) -> None:
    intro = (project / "_build/html/intro.html").read_text()
    assert "glue" not in intro
    records = list((project / "_build/records").glob("quick_*/*/manifest.json"))
    assert len(records) > 30
    runs = (project / "book/tables/runs.csv").read_text().splitlines()
    assert len(runs) == len(records) + 1
