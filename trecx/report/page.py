"""What a notebook puts on its page: tables, sentences, and values for the running text."""

import html
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from trecx.errors import TrecxError
from trecx.files import whole_file
from trecx.report.parameters import _is


class _Words(str):
    """A text that a page shows without quotation marks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def glue(name: str, value: Any) -> None:
    """Store a number or a text under `name` for the book's pages; print it where the book's tools are missing."""
    if isinstance(value, str):
        value = _Words(re.sub(r"(?<=\d) (?=%|MFLOPs)", "\N{NO-BREAK SPACE}", value))  # a unit stays with its number
    if hasattr(value, "item"):
        value = value.item()  # a plain number: the repr of NumPy's own would end up in the page
    try:
        from myst_nb import glue as store
    except ImportError:
        print(f"{name} = {value}")
        return
    store(name, value, display=False)


def plain(value: object) -> str:
    """Text that is not ours, such as a record's, for a place that takes Markdown: it appears there as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|$~&^])", r"\\\1", " ".join(str(value).split()))


def say(text: str) -> None:
    """Put a sentence (Markdown) on the page, from anywhere in a cell; `plain` is for what others wrote in it."""
    from IPython.display import Markdown, display

    display(Markdown(text))


def show_table(
    df: pd.DataFrame,
    name: str,
    caption: str,
    units: Mapping[str, str] | None = None,
    formats: Mapping[str, str | Callable[[Any], str]] | None = None,
    missing: str = "–",
) -> None:
    """Show a table that readers can sort and download.

    The runner (`make book`, `make notebook`) also has it written, to the folder that it names in TRECX_TABLES. A
    notebook that runs in Jupyter or papermill alone writes nothing: the files in `book/tables` are the book's.

    Args:
        df: the values, unrounded: the CSV file carries them as they are. A named index becomes columns.
        name: file name and anchor (`#table-NAME`): small letters, digits, - and _.
        caption: one sentence, plain text.
        units: unit of a column, shown and written beside its name.
        formats: how a column's numbers look, as a format specification (`".2f"`, `"+.1f"`) or a function.
        missing: shown for NaN and None, such as "not reached".
    """
    from IPython.display import display

    if not re.fullmatch(r"[a-z0-9_-]+", name):
        raise TrecxError(f"table name {name!r} is impossible: use small letters, digits, - and _")
    if any(df.index.names):
        df = df.reset_index()
    columns = [" ".join(map(str, c)).strip() if isinstance(c, tuple) else str(c) for c in df.columns]
    for option, given in (("units", units), ("formats", formats)):
        if strange := [c for c in given or {} if c not in columns]:
            raise TrecxError(f"{option} for unknown column {', '.join(strange)}: choose from {', '.join(columns)}")
    df = df.set_axis(columns, axis=1)
    headers = [f"{c} ({units[c]})" if units and c in units else c for c in columns]

    csv = df.set_axis(headers, axis=1).to_csv(index=False, lineterminator="\n")
    if folder := os.environ.get("TRECX_TABLES"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        with whole_file(Path(folder) / f"{name}.csv") as file:
            file.write(csv.encode())

    head, body = [], []
    numeric = {c: pd.api.types.is_numeric_dtype(df[c]) and df[c].dtype != bool for c in columns}
    # Counts that share a column with a gap are floats to pandas, but should not look like floats.
    default = {c: ",.0f" if numeric[c] and (df[c].dropna() % 1 == 0).all() else ".4g" for c in columns}
    for c in columns:
        unit = f' <span class="unit">({html.escape(units[c])})</span>' if units and c in units else ""
        head.append(f'<th scope="col"{_class(numeric[c])}>{html.escape(c)}{unit}</th>')
    for row in df.itertuples(index=False, name=None):
        cells = []
        for c, value in zip(columns, row, strict=True):
            text = html.escape(_text(value, (formats or {}).get(c, default[c]), missing))
            key = f' data-value="{value}"' if _is(value, float) and not pd.isna(value) else ""
            cells.append(f"<td{_class(numeric[c] or bool(key))}{key}>{text}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    label = html.escape(caption)
    page = (
        f'<figure class="trecx-table" id="table-{name}">\n'
        f'<figcaption id="table-{name}-caption">{label}</figcaption>\n'
        f'<div class="trecx-scroll" role="region" tabindex="0" aria-label="Table: {label}">\n'
        f'<table class="sortable" aria-labelledby="table-{name}-caption">\n'
        f"<thead><tr>{''.join(head)}</tr></thead>\n<tbody>\n" + "\n".join(body) + "\n</tbody></table></div>\n"
        # The file travels inside the link: it works without a server and from file://.
        f'<a class="trecx-csv" download="{name}.csv" href="data:text/csv;charset=utf-8,{quote(csv)}">Download CSV</a>\n'
        f"</figure>"
    )
    display({"text/html": page, "text/plain": f"{caption}\n{df.to_string(index=False)}"}, raw=True)


def _class(numeric: bool) -> str:
    return ' class="num"' if numeric else ""


def _text(value: Any, form: str | Callable[[Any], str], missing: str) -> str:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return missing
    if callable(form):
        return form(value)
    return format(value, form) if _is(value, float) else str(value)
