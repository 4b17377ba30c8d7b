"""Findings in English: the last column of the table of claims."""

import re
from collections.abc import Callable, Iterable
from fractions import Fraction

import numpy as np

from trecx.analysis.compare import shown
from trecx.analysis.findings import Evidence, Finding
from trecx.tasks import TASKS

MINUS = "\N{MINUS SIGN}"


def evidence_text(finding: Finding) -> str:
    """The evidence of a finding and its notes, in one line."""
    return "; ".join([WORDING[finding.claim](finding), *finding.notes])


def points_in_words(points: float) -> str:
    """A number of percentage points for running text: `one point`, `three points`."""
    return _counted(points, "point")


def trainings_in_words(number: int) -> str:
    """A number of trainings for running text: `one training`, `12 trainings`."""
    return _counted(number, "training")


def _counted(number: float, thing: str) -> str:
    words: dict[float, str] = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
    return f"{words.get(number, f'{number:g}')} {thing}{'s' * (number != 1)}"


def share_in_words(percent: float) -> str:
    """A share for running text: `half`, `99 %`."""
    return "half" if percent == 50 else f"{percent:g} %"


def listed(words: Iterable[str]) -> str:
    """`a, b and c`."""
    *some, last = words
    return f"{', '.join(some)} and {last}" if some else last


def sizes_in_words(label: str) -> str:
    """The name of a setting with its sizes in words: '5/8 of the filters' for 'width 0.625'.

    'resolution 64' is '64 × 64 pixels', 'layer4 and layer8' 'layers 4 and 8', three or more in a row 'layers 4 to 8';
    several widths, as a nested network has them, stay together. Of a network with fewer exits than it was trained with,
    those that it was trained with are left out.
    """

    def filters(found: re.Match[str]) -> str:
        widths = [str(Fraction(width).limit_denominator(64)) for width in found[1].split(", ")]
        return f"{' and '.join(widths)} of the filters"

    def stages(found: re.Match[str]) -> str:
        numbers = [int(number) for number in re.findall(r"\d+", found[0])]
        in_a_row = len(numbers) > 2 and numbers == [*range(numbers[0], numbers[-1] + 1)]
        said = f"{numbers[0]} to {numbers[-1]}" if in_a_row else listed(map(str, numbers))
        return f"{found[1]}{'s' * (len(numbers) > 1)} {said}"

    label = re.sub(r", after [^ ,]+(?=.*, (?:exits?|no exit)\b)", "", label)
    label = re.sub(r"\b(layer|block|stack)\d+(?:(?:, |-| and )\1\d+)*", stages, label)
    label = re.sub(r"\bwidths? ((?:\d?\.?\d+)(?:, \d?\.?\d+)*)", filters, label)
    return re.sub(r"\bresolution (\d+)", r"\1 × \1 pixels", label)


def before_the_baseline(label: str) -> str:
    """The name of a cascade without its second network, if that is the unmodified one."""
    return label.replace(", then the baseline", "")


def _each(evidence: Iterable[Evidence], text: Callable[[Evidence], str]) -> str:
    return ", ".join(f"{item.label} {text(item)}" for item in evidence)


def _shown(item: Evidence) -> str:
    return shown(item.interval)


def _beside(item: Evidence) -> str:
    """A difference and the paper's, which its interval may exclude."""
    return f"{shown(item.interval)} (paper {item.paper:+.1f}{', excluded' * item.outside})"


def _thousandths(item: Evidence) -> str:
    return f"{item.estimate:+.3f} [{item.low:+.3f}, {item.high:+.3f}]"


def _percent(item: Evidence, digits: int = 0) -> str:
    return f"{item.estimate:.{digits}f} %"


def in_a_line(item: Evidence) -> str:
    """One number behind a verdict in short sentences: the paper's, ours with its interval, the verdict."""
    signed, digits = ("+", 2) if item.unit == "points" else ("+", 3) if not item.unit else ("", 1)
    unit = " %" if item.unit == "%" else ""

    def number(value: float) -> str:
        return f"{value:{signed}.{digits}f}".replace("-", MINUS)

    if np.isnan(item.estimate):
        return "No mean cost that both can have." if item.by_seed else "Not reached by every seed."
    beside = np.isfinite(item.paper) and item.verdict != "not testable here"
    said = f"The paper: {number(item.paper)}{unit}. " if beside else ""
    ours = f"We: {number(item.estimate)}{unit}"
    if np.isfinite(item.low):
        ours += f" [{number(item.low)}, {number(item.high)}]"
    missed = int(np.isnan(item.by_seed).sum()) if item.measure.startswith("FLOPs saved") and item.by_seed else 0
    reached = f" ({len(item.by_seed) - missed} of {len(item.by_seed)} seeds reach the accuracy)" if missed else ""
    return f"{said}{ours}{reached}." + f" {item.verdict.capitalize()}." * bool(item.verdict)


def _counts(finding: Finding) -> str:
    worst = max(abs(item.estimate / item.paper - 1) for item in finding.evidence)
    return f"{len(finding.evidence)} printed counts, the largest difference is {100 * worst:.2f} %"


def _baselines(finding: Finding) -> str:
    return _each(finding.evidence, lambda item: f"{_percent(item, 2)} (paper {item.paper})")


def _gains(finding: Finding) -> str:
    (measure,) = finding.measures()
    return f"{measure}, points: {_each(finding.evidence, _beside)}"


def _savings(finding: Finding) -> str:
    (measure, ours), (_, tested) = finding.measures().items()
    by_paper = {item.label: item for item in tested}

    def text(item: Evidence) -> str:
        seeds = ", ".join("missed" if np.isnan(value) else f"{value:.1f}" for value in item.by_seed)
        saved = _percent(item, 1)
        saved += f" [{item.low:.1f}, {item.high:.1f}]".replace("-", MINUS) if np.isfinite(item.low) else ""
        other = by_paper[item.label]
        under_theirs = _percent(other, 1) if np.isfinite(other.estimate) else "not reached"
        return f"{saved} (by seed {seeds}; paper protocol {under_theirs}; paper {item.paper} %)"

    mean = f"mean {np.mean([item.estimate for item in ours]):.1f} %"
    nothing = ", a miss saves nothing" if any(np.isnan(item.by_seed).any() for item in ours) else ""
    said = f"{measure}, threshold from validation{nothing}: {_each(ours, text)}"
    return said + f"; {mean}" * (len(ours) > 1)


def _early_view(finding: Finding) -> str:
    (measure, gains), (share, ahead) = finding.measures().items()
    return f"{measure}, points: {_each(gains, _beside)}; {share}: {_each(ahead, _percent)}"


def _transfer(finding: Finding) -> str:
    curve, first, *others, last = finding.evidence
    parts = [f"{first.measure} {_shown(first)}"]
    parts += [f"{item.measure.removeprefix('transfer ')} {_shown(item)}" for item in others]
    over_curve = f"{curve.measure}, points: {shown(curve.interval)} (paper {curve.paper:+.2f})"
    return f"{over_curve}; final exit, points: {'; '.join(parts)}; that {last.measure} {_shown(last)}"


def _confidences(finding: Finding) -> str:
    higher, narrower = finding.evidence
    (mean, their_mean), (width, their_width) = higher.sides, narrower.sides
    return (
        f"{higher.measure} {mean:.3f} against {their_mean:.3f}, {_thousandths(higher)}; {narrower.measure} "
        f"{width:.3f} against {their_width:.3f}, narrower by {_thousandths(narrower)}; the plain exit was trained "
        f"with loss weight 1, T-RecX with {TASKS['ic'].w:g}, as in the authors' code"
    )


def _prior_work(finding: Finding) -> str:
    (measure, ahead), (_, parameters) = finding.measures().items()

    def text(curve: Evidence, size: Evidence) -> str:
        by_seed = f" (by seed {', '.join(f'{value:.0f}' for value in curve.by_seed)})" * (len(curve.by_seed) > 1)
        share = f"{_percent(curve)}{by_seed}" if np.isfinite(curve.estimate) else _apart(*curve.sides)
        fewer = "fewer" if size.estimate >= 0 else "more"
        return f"{curve.label} {share}, {abs(size.estimate):.1f} % {fewer} parameters"

    return f"{measure}: {'; '.join(text(*pair) for pair in zip(ahead, parameters, strict=True))}"


def _apart(ours: float, theirs: float) -> str:
    """Two benefit curves without a cost in common, by the ends that face each other (MFLOPs)."""
    if theirs > ours:
        return f"no common range, its cheapest answer costs more ({theirs:.2f} MFLOPs) than T-RecX as a whole"
    return f"no common range, as a whole it costs less ({theirs:.2f} MFLOPs) than T-RecX's early exit alone"


def _place(finding: Finding) -> str:
    (measure, finals), (_, steps) = finding.measures().items()
    return f"{measure}: {_each(finals, lambda item: _percent(item, 2))}; points: {_each(steps, _shown)}"


def _int8(finding: Finding) -> str:
    smaller = ", ".join(f"{item.measure} {item.estimate:.1f} %" for item in finding.evidence)
    return (
        f"{smaller} smaller, a count of bytes (paper {finding.evidence[0].paper} %, of a file that also holds a graph)"
    )


WORDING: dict[str, Callable[[Finding], str]] = {
    "C1": _counts,
    "C2": _baselines,
    "C3": _gains,
    "C4": _savings,
    "C5": _savings,
    "C6": _early_view,
    "C7": _transfer,
    "C8": _confidences,
    "C9": _prior_work,
    "C10": _place,
    "C11": _gains,
    "C12": _int8,
}
