"""The words of what goes beyond the paper: they hold whatever the numbers are."""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from trecx.analysis.beyond import CHOSEN, ROWS, SHARES, Benchmark, chosen
from trecx.analysis.choice import MIX
from trecx.analysis.explorer import UNITS
from trecx.analysis.gates import ONE
from trecx.analysis.wording import MINUS, before_the_baseline, listed, sizes_in_words, trainings_in_words
from trecx.evaluation.stats import Interval

Titles = Mapping[str, str]  # task -> what its benchmark is called


def mean(frame: pd.DataFrame, way: str = CHOSEN, drop: float = 1) -> Interval:
    """What a way saves on average over the tasks, percent; NaN where a task lacks it."""
    rows = frame[(frame["task"] == "mean") & (frame["drop"] == drop) & (frame["way"] == way)]
    return Interval(*rows[["saved", "low", "high"]].iloc[0]) if len(rows) else Interval(np.nan, np.nan, np.nan)


def percent(value: Interval, digits: int = 1) -> str:
    """`54.0 % [45.1, 62.9]`; the interval is left out where it is not known, and 'not known' stands for no number."""
    if np.isnan(value.estimate):
        return "not known"
    text = f"{value.estimate:.{digits}f} %"
    text += f" [{value.low:.{digits}f}, {value.high:.{digits}f}]" if np.isfinite(value.low) else ""
    return text.replace("-", MINUS)


def _saved(row: Mapping[str, Any]) -> Interval:
    return Interval(*(row[name] for name in ("saved", "low", "high")))


def against_static(row: Mapping[str, Any]) -> str:
    """How the accuracy compares with networks without exits at the same cost: better, worse, alike or unknown."""
    if np.isnan(row["gain, low"]):
        return "unknown"
    return "better" if row["gain, low"] > 0 else "worse" if row["gain, high"] < 0 else "alike"


def reservation(frame: pd.DataFrame, titles: Titles) -> str:
    """Where the best way is not better than networks without exits at the same cost; empty if it is so everywhere."""
    rows = chosen(frame)
    said = []
    for verdict, words in (
        ("worse", "is less accurate than"),
        ("alike", "is not measurably better than"),
        ("unknown", "has not been compared often enough with"),
    ):
        at = [task for task, row in rows.iterrows() if against_static(row) == verdict]
        if at:
            gains = [_gain(rows.loc[task]) for task in at]
            numbers = f" (by {listed(gains)} points of accuracy)" if verdict != "unknown" else ""
            where = listed(titles[str(task)] for task in at)
            said.append(f"On {where} the best way {words} networks without exits at the same cost{numbers}.")
    return " ".join(said)


def _few(row: Mapping[str, Any], before: str) -> str:
    """What must stand beside a number of too few trainings for an interval, with the words before it; else nothing."""
    seeds = int(str(row["reached"]).rpartition(" ")[2])
    return f"{before}{trainings_in_words(seeds)}" if seeds < 3 else ""


def _gain(row: Mapping[str, Any]) -> str:
    """A gain with its interval."""
    value, low, high = (f"{row[key]:+.2f}" for key in ("gain", "gain, low", "gain, high"))
    return f"{value} [{low}, {high}]".replace("-", MINUS)


def answer(frame: pd.DataFrame, titles: Titles, unit: str = "flops") -> str:
    """What is saved one point below our own networks: the best way of each benchmark, T-RecX, smaller networks."""
    rows = chosen(frame)
    each = listed(
        f"{row['saved']:.1f} % on {titles[str(task)]} ({sizes_in_words(row['network'])}{_few(row, '; ')})"
        for task, row in rows.iterrows()
    )
    whole, paper, static = (mean(frame, way) for way in (CHOSEN, ROWS["trecx"], ROWS["static"]))
    return (
        f"The best way saves {percent(whole)} of the {UNITS[unit]['label']} on average: {each}. T-RecX saves "
        f"{percent(paper)}, smaller networks without exits {percent(static)}."
    )


def means(frame: pd.DataFrame, drop: float = 1) -> str:
    """What every way that all benchmarks have saves on average."""
    known = [(way, mean(frame, way, drop)) for way in ROWS.values()]
    return ", ".join(f"{way} {percent(value)}" for way, value in known if np.isfinite(value.estimate))


def price(frame: pd.DataFrame, here: Mapping[str, Benchmark], titles: Titles, unit: str = "flops") -> str:
    """What must be stored and what a single sample may cost with the best way, beside the unmodified network."""
    rows = chosen(frame)
    stored = [f"{_parameters(rows.loc[task], here[str(task)]):.0f} %" for task in rows.index]
    worst = [f"{rows.loc[task, 'worst case']:.0f} %" for task in rows.index]
    where = listed(titles[str(task)] for task in rows.index)
    return (
        f"The price on {where}: {listed(stored)} of the unmodified network's parameters, and a single sample may cost "
        f"{listed(worst)} of its {UNITS[unit]['label']}."
    )


def _parameters(row: Mapping[str, Any], benchmark: Benchmark) -> float:
    return 100 * row["parameters"] / benchmark.baseline[0].params


def sentence(frame: pd.DataFrame, here: Mapping[str, Benchmark], titles: Titles) -> str:
    """The result for pages that only name it: savings, price, and where it is no better than a smaller network."""
    rows = chosen(frame)
    each = listed(f"{row['saved']:.1f} % on {titles[str(task)]}{_few(row, ' in ')}" for task, row in rows.iterrows())
    most = max(_parameters(rows.loc[task], here[str(task)]) for task in rows.index)
    worst = rows["worst case"].max()
    text = (
        f"The best of other ways, chosen on validation, saves {percent(mean(frame))} for the same point: {each}. "
        f"It stores up to {most:.0f} % of the parameters, and one sample costs up to {worst:.0f} % of the FLOPs."
    )
    return f"{text} {reservation(frame, titles)}".strip()


def use(frame: pd.DataFrame, here: Mapping[str, Benchmark], titles: Titles) -> str:
    """What one would use for the fewest operations, a row a benchmark, with what it saves and its price (HTML)."""
    rows = []
    for task, row in chosen(frame).iterrows():
        network = before_the_baseline(sizes_in_words(row["network"])).replace(" first", "", 1)
        saved = percent(_saved(row)) + _few(row, ", ")
        price = [f"{_parameters(row, here[str(task)]):.0f} %", f"{row['worst case']:.0f} %"]
        rows.append([titles[str(task)], f"{row['way']}: {_lowered(network)}", saved, *price])
    head = ("benchmark", "what answers early", "FLOPs saved", "parameters", "dearest sample")
    top = "".join(f"<th>{name}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(text)}</td>' for text in row)}</tr>" for row in rows)
    table = f'<table class="table trecx-advice"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="trecx-scroll" role="region" tabindex="0" aria-label="What one would use">{table}</div>'


def taught(frame: pd.DataFrame, titles: Titles) -> str:
    """Rows of `trecx.analysis.beyond.taught` in words; empty without any."""
    return " ".join(
        f"On {titles[row['task']]} a trained network taught the small one. Taught in the same way, the unmodified "
        f"network has {row['taught']:.2f} % of the answers right in place of {row['untaught']:.2f} % "
        f"({trainings_in_words(row['trainings'])}). One point below that, "
        f"{sizes_in_words(row['network'].replace(', taught by the baseline', ''))}, both taught, saves "
        f"{percent(_saved(row))}."
        for row in frame.to_dict("records")
    )


def saved_on_average(frame: pd.DataFrame) -> str:
    """The last row of `trecx.analysis.beyond.cheaper_head`, the mean, with its price; 'not known' without one."""
    if frame.empty:
        return "not known"
    return f"{percent(_saved(frame.iloc[-1]))} for {frame['given up'].iloc[-1]:.2f} points on test"


def cheaper_head(frame: pd.DataFrame, titles: Titles) -> str:
    """Rows of `trecx.analysis.beyond.cheaper_head` in words; empty without any."""
    if frame.empty:
        return ""
    *tasks, mean = frame.to_dict("records")
    each = listed(f"{percent(_saved(row))} on {titles[row['task']]} ({row['own']:.1f} %)" for row in tasks)
    return (
        f"With it T-RecX saves {percent(_saved(mean))} on average, and gives up {mean['given up']:.2f} points on test. "
        f"The paper's T-RecX saves {mean['own']:.1f} %, and with the paper's head but no early view "
        f"{mean['no EV']:.1f} %. By benchmark, the paper's in brackets: {each}. It stores up to "
        f"{mean['parameters']:.0f} % of the unmodified network's parameters, and one sample costs up to "
        f"{mean['worst case']:.0f} % of what one costs there."
    )


def heads_alone(frame: pd.DataFrame, titles: Titles) -> str:
    """Rows of `trecx.analysis.beyond.heads_alone` in words; empty without any."""
    return " ".join(
        f"On {titles[row['task']]} the best exits are heads trained alone, on a trunk that stays as it was released. "
        f"To its end that has {row['released']:.2f} % of the answers right; our own unmodified network, all of it "
        f"trained further, has {row['trained']:.2f} %. One point below the former the exits save "
        f"{percent(_saved(row))}."
        for row in frame.to_dict("records")
    )


def nested(frame: pd.DataFrame, titles: Titles) -> str:
    """Rows of `trecx.analysis.beyond.nested` in words; empty without any."""
    said = []
    for row in frame.to_dict("records"):
        kept, _, trained = str(row["reached"]).partition(" of ")
        name = sizes_in_words(row["network"]).removeprefix("Nested").removeprefix(", ")
        saves = "nothing" if kept == "0" else percent(_saved(row))
        smaller = f", and a smaller one without exits that costs as much {row['smaller']:.2f} %"
        smaller = smaller if np.isfinite(row["smaller"]) else ""
        few = kept not in ("0", trained)
        missed = f", as {kept} of {trainings_in_words(int(trained))} keep the accuracy" if few else ""
        said.append(
            f"On {titles[row['task']]} a nested network{f' ({name})' if name else ''} saves {saves} for a point of "
            f"accuracy{missed}. All of it costs {row['cost']:.0f} % and has {row['whole']:.2f} % of the answers right. "
            f"The unmodified network has {row['unmodified']:.2f} %{smaller}."
        )
    return " ".join(said)


def mixed(shares: pd.DataFrame, tested: pd.DataFrame) -> str:
    """What mixing answers is, beside rows of `trecx.analysis.beyond.mixing_on_test`, which have what it saves."""
    if not len(tested):
        return "Nothing here: on no benchmark does validation choose to mix answers."
    others = shares[shares["way"] != ROWS["cascade"]]
    most = max((others[f"{share:g}"] - others["0"]).max() for share in SHARES) if len(others) else np.nan
    dearer = tested.pivot(index=["task", "drop"], columns="mixed", values="given up")
    return " ".join(
        [
            f"With answers mixed, what the second network says keeps a share of {MIX:g} of what the first one said; "
            f"nothing is trained for it. The table of mixed answers at the end of this page has what it saves on test.",
            *["Part of what it saves is accuracy that it gives up."] * bool((dearer["yes"] > dearer["no"]).any()),
            *[f"Within one network with exits no share adds more than {most:.1f} points on validation."]
            * bool(np.isfinite(most)),
        ]
    )


def gated(frame: pd.DataFrame, titles: Titles) -> str:
    """Rows of `trecx.analysis.gates.gates` in words: where a rule saves more or less than one threshold does."""
    if frame.empty:
        return "Nothing here: no network with exits was trained."
    said = []
    lost = frame.pivot(index=["task", "way"], columns="rule", values="given up")
    for rule, rows in frame[frame["rule"] != ONE].groupby("rule", sort=False):
        ahead, behind = rows[rows["more, low"] > 0], int((rows["more, high"] < 0).sum())
        most = ""
        if len(ahead):
            best = ahead.loc[ahead["more"].idxmax()]
            most = f", most with {_lowered(best['way'])} on {titles[best['task']]} ({_signed(best['more'], 1)})"
        said.append(
            f"{rule[0].upper()}{rule[1:]} saves measurably more with {len(ahead)} of the {len(rows)}{most}, and "
            f"measurably less with {behind}. On average it changes what they save by {_signed(rows['more'].mean(), 1)} "
            f"percentage points, and what they give up on test by {_signed((lost[rule] - lost[ONE]).mean())} points of "
            "accuracy."
        )
    return " ".join(said)


def _lowered(name: str) -> str:
    """A name inside a sentence; one such as T-RecX or SDN stays as it is."""
    return name[0].lower() + name[1:] if name[1:2].islower() else name


def _signed(value: float, digits: int = 2) -> str:
    """With its sign, which zero has none of."""
    rounded = round(value, digits) or 0.0
    return f"{rounded:{'+' if rounded else ''}.{digits}f}".replace("-", MINUS)


def depth_or_width(frame: pd.DataFrame, titles: Titles) -> str:
    """Rows of `trecx.analysis.beyond.width_over_depth` in words."""
    known = frame[frame["exits"] > 0]
    ahead, behind = known[known["gain"] > 0], known[known["gain"] <= 0]
    said = []
    for rows, beat in ((ahead, ("beats", "beat")), (behind, ("does not beat", "do not beat"))):
        for narrow, few in rows.groupby(rows["fewer"] != "pixels", sort=False):
            each = listed(f"{titles[row.task]} ({_signed(row.gain, 1)} points)" for row in few.itertuples())
            if narrow:
                said.append(f"Width {beat[0]} depth on {each}.")
            else:
                said.append(f"Fewer pixels {beat[1]} depth on {each}; no narrower network was trained alike there.")
    return " ".join(said) or "No exit in a trunk costs as much as a complete network that was trained."


def late_exits(frame: pd.DataFrame, titles: Titles) -> str:
    """Rows of `trecx.analysis.beyond.late_exits` in words."""
    each = [f"{_signed(row.gap, 1)} points on {titles[row.task]}" for row in frame.itertuples()]
    return listed(each) if each else "not known"


def readable(frame: pd.DataFrame, titles: Titles) -> pd.DataFrame:
    """A frame of `trecx.analysis.beyond` for a page: benchmarks and sizes in words."""
    frame = frame.rename(columns={"task": "benchmark"})
    frame["benchmark"] = frame["benchmark"].replace(dict(titles))
    for column in {"network", "method"} & {*frame}:
        frame[column] = frame[column].map(sizes_in_words)
    return frame


def unsaving(frame: pd.DataFrame) -> Sequence[int]:
    """Of rows of `trecx.analysis.beyond.tried`: how many there are, save less than a smaller network, save nothing."""
    known = frame[frame["static"].notna()]
    return len(frame), int((known["saved"] < known["static"]).sum()), int((frame["saved"] <= 0).sum())


START, END = "<!-- beyond -->", "<!-- /beyond -->"


def put_into(text: str, words: str) -> str:
    """A page with `words` between its two marks, which stay where they are."""
    return re.sub(f"(?<={START}).*?(?={END})", lambda _: words, text, flags=re.DOTALL)
