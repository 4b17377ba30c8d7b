"""The one exception a user of this package is meant to read."""

from collections.abc import Iterable


class TrecxError(Exception):
    """Bad input, missing or damaged data, an impossible request.

    Its message is one sentence that names what was wrong and, where there is a choice, the allowed
    values. The command line prints it on one line and exits with status 2; notebooks show it last.
    """


def check_choice(what: str, value: str, allowed: Iterable[str]) -> None:
    """Raise TrecxError with the allowed values unless `value` is one of them; `what` names the field."""
    allowed = list(allowed)
    if value not in allowed:
        raise TrecxError(f"unknown {what} {value!r}: choose one of {', '.join(map(repr, allowed))}")
