"""Runs one notebook through papermill: `python -m trecx.report.runner 02_keyword_spotting -p seed 3`.

A chapter has a parameter `source`. For the book it runs twice: on published records, and as its live twin on stand-in
data. Cells whose text or code holds for one of them only carry the tag `real` or `stand-in` and are left out of the
other.
"""

import logging
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from trecx import paths
from trecx.command import Parser, Terminated, catch_signals, end_with, guarded, stopped
from trecx.errors import TrecxError
from trecx.files import locked
from trecx.report import rerun
from trecx.report.parameters import parse_parameters

RUNS = paths.BUILD / "runs"  # notebooks that are running or failed
LIVE = rerun.LIVE
PATIENCE = 10  # seconds that the trainings of a notebook that is stopped have to end in, and then its kernel
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
    from trecx.report.page import plain

    glued = rerun.glued(notebook)
    for cell in notebook.cells:
        if figure := cell.metadata.get("mystnb", {}).get("figure"):
            figure["caption"] = re.sub(
                r"\{([a-z0-9._-]+)\}",
                lambda found: plain(glued[found[1]]) if found[1] in glued else found[0],
                figure["caption"],
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

    Another process that runs the same notebook is waited for.

    publish: move the result into the book, else render it as a page of its own. Only if every cell succeeded: papermill
    writes its output also on failure, which `make` would take for a finished page.
    """
    name = notebook.stem + (LIVE if publish and values.get("source") in ("quick", "full") else "")
    with locked(RUNS / ".locks" / f"{name}.lock", f"{name} is being run by another process: waiting"):
        work = RUNS / f".{name}"  # what is there was left by a process that was killed
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            return _run(notebook, values, publish, name, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _run(notebook: Path, values: Mapping[str, Any], publish: bool, name: str, work: Path) -> int:
    import nbformat

    output = RUNS / f"{name}.ipynb"
    given = work / output.name  # what papermill is given: the cells for this source
    source = str(values.get("source", ""))
    nbformat.write(for_source(nbformat.read(notebook, as_version=4), source), given)
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # or the kernel's debugger prints a warning each time
    package = str(Path(__file__).parents[2])  # the kernel must import this package, installed or not
    os.environ["PYTHONPATH"] = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    # A rerun with other parameters must not replace the files of the book.
    tables = paths.TABLES if publish else RUNS / f"{notebook.stem}_tables"
    os.environ["TRECX_TABLES"] = str(tables)
    shown = "".join(f" -p {key} {value}" for key, value in values.items())
    os.environ["TRECX_NOTEBOOK"] = notebook.stem
    os.environ["TRECX_COMMAND"] = f"make notebook NB={notebook.stem}" + f" P='{shown.strip()}'" * bool(shown)
    where = output.relative_to(paths.ROOT)
    order = sources()
    shown = "".join(f", {key}={value}" for key, value in values.items())
    print(f"[{order.index(notebook) + 1}/{len(order)}] {notebook.stem}{shown}", flush=True)
    start = time.monotonic()
    if (error := _executed(given, output, values, work)) is not None:
        ename, evalue = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
        if ename != "TrecxError":  # a TrecxError says it all in its sentence
            print("\n".join(getattr(error, "traceback", [])), file=sys.stderr)
        print(f"{notebook.stem} failed: {ename}: {evalue}", file=sys.stderr)
        print(f"The notebook as far as it came is {where}.", file=sys.stderr)
        return 1
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
    else:
        where = rerun.publish(output, tables, values, rerun.folder_of(notebook.stem, values)).relative_to(paths.ROOT)
    print(f"    done in {time.monotonic() - start:.0f} s: {where}", flush=True)
    return 0


def _executed(given: Path, output: Path, values: Mapping[str, Any], work: Path) -> Exception | None:
    """Execute a notebook; what a cell raised, or that the kernel died.

    In a thread: there papermill's client leaves the signals alone, and this process ends the kernel when it is told to.
    """
    import papermill
    from jupyter_core.utils import ensure_event_loop
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    raised: list[BaseException] = []
    # The kernel ends with this process, killed or not. Its connection file goes where it will be removed.
    watch = f"from trecx.command import end_with; end_with({os.getpid()})"
    tempfile.tempdir = str(work)

    def execute() -> None:
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
                extra_arguments=[f"--IPKernelApp.exec_lines={watch}"],
            )
        except BaseException as error:
            raised.append(error)
        finally:
            ensure_event_loop().close()  # this thread's

    thread = threading.Thread(target=execute, daemon=True)
    try:
        thread.start()
        thread.join()
    except KeyboardInterrupt as stop:
        _end_kernel(thread)
        shutil.rmtree(work, ignore_errors=True)
        # At once: the thread would tell at length that its kernel is gone.
        os._exit(stopped(143 if isinstance(stop, Terminated) else 130))
    finally:
        tempfile.tempdir = None
    for error in raised:
        if isinstance(error, PapermillExecutionError | DeadKernelError):
            return error
        raise error
    return None


def _end_kernel(client: threading.Thread) -> None:
    """End the kernel; one with processes of its own is interrupted first, so that these end in order."""
    import psutil

    logging.disable()
    kernels = psutil.Process().children()
    if len(processes := psutil.Process().children(recursive=True)) > len(kernels):
        for kernel in kernels:
            with suppress(psutil.Error):
                kernel.send_signal(signal.SIGINT)
        client.join(PATIENCE)  # it ends the kernel where a cell raised
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for process in processes:
            with suppress(psutil.Error):
                end(process)
        _, processes = psutil.wait_procs(processes, PATIENCE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the notebook that the command line names; 0, 1 where a cell failed, otherwise as `trecx.command` has it."""
    parser = Parser(prog="python -m trecx.report.runner", description="Run one notebook of the book.")
    parser.add_argument("notebook", help="its name, such as 02_keyword_spotting")
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="given", help="set a parameter"
    )
    parser.add_argument("--words", default="", help="more of these options in one text, quoted as for a shell")
    parser.add_argument("--publish", action="store_true", help="put the result into the book")
    parser.add_argument("--parent", type=int, help="end when the process of this number does, be it killed")

    def work() -> int:
        args = parser.parse_args(argv)
        try:
            words = shlex.split(args.words)
        except ValueError as error:
            raise TrecxError(f"{args.words!r} are no options ({error}): give such as '-p seed 3'") from error
        given = args.given + parser.parse_args([args.notebook, *words]).given
        notebook = find(args.notebook)
        values = parse_parameters(notebook, given)
        if args.parent:
            end_with(args.parent, lambda: os.kill(os.getpid(), signal.SIGTERM))
        return run(notebook, values, args.publish)

    return guarded(work, prefix="")


if __name__ == "__main__":
    catch_signals()
    sys.exit(main())
