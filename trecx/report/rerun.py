"""A notebook that was run by hand becomes a page of its own, in the looks of the book.

It begins with what was changed and what that did to the chapter's main numbers. Each choice of parameters has a folder
of its own in `_build/reruns`, with the page, the executed notebook and its tables; `make serve` lists them.
"""

import hashlib
import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trecx import paths
from trecx.errors import TrecxError

RERUNS = paths.BUILD / "reruns"
ABOUT = "rerun.json"  # in a rerun's folder: what it is of
LIVE = "_live"  # ends the name of a chapter's twin on stand-in data

# End of a glued value's name -> what it is. The main numbers of a chapter, in this order.
MAIN = {
    "baseline": "test accuracy of the unmodified network",
    "early": "test accuracy of T-RecX's early exit",
    "final": "test accuracy of T-RecX's final exit",
    "saved-own-validation": "cost that T-RecX saves one point below our baseline",
    "saved-final-validation": "cost that T-RecX saves one point below its own final exit",
    "headline": "mean saving over the benchmarks, one point below our baselines",
    "headline-lenient": "the same, where a seed that misses the accuracy counts as saving nothing",
    "headline-final": "mean saving one point below its own final exits",
    "headline-smaller-validation": "mean saving of a smaller network without exits",
    "beyond-mean": "mean saving of the best way of each benchmark, one point below our baselines",
    "beyond-mean-trecx": "the same of T-RecX",
    "beyond-mean-none": "mean saving of the best way at our baselines' accuracy",
    "verdicts": "verdicts",
}
# What stands before these names in the chapters of one benchmark -> what their words end in.
PARTS = {
    "": "",
    "ic-": "",
    "kws-": "",
    "vww-": "",
    "vww-finetune-": ", from trained weights",
    "vww-scratch-": ", from scratch",
}
MOST_NUMBERS = 12  # of a notebook that has none of these

_JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"


def folder_of(notebook: str, values: Mapping[str, Any]) -> Path:
    """The folder of a notebook's rerun with these parameters."""
    words = [notebook, *(f"{name}-{value}" for name, value in values.items())]
    plain = [re.sub(r"[^A-Za-z0-9.+-]+", "_", word).strip("_") for word in words]
    name = "_".join(plain)
    if len(name) > 100 or any(re.fullmatch(r"[\w.+-]*", word) is None for word in words):
        exact = hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:8]
        name = f"{name[:90]}_{exact}"  # what the name leaves out must not make two choices one
    return RERUNS / name


def glued(notebook: Any) -> dict[str, str]:
    """The values for the running text that an executed notebook (an nbformat node) holds, as text."""
    found = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if name := output.get("metadata", {}).get("scrapbook", {}).get("name"):
                texts = [value for kind, value in output["data"].items() if kind.endswith("text/plain")]
                found[name] = "".join(texts[:1]).strip("'")
    return found


def main_numbers(values: Mapping[str, str]) -> dict[str, str]:
    """Name -> words for the main numbers among glued values; the first ones under their own names where it has none."""
    known = {f"{part}{name}": words + end for part, end in PARTS.items() for name, words in MAIN.items()}
    found = {name: words for name, words in known.items() if name in values}
    numbers = [name for name, value in values.items() if _number(value) is not None]
    return found or {name: name.replace("-", " ") for name in numbers[:MOST_NUMBERS]}


def _number(text: str) -> float | None:
    found = re.match(r"[+\-\N{MINUS SIGN}]?\d[\d,]*\.?\d*(e[+-]?\d+)?", text.strip())
    return float(found[0].replace(",", "").replace("\N{MINUS SIGN}", "-")) if found else None


def difference(ours: str, theirs: str) -> str:
    """How far the number that a text begins with is from another's; '' where one of them begins with none."""
    a, b = _number(ours), _number(theirs)
    return "" if a is None or b is None else f"{a - b:+.4g}".replace("-", "\N{MINUS SIGN}")


def opening(
    known: Mapping[str, Any],
    values: Mapping[str, Any],
    ours: Mapping[str, str],
    published: Mapping[str, str] | None,
    twin: Mapping[str, str] | None,
) -> str:
    """What a rerun's page begins with, as Markdown.

    Args:
        known: the notebook's parameters, as `papermill.inspect_notebook` gives them.
        values: those that were given.
        ours, published, twin: glued values of the rerun, of the published chapter, and of its twin on stand-in data;
            None for one that is not there. Differences are to the twin where there is one.
    """
    lines = ["## What was changed", ""]
    changed = {name: value for name, value in values.items() if repr(value) != known[name]["default"].replace('"', "'")}
    if changed:
        lines += ["| parameter | here | in the book | meaning |", "|---|---|---|---|"]
        for name, value in changed.items():
            about = _cell(known[name]["help"]).lstrip("# ") or "–"
            lines.append(
                f"| `{name}` | `{_cell(value)}` | `{_cell(known[name]['default']).strip(chr(34))}` | {about} |"
            )
    else:
        lines.append("Nothing: every parameter is as in the book.")
    lines += ["", "## What that does to the main numbers", ""]
    columns = {"the published chapter": published, "its live twin, as the book has it": twin}
    there = {name: found for name, found in columns.items() if found is not None}
    names = main_numbers(ours)
    if not names:
        return "\n".join([*lines, "This notebook has no numbers in its text.", ""])
    if not there:
        lines += ["*The chapter in the book has not been run here: `make book` does, and the next rerun compares.*", ""]
    other = [*there.values()][-1] if there else {}
    lines.append(f"| number | this rerun |{''.join(f' {name} |' for name in there)}{' difference |' * bool(there)}")
    lines.append("|---|---|" + "---|" * (len(there) + bool(there)))
    for name, words in names.items():
        cells = [_cell(found.get(name, "–")) for found in there.values()]
        if there:
            cells.append(difference(ours[name], other.get(name, "")) or "–")
        lines.append("| " + " | ".join([words, _cell(ours[name]), *cells]) + " |")
    if twin is not None:
        lines += ["", "The published chapter is on the real data, this rerun on stand-in data: only the twin compares."]
    return "\n".join([*lines, ""])


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ").strip()


def with_opening(notebook: Any, text: str) -> None:
    """Put a text between the title and the rest of an executed notebook, in place."""
    import nbformat

    title, _, rest = notebook.cells[0].source.partition("\n")
    notebook.cells[0].source = title
    new = [nbformat.v4.new_markdown_cell(text)] + [nbformat.v4.new_markdown_cell(rest)] * bool(rest.strip())
    notebook.cells[1:1] = new


def link_pages(notebook: Any, book: Path, page: Path) -> None:
    """Turn references to other pages of the book into links to its HTML, or into their titles where there is none.

    Args:
        notebook: changed in place.
        book: folder of the book's HTML.
        page: folder that the page will be in.
    """
    up = "../" * (len(page.relative_to(paths.BUILD).parts))

    def link(found: re.Match[str]) -> str:
        words, target = re.fullmatch(r"(?:(.*?)\s*<)?([^<>]+)>?", found[1]).groups()  # type: ignore[union-attr]
        name = target.removeprefix("../") if target.startswith("../") else target
        name = name.removeprefix("/") if name != target or target.startswith("/") else f"notebooks/{target}"
        words = html.escape(words or _title(name))
        if not (book / f"{name}.html").is_file():
            return words
        return f'<a href="{up}{book.name}/{name}.html">{words}</a>'

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\{doc\}`([^`]+)`", link, cell.source)


def _title(name: str) -> str:
    """The title of a page of the book."""
    stem = Path(name).name.removesuffix(LIVE)
    if (source := paths.NOTEBOOKS / f"{stem}.ipynb").is_file():
        text = "".join(json.loads(source.read_text())["cells"][0]["source"])
    else:
        page = paths.BOOK / f"{name}.md"
        text = page.read_text(encoding="utf-8") if page.is_file() else name
    found = re.search(r"^# (.+)$", text, flags=re.MULTILINE)
    return found[1] if found else stem


def publish(executed: Path, tables: Path, values: Mapping[str, Any], target: Path) -> Path:
    """Render an executed notebook into `target`, whole or not at all, and return its page.

    Args:
        executed: the notebook; moved into the folder.
        tables: folder of its tables, moved there too.
        values: the parameters that were given.
        target: as `folder_of` says; an earlier rerun with the same parameters is replaced.

    Raises:
        TrecxError: the page could not be rendered.
    """
    import nbformat
    import yaml
    from papermill import inspect_notebook

    stem = executed.stem
    notebook = nbformat.read(executed, as_version=4)
    published, twin = (_of_the_book(f"{stem}{end}") for end in ("", LIVE))
    beside = twin if values.get("source") == "quick" else None
    text = opening(inspect_notebook(str(paths.NOTEBOOKS / executed.name)), values, glued(notebook), published, beside)
    with_opening(notebook, text)
    link_pages(notebook, paths.HTML, target)

    work = RERUNS / f".{target.name}.new"
    shutil.rmtree(work, ignore_errors=True)
    source = work / "source"
    source.mkdir(parents=True)
    nbformat.write(notebook, source / executed.name)
    for name in ("references.md", "references.bib"):
        shutil.copy(paths.BOOK / name, source)
    shutil.copytree(paths.BOOK / "_static", source / "_static", ignore=shutil.ignore_patterns("generated"))
    toc = {"format": "jb-book", "root": stem, "chapters": [{"file": "references"}]}
    (source / "_toc.yml").write_text(yaml.safe_dump(toc))
    (source / "_config.yml").write_text(yaml.safe_dump(_config(), allow_unicode=True))
    words = ["build", str(source), "--path-output", str(work), "--all", "-q"]
    built = subprocess.run(
        [sys.executable, "-c", _JUPYTER_BOOK, *words], cwd=paths.ROOT, capture_output=True, text=True, check=False
    )
    made = work / "_build" / "html"
    if built.returncode or not (made / f"{stem}.html").is_file():
        raise TrecxError(f"the page of {stem} could not be rendered:\n{built.stdout[-2000:]}{built.stderr[-2000:]}")
    for path in made.rglob("*.map"):  # for those who debug the theme
        path.unlink()
    about = {"notebook": stem, "title": _title(f"notebooks/{stem}"), "parameters": dict(values)}
    about["when"] = datetime.now(UTC).isoformat(timespec="seconds")
    (made / ABOUT).write_text(json.dumps(about, indent=1) + "\n")
    executed.replace(made / executed.name)
    if tables.is_dir():
        shutil.move(tables, made / "tables")
    shutil.rmtree(target, ignore_errors=True)
    made.replace(target)
    shutil.rmtree(work)
    return target / f"{stem}.html"


def _of_the_book(name: str) -> dict[str, str] | None:
    """Glued values of an executed notebook of the book; None where it has not been run."""
    import nbformat

    path = paths.BOOK / "notebooks" / f"{name}.ipynb"
    return glued(nbformat.read(path, as_version=4)) if path.is_file() else None


def _config() -> dict[str, Any]:
    """The book's configuration, for a page that no repository holds: without its address, buttons and sitemap."""
    import yaml

    config = yaml.safe_load((paths.ROOT / "_config.yml").read_text())
    config["title"] = f"{config['title']}: a rerun"
    folders = config["sphinx"]["local_extensions"]
    folders.pop("web", None)
    config["sphinx"]["local_extensions"] = {name: str(paths.ROOT / folder) for name, folder in folders.items()}
    config["sphinx"]["config"]["extensions"] = [e for e in config["sphinx"]["config"]["extensions"] if e != "web"]
    return config


def listed() -> list[dict[str, Any]]:
    """The reruns that are there, the latest first: `notebook`, `title`, `parameters`, `when`, `page` (in RERUNS)."""
    found = []
    for path in RERUNS.glob(f"[!.]*/{ABOUT}"):
        about = json.loads(path.read_text())
        found.append(about | {"page": f"{path.parent.name}/{about['notebook']}.html"})
    return sorted(found, key=lambda about: about["when"], reverse=True)
