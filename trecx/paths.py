"""Every folder that this project reads or writes, named once. Nothing else builds a path."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]


def _named(variable: str, default: Path) -> Path:
    """The folder that an environment variable names, absolute; `default` if it is empty or not set."""
    # Of os.path: `Path` raises for a user that does not exist, and for links that go round in a circle.
    return Path(os.path.realpath(os.path.expanduser(os.environ.get(variable) or default)))  # noqa: PTH111


# Everything that `make` can rebuild.
BUILD = ROOT / "_build"
HTML = BUILD / "html"

# Folders that a user may move, looked up whenever one is used, so that a variable set after the import counts too.
if TYPE_CHECKING:
    DATA: Path  # prepared data sets, one .npz file each; TRECX_DATA
    DOWNLOADS: Path  # original archives of the full data sets, kept for a resumed download; within DATA
    RECORDS: Path  # records of runs; TRECX_RECORDS
else:

    def __getattr__(name: str) -> Path:
        if name == "DATA":
            return _named("TRECX_DATA", ROOT / "data")
        if name == "DOWNLOADS":
            return __getattr__("DATA") / "downloads"
        if name == "RECORDS":
            return _named("TRECX_RECORDS", BUILD / "records")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


BOOK = ROOT / "book"
NOTEBOOKS = ROOT / "notebooks"
PUBLISHED = BOOK / "records"  # records of long runs, committed, read by the book without training
BENCHMARKS = ROOT / "benchmarks" / "results.json"  # written by `make benchmark`
TABLES = BOOK / "tables"  # CSV files that the notebooks write for the reader to download

SWEEPS = Path(__file__).with_name("sweeps")  # lists of runs behind the published results
PAPER = Path(__file__).with_name("paper.yaml")  # every number quoted from the paper
