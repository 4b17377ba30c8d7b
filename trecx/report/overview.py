"""The first page's figure and strip of verdicts, and the claims as a forest plot and as text."""

import html
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from trecx.analysis import beyond, overview
from trecx.analysis.claims import NOT_HERE, RULES, TOPICS
from trecx.analysis.findings import Evidence, Finding
from trecx.analysis.together import names
from trecx.analysis.wording import before_the_baseline, evidence_text, in_a_line
from trecx.experiments.results import gather, widened
from trecx.paper import paper
from trecx.paths import BOOK, ROOT
from trecx.report import beyond as words
from trecx.report.style import BEYOND, OURS, PLAIN, STYLES, labelled, setup

FIRST = BOOK / "_static" / "savings.svg"  # the first page and the README show it; a test holds it against the records
README = ROOT / "README.md"
CARD = FIRST.with_suffix(".png")  # the same for links to the book: their previews take no SVG

# What a verdict looks like: a sign beside the word, so that no reader needs the colour.
SIGNS = {
    "reproduced": "\N{CHECK MARK}",
    "partly": "\N{ALMOST EQUAL TO}",
    "not settled": "?",
    "contradicted": "\N{MULTIPLICATION SIGN}",
    NOT_HERE: "\N{EN DASH}",
}
COLOURS = {
    "reproduced": "#00705A",
    "partly": "#7A6000",
    "not settled": "#5F5F5F",
    "contradicted": "#B03A00",
    NOT_HERE: "#5F5F5F",
}

# Panels of the forest plot: title -> claims, and how its axis is named. C1 counts exactly and needs no picture.
PANELS = (
    ("Accuracy that is claimed to be gained or lost", ("C3", "C6", "C7", "C10", "C11"), "points of accuracy"),
    ("FLOPs (C12: bytes) that are claimed to be saved", ("C4", "C5", "C12"), "%"),
    ("Costs at which T-RecX is claimed to be ahead", ("C9",), "% of the costs that both can have"),
    ("Accuracy of the unmodified network", ("C2",), "%"),
    ("Confidence at the early exit", ("C8",), "largest softmax"),
)


def savings(frame: pd.DataFrame) -> Figure:
    """What is saved for the accuracy that is lost, a panel a benchmark: rows of `trecx.analysis.overview.savings`."""
    benchmarks = [*dict.fromkeys(frame["benchmark"])]
    figure = Figure(figsize=(3.3 * len(benchmarks), 3.5), layout="constrained")
    axes = figure.subplots(1, len(benchmarks), sharey=True, sharex=True, squeeze=False)[0]
    for ax, name in zip(axes, benchmarks, strict=True):
        rows = frame[frame["benchmark"] == name]
        for series, part in rows.groupby("series", sort=False):
            _series(ax, str(series), part)
        ax.axvline(1, color="#767676", linewidth=1, linestyle=":")
        # Above 100 there is room for a name.
        ax.set(title=name, xlim=(-0.3, 4.2), ylim=(-8, 130), yticks=range(0, 101, 20))
    axes[0].set_ylabel("FLOPs saved (%)")
    axes[len(axes) // 2].set_xlabel("accuracy lost (points)")
    handles = labelled(*axes)
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles))
    return figure


def _beyond(ax: Axes, network: str, row: Any) -> None:
    """The best of all other ways, with its name above it."""
    look: dict[str, Any] = {"color": BEYOND, "marker": "D", "markersize": 7, "capsize": 3, "linestyle": "none"}
    ends = [[row.saved - row.low], [row.high - row.saved]] if np.isfinite(row.low) else None
    ax.errorbar([row.lost], [row.saved], ends, **look, label="best of other ways", zorder=6)
    name = "\n".join(textwrap.wrap(before_the_baseline(network), 26))
    top = (row.lost, row.high if np.isfinite(row.low) else row.saved)
    text = ax.annotate(name, top, (-8, 6), textcoords="offset points", va="bottom", fontsize=9.5)
    text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def _series(ax: Axes, series: str, rows: pd.DataFrame) -> None:
    look: dict[str, Any]
    if (rows["kind"] == "beyond").all():
        _beyond(ax, series, next(rows.itertuples()))
        return
    if series == overview.PRINTED:
        look = {"color": OURS, "marker": "*", "markersize": 11, "markerfacecolor": "white", "linestyle": "none"}
        ax.plot(rows["lost"], rows["saved"], **look, label=overview.label(series), zorder=4)
        return
    if series == overview.SMALLER:
        rows = rows.sort_values("saved")
        look = {"color": PLAIN, "marker": "o", "markerfacecolor": "white", "linestyle": "--", "linewidth": 1.2}
        ax.plot([0, *rows["lost"]], [0, *rows["saved"]], **look, label=overview.label(series))
        return
    look = {"color": STYLES[series]["color"], "linestyle": STYLES[series]["linestyle"]}
    curve, chosen = (rows[rows["kind"] == kind] for kind in ("curve", "chosen"))
    ax.plot(curve["lost"], curve["saved"], **look, label=overview.label(series))
    for row in chosen.itertuples():
        ends = [[row.saved - row.low], [row.high - row.saved]]
        point: dict[str, Any] = {
            "color": look["color"],
            "marker": STYLES[series]["marker"],
            "markersize": 7,
            "capsize": 3,
        }
        ax.errorbar([row.lost], [row.saved], ends if np.isfinite(row.low) else None, **point, zorder=5)


def points(frame: pd.DataFrame) -> str:
    """What is drawn but for the curves, as CSV: rows of `trecx.analysis.overview.savings`, rounded."""
    return frame[frame["kind"] != "curve"].to_csv(index=False, lineterminator="\n", float_format="%.2f")


def first() -> tuple[pd.DataFrame, str]:
    """Rows of the first figure, and the README's sentence on what goes beyond the paper, from published records."""
    found = gather("published")
    here = beyond.benchmarks(widened("published", found))
    best = beyond.savings({}, here=here, drops=(1,), memory=False)
    return overview.savings(found, here, best=best), words.sentence(best, here, names(found))


def write_first_figure(path: Path = FIRST, card: Path = CARD, readme: Path = README) -> None:
    """Write the figure of the first page and the README, with its numbers inside, and the README's sentence."""
    setup()
    frame, sentence = first()
    figure, numbers = savings(frame), points(frame)
    figure.savefig(path, metadata={"Description": numbers, "Date": None})
    figure.set_size_inches(10, 5.25)  # 1200 x 630 pixels, what previews of links are cut to
    figure.savefig(card, dpi=120, bbox_inches=figure.bbox_inches, metadata={"Description": numbers, "Software": None})
    readme.write_text(words.put_into(readme.read_text(encoding="utf-8"), sentence), encoding="utf-8")


def beside(ours: Mapping[str, float], theirs: Mapping[str, float]) -> str:
    """How a saving compares with another, both with `low` and `high`: told apart where their intervals do not meet."""
    if ours["high"] < theirs["low"]:
        return "smaller than"
    return "larger than" if ours["low"] > theirs["high"] else "not told apart from"


def forest(findings: Iterable[Finding]) -> Figure:
    """Every number that a verdict rests on, with its 95 % interval, beside the paper's (stars).

    Grey bars around zero: effects so small that these runs would mostly not have seen them.
    """
    by_claim = {finding.claim: [e for e in finding.evidence if e.verdict] for finding in findings}
    parts = [(title, [(c, e) for c in claims for e in by_claim.get(c, [])], unit) for title, claims, unit in PANELS]
    parts = [part for part in parts if part[1]]
    heights = [len(rows) + 1.6 for _, rows, _ in parts]
    figure = Figure(figsize=(8.6, 0.33 * sum(heights) + 0.4), layout="constrained")
    axes = figure.subplots(len(parts), 1, height_ratios=heights, squeeze=False)[:, 0]
    for ax, (title, rows, unit) in zip(axes, parts, strict=True):
        _forest_panel(ax, rows)
        ax.set_title(title, loc="left", fontsize=11.5)
        ax.set_xlabel(unit, fontsize=10, labelpad=1)
    handles = labelled(axes[0])
    figure.legend(handles.values(), handles.keys(), loc="outside upper right", ncols=3)
    return figure


def _forest_panel(ax: Axes, rows: Sequence[tuple[str, Evidence]]) -> None:
    for k, (_, item) in enumerate(rows):
        if item.unit == "points" and np.isfinite(item.seen):
            ax.barh(k, 2 * item.seen, left=-item.seen, height=0.7, color="#e4e4e4", label="too small to be seen here")
        ends = [[item.estimate - item.low], [item.high - item.estimate]] if np.isfinite(item.low) else None
        look: dict[str, Any] = {"fmt": "o", "color": COLOURS[item.verdict], "capsize": 2.5, "markersize": 5}
        ax.errorbar([item.estimate], [k], xerr=ends, **look, label="here, 95 % interval")
        if np.isfinite(item.paper) and item.verdict != NOT_HERE:
            ax.plot([item.paper], [k], "*", color="#000000", markersize=9, markerfacecolor="none", label="the paper")
        word = f"{SIGNS[item.verdict]} {item.verdict}"
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 10}
        text = ax.annotate(word, (1.01, k), **place, color=COLOURS[item.verdict], annotation_clip=False)
        text.set_path_effects([withStroke(linewidth=2, foreground="white")])
    ax.set_yticks(range(len(rows)), [f"{claim}  {_row_name(claim, item)}" for claim, item in rows], fontsize=10)
    ax.tick_params(axis="x", labelsize=10)
    if rows[0][1].unit != "%" or any(item.estimate <= 1 for _, item in rows):
        ax.axvline(0, color="#000000", linewidth=0.8)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)


def _row_name(claim: str, item: Evidence) -> str:
    """What a row of the forest plot is about, beside its claim."""
    if claim == "C7":
        return {"concat minus no transfer": "joining over not copying"}.get(
            item.measure, "copying over not copying" if "curve" in item.measure else "copying over joining"
        )
    if claim == "C10":
        return "exit after " + item.label.replace(" minus ", " over ")
    return {"C11": f"one more class, {item.label} exit", "C8": item.measure, "C9": f"over {item.label}"}.get(
        claim, item.label
    )


def strip(findings: Iterable[Finding], page: str = "") -> str:
    """The verdicts in a row, each a link to its claim on `page` (HTML)."""
    items = []
    for finding in findings:
        kind = finding.verdict.replace(" ", "-")
        items.append(
            f'<li><a class="trecx-{kind}" href="{page}#{finding.claim.lower()}"><b>{finding.claim}</b> '
            f"{html.escape(TOPICS[finding.claim])}<span>{SIGNS[finding.verdict]} {finding.verdict}</span></a></li>"
        )
    return f'<ul class="trecx-strip">{"".join(items)}</ul>'


def cards(findings: Iterable[Finding]) -> str:
    """Every claim with its verdict, a line for each number it rests on, and all evidence one click away (HTML)."""
    return "\n".join(map(_card, findings))


def _card(finding: Finding) -> str:
    said, claim = paper()["claims"][finding.claim], finding.claim
    judged = [item for item in finding.evidence if item.verdict]
    lines = "".join(
        f"<li><b>{html.escape(_row_name(claim, item).capitalize() if claim == 'C8' else _row_name(claim, item))}.</b> "
        f"{html.escape(in_a_line(item))}</li>"
        for item in judged
    )
    lines += "".join(f"<li>{html.escape(note[0].upper() + note[1:])}.</li>" for note in finding.notes)
    if claim == "C1":
        lines = f"<li>{html.escape(evidence_text(finding).capitalize())}.</li>"
    kind = finding.verdict.replace(" ", "-")
    return (
        f'<section class="trecx-claim" id="{claim.lower()}">'
        f"<h3>{claim}: {html.escape(TOPICS[claim])} "
        f'<span class="trecx-verdict trecx-{kind}">{SIGNS[finding.verdict]} {finding.verdict}</span></h3>'
        f"<p>{html.escape(said['text'].strip())} <small>({html.escape(said['source'])})</small></p>"
        f"<ul>{lines}</ul>"
        f"<details><summary>All evidence, and what the verdict asks for</summary>"
        f"<p>{html.escape(evidence_text(finding))}.</p>"
        f"<p><em>Reproduced</em> asks for: {html.escape(RULES[claim])}.</p></details></section>"
    )


def counted(findings: Iterable[Finding]) -> Mapping[str, int]:
    """How many claims have each verdict."""
    found = pd.Series([finding.verdict for finding in findings]).value_counts()
    return {verdict: int(found.get(verdict, 0)) for verdict in SIGNS}


if __name__ == "__main__":
    write_first_figure()
