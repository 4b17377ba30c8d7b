"""What the commands of this project do alike: one line for what went wrong, an exit status, and an end when told to.

2      bad input, or the operating system refuses; the line says what
130    interrupted (Ctrl-C)
143    terminated (SIGTERM)
"""

import argparse
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from trecx.errors import TrecxError, system_errors

GOES_ON = "the same command goes on where it was"


class Parser(argparse.ArgumentParser):
    """argparse with one line for an error instead of the usage and a line."""

    def error(self, message: str) -> Any:
        """Raise TrecxError."""
        raise TrecxError(f"{message.rstrip('.')}; see {self.prog} --help")


class Terminated(KeyboardInterrupt):
    """What SIGTERM raises: libraries clean up as after Ctrl-C."""


def guarded(work: Callable[[], int], prefix: str = "error: ") -> int:
    """The exit status of a command: that of `work`, or one for what it raised, told in one line on standard error."""
    try:
        with system_errors():
            status = work()
            sys.stdout.flush()
            return status
    except TrecxError as error:
        complain(f"{prefix}{error}")
        status = 2
    except MemoryError:
        complain(f"{prefix}the memory is full: choose something smaller, or close other programs")
        status = 2
    except KeyboardInterrupt as stop:
        status = stopped(143 if isinstance(stop, Terminated) else 130)
    except BrokenPipeError:  # nobody reads any more
        status = 0
    try:
        sys.stdout.flush()
    except (OSError, ValueError):  # what is left would fail again, with a traceback, when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return status


def stopped(status: int) -> int:
    """Say that the command was stopped; `status` again."""
    complain(f"{'interrupted' if status == 130 else 'terminated'}: {GOES_ON}")
    return status


def complain(text: str) -> None:
    """One line on standard error, long words (a name of thousands of characters) shortened; if it is gone, nothing."""
    line = re.sub(r"(\S{200})\S{100,}(\S{40})", r"\1...\2", " ".join(text.split()))
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def catch_signals() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt and SIGTERM raises Terminated; either, twice, ends at once.

    While a module is being imported the process says its line and ends at once: the import of a library of compiled
    code turns exceptions into others, and there is nothing to clean up. Call it in the main thread.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup`, or a shell's background job
            signal.signal(number, _stop)


_stopping = threading.Event()


def _stop(number: int, frame: FrameType | None) -> None:
    status = 130 if number == signal.SIGINT else 143
    if _stopping.is_set():
        os._exit(status)
    _stopping.set()
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os._exit(stopped(status))
        frame = frame.f_back
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def end_with(parent: int, end: Callable[[], None] = lambda: os._exit(1), every: float = 0.5) -> None:
    """Call `end` (by default: end this process) soon after the process `parent` has gone, be it killed.

    Needed where `parent` is not simply the parent, or where a killed parent's children go to another process than 1.
    """

    def watch() -> None:
        while _lives(parent):
            time.sleep(every)
        end()

    threading.Thread(target=watch, daemon=True).start()


def _lives(process: int) -> bool:
    """Whether there is such a process that is not only waiting to be fetched by its parent."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return True
