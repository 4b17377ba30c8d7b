"""What every notebook of the book shares: parameter checks, figure style, tables, and its runner.

In a notebook: `setup()`, `check_parameters(globals(), ...)`, `provenance(...)`, `show_table(...)`, `glue(...)`.
From the shell: `python -m trecx.notebook 02_keyword_spotting -p seed 3` runs one notebook with other parameters.
Papermill alone would only log a warning about a misspelt parameter and go on with the default.
"""

import argparse
import ast
import html
import numbers
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from trecx import paths
from trecx.errors import TrecxError
from trecx.tasks import TASKS

RUNS = paths.BUILD / "runs"  # notebooks that are running, failed, or were rerun by hand

# Colour, line and marker of each method, the same in every figure. The colours keep 3:1 against white and
# stay apart for colour-blind readers; line and marker differ too, so that no figure needs colour alone.
STYLES: dict[str, dict[str, Any]] = {
    "baseline": {"color": "#000000", "linestyle": "-", "marker": "s"},
    "baseline_mlperf": {"color": "#000000", "linestyle": ":", "marker": "D"},
    "baseline_ee": {"color": "#767676", "linestyle": "--", "marker": "x"},
    "trecx_ev": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    "trecx_no_ev": {"color": "#3A93D0", "linestyle": "--", "marker": "v"},
    "trecx_no_transfer": {"color": "#00865F", "linestyle": "-.", "marker": "^"},
    "trecx_concat": {"color": "#B05A90", "linestyle": ":", "marker": "P"},
    "trecx_stride_first": {"color": "#5A3E9B", "linestyle": "-", "marker": "d"},
    "branchynet": {"color": "#C44E00", "linestyle": "-", "marker": "<"},
    "branchynet_fair": {"color": "#C44E00", "linestyle": "--", "marker": "<"},
    "sdn": {"color": "#A97400", "linestyle": "-", "marker": ">"},
    "sdn_fair": {"color": "#A97400", "linestyle": "--", "marker": ">"},
}
COLOURS = {name: style["color"] for name, style in STYLES.items()}


# --- Set-up ----------------------------------------------------------------------------------------------------


def setup() -> None:
    """Set the figure style, and let a TrecxError end a notebook with its one sentence instead of a traceback."""
    import matplotlib as mpl
    from cycler import cycler

    _setup_shell()
    mpl.rcParams.update(
        {
            # 5.4 inches at 12 points: the text stays readable where a phone scales the figure down.
            "figure.figsize": (5.4, 3.6),
            "font.size": 12,
            "axes.labelsize": 12,
            "axes.titlesize": 13,
            "legend.fontsize": 10.5,
            "xtick.labelsize": 11,
            "ytick.labelsize": 11,
            # Opaque white, so that the black axes stay visible on a dark page.
            "figure.facecolor": "white",
            "axes.facecolor": "white",
            "savefig.facecolor": "white",
            "savefig.transparent": False,
            "savefig.bbox": "tight",
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#dddddd",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "lines.linewidth": 1.8,
            "lines.markersize": 5,
            "legend.frameon": False,
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": cycler(color=list(dict.fromkeys(COLOURS.values()))),
            "svg.hashsalt": "trecx",  # with no date, the same numbers give the same file
        }
    )


def _setup_shell() -> None:
    try:
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    shell = get_ipython()
    if shell is None:
        return
    shell.run_line_magic("matplotlib", "inline")  # also where MPLBACKEND asks for another backend
    set_matplotlib_formats("svg", metadata={"Date": None})
    shell.set_custom_exc((TrecxError,), _show_error)


def _show_error(shell: Any, kind: type[BaseException], value: BaseException, tb: Any, tb_offset: Any = None) -> None:
    shell._showtraceback(kind, value, [f"{kind.__name__}: {value}"])


def style(method: str) -> dict[str, Any]:
    """Keyword arguments for `ax.plot` that give a method its colour, line, marker and label everywhere.

    A variant ('trecx_concat, w = 0.3') has its method's colour and marker, the marker hollow and the line its own.
    """
    from trecx.tables import label_of, method_of

    name = method_of(method).name
    variant = {} if method == name else {"linestyle": (0, (6, 1, 1, 1)), "markerfacecolor": "white"}
    return {**STYLES[name], **variant, "label": label_of(method)}


# --- Parameters ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """What a parameter may be: `says` completes the sentence 'give ...'."""

    says: str
    allows: Callable[[Any], bool]


def _is(value: Any, kind: type[int] | type[float]) -> bool:
    kinds = (numbers.Real,) if kind is float else (numbers.Integral,)  # NumPy's numbers are among these
    return isinstance(value, kinds) and not isinstance(value, bool)


def _within(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high) and value == value


def _limits(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    if high is None:
        return f" of at least {low}"
    return f" of at most {high}" if low is None else f" from {low} to {high}"


def integer(low: int | None = None, high: int | None = None) -> Rule:
    return Rule(f"a whole number{_limits(low, high)}", lambda v: _is(v, int) and _within(v, low, high))


def number(low: float | None = None, high: float | None = None) -> Rule:
    return Rule(f"a number{_limits(low, high)}", lambda v: _is(v, float) and _within(v, low, high))


def choice(*values: Any) -> Rule:
    # Type as well as value, or True would pass for 1.
    return Rule("one of " + ", ".join(map(str, values)), lambda v: any(type(v) is type(c) and v == c for c in values))


def several(rule: Rule) -> Rule:
    """A list, not empty, of values that keep `rule`."""
    return Rule(
        f"a list, each {rule.says}", lambda v: isinstance(v, list | tuple) and bool(v) and all(map(rule.allows, v))
    )


def optional(rule: Rule) -> Rule:
    return Rule(f"{rule.says}, or None", lambda v: v is None or rule.allows(v))


_TYPES = {
    int: integer(),
    float: number(),
    str: Rule("a text", lambda v: isinstance(v, str)),
    bool: Rule("True or False", lambda v: isinstance(v, bool)),
}


def check_parameters(namespace: Mapping[str, Any], **rules: Any) -> None:
    """Check the values of the parameters cell; call it right after that cell with `globals()`.

    Args:
        namespace: `globals()` of the notebook.
        rules: one per parameter: a type, a tuple of the allowed values, or `integer(1, 500)`, `number(0, 1)`,
            `choice(...)`, `several(rule)`, `optional(rule)`.

    Raises:
        TrecxError: one sentence that names every wrong value with what is allowed, or every parameter that
            papermill injected and the notebook does not have.
    """
    unknown = [name for name in _injected(namespace) if name not in rules]
    if unknown:
        raise TrecxError(_unknown_parameters(unknown, rules))
    wrong = []
    for name, given in rules.items():
        rule = given if isinstance(given, Rule) else choice(*given) if isinstance(given, tuple) else _TYPES[given]
        if name not in namespace:
            wrong.append(f"parameter {name} is missing: give {rule.says}")
        elif not rule.allows(namespace[name]):
            wrong.append(f"parameter {name} is {namespace[name]!r}: give {rule.says}")
    if wrong:
        raise TrecxError("; ".join(wrong))


def _injected(namespace: Mapping[str, Any]) -> list[str]:
    """Names that papermill's cell sets. IPython keeps the source of the cells that ran in `In`."""
    cells = [source for source in namespace.get("In", []) if source.startswith("# Parameters\n")]
    targets = [target for node in ast.walk(ast.parse("\n".join(cells))) for target in getattr(node, "targets", [])]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _unknown_parameters(unknown: Iterable[str], known: Iterable[str]) -> str:
    return f"unknown parameter {', '.join(unknown)}: choose from {', '.join(known)}"


# --- Output ----------------------------------------------------------------------------------------------------


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


def say(text: str) -> None:
    """Put a sentence (Markdown) on the page, from anywhere in a cell."""
    from IPython.display import Markdown, display

    display(Markdown(text))


def having(groups: Mapping[str, Any], *methods: str) -> bool:
    """Whether every one of these methods has records; if not, the page says in one sentence which have none."""
    from trecx.tables import label_of

    missing = [label_of(method) for method in methods if not groups.get(method)]
    if missing:
        say(f"*Not shown yet: there is no published run of {', '.join(missing)}.*")
    return not missing


def show_table(
    df: pd.DataFrame,
    name: str,
    caption: str,
    units: Mapping[str, str] | None = None,
    formats: Mapping[str, str | Callable[[Any], str]] | None = None,
    missing: str = "–",
) -> None:
    """Show a table that readers can sort and download, and write it to `book/tables/NAME.csv`.

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
    # A rerun with other parameters must not replace the files of the book: the runner points elsewhere.
    folder = Path(os.environ.get("TRECX_TABLES", paths.TABLES))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.csv").write_text(csv, encoding="utf-8")

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


def provenance(records: Iterable[Any], note: str = "") -> None:
    """Say at the top of a page which profile, data and seeds its numbers come from.

    Args:
        records: result records, as mappings or objects, with `profile`, `data` (a prepared data set's name),
            `sha256` (its checksum; also `data_sha256`) and `seed`. Keys that are absent are left out.
        note: one more sentence, such as the run time.
    """
    from IPython.display import display

    records = list(records)
    if not records:
        raise TrecxError("no records: a page must say where its numbers come from")
    profiles, seeds = (sorted({v for r in records if (v := _field(r, key)) is not None}) for key in ("profile", "seed"))
    origins = {str(d): _field(r, "sha256", "data_sha256") for r in records if (d := _field(r, "data"))}
    real = {task.full_data for task in TASKS.values()}
    parts = []
    if profiles:
        parts.append("Profile " + " and ".join(map(str, profiles)))
    for data, digest in sorted(origins.items()):
        notes = ([] if data in real else ["stand-in data"]) + ([f"sha256 {digest[:12]}…"] if digest else [])
        parts.append(f"data {data}" + (f" ({', '.join(notes)})" if notes else ""))
    if seeds:
        parts.append(f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''} ({', '.join(map(str, seeds))})")
    comparable = bool(origins) and set(origins) <= real and "quick" not in profiles
    sentences = [" · ".join(parts) + "."]
    if not comparable:
        sentences.append("These numbers are not comparable with the paper's.")
    if note:
        sentences.append(note)
    text = " ".join(sentences)
    page = (
        f'<div class="admonition {"note" if comparable else "warning"} trecx-provenance">'
        f'<p class="admonition-title">Where these numbers come from</p><p>{html.escape(text)}</p></div>'
    )
    display({"text/html": page, "text/plain": text}, raw=True)


def _field(record: Any, *keys: str) -> Any:
    for key in keys:
        value = record.get(key) if isinstance(record, Mapping) else getattr(record, key, None)
        if value is not None:
            return value
    return None


# --- Runner ----------------------------------------------------------------------------------------------------


def sources() -> list[Path]:
    """The notebooks, in reading order."""
    return sorted(paths.NOTEBOOKS.glob("*.ipynb"))


def find(name: str) -> Path:
    """Return the notebook called `name`, with or without .ipynb; TrecxError with the allowed names otherwise."""
    allowed = {path.stem: path for path in sources()}
    if (stem := Path(name).name.removesuffix(".ipynb")) not in allowed:
        asked = f"there is no notebook {name!r}" if name else "no notebook named"
        raise TrecxError(f"{asked}: choose one of {', '.join(allowed) or 'none, notebooks/ is empty'}")
    return allowed[stem]


def parse_parameters(notebook: Path, given: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Turn `-p NAME VALUE` texts into values of the type that the notebook's parameters cell declares.

    Raises:
        TrecxError: a name that the notebook does not have, or a value of another type.
    """
    from papermill import inspect_notebook

    known = inspect_notebook(str(notebook))
    unknown = [name for name, _ in given if name not in known]
    if unknown:
        raise TrecxError(f"{notebook.stem}: {_unknown_parameters(unknown, known)}")
    return {name: _value(name, text, known[name]["inferred_type_name"]) for name, text in given}


def _value(name: str, text: str, declared: str) -> Any:
    if declared == "str":
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    kinds = {kind.__name__: rule.allows for kind, rule in _TYPES.items()}
    kinds |= {"list": lambda v: isinstance(v, list), "None": lambda v: v is None}
    allowed = [re.sub(r"\[.*", "", kind) for kind in declared.split("|")]
    if any(kind not in kinds or kinds[kind](value) for kind in allowed):
        return value
    raise TrecxError(f"parameter {name} is {text!r}: give a value of type {declared}")


def run(notebook: Path, values: Mapping[str, Any], publish: bool) -> int:
    """Run a notebook in `_build/runs`, showing what its cells print; return an exit status.

    publish: move the result into the book. Only then, and only if every cell succeeded: papermill writes its
    output also on failure, which `make` would take for a finished page.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    output = RUNS / notebook.name
    output.parent.mkdir(parents=True, exist_ok=True)
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # or the kernel's debugger prints a warning each time
    package = str(Path(__file__).parents[1])  # the kernel must import this package, installed or not
    os.environ["PYTHONPATH"] = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    if not publish:
        os.environ["TRECX_TABLES"] = str(RUNS / f"{notebook.stem}_tables")
    where = output.relative_to(paths.ROOT)
    order = sources()
    shown = "".join(f", {name}={value}" for name, value in values.items())
    print(f"[{order.index(notebook) + 1}/{len(order)}] {notebook.stem}{shown}", flush=True)
    start = time.monotonic()
    try:
        papermill.execute_notebook(
            str(notebook),
            str(output),
            parameters=dict(values),
            kernel_name="python3",
            cwd=str(paths.NOTEBOOKS),
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
        )
    except PapermillExecutionError as error:
        if error.ename != "TrecxError":  # a TrecxError says it all in its sentence
            print("\n".join(error.traceback), file=sys.stderr)
        print(f"{notebook.stem} failed: {error.ename}: {error.evalue}", file=sys.stderr)
        print(f"The notebook as far as it came is {where}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{notebook.stem} was stopped; the same command takes it up again.", file=sys.stderr)
        return 130
    if publish:
        target = paths.BOOK / "notebooks" / notebook.name
        target.parent.mkdir(parents=True, exist_ok=True)
        output.replace(target)
        where = target.relative_to(paths.ROOT)
    print(f"    done in {time.monotonic() - start:.0f} s: {where}", flush=True)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trecx.notebook", description="Run one notebook of the book.")
    parser.add_argument("notebook", help="its name, such as 02_keyword_spotting")
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="given", help="set a parameter"
    )
    parser.add_argument("--profile", help="the same as -p profile, for notebooks that have this parameter")
    parser.add_argument("--publish", action="store_true", help="put the result into the book")
    args = parser.parse_args(argv)
    try:
        notebook = find(args.notebook)
        values = parse_parameters(notebook, args.given)
        if args.profile:
            from papermill import inspect_notebook

            if "profile" in inspect_notebook(str(notebook)):
                values = {"profile": args.profile, **values}
        return run(notebook, values, args.publish)
    except TrecxError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
