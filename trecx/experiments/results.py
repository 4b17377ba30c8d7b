"""The published records of a sweep, sorted by what was varied."""

from dataclasses import dataclass, field
from typing import Any

from trecx import paths
from trecx.errors import TrecxError
from trecx.experiments.records import Record, open_record
from trecx.experiments.runs import Run
from trecx.experiments.sweep import load, own
from trecx.models.methods import get_method, label_of
from trecx.training.losses import W_EARLY

Group = dict[Any, list[Record]]  # the same with the runs' records


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
