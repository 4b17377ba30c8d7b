"""The runs of a sweep with their records, sorted by what was varied: what every chapter and table starts from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from trecx import paths
from trecx.errors import TrecxError
from trecx.experiments.pool import fit
from trecx.experiments.records import Record, all_records, open_record
from trecx.experiments.runs import Run, run_of
from trecx.experiments.sweep import load, own
from trecx.models.methods import TaskWeight, get_method, label_of
from trecx.tasks import TASKS, get_task

# Where the runs of a chapter come from.
SOURCES = {
    "published": "records of long trainings on the real data; nothing is trained",
    "quick": "trained on small stand-in data, unless a record is there",
    "full": "trained on the real data, unless a record is there: hours",
}
# What a reader may not change there, since it would do nothing.
TAKES_NOT = {"published": ("seed", "n_seeds", "epochs", "w_early"), "quick": (), "full": ("seed", "n_seeds")}
_TEACHERS = {"final": "its final exit"}  # in words, where it is not a trained network
QUICK = "quick"  # the sweep on stand-in data, all tasks in one list


@dataclass(frozen=True)
class Results:
    """The runs of a sweep, by what was varied.

    methods: method -> records, one a seed, of the runs with every setting at its default. static: label -> smaller
    networks without exits, narrower or on fewer pixels. weights: w -> `trecx_ev` under that loss weight. places: method
    -> tap -> records. extra_class: `trecx_ev` with one more class. frozen: method -> records of heads trained alone.
    variants: every other combination of settings, under a name such as 'trecx_concat, w = 0.3'; so are runs with other
    epochs than the first of the list, or that start from other weights. sweep: its name; task: of all its runs.
    """

    sweep: str = ""
    task: str = ""
    methods: dict[str, list[Record]] = field(default_factory=dict)
    static: dict[str, list[Record]] = field(default_factory=dict)
    weights: dict[float, list[Record]] = field(default_factory=dict)
    places: dict[str, dict[str, list[Record]]] = field(default_factory=dict)
    extra_class: list[Record] = field(default_factory=list)
    frozen: dict[str, list[Record]] = field(default_factory=dict)
    variants: dict[str, list[Record]] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)

    @property
    def groups(self) -> dict[str, list[Record]]:
        """Methods and variants: the rows of tables and the curves of figures."""
        return self.methods | self.variants

    @property
    def stand_in(self) -> bool:
        """Whether the runs are on stand-in data, beside which no figure of the paper's may stand."""
        return any(record.manifest["data"]["stand_in"] for record in self.records)

    @property
    def named(self) -> dict[str, list[Record]]:
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


def published(sweep: str) -> Results:
    """The published records of one of the project's sweeps; nothing is trained.

    Its smaller networks without exits are all that were trained alike, whatever list they come from.

    Raises:
        TrecxError: no such sweep, or a run of its list has no published record.
    """
    found = _published(sweep, load(own(sweep)))
    static = _alike(sweep).static
    known = {record.folder for record in found.records}
    others = [record for records in static.values() for record in records if record.folder not in known]
    return replace(found, static=static, records=[*found.records, *others])


def alike(task: str) -> Results:
    """Every published record of a task that was trained as the first of its sweeps says, whatever list it comes from.

    The same data, recipe, epochs, and weights to start from: only such networks may be held against each other.

    Raises:
        TrecxError: unknown task, or no such record.
    """
    return _alike(get_task(task).sweeps[0])


def _alike(sweep: str) -> Results:
    first = load(own(sweep))[0]
    records = all_records(first.data, published_only=True)
    made = [(run_of(r), r) for r in records if (r.run["recipe"], r.run.get("start", "")) == (first.recipe, first.start)]
    same = [(run, record) for run, record in made if run.epochs == first.epochs]
    if not same:
        raise TrecxError(f"no published record of task {first.task}: run `python -m trecx sweep {sweep} --publish`")
    return _sorted(sweep, sorted(same, key=lambda pair: (pair[0].seed, pair[0] != first)))


def widened(source: str, found: Mapping[str, Results]) -> dict[str, Results]:
    """What `gather` found, and where it is published every other record of these tasks that was trained alike."""
    return {task: alike(task) if source == "published" else results for task, results in found.items()}


def gather(
    source: str,
    tasks: Iterable[str] = TASKS,
    *,
    seed: int = 0,
    n_seeds: int = 1,
    epochs: int | None = None,
    w_early: float | None = None,
) -> dict[str, Results]:
    """The runs of several tasks: task -> results. What has no record is trained, all tasks together.

    Args:
        source: a name in SOURCES.
        tasks: which; all by default. Of a task with several lists the first counts: visual wake words are trained on
            from the reference weights, since only there does accuracy reach the paper's range.
        seed, n_seeds: seeds of the quick runs, counted up from the first; the other lists name their own.
        epochs: of every run that is trained, in place of the recipe's.
        w_early: loss weight of T-RecX's early exit, in place of the paper's, in runs that do not vary it.

    Raises:
        TrecxError: unknown source or task, a parameter that the source does not take, or a published run without a
            record.
    """
    tasks = list(tasks)
    sweeps = [(get_task(task).sweeps[0], task) for task in tasks]
    found = collect(source, sweeps, seed=seed, n_seeds=n_seeds, epochs=epochs, w_early=w_early)
    return dict(zip(tasks, found, strict=True))


def collect(
    source: str,
    sweeps: Iterable[tuple[str, str]],
    *,
    seed: int = 0,
    n_seeds: int = 1,
    epochs: int | None = None,
    w_early: float | None = None,
) -> list[Results]:
    """As `gather`, for named sweeps: (sweep on the real data, task) each. `quick` takes the task's part of its list."""
    if source not in SOURCES:
        raise TrecxError(f"unknown source {source!r}: choose one of {', '.join(SOURCES)}")
    given = {"seed": seed != 0, "n_seeds": n_seeds != 1, "epochs": epochs is not None, "w_early": w_early is not None}
    unused = [name for name in TAKES_NOT[source] if given[name]]
    if unused:
        raise TrecxError(f"source {source} has runs of its own and takes no {', '.join(unused)}: choose source quick")
    if source == "published":
        return [published(sweep) for sweep, _ in sweeps]
    plans: list[tuple[str, list[tuple[Run, Run]]]] = []  # the run of the list, and the one that stands in for it
    for sweep, task in sweeps:
        if source == "quick":
            listed = [run for run in load(own(QUICK)) if run.task == task]
            listed = [replace(run, seed=seed + k) for run in listed for k in range(n_seeds)]
        else:
            listed = load(own(sweep))
        trained = [_changed(run, epochs, w_early) for run in listed]
        plans.append((QUICK if source == "quick" else sweep, list(zip(listed, trained, strict=True))))
    records = iter(fit([run for _, plan in plans for _, run in plan]))
    return [_sorted(sweep, [(run, next(records)) for run, _ in plan]) for sweep, plan in plans]


def _changed(run: Run, epochs: int | None, w_early: float | None) -> Run:
    """The run with a reader's own epochs and loss weight."""
    free = run.w_early is None and isinstance(get_method(run.method).loss, TaskWeight)
    return replace(run, epochs=epochs or run.epochs, w_early=w_early if free else run.w_early)


def _published(sweep: str, runs: list[Run]) -> Results:
    folders = [paths.PUBLISHED / run.data / run.name for run in runs]
    missing = [folder.name for folder in folders if not folder.is_dir()]
    if missing:
        raise TrecxError(
            f"{len(missing)} of the {len(runs)} runs of sweep {sweep!r} have no published record, the first is "
            f"{missing[0]}: run `python -m trecx sweep {sweep} --publish`"
        )
    return _sorted(sweep, [(run, open_record(folder)) for run, folder in zip(runs, folders, strict=True)])


def _sorted(sweep: str, made: list[tuple[Run, Record]]) -> Results:
    """The records of runs, by what the run varies."""
    first = made[0][0]
    found = Results(sweep, first.task, records=[record for _, record in made])
    for run, record in made:
        _group(found, run, first).append(record)
        tap = get_method(run.method).taps[run.task]
        if not settings_in_words(run, first):
            if len(tap) == 1:  # these runs are also one place and, for T-RecX, one loss weight
                found.places.setdefault(run.method, {}).setdefault(tap[0], []).append(record)
            if run.method == "trecx_ev":
                found.weights.setdefault(_weight(run, record), []).append(record)
    for taps in found.places.values():
        ordered = {tap: taps[tap] for tap in sorted(taps, key=lambda tap: (len(tap), tap))}  # layer4 before layer10
        taps.clear()
        taps.update(ordered)
    return found


def _weight(run: Run, record: Record) -> float:
    """The loss weight that a run at the task's own really had: a reader may have given another."""
    given = record.manifest.get("run", {}).get("w_early")
    return get_task(run.task).w if given is None else float(given)


def settings_in_words(run: Run, first: Run) -> dict[str, str]:
    """The settings of a run that are not at their defaults, or not those of the list's first run, as text."""
    given = {
        "width": f"width {run.width:g}" if run.width != 1 else "",
        "resolution": f"resolution {run.resolution}" if run.resolution else "",
        "w_early": f"w = {run.w_early:g}" if run.w_early is not None else "",
        "taps": f"after {'-'.join(run.taps)}" if run.taps is not None else "",
        "extra_classes": f"{run.extra_classes} more class{'es' * (run.extra_classes > 1)}" if run.extra_classes else "",
        "epochs": f"{run.resolved_recipe.epochs} epochs" if run.epochs != first.epochs else "",
        "frozen": "heads alone" if run.frozen else "",
        "narrow": _inside(run.narrow) if run.narrow is not None else "",
        "ends": f"ends after {run.ends}" if run.ends else "",
        "teacher": f"taught by {_TEACHERS.get(run.teacher, f'the {run.teacher}')}" if run.teacher else "",
        "staged": "one exit after the other" if run.staged else "",
        "start": (f"from {run.start}" if run.start else "from scratch") if run.start != first.start else "",
        "recipe": f"recipe {run.recipe}" if run.recipe != first.recipe else "",
    }
    return {name: text for name, text in given.items() if text}


def _inside(narrow: Sequence[float]) -> str:
    return f"width{'s' * (len(narrow) > 1)} {', '.join(f'{width:g}' for width in narrow)} inside"


def _group(found: Results, run: Run, first: Run) -> list[Record]:
    """The list in `found` that a run's record belongs to; only a single setting of the right method is a known one."""
    settings = settings_in_words(run, first)
    if not settings:
        return found.methods.setdefault(run.method, [])
    if [*settings] == ["taps"]:
        return found.places.setdefault(run.method, {}).setdefault("-".join(run.taps or ()), [])
    if [*settings] == ["frozen"]:
        return found.frozen.setdefault(run.method, [])
    if run.method == "baseline" and [*settings] in (["width"], ["resolution"]) and run.width <= 1:
        return found.static.setdefault(", ".join(settings.values()), [])
    if (run.method, *settings) == ("trecx_ev", "w_early") and run.w_early is not None:
        return found.weights.setdefault(run.w_early, [])
    if (run.method, *settings) == ("trecx_ev", "extra_classes"):
        return found.extra_class
    return found.variants.setdefault(", ".join([run.method, *settings.values()]), [])
