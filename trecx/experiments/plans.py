"""The lists of runs behind the live chapters."""

from collections.abc import Iterable, Sequence
from typing import Any

from trecx.experiments.pool import fit
from trecx.experiments.results import Group
from trecx.experiments.runs import Run, runs_of
from trecx.models.methods import TaskWeight, get_method
from trecx.training.losses import W_EARLY

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
        w = w_early if get_method(name, task).loss == TaskWeight() else None
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
