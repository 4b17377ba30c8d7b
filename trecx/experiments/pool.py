"""Many runs at once: train what has no record yet, several processes side by side, with progress and an ETA."""

import multiprocessing as mp
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import Any

import torch

from trecx import data as datasets
from trecx.errors import TrecxError
from trecx.experiments.records import Record
from trecx.experiments.runs import Run, cost_of, execute, find

MOST_KILLED = 3  # times in a row, before a sweep gives up
UNGUARDED = 78  # exit status of a worker that found itself asked to train while it imported the script
PATIENCE = 10  # seconds for a worker to end when told to
GUARD = "put the call under `if __name__ == '__main__':`"


def fit(
    runs: Sequence[Run],
    *,
    workers: int | None = None,
    train_missing: bool = True,
    in_order: bool = False,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
    finished: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
    """Records of `runs`, in their order; those without one are trained, several at a time.

    These networks are too small to fill several cores: one single-threaded process a core trains more
    images a second than one process with all cores. On a GPU runs go one after another.

    Args:
        runs: what is wanted; the same run may come twice.
        workers: processes; one a core by default (TRECX_WORKERS overrides).
        train_missing: False raises TrecxError instead of training.
        in_order: start the runs in the order given; otherwise the longest start first, which ends sooner.
        say: receives one line whenever a run finishes, and one a minute in between, with the time left.
        finished: receives every record that was made, at once; the same one twice if a worker was killed.

    Raises:
        TrecxError: a run failed, its data are missing, its worker was killed several times in a row, or the script
            that calls this does so as soon as it is imported, which every worker process does.
    """
    if getattr(mp.current_process(), "_inheriting", False):
        os._exit(UNGUARDED)  # this is a worker that imports the script: the process that started it tells why
    found = {run: find(run) for run in dict.fromkeys(runs)}
    missing = [run for run, record in found.items() if record is None]
    if missing and not train_missing:
        raise TrecxError(f"{len(missing)} runs have no record, the first is {missing[0].name}: train them first")
    if missing and not in_order:
        # No worker sits idle at the end behind a long run that began last.
        missing.sort(key=lambda run: -run.total_epochs * cost_of(run).macs[-1])
    # Once, before the workers would each begin it, and told through `say`: a page of the book shows no standard error.
    for data in dict.fromkeys(run.data for run in missing):
        datasets.ready(data, say)
    killed = 0
    while missing:
        try:
            found |= _train_all(missing, min(workers or default_workers(), len(missing)), say, finished)
            missing = []
        except BrokenProcessPool as error:
            done = {run: record for run in missing if (record := find(run)) is not None}
            found |= done
            missing = [run for run in missing if run not in done]
            killed = 1 if done else killed + 1
            if killed > MOST_KILLED:
                raise TrecxError(f"a worker was killed {killed} times in a row, last of {missing[0].name}") from error
            for record in done.values():  # one may have ended unseen; what was seen does not change
                finished(record)
            say("a worker was killed: its run goes on from the last finished epoch")
    return [record for run in runs if (record := found[run]) is not None]


def default_workers() -> int:
    """TRECX_WORKERS, or one a core; one on a GPU. Raises TrecxError if TRECX_WORKERS is no whole number from 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("TRECX_WORKERS") or str(1 if torch.cuda.is_available() else cores)
    if not wanted.isdecimal() or len(wanted) > 6 or int(wanted) < 1:
        raise TrecxError(f"TRECX_WORKERS is {wanted!r}: give a whole number of processes from 1")
    return int(wanted)


def _train_all(
    runs: list[Run], workers: int, say: Callable[[str], None], finished: Callable[[Record], None]
) -> dict[Run, Record]:
    if not Path(main := getattr(sys.modules["__main__"], "__file__", None) or __file__).is_file():
        raise TrecxError(f"workers import the script that trains, and {main} is no file: write the script into one")
    started = last_said = time.monotonic()
    total = sum(run.total_epochs for run in runs)
    done: dict[str, int] = {}
    first: dict[str, int] = {}  # epochs of an earlier, interrupted call took no time in this one
    records: dict[Run, Record] = {}
    context = mp.get_context("spawn")
    queue: Any = context.Queue()
    say(f"training {len(runs)} runs, {total} epochs, {workers} at a time")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(queue, workers))
    processes: list[Any] = []
    with pool:
        try:
            with _without_interrupts():
                pending = {pool.submit(_work, run): run for run in runs}
            processes = list((pool._processes or {}).values())
            while pending:
                ready, _ = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
                try:
                    while True:
                        name, epochs = queue.get_nowait()
                        done[name] = epochs
                        first.setdefault(name, epochs - 1)
                except Empty:
                    pass
                now, epochs = time.monotonic(), sum(done.values())
                left = (total - epochs) * (now - started) / max(epochs - sum(first.values()), 1)
                for future in ready:
                    run = pending.pop(future)
                    try:
                        record = records[run] = future.result()
                    except TrecxError as error:
                        raise TrecxError(f"{run.name}: {error}") from error
                    finished(record)
                    shown = " / ".join(f"{100 * a:.1f}" for a in record.accuracies("val"))
                    say(f"[{len(records)}/{len(runs)}] {run.name}: {shown} % on validation; about {_clock(left)} left")
                    last_said = now
                if pending and now - last_said > 60:
                    say(f"epoch {epochs} of {total}; about {_clock(left)} left")
                    last_said = now
        except BaseException as error:
            # Finished epochs are on disk; what is running starts again from there.
            processes = list({*processes, *(pool._processes or {}).values()})
            pool.shutdown(wait=False, cancel_futures=True)
            _end(processes)
            if isinstance(error, BrokenProcessPool) and any(p.exitcode == UNGUARDED for p in processes):
                raise TrecxError(f"workers import the script that trains, and it trains at once: {GUARD}") from None
            raise
    return records


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes that start here never see Ctrl-C, which a terminal sends to all: the one that started them ends them.

    A worker would answer with a traceback, already while it imports.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(processes: list[Any]) -> None:
    """End workers, and wait until they are gone."""
    for process in processes:
        process.terminate()
    give_up = time.monotonic() + PATIENCE
    for process in processes:
        process.join(max(0, give_up - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            process.join()


_worker: dict[str, Any] = {}  # a worker process keeps the queue to its parent here


def _start_worker(queue: Any, workers: int) -> None:
    _worker["queue"] = queue
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through what cleans up
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if workers > 1:
        torch.set_num_threads(1)


def _end_with_parent() -> None:
    """A killed parent would leave workers behind that write to the same states as those of the next call."""
    if parent := mp.parent_process():
        parent.join()
        os._exit(1)


def _work(run: Run) -> Record:
    return execute(run, lambda epochs, row: _worker["queue"].put((run.name, epochs)))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
