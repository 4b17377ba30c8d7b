"""Runs of a sweep on a Ray cluster."""

import os
from collections.abc import Callable, Sequence

from trecx import paths
from trecx.errors import TrecxError
from trecx.experiments.records import FILES, Record, whole_folder
from trecx.experiments.runs import Run, alone, execute, find, refuse_another

ATTEMPTS = 4  # of one run under Ray, if its worker is killed

Say = Callable[[str], None]


def on_ray(
    runs: Sequence[Run], workers: int | None, address: str | None, say: Say, finished: Callable[[Record], None]
) -> list[Record]:
    try:
        import ray
    except ImportError as error:
        raise TrecxError("engine ray needs the package ray: pip install 'trecx[cluster]'") from error

    missing = [run for run in dict.fromkeys(runs) if find(run) is None]
    for run in missing:  # before anything is trained
        refuse_another(paths.RECORDS / run.data / run.name, run)
    say(f"{len(runs)} runs, {len(missing)} to train on Ray")
    try:
        # One thread a run. Workers use this process's folders, unless the nodes are others and none was named.
        folders = {"TRECX_DATA": str(paths.DATA), "TRECX_RECORDS": str(paths.RECORDS)}
        named = {name: value for name, value in folders.items() if address is None or name in os.environ}
        ray.init(
            address=address,
            num_cpus=None if address else workers,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", **named}},
            log_to_driver=False,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise TrecxError(f"no Ray cluster at {address!r}: {' '.join(str(error).split())}") from error
    try:
        # Retries take an interrupted run up from its last finished epoch if they land on the same machine.
        task = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(_train_far_away)
        pending = {task.remote(run): run for run in missing}
        while pending:
            (ready,), _ = ray.wait(list(pending), num_returns=1)
            run = pending.pop(ready)
            try:
                content = ray.get(ready)
            except ray.exceptions.RayError as error:
                raise TrecxError(f"{run.name} failed on Ray: {str(error).strip().splitlines()[-1]}") from error
            finished(_kept(run, content))
            say(f"[{len(missing) - len(pending)}/{len(missing)}] {run.name}")
    finally:
        ray.shutdown()
    return [record for run in runs if (record := find(run)) is not None]


def _kept(run: Run, content: dict[str, bytes]) -> Record:
    """The record of `run`, written from its files unless it is here: of a shared disk, or by another process."""
    with alone(run) as target:
        if find(run, say=False) is None:
            refuse_another(target, run)
            with whole_folder(target) as folder:
                for name, data in content.items():
                    (folder / name).write_bytes(data)
    record = find(run)
    if record is None:
        raise TrecxError(f"{run.name} came back from Ray damaged, or made by other code or data: start Ray again")
    return record


def _train_far_away(run: Run) -> dict[str, bytes]:
    """The files of a run's record: the nodes of a cluster need not share a disk."""
    record = find(run) or execute(run)
    names = (*FILES, *([record.weights.name] if record.weights.is_file() else []))
    return {name: (record.folder / name).read_bytes() for name in names}
