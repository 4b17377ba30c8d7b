"""Results runs in their groups, and the tables, differences and curves that come from such groups."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trecx import paths
from trecx.analysis import claims, compare, tables
from trecx.analysis.claims import CLAIMS, CONCAT_ALIKE, VERDICTS, Material
from trecx.analysis.saving import Saving
from trecx.analysis.wording import evidence_text
from trecx.errors import TrecxError
from trecx.evaluation import points
from trecx.evaluation.stats import mean_of_means
from trecx.experiments.records import Record, chosen_thresholds
from trecx.experiments.results import Results, published, settings_in_words
from trecx.experiments.runs import Run
from trecx.experiments.sweep import load
from trecx.models import methods
from trecx.report import figures
from trecx.report.provenance import origin, recipe_text, recipes
from trecx.report.style import style
from trecx.tasks import KWS

from .small import write_record

SWEEP = """
defaults: {task: kws, data: speech_commands, recipe: fast}
runs:
  - {seed: [0, 1], method: [baseline, trecx_ev, trecx_no_ev, trecx_no_transfer, trecx_concat, sdn]}
  - {seed: [0, 1], method: trecx_concat, w_early: 0.3}
  - {seed: [0, 1], method: [trecx_ev, trecx_no_ev], taps: [block1, block3]}
  - {method: baseline, width: [0.75, 0.875, 1.25]}
  - {method: trecx_ev, w_early: [0.1, 0.8]}
  - {method: trecx_no_ev, w_early: 0.5}
  - {method: trecx_ev, w_early: 0.1, taps: block3}
  - {method: trecx_ev, width: 0.5}
  - {method: trecx_ev, extra_classes: 1}
  - {method: sdn, taps: "block1,block3"}
  - {method: baseline, recipe: paper}
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep and a record of a few samples of each of its runs."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "toy.yaml").write_text(SWEEP)
    for run in load(folder / "toy.yaml"):
        write_record(run, folder / "published")
    return folder


@pytest.fixture(scope="module")
def runs(written: Path) -> list[Run]:
    """The runs of the sweep."""
    return load(written / "toy.yaml")


@pytest.fixture
def sweep(written: Path, runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The runs of the sweep, all published."""
    monkeypatch.setattr(paths, "SWEEPS", written)
    monkeypatch.setattr(paths, "PUBLISHED", written / "published")
    monkeypatch.setenv("TRECX_RECORDS", str(written / "records"))
    return runs


@pytest.fixture(scope="module")
def read(written: Path) -> Results:
    """The published sweep, read once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "SWEEPS", written)
        patch.setattr(paths, "PUBLISHED", written / "published")
        return published("toy")


@pytest.fixture
def found(sweep: list[Run], read: Results) -> Results:
    """The published sweep, for tests that change nothing in it."""
    return read


def names(groups: Any) -> dict[Any, list[str]]:
    return {key: [record.name for record in records] for key, records in groups.items()}


def test_every_run_is_in_the_group_of_what_was_varied(sweep: list[Run], found: Results) -> None:
    assert len(found.records) == len(sweep) == 33
    assert {key: len(records) for key, records in found.methods.items()} == dict.fromkeys(
        ("baseline", "trecx_ev", "trecx_no_ev", "trecx_no_transfer", "trecx_concat", "sdn"), 2
    )
    assert names(found.static) == {
        "width 0.75": ["kws-baseline-width0.75-fast14-seed0"],
        "width 0.875": ["kws-baseline-width0.875-fast14-seed0"],
    }
    assert {w: len(records) for w, records in found.weights.items()} == {KWS.w: 2, 0.1: 1, 0.8: 1}
    assert {m: {tap: len(r) for tap, r in taps.items()} for m, taps in found.places.items()} == {
        "trecx_ev": {"block1": 2, "block2": 2, "block3": 2},
        "trecx_no_ev": {"block1": 2, "block2": 2, "block3": 2},
        "trecx_no_transfer": {"block2": 2},
        "trecx_concat": {"block2": 2},
        "sdn": {"block1-block3": 1},
    }
    assert list(found.places["trecx_ev"]) == ["block1", "block2", "block3"]  # from the input on
    assert [record.name for record in found.extra_class] == ["kws-trecx_ev-extra1-fast14-seed0"]
    assert names(found.variants) == {
        "trecx_concat, w = 0.3": [f"kws-trecx_concat-w0.3-fast14-seed{seed}" for seed in (0, 1)],
        "trecx_no_ev, w = 0.5": ["kws-trecx_no_ev-w0.5-fast14-seed0"],
        "trecx_ev, w = 0.1, after block3": ["kws-trecx_ev-w0.1-tap-block3-fast14-seed0"],
        "trecx_ev, width 0.5": ["kws-trecx_ev-width0.5-fast14-seed0"],
        "baseline, width 1.25": ["kws-baseline-width1.25-fast14-seed0"],
        "baseline, recipe paper": ["kws-baseline-paper36-seed0"],
    }


def test_a_run_without_a_record_is_named(sweep: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Path(sweep[0].data) / sweep[0].name
    shutil.copytree(paths.PUBLISHED / first, tmp_path / first)
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path)
    said = f"32 of the 33 runs of sweep 'toy' have no published record, the first is {sweep[1].name}: run `python -m"
    with pytest.raises(TrecxError, match=re.escape(said)):
        published("toy")
    shutil.rmtree(tmp_path / first)
    with pytest.raises(TrecxError, match=r"33 of the 33 .* sweep toy --publish"):
        published("toy")


def test_provenance_counts_trainings_and_hours(found: Results) -> None:
    rows, note = origin(found.records, "published")
    assert len(rows) == 33
    assert rows[0] == {"source": "published", "data": "speech_commands", "sha256": "abc", "seed": 0}
    assert note == "33 trainings, 5.5 hours of one processor core together (a processor)."


def test_provenance_says_which_trainings_went_without_bfloat16(sweep: list[Run]) -> None:
    records = published("toy").records
    for record in records[:3]:
        record.manifest["arithmetic"] = "float32"  # asked for: bfloat16
    _, note = origin(records, "published")
    assert note.endswith("(a processor). 3 of them in float32, on a processor without bfloat16.")


def test_recipes_are_told_apart(found: Results) -> None:
    usual, other = recipes(found.records).items()
    assert not usual[0]
    assert "epochs 36 in place of 14, " in other[0]
    assert "optimizer adam in place of sgd" in other[0]
    assert other[1] == ["kws-baseline-paper36-seed0"]
    fast, paper = (
        recipe_text(records[0]) for records in (found.methods["baseline"], found.variants["baseline, recipe paper"])
    )
    assert fast.startswith(
        "14 epochs of one-cycle SGD (Nesterov momentum 0.9), batch 128, rate 0.2, weight decay 0.0002"
    )
    assert "time shift by up to 4 frames, gradients clipped at 2, weights copied in the first 80% of the epochs" in fast
    assert paper.startswith("36 epochs of stepped Adam, batch 100")
    assert "no augmentation" in paper


def test_recipe_text_says_what_a_recipe_leaves_out_and_adds(tmp_path: Path) -> None:
    text = recipe_text(write_record(Run("vww", "baseline", "vww96", "scratch"), tmp_path))
    assert text.startswith(
        "30 epochs of one-cycle Adam, batch 32, rate 0.008, no weight decay, resized crop of at least "
    )
    assert "averaged weights (decay 0.999 a step)" in text


def test_the_project_s_sweeps_have_distinct_runs_in_known_groups() -> None:
    runs = load(paths.SWEEPS / "speech_commands.yaml")
    assert len({run.name for run in runs}) == len(runs) == 99
    assert {run.data for run in runs} == {"speech_commands"}
    five = [run.method for run in runs if not settings_in_words(run, runs[0]) and run.seed == 4]
    ours = [
        "baseline",
        "baseline_ee",
        "trecx_concat",
        "trecx_ev",
        "trecx_no_ev",
        "trecx_no_transfer",
        "trecx_stride_first",
    ]
    assert sorted(five) == sorted([*ours, "branchynet", "branchynet_fair", "sdn", "sdn_fair"])


def test_variants_have_labels_looks_and_rows_of_their_own(found: Results) -> None:
    groups = found.methods | {CONCAT_ALIKE: found.variants[CONCAT_ALIKE]}
    assert methods.label_of(CONCAT_ALIKE) == "EE-fmaps concat, w = 0.3"
    assert style(CONCAT_ALIKE)["color"] == style("trecx_concat")["color"]
    assert style(CONCAT_ALIKE) != style("trecx_concat")
    alone = tables.standalone(groups, "kws", with_paper=True)
    assert (alone["method"] == "EE-fmaps concat, w = 0.3").sum() == 2
    points = tables.method_points(groups, "kws", groups["baseline"], with_paper=False, drops=(1,))
    assert {"trecx_concat", CONCAT_ALIKE} < set(points["method"])
    assert "EE-fmaps concat, w = 0.3" in set(tables.readable(tables.mean_points(points))["method"])
    rows = compare.differences(groups, [("trecx_ev", CONCAT_ALIKE), ("trecx_ev", "branchynet")])
    assert rows["minus"].tolist() == ["EE-fmaps concat, w = 0.3"] * 2
    assert rows["exit"].tolist() == ["early", "final"]
    figure = figures.benefit_curves(groups, target=50.0, static=found.static)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert "EE-fmaps concat, w = 0.3" in labels
    assert len(figure.axes[0].texts) == 2  # the two narrower networks
    assert figures.confidence_violins({"trecx_ev": groups["trecx_ev"], CONCAT_ALIKE: groups[CONCAT_ALIKE]}).axes


def test_tables_from_groups(found: Results) -> None:
    listed = tables.trainings(found.methods, found.static, "ic")
    assert listed["network"].tolist()[-1] == "Baseline, width 0.875"
    assert listed.set_index("network").loc["T-RecX", "MFLOPs at each exit"] == "3.13 / 5.65"
    weights = tables.loss_weights(found.weights)
    assert weights["w"].tolist() == [0.1, 0.3, 0.8]
    record = found.weights[0.8][0]
    assert weights.iloc[2]["final, validation"] == 100 * record.accuracies("val")[1]
    two = {m: found.places[m] for m in ("trecx_ev", "trecx_no_ev")}
    places = tables.places(two)
    assert places["exit after"].tolist() == ["block1", "block2", "block3"] * 2
    assert places["cost of the early exit"][:3].is_monotonic_increasing
    saved = tables.place_points(two, "kws", found.methods["baseline"])
    assert saved[["method", "exit after"]].to_numpy().tolist() == [
        [method, f"block{k}"] for method in two for k in (1, 2, 3)
    ]
    assert {"reduction", "low", "high", "reached"} <= set(saved)


def test_the_last_exit_is_the_final_one_where_there_are_several(sweep: list[Run]) -> None:
    found = published("toy")
    (three,) = found.places["sdn"]["block1-block3"]
    frame = tables.places({"trecx_ev": found.places["trecx_ev"], "sdn": found.places["sdn"]})
    assert [*frame][2:] == ["cost of the early exit", "cost of exit 2", "early", "exit 2", "final", "seeds"]
    row = frame.iloc[-1]
    assert len(three.accuracies()) == 3
    assert row[["early", "exit 2", "final"]].tolist() == pytest.approx((100 * three.accuracies()).tolist())
    costs = [cost / 1e6 for cost in three.manifest["cost"]["flops"]]
    assert row[["cost of the early exit", "cost of exit 2"]].tolist() == pytest.approx(costs[:2])
    assert frame.loc[frame["method"] == "T-RecX", ["exit 2", "cost of exit 2"]].isna().all(axis=None)


def test_savings_of_places_are_compared_by_seed(tmp_path: Path) -> None:
    def records(method: str, accuracy: float, *taps: str) -> list[Record]:
        runs = [Run("kws", method, "speech_commands", "fast", seed, taps=taps or None) for seed in (0, 1, 2)]
        return [write_record(run, tmp_path, n=300, accuracy=accuracy) for run in runs]

    base = records("baseline", 0.7)
    places = {"block1": records("trecx_ev", 0.75, "block1"), "block2": records("trecx_ev", 0.75)}
    row = compare.place_savings({"trecx_ev": places}, "kws", base).iloc[0]
    target = np.mean([b.accuracies("val")[-1] for b in base]) - 0.01
    full = base[0].manifest["cost"]["flops"][-1]
    first, second = (
        np.array([points.chosen_point(r.trace("val"), r.trace("test"), target, None, full).reduction for r in group])
        for group in places.values()
    )
    more = 100 * (first - second)
    assert (row["exit after"], row["minus"], row["reached"]) == ("block1", "block2", "3 of 3")
    assert row["saved more"] == pytest.approx(more.mean())
    half = 4.3027 * more.std(ddof=1) / np.sqrt(3)  # Student's t, two degrees of freedom
    assert (row["low"], row["high"]) == pytest.approx((more.mean() - half, more.mean() + half), rel=1e-4)


def test_later_places_against_earlier_ones(found: Results) -> None:
    rows = compare.place_differences({"trecx_ev": found.places["trecx_ev"]})
    finals = rows[rows["exit"] == "final"]
    assert finals[["exit after", "minus"]].to_numpy().tolist() == [
        ["block2", "block1"],
        ["block3", "block1"],
        ["block3", "block2"],
    ]
    taps = found.places["trecx_ev"]
    expected = np.mean(
        [100 * (b.accuracies()[1] - a.accuracies()[1]) for a, b in zip(taps["block1"], taps["block3"], strict=True)]
    )
    assert finals["difference"].iloc[1] == pytest.approx(expected)
    assert figures.placement(taps, ()).axes
    assert len(figures.placement_curves(taps, found.methods["baseline"]).axes[0].get_legend().get_texts()) == 4


def test_classes_and_thresholds(found: Results) -> None:
    records = found.methods["trecx_ev"]
    thresholds = chosen_thresholds(records)
    assert all(0 <= t <= 1 for t in thresholds)
    assert chosen_thresholds(records, records, drop=1) != [2.0, 2.0]
    frame = tables.by_class(records, thresholds, KWS.classes)
    assert frame["class"].tolist() == list(KWS.classes)
    share = frame["clips"] / frame["clips"].sum()
    both = np.mean([r.trace().outcome(t)[0].mean() for r, t in zip(records, thresholds, strict=True)])
    assert (share * frame["with early exit"]).sum() == pytest.approx(100 * both)
    assert (share * frame["final exit"]).sum() == pytest.approx(100 * np.mean([r.accuracies()[1] for r in records]))


def test_verdicts_on_transfer_and_place_use_paired_differences(found: Results) -> None:
    groups = found.methods | {CONCAT_ALIKE: found.variants[CONCAT_ALIKE]}
    material = Material({"kws": groups}, placement=found.places["trecx_ev"])
    verdicts = {claim: CLAIMS[claim](material) for claim in ("C2", "C3", "C4", "C5", "C6", "C7", "C10")}
    assert all(finding is not None and finding.verdict in VERDICTS for finding in verdicts.values())
    assert "under the same loss weight" in str(verdicts["C7"])
    assert "block2 minus block1" in str(verdicts["C10"])
    without = Material({"kws": found.methods})
    assert "same loss weight" not in str(CLAIMS["C7"](without))
    assert CLAIMS["C10"](without) is None


def test_place_is_reproduced_only_if_every_step_is_surely_positive(tmp_path: Path) -> None:
    def place(tap: str, accuracy: float) -> list[Record]:
        runs = [Run("kws", "trecx_ev", "speech_commands", "fast", seed, taps=(tap,)) for seed in (0, 1, 2)]
        return [write_record(run, tmp_path / str(accuracy), n=300, accuracy=accuracy) for run in runs]

    rising = {tap: place(tap, a) for tap, a in (("block1", 0.3), ("block2", 0.6), ("block3", 0.9))}
    falling = dict(zip(rising, [*rising.values()][::-1], strict=True))
    level = {tap: place(tap, 0.6) for tap in ("block1", "block3")}
    expected = ((rising, "reproduced"), (falling, "contradicted"), (level, "not settled"))
    for places, verdict in expected:
        finding = CLAIMS["C10"](Material({}, placement=places))
        assert finding is not None
        assert finding.verdict == verdict


@pytest.mark.parametrize(
    ("accuracy", "saved", "verdict"),
    [
        (0.8, [32.0, np.nan, 30.0], "not settled"),  # one seed misses; the paper saves 30.4
        (0.8, [np.nan] * 3, "not settled"),
        (0.8, [9.0, np.nan, 11.0], "contradicted"),  # the others save too little
        (0.8, [9.0, 8.0, 11.0], "partly"),  # a saving, but surely less than the paper's
        (0.8, [29.0, 28.0, 30.0], "reproduced"),
        (0.5, [np.nan] * 3, "contradicted"),  # the final exit is surely not as accurate as the baseline
    ],
)
def test_a_missed_accuracy_settles_nothing_where_chance_may_have_missed_it(
    accuracy: float, saved: list[float], verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = {"baseline": 0.8, "trecx_ev": accuracy}
    group = {
        method: [
            write_record(Run("kws", method, "speech_commands", "fast", s), tmp_path, 300, level) for s in (0, 1, 2)
        ]
        for method, level in levels.items()
    }
    found = Saving(tuple(saved), mean_of_means([np.nan_to_num(saved)]))
    monkeypatch.setattr(claims, "saving", lambda *a: found)
    finding = CLAIMS["C5"](Material({"kws": group}))
    assert finding is not None
    assert finding.verdict == verdict


def test_a_null_result_says_whether_it_excludes_what_the_paper_found(tmp_path: Path) -> None:
    def told(samples: int) -> str:
        folder = tmp_path / str(samples)

        def records(method: str) -> list[Record]:
            runs = [Run("kws", method, "speech_commands", "fast", seed) for seed in range(5)]
            return [write_record(run, folder, samples, accuracy=0.97) for run in runs]

        group = {method: records(method) for method in ("trecx_ev", "trecx_no_ev")}
        finding = CLAIMS["C6"](Material({"kws": group}))
        assert finding is not None
        return evidence_text(finding)

    assert "(paper +0.9)" in told(60)
    assert "(paper +0.9, excluded)" in told(4_000)


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [((0.9, 0.6, 0.3), "reproduced"), ((0.6, 0.9, 0.3), "partly"), ((0.3, 0.6, 0.9), "contradicted")],
)
def test_joined_maps_have_to_lie_between(accuracies: tuple[float, ...], verdict: str, tmp_path: Path) -> None:
    """Claim C7: copying beats joining the maps, which beats not copying."""
    methods = (("trecx_ev", None), ("trecx_concat", KWS.w), ("trecx_no_transfer", None))
    group = {
        CONCAT_ALIKE if w else method: [
            write_record(Run("kws", method, "speech_commands", "fast", seed, w_early=w), tmp_path, 300, accuracy)
            for seed in range(4)
        ]
        for (method, w), accuracy in zip(methods, accuracies, strict=True)
    }
    group["trecx_concat"] = group[CONCAT_ALIKE]
    finding = CLAIMS["C7"](Material({"kws": group}))
    assert finding is not None
    assert finding.verdict == verdict


@pytest.mark.slow
def test_examples_are_the_surest_and_the_least_sure_of_a_record(found: Results) -> None:
    (record, _) = found.methods["trecx_ev"]
    labels, scores = record.predictions["test_labels"], record.trace().scores[:, 0]
    figure = figures.examples(np.zeros((len(labels), 49, 10, 1)), labels, record, KWS.classes, n=3)
    shown = [ax.get_title().split("\n") for ax in figure.axes]
    assert shown[0] == [KWS.classes[labels[scores.argmax()]], f"{scores.max():.2f}"]
    assert shown[3] == [KWS.classes[labels[scores.argmin()]], f"{scores.min():.2f}"]
    assert len({name for name, _ in shown[:3]}) == 3
