"""The experiments of the book as lists of runs. The notebooks take their records from here."""

from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

from trecx import data as datasets
from trecx import paths
from trecx.errors import TrecxError
from trecx.losses import W_EARLY
from trecx.pool import fit
from trecx.records import Record, open_record
from trecx.runs import Run, runs_of
from trecx.sweep import load, own
from trecx.tasks import get_task
from trecx.zoo import get_method

# Chapters 1 to 3: every method that a table or a figure names for the task. Figure 5 is about ResNet-8 only,
# Figure 6 about DS-CNN only.
_EVERYWHERE = (
    "baseline",
    "trecx_ev",
    "trecx_no_ev",
    "trecx_no_transfer",
    "branchynet",
    "branchynet_fair",
    "sdn",
    "sdn_fair",
)
CHAPTER_METHODS = {
    "ic": (*_EVERYWHERE, "baseline_ee"),
    "kws": (*_EVERYWHERE, "trecx_concat"),
    "vww": _EVERYWHERE,
}
# Chapter 4 (Table 2, Fig. 7): prior work as the authors coded it and as it was published.
PRIOR_METHODS = ("baseline", "trecx_ev", "branchynet", "branchynet_fair", "sdn", "sdn_fair")
# Smaller networks without exits: the competitor that an early exit has to beat at equal cost.
STATIC_WIDTHS = (0.5, 0.75)
# Chapter 5.
PLACEMENT_TAPS = ("block1", "block2", "block3")  # Fig. 2: 1/4, 1/2 and 3/4 of DS-CNN
LOSS_WEIGHTS = (0.1, 0.3, 0.5, 0.8)

Plan = dict[Any, list[Run]]  # method, tap, weight or label -> runs, one a seed
Group = dict[Any, list[Record]]  # the same with the runs' records


def methods(
    profile: str,
    task: str,
    names: Iterable[str],
    seeds: Sequence[int],
    *,
    epochs: int | None = None,
    w_early: float | None = None,
) -> Plan:
    """Several methods on one task; `w_early` replaces the paper's w where a T-RecX method uses it."""
    plan = {}
    for name in names:
        w = w_early if get_method(name, task).loss == "w" else None
        plan[name] = runs_of(profile, task, name, seeds, epochs=epochs, w_early=w)
    return plan


def static_networks(profile: str, task: str, seeds: Sequence[int], *, epochs: int | None = None) -> Plan:
    """Narrower baselines, by label."""
    return {f"width {w:g}": runs_of(profile, task, "baseline", seeds, epochs=epochs, width=w) for w in STATIC_WIDTHS}


def placement(profile: str, seeds: Sequence[int], method: str = "trecx_ev", *, epochs: int | None = None) -> Plan:
    """DS-CNN with its exit after block 1, 2 and 3 (Fig. 2), by tap."""
    own = get_method(method).taps["kws"]
    return {
        # The method's own place is the same run as in chapter 2.
        tap: runs_of(profile, "kws", method, seeds, epochs=epochs, taps=None if (tap,) == own else (tap,))
        for tap in PLACEMENT_TAPS
    }


def loss_weights(profile: str, task: str, seeds: Sequence[int], *, epochs: int | None = None) -> Plan:
    """T-RecX under several loss weights, by weight."""
    return {
        w: runs_of(profile, task, "trecx_ev", seeds, epochs=epochs, w_early=None if w == W_EARLY[task] else w)
        for w in LOSS_WEIGHTS
    }


def concat_at_equal_weight(profile: str, seeds: Sequence[int], *, epochs: int | None = None) -> Plan:
    """DS-CNN EE-fmaps concat under T-RecX's loss weight; the authors trained it with 1, which confounds Fig. 6."""
    return {"": runs_of(profile, "kws", "trecx_concat", seeds, epochs=epochs, w_early=W_EARLY["kws"])}


def one_more_class(profile: str, seeds: Sequence[int], *, epochs: int | None = None) -> Plan:
    """ResNet-8 T-RecX with an eleventh class (C11)."""
    return {"": runs_of(profile, "ic", "trecx_ev", seeds, epochs=epochs, extra_classes=1)}


def collect(*plans: Plan) -> list[Group]:
    """The records of several plans, in their order; what is missing is trained together, so that no core idles."""
    records = iter(fit([run for plan in plans for runs in plan.values() for run in runs]))
    return [{key: [next(records) for _ in runs] for key, runs in plan.items()} for plan in plans]


def origin(profile: str, tasks: Iterable[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """What `trecx.notebook.provenance` says at the top of a page."""
    rows = []
    for name in tasks:
        task = get_task(name)
        with redirect_stderr(StringIO()):  # the note that a stand-in is being made is not part of the page
            data = datasets.load(task.quick_data if profile == "quick" else task.full_data)
        rows += [{"profile": profile, "data": data.name, "sha256": data.checksum, "seed": seed} for seed in seeds]
    return rows


@dataclass(frozen=True)
class Published:
    """The runs of a sweep that have a published record, by what was varied; nothing is ever trained for it.

    methods: method -> records, one a seed, of the runs with every setting at its default. static: label -> smaller
    networks without exits. weights: w -> `trecx_ev` under that loss weight. places: method -> tap -> records.
    extra_class: `trecx_ev` with one more class. missing: names of runs without a record.
    """

    methods: Group = field(default_factory=dict)
    static: Group = field(default_factory=dict)
    weights: Group = field(default_factory=dict)
    places: dict[str, Group] = field(default_factory=dict)
    extra_class: list[Record] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)


def published(sweep: str) -> Published:
    """The published records of one of the project's sweeps.

    Raises:
        TrecxError: no such sweep, or none of its runs has a published record.
    """
    found = Published()
    for run in load(own(sweep)):
        folder = paths.PUBLISHED / run.data / run.name
        if not (folder / "manifest.json").is_file():
            found.missing.append(run.name)
            continue
        record = open_record(folder)
        found.records.append(record)
        tap = get_method(run.method).taps[run.task]
        if run.width != 1:
            varied = found.static.setdefault(f"width {run.width:g}", [])
        elif run.w_early is not None:
            varied = found.weights.setdefault(run.w_early, [])
        elif run.taps is not None:
            varied = found.places.setdefault(run.method, {}).setdefault("-".join(run.taps), [])
        elif run.extra_classes:
            varied = found.extra_class
        else:
            varied = found.methods.setdefault(run.method, [])
            if len(tap) == 1:  # these runs are also one place and, for T-RecX, one loss weight
                found.places.setdefault(run.method, {}).setdefault(tap[0], []).append(record)
            if run.method == "trecx_ev":
                found.weights.setdefault(W_EARLY[run.task], []).append(record)
        varied.append(record)
    if not found.records:
        raise TrecxError(
            f"no run of sweep {sweep!r} has a published record: run `python -m trecx sweep {sweep} --publish`"
        )
    return found
