"""What of this package's code decides a training: a record counts as long as this stays as it was."""

import ast
import hashlib
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from trecx.models.methods import get_method

# Both of these make something else of networks that are trained already.
AFTER_TRAINING = ("int8", "cascade")
# Arguments that are read by people.
NAMES = ("title", "full_title", "label", "about", "sweeps")


def method_settings(method: str, task: str) -> dict[str, Any]:
    """What decides a training of `method` on `task`, as JSON: all fields but those for people."""
    found, settings = get_method(method, task), {}
    for field in fields(found):
        value = getattr(found, field.name)
        if field.name in ("taps", "narrow"):
            value = value.get(task, ())
        if field.name not in (*NAMES, "tasks"):
            settings[field.name] = repr(value)
    return settings


@cache
def engine_fingerprint(package: Path = Path(__file__).parents[1]) -> str:
    """Checksum of the code in `package` that decides a training's outcome.

    Left out: comments, docstrings, layout, titles and labels, and the tables of recipes and methods. A run's identity
    holds its own recipe and method in full; those of others may change.
    """
    files = [package / "tasks.py", *(package / "models").glob("*.py"), *(package / "training").glob("*.py")]
    digest = hashlib.sha256()
    for file in sorted(file for file in files if file.stem not in AFTER_TRAINING):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        tree.body = [node for node in tree.body if not _is_table(node, file.name)]
        text = ast.unparse(_Deciding().visit(tree))
        digest.update(f"{file.relative_to(package).as_posix()}\n{text}\n".encode())
    return digest.hexdigest()[:16]


def _is_table(node: ast.stmt, file: str) -> bool:
    """Whether a statement of a module fills a table of recipes or methods."""
    if file == "recipes.py":
        return isinstance(node, ast.Assign)
    return file == "methods.py" and isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "METHODS"


class _Deciding(ast.NodeTransformer):
    """Drops every text that stands alone as a statement, and arguments for people."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        alone = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if alone else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.keywords = [keyword for keyword in node.keywords if keyword.arg not in NAMES]
        return self.generic_visit(node)
