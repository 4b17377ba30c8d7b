"""Helpers for every test."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trecx import paths

os.environ["MPLBACKEND"] = "agg"  # no window, also on a desktop
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers side by side would take each other's cores. Before torch is imported, and for the processes they start.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The whole book first: one worker builds it while the others do the rest."""
    items.sort(key=lambda item: "test_whole_book" not in item.nodeid)


@pytest.fixture(scope="session", autouse=True)
def own_records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the user's own records. No test sees it unasked: what passes must not rest on what lies there."""
    own = paths.RECORDS
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRECX_RECORDS", str(tmp_path_factory.mktemp("records")))
        yield own


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """`shared("reference/x.npz")`: a file of the optional reference material, or a skip that says what is missing.

    The material is looked for in $TRECX_SHARED, else in a folder `shared` beside the checkout.
    """
    folder = Path(os.environ.get("TRECX_SHARED", paths.ROOT.parent / "shared"))

    def locate(name: str) -> Path:
        path = folder / name
        if not path.exists():
            pytest.skip(f"needs {name} of the optional reference material: set TRECX_SHARED to its folder")
        return path

    return locate
