"""The explorer's files: its data as JSON, and the figure that stands in its place where no script runs."""

import json
import os
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from trecx import paths
from trecx.analysis import explorer
from trecx.deploy.records import published
from trecx.errors import TrecxError
from trecx.experiments.results import Results
from trecx.files import whole_file
from trecx.models.methods import METHODS
from trecx.report.style import STYLES

MOST_BYTES = 300_000  # of the data: they travel inside the page
DASHES = {"-": "", "--": "7 4", "-.": "7 3 2 3", ":": "2 3"}  # matplotlib -> SVG
VARIANT_DASH = "9 2 2 2"  # of a method's settings other than the usual
# Of entries that are no method of the package, such as two networks one after the other.
OTHER = {"color": "#B3123F", "linestyle": "-", "marker": "D"}
LOWEST = -6.0  # points below the baseline at which the static figure ends


def look(label: str, method: str) -> dict[str, Any]:
    """Colour, dash pattern and marker of an entry; settings other than a method's usual one are dashed and hollow."""
    own = STYLES.get(method, OTHER)
    usual = method not in METHODS or label == METHODS[method].label or not METHODS[method].head
    dash = DASHES.get(own["linestyle"], VARIANT_DASH) if usual else VARIANT_DASH
    return {"color": own["color"], "dash": dash, "marker": own["marker"], "hollow": not usual}


def write(document: dict[str, Any]) -> Path:
    """Write `trecx.analysis.explorer.document`, with looks, to `explorer.json` among the book's tables.

    Raises:
        TrecxError: more than MOST_BYTES.
    """
    for benchmark in document["benchmarks"]:
        for part in (benchmark, *benchmark.get("on", {}).values()):
            for method in part["methods"]:
                method["look"] = look(method["label"], method["method"])
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    if len(text) > MOST_BYTES:
        raise TrecxError(
            f"the explorer's data take {len(text):,} bytes, at most {MOST_BYTES:,} fit on its page: show fewer settings"
        )
    folder = Path(os.environ.get("TRECX_TABLES", paths.TABLES))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "explorer.json"
    with whole_file(path) as file:
        file.write(text)
    return path


def still(document: Mapping[str, Any], unit: str = "flops") -> Figure:
    """What the explorer draws at first, for all benchmarks: accuracy lost against cost saved, a line a method.

    The large marker is the point that gives up at most one point on validation; a star is the paper's.
    """
    benchmarks = document["benchmarks"]
    figure = Figure(figsize=(5.4, 3.3 * len(benchmarks) + 0.9), layout="constrained")
    handles: dict[str, Any] = {}
    name = document["units"][unit]["label"]
    place = document["losses"].index(1)
    for ax, benchmark in zip(np.ravel(figure.subplots(len(benchmarks))), benchmarks, strict=True):
        base = benchmark["baseline"]
        for method in (m for m in benchmark["methods"] if m["first"]):
            at = look(method["label"], method["method"])
            own = {"color": at["color"], "marker": at["marker"]}
            cost = np.asarray(method["cost"][unit])
            saved = 100 * (1 - _whole(method["curve"]["shares"]) @ cost / base["cost"][unit])
            lost = np.asarray(method["curve"]["accuracy"]) - base["accuracy"]
            dashes = STYLES.get(method["method"], OTHER)["linestyle"]
            (line,) = ax.plot(saved, lost, color=at["color"], linestyle=dashes, label=method["label"])
            if reached := method["loss"]["reached"][place]:
                share = reached / method["seeds"]
                costs = _whole([method["loss"]["shares"][place]]) @ cost
                x = 100 * share * (1 - costs[0] / base["cost"][unit])
                ax.plot([x], [method["loss"]["accuracy"][place] - base["accuracy"]], **own, markersize=9)
                line.set_marker(at["marker"])
                line.set_markevery([])
            handles.setdefault(method["label"], line)
        for printed in benchmark.get("paper", []) if unit == "flops" else []:
            (star,) = ax.plot([printed["saved"]], [-printed["lost"]], "*", color="#d62728", markersize=10)
            handles.setdefault("T-RecX in the paper", star)
        ax.axhline(-1, color="#767676", linewidth=1, linestyle=":")
        ax.set(
            title=f"{benchmark['title']}, {benchmark['network']}", ylim=(LOWEST, None), ylabel="points from baseline"
        )
        ax.set_xlabel(f"{name} saved (%)")
    labels = [textwrap.fill(label, 30) for label in handles]  # two columns of these are as wide as the panels
    figure.legend(handles.values(), labels, loc="outside lower center", ncols=2)
    return figure


def publish(found: Mapping[str, Results], more: Mapping[str, Iterable[explorer.Entry]] | None = None) -> Figure:
    """Write the data and static figure of these runs, `more` and published device records; return the figure."""
    document = explorer.document(found, more, on_a_device=published())
    path = write(document)
    figure = still(document)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    return figure


def _whole(shares: Any) -> np.ndarray:
    """Shares of all exits; the data leave the last one out."""
    shares = np.asarray(shares, dtype=float)
    return np.column_stack([shares, 1 - shares.sum(axis=1)])
