"""Parameters of a notebook: what each may be, checked in the notebook and on the command line.

Papermill alone would only log a warning about a misspelt parameter and go on with the default.
"""

import ast
import html
import numbers
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trecx.errors import TrecxError


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


def show_parameters(namespace: Mapping[str, Any]) -> None:
    """Put the parameters of a page on it as a small table, with the command that changes them.

    Args:
        namespace: `globals()` of the notebook.
    """
    from IPython.display import display

    (cell,) = [source for source in namespace["In"] if "  # type: " in source][:1]
    rows = []
    for name, default, kind, meaning in re.findall(r"^(\w+) = (.*?)  # type: (\S+)  # (.*)$", cell, flags=re.MULTILINE):
        value = repr(namespace[name]).replace("'", '"')
        texts = (name, kind, default, value, meaning)
        rows.append("".join(f"<td>{html.escape(text)}</td>" for text in texts))
    head = "".join(f'<th scope="col">{title}</th>' for title in ("parameter", "type", "default", "here", "meaning"))
    given = "-p source quick -p seed 3" if {"source", "seed"} <= namespace.keys() else "-p NAME VALUE"
    command = f"make notebook NB={os.environ.get('TRECX_NOTEBOOK', 'NAME')} P='{given}'"
    page = (
        '<details class="trecx-parameters"><summary>Parameters of this page, and how to rerun it with others</summary>'
        f'<div class="trecx-scroll" role="region" tabindex="0" aria-label="Parameters"><table><thead><tr>{head}</tr>'
        f"</thead><tbody>{''.join(f'<tr>{row}</tr>' for row in rows)}</tbody></table></div>"
        f"<p>Another value: <code>{html.escape(command)}</code></p></details>"
    )
    display({"text/html": page, "text/plain": command}, raw=True)


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
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = text
    kinds = {kind.__name__: rule.allows for kind, rule in _TYPES.items()}
    kinds |= {"list": lambda v: isinstance(v, list), "None": lambda v: v is None}
    allowed = [re.sub(r"\[.*", "", kind) for kind in declared.split("|")]
    if any(kind not in kinds or kinds[kind](value) for kind in allowed):
        return value
    raise TrecxError(f"parameter {name} is {text!r}: give a value of type {declared}")
