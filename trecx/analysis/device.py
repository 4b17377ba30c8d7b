"""The tables of device records: what networks cost on a microcontroller, and what int8 leaves of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from trecx.analysis.wording import sizes_in_words
from trecx.deploy.records import DROPS, DeviceRecord
from trecx.errors import TrecxError
from trecx.models.methods import label_of
from trecx.paper import paper

LATENCY = ("latency", "FLOPs, same exits")  # columns of `savings`

ANSWERS = ("trecx_ev", "trecx_no_ev", "nested")  # methods of the short table

Rows = list[dict[str, Any]]


def baselines(records: Sequence[DeviceRecord]) -> dict[tuple[str, str, str], DeviceRecord]:
    """The unmodified network of every setting (data, recipe, start) that has one."""
    return {record.setting: record for record in records if record.is_baseline}


def data_title(record: DeviceRecord) -> str:
    """The data and what training started from, as tables say it."""
    start = record.setting[2]
    return record.data_title + (f", from {start}" if start else "")


def short(record: DeviceRecord) -> str:
    """What a figure calls it: its method, or what is smaller about it."""
    if record.is_baseline:
        return "Unmodified network"
    first = record.runs[0]
    if len(record.runs) == 1 and len(record.cost("flops")) > 1:
        alone = ", heads alone" if first.frozen else ""
        ends = f"{label_of(first.method)}{alone}, ends after {record.end}"
        return sizes_in_words(ends if record.end else record.label)
    size = f"resolution {first.resolution}" if first.resolution else f"width {first.width:g}"
    size = sizes_in_words(f"trunk to {record.end}" if record.end else size)
    size = f"taught {size}" if first.teacher else size
    if len(record.runs) == 1:
        return f"{size}, no exit"
    second = record.runs[1]
    taught = "taught " if second.teacher else ""
    then = "" if second.method == "baseline" else f", then {taught}{label_of(second.method).lower()}"
    return f"Cascade, {size} first{then}" + ", mixed" * bool(record.mix)


def benchmarks(records: Sequence[DeviceRecord]) -> dict[str, list[DeviceRecord]]:
    """Title of the data -> its records of one setting, the baseline first.

    As elsewhere in the book that of networks trained on from weights, if there are some: only from the reference
    weights does Visual Wake Words reach the paper's accuracy.
    """
    found: dict[str, list[DeviceRecord]] = {}
    for record in _ordered(records):
        settings = {other.setting for other in records if other.data_title == record.data_title}
        if record.setting == max(settings, key=lambda setting: (bool(setting[2]), setting)):
            found.setdefault(record.data_title, []).append(record)
    return found


def answer(records: Sequence[DeviceRecord]) -> pd.DataFrame:
    """The short table: what T-RecX, with and without EV-assistance, and better ways save one point below the baseline.

    Better ways are nested networks, cascades, and exits in a trunk that ends early, in three units. Of the setting in
    `benchmarks`. `given up` is on test, in points.
    """
    rows: Rows = []
    for title, group in benchmarks(records).items():
        base = baselines(records).get(group[0].setting)
        saved = savings(group)
        for record in group:
            first = record.runs[0]
            if base is None or not (len(record.runs) > 1 or first.method in ANSWERS or record.end):
                continue
            row = saved[(saved["network"] == record.label) & (saved["drop"] == 1)].iloc[0]
            lost = 100 * base.accuracy("int8")[-1] - row["accuracy"]
            kept = {key: row[key] for key in ("FLOPs", "MACs", "instructions", "exit rate")}
            rows.append({"data": title, "network": short(record), **kept, "given up": lost})
    return pd.DataFrame(rows)


def _named(record: DeviceRecord) -> dict[str, Any]:
    return {"data": data_title(record), "network": record.label}


def _ordered(records: Sequence[DeviceRecord]) -> list[DeviceRecord]:
    """By data, the baseline first, single networks before cascades, as the methods are listed."""
    return sorted(records, key=lambda r: (r.setting, not r.is_baseline, len(r.runs), r.label))


def savings(records: Sequence[DeviceRecord]) -> pd.DataFrame:
    """What is saved `drop` points below the baseline under int8, in four units: threshold from validation under int8.

    Latency, where a record holds it, is of the float stages on a processor at thresholds chosen in float, on other
    samples than the rest; the FLOPs saved by just those exits stand beside it. Percent of the baseline's cost, NaN
    where no threshold reaches the accuracy.
    """
    rows: Rows = []
    for record in _ordered(records):
        base = baselines(records).get(record.setting)
        if base is None or record.is_baseline:
            continue
        for drop in DROPS:
            row = {**_named(record), "drop": drop} | dict.fromkeys(
                ("threshold", "accuracy", "exit rate", "FLOPs", "MACs", "instructions"), np.nan
            )
            point = record.point(base.accuracy("int8", "val")[-1] - drop / 100)
            if point is not None:
                shares = point["shares"]
                row |= {"accuracy": 100 * point["accuracy"], "exit rate": 100 * (1 - shares[-1])}
                row["threshold"] = np.nan if point["threshold"] is None else point["threshold"]
                for unit, name in (("flops", "FLOPs"), ("macs", "MACs"), ("instructions", "instructions")):
                    row[name] = 100 * (1 - shares @ record.cost(unit) / base.cost(unit)[-1])
            rows.append(row | _latency(record, base, drop))
    frame = pd.DataFrame(rows)
    timed = any(record.manifest["latency"] for record in records)
    return frame if timed else frame.drop(columns=[*LATENCY], errors="ignore")


def _latency(record: DeviceRecord, base: DeviceRecord, drop: int) -> dict[str, float]:
    """Latency saved, and FLOPs saved by the same exits, in percent; NaN where no threshold keeps the accuracy.

    Also NaN where the record has no latency.
    """
    found = record.manifest["latency"]
    if found is None:
        points = []
    elif len(record.cost("flops")) == 1:
        reached = record.accuracy("float", "val")[-1] >= base.accuracy("float", "val")[-1] - drop / 100
        points = [{"ratio": found["full_ratio"], "shares": [1.0]}] if reached else []
    else:
        points = [point for point in found["points"] if point["drop"] == drop]
    if not points:
        return dict.fromkeys(LATENCY, np.nan)
    flops = np.asarray(points[0]["shares"]) @ record.cost("flops") / base.cost("flops")[-1]
    return dict(zip(LATENCY, (100 * (1 - points[0]["ratio"]), 100 * (1 - float(flops))), strict=True))


def costs(records: Sequence[DeviceRecord]) -> pd.DataFrame:
    """Instructions of leaving first and of running everything (the worst case), and bytes of memory."""
    rows: Rows = []
    for record in _ordered(records):
        found, instructions, macs = record.manifest, record.cost("instructions"), record.cost("macs")
        base = baselines(records).get(record.setting)
        whole = np.nan if base is None else base.cost("instructions")[-1]
        early = len(instructions) > 1
        flops = record.cost("flops")
        rows.append(
            {
                **_named(record),
                "first exit": instructions[0] / 1e6 if early else np.nan,
                "all": instructions[-1] / 1e6,
                "first, instructions": 100 * instructions[0] / instructions[-1] if early else np.nan,
                "first, FLOPs": 100 * flops[0] / flops[-1] if early else np.nan,
                "of the baseline": 100 * instructions[-1] / whole,
                "per MAC": instructions[-1] / macs[-1],
                "decision": 100 * max(stage["decision"] for stage in found["stages"]) / whole if early else np.nan,
                "weights": found["flash"]["weights"] / 1e3,
                "flash": found["flash"]["total"] / 1e3,
                "stack": found["ram"]["stack"] / 1e3,
                "RAM": found["ram"]["total"] / 1e3,
                "RAM, planned": found["ram"]["planned"] / 1e3,
            }
        )
    return pd.DataFrame(rows)


# What `trecx.deploy.graphs.operations` counts -> how a table says it.
OPERATIONS = {
    "conv": "multiplication of a convolution",
    "pointwise": "multiplication of a 1x1 convolution or dense layer",
    "depthwise": "multiplication of a depthwise convolution",
    "outputs": "output of a convolution, brought to 8 bits",
    "other": "value of another operator",
}


def operators(records: Sequence[DeviceRecord]) -> pd.DataFrame:
    """Why instructions are not proportional to FLOPs: instructions of each kind of operation, fitted over all stages.

    Least squares of the relative errors without negative values. The last row is the median relative error of a stage,
    in percent.
    """
    if not records:
        return pd.DataFrame()
    counts = np.array([[stage[kind] for kind in OPERATIONS] for r in records for stage in r.manifest["operations"]])
    total = np.array([stage["instructions"] for r in records for stage in r.manifest["stages"]])
    each, _ = nnls(counts / total[:, None], np.ones(len(total)))
    rows = [{"operation": name, "instructions": value} for name, value in zip(OPERATIONS.values(), each, strict=True)]
    error = 100 * float(np.median(np.abs(counts @ each / total - 1)))
    return pd.DataFrame([*rows, {"operation": "a stage's total is missed by, in percent", "instructions": error}])


def accuracies(records: Sequence[DeviceRecord]) -> pd.DataFrame:
    """Accuracy of every exit on test in float32 and int8, in percent, and what int8 loses on test and validation."""
    rows: Rows = []
    for record in _ordered(records):
        exits = len(record.cost("flops"))
        test, val = ({kind: 100 * record.accuracy(kind, s) for kind in ("float", "int8")} for s in ("test", "val"))
        for k in range(exits):
            rows.append(
                {
                    **_named(record),
                    "exit": "final" if k == exits - 1 else "early" if exits == 2 else str(k + 1),
                    "float": test["float"][k],
                    "int8": test["int8"][k],
                    "lost": test["float"][k] - test["int8"][k],
                    "lost, validation": val["float"][k] - val["int8"][k],
                }
            )
    return pd.DataFrame(rows)


def thresholds(records: Sequence[DeviceRecord]) -> pd.DataFrame:
    """Thresholds chosen in float: accuracy and exit rate on test in float and, with the same threshold, under int8."""
    rows: Rows = []
    for record in _ordered(records):
        for found in record.manifest["float_thresholds"]:
            if found["threshold"] is None:
                continue
            row = {**_named(record), "drop": found["drop"], "threshold": found["threshold"]}
            for kind in ("float", "int8"):
                row[kind] = 100 * found[kind]["accuracy"]
                row[f"exit rate, {kind}"] = 100 * (1 - found[kind]["shares"][-1])
            rows.append(row)
    return pd.DataFrame(rows)


def sizes(records: Sequence[DeviceRecord]) -> pd.DataFrame:
    """Bytes of a network's numbers in float32 (batch norm folded) and int8 as exported, and what is saved.

    The paper's saving stands beside the network that it is of.
    """
    rows: Rows = []
    for record in _ordered(records):
        found = record.manifest["bytes"]
        printed = paper()["claims"]["C12"]["size_reduction"].get(record.runs[0].task)
        of_paper = printed is not None and [run.method for run in record.runs] == ["trecx_ev"]
        rows.append(
            {
                **_named(record),
                "float": found["float"] / 1e3,
                "int8": found["int8"] / 1e3,
                "saved": saved_bytes(record),
                "paper": printed if of_paper else np.nan,
            }
        )
    return pd.DataFrame(rows)


def saved_bytes(record: DeviceRecord) -> float:
    """Share of the float32 export's bytes that int8 saves, in percent."""
    found = record.manifest["bytes"]
    return 100 * (1 - found["int8"] / found["float"])


def curve(record: DeviceRecord, unit: str = "instructions") -> pd.DataFrame:
    """Benefit curve under int8: threshold, accuracy on test in percent, mean cost in `flops`, `macs` or `instructions`.

    Raises:
        TrecxError: a network without early exits.
    """
    found = record.manifest["curve"]
    if len(record.cost(unit)) == 1:
        raise TrecxError(f"{record.name} has no early exit, so it has no benefit curve")
    cost = np.asarray(found["shares"]) @ record.cost(unit)
    return pd.DataFrame({"threshold": found["thresholds"], "accuracy": 100 * np.asarray(found["test"]), unit: cost})


def in_words(records: Sequence[DeviceRecord]) -> dict[str, str]:
    """What running text says of device records: name -> number with its unit.

    `TASK-NETWORK-...` is of the setting in `benchmarks`, NETWORK the method, `METHOD-short` of a trunk that ends early,
    `cascade`, or `cascade-METHOD` where the second network has exits: of several, the one that saves most instructions
    on validation. Savings are one point below the baseline, thresholds as in `savings`.
    """
    found: dict[str, str] = {}
    for group in benchmarks(records).values():
        base = baselines(group).get(group[0].setting)
        if base is None:
            continue
        saved, task = savings(group), base.runs[0].task
        named: dict[str, DeviceRecord] = {}
        for record in (record for record in group if len(record.cost("flops")) > 1):
            name = "-".join([task, *_network(record)])
            named[name] = min(named.get(name, record), record, key=lambda r: _spent(r, base))
        for name, record in named.items():
            row = saved[(saved["network"] == record.label) & (saved["drop"] == 1)].iloc[0]
            for unit in ("FLOPs", "instructions"):
                found[f"{name}-{unit.lower()}"] = _percent(row[unit])
                cost = record.cost(unit.lower())
                found[f"{name}-first-{unit.lower()}"] = _percent(100 * cost[0] / cost[-1])
            given = 100 * base.accuracy("int8")[-1] - row["accuracy"]
            found[f"{name}-given"] = "not reached" if np.isnan(given) else f"{given:.2f} points"
            for unit, key in (("instructions", "worst"), ("flops", "worst-flops")):
                found[f"{name}-{key}"] = f"{100 * record.cost(unit)[-1] / base.cost(unit)[-1]:.0f} %"
            more = record.manifest["flash"]["total"] - base.manifest["flash"]["total"]
            found[f"{name}-flash"] = f"{more / 1e3:.1f} kB"
        lost = accuracies(group)["lost"].max()
        found[f"{task}-lost"] = f"{lost:.2f}"
        kept = thresholds(group)
        if len(kept):
            found[f"{task}-threshold-accuracy"] = f"{(kept['float'] - kept['int8']).abs().max():.2f}"
            rate = (kept["exit rate, float"] - kept["exit rate, int8"]).abs().max()
            found[f"{task}-threshold-rate"] = f"{rate:.1f}"
    shares = costs(records)["decision"].max()
    found["decision"] = f"{shares:.3f} %"
    each = operators(records)["instructions"].tolist()
    found |= {f"each-{kind}": f"{value:.0f}" for kind, value in zip(OPERATIONS, each, strict=False)}
    found["missed"] = f"{each[-1]:.1f} %"
    for row in sizes(records).dropna(subset="paper").to_dict("records"):
        found |= {"c12-saved": f"{row['saved']:.1f} %", "c12-paper": f"{row['paper']:.1f} %"}
    found["latency"] = " ".join(filter(None, (_timed(savings(records)), _calling(records))))
    main = {f"{method}-{what}" for method in (*ANSWERS, "cascade") for what in ("flops", "instructions", "given")}
    return dict(sorted(found.items(), key=lambda item: item[0].partition("-")[2] not in main))  # what matters first


def _network(record: DeviceRecord) -> list[str]:
    """What the numbers of `in_words` are named by."""
    first, *then = record.runs
    if then:
        return ["cascade", *(run.method for run in then if run.method != "baseline")]
    return [first.method, *["short"] * bool(record.end)]


def _spent(record: DeviceRecord, base: DeviceRecord) -> float:
    """Mean instructions on validation one point below the baseline, infinite where that is not reached."""
    point = record.point(base.accuracy("int8", "val")[-1] - 0.01)
    return np.inf if point is None else float(point["val_shares"] @ record.cost("instructions"))


def _timed(saved: pd.DataFrame) -> str:
    """How the time saved on a processor compares with the FLOPs saved by the same exits, from rows of `savings`."""
    rows = saved[saved["drop"] == 1].dropna(subset=LATENCY[0]) if LATENCY[0] in saved else saved[:0]
    if rows.empty:
        return "No record holds it."
    less = rows[LATENCY[1]] - rows[LATENCY[0]]
    side = "below" if less.mean() >= 0 else "above"
    none = int((rows[LATENCY[0]] <= 0).sum())
    return (
        f"One point below the unmodified network, {none} of {len(rows)} networks save no time at all: the saved "
        f"share of the time lies {abs(less.mean()):.1f} points {side} that of the FLOPs on average, and at most "
        f"{less.abs().max():.1f} points from it."
    )


def _calling(records: Sequence[DeviceRecord]) -> str:
    """What calling one more stage takes on a processor beside its arithmetic; empty where no record holds it.

    A network with all its stages takes longer than the unmodified one by more than its FLOPs explain: by the calls.
    """
    more, whole = [], []
    for record in records:
        base, found = baselines(records).get(record.setting), record.manifest["latency"]
        if found and base:
            further = len(record.cost("flops")) - 1
            arithmetic = record.cost("flops")[-1] / base.cost("flops")[-1]
            more += [found["baseline_ms"] * (found["full_ratio"] - arithmetic) / further] if further else []
            whole += [found["baseline_ms"]]
    if not more:
        return ""
    return (
        f"Calling one more stage takes {np.median(more):.2f} ms beside its arithmetic (median over {len(more)} "
        f"networks), where a whole unmodified network takes {min(whole):.2f} to {max(whole):.2f} ms."
    )


def _percent(value: float) -> str:
    return "not reached" if np.isnan(value) else f"{value:.1f} %"
