"""Runs one notebook through papermill: `python -m trecx.report.runner 02_keyword_spotting -p seed 3`."""

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trecx import paths
from trecx.errors import TrecxError
from trecx.report.parameters import parse_parameters

RUNS = paths.BUILD / "runs"  # notebooks that are running, failed, or were rerun by hand


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
    package = str(Path(__file__).parents[2])  # the kernel must import this package, installed or not
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
    parser = argparse.ArgumentParser(prog="python -m trecx.report.style", description="Run one notebook of the book.")
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
