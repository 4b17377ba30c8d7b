"""Where a page's numbers come from, in words."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trecx.deploy.records import DeviceRecord
from trecx.errors import TrecxError
from trecx.experiments.records import Record
from trecx.experiments.runs import settings
from trecx.tasks import TASKS


def origin(records: Sequence[Record | DeviceRecord], source: str) -> tuple[list[dict[str, Any]], str]:
    """What `provenance` says of records: its rows, and a note on what is behind them.

    Of published run records that is what their trainings took, of device records the machine that was emulated.
    """
    rows = [
        {"source": source, "sha256": r.manifest.get("data", {}).get("checksum"), "seed": run.get("seed")}
        | {"data": run["data"] if isinstance(r, DeviceRecord) else r.manifest["data"]["name"]}
        for r in records
        for run in r.manifest.get("runs", [r.manifest.get("run", {})])
    ]
    emulated = [record for record in records if isinstance(record, DeviceRecord)]
    if emulated:
        processors = " and ".join(sorted({record.manifest["machine"]["processor"] for record in emulated}))
        return (
            rows,
            f"{len(emulated)} networks and cascades on an emulated {processors}; nothing was run for this page.",
        )
    trained = [record for record in records if isinstance(record, Record) and "recipe" in record.manifest]
    if source == "quick" or not trained:
        return rows, ""
    hours = sum(record.manifest["seconds"] for record in trained) / 3600
    machines = ", ".join(sorted({record.manifest["hardware"]["model"] for record in trained}))
    count = f"{len(trained)} training{'s' * (len(trained) > 1)}"
    other = len([record for record in trained if not as_asked(record)])
    apart = f" {other} of them in float32, on a processor without bfloat16." if other else ""
    return rows, f"{count}, {hours:.1f} hours of one processor core together ({machines}).{apart}"


def as_asked(record: Record) -> bool:
    """Whether a training had the arithmetic that its recipe asks for: bfloat16 needs a processor made for it."""
    wanted = settings(record)["recipe"]["precision"]
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


def provenance(records: Iterable[Any], note: str = "") -> None:
    """Say at the top of a page from which source, data and seeds its numbers come.

    Args:
        records: result records, as mappings or objects, with `source` (a name in `trecx.experiments.results.SOURCES`),
            `data` (a prepared data set's name),
            `sha256` (its checksum; also `data_sha256`) and `seed`. Keys that are absent are left out.
        note: one more sentence, such as the run time.
    """
    from IPython.display import display

    records = list(records)
    if not records:
        raise TrecxError("no records: a page must say where its numbers come from")
    sources, seeds = (sorted({v for r in records if (v := _field(r, key)) is not None}) for key in ("source", "seed"))
    origins = {str(d): _field(r, "sha256", "data_sha256") for r in records if (d := _field(r, "data"))}
    real = {task.full_data for task in TASKS.values()}
    parts = []
    if sources:
        parts.append("Source " + " and ".join(map(str, sources)))
    for data, digest in sorted(origins.items()):
        notes = ([] if data in real else ["stand-in data"]) + ([f"sha256 {digest[:12]}…"] if digest else [])
        parts.append(f"data {data}" + (f" ({', '.join(notes)})" if notes else ""))
    if seeds:
        parts.append(f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''} ({', '.join(map(str, seeds))})")
    comparable = bool(origins) and set(origins) <= real and "quick" not in sources
    sentences = [" · ".join(parts) + "."]
    if not comparable:
        sentences.append("These numbers are not comparable with the paper's.")
    if note:
        sentences.append(note)
    text = " ".join(sentences)
    page = (
        f'<div class="admonition {"note" if comparable else "warning"} trecx-provenance">'
        f'<p class="admonition-title">Where these numbers come from</p><p>{html.escape(text)}</p></div>'
    )
    display({"text/html": page, "text/plain": text}, raw=True)


def _field(record: Any, *keys: str) -> Any:
    for key in keys:
        value = record.get(key) if isinstance(record, Mapping) else getattr(record, key, None)
        if value is not None:
            return value
    return None
