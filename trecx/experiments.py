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
from trecx.runs import Run, runs_of, settings
from trecx.sweep import load, own
from trecx.tables import label_of
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
    networks without exits, narrower or on fewer pixels. weights: w -> `trecx_ev` under that loss weight. places: method
    -> tap -> records. extra_class: `trecx_ev` with one more class. frozen: method -> records of heads trained alone.
    variants: every other combination of settings, under a name such as 'trecx_concat, w = 0.3'; so are runs that start
    from other weights than the first of the list. missing: names of runs without a record. sweep: its name.
    """

    sweep: str = ""
    methods: Group = field(default_factory=dict)
    static: Group = field(default_factory=dict)
    weights: Group = field(default_factory=dict)
    places: dict[str, Group] = field(default_factory=dict)
    extra_class: list[Record] = field(default_factory=list)
    frozen: Group = field(default_factory=dict)
    variants: Group = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    @property
    def groups(self) -> Group:
        """Methods and variants: the rows of tables and the curves of figures."""
        return self.methods | self.variants

    @property
    def named(self) -> Group:
        """Every setting that was trained, under a name for people; none twice."""
        found = {label_of(name): records for name, records in self.groups.items()}
        found |= {f"Baseline, {name}": records for name, records in self.static.items()}
        found |= {f"{label_of(name)}, heads alone": records for name, records in self.frozen.items()}
        for method, taps in self.places.items():
            found |= {f"{label_of(method)}, exit after {tap}": records for tap, records in taps.items()}
        found |= {f"{label_of('trecx_ev')}, w = {w:g}": records for w, records in self.weights.items()}
        found |= {f"{label_of('trecx_ev')}, one more class": self.extra_class} if self.extra_class else {}
        once = {tuple(record.folder for record in records): name for name, records in reversed(found.items())}
        return {name: found[name] for name in found if name in once.values()}


def published(sweep: str, *, may_be_empty: bool = False) -> Published:
    """The published records of one of the project's sweeps.

    Raises:
        TrecxError: no such sweep, or none of its runs has a published record, unless `may_be_empty`.
    """
    found = Published(sweep)
    runs = load(own(sweep))
    for run in runs:
        folder = paths.PUBLISHED / run.data / run.name
        if not (folder / "manifest.json").is_file():
            found.missing.append(run.name)
            continue
        record = open_record(folder)
        found.records.append(record)
        _group(found, run, runs[0]).append(record)
        tap = get_method(run.method).taps[run.task]
        if not _settings(run, runs[0]):
            if len(tap) == 1:  # these runs are also one place and, for T-RecX, one loss weight
                found.places.setdefault(run.method, {}).setdefault(tap[0], []).append(record)
            if run.method == "trecx_ev":
                found.weights.setdefault(W_EARLY[run.task], []).append(record)
    for taps in found.places.values():
        ordered = {tap: taps[tap] for tap in sorted(taps, key=lambda tap: (len(tap), tap))}  # layer4 before layer10
        taps.clear()
        taps.update(ordered)
    if not (found.records or may_be_empty):
        raise TrecxError(
            f"no run of sweep {sweep!r} has a published record: run `python -m trecx sweep {sweep} --publish`"
        )
    return found


def _settings(run: Run, first: Run) -> dict[str, str]:
    """The settings of a run that are not at their defaults, or not those of the list's first run, as text."""
    given = {
        "width": f"width {run.width:g}" if run.width != 1 else "",
        "resolution": f"resolution {run.resolution}" if run.resolution else "",
        "w_early": f"w = {run.w_early:g}" if run.w_early is not None else "",
        "taps": f"after {'-'.join(run.taps)}" if run.taps is not None else "",
        "extra_classes": f"{run.extra_classes} more class{'es' * (run.extra_classes > 1)}" if run.extra_classes else "",
        "epochs": f"{run.epochs} epochs" if run.epochs is not None else "",
        "frozen": "heads alone" if run.frozen else "",
        "start": (f"from {run.start}" if run.start else "from scratch") if run.start != first.start else "",
        "recipe": f"recipe {run.recipe}" if run.recipe != first.recipe else "",
    }
    return {name: text for name, text in given.items() if text}


def _group(found: Published, run: Run, first: Run) -> list[Record]:
    """The list in `found` that a run's record belongs to; only a single setting of the right method is a known one."""
    settings = _settings(run, first)
    if not settings:
        return found.methods.setdefault(run.method, [])
    if [*settings] == ["taps"]:
        return found.places.setdefault(run.method, {}).setdefault("-".join(run.taps or ()), [])
    if [*settings] == ["frozen"]:
        return found.frozen.setdefault(run.method, [])
    if run.method == "baseline" and [*settings] in (["width"], ["resolution"]):
        return found.static.setdefault(", ".join(settings.values()), [])
    if (run.method, *settings) == ("trecx_ev", "w_early"):
        return found.weights.setdefault(run.w_early, [])
    if (run.method, *settings) == ("trecx_ev", "extra_classes"):
        return found.extra_class
    return found.variants.setdefault(", ".join([run.method, *settings.values()]), [])


def provenance_of(records: Sequence[Record]) -> tuple[list[dict[str, Any]], str]:
    """What `trecx.notebook.provenance` says of published records: its rows, and a note on what the trainings took."""
    rows = [
        {"profile": "full", "data": r.manifest["data"]["name"], "sha256": r.manifest["data"]["checksum"]}
        | {"seed": r.manifest["run"]["seed"]}
        for r in records
    ]
    hours = sum(record.manifest["seconds"] for record in records) / 3600
    machines = ", ".join(sorted({record.manifest["hardware"]["model"] for record in records}))
    count = f"{len(records)} training{'s' * (len(records) > 1)}"
    other = len([record for record in records if not as_asked(record)])
    apart = f" {other} of them in float32, on a processor without bfloat16." if other else ""
    return rows, f"{count}, {hours:.1f} hours of one processor core together ({machines}).{apart}"


def as_asked(record: Record) -> bool:
    """Whether a training had the arithmetic that its recipe asks for: bfloat16 needs a processor made for it."""
    wanted = record.manifest["recipe"]["precision"]
    # Older records do not say it: their processor had what the recipe asks for.
    return record.manifest.get("arithmetic", wanted) == wanted


def recipe_text(record: Record) -> str:
    """A record's recipe in one line."""
    recipe = record.manifest["recipe"]
    optimizer = {"sgd": "SGD (Nesterov momentum 0.9)", "adam": "Adam"}[recipe["optimizer"]]
    schedule = {"onecycle": "one-cycle", "steps": "stepped"}.get(recipe["schedule"], recipe["schedule"])
    names = {
        "shift_rows": "time shift by up to {:g} frames",
        "flip": "random flip",
        "crop": "random crop by up to {:g}",
        "affine": "rotation by up to {:g}°, shift by {:g} and zoom by {:g} of the side",
        "resized_crop": "resized crop of at least {:g} of the area",
        "colour": "brightness, contrast and saturation by up to {:g}",
    }
    augment = [names.get(name, name).format(*arguments) for name, arguments in recipe["augment"]]
    augment += [f"mixup {recipe['mixup']:g}"] if recipe.get("mixup") else []
    shrinks = f"weight decay {recipe['weight_decay']:g} on convolution kernels"
    clip = f", gradients clipped at {recipe['clip']:g}" if recipe.get("clip") else ""
    transfer = f", weights copied in the first {recipe['transfer']:.0%} of the epochs" if recipe["transfer"] < 1 else ""
    average = f", averaged weights (decay {recipe['ema']:g} a step)" if recipe.get("ema") else ""
    teacher = f", {recipe['teacher']:g} of each target from the starting network" if recipe.get("teacher") else ""
    exits = f" ({recipe['head_rate']:g} times that for early exits)" if recipe.get("head_rate", 1) != 1 else ""
    precision = recipe["precision"] + (" where the processor has it" if recipe["precision"] == "bfloat16" else "")
    return (
        f"{recipe['epochs']} epochs of {schedule} {optimizer}, batch {recipe['batch']}, rate "
        f"{recipe['rate']:g}{exits}, {shrinks if recipe['weight_decay'] else 'no weight decay'}, "
        f"{', '.join(augment) or 'no augmentation'}{clip}{average}{teacher}{transfer}, {precision}"
    )


def recipes(records: Sequence[Record]) -> dict[str, list[str]]:
    """What sets a run's recipe apart from the first run's -> names; more than one entry: a sweep is not of a piece."""
    found: dict[str, list[str]] = {}
    usual = settings(records[0])["recipe"] if records else {}
    for record in records:
        own = settings(record)["recipe"]
        apart = [f"{key} {own[key]} in place of {usual[key]}" for key in own if own[key] != usual[key]]
        found.setdefault(", ".join(apart), []).append(record.name)
    return found
