"""The experiments of the book as lists of runs. The notebooks take their records from here."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trecx import data as datasets
from trecx.losses import W_EARLY
from trecx.pool import fit
from trecx.records import Record
from trecx.runs import Run, runs_of
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

Group = dict[str, list[Record]]


def train_methods(
    profile: str,
    task: str,
    methods: Iterable[str],
    seeds: Sequence[int],
    *,
    epochs: int | None = None,
    w_early: float | None = None,
) -> Group:
    """Records of several methods on one task, one a seed; trains those that are missing.

    `w_early` replaces the paper's w, so it applies to the T-RecX methods that use it.
    """
    wanted = {}
    for method in methods:
        w = w_early if get_method(method, task).loss == "w" else None
        wanted[method] = runs_of(profile, task, method, seeds, epochs=epochs, w_early=w)
    return gather(wanted)


def static_networks(profile: str, task: str, seeds: Sequence[int], *, epochs: int | None = None) -> Group:
    """Records of narrower baselines by label."""
    return gather(
        {f"width {w:g}": runs_of(profile, task, "baseline", seeds, epochs=epochs, width=w) for w in STATIC_WIDTHS}
    )


def placement(profile: str, seeds: Sequence[int], method: str = "trecx_ev", *, epochs: int | None = None) -> Group:
    """DS-CNN with its exit after block 1, 2 and 3 (Fig. 2), by tap."""
    own = get_method(method).taps["kws"]
    return gather(
        {
            # The method's own place is the same run as in chapter 2.
            tap: runs_of(profile, "kws", method, seeds, epochs=epochs, taps=None if (tap,) == own else (tap,))
            for tap in PLACEMENT_TAPS
        }
    )


def loss_weights(
    profile: str, task: str, seeds: Sequence[int], *, epochs: int | None = None
) -> dict[float, list[Record]]:
    """T-RecX under several loss weights, by weight."""
    runs = {
        w: runs_of(profile, task, "trecx_ev", seeds, epochs=epochs, w_early=None if w == W_EARLY[task] else w)
        for w in LOSS_WEIGHTS
    }
    return gather(runs)


def concat_at_equal_weight(profile: str, seeds: Sequence[int], *, epochs: int | None = None) -> list[Record]:
    """DS-CNN EE-fmaps concat under T-RecX's loss weight; the authors trained it with 1, which confounds Fig. 6."""
    runs = runs_of(profile, "kws", "trecx_concat", seeds, epochs=epochs, w_early=W_EARLY["kws"])
    return gather({"": runs})[""]


def one_more_class(profile: str, seeds: Sequence[int], *, epochs: int | None = None) -> list[Record]:
    """ResNet-8 T-RecX with an eleventh class (C11)."""
    return gather({"": runs_of(profile, "ic", "trecx_ev", seeds, epochs=epochs, extra_classes=1)})[""]


def gather(wanted: Mapping[Any, Sequence[Run]]) -> dict[Any, list[Record]]:
    """Records of lists of runs under the same keys, trained together so that all cores stay busy."""
    records = iter(fit([run for runs in wanted.values() for run in runs]))
    return {key: [next(records) for _ in runs] for key, runs in wanted.items()}


def origin(profile: str, tasks: Iterable[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """What `trecx.notebook.provenance` says at the top of a page."""
    rows = []
    for name in tasks:
        task = get_task(name)
        data = datasets.load(task.quick_data if profile == "quick" else task.full_data)
        rows += [{"profile": profile, "data": data.name, "sha256": data.checksum, "seed": seed} for seed in seeds]
    return rows
