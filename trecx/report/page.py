"""What a notebook puts on its page: tables, sentences, and values for the running text."""

import html
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from trecx.errors import TrecxError
from trecx.experiments.records import checksum
from trecx.files import whole_file
from trecx.report.parameters import _is

LONG = 12  # a table with more rows is folded
MOST_CELLS = 256  # of a map that is given in numbers; more than that is a picture


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


def put(page: str) -> None:
    """Put HTML on the page, from anywhere in a cell."""
    from IPython.display import display

    display({"text/html": page, "text/plain": re.sub(r"<[^>]+>", " ", page)}, raw=True)


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
    folded: bool | None = None,
) -> None:
    """Show a table that readers can sort and download.

    The runner (`make book`, `make notebook`) also has it written, to the folder that it names in TRECX_TABLES. A
    notebook that runs in Jupyter or papermill alone writes nothing: the files in `book/tables` are the book's.

    On the page an interval stands in the column of its estimate: `low` and `high` behind a column, or `gain, low` and
    `gain, high` of a column `gain`, are shown as `41.0 [39.5, 42.5]`. The file keeps them apart.

    Args:
        df: the values, unrounded: the CSV file carries them as they are. A named index becomes columns.
        name: file name and anchor (`#table-NAME`): small letters, digits, - and _.
        caption: one sentence, plain text.
        units: unit of a column, shown and written beside its name.
        formats: how a column's numbers look, as a format specification (`".2f"`, `"+.1f"`) or a function.
        missing: shown for NaN and None, such as "not reached".
        folded: whether a reader opens it first; by default where it has more than `LONG` rows.
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
    _write_csv(name, csv)

    head, body = [], []
    numeric = {c: _is_numeric(df[c]) for c in columns}
    ends, texts = _ends(columns), _texts(df, formats, missing)
    for c in texts:
        unit = f' <span class="unit">({html.escape(units[c])})</span>' if units and c in units else ""
        interval = ' <span class="unit">[95 %]</span>' if c in ends else ""
        head.append(f'<th scope="col"{_class(numeric[c])}>{html.escape(c)}{unit}{interval}</th>')
    for k, row in enumerate(df.to_dict("records")):
        cells = []
        for c in texts:
            value, text = row[c], _breakable(html.escape(texts[c][k]))
            key = f' data-value="{value}"' if _is(value, float) and not pd.isna(value) else ""
            if c in ends:  # where the table is too wide, the interval goes below its estimate
                text = re.sub(r" (\[.+\])$", r' <span class="ends">\1</span>', text)
            cells.append(f"<td{_class(numeric[c] or bool(key))}{key}>{text}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    label = html.escape(caption)
    table = (
        f'<div class="trecx-scroll" role="region" tabindex="0" aria-label="Table {name}: {label}">\n'
        f'<table class="sortable" aria-labelledby="table-{name}-caption">\n'
        f"<thead><tr>{''.join(head)}</tr></thead>\n<tbody>\n" + "\n".join(body) + "\n</tbody></table></div>\n"
        f"{_csv_link(name, csv)}\n"
    )
    title = f'<figcaption id="table-{name}-caption">{label}</figcaption>\n'
    if len(df) > LONG if folded is None else folded:
        rows = f"{len(df)} row{'s' * (len(df) != 1)}"
        summary = f'<summary><span id="table-{name}-caption">{label}</span> <em>{rows}</em></summary>'
        table, title = f"<details>{summary}\n{table}</details>\n", ""
    page = f'<figure class="trecx-table" id="table-{name}">\n{title}{table}</figure>'
    display({"text/html": page, "text/plain": f"{caption}\n{df.to_string(index=False)}"}, raw=True)


def printed(
    df: pd.DataFrame,
    units: Mapping[str, str] | None = None,
    formats: Mapping[str, str | Callable[[Any], str]] | None = None,
    missing: str = "–",
) -> pd.DataFrame:
    """A table in the words and numbers of the page, for a terminal: texts only, intervals beside their estimates.

    Arguments as of `show_table`; units and formats of columns that the table lacks are passed over.
    """
    texts = _texts(df, formats, missing)
    named = {f"{c} ({units[c]})" if units and c in units else c: column for c, column in texts.items()}
    return pd.DataFrame(named, index=df.index)


def _texts(
    df: pd.DataFrame, formats: Mapping[str, str | Callable[[Any], str]] | None, missing: str
) -> dict[str, list[str]]:
    """Column -> what its cells say; the ends of an interval stand beside their estimate and in no column of their own.

    Values look as `formats` say, or by what they are.
    """
    # Counts that share a column with a gap are floats to pandas, but should not look like floats.
    default = {c: ",.0f" if _is_numeric(df[c]) and (df[c].dropna() % 1 == 0).all() else ".4g" for c in df}
    forms, ends = {c: (formats or {}).get(c, default[c]) for c in df}, _ends([*df.columns])
    found = {}
    for c in (c for c in df if not any(c in both for both in ends.values())):
        found[c] = [_text(value, forms[c], missing) for value in df[c]]
        if c in ends:
            low, high = ([_text(value, forms[name], "") for value in df[name]] for name in ends[c])
            rows = zip(found[c], low, high, strict=True)
            found[c] = [f"{text} [{a}, {b}]" if a and b else text for text, a, b in rows]
    return found


def _is_numeric(column: "pd.Series[Any]") -> bool:
    return pd.api.types.is_numeric_dtype(column) and column.dtype != bool


def _breakable(text: str) -> str:
    """Where a path, a name or a checksum (HTML text) may break, so that its column stays narrow."""

    def broken(word: str) -> str:
        return re.sub(r"([/_-])(?=\w)|([0-9a-f]{16})(?=[0-9a-f])", r"\1\2<wbr>", word) if len(word) > 20 else word

    return " ".join(map(broken, text.split(" ")))


def _ends(columns: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Estimate -> the columns with the ends of its interval: named after it, or `low` and `high` right behind it."""
    found = {c: (f"{c}, low", f"{c}, high") for c in columns}
    found = {c: both for c, both in found.items() if {*both} <= {*columns}}
    place = columns.index("low") if "low" in columns else 0
    if place and columns[place + 1 : place + 2] == ["high"]:
        found[columns[place - 1]] = ("low", "high")
    return found


def _write_csv(name: str, csv: str) -> None:
    # Only where the runner names a folder: a notebook in Jupyter or papermill alone must not replace the book's files.
    if folder := os.environ.get("TRECX_TABLES"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        with whole_file(Path(folder) / f"{name}.csv") as file:
            file.write(csv.encode())


def _csv_link(name: str, csv: str, words: str = "Download CSV") -> str:
    # The file travels inside the link: it works without a server and from file://.
    return f'<a class="trecx-csv" download="{name}.csv" href="data:text/csv;charset=utf-8,{quote(csv)}">{words}</a>'


def draw(
    function: Callable[..., Figure], *args: Any, name: str, records: Any = None, of: str = "", **kwargs: Any
) -> None:
    """Show the figure that a function draws, and below it where it comes from.

    The line below names data set, seeds, records with their checksum, the drawing function and the command that makes
    the page, and holds what is drawn as CSV, also written to `book/tables/NAME.csv`; a drawing without axes has no
    numbers to give. Records are looked for in the function's arguments.

    Args:
        function: returns a figure.
        args, kwargs: what it is given.
        name: of the CSV file; that of the figure.
        records: where they are not among the arguments.
        of: what it shows where there are no records, such as "untrained network".
    """
    from IPython.display import display

    figure = function(*args, **kwargs)
    display(figure)
    numbers = drawn(figure)
    found = [*_records(records if records is not None else [args, kwargs])]
    code = f"{function.__module__.replace('.', '/')}.py"
    parts = [*([html.escape(of)] if of else []), *_of_records(found)]
    parts.append(f"drawn by {function.__name__} in <code>{code}</code>")
    if command := os.environ.get("TRECX_COMMAND"):
        parts.append(f"made by <code>{html.escape(command)}</code>")
    if len(numbers):
        csv = numbers.to_csv(index=False, lineterminator="\n", float_format="%.6g")
        _write_csv(name, csv)
        parts.append(_csv_link(name, csv, f"CSV of {html.escape(name)}"))
    line = f'<p class="trecx-made">{" · ".join(parts)}</p>'
    display({"text/html": line, "text/plain": re.sub(r"<[^>]+>", "", line)}, raw=True)


def _of_records(records: Sequence[Any]) -> list[str]:
    """Data sets, seeds, number and checksum of records, as HTML."""
    if not records:
        return []
    data = sorted({title for r in records if (title := _title(r))})
    # A device record may be of two networks.
    runs = [run for r in records for run in r.manifest.get("runs", [r.manifest.get("run", {})])]
    seeds = {seed for run in runs if (seed := run.get("seed")) is not None}
    parts = [html.escape(", ".join(data))] if data else []
    parts += [f"{len(seeds)} seed{'s' * (len(seeds) != 1)}"] if seeds else []
    count = f"{len(records)} record{'s' * (len(records) != 1)}"
    return [*parts, f"{count}, sha256 {checksum(map(_place, records))[:12]}"]


def _title(record: Any) -> str:
    """The data set of a record, as pages say it."""
    return str(getattr(record, "data_title", "") or record.manifest.get("data", {}).get("title", ""))


def _place(item: Any) -> Path:
    """The folder of a record, or the file of a device record; a path to nowhere for anything else."""
    found = getattr(item, "folder", getattr(item, "path", None))
    return found if isinstance(found, Path) and hasattr(item, "manifest") else Path()


def _records(value: Any) -> Iterator[Any]:
    """The records in nested arguments, each once."""
    found: dict[Path, Any] = {}
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, Mapping):
            todo += item.values()
        elif isinstance(item, list | tuple):
            todo += item
        elif (place := _place(item)) != Path():
            found.setdefault(place, item)
    yield from (found[place] for place in sorted(found))


def drawn(figure: Figure) -> pd.DataFrame:
    """What a figure shows, in numbers: panel, series, x, y of lines and markers, ends of bars, all values of maps."""
    rows: list[tuple[str, str, float, float]] = []
    for k, ax in enumerate(figure.axes):
        if not ax.axison:
            continue
        panel = ax.get_title() or ax.get_title("left") or ax.get_ylabel() or str(k + 1)
        for line in ax.lines:
            label = str(line.get_label())
            series = "" if label.startswith("_") else label
            xy = np.broadcast_arrays(line.get_xdata(), line.get_ydata())
            rows += [(panel, series, x, y) for x, y in zip(*map(np.ravel, xy), strict=True)]
        for bars in ax.containers:
            for bar in getattr(bars, "patches", ()):
                lies = getattr(bars, "orientation", "vertical") == "horizontal"
                x = bar.get_x() + bar.get_width() / (1 if lies else 2)
                y = bar.get_y() + bar.get_height() / (2 if lies else 1)
                rows.append((panel, str(bars.get_label()), x, y))
        for image in ax.images:
            values = np.asarray(image.get_array())
            if values.ndim == 2 and values.size <= MOST_CELLS:
                rows += [(panel, f"row {i + 1}", j + 1, float(v)) for (i, j), v in np.ndenumerate(values)]
    return pd.DataFrame(rows, columns=["panel", "series", "x", "y"])


def _class(numeric: bool) -> str:
    return ' class="num"' if numeric else ""


def _text(value: Any, form: str | Callable[[Any], str], missing: str) -> str:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return missing
    if callable(form):
        return form(value)
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return format(value, form) if _is(value, float) else str(value)
