"""The examples in the book's text run."""

import re
from pathlib import Path

import pytest
import yaml

from trecx import cli, paths
from trecx.models import cost, methods
from trecx.report import style
from trecx.training import recipes


@pytest.mark.slow
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
        if "resnet18(" in block:
            of_the_user = namespace["cost"]
    # By hand: 7x7 on 3 channels to 64 x 16 x 16; 3x3 from 64 to 64 channels, four times, on 8 x 8; each later stage
    # halves the map and doubles the channels: 3x3 once from half as many, three times more, a 1x1 shortcut.
    stem, layer1 = 64 * 3 * 49 * 16**2, 4 * 64 * 64 * 9 * 8**2
    later = sum((c * c // 2 * 9 + 3 * c * c * 9 + c * c // 2) * (512 // c) ** 2 for c in (128, 256, 512))
    early = stem + layer1 + 64 * 10
    assert isinstance(of_the_user, cost.Cost)
    assert of_the_user.macs == (early, early + later + 512 * 10)
    assert round(early / of_the_user.macs[-1], 2) == 0.32  # the page: a third


def test_the_example_of_the_readme_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    text = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    (said,) = re.findall(r"^print\(.*\)  # (\(.*\)):", block, flags=re.MULTILINE)
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip() == said


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "book/extend.md", "book/api.md"])
def test_what_the_page_imports_from_the_package_is_in_its_face(page: str) -> None:
    """Modules are named only for what the face leaves out: layers of the authors' making, the book's drawings."""
    text = (paths.ROOT / page).read_text(encoding="utf-8")
    modules = set(re.findall(r"^from (trecx\.[\w.]+) import", text, flags=re.MULTILINE))
    assert modules <= {"trecx.models.layers", "trecx.report.diagram", "trecx.report.style"}


def test_the_head_in_the_guide_for_contributors_trains_and_has_a_curve(capsys: pytest.CaptureFixture[str]) -> None:
    text = (paths.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    namespace: dict[str, object] = {}
    exec(compile(block, "CONTRIBUTING.md", "exec"), namespace)
    assert "exit_1" in capsys.readouterr().out
    # By hand: the baseline's stem and first stack, 3x3 from 16 to 32 channels on 16 x 16, and the dense layer; squeeze
    # and excitation is two 1x1 convolutions between 32 and 8 channels on one pixel.
    trunk = 9 * 16 * 32 * 32 * (3 + 16 + 16)
    found = namespace["cost"]
    assert isinstance(found, cost.Cost)
    assert found.macs[0] == trunk + 9 * 16 * 32 * 16 * 16 + 2 * 32 * 8 + 32 * 4 * 4 * 10


def test_hooks_and_lock_agree_on_versions() -> None:
    """A commit hook of another version than `make lint` would undo what lint asks for."""
    lock = (paths.ROOT / "requirements.lock").read_text(encoding="utf-8")
    hooks = yaml.safe_load((paths.ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    pinned = {repo["repo"].rpartition("/")[2]: repo["rev"] for repo in hooks["repos"] if "rev" in repo}
    for name, repository in (("ruff", "ruff-pre-commit"), ("nbstripout", "nbstripout")):
        assert f"\n{name}=={pinned[repository].removeprefix('v')} ;" in lock


def test_the_command_line_prints_what_the_page_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a table is as wide as a terminal shows it, the page has what a terminal of that width prints."""
    monkeypatch.setenv("COLUMNS", "200")
    text = (paths.BOOK / "commands.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```console\n\$ python -m trecx ([^\n]*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert len(shown) == 3
    for command, printed in shown:
        cli.main(command.split())
        said = capsys.readouterr()
        assert (said.out + said.err).strip() == printed.strip(), command
    named = set(re.findall(r"(?:python -m trecx |`)([a-z]+)", text))
    assert set(cli._COMMANDS) <= named


def test_files_that_the_text_names_are_there() -> None:
    """Code moves; what pages say of its place must move with it."""
    texts = [paths.ROOT / "README.md", paths.ROOT / "CONTRIBUTING.md", *paths.BOOK.glob("*.md")]
    texts += paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")
    named = re.compile(r"\b(?:trecx|benchmarks|notebooks|tests)/[A-Za-z0-9_./-]+\.(?:py|yaml|ipynb|md)\b")
    found = {(text.name, name) for text in texts for name in named.findall(text.read_text(encoding="utf-8"))}
    assert len(found) > 5
    gone = {(text, name) for text, name in found if not (paths.ROOT / name).exists() and "_live" not in name}
    assert not gone
