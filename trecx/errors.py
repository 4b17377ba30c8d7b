"""The one exception a user of this package is meant to read."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class TrecxError(Exception):
    """Bad input, missing or damaged data, an impossible request, a system that refuses.

    Its message is one sentence that names what was wrong and, where there is a choice, the allowed
    values. The command line prints it on one line and exits with status 2; notebooks show it last.
    """


def check_choice(what: str, value: str, allowed: Iterable[str]) -> None:
    """Raise TrecxError with the allowed values unless `value` is one of them; `what` names the field."""
    allowed = list(allowed)
    if value not in allowed:
        raise TrecxError(f"unknown {what} {value!r}: choose one of {', '.join(map(repr, allowed))}")


@contextmanager
def system_errors() -> Iterator[None]:
    """Tell what the operating system refuses (a full disk, no permission, ...) in one sentence, as TrecxError."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (FileExistsError, NotADirectoryError) as error:
        raise TrecxError(f"{error.filename} is a file, or lies below one, where a folder is needed") from error
    except OSError as error:
        where = f"{error.filename} cannot be used" if error.filename else "the system refuses"
        reason = error.strerror or str(error)
        raise TrecxError(f"{where} ({reason}): mend that, and the same command goes on") from error
