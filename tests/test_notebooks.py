"""The notebooks' form, without running them, and what of `trecx.report` they share."""

import ast
import html
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml

from trecx import paths
from trecx.errors import TrecxError
from trecx.experiments.results import Results
from trecx.experiments.runs import Run
from trecx.report import chapter, downloads, parameters, runner, style
from trecx.report import page as pages
from trecx.report.provenance import provenance

from .small import write_record

SOURCES = runner.sources()
PARAMETER = re.compile(r"(?P<name>\w+) = \S.*  # type: \S+  # \S.+")


def each_notebook(function: Any) -> Any:
    return pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)(function)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def tagged(path: Path, tag: str) -> list[Any]:
    return [cell for cell in read(path).cells if tag in cell.metadata.get("tags", [])]


def parameter_names(path: Path) -> list[str]:
    (cell,) = tagged(path, "parameters")
    return [node.targets[0].id for node in ast.parse(cell.source).body]  # type: ignore[attr-defined]


def write_toy(folder: Path, check: str, name: str = "01_toy") -> Path:
    """A notebook of the form that every notebook of the book has."""
    new = nbformat.v4
    cells = [
        new.new_markdown_cell("# Toy"),
        new.new_code_cell(
            'profile = "quick"  # type: str  # quick or full\n'
            "seed = 0  # type: int  # random seed\n"
            "w_early = 0.5  # type: float  # weight of the early loss\n"
            "seeds = [0, 1]  # type: list  # several seeds\n"
            "limit = None  # type: int|None  # stop early",
            metadata={"tags": ["parameters"]},
        ),
        new.new_code_cell(check),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path = folder / f"{name}.ipynb"
    nbformat.write(new.new_notebook(cells=cells, metadata=kernel), path)
    return path


CHECK = (
    "from trecx.report.parameters import check_parameters, integer, number, optional, several\n"
    "from trecx.report.style import setup\n"
    "setup()\n"
    "check_parameters(globals(), profile=('quick', 'full'), seed=integer(0), w_early=number(0, 1),\n"
    "                 seeds=several(integer(0)), limit=optional(integer(1)))\n"
    "print('seed is', seed)"
)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with one notebook."""
    root = paths.ROOT
    for name in ("ROOT", "BOOK", "NOTEBOOKS", "TABLES"):
        monkeypatch.setattr(paths, name, tmp_path / getattr(paths, name).relative_to(root))
    monkeypatch.setattr(runner, "RUNS", tmp_path / "_build" / "runs")
    monkeypatch.setenv("TRECX_TABLES", str(tmp_path / "book" / "tables"))
    paths.NOTEBOOKS.mkdir()
    return write_toy(paths.NOTEBOOKS, CHECK)


# --- The form of the notebooks ---


def test_every_notebook_is_in_the_table_of_contents_and_the_other_way_round() -> None:
    toc = yaml.safe_load((paths.BOOK / "_toc.yml").read_text())
    files = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    listed = [Path(file).name for file in files if file.startswith("notebooks/")]
    if not SOURCES:
        pytest.skip("notebooks/ is empty")
    twins = [f"{path.stem}_live" for path in SOURCES if "source" in parameter_names(path)]
    assert sorted(listed) == sorted([*(path.stem for path in SOURCES), *twins])
    assert len(SOURCES) <= 10


@pytest.mark.skipif(not SOURCES, reason="notebooks/ is empty")
def test_no_notebook_holds_output() -> None:
    command = [sys.executable, "-m", "nbstripout", "--verify", *map(str, SOURCES)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, f"run `make format`: {result.stdout}"


@each_notebook
def test_kernel_is_python3(path: Path) -> None:
    kernel = read(path).metadata.kernelspec
    assert (kernel.name, kernel.language) == ("python3", "python")


@each_notebook
def test_one_parameters_cell_with_every_parameter_explained(path: Path) -> None:
    (cell,) = tagged(path, "parameters")
    lines = [line for line in cell.source.splitlines() if line and not line.startswith("#")]
    unexplained = [line for line in lines if not PARAMETER.fullmatch(line)]
    assert not unexplained, "write `name = value  # type: int  # what it is`"


@each_notebook
def test_every_parameter_is_checked(path: Path) -> None:
    source = "\n".join(line for cell in code_cells(path) for line in cell.source.splitlines() if line[:1] not in "%!")
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    (check,) = [call for call in calls if ast.unparse(call.func).split(".")[-1] == "check_parameters"]
    assert sorted(str(word.arg) for word in check.keywords) == sorted(parameter_names(path))


@each_notebook
def test_unknown_parameter_is_refused(path: Path) -> None:
    with pytest.raises(TrecxError, match=f"unknown parameter sead: choose from {parameter_names(path)[0]}"):
        parameters.parse_parameters(path, [("sead", "1")])


@each_notebook
def test_figures_have_number_caption_and_text_for_those_who_do_not_see_them(path: Path) -> None:
    for cell in code_cells(path):
        draws = re.search(r"\bplt\.(show|subplots|figure)\(|\.subplots\(", cell.source)
        meta = cell.metadata.get("mystnb", {})
        if draws or "figure" in meta or "image" in meta:
            where = f"{path.stem}: {cell.source[:60]!r}"
            assert re.fullmatch(r"fig-[a-z0-9-]+", meta.get("figure", {}).get("name", "")), where
            assert len(meta["figure"].get("caption", "")) > 20, where
            assert len(meta.get("image", {}).get("alt", "")) > 20, where
            assert meta["image"]["alt"] != meta["figure"]["caption"], where


def test_figure_names_are_unique() -> None:
    metas = [cell.metadata.get("mystnb", {}) for path in SOURCES for cell in code_cells(path)]
    names = [meta["figure"]["name"] for meta in metas if "figure" in meta]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "path", sorted((paths.BOOK / "notebooks").glob("*.ipynb")), ids=lambda path: f"executed {path.stem}"
)
def test_every_picture_of_an_executed_notebook_has_alt_text(path: Path) -> None:
    for cell in code_cells(path):
        kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
        if kinds & {"image/svg+xml", "image/png"}:
            assert cell.metadata.get("mystnb", {}).get("image", {}).get("alt"), cell.source[:60]


# --- Parameters and the runner ---

RULES: dict[str, Any] = {
    "profile": ("quick", "full"),
    "seed": parameters.integer(0),
    "w_early": parameters.number(0, 1),
}
GOOD: dict[str, Any] = {"profile": "quick", "seed": 3, "w_early": 0.5}


def test_good_parameters_pass() -> None:
    parameters.check_parameters(GOOD, **RULES)
    parameters.check_parameters({"a": 1, "b": "x", "c": True, "d": 2.5}, a=int, b=str, c=bool, d=float)
    parameters.check_parameters(
        {"a": [0, 1], "b": None},
        a=parameters.several(parameters.integer(0)),
        b=parameters.optional(parameters.integer()),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"profile": "fast"}, "parameter profile is 'fast': give one of quick, full"),
        ({"seed": -1}, "parameter seed is -1: give a whole number of at least 0"),
        ({"seed": True}, "parameter seed is True: give a whole number of at least 0"),
        ({"seed": 1.5}, "parameter seed is 1.5: give a whole number of at least 0"),
        ({"w_early": 1.2}, "parameter w_early is 1.2: give a number from 0 to 1"),
        ({"w_early": float("nan")}, "parameter w_early is nan: give a number from 0 to 1"),
        ({"w_early": "x"}, "parameter w_early is 'x': give a number from 0 to 1"),
        ({"In": ["", "# Parameters\nsead = 3\n"]}, "unknown parameter sead: choose from profile, seed, w_early"),
    ],
)
def test_wrong_parameters_are_named_with_what_is_allowed(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TrecxError) as caught:
        parameters.check_parameters(GOOD | change, **RULES)
    assert str(caught.value) == message


def test_missing_parameter_and_several_mistakes_come_in_one_message() -> None:
    with pytest.raises(TrecxError) as caught:
        parameters.check_parameters({"profile": "fast", "seed": 0}, **RULES)
    assert str(caught.value).count(";") == 1
    assert "parameter w_early is missing" in str(caught.value)


def test_command_line_values_take_the_declared_type(toy: Path) -> None:
    given = [("seed", "3"), ("w_early", "1e-3"), ("profile", "007"), ("seeds", "[4, 5]"), ("limit", "None")]
    values = parameters.parse_parameters(toy, given)
    assert values == {"seed": 3, "w_early": 1e-3, "profile": "007", "seeds": [4, 5], "limit": None}


@pytest.mark.parametrize("wrong", [("seed", "x"), ("seed", "1.5"), ("w_early", "high"), ("seeds", "3"), ("limit", "x")])
def test_value_of_another_type_is_refused_before_anything_runs(toy: Path, wrong: tuple[str, str]) -> None:
    with pytest.raises(TrecxError, match=f"parameter {wrong[0]} is '{wrong[1]}': give a value of type"):
        parameters.parse_parameters(toy, [wrong])


def test_wrong_name_and_misspelt_parameter_exit_with_one_sentence(toy: Path, capsys: pytest.CaptureFixture) -> None:
    assert runner.main(["02_gone"]) == 2
    assert capsys.readouterr().err == "there is no notebook '02_gone': choose one of 01_toy\n"
    assert runner.main([""]) == 2
    assert capsys.readouterr().err == "no notebook named: choose one of 01_toy\n"
    assert runner.main(["01_toy", "-p", "sead", "1"]) == 2
    message = "01_toy: unknown parameter sead: choose from profile, seed, w_early, seeds, limit\n"
    assert capsys.readouterr().err == message
    assert not runner.RUNS.exists()


@pytest.mark.slow
def test_runner_publishes_only_success(toy: Path, capsys: pytest.CaptureFixture) -> None:
    published = paths.BOOK / "notebooks" / "01_toy.ipynb"
    assert runner.main(["01_toy", "-p", "profile", "fast", "--publish"]) == 1
    said = capsys.readouterr().err
    assert "01_toy failed: TrecxError: parameter profile is 'fast': give one of quick, full\n" in said
    assert "Traceback" not in said
    assert "_build/runs/01_toy.ipynb" in said
    assert (runner.RUNS / "01_toy.ipynb").exists()
    assert not published.exists()

    assert runner.main(["01_toy", "-p", "profile", "full", "-p", "seed", "7", "--publish"]) == 0
    said = capsys.readouterr().out
    assert "[1/1] 01_toy, profile=full, seed=7" in said
    assert "seed is 7" in said
    assert published.exists()


@pytest.mark.slow
def test_papermill_alone_cannot_pass_a_misspelt_parameter(toy: Path, tmp_path: Path) -> None:
    import papermill

    with pytest.raises(papermill.PapermillExecutionError, match="unknown parameter sead"):
        papermill.execute_notebook(str(toy), str(tmp_path / "out.ipynb"), {"sead": 3}, progress_bar=False)


@each_notebook
def test_what_a_notebook_imports_is_there(path: Path) -> None:
    for cell in code_cells(path):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("trecx"):
                module = importlib.import_module(str(node.module))
                for name in node.names:
                    if not hasattr(module, name.name):
                        importlib.import_module(f"{node.module}.{name.name}")


def test_the_environment_page_of_a_fresh_clone_says_that_no_run_is_there(
    tmp_path: Path, shown: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setenv("TRECX_RECORDS", str(tmp_path / "records"))
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "published")
    monkeypatch.setattr(pages, "say", said.append)
    monkeypatch.setattr(pages, "glue", lambda name, value: None)
    monkeypatch.setattr(style, "setup", lambda: None)
    monkeypatch.delenv("TRECX_TABLES", raising=False)
    scope: dict[str, Any] = {}
    for cell in code_cells(paths.NOTEBOOKS / "08_networks_and_runs.ipynb"):
        exec(cell.source, scope)
    assert said == ["No training of the profile quick has a record yet: `make book` trains and fills the tables."]
    assert len(scope["runs"]) == 0
    assert sum('id="table-runs"' in output["text/html"] for output in shown) == 1


# --- Tables, numbers, banner ---


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    import IPython.display

    outputs: list[dict[str, str]] = []
    monkeypatch.setattr(IPython.display, "display", lambda bundle, raw: outputs.append(bundle))
    return outputs


def test_table(toy: Path, shown: list[dict[str, str]]) -> None:
    df = pd.DataFrame(
        {"method": ["T-RecX", "a<b"], "accuracy": [87.219, np.nan], "parameters": [89700, 78000], "note": ["5 ± 1", 2]}
    )
    pages.show_table(
        df, "one", "Accuracy & size.", units={"accuracy": "%"}, formats={"accuracy": ".1f"}, missing="not reached"
    )
    page = shown[0]["text/html"]
    assert "<figcaption" in page
    assert "Accuracy &amp; size." in page
    assert '<th scope="col" class="num">accuracy <span class="unit">(%)</span></th>' in page
    assert '<td class="num" data-value="87.219">87.2</td>' in page
    assert '<td class="num">not reached</td>' in page
    assert '<td class="num" data-value="89700">89,700</td>' in page
    assert "<td>a&lt;b</td>" in page
    assert "<td>5 ± 1</td>" in page
    assert "<th></th>" not in page
    csv = (paths.TABLES / "one.csv").read_text()
    assert csv.splitlines()[:2] == ["method,accuracy (%),parameters,note", "T-RecX,87.219,89700,5 ± 1"]
    link = re.search(r'download="one.csv" href="data:text/csv;charset=utf-8,([^"]+)"', page)
    assert link
    from urllib.parse import unquote

    assert unquote(link[1]) == csv


def test_a_table_outside_the_runner_is_shown_and_written_nowhere(
    toy: Path, shown: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jupyter or papermill with other parameters must not replace the book's files."""
    for value in (None, ""):
        monkeypatch.delenv("TRECX_TABLES", raising=False)
        if value is not None:
            monkeypatch.setenv("TRECX_TABLES", value)
        before = sorted(paths.ROOT.rglob("*"))
        pages.show_table(pd.DataFrame({"n": [1]}), "one", "Counts.")
        assert sorted(paths.ROOT.rglob("*")) == before
        assert 'download="one.csv"' in shown.pop()["text/html"]


def test_tables_are_had_again_from_the_notebooks(toy: Path, shown: list[dict[str, str]]) -> None:
    pages.show_table(pd.DataFrame({"a b": ["1,5 %", 'x"<y>&'], "n": [1, 2]}), "one", "Counts.")
    written = (paths.TABLES / "one.csv").read_bytes()
    executed = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("")])
    executed.cells[0].outputs = [nbformat.v4.new_output("display_data", shown[0])]
    (paths.BOOK / "notebooks").mkdir(parents=True)
    nbformat.write(executed, paths.BOOK / "notebooks" / "01_toy.ipynb")
    (paths.TABLES / "one.csv").write_text("cut")
    (paths.TABLES / "gone.csv").write_text("")
    downloads.restore()
    assert [path.name for path in paths.TABLES.iterdir()] == ["one.csv"]
    assert (paths.TABLES / "one.csv").read_bytes() == written


def test_table_keeps_a_named_index_and_counts_beside_gaps(toy: Path, shown: list[dict[str, str]]) -> None:
    df = pd.DataFrame({"n": [89700, None]}, index=pd.Index(["a", "b"], name="method"))
    pages.show_table(df, "two", "Counts.")
    assert '<th scope="col">method</th>' in shown[0]["text/html"]
    assert ">89,700</td>" in shown[0]["text/html"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "A table"}, "table name 'A table'"),
        ({"units": {"m": "%"}}, "units for unknown column m: choose from n"),
        ({"formats": {"m": ".1f"}}, "formats for unknown column m: choose from n"),
    ],
)
def test_table_refuses_what_it_cannot_show(toy: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TrecxError, match=message):
        pages.show_table(pd.DataFrame({"n": [1]}), **{"name": "t", "caption": "c"} | arguments)


def test_banner_tells_stand_in_data_from_the_paper_s(shown: list[dict[str, str]]) -> None:
    quick = [{"source": "quick", "data": "quick_words", "sha256": "0123456789abcdef", "seed": seed} for seed in (0, 1)]
    provenance(quick)
    assert shown[0]["text/plain"] == (
        "Source quick · data quick_words (stand-in data, sha256 0123456789ab…) · 2 seeds (0, 1). "
        "These numbers are not comparable with the paper's."
    )
    assert "admonition warning" in shown[0]["text/html"]
    provenance([{"source": "full", "data": "cifar10", "seed": 0}], note="Trained in 2 h.")
    assert shown[1]["text/plain"] == "Source full · data cifar10 · 1 seed (0). Trained in 2 h."
    assert "admonition note" in shown[1]["text/html"]
    with pytest.raises(TrecxError, match="no records"):
        provenance([])


def test_glue_stores_plain_numbers_and_prints_without_the_book(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    import myst_nb

    stored: dict[str, Any] = {}
    monkeypatch.setattr(myst_nb, "glue", lambda name, value, display: stored.update({name: value}))
    pages.glue("a", np.float64(0.5))
    assert type(stored["a"]) is float
    monkeypatch.setitem(sys.modules, "myst_nb", None)
    pages.glue("b", 3)
    assert capsys.readouterr().out == "b = 3\n"


STRANGE = "<script>x</script> [a](b) **c** `d` kws_e_f $g$ | {h}`i` \\ &amp; ~~j~~ #k\n# l"


def test_text_of_a_record_appears_as_it_is() -> None:
    """As CommonMark, rendered, it is nothing but the text, in one line."""
    markdown_it = pytest.importorskip("markdown_it")
    page = markdown_it.MarkdownIt().enable(["table", "strikethrough"]).render(f"Audio: {pages.plain(STRANGE)}.")
    assert page == f"<p>Audio: {html.escape(' '.join(STRANGE.split()))}.</p>\n"
    usual = "Google Speech Commands v2 (P. Warden, 2018), CC BY 4.0; 10,000 test images, 94.3 %"
    assert pages.plain(usual) == usual


def test_what_records_say_about_themselves_is_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(chapter, "say", said.append)
    monkeypatch.setattr(chapter, "recipes", lambda records: {"": ["a"], "rate <b>1</b>": ["kws_a", "kws_b"]})
    monkeypatch.setattr(chapter.Part, "show", lambda *_: None)
    monkeypatch.setattr(chapter.Part, "glue", lambda *_: None)
    record = write_record(Run("kws", "baseline"), tmp_path)
    chapter.Part(Results(sweep="quick", task="kws", methods={"baseline": [record]}, records=[record]), "kws").runs()
    assert said == [r"*Not of a piece: kws\_a, kws\_b had another recipe: rate \<b\>1\</b\>.*"]


def test_every_method_has_its_own_look() -> None:
    from trecx.models.methods import METHODS

    assert set(style.STYLES) == set(METHODS)
    looks = [json.dumps(style) for style in style.STYLES.values()]
    assert len(set(looks)) == len(looks)
    assert style.style("trecx_ev")["label"] == METHODS["trecx_ev"].label


def test_colours_stand_out_on_white() -> None:
    """WCAG 1.4.11 asks for 3:1."""
    for name, colour in style.COLOURS.items():
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        contrast = 1.05 / (sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True)) + 0.05)
        assert contrast >= 3, name


# --- One notebook, two pages ---


def both_pages() -> Any:
    """A notebook with a figure, a cell for each source and one for both."""
    new = nbformat.v4
    figure = {"mystnb": {"figure": {"name": "fig-a-b", "caption": "On {data}, {unknown}."}}}
    return new.new_notebook(
        cells=[
            new.new_markdown_cell("See {ref}`the figure <fig-a-b>` and {doc}`00_method`."),
            new.new_markdown_cell("Real.", metadata={"tags": ["real"]}),
            new.new_markdown_cell("Made up.", metadata={"tags": ["stand-in"]}),
            new.new_code_cell("1", metadata=figure),
        ]
    )


@pytest.mark.parametrize(("source", "kept"), [("published", "Real."), ("full", "Real."), ("quick", "Made up.")])
def test_a_page_has_the_cells_of_its_source(source: str, kept: str) -> None:
    page = runner.for_source(both_pages(), source)
    first, second, last = page.cells
    assert second.source == kept
    live = "-live" if source == "quick" else ""
    assert first.source == f"See {{ref}}`the figure <fig-a-b{live}>` and {{doc}}`00_method`."
    assert last.metadata["mystnb"]["figure"]["name"] == f"fig-a-b{live}"


@pytest.mark.parametrize(("value", "shown"), [("CIFAR-10", "CIFAR-10"), ("[a](b) <i>", r"\[a\](b) \<i\>")])
def test_captions_take_glued_values(value: str, shown: str) -> None:
    page = both_pages()
    glued = {"application/papermill.record/text/plain": value}
    output = nbformat.v4.new_output("display_data", glued, metadata={"scrapbook": {"name": "data"}})
    page.cells[-1].outputs = [output]
    runner.fill_captions(page)
    assert page.cells[-1].metadata["mystnb"]["figure"]["caption"] == f"On {shown}, {{unknown}}."


def test_what_stands_below_a_picture_is_no_figure_of_its_own() -> None:
    page = both_pages()
    new_output = nbformat.v4.new_output
    figure = page.cells[-1]
    figure.outputs = [new_output("display_data", {"image/svg+xml": ""}), new_output("display_data", {"text/html": "x"})]
    runner.split_figures(page)
    picture, below = page.cells[-2:]
    assert [*picture.outputs[0].data] == ["image/svg+xml"]
    assert [*below.outputs[0].data] == ["text/html"]
    assert (len(picture.outputs), below.metadata["tags"], "mystnb" in below.metadata) == (1, ["remove-input"], False)


def test_a_table_for_a_terminal_looks_as_on_the_page() -> None:
    frame = pd.DataFrame(
        {"way": ["T-RecX", "nested"], "saved": [8.854, None], "low": [-7.75, None], "high": [25.46, None]}
        | {"gain": [1.0, 2.0], "gain, low": [0.5, np.nan], "gain, high": [1.5, np.nan], "reached": [True, False]}
        | {"parameters": [78666.0, np.nan]}
    )
    texts = pages.printed(frame, {"saved": "%", "cost": "MFLOPs"}, {"saved": ".1f", "low": ".1f", "high": ".1f"}, "-")
    assert texts.to_dict("list") == {
        "way": ["T-RecX", "nested"],
        "saved (%)": ["8.9 [-7.8, 25.5]", "-"],
        "gain": ["1 [0.5, 1.5]", "2"],
        "reached": ["yes", "no"],
        "parameters": ["78,666", "-"],
    }
