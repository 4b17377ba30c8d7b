"""The book's tables, each computed from run records. Accuracies in percent, FLOPs in millions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from trecx.evaluation.calibration import expected_calibration_error, negative_log_likelihood, scaled
from trecx.evaluation.points import at, operating_points
from trecx.evaluation.stats import Interval, mean_interval, paired_difference
from trecx.evaluation.trace import confidence
from trecx.experiments.records import Record, mean_accuracy, temperatures
from trecx.models.methods import label_of, method_of
from trecx.paper import paper

# Method name, or a variant's such as 'trecx_concat, w = 0.3' -> records, one a seed.
Group = Mapping[str, Sequence[Record]]

PAPER_NAMES = {"trecx_ev": "trecx", "branchynet": "branchynet", "sdn": "sdn"}  # methods that Table 2 lists


def interval(values: Sequence[float], samples: int) -> tuple[float, float, float]:
    """Mean and 95 % interval of accuracies in percent: over seeds, or over test samples where there is one seed.

    The interval over seeds is Student's t; the one over samples is the normal approximation of a proportion.
    """
    if len(values) > 1:
        return tuple(mean_interval(values))  # type: ignore[return-value]
    (value,) = values
    half = 1.96 * np.sqrt(value * (100 - value) / samples)
    return value, value - half, value + half


def pooled(records: Sequence[Record], k: int, split: str = "test") -> Interval:
    """Accuracy of exit `k` in percent with its 95 % interval over seeds and samples together.

    All seeds share the samples, so more seeds do not average the chance of a small test set away.
    """
    hits = np.stack([record.trace(split).correct[:, k] for record in records])
    return paired_difference(hits, np.zeros_like(hits)).in_points()


def standalone(
    groups: Group,
    task: str,
    *,
    with_paper: bool,
    authors: Mapping[str, Record] | None = None,
    pool_samples: bool = False,
) -> pd.DataFrame:
    """Standalone accuracy of every exit of every method (Table 2), all samples through one exit.

    `with_paper` adds the paper's figures, `authors` (method -> record) those of the authors' released weights: only for
    results on the paper's own data. `pool_samples` gives `pooled` intervals: over seeds and test samples together.
    """
    rows: list[dict[str, Any]] = []
    for method, records in groups.items():
        accuracies = np.array([100 * record.accuracies() for record in records])  # seeds x exits
        printed = paper()["table_2"].get(task, {}).get(PAPER_NAMES.get(method, ""), {}).get("accuracies", [])
        table_1 = paper()["table_1"][task]
        if method == "baseline":
            printed = [table_1["baseline"]["accuracy"]]
        elif method == "trecx_ev" and not printed:  # Table 2 leaves MobileNet out
            printed = [table_1["trecx"]["early_accuracy"], table_1["trecx"]["final_accuracy"]]
        samples = len(records[0].predictions["test_labels"])
        for k in range(accuracies.shape[1]):
            mean, low, high = pooled(records, k) if pool_samples else interval(accuracies[:, k].tolist(), samples)
            rows.append(
                {
                    "method": label_of(method),
                    "exit": "final" if k == accuracies.shape[1] - 1 else str(k + 1),
                    "parameters": records[0].params,
                    "cost": records[0].cost()[k] / 1e6,
                    "accuracy": mean,
                    "low": low,
                    "high": high,
                    "seeds": len(records),
                }
                | ({"paper": printed[k] if k < len(printed) else np.nan} if with_paper else {})
            )
            if authors is not None:
                released = list(authors[method].accuracies()) if method in authors else []
                rows[-1]["authors' weights"] = 100 * released[k] if k < len(released) else np.nan
    return pd.DataFrame(rows)


def early_confidences(records: Sequence[Record], low: float = 0.65, high: float = 0.9) -> pd.Series:
    """The first exit's largest softmax values in [low, high) of all seeds (Fig. 5); may be empty."""
    scores = pd.Series(np.concatenate([record.trace().scores[:, 0] for record in records]))
    return scores[(scores >= low) & (scores < high)]


def references(task: str, baseline: Sequence[Record], *, with_paper: bool) -> dict[str, float | tuple[float, float]]:
    """The accuracies that operating points are measured against: our baseline's mean and the paper's constant."""
    own = (mean_accuracy(baseline, split="val"), mean_accuracy(baseline, split="test"))
    found: dict[str, float | tuple[float, float]] = {"own baseline": own}
    if with_paper:
        found["paper's baseline"] = paper()["table_1"][task]["baseline"]["accuracy"] / 100
    return found


def method_points(
    groups: Group,
    task: str,
    baseline: Sequence[Record],
    *,
    with_paper: bool,
    drops: Sequence[float] = (1, 2, 3),
    unit: str = "flops",
) -> pd.DataFrame:
    """Operating points of every method and seed, tidy: see `trecx.evaluation.points.operating_points` for the columns.

    Reductions are relative to the unmodified network. Methods without an early exit are left out.
    """
    frames = []
    base = baseline[0].cost(unit)[-1]
    for method, records in groups.items():
        if not method_of(method).head:
            continue
        for record in records:
            frame = operating_points(
                record.trace("test", unit=unit),
                base,
                references(task, baseline, with_paper=with_paper),
                val=record.trace("val", unit=unit),
                drops=drops,
            )
            frame.insert(0, "seed", record.seed)
            frame.insert(0, "method", method)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def mean_points(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean of `points` over seeds; a mean over seeds that did not all reach the target is not given."""
    keys = ["method", "reference", "drop", "protocol"]

    def collect(rows: pd.DataFrame) -> pd.Series:
        complete = bool(rows["reached"].all())
        values = {c: rows[c].mean() if complete else np.nan for c in ("threshold", "accuracy", "cost", "reduction")}
        share = rows["exit_rate"].mean() if complete else np.nan
        return pd.Series(values | {"exit_rate": share, "reached": f"{rows['reached'].sum()} of {len(rows)}"})

    return frame.groupby(keys, sort=False).apply(collect, include_groups=False).reset_index()


def point_intervals(frame: pd.DataFrame) -> pd.DataFrame:
    """`mean_points` with the 95 % interval of the reduction over seeds (Student's t; none from one seed)."""
    keys = ["method", "reference", "drop", "protocol"]
    ends = frame.groupby(keys, sort=False)["reduction"].apply(lambda values: mean_interval(values.to_numpy()))
    means = mean_points(frame)
    means.insert(means.columns.get_loc("reduction") + 1, "low", [interval.low for interval in ends])
    means.insert(means.columns.get_loc("low") + 1, "high", [interval.high for interval in ends])
    return means


def savings(frame: pd.DataFrame, references: Sequence[str]) -> pd.DataFrame:
    """Operating points (`points`) as one row a method, reference and drop: what is saved under the two protocols.

    Columns: method, reference, drop, threshold, accuracy, exit rate, cost (millions), saved, low, high (percent, 95 %
    over seeds, threshold from validation), saved, paper protocol (percent), reached (seeds, validation).
    """
    means = point_intervals(frame)
    means = means[means["reference"].isin(references)]
    keys = ["method", "reference", "drop"]
    ours, theirs = (means[means["protocol"] == p].set_index(keys) for p in ("validation", "paper"))
    table = readable(ours.reset_index()).drop(columns="protocol").rename(columns={"reduction": "saved"})
    table.insert(len(table.columns) - 2, "saved, paper protocol", 100 * theirs["reduction"].to_numpy(dtype=float))
    order = [*keys, "threshold", "accuracy", "exit rate", "cost", "saved", "low", "high", "saved, paper protocol"]
    return table[[*order, "reached"]]


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of operating points with labels, percent and millions in place of names, fractions and units."""
    shown = frame.copy()
    shown["method"] = [label_of(name) for name in shown["method"]]
    for column in ("accuracy", "reduction", "low", "high", "exit_rate", "target"):
        if column in shown:
            shown[column] = 100 * shown[column].astype(float)
    shown["cost"] = shown["cost"].astype(float) / 1e6
    return shown.rename(columns={"exit_rate": "exit rate"})


def cost_unit(unit: str) -> str:
    """What a million of `flops` or `macs` is called."""
    return "MFLOPs" if unit == "flops" else "million MACs"


def trainings(groups: Group, static: Mapping[str, Sequence[Record]], task: str) -> pd.DataFrame:
    """How often each network was trained, its parameters (and the paper's) and costs, minutes of its fastest run."""
    rows = []
    named = {label_of(name): records for name, records in groups.items()}
    table_1, table_2 = paper()["table_1"][task], paper()["table_2"].get(task, {})
    printed = {
        label_of("baseline"): table_1["baseline"]["params_k"],
        label_of("trecx_ev"): table_1["trecx"]["params_k"],
    }
    printed |= {label_of(m): table_2[name]["params_k"] for m, name in PAPER_NAMES.items() if name in table_2}
    for network, records in (named | {f"Baseline, {name}": found for name, found in static.items()}).items():
        rows.append(
            {
                "network": network,
                "seeds": len(records),
                "parameters": records[0].params,
                "paper": printed.get(network, np.nan),
                "MFLOPs at each exit": " / ".join(f"{c / 1e6:.2f}" for c in records[0].cost()),
                "minutes": min(r.seconds for r in records) / 60,
            }
        )
    return pd.DataFrame(rows)


def loss_weights(weights: Mapping[float, Sequence[Record]], seed: int = 0) -> pd.DataFrame:
    """Accuracies of one seed under several loss weights, percent; w is chosen on the column 'final, validation'."""
    rows = []
    for w, records in sorted(weights.items()):
        for record in records:
            if record.seed == seed:
                (early, last), tested = 100 * record.accuracies("val"), 100 * record.accuracies()
                rows.append({"w": w, "early, validation": early, "final, validation": last})
                rows[-1] |= {"early, test": tested[0], "final, test": tested[1]}
    return pd.DataFrame(rows)


def places(groups: Mapping[str, Mapping[str, Sequence[Record]]], unit: str = "flops") -> pd.DataFrame:
    """Accuracies by the place of the exit, percent, means over seeds, and costs in millions.

    Args:
        groups: method -> tap -> records.
        unit: of the costs, `flops` or `macs`.

    Returns:
        Columns: method, exit after, cost of the early exit, early (its accuracy), final, seeds. Networks with several
        early exits add `cost of exit 2`, `exit 2` and so on, NaN for the others; `early` is then the first of them.
    """
    rows: list[dict[str, Any]] = []
    for method, taps in groups.items():
        for tap, records in taps.items():
            cost = records[0].cost(unit)
            further = [f"exit {k}" for k in range(2, len(cost))]
            costs = dict(
                zip(["cost of the early exit", *(f"cost of {name}" for name in further)], cost[:-1] / 1e6, strict=True)
            )
            means = np.mean([100 * record.accuracies() for record in records], axis=0)
            accuracies = dict(zip(["early", *further, "final"], means, strict=True))
            rows.append({"method": label_of(method), "exit after": tap} | costs | accuracies | {"seeds": len(records)})
    return pd.DataFrame(rows, columns=[*max(rows, key=len, default={})])


def place_points(
    groups: Mapping[str, Mapping[str, Sequence[Record]]], task: str, baseline: Sequence[Record], drop: float = 1
) -> pd.DataFrame:
    """What each place of the exit saves `drop` points below our own baseline, threshold from validation.

    Columns: method, exit after, threshold, accuracy, cost, reduction with its 95 % interval over seeds, exit rate,
    reached; fractions and FLOPs.
    """
    frames = []
    for method, taps in groups.items():
        for tap, records in taps.items():
            frame = method_points({method: records}, task, baseline, with_paper=False, drops=(drop,))
            frame = point_intervals(at(frame, drop=drop))
            frame.insert(1, "exit after", tap)
            frames.append(frame.drop(columns=["reference", "drop", "protocol"]))
    return pd.concat(frames, ignore_index=True)


def by_class(records: Sequence[Record], thresholds: Sequence[float], classes: Sequence[str]) -> pd.DataFrame:
    """Percent by class, mean over seeds: accuracy of the first and the final exit, exit rate, and of both together."""
    rows = []
    for k, name in enumerate(classes):
        values = []
        for record, threshold in zip(records, thresholds, strict=True):
            trace = record.trace()
            trace = trace.take(np.flatnonzero(record.predictions["test_labels"] == k))
            right, _ = trace.outcome(threshold)
            early = (trace.leave(threshold) < len(trace.cost) - 1).mean()
            values.append([*trace.standalone[[0, -1]], early, right.mean()])
        mean = 100 * np.mean(values, axis=0)
        row = {"class": name, "clips": int((records[0].predictions["test_labels"] == k).sum())}
        columns = ("early exit", "final exit", "leaves early", "with early exit")
        rows.append(row | dict(zip(columns, mean.tolist(), strict=True)))
    return pd.DataFrame(rows)


def baseline_and_trecx(
    groups: Group,
    task: str,
    *,
    protocol: str = "validation",
    reference: str = "own baseline",
    authors: pd.Series | None = None,
) -> pd.DataFrame:
    """The row of Table 1: baseline and T-RecX, ours beside the paper's.

    On stand-in data only the counts stand beside the paper's: its accuracies, and the costs that follow from them,
    belong to other data. With several seeds, 95 % intervals over them; with `authors` (quantity -> value, see
    `trecx.experiments.reference.released_row`) a column for the authors' released weights.
    """
    base, ours = groups["baseline"], groups["trecx_ev"]
    rows = method_points({"trecx_ev": ours}, task, base, with_paper=reference == "paper's baseline")
    rows = at(rows, reference=reference, protocol=protocol, drop=None)
    printed = paper()["table_1"][task]
    exits = np.array([100 * r.accuracies() for r in ours])  # seeds x 2
    # Quantity, unit, one value a seed, the paper's.
    found: list[tuple[str, str, ArrayLike, float]] = [
        ("baseline accuracy", "%", [100 * r.accuracies()[-1] for r in base], printed["baseline"]["accuracy"]),
        ("baseline cost", "MFLOPs", [base[0].cost()[-1] / 1e6], printed["baseline"]["mflops"]),
        ("baseline parameters", "thousand", [base[0].params / 1e3], printed["baseline"]["params_k"]),
        ("T-RecX parameters", "thousand", [ours[0].params / 1e3], printed["trecx"]["params_k"]),
        ("T-RecX early exit", "%", exits[:, 0], printed["trecx"]["early_accuracy"]),
        ("T-RecX final exit", "%", exits[:, 1], printed["trecx"]["final_accuracy"]),
    ]
    for drop, cost in printed["trecx"]["mflops_at_drop"].items():
        name = f"cost at -{drop} point{'s' * (drop > 1)}"
        found.append((name, "MFLOPs", rows.loc[rows["drop"] == drop, "cost"].to_numpy() / 1e6, cost))
    table = []
    for quantity, unit, values, theirs in found:
        mean, low, high = mean_interval(values)
        row = {"quantity": quantity, "unit": unit, "ours": mean}
        row |= {"low": low, "high": high} if len(ours) > 1 else {}
        row |= {"authors' weights": authors.get(quantity)} if authors is not None else {}
        table.append(row | {"paper": theirs})
    frame = pd.DataFrame(table)
    frame["ours"] = frame["ours"].astype(float)
    if base[0].stand_in:
        counts = ("baseline cost", "baseline parameters", "T-RecX parameters")
        frame.loc[~frame["quantity"].isin(counts), "paper"] = np.nan
    return frame


def confusion(records: Sequence[Record], thresholds: Sequence[float]) -> pd.DataFrame:
    """Wrong answers of a two-class task by exit, test set, mean over seeds.

    Args:
        records: networks with one early exit, class 1 being what is looked for.
        thresholds: one a record; NaN where none was found, which leaves the rows of really leaving early out.

    Returns:
        Columns: exit, images (mean number), missed (percent of class 1 taken for 0), false alarms (of 0 taken for 1).
    """
    rows: dict[str, list[tuple[float, float, float]]] = {}
    for record, threshold in zip(records, thresholds, strict=True):
        answers, truth = record.predictions["test_log_probs"].argmax(2), record.predictions["test_labels"]
        everyone = np.ones(len(truth), dtype=bool)
        shown = [("early exit, all images", everyone, 0), ("final exit, all images", everyone, -1)]
        if not np.isnan(thresholds).any():
            leaves = record.trace().leave(threshold) == 0
            shown += [("early exit, those that leave", leaves, 0), ("early exit, those that go on", ~leaves, 0)]
            shown += [("final exit, those that go on", ~leaves, -1)]
        for name, who, k in shown:
            wrong = [np.mean(answers[who & (truth == c), k] != c) if (who & (truth == c)).any() else 0 for c in (1, 0)]
            rows.setdefault(name, []).append((who.sum(), 100 * wrong[0], 100 * wrong[1]))
    columns = ["images", "missed", "false alarms"]
    return pd.DataFrame([{"exit": n} | dict(zip(columns, np.mean(v, axis=0), strict=True)) for n, v in rows.items()])


def calibration(records: Sequence[Record], split: str = "test") -> pd.DataFrame:
    """How far each exit's confidence is from its accuracy, before and after scaling: means over the seeds.

    Columns: exit, accuracy and mean confidence in percent, temperature, ECE and its value after scaling (percent), NLL
    and its value after scaling (nats).
    """
    rows = []
    for record in records:
        raw, labels = record.predictions[f"{split}_log_probs"], record.predictions[f"{split}_labels"]
        fitted = temperatures(record)
        after, exits = scaled(raw, fitted), raw.shape[1]
        right = raw.argmax(2) == labels[:, None]
        for k in range(exits):
            before_conf, after_conf = confidence(raw[:, k]), confidence(after[:, k])
            rows.append(
                {
                    "exit": "final" if k == exits - 1 else str(k + 1) if exits > 2 else "early",
                    "accuracy": 100 * right[:, k].mean(),
                    "confidence": 100 * before_conf.mean(),
                    "temperature": fitted[k],
                    "ECE": 100 * expected_calibration_error(before_conf, right[:, k]),
                    "ECE, scaled": 100 * expected_calibration_error(after_conf, right[:, k]),
                    "NLL": negative_log_likelihood(raw[:, k], labels),
                    "NLL, scaled": negative_log_likelihood(after[:, k], labels),
                }
            )
    return pd.DataFrame(rows).groupby("exit", sort=False).mean().reset_index()
