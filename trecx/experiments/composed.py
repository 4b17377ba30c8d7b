"""Records made from records, without training or evaluation: two networks in a row, and a network cut short.

Both are read like any record: traces, costs, accuracies, parameters.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trecx.errors import TrecxError
from trecx.evaluation.trace import mixed
from trecx.experiments import runs
from trecx.experiments.records import Record
from trecx.experiments.runs import Design, Run, run_of
from trecx.models.build import input_shape
from trecx.models.cascade import Cascade, Resize, mixed_flops, shortened
from trecx.models.cost import Cost, Network, head_costs, parameters, peak_activations
from trecx.models.methods import METHODS
from trecx.models.network import EarlyExitNetwork, check_mix
from trecx.tasks import TASKS

MIXED = ", answers mixed"  # ends the names of cascades that mix
COUNTS = ("macs", "flops", "fvcore")  # of a manifest's cost, an entry an exit


@dataclass(frozen=True)
class Cascaded(Record):
    """A cascade: `second` sees the samples of which `first` is not sure. Made by `cascade`."""

    first: Record
    second: Record
    mix: float = 0.0

    @property
    def name(self) -> str:
        """Both names, the first network's first."""
        return f"{self.first.name}, then {self.second.name}" + f", mix {self.mix:g}" * bool(self.mix)

    @property
    def rule(self) -> str:
        """Exit rule, as `trecx.models.cascade.Cascade` has it."""
        return next((part.rule for part in (self.first, self.second) if len(part.cost()) > 1), ">")

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Run, data and cost; all that the first network costs is paid by a sample that goes on."""
        ours, theirs = self.first.manifest["cost"], self.second.manifest["cost"]
        both = ours.keys() & theirs.keys()
        cost = {key: ours[key] + theirs[key] for key in ("params", "trainable_params") if key in both}
        cost |= {key: [*ours[key], *(ours[key][-1] + value for value in theirs[key])] for key in COUNTS if key in both}
        if self.mix:
            own, exits = len(ours["flops"]), len(theirs["flops"])
            more = [0] * own + mixed_flops(self.second.predictions["val_log_probs"].shape[2], exits)
            cost["flops"] = [flops + mixing for flops, mixing in zip(cost["flops"], more, strict=True)]
        run = {"task": self.second.task, "method": "cascade", "seed": self.second.seed, "mix": self.mix}
        seconds = sum(part.manifest.get("seconds", 0) for part in (self.first, self.second))
        return {"run": run, "data": self.second.manifest["data"], "cost": cost, "seconds": seconds}

    @cached_property
    def predictions(self) -> dict[str, NDArray[Any]]:
        """As those of any record, the first network's exits first."""
        found = dict(self.second.predictions)
        for split in ("val", "test"):
            both = [part.predictions[f"{split}_log_probs"] for part in (self.first, self.second)]
            found[f"{split}_log_probs"] = mixed(np.concatenate(both, axis=1), self.mix, both[0].shape[1])
        return found


def cascade(first: Record, second: Record, mix: float = 0.0) -> Cascaded:
    """The cascade of two recorded networks, from their predictions on the same samples.

    `mix` is the share that the first network's last answer has in every answer of the second, see
    `trecx.models.cascade.Cascade`.

    Raises:
        TrecxError: records of different tasks, data, classes, samples or order of samples, one that is a cascade, or an
            impossible share.
    """
    check_mix(mix)
    if several := [record.name for record in (first, second) if isinstance(record, Cascaded)]:
        raise TrecxError(f"{several[0]} is a cascade already: give two records of single networks")
    both = f"{first.name} and {second.name} make no cascade"
    if first.task != second.task:
        raise TrecxError(f"{both}: one is of task {first.task}, the other of {second.task}, choose records of one task")
    data = [record.manifest["data"] for record in (first, second)]
    if data[0]["name"] != data[1]["name"]:
        raise TrecxError(f"{both}: one is on {data[0]['name']}, the other on {data[1]['name']}, choose one data set")
    if data[0].get("checksum") != data[1].get("checksum"):
        raise TrecxError(f"{both}: their data set {data[0]['name']} has two checksums, train one of them again")
    for split in ("val", "test"):
        labels = [record.predictions[f"{split}_labels"] for record in (first, second)]
        if not np.array_equal(labels[0], labels[1]):
            raise TrecxError(f"{both}: their {split} samples differ in number or order, train one of them again")
        classes = [record.predictions[f"{split}_log_probs"].shape[2] for record in (first, second)]
        if classes[0] != classes[1]:
            raise TrecxError(f"{both}: one has {classes[0]} classes, the other {classes[1]}, choose the same number")
    return Cascaded(second.folder, first, second, mix)


def joined(records: Sequence[Record], mix: float = 0.0) -> Record:
    """The record of one network as it is, or the cascade of two.

    Raises:
        TrecxError: as `cascade`, another number of records, or a share with one alone.
    """
    if not 1 <= len(records) <= 2:
        raise TrecxError(f"{len(records)} records are impossible: give one, or two for a cascade")
    if len(records) == 2:
        return cascade(records[0], records[1], mix)
    check_mix(mix)
    if mix:
        raise TrecxError("mix is a share of one network's answer in another's: give two records with it")
    return records[0]


@dataclass(frozen=True)
class Shortened(Record):
    """A recorded network with some of its exits and perhaps an earlier end. Made by `shorten`."""

    whole: Record
    exits: tuple[str, ...]
    end: str

    @property
    def name(self) -> str:
        """The name of the whole network's record, and what is left of it."""
        return f"{self.whole.name}, {remainder(self.exits, self.end)}"

    @property
    def rule(self) -> str:
        """Exit rule of the whole network."""
        return self.whole.rule

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The record's; neither heads that are left out nor what comes after the end are paid."""
        network, heads = _parts(run_of(self.whole).design)
        taps, cost = [*heads], self.whole.manifest["cost"]
        params, trainable = parameters(shortened(network, self.exits, self.end))
        counts: dict[str, Any] = {"params": params, "trainable_params": trainable}
        for key in COUNTS:
            counts[key] = [
                cost[key][k] - sum(getattr(heads[tap], key)[0] for tap in taps[:k] if tap not in self.exits)
                for k in self._kept
            ]
        return self.whole.manifest | {"cost": counts}

    @cached_property
    def predictions(self) -> dict[str, NDArray[Any]]:
        """The record's, of the exits that are left."""
        kept = [*self._kept]
        return {k: v[:, kept] if "probs" in k else v for k, v in self.whole.predictions.items()}

    @cached_property
    def _kept(self) -> tuple[int, ...]:
        """Indices of the exits that are left, in the whole network's order, the end last."""
        taps = [*_parts(run_of(self.whole).design)[1]]
        return (*(taps.index(tap) for tap in self.exits), taps.index(self.end) if self.end else len(taps))


def shorten(record: Record, exits: Iterable[str], end: str = "") -> Shortened:
    """The same trained network with only some of its exits, and ending at one of them; costs are exact.

    Args:
        record: of a network with exits in its trunk.
        exits: taps of the early exits to keep, none for a network that answers at its end only.
        end: tap of the exit that becomes the final one; empty for the network's own end.

    Raises:
        TrecxError: no such exit, an exit at or behind the end, a final head that reads an exit that is left out, or a
            record of something else than a network with exits in its trunk.
    """
    if isinstance(record, Cascaded | Shortened):
        raise TrecxError(f"{record.name} is made from other records: shorten one of those")
    network, _ = _parts(run_of(record).design)
    left = shortened(network, exits, end)
    return Shortened(record.folder, record, tuple(left.exits), end)


def shortenings(record: Record) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every (exits, end) that `shorten` takes, but for the whole network; nothing for one with a single early exit."""
    taps = [*_parts(run_of(record).design)[1]]
    for end in [*taps, ""] if len(taps) > 1 else []:
        before = taps[: taps.index(end)] if end else taps
        for n in range(len(before) + 1):
            yield from ((exits, end) for exits in combinations(before, n) if end or n < len(taps))


def remainder(exits: Sequence[str], end: str) -> str:
    """What is left of a network, in words."""
    *some, last = exits or ("",)
    kept = f"exits after {', '.join(some)} and {last}" if some else f"exit after {last}" if last else "no exit"
    return f"{kept}, ends after {end}" if end else kept


def params_of(run: Run, exits: Iterable[str] | None = None, end: str = "") -> int:
    """Trained parameters of a run's network; of what is left with only these `exits` and an earlier `end`."""
    if exits is None:
        return runs.cost_of(run).params
    network, _ = _parts(run.design)
    return parameters(shortened(network, exits, end))[0]


def sources(record: Record) -> tuple[Record, ...]:
    """The records of trained networks that this one is made from, a cascade's first network first; else the record."""
    if isinstance(record, Cascaded):
        return *sources(record.first), *sources(record.second)
    return (record.whole,) if isinstance(record, Shortened) else (record,)


def network_of(record: Record, *, trained: bool = False) -> Network:
    """The network of a record, also of one made from others; `trained`: with its weights.

    Raises:
        TrecxError: `trained`, and a record has no weights.
    """
    if isinstance(record, Cascaded):
        parts = record.first, record.second
        first, second = (network_of(part, trained=trained) for part in parts)
        assert isinstance(first, EarlyExitNetwork)
        assert isinstance(second, EarlyExitNetwork)
        return Cascade(first, second, (_resize(parts[0]), _resize(parts[1])), mix=record.mix)
    if isinstance(record, Shortened):
        whole = network_of(record.whole, trained=trained)
        assert isinstance(whole, EarlyExitNetwork)
        return shortened(whole, record.exits, record.end)
    with torch.random.fork_rng(devices=[]):
        return runs.network_of(record) if trained else run_of(record).design.build()


@cache
def peak_memory(record: Record) -> int:
    """Peak memory of activations in bytes (int8, one sample), see `trecx.models.cost.peak_activations`."""
    return peak_activations(network_of(record), _shape(record))


def _resize(record: Record) -> Resize | None:
    """What makes a record's input of one of its task's, None where they are the same."""
    task, shape = TASKS[record.task], _shape(record)
    return None if shape == task.input_shape else Resize(shape[1], task.input_scale)


def _shape(record: Record) -> tuple[int, int, int]:
    """Channels, height and width of a record's inputs; a cascade sees those of the task."""
    if isinstance(record, Cascaded):
        return TASKS[record.task].input_shape
    if isinstance(record, Shortened):
        return _shape(record.whole)
    return input_shape(record.task, run_of(record).resolution)


@cache
def _parts(design: Design) -> tuple[EarlyExitNetwork, dict[str, Cost]]:
    """The network of a design and the cost of each of its exit heads; torch's random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        network = design.build()
    if not (isinstance(network, EarlyExitNetwork) and METHODS[design.method].in_trunk):
        raise TrecxError(f"a network of method {design.method!r} has no exits in its trunk, so none can be left out")
    return network, head_costs(network, input_shape(design.task, design.resolution))
