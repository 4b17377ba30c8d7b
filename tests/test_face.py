"""What `from trecx import ...` offers."""

import inspect
import pydoc
import re
import subprocess
import sys

import trecx
from trecx import paths

PROMISED = {
    "build", "EarlyExitNetwork", "ExitHead", "FinalHead", "METHODS", "TASKS", "get_recipe", "train", "measure", "Trace",
    "benefit_curve", "chosen_point", "Run", "execute", "open_record", "TrecxError", "Method", "Recipe", "RECIPES",
    "Training", "Examples", "FixedWeights", "Cascade", "alike", "recommend",
}  # fmt: skip


def test_the_face_is_the_promised_one() -> None:
    assert set(trecx.__all__) == PROMISED
    assert set(dir(trecx)) >= PROMISED


def test_every_name_explains_itself() -> None:
    for name in trecx.__all__:
        thing = getattr(trecx, name)
        if callable(thing):
            text = inspect.getdoc(thing)
            assert text, f"{name} has a docstring"
            assert not text.startswith(f"{name}("), f"{name} has a docstring of its own, not a dataclass's"
        assert name in (trecx.__doc__ or "") or inspect.isclass(thing)


def test_help_lists_every_name() -> None:
    text = pydoc.render_doc(trecx, renderer=pydoc.plaintext)
    for name in trecx.__all__:
        assert name in text
    assert "Build a network with fresh weights" in text


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, trecx, trecx.data, trecx.cli; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_page_of_the_face_lists_every_name_once() -> None:
    text = (paths.BOOK / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\.\. (?:auto\w+|py:data):: (?:trecx\.)?(\w+)$", text, flags=re.MULTILINE)
    assert sorted(listed) == sorted(trecx.__all__)
