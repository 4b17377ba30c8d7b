"""A rerun's folder, what its page begins with, the page itself, and how it is served."""

import re
import threading
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import nbformat
import pytest

from trecx import paths
from trecx.report import rerun, runner, serve

KNOWN = {
    "source": {"name": "source", "default": '"published"', "help": "# where runs come from"},
    "seed": {"name": "seed", "default": "0", "help": "# random seed"},
}


def output(name: str, text: str) -> Any:
    prefix = "application/papermill.record/"
    about = {"scrapbook": {"name": name, "mime_prefix": prefix}}
    return nbformat.v4.new_output("display_data", {f"{prefix}text/plain": text}, metadata=about)


def chapter(saved: str) -> Any:
    """An executed chapter with a citation, a numbered figure, a reference to another page and a glued value."""
    new = nbformat.v4
    picture = new.new_output("display_data", {"image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg'/>"})
    figure = {"figure": {"name": "fig-one", "caption": "The one figure."}, "image": {"alt": "Nothing to see."}}
    text = (
        "Saves {glue:text}`kws-saved-own-validation:s`, as {cite:t}`kaya2019sdn`; {numref}`fig-one`, {doc}`00_method`."
    )
    cells = [
        new.new_markdown_cell(f"# Keywords\n\n{text}"),
        new.new_code_cell('source = "published"  # type: str  # where', metadata={"tags": ["parameters"]}),
        new.new_code_cell("1", outputs=[output("kws-saved-own-validation", saved)], metadata={"tags": ["remove-cell"]}),
        new.new_code_cell("2", outputs=[picture], metadata={"mystnb": figure}),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return new.new_notebook(cells=cells, metadata=kernel)


def test_folders_are_named_by_notebook_and_parameters() -> None:
    assert rerun.folder_of("02_a", {}).name == "02_a"
    assert rerun.folder_of("02_a", {"source": "quick", "seed": 3}).name == "02_a_source-quick_seed-3"
    lists = [rerun.folder_of("02_a", {"seeds": values}).name for values in ([4, 5], [4, -5], [45])]
    assert len(set(lists)) == 3
    assert all(re.fullmatch(r"[\w.+-]+", name) for name in lists)


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ("41.0 %", "40.5 %", "+0.5"),
        ("-0.4 [-1, 0]", "0.1", "\N{MINUS SIGN}0.5"),
        ("1,200", "200", "+1000"),
        ("not reached by every seed (4 of 5)", "40.5 %", ""),
    ],
)
def test_differences(ours: str, theirs: str, said: str) -> None:
    assert rerun.difference(ours, theirs) == said


def test_the_opening_says_what_changed_and_what_that_does() -> None:
    ours = {"kws-saved-own-validation": "41.0 %", "kws-early-cost": "1 MFLOPs", "kws-confident-early": "3"}
    book = {"kws-saved-own-validation": "40.5 %"}
    text = rerun.opening(KNOWN, {"source": "quick", "seed": 0}, ours, book, {"kws-saved-own-validation": "20.0 %"})
    assert "| `source` | `quick` | `published` | where runs come from |" in text
    assert "`seed`" not in text  # given, but as in the book
    assert "| cost that T-RecX saves one point below our baseline | 41.0 % | 40.5 % | 20.0 % | +21 |" in text
    assert "only the twin compares" in text
    assert "confident" not in text
    assert "Nothing: every parameter" in rerun.opening(KNOWN, {}, ours, book, None)
    assert "has not been run here" in rerun.opening(KNOWN, {}, ours, None, None)
    assert rerun.main_numbers({"a-b": "1", "c": "words"}) == {"a-b": "a b"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one notebook whose chapter is in the book, and a book that holds one other page."""
    root = paths.ROOT
    for name in ("NOTEBOOKS", "BUILD", "HTML"):
        monkeypatch.setattr(paths, name, tmp_path / getattr(paths, name).relative_to(root))
    monkeypatch.setattr(rerun, "RERUNS", tmp_path / "_build/reruns")
    book = {f"kws{end}": chapter(saved) for end, saved in (("", "40.5 %"), ("_live", "20.0 %"))}
    monkeypatch.setattr(rerun, "_of_the_book", lambda name: rerun.glued(book[name.replace("02_kws", "kws")]))
    for folder in ("notebooks", "_build/html/notebooks", "_build/runs"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "_build/html/index.html").write_text("the book")
    (tmp_path / "_build/html/notebooks/00_method.html").write_text("the method")
    nbformat.write(chapter("0 %"), tmp_path / "notebooks/02_kws.ipynb")
    method = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# The method\n\nText.")])
    nbformat.write(method, tmp_path / "notebooks/00_method.ipynb")
    return tmp_path


@pytest.mark.slow
def test_a_rerun_ends_in_a_page_and_keeps_earlier_ones(project: Path) -> None:
    pages = []
    for values in ({"source": "full"}, {"source": "quick"}):
        executed, tables = project / "_build/runs/02_kws.ipynb", project / "_build/runs/02_kws_tables"
        nbformat.write(chapter("41.0 %"), executed)
        tables.mkdir()
        (tables / "one.csv").write_text("a\n1\n")
        pages.append(rerun.publish(executed, tables, values, rerun.folder_of("02_kws", values)))
        assert not executed.exists()
        assert not tables.exists()
    for page, off in zip(pages, ("+0.5", "+21"), strict=True):
        text = page.read_text(encoding="utf-8")
        article = re.sub(r"<[^>]+>", "", text[text.index("<article") : text.index("</article")])
        assert article.index("What was changed") < article.index("Saves 41.0 %")
        assert off in article
        assert "Kaya" in article  # the citation, by its author
        assert "The one figure." in article
        assert "{" not in article.replace("{numref}", "{")
        assert 'href="../../html/notebooks/00_method.html">The method</a>' in text
        assert (page.parent / "02_kws.ipynb").is_file()
        assert (page.parent / "tables/one.csv").is_file()
        assert (page.parent / "references.html").is_file()
    assert {about["parameters"]["source"] for about in rerun.listed()} == {"full", "quick"}
    assert not [path for path in rerun.RERUNS.iterdir() if path.name.startswith(".")]

    server = ThreadingHTTPServer((serve.HOST, 0), serve.Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        root = f"http://{serve.HOST}:{server.server_address[1]}"

        def read(path: str) -> str:
            with urllib.request.urlopen(root + path) as answer:
                return answer.read().decode()

        assert read("/") == "the book"
        assert read("/html/notebooks/00_method.html") == "the method"
        listing = read("/reruns/")
        assert "source = quick" in listing
        for link in re.findall(r'href="(/reruns/[^"]+)"', listing):
            assert "What was changed" in read(link)
        for outside in ("/../../notebooks/02_kws.ipynb", "/reruns/../runs/x", "/html/../../x"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                read(outside)
    finally:
        server.shutdown()
        server.server_close()


def test_serving_needs_a_book_and_a_port(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main(["many"]) == 2
    assert capsys.readouterr().err == "PORT is 'many': give a number from 1 to 65535.\n"
    (project / "_build/html/index.html").unlink()
    assert serve.main([]) == 1
    assert capsys.readouterr().err == "There is no book yet: run make book first.\n"


def test_pages_that_are_not_there_are_named_without_a_link(project: Path) -> None:
    notebook = chapter("1")
    notebook.cells[0].source = "See {doc}`the weights <09_gone>`, {doc}`/data`, {doc}`00_method`."
    rerun.link_pages(notebook, paths.HTML, rerun.RERUNS / "x")
    first = notebook.cells[0].source
    assert first.startswith("See the weights, Data")
    assert first.endswith('<a href="../../html/notebooks/00_method.html">The method</a>.')


def test_bad_parameters_make_no_folder(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["02_kws", "-p", "sead", "1"]) == 2
    assert capsys.readouterr().err == "02_kws: unknown parameter sead: choose from source\n"
    assert not rerun.RERUNS.exists()
