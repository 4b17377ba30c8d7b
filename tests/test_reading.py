"""What pages show: tables that fold, figures with their origin, parameters, verdicts, the first figure."""

import hashlib
import itertools
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from trecx import paths
from trecx.analysis import saving, together
from trecx.analysis.beyond import benchmarks, static_saving
from trecx.analysis.claims import CLAIMS, TOPICS
from trecx.analysis.findings import Evidence, Finding
from trecx.evaluation.stats import Interval
from trecx.experiments.records import Record, checksum
from trecx.experiments.results import gather, widened
from trecx.experiments.runs import Run
from trecx.report import figures, method, overview, page, parameters
from trecx.report.chapter import Part

from .small import write_record


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The HTML that a cell puts on its page."""
    import IPython.display

    found: list[str] = []

    def display(what: Any, raw: bool = False) -> None:
        found.append(what["text/html"] if raw else "figure")

    monkeypatch.setattr(IPython.display, "display", display)
    monkeypatch.setenv("TRECX_TABLES", str(tmp_path / "tables"))
    return found


def write_group(folder: Path, method: str, accuracy: float, width: float = 1.0) -> list[Record]:
    runs = [Run("kws", method, "speech_commands", "fast", seed, width=width) for seed in (0, 1, 2)]
    return [write_record(run, folder, 400, accuracy) for run in runs]


def test_an_interval_stands_beside_its_estimate_and_apart_in_the_file(shown: list[str], tmp_path: Path) -> None:
    frame = pd.DataFrame({"method": ["a", "b"], "saved": [41.0, 8.9], "low": [39.5, np.nan], "high": [42.5, np.nan]})
    form = dict.fromkeys(("saved", "low", "high"), ".1f")
    page.show_table(frame, "t", "Savings.", units={"saved": "%"}, formats=form)
    assert '<td class="num" data-value="41.0">41.0 <span class="ends">[39.5, 42.5]</span></td>' in shown[0]
    assert '<td class="num" data-value="8.9">8.9</td>' in shown[0]
    assert shown[0].count("<th ") == 2
    assert (tmp_path / "tables/t.csv").read_text().splitlines()[0] == "method,saved (%),low,high"
    more = frame.assign(**{"gain": [0.5, -0.25], "gain, low": [0.25, np.nan], "gain, high": [0.75, np.nan]})
    page.show_table(more, "t", "Savings.", units={"gain": "points"}, formats=form)
    assert '<td class="num" data-value="0.5">0.5 <span class="ends">[0.25, 0.75]</span></td>' in shown[1]
    assert shown[1].count("<th ") == 3
    assert shown[1].count("[95 %]") == 2
    header = 'method,saved,low,high,gain (points),"gain, low","gain, high"'
    assert (tmp_path / "tables/t.csv").read_text().splitlines()[0] == header


def test_long_tables_are_folded(shown: list[str]) -> None:
    for n in (page.LONG, page.LONG + 1):
        page.show_table(pd.DataFrame({"n": range(n)}), "t", "Numbers.")
    page.show_table(pd.DataFrame({"n": [1]}), "t", "Numbers.", folded=True)
    assert ["<details>" in text for text in shown] == [False, True, True]
    assert '<summary><span id="table-t-caption">Numbers.</span> <em>13 rows</em></summary>' in shown[1]


def test_long_names_may_break(shown: list[str]) -> None:
    frame = pd.DataFrame({"file": ["image_classification/models/x.h5"], "sha256": ["0" * 64], "text": ["a < b - c"]})
    page.show_table(frame, "t", "Files.")
    assert "image_<wbr>classification/<wbr>models/<wbr>x.h5" in shown[0]
    assert "<wbr>".join(["0" * 16] * 4) in shown[0]
    assert "<td>a &lt; b - c</td>" in shown[0]


def line(records: list[Record]) -> Figure:
    figure = Figure()
    ax = figure.subplots()
    ax.plot([1, 2], [len(records), 4], label="ours")
    ax.set_title("panel")
    return figure


def test_a_figure_says_where_it_comes_from(shown: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRECX_COMMAND", "make notebook NB=02_keyword_spotting")
    records = write_group(tmp_path / "records", "trecx_ev", 0.8)
    page.draw(line, records, name="fig-a")
    figure, origin = shown
    assert figure == "figure"
    digest = checksum(record.folder for record in records)
    for part in (
        "3 seeds",
        f"3 records, sha256 {digest[:12]}",
        "make notebook NB=02_keyword_spotting",
        "drawn by line",
    ):
        assert part in origin
    csv = "panel,series,x,y\npanel,ours,1,3\npanel,ours,2,4\n"
    assert (tmp_path / "tables/fig-a.csv").read_text() == csv
    (link,) = re.findall(r'href="data:text/csv;charset=utf-8,([^"]+)"', origin)
    assert unquote(link) == csv


def test_the_checksum_follows_the_bytes_of_a_record_and_not_their_order(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(name)
    folders = [tmp_path / "a", tmp_path / "b"]
    before = checksum(folders)
    parts = [f"{n}/manifest.json\n".encode() + hashlib.sha256(n.encode()).digest() for n in ("a", "b")]
    assert before == hashlib.sha256(b"".join(parts)).hexdigest() == checksum(folders[::-1])
    (tmp_path / "b" / "manifest.json").write_text("c")
    assert checksum(folders) != before


def test_bars_are_given_by_their_ends() -> None:
    figure = Figure()
    figure.subplots().bar([1, 2], [3, 4], label="samples")
    frame = page.drawn(figure)
    assert frame[["x", "y"]].to_numpy().tolist() == [[1, 3], [2, 4]]


def test_maps_are_given_whole_and_pictures_and_drawings_not() -> None:
    figure = Figure()
    small, picture, drawing = figure.subplots(1, 3)
    small.imshow(np.array([[1, 2]]))
    picture.imshow(np.zeros((32, 32)))
    drawing.plot([0, 1], [0, 1])
    drawing.axis("off")
    assert page.drawn(figure)[["series", "x", "y"]].to_numpy().tolist() == [["row 1", 1, 1.0], ["row 1", 2, 2.0]]


def test_a_drawing_says_what_it_is_of_and_has_no_csv(shown: list[str], tmp_path: Path) -> None:
    page.draw(Figure, name="fig-b", of="a network")
    assert shown[1].startswith('<p class="trecx-made">a network · drawn by Figure in')
    assert "CSV" not in shown[1]
    assert not (tmp_path / "tables").exists()


def test_the_view_looks_where_the_page_says() -> None:
    """The page: pooled over the first 13 of 25 frames and 3 of 5 columns; a 3x3 kernel sees one place further."""
    seen = method.coverage("kws")
    assert seen.shape == (25, 5)
    assert np.argwhere(seen > 0).max(axis=0).tolist() == [13, 3]
    assert (seen[:14, :4] == 0.5).all()


def test_names_at_the_ends_of_curves_do_not_cover_each_other() -> None:
    figure = Figure(figsize=(6, 3))
    ax = figure.subplots()
    for k, y in enumerate((0.99, 1.0, 0.98)):
        ax.plot([0, 10], [0, y], label=f"curve {k}")
    ax.plot([5], [0.5], "o", label="point")
    ax.axhline(0.5, label="line")
    assert figures.label_ends(ax, 2.0) == ["curve 2", "curve 0", "curve 1"]
    FigureCanvasAgg(figure).draw()
    # Of the words alone: an annotation's own extent has its line, too.
    boxes = sorted((Text.get_window_extent(text) for text in ax.texts), key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 for below, above in itertools.pairwise(boxes))
    ax.plot([0, 2], [0, 1], label="ends early")
    assert figures.label_ends(ax, 2.0) == []


def test_parameters_are_shown_with_the_command_that_changes_them(
    shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRECX_NOTEBOOK", "01_toy")
    cell = 'source = "quick"  # type: str  # quick or full\nseed = 0  # type: int  # random seed'
    parameters.show_parameters({"In": ["", cell], "source": "quick", "seed": 3})
    assert "<td>seed</td><td>int</td><td>0</td><td>3</td><td>random seed</td>" in shown[0]
    assert "make notebook NB=01_toy P=&#x27;-p source quick -p seed 3&#x27;" in shown[0]


def finding(claim: str, verdict: str) -> Finding:
    gain = Evidence("gain", "CIFAR-10", -0.43, "points", -0.78, -0.08, 0.6, verdict=verdict)
    return Finding(claim, verdict, (gain,))


def test_every_claim_has_an_anchor_that_the_strip_leads_to() -> None:
    found = [finding(claim, "contradicted") for claim in CLAIMS]
    strip = overview.strip(found, "page.html")
    for claim in CLAIMS:
        assert f'href="page.html#{claim.lower()}"' in strip
        assert TOPICS[claim] in strip
    card = overview.cards([finding("C3", "not settled")])
    assert card.startswith('<section class="trecx-claim" id="c3">')
    minus = "\N{MINUS SIGN}"
    assert f"The paper: +0.60. We: {minus}0.43 [{minus}0.78, {minus}0.08]. Not settled." in card
    assert "All evidence" in card


def test_the_forest_shows_ours_the_papers_and_the_verdict() -> None:
    (ax,) = overview.forest([finding("C6", "contradicted")]).axes
    assert ax.get_yticklabels()[0].get_text() == "C6  CIFAR-10"
    assert [text.get_text() for text in ax.texts] == ["\N{MULTIPLICATION SIGN} contradicted"]
    (unseen,) = ax.patches
    assert unseen.get_width() == pytest.approx(2 * 0.35)  # the interval's half-width on either side of zero
    assert 0.6 in [float(line.get_xdata()[0]) for line in ax.lines]


def test_a_saving_counts_a_miss_as_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = {"baseline": write_group(tmp_path, "baseline", 0.8), "trecx_ev": write_group(tmp_path, "trecx_ev", 0.8)}
    found = saving.saving(group, resamples=20)
    by_seed = saving.saved(group, "kws")[saving.OURS]
    assert found.by_seed == pytest.approx(by_seed, nan_ok=True)
    assert found.interval.estimate == pytest.approx(np.nan_to_num(by_seed).mean())
    assert found.seeds == f"{np.isfinite(by_seed).sum()} of 3 seeds"


@pytest.mark.slow
@pytest.mark.parametrize("task", ["ic", "kws"])
def test_smaller_networks_save_the_same_in_their_chapter_and_in_that_of_all_ways(task: str) -> None:
    found = gather("published", [task])
    line = static_saving(benchmarks(widened("published", found))[task], 1)
    mine = Part(found[task], name=task).smaller()
    assert mine
    assert line
    assert mine.interval == pytest.approx(line.interval)


@pytest.mark.slow
def test_the_first_figure_and_the_readme_are_of_the_records() -> None:
    """Otherwise: `python -m trecx.report.overview` draws it again."""
    found = gather("published")
    text = overview.FIRST.read_text(encoding="utf-8")
    (inside,) = re.findall(r"<dc:description>(.*?)</dc:description>", text, flags=re.DOTALL)
    frame, sentence = overview.first()
    assert inside == overview.points(frame)
    assert f"<!-- beyond -->{sentence}<!-- /beyond -->" in overview.README.read_text(encoding="utf-8")
    with Image.open(overview.CARD) as card:
        assert card.size == (1200, 630)
        assert card.text["Description"] == inside  # type: ignore[attr-defined]
    table = together.headline(found, benchmarks(widened("published", found))).set_index("threshold")
    readme = (paths.ROOT / "README.md").read_text(encoding="utf-8").replace("\n", " ")
    # What the first page and the README say in words.
    rows = ("chosen on validation; a miss saves nothing", "no exit: a smaller network, chosen on validation")
    ours, smaller = (table.loc[row] for row in rows)
    (best,) = re.findall(r"% \[([\d.]+), [\d.]+\] for the same point", sentence)
    assert overview.beside(ours, smaller) == "smaller than"
    assert float(best) > smaller["high"]
    for place in (paths.BOOK / "intro.md", overview.README):
        text = place.read_text(encoding="utf-8")
        assert "saves less than a plain smaller network does; better ways of answering early save more than" in text
    for row in rows:
        assert "{mean:.1f} %".format(**table.loc[row]) in readme
        assert "[{low:.1f}, {high:.1f}]".format(**table.loc[row]) in readme


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ((31, 35), "smaller than"),
        ((29, 35), "not told apart from"),
        ((1, 9), "larger than"),
        ((np.nan, np.nan), "not told"),
    ],
)
def test_a_saving_beside_another(theirs: tuple[float, float], said: str) -> None:
    assert overview.beside({"low": 10, "high": 30}, dict(zip(("low", "high"), theirs, strict=True))).startswith(said)


def test_unknown_ends_leave_a_dot_alone() -> None:
    item = Evidence.of("gain", "CIFAR-10", Interval(0.1, np.nan, np.nan), paper=0.6)
    assert np.isnan(item.seen)
