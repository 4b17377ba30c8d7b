"""The tables that readers download: `python -m trecx.report.downloads` writes `book/tables` anew.

Every executed notebook of the book carries its tables inside (`trecx.report.page.show_table`), so the folder can be had
again whatever became of it.
"""

import json
import re
from pathlib import Path
from urllib.parse import unquote

from trecx import paths
from trecx.files import whole_file

_LINK = re.compile(r'download="([a-z0-9_-]+\.csv)" href="data:text/csv;charset=utf-8,([^"]*)"')


def tables(notebook: Path) -> dict[str, str]:
    """The CSV files, by name, in the outputs of an executed notebook."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    pages = ["".join(out.get("data", {}).get("text/html", "")) for cell in cells for out in cell.get("outputs", [])]
    return {name: unquote(csv) for page in pages for name, csv in _LINK.findall(page)}


def restore() -> None:
    """Have `book/tables` hold the tables of the executed notebooks, as they are there, and no others."""
    wanted: dict[str, str] = {}
    for notebook in sorted((paths.BOOK / "notebooks").glob("*.ipynb")):
        wanted |= tables(notebook)
    paths.TABLES.mkdir(parents=True, exist_ok=True)
    for path in paths.TABLES.glob("*.csv"):
        if path.name not in wanted:
            path.unlink()
    for name, csv in wanted.items():
        path = paths.TABLES / name
        if not path.is_file() or path.read_bytes() != csv.encode():
            with whole_file(path) as file:
                file.write(csv.encode())


if __name__ == "__main__":
    restore()
