"""The book builds without a warning and asks no other host for anything."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
import yaml

from trecx import paths

SETUP = """\
from trecx.report.page import glue, show_table
from trecx.report.parameters import check_parameters, integer
from trecx.report.provenance import provenance
from trecx.report.style import setup, style
setup()
check_parameters(globals(), source=("published", "quick", "full"), seed=integer(0))
provenance([{"source": source, "data": "quick_words", "sha256": "0123456789abcdef", "seed": seed}])"""

TABLE = """\
import pandas as pd

wide = {f"threshold {t:.1f}": [87.2 - t, None, 79.25 + t] for t in (0.1, 0.3, 0.5, 0.7, 0.9)}
df = pd.DataFrame({"method": ["T-RecX", "SDN", "BranchyNet"], "parameters": [89700, 94000, 98400], **wide})
show_table(df, "toy", "Accuracy of three methods, quick profile.", units={c: "%" for c in wide},
           formats={c: ".1f" for c in wide}, missing="not reached")
glue("best", df["threshold 0.1"].max())"""

FIGURE = """\
import matplotlib.pyplot as plt

fig, ax = plt.subplots()
for i, method in enumerate(["baseline", "trecx_ev", "branchynet", "sdn"]):
    ax.plot([1, 2, 3], [i, i + 1, i + 1.5], **style(method))
ax.set(xlabel="FLOPs (millions)", ylabel="accuracy (%)", title="Toy benefit curves")
ax.legend()
plt.show()"""

PAGES = {
    "intro": "# Toy\n\nThe best is {glue:text}`notebooks/01_toy.ipynb::best:.1f` % {cite:p}`ghanathe2023trecx`, "
    "see {ref}`the figure <fig-toy>` and {doc}`notebooks/01_toy`.\n",
    "method": "# Method\n\nA sample leaves where\n\n$$\\max_k p_k > \\rho.$$ (eq-gate)\n\n"
    "Equation {eq}`eq-gate` is the gate; inline $p_k = \\mathrm{softmax}(z)_k$.\n\n"
    f"$$a = {' + '.join(f'x_{{{i}}}' for i in range(1, 40))}$$\n\n"
    "| claim | paper | here |\n| --- | ---: | ---: |\n| reduction | 31.58 % | 30.1 % |\n",
}


def toy_notebook() -> nbformat.NotebookNode:
    new = nbformat.v4
    return new.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        cells=[
            new.new_markdown_cell("# Toy results\n\nInline math $\\rho = 0.5$ and {cite:t}`kaya2019sdn`."),
            new.new_code_cell(
                'source = "published"  # type: str  # published, quick or full\nseed = 0  # type: int  # random seed',
                metadata={"tags": ["parameters"]},
            ),
            new.new_code_cell(SETUP),
            new.new_code_cell(TABLE, metadata={"tags": ["hide-input"]}),
            new.new_code_cell(
                FIGURE,
                metadata={
                    "tags": ["hide-input"],
                    "mystnb": {
                        "figure": {"name": "fig-toy", "caption": "Accuracy over cost for four methods, quick profile."},
                        "image": {"alt": "Four rising lines; SDN is the highest, the baseline the lowest."},
                    },
                },
            ),
        ],
    )


def write_project(folder: Path) -> None:
    """A small copy of this project: its Makefile, configuration and extension, with toy pages and a notebook."""
    for name in ("book/_ext", "book/_static", "trecx"):
        shutil.copytree(paths.ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "generated"))
    for name in ("Makefile", "_config.yml", "book/references.bib", "book/references.md"):
        shutil.copy(paths.ROOT / name, folder / name)
    for name, text in PAGES.items():
        (folder / "book" / f"{name}.md").write_text(text)
    chapters = [
        {"file": "method"},
        {"file": "notebooks/01_toy"},
        {"file": "notebooks/01_toy_live"},
        {"file": "references"},
    ]
    (folder / "book/_toc.yml").write_text(yaml.safe_dump({"format": "jb-book", "root": "intro", "chapters": chapters}))
    (folder / "notebooks").mkdir()
    nbformat.write(toy_notebook(), folder / "notebooks/01_toy.ipynb")
    for words in (["init", "-q"], ["remote", "add", "origin", "git@github.com:Somebody/toy.git"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True)


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = ["make", f"TRECX_PYTHON={sys.executable}", *words]
    # Not as a part of the `make test` that may have started this: it would speak of its folders.
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


class Loaded(HTMLParser):
    """What a browser fetches by itself: scripts, style sheets, icons, pictures, frames; links to click are not."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.pictures: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "audio", "video", "embed"):
            self.urls.append(given.get("src") or "")
        if tag == "link" and given.get("rel") not in ("canonical", "alternate"):
            self.urls.append(given.get("href") or "")
        if tag == "img":
            self.pictures.append(given)


def check_html(html: Path) -> None:
    """Every page: nothing fetched from another host, every local file there, every picture with a text."""
    pages = sorted(html.rglob("*.html"))
    assert pages
    for page in (p for p in pages if "_static" not in p.parts):
        loaded = Loaded()
        text = page.read_text(encoding="utf-8")
        loaded.feed(text)
        where = page.relative_to(html)
        external = [url for url in loaded.urls if re.match(r"(https?:)?//", url)]
        assert not external, f"{where} fetches {external}"
        for url in filter(None, loaded.urls):
            file = page.parent / re.sub(r"[?#].*", "", url)
            assert url.startswith("data:") or file.exists(), f"{where} fetches {url}, which is missing"
        for url in re.findall(r"""(?:import\(|from |fetch\()\s*["'](https?://[^"']+)""", text):
            pytest.fail(f"{where} has a script that fetches {url}")
        assert all("alt" in picture for picture in loaded.pictures), f"{where} has a picture without alt"


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy project, built: not to be changed, tests run in any order."""
    folder = tmp_path_factory.mktemp("project")
    write_project(folder)
    built = make(folder, "book")
    assert built.returncode == 0, built.stdout + built.stderr
    assert "WARNING" not in built.stdout + built.stderr
    assert "[1/1] 01_toy\n" in built.stdout
    assert "[1/1] 01_toy, source=quick" in built.stdout
    assert built.stdout.endswith("The book is ready: open _build/html/index.html, or run: make serve\n")
    return folder


@pytest.fixture
def project(built_once: Path, tmp_path: Path) -> Path:
    """A copy of the built project, times of files included, to be changed at will."""
    return Path(shutil.copytree(built_once, tmp_path / "project", symlinks=True))


@pytest.mark.slow
def test_book_is_whole_and_offline(project: Path) -> None:
    html = project / "_build/html"
    check_html(html)
    page = (html / "notebooks/01_toy.html").read_text()
    assert 'download="toy.csv" href="data:text/csv' in page
    assert 'class="sortable"' in page
    assert "Where these numbers come from" in page
    assert "Four rising lines; SDN is the highest" in page
    assert "https://colab.research.google.com/github/Somebody/toy/blob/main/notebooks/01_toy.ipynb" in page
    assert 'href="https://github.com/Somebody/toy"' in page
    sitemap = (html / "sitemap.xml").read_text()
    assert "<loc>https://somebody.github.io/toy/notebooks/01_toy.html</loc>" in sitemap
    assert '<meta property="og:title" content="Toy results" />' in page
    assert '<meta name="description" content="The best is 87.1' in (html / "intro.html").read_text()
    assert "mathjax/tex-svg.js" in (html / "method.html").read_text()
    assert (html / "_static/mathjax/tex-svg.js").stat().st_size > 10**6
    assert "87.1" in (html / "intro.html").read_text()
    assert "thebe" not in page.lower()
    assert (project / "book/tables/toy.csv").read_text().startswith("method,parameters,threshold 0.1 (%)")


@pytest.mark.slow
def test_only_what_changed_is_made_again(project: Path) -> None:
    again = make(project, "book")
    assert "01_toy" not in again.stdout
    assert "Rendering" not in again.stdout

    (project / "book/method.md").write_text(PAGES["method"] + "\nOne more.\n")
    again = make(project, "book")
    assert "01_toy" not in again.stdout
    assert "Rendering" in again.stdout

    again = make(project, "book", "PROFILE=full")
    assert "01_toy, source=full" in again.stdout
    assert "[1/1] 01_toy\n" not in again.stdout  # the chapter on published records stays
    assert "01_toy" not in make(project, "book", "PROFILE=full").stdout


@pytest.mark.slow
def test_nothing_to_do_is_said_so(project: Path) -> None:
    make(project, "book")
    planned = make(project, "-n", "book").stdout
    assert "runner" not in planned
    assert "Rendering" not in planned
    planned = make(project, "-n", "book", "PROFILE=full").stdout
    assert "runner 01_toy --publish" in planned
    assert "-p source" in planned


@pytest.mark.slow
def test_changed_and_removed_tables_come_back(project: Path) -> None:
    make(project, "book")
    table = project / "book/tables/toy.csv"
    whole = table.read_bytes()
    assert b"\n" in whole
    table.write_text("method\n")
    (project / "book/tables/of-another-time.csv").write_text("")
    make(project, "book")
    assert table.read_bytes() == whole
    assert [path.name for path in table.parent.iterdir()] == ["toy.csv"]
    table.unlink()
    assert "Rendering" in make(project, "book").stdout
    assert table.read_bytes() == whole
    shutil.rmtree(table.parent)
    assert "01_toy" not in make(project, "book").stdout
    assert table.read_bytes() == whole
    assert "Rendering" not in make(project, "book").stdout


@pytest.mark.slow
def test_a_copy_is_no_page_and_stops_nothing(project: Path) -> None:
    copies = ["notebooks/Untitled 1.ipynb", "notebooks/01_toy-Copy1.ipynb", "notebooks/01_toy copy.ipynb"]
    copies += ["notebooks/02_draft.ipynb", "book/method copy.md", "book/draft.md", "trecx/tasks copy.py"]
    for name in copies:
        (project / name).write_text("not even a notebook: \N{SNOWMAN}\n\n{doc}`nowhere`\n")
    (project / "book/.ipynb_checkpoints").mkdir()
    (project / "book/.ipynb_checkpoints/method-checkpoint.md").write_text("# Old")
    built = make(project, "book")
    assert built.returncode == 0, built.stdout + built.stderr
    assert "WARNING" not in built.stdout + built.stderr
    assert "[1/1]" not in built.stdout
    pages = {path.name for path in (project / "_build/html").rglob("*.html")}
    assert {"method.html", "01_toy.html", "01_toy_live.html"} <= pages
    assert not {name for name in pages if "opy" in name or "draft" in name or "ntitled" in name}


@pytest.mark.slow
def test_make_refuses_with_one_sentence(project: Path) -> None:
    for words, said in (
        (["book", "PROFILE=fast"], "PROFILE is 'fast': choose quick or full."),
        (["book", "PROFILE=quick full"], "PROFILE is 'quick full': choose quick or full."),
        (["notebook"], "no notebook named: choose one of 01_toy"),
        (["notebook", "NB=01_toy", "P=-p sead 1"], "01_toy: unknown parameter sead: choose from source, seed"),
    ):
        refused = make(project, *words)
        assert refused.returncode != 0
        assert said in refused.stderr


@pytest.mark.slow
def test_failing_notebook_fails_the_book_and_is_kept(project: Path) -> None:
    notebook = toy_notebook()
    notebook.cells.append(nbformat.v4.new_code_cell("from trecx.tasks import get_task\nget_task('x')"))
    nbformat.write(notebook, project / "notebooks/01_toy.ipynb")
    failed = make(project, "book")
    assert failed.returncode != 0
    assert "01_toy failed: TrecxError: unknown task 'x': choose one of ic, kws, vww" in failed.stderr
    assert "_build/runs/01_toy.ipynb" in failed.stderr
    assert (project / "_build/runs/01_toy.ipynb").exists()
    assert make(project, "book").returncode != 0  # the failure is not taken for a result


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("git@github.com:Somebody/toy.git", "https://github.com/Somebody/toy"),
        ("ssh://git@gitlab.com/a/b/c.git", "https://gitlab.com/a/b/c"),
        ("https://user:secret@github.com/Somebody/toy/", "https://github.com/Somebody/toy"),
        ("/somewhere/here.git", ""),
        ("", ""),
    ],
)
def test_the_repository_is_the_remote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, address: str
) -> None:
    monkeypatch.syspath_prepend(str(paths.BOOK / "_ext"))
    web = importlib.import_module("web")
    monkeypatch.delenv("TRECX_REPOSITORY", raising=False)
    assert web.repository(tmp_path) == ""
    subprocess.run(["git", "-C", str(tmp_path), "init", "-q"], check=True)
    if given:
        subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", given], check=True)
    assert web.repository(tmp_path) == address
    monkeypatch.setenv("TRECX_REPOSITORY", "https://github.com/other/one")
    assert web.repository(tmp_path) == "https://github.com/other/one"


@pytest.mark.parametrize("address", ["https://somebody.github.io/toy/", ""])
def test_a_link_to_the_book_has_a_picture_where_the_address_is_known(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.syspath_prepend(str(paths.BOOK / "_ext"))
    web = importlib.import_module("web")
    config = SimpleNamespace(html_title="Toy", html_baseurl=address)
    context: dict[str, Any] = {"title": "A page"}
    web.add_tags(SimpleNamespace(config=config), "intro", "page.html", context, None)
    picture = f'<meta property="og:image" content="{address}_static/savings.png" />'
    assert (picture in context["metatags"]) == bool(address)
    assert ("og:image" in context["metatags"]) == bool(address)
    assert (paths.BOOK / web.CARD).is_file()


def test_help_lists_the_targets(tmp_path: Path) -> None:
    shutil.copy(paths.ROOT / "Makefile", tmp_path)
    (tmp_path / "trecx").mkdir()
    (tmp_path / "book").mkdir()
    said = make(tmp_path).stdout
    for target in ("book", "test", "notebook", "data", "serve", "lint", "clean"):
        assert f"  make {target} " in said


def test_a_pythonpath_that_was_there_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(paths.ROOT / "Makefile", tmp_path)
    show = "--eval=show: ; @echo $$PYTHONPATH"
    monkeypatch.setenv("PYTHONPATH", "/opt/module/lib:/opt/more")
    assert make(tmp_path, show, "show").stdout == f"{tmp_path}:/opt/module/lib:/opt/more\n"
    monkeypatch.delenv("PYTHONPATH")
    assert make(tmp_path, show, "show").stdout == f"{tmp_path}\n"


def test_every_page_of_the_table_of_contents_exists() -> None:
    toc = yaml.safe_load((paths.BOOK / "_toc.yml").read_text())
    files = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    pages = [file for file in [toc["root"], *files] if not file.startswith("notebooks/")]
    missing = [page for page in pages if not (paths.BOOK / f"{page}.md").exists()]
    assert not missing


@pytest.mark.skipif(not (paths.HTML / ".built").exists(), reason="the book is not built: run `make book` first")
def test_the_real_book_is_offline() -> None:
    check_html(paths.HTML)
