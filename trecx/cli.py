"""The command line: thin, every answer comes from the package. `--json` prints it for machines."""

import argparse
import json
import math
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from textwrap import wrap
from typing import Any

from trecx.command import Parser, guarded
from trecx.errors import TrecxError
from trecx.models.methods import METHODS
from trecx.tasks import TASKS

MOST_POINTS = 100_000  # of a curve on a grid; a test set has fewer different thresholds
_GAP, _NARROWEST = 2, 14  # of a printed table, in characters: between columns, and of one whose cells are broken
_NUMBER = re.compile(r"[-+\d.,e \[\]/]*$")


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = Parser(prog="python -m trecx", description="T-RecX, replicated: early-exit networks for tiny devices.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    def add(name: str, about: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        command.add_argument("--json", action="store_true", help="print JSON")
        return command

    command = add("models", "parameters, MACs and FLOPs of every network, cumulative at each exit")
    command.add_argument("--task", choices=[*TASKS], help="one task only")

    command = add("train", "train one network, or go on with an interrupted training, and write its run record")
    command.add_argument("--task", required=True, help=", ".join(TASKS))
    command.add_argument("--method", required=True, help=", ".join(METHODS))
    command.add_argument("--data", default="", help="prepared data set; the task's quick stand-in by default")
    command.add_argument("--recipe", default="quick", help="quick (default), fast, paper, scratch or finetune")
    command.add_argument("--seed", type=int, default=0, help="0 by default")
    command.add_argument("--epochs", type=int, help="instead of the recipe's; schedules stretch")
    command.add_argument("--w-early", type=float, help="loss weight of the early exits, instead of the method's")
    command.add_argument("--taps", help="stages to exit after, comma-separated, instead of the method's")
    command.add_argument("--width", type=float, default=1.0, help="factor on every channel count, 1 by default")
    command.add_argument("--narrow", help="widths inside a nested network, comma-separated, instead of the method's")
    command.add_argument("--ends", default="", help="the backbone's last stage; all of it by default")
    command.add_argument("--teacher", default="", help="also learn from a trained baseline, or from the final exit")
    command.add_argument("--staged", action="store_true", help="train one exit after the other, each with all epochs")
    command.add_argument("--extra-classes", type=int, default=0, help="classes that no sample has (claim C11)")
    command.add_argument("--start", default="", help="trained weights to go on from: mlperf_tiny (vww); none")
    command.add_argument("--frozen", action="store_true", help="train the heads alone; needs --start")
    command.add_argument("--resolution", type=int, default=0, help="side of the inputs in pixels (vww), 0: the task's")

    command = add("sweep", "train every run of a list that has no record yet, side by side")
    command.add_argument("spec", metavar="SPEC", help="YAML file, or the name of one of the project's own sweeps")
    command.add_argument("--list", action="store_true", help="show the runs and which have a record; train nothing")
    command.add_argument("--engine", default="local", help="local (default) or ray")
    command.add_argument("--address", help="of a running Ray cluster; without it Ray starts here")
    command.add_argument("--workers", type=int, help="runs side by side; one a core by default")
    command.add_argument("--publish", action="store_true", help="copy each finished record into the book's folder")

    command = add("evaluate", "run a record's weights over its test data again")
    command.add_argument("record", metavar="RECORD", help="folder or name of a run record")
    command.add_argument("--threshold", type=float, help="also stop early for real, at this confidence")

    command = add("curve", "benefit curve of a record, or of a cascade of two: accuracy and mean cost by threshold")
    command.add_argument("record", metavar="RECORD", help="folder or name of a run record")
    command.add_argument("second", metavar="RECORD", nargs="?", help="of the network that goes on where it is unsure")
    _composing(command)
    command.add_argument("--split", default="test", choices=["val", "test"], help="test by default")
    command.add_argument("--score", default="max_prob", choices=["max_prob", "margin", "entropy"])
    command.add_argument("--unit", default="flops", choices=["flops", "macs"], help="keras-flops (default) or MACs")
    command.add_argument("--points", type=int, default=21, help="thresholds from 1 to 0 (default 21; 0: every one)")

    command = add("recommend", "what to run for a loss of accuracy or a budget, chosen on published validation results")
    command.add_argument("--task", required=True, help=", ".join(TASKS))
    command.add_argument("--loss", type=float, help="accuracy that may be lost, in points (default 1)")
    command.add_argument("--budget", type=float, help="instead: mean cost of a sample, in millions of the unit")
    command.add_argument("--unit", default="flops", choices=["flops", "macs"], help="keras-flops (default) or MACs")
    command.add_argument(
        "--guarantee", type=float, help="probability of losing no more, such as 0.9; costs some saving"
    )

    command = add("robustness", "keyword spotting with clips moved in time, in noise, and without a word")
    command.add_argument("record", metavar="RECORD", nargs="+", help="folder or name of a run record with weights")
    command.add_argument("--audio", required=True, help="folder of test clips: one folder a word, or the main archive")
    command.add_argument("--noise", help="folder of background recordings; _background_noise_ in the other by default")
    command.add_argument("--per-class", type=int, default=60, help="at most so many clips a class (default 60; 0: all)")
    command.add_argument("--publish", action="store_true", help="put the results into the book")

    command = add("export", "ONNX stages of a record, float32 and int8, checked; two records make a cascade")
    command.add_argument("record", metavar="RECORD", nargs="+", help="folder or name of a run record with weights")
    command.add_argument("out", metavar="OUT", help="folder to write")
    command.add_argument("--c", action="store_true", help="also the int8 stages as C, with a Makefile")
    _composing(command)

    command = add("device", "instructions and memory of a record on an emulated Cortex-M, as a device record")
    command.add_argument("record", metavar="RECORD", nargs="+", help="a run record with weights; two for a cascade")
    _composing(command)
    command.add_argument("--machine", default="mps2-an386", help="mps2-an386 (Cortex-M4F, default) or mps2-an385 (M3)")
    command.add_argument("--latency", action="store_true", help="also time on this processor, which must be idle")
    command.add_argument("--publish", action="store_true", help="put the record into the book")

    command = add("reference", "evaluate the authors' released weights, read from a clone of their repository")
    command.add_argument("path", metavar="PATH", help="a clone of https://github.com/nikhilghanathe/t-recx")
    command.add_argument("--publish", action="store_true", help="put the records, without weights, into the book")

    command = add("results", "a table of published results, as the book shows it")
    command.add_argument(
        "results", metavar="RESULTS", help="a sweep, such as cifar10, reference, beyond, device, or all"
    )
    command.add_argument(
        "table", nargs="?", metavar="TABLE", help="standalone by default; of all: headline, of beyond, device: savings"
    )

    command = add("data", "fetch and prepare a data set; without a name, list them")
    command.add_argument("name", nargs="?", metavar="NAME", help="a data set; see the list")
    command.add_argument("--force", action="store_true", help="prepare it again")
    return top


def _composing(command: argparse.ArgumentParser) -> None:
    """The options of the three commands that take a cascade, or a network cut short."""
    command.add_argument("--mix", type=float, default=0.0, help="of a cascade: share of the first answer in the second")
    command.add_argument("--exits", help="of one network: keep only the exits after these stages, comma-separated")
    command.add_argument("--end", help="of one network: stop at the exit after this stage")


def _composed(options: argparse.Namespace, names: Sequence[str]) -> list[Any]:
    """The records by these names; one alone with the exits and the end that the options leave it."""
    from trecx.experiments.composed import shorten
    from trecx.experiments.records import open_record

    records = [open_record(name) for name in names]
    if options.exits is None and options.end is None:
        return records
    if len(records) > 1:
        raise TrecxError("exits and end cut one network short: give one record with them")
    return [shorten(records[0], filter(None, (options.exits or "").split(",")), options.end or "")]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0 on success, otherwise as `trecx.command` has it, with one line."""

    def work() -> int:
        options = parser().parse_args(argv)
        answer = _COMMANDS[options.command](options)
        print(json.dumps(_finite(answer), allow_nan=False) if options.json else _text(answer))
        return 0

    return guarded(work)


def _models(options: argparse.Namespace) -> list[dict[str, Any]]:
    from trecx.models.build import build
    from trecx.models.cost import measure

    rows = []
    for task in TASKS.values():
        for method in METHODS.values():
            if options.task in (None, task.name) and task.name in method.tasks:
                cost = asdict(measure(build(task.name, method.name), task.input_shape))
                rows.append({"task": task.name, "method": method.name, **cost})
    return rows


def _train(options: argparse.Namespace) -> dict[str, Any]:
    from tqdm import tqdm

    from trecx.experiments.runs import Run, execute, find
    from trecx.experiments.sweep import TEXTS, as_tuple

    given = {field.name: getattr(options, field.name) for field in fields(Run)}
    given |= {field: None if given[field] is None else as_tuple(field, given[field]) for field in TEXTS}
    run = Run(**given)
    record = find(run)
    if record is None:
        bar: Any = None

        def report(done: int, row: dict[str, Any]) -> None:
            nonlocal bar
            if bar is None:  # epochs of an earlier, interrupted call took no time in this one
                bar = tqdm(total=run.total_epochs, initial=done - 1, unit="epoch", desc=run.name)
            bar.set_postfix_str(" / ".join(f"{100 * v:.1f} %" for k, v in row.items() if k.startswith("val_")))
            bar.update()

        try:
            record = execute(run, report)
        finally:
            if bar is not None:
                bar.close()
    return {
        "record": str(record.folder),
        "val_accuracies": _percent(record.accuracies("val")),
        "test_accuracies": _percent(record.accuracies("test")),
        "seconds": record.manifest["seconds"],
    }


def _sweep(options: argparse.Namespace) -> list[dict[str, Any]]:
    from trecx.experiments import sweep
    from trecx.experiments.runs import find

    if options.workers is not None and options.workers < 1:
        raise TrecxError(f"workers {options.workers} is impossible: choose a whole number from 1")
    path = Path(options.spec)
    runs = sweep.load(path if path.suffix in (".yaml", ".yml") else sweep.own(options.spec))
    if not options.list:
        sweep.execute_all(
            runs,
            engine=options.engine,
            workers=options.workers,
            address=options.address,
            to_publish=options.publish,
            say=_say,
        )
    rows = []
    for run in runs:
        record = find(run)
        rows.append(
            {
                "run": run.name,
                "data": run.data,
                "val_accuracies": _percent(record.accuracies("val")) if record else None,
                "test_accuracies": _percent(record.accuracies("test")) if record else None,
                "record": str(record.folder) if record else None,
            }
        )
    return rows


def _evaluate(options: argparse.Namespace) -> dict[str, Any]:
    from trecx.experiments.records import open_record
    from trecx.experiments.runs import evaluate

    return evaluate(open_record(options.record), options.threshold)


def _curve(options: argparse.Namespace) -> list[dict[str, Any]]:
    import numpy as np

    from trecx.evaluation.trace import at_thresholds, benefit_curve
    from trecx.experiments.composed import joined

    if options.points != 0 and not 2 <= options.points <= MOST_POINTS:
        raise TrecxError(f"points {options.points} is impossible: choose 0 for all thresholds, or 2 to {MOST_POINTS}")
    names = [name for name in (options.record, options.second) if name is not None]
    record = joined(_composed(options, names), options.mix)
    trace = record.trace(options.split, score=options.score, unit=options.unit)
    grid = np.linspace(1, 0, options.points)
    curve = at_thresholds(trace, grid) if options.points else benefit_curve(trace)
    rows = zip(curve.thresholds, curve.accuracy, curve.cost, curve.shares, strict=True)
    return [
        {"threshold": float(t), "accuracy": 100 * float(a), options.unit: float(c), "shares": [float(v) for v in s]}
        for t, a, c, s in rows
    ]


def _recommend(options: argparse.Namespace) -> dict[str, Any]:
    from trecx.analysis.choice import recommend
    from trecx.experiments.records import open_record
    from trecx.experiments.results import alike

    if options.loss is not None and options.budget is not None:
        raise TrecxError("loss and budget are two questions: give one of them")
    loss = 1.0 if options.loss is None else options.loss
    limits = {"loss": loss, "budget": options.budget, "guarantee": options.guarantee}
    found = asdict(recommend(alike(options.task), unit=options.unit, **limits))
    if not options.json:
        # One of each network for `curve`, `export` and `device`: with weights, which not every seed has.
        seeds = [[open_record(name) for name in names] for names in zip(*found["records"], strict=True)]
        best = [next((one for one in of if one.weights.is_file()), of[0]) for of in seeds]
        found["records"] = " ".join(one.name for one in best)
        exits, end = found.pop("exits"), found.pop("end")
        found |= {} if exits is None else {"exits": ",".join(exits) or '""'}  # as a shell passes no exit at all
        found |= {"end": end} if end else {}
    # JSON has no NaN: an interval that too few seeds cannot give is null.
    return {key: None if value != value else value for key, value in found.items()}


def _reference(options: argparse.Namespace) -> list[dict[str, Any]]:
    from trecx.experiments.reference import evaluate_released, summary

    rows = [summary(record) for record in evaluate_released(options.path, publish=options.publish, say=_say)]
    return rows if options.json else [_with_points_as_columns(row) for row in rows]


def _robustness(options: argparse.Namespace) -> list[dict[str, Any]]:
    from trecx.experiments.records import open_record
    from trecx.experiments.robustness import evaluate_robustness, read_clips

    if options.per_class < 0:
        raise TrecxError(f"per-class {options.per_class} is impossible: choose a whole number from 0")
    records = [open_record(name) for name in options.record]
    folder, noise = (Path(name).expanduser() if name else None for name in (options.audio, options.noise))
    assert folder is not None
    clips = read_clips(folder, noise, options.per_class)
    rows = []
    for found in evaluate_robustness(records, clips, publish=options.publish, say=_say):
        for row in found.table.to_dict("records"):
            accuracies = [value for key, value in row.items() if key.startswith("accuracy_")]
            numbers = ("exit_rate", "accuracy", "early_accuracy", "final_on_early", "wrong_early", "keyword")
            percent = {key: None if row[key] != row[key] else round(100 * row[key], 2) for key in numbers}
            about = {"record": found.folder.name, "condition": row["condition"], "clips": row["clips"], "n": row["n"]}
            rows.append(about | {"accuracies": _percent(accuracies)} | percent)
    return rows


def _export(options: argparse.Namespace) -> dict[str, Any]:
    from trecx.deploy.export import export

    records = _composed(options, options.record)
    made = export(records, Path(options.out).expanduser(), c=options.c, mix=options.mix, say=_say)
    found, accuracy = made.manifest, made.manifest["accuracy"]["test"]
    return {
        "export": str(made.folder),
        "stages": len(found["stages"]),
        "float_difference": found["check"]["float_difference"],
        "float_accuracies": _percent(accuracy["float"]),
        "int8_accuracies": _percent(accuracy["int8"]),
        "float_bytes": found["bytes"]["float"],
        "int8_bytes": found["bytes"]["int8"],
    }


def _device(options: argparse.Namespace) -> dict[str, Any]:
    from trecx.deploy.records import measure

    records = _composed(options, options.record)
    how = {"latency": options.latency, "publish": options.publish, "mix": options.mix}
    made = measure(records, options.machine, **how, say=_say)
    found = made.manifest
    return {
        "record": str(made.path),
        "int8_accuracies": _percent(made.accuracy("int8")),
        "instructions": [int(c) for c in made.cost("instructions")],
        "flash_bytes": found["flash"]["total"],
        "ram_bytes": found["ram"]["total"],
        "host_difference": found["checks"]["host"]["difference"],
        "emulated_difference": found["checks"]["emulated"]["difference"],
    }


def _with_points_as_columns(row: dict[str, Any]) -> dict[str, Any]:
    """For the text table: the costs relative to the paper's baseline, in place of the list of points."""
    shown = {key: row[key] for key in ("task", "method", "samples")}
    shown["accuracies"] = " / ".join(f"{a:.2f}" for a in row["accuracies"])
    for protocol in ("paper", "other half"):
        costs = [
            "not reached" if point["mflops"] is None else f"{point['mflops']:.3f}"
            for point in row["points"]
            if (point["reference"], point["protocol"]) == ("paper's baseline", protocol)
        ]
        shown[f"MFLOPs at -1, -2, -3 ({protocol})"] = " / ".join(costs)
    return shown


def _results(options: argparse.Namespace) -> list[dict[str, Any]]:
    from trecx.report.catalogue import as_text, table

    frame = table(options.results, options.table or "")
    _say("accuracies, exit rates and savings in percent, differences in points, costs in MFLOPs")
    if not options.json:
        return as_text(options.results, options.table or "", frame).to_dict("records")
    # Through JSON, which has no NaN: an accuracy that was not reached is null.
    return json.loads(frame.to_json(orient="records", double_precision=6))


def _data(options: argparse.Namespace) -> list[dict[str, Any]] | dict[str, Any]:
    from trecx import data, paths

    if options.name:
        path: Path = data.prepare(options.name, force=options.force)
        return {"name": options.name, "file": str(path), "checksum": data.load(options.name).checksum}
    return [{"name": name, "prepared": (paths.DATA / f"{name}.npz").is_file()} for name in data.DATASETS]


def _say(line: str) -> None:
    """Progress, apart from the answer."""
    print(line, file=sys.stderr, flush=True)


def _percent(fractions: Any) -> list[float]:
    return [round(100 * float(f), 2) for f in fractions]


def _finite(answer: Any) -> Any:
    """The answer with null for NaN and infinity, which JSON does not have."""
    if isinstance(answer, dict):
        return {key: _finite(value) for key, value in answer.items()}
    if isinstance(answer, list | tuple):
        return [_finite(value) for value in answer]
    return None if isinstance(answer, float) and not math.isfinite(answer) else answer


def _text(answer: Any) -> str:
    if isinstance(answer, list):
        return _table([{str(key): _cell(value) for key, value in row.items()} for row in answer])
    return _list({key: _cell(value) for key, value in answer.items()})


def _list(row: dict[str, str]) -> str:
    """A line for each name and its value."""
    width = max(map(len, row))
    return "\n".join(f"{key:{width}}  {text}" for key, text in row.items())


def _table(rows: list[dict[str, str]]) -> str:
    """Columns under their names, a line a row; on a terminal no wider than that.

    There long cells take several lines, and where that is not enough each row is a list of names and values.
    """
    import tabulate

    if not rows:
        return ""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = [names, *([row.get(name, "-") for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    right = [all(map(_NUMBER.match, cells)) for _, *cells in zip(*table, strict=True)]
    if sys.stdout.isatty():
        room = shutil.get_terminal_size().columns - _GAP * (len(names) - 1)
        while sum(widths) > room and max(widths) > _NARROWEST:
            widths[widths.index(max(widths))] -= 1
        if sum(widths) > room:
            return "\n\n".join(map(_list, rows))
        table = [["\n".join(wrap(cell, n)) for cell, n in zip(row, widths, strict=True)] for row in table]
    tabulate.MIN_PADDING = 0  # a column is no wider than its longest cell or its name
    sides = ["right" if number else "left" for number in right]
    return tabulate.tabulate(table[1:], table[0], tablefmt="plain", disable_numparse=True, colalign=sides)


def _cell(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " / ".join(_cell(v) for v in value)
    if value is None or value != value:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:_}".replace("_", " ")
    return f"{value:.6g}" if isinstance(value, float) else str(value)


_COMMANDS = {
    "models": _models,
    "train": _train,
    "sweep": _sweep,
    "evaluate": _evaluate,
    "curve": _curve,
    "recommend": _recommend,
    "robustness": _robustness,
    "export": _export,
    "device": _device,
    "reference": _reference,
    "results": _results,
    "data": _data,
}
