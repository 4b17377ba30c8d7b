"""Runs one notebook through papermill: `python -m trecx.report.runner 02_keyword_spotting -p seed 3`.

A chapter has a parameter `source`. For the book it runs twice: on published records, and as its live twin on stand-in
data. Cells whose text or code holds for one of them only carry the tag `real` or `stand-in` and are left out of the
other.
"""

import argparse
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trecx import paths
from trecx.errors import TrecxError
from trecx.report.parameters import parse_parameters

RUNS = paths.BUILD / "runs"  # notebooks that are running, failed, or were rerun by hand
LIVE = "_live"  # ends the name of a chapter's twin
DROPPED = {"published": "stand-in", "full": "stand-in", "quick": "real"}  # source -> tag of the cells to leave out


def sources() -> list[Path]:
    """The notebooks, in reading order."""
    return sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def find(name: str) -> Path:
    """Return the notebook called `name`, with or without .ipynb; TrecxError with the allowed names otherwise."""
    allowed = {path.stem: path for path in sources()}
    if (stem := Path(name).name.removesuffix(".ipynb")) not in allowed:
        asked = f"there is no notebook {name!r}" if name else "no notebook named"
        raise TrecxError(f"{asked}: choose one of {', '.join(allowed) or 'none, notebooks/ is empty'}")
    return allowed[stem]


def for_source(notebook: Any, source: str) -> Any:
    """The cells (an nbformat node, changed in place) that a page on `source` has.

    Figures of a twin get names of their own, since a name may stand once in a book.
    """
    dropped = DROPPED.get(source, "stand-in")
    notebook.cells = [cell for cell in notebook.cells if dropped not in cell.metadata.get("tags", [])]
    if source == "quick":
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                named = r"(\{(?:num)?ref\}`(?:[^`<]*<)?fig-[a-z0-9-]+)"
                cell.source = re.sub(named, rf"\1{LIVE.replace('_', '-')}", cell.source)
            if figure := cell.metadata.get("mystnb", {}).get("figure"):
                figure["name"] += LIVE.replace("_", "-")
    return notebook


def fill_captions(notebook: Any) -> None:
    """Put glued values in the place of `{name}` in the captions of an executed notebook, in place."""
    glued = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if name := output.get("metadata", {}).get("scrapbook", {}).get("name"):
                texts = [value for kind, value in output["data"].items() if kind.endswith("text/plain")]
                glued[name] = "".join(texts[:1])
    for cell in notebook.cells:
        if figure := cell.metadata.get("mystnb", {}).get("figure"):
            figure["caption"] = re.sub(
                r"\{([a-z0-9._-]+)\}", lambda found: glued.get(found[1], found[0]), figure["caption"]
            )


def split_figures(notebook: Any) -> None:
    """Give the text that a figure's cell shows a cell of its own, below, in place: each output would be a figure."""
    from nbformat.v4 import new_code_cell

    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        texts = [output for output in cell.get("outputs", []) if "text/html" in output.get("data", {})]
        if cell.metadata.get("mystnb", {}).get("figure") and texts:
            cell.outputs = [output for output in cell.outputs if output not in texts]
            # The book leaves a cell without source out.
            cells.append(new_code_cell("# where it comes from", metadata={"tags": ["remove-input"]}, outputs=texts))
    notebook.cells = cells


def run(notebook: Path, values: Mapping[str, Any], publish: bool) -> int:
    """Run a notebook in `_build/runs`, showing what its cells print; return an exit status.

    publish: move the result into the book. Only then, and only if every cell succeeded: papermill writes its
    output also on failure, which `make` would take for a finished page.
    """
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError

    source = str(values.get("source", ""))
    name = notebook.stem + (LIVE if publish and source in ("quick", "full") else "")
    output = RUNS / f"{name}.ipynb"
    output.parent.mkdir(parents=True, exist_ok=True)
    given = RUNS / f".{name}.ipynb"  # what papermill is given: the cells for this source
    nbformat.write(for_source(nbformat.read(notebook, as_version=4), source), given)
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # or the kernel's debugger prints a warning each time
    package = str(Path(__file__).parents[2])  # the kernel must import this package, installed or not
    os.environ["PYTHONPATH"] = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    # A rerun with other parameters must not replace the files of the book.
    os.environ["TRECX_TABLES"] = str(paths.TABLES if publish else RUNS / f"{notebook.stem}_tables")
    shown = "".join(f" -p {key} {value}" for key, value in values.items())
    os.environ["TRECX_NOTEBOOK"] = notebook.stem
    os.environ["TRECX_COMMAND"] = f"make notebook NB={notebook.stem}" + f" P='{shown.strip()}'" * bool(shown)
    where = output.relative_to(paths.ROOT)
    order = sources()
    shown = "".join(f", {key}={value}" for key, value in values.items())
    print(f"[{order.index(notebook) + 1}/{len(order)}] {notebook.stem}{shown}", flush=True)
    start = time.monotonic()
    try:
        papermill.execute_notebook(
            str(given),
            str(output),
            parameters=dict(values),
            kernel_name="python3",
            cwd=str(paths.NOTEBOOKS),
            progress_bar=False,
            iopub_timeout=300,  # a large figure on a busy machine takes longer than the usual 4 s
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
    finally:
        given.unlink(missing_ok=True)
    executed = nbformat.read(output, as_version=4)
    fill_captions(executed)
    split_figures(executed)
    for cell in executed.cells:  # the page shows parameters as a table
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata["tags"].append("remove-cell")
    nbformat.write(executed, output)
    if publish:
        target = paths.BOOK / "notebooks" / output.name
        target.parent.mkdir(parents=True, exist_ok=True)
        output.replace(target)
        where = target.relative_to(paths.ROOT)
    print(f"    done in {time.monotonic() - start:.0f} s: {where}", flush=True)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the notebook that the command line names; 0, 1 where a cell failed, 2 on bad input, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m trecx.report.runner", description="Run one notebook of the book.")
    parser.add_argument("notebook", help="its name, such as 02_keyword_spotting")
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="given", help="set a parameter"
    )
    parser.add_argument("--publish", action="store_true", help="put the result into the book")
    args = parser.parse_args(argv)
    try:
        notebook = find(args.notebook)
        return run(notebook, parse_parameters(notebook, args.given), args.publish)
    except TrecxError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
