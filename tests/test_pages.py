"""The examples in the book's text run."""

import re
from pathlib import Path

import pytest

from trecx import paths
from trecx.models import methods
from trecx.report import style
from trecx.training import recipes


def test_examples_on_extending_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python block of the page, one after the other, as a reader would type them."""
    text = (paths.BOOK / "extend.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:python|\{code-block\} python)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 4
    monkeypatch.chdir(tmp_path)  # they write a figure
    for registry, name in ((methods.METHODS, "two_exits"), (style.STYLES, "two_exits"), (recipes.RECIPES, "short")):
        monkeypatch.setitem(registry, name, None)  # so that it is taken out again behind the test
        monkeypatch.delitem(registry, name)
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "extend.md", "exec"), namespace)
