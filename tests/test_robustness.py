"""Robustness of keyword spotting on made-up audio, and on real clips where the reference material is there."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from trecx import paths
from trecx.cli import main
from trecx.data.mfcc import RATE, mfcc
from trecx.errors import TrecxError
from trecx.evaluation.trace import Trace
from trecx.experiments import robustness
from trecx.experiments.records import Record, chosen_thresholds
from trecx.experiments.robustness import CONDITIONS, SILENCE, UNKNOWN, Condition
from trecx.experiments.runs import Run
from trecx.report import figures
from trecx.tasks import KWS
from trecx.training.weights import save_weights

from .small import WORDS, write_audio, write_record, write_wav


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_audio(tmp_path_factory.mktemp("audio"))


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    """Untrained networks as records with weights."""
    root = tmp_path_factory.mktemp("published")
    found = {}
    for method in ("baseline", "trecx_ev", "sdn"):
        for seed in (0, 1):
            run = Run("kws", method, "speech_commands", "fast", seed)
            found[f"{method} {seed}"] = record = write_record(run, root, n=120)
            save_weights(run.network(), record.weights)
    return found


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRECX_RECORDS", str(tmp_path / "records"))
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "published")
    return tmp_path


# --- reading


def test_clips_in_folders_by_word(audio: Path) -> None:
    clips = robustness.read_clips(audio)
    assert clips.waves.shape == (20, RATE)
    assert clips.waves.dtype == np.float32
    assert sorted(set(clips.labels)) == sorted([KWS.classes.index(w) for w in WORDS] + [SILENCE, UNKNOWN])
    assert list(clips.noise) == ["hiss.wav", "hum.wav"]
    assert not clips.waves[list(clips.names).index("yes/3.wav"), RATE - 300 :].any()  # padded
    assert np.abs(clips.waves).max() == pytest.approx(0.3, abs=0.01)
    fewer = robustness.read_clips(audio, per_class=2, seed=1)
    assert np.bincount(fewer.labels).max() == 2
    assert set(fewer.names) < set(clips.names)
    assert fewer.names != robustness.read_clips(audio, per_class=2, seed=2).names
    assert robustness.read_clips(audio, per_class=0).sha256 == clips.sha256 != fewer.sha256


def test_clips_of_the_unpacked_main_archive_are_those_of_its_testing_list(audio: Path, tmp_path: Path) -> None:
    for name in ("yes", "_background_noise_"):
        shutil.copytree(audio / name, tmp_path / name)
    shutil.copytree(audio / "_unknown_", tmp_path / "bed")
    (tmp_path / "testing_list.txt").write_text("bed/1.wav\nyes/0.wav\nyes/2.wav\n")
    (tmp_path / "validation_list.txt").write_text("yes/1.wav\n")
    clips = robustness.read_clips(tmp_path)
    assert set(clips.names) == {"bed/1.wav", "yes/0.wav", "yes/2.wav"}
    assert clips.labels[list(clips.names).index("bed/1.wav")] == UNKNOWN


def test_noise_may_lie_elsewhere(audio: Path, tmp_path: Path) -> None:
    shutil.copytree(audio / "yes", tmp_path / "yes")
    with pytest.raises(TrecxError, match=r"no background noise in .*_background_noise_"):
        robustness.read_clips(tmp_path)
    assert len(robustness.read_clips(tmp_path, audio / "_background_noise_").labels) == 4


def test_what_is_no_audio_is_told_in_one_sentence(audio: Path, tmp_path: Path) -> None:
    with pytest.raises(TrecxError, match="is no folder"):
        robustness.read_clips(tmp_path / "none")
    with pytest.raises(TrecxError, match="no spoken words in"):
        robustness.read_clips(tmp_path, audio / "_background_noise_")
    write_wav(tmp_path / "yes" / "slow.wav", np.zeros(8000), rate=8000)
    with pytest.raises(TrecxError, match=r"slow\.wav is no 16-bit recording at 16 kHz with one channel \(\(8000, 1"):
        robustness.read_clips(tmp_path, audio / "_background_noise_")
    (tmp_path / "yes" / "slow.wav").write_bytes(b"RIFF")
    with pytest.raises(TrecxError, match=r"slow\.wav is no 16-bit recording"):
        robustness.read_clips(tmp_path, audio / "_background_noise_")
    write_wav(tmp_path / "yes" / "slow.wav", np.zeros(8000))
    whole = (tmp_path / "yes" / "slow.wav").read_bytes()
    (tmp_path / "yes" / "slow.wav").write_bytes(whole[:-2001])
    with pytest.raises(TrecxError, match=r"slow\.wav is no .*ends too early: of 8000 samples 6999 are there"):
        robustness.read_clips(tmp_path, audio / "_background_noise_")
    (tmp_path / "yes" / "slow.wav").unlink()
    (tmp_path / "testing_list.txt").write_text("yes/gone.wav\n")
    with pytest.raises(TrecxError, match=r"gone\.wav is no 16-bit recording .*No such file"):
        robustness.read_clips(tmp_path, audio / "_background_noise_")


# --- conditions


def test_shift_moves_by_milliseconds_and_mirrors_the_edge() -> None:
    waves = np.arange(RATE, dtype=np.float32)[None]
    later, earlier = robustness.shifted(waves, 100), robustness.shifted(waves, -100)
    assert later.shape == earlier.shape == waves.shape
    np.testing.assert_array_equal(later[0, 1600:], waves[0, :-1600])
    np.testing.assert_array_equal(later[0, :1600], waves[0, 1600:0:-1])
    np.testing.assert_array_equal(earlier[0, :-1600], waves[0, 1600:])
    np.testing.assert_array_equal(earlier[0, -1600:], waves[0, -2:-1602:-1])
    assert robustness.shifted(waves, 0) is waves


@pytest.mark.parametrize("db", [20.0, 0.0, -10.0])
def test_noise_has_the_power_asked_for_and_silence_that_of_a_middling_word(db: float) -> None:
    draw = np.random.default_rng(0)
    waves = (draw.normal(size=(4, RATE)) * np.array([[0.1], [0.2], [0.3], [0.0]])).astype(np.float32)
    noise = (0.01 * draw.normal(size=(4, RATE))).astype(np.float32)
    added = robustness.mixed(waves, noise, db, np.array([False, False, False, True])) - waves
    power = np.mean(waves**2, axis=1)
    ratio = 10 * np.log10(np.array([*power[:3], np.median(power[:3])]) / np.mean(added**2, axis=1))
    np.testing.assert_allclose(ratio, db, atol=0.01)


def test_conditions_repeat_under_their_seed_and_levels_share_their_noise(audio: Path) -> None:
    clips = robustness.read_clips(audio)
    loud, quiet = (robustness.under(clips, Condition("noise", db))[0] - clips.waves for db in (0, 20))
    np.testing.assert_allclose(loud, 10 * quiet, atol=1e-4)
    for condition in CONDITIONS:
        waves, labels = robustness.under(clips, condition)
        assert waves.shape == clips.waves.shape
        assert np.isfinite(waves).all()
        np.testing.assert_array_equal(waves, robustness.under(clips, condition)[0])
        expected = {"background": SILENCE, "babble": UNKNOWN}.get(condition.kind)
        assert (labels == (clips.labels if expected is None else expected)).all()
    other = robustness.under(clips, Condition("noise", 0), seed=1)[0]
    assert not np.array_equal(other, clips.waves + loud)
    assert len({condition.name for condition in CONDITIONS}) == len(CONDITIONS)


def test_babble_needs_unknown_words_and_noise_must_be_long_enough(audio: Path) -> None:
    clips = robustness.read_clips(audio)
    keep = clips.labels != UNKNOWN
    words = robustness.Clips(clips.waves[keep], clips.labels[keep], clips.names[: keep.sum()], clips.noise)
    with pytest.raises(TrecxError, match="babble needs clips of unknown words"):
        robustness.under(words, Condition("babble"))
    short = robustness.Clips(clips.waves, clips.labels, clips.names, {"a": np.zeros(RATE - 1, np.float32)})
    with pytest.raises(TrecxError, match="a second or more"):
        robustness.under(short, Condition("background"))


# --- measuring


def test_table_follows_from_log_probabilities(records: dict[str, Record]) -> None:
    record = records["trecx_ev 0"]
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 5)
    logits = draw.normal(size=(60, 2, 12)) * 3
    log_probs = logits - np.log(np.exp(logits).sum(2, keepdims=True))
    table, arrays, chosen = robustness.measure(record, [Condition("clean")], [log_probs], [labels])
    (threshold,) = chosen_thresholds([record])
    assert chosen["threshold"] == threshold
    assert table["clips"].tolist() == ["all", "words", "silence"]
    row = table.iloc[0]
    trace = Trace.from_log_probs(log_probs, labels, record.manifest["cost"]["flops"])
    right, cost = trace.outcome(threshold)
    early = trace.leave(threshold) == 0
    assert row["accuracy"] == right.mean()
    assert row["cost"] == cost.mean()
    assert row["exit_rate"] == early.mean()
    assert row["early_accuracy"] == pytest.approx(trace.correct[early, 0].mean())
    assert row["final_on_early"] == pytest.approx(trace.correct[early, 1].mean())
    assert row["wrong_early"] == (early & ~trace.correct[:, 0]).mean()
    assert row["avoidable"] == (early & ~trace.correct[:, 0] & trace.correct[:, 1]).mean()
    assert row["keyword_final"] == (logits[:, 1].argmax(1) < 10).mean()
    assert table["n"].tolist() == [60, 55, 5]
    assert arrays["confidence"].shape == (1, 60, 2)


def test_words_taken_for_silence_are_counted() -> None:
    """Five clips: three words of which two leave early and wrong, one of them as silence; silence itself does not."""
    outputs = {
        "labels": np.array([[0, 1, 2, SILENCE, SILENCE]]),
        "taken": np.array([[0, 0, 1, 0, 0]]),
        "predicted": np.array([[[SILENCE, 0], [3, 1], [9, SILENCE], [SILENCE, 4], [4, 4]]]),
    }
    record = SimpleNamespace(manifest={"conditions": ["loud"]}, outputs=outputs)
    wrong, words = robustness.silenced([record], "loud")  # type: ignore[list-item]
    assert wrong == pytest.approx(100 / 3)  # silence, word 3, and the silence that is taken for a word
    assert words == pytest.approx(200 / 3)


@pytest.mark.slow
def test_records_from_weights_to_the_page(records: dict[str, Record], audio: Path, folders: Path) -> None:
    clips = robustness.read_clips(audio)
    found = robustness.evaluate_robustness([*records.values()], clips, publish=True)
    by_name = dict(zip(records, found, strict=True))
    one = by_name["trecx_ev 0"]
    assert one.folder == paths.PUBLISHED / "speech_commands" / "robustness" / "kws-trecx_ev-fast14-seed0"
    assert sorted(f.name for f in one.folder.iterdir()) == sorted(robustness.FILES)
    assert one.table["condition"].drop_duplicates().tolist() == [c.name for c in CONDITIONS]
    assert one.manifest["clips"]["by_class"]["yes"] == 4
    assert one.manifest["record"]["weights"] == hashlib.sha256(records["trecx_ev 0"].weights.read_bytes()).hexdigest()
    assert "CC BY 4.0" in one.manifest["clips"]["source"]
    everything = one.table[one.table["clips"] == "all"]
    np.testing.assert_allclose(one.hits().mean(1), everything["accuracy"], atol=1e-5)
    np.testing.assert_allclose(one.hits(0).mean(1), everything["accuracy_1"], atol=1e-5)
    baseline = by_name["baseline 0"].table
    assert (baseline["exit_rate"] == 0).all()
    assert baseline["early_accuracy"].isna().all()
    np.testing.assert_allclose(baseline["accuracy"], baseline["accuracy_1"])
    assert {"accuracy_4", "ece_scaled_4"} < set(by_name["sdn 0"].table)

    pair = [by_name["trecx_ev 0"], by_name["trecx_ev 1"]]
    base = [by_name["baseline 0"], by_name["baseline 1"]]
    mean = robustness.summary(pair)
    assert mean["condition"].tolist() == [c.name for c in CONDITIONS]
    both = [r.table[r.table["clips"] == "all"]["exit_rate"].to_numpy() for r in pair]
    np.testing.assert_allclose(mean["exit_rate"], np.mean(both, axis=0))
    gain = robustness.gain(pair, base)
    np.testing.assert_allclose(gain["difference"], gain["ours"] - gain["theirs"], atol=1e-9)
    assert (gain["low"] <= gain["difference"]).all()
    assert gain["seeds"].unique().tolist() == [2]
    with pytest.raises(TrecxError, match="no seed in common"):
        robustness.gain(pair[:1], base[1:])
    fewer = robustness.evaluate_robustness([records["baseline 0"]], robustness.read_clips(audio, per_class=2))
    with pytest.raises(TrecxError, match="other clips or noise"):
        robustness.gain(pair[:1], fewer)

    gates = robustness.gates(pair, ["clean", "babble only"], [0.0, None, 1.0])
    assert gates["threshold"].tolist() == ["0", "0", "its own", "its own", "1", "1"]
    assert (gates["leaves early"][:2] == 100).all()
    assert (gates["leaves early"][4:] == 0).all()
    assert gates["right among these"][4:].isna().all()
    np.testing.assert_allclose(gates["accuracy"][4:], gates["final exit"][4:])
    assert gates["accuracy"][0] == pytest.approx(100 * mean["accuracy_1"][0])
    assert gates["accuracy"][2] == pytest.approx(100 * mean["accuracy"][0], abs=1e-3)  # as in the other tables
    assert gates["cost"][2] == pytest.approx(mean["cost"][0] / 1e6, abs=1e-3)
    assert gates["cost"][[0, 4]].tolist() == pytest.approx([c / 1e6 for c in one.manifest["cost"]])
    with pytest.raises(TrecxError, match="unknown condition 'rain': choose one of clean, 200 ms earlier"):
        one.trace("rain")

    assert len(figures.robustness({"trecx_ev": pair, "baseline": base}).axes) == 2
    assert one.outputs["example_x"].shape == (12, 49, 10, 1)
    assert "example_x" not in by_name["baseline 0"].outputs
    x, labels, scores = (one.outputs[f"example_{name}"] for name in ("x", "labels", "scores"))
    assert scores[:6].min() >= scores[6:].min()
    assert len(figures.example_rows(x.astype(np.float32), labels, scores, KWS.classes).axes) == 12


def test_results_of_other_weights_of_that_name_do_not_count(
    records: dict[str, Record], audio: Path, folders: Path
) -> None:
    folder = paths.PUBLISHED / "speech_commands" / records["trecx_ev 0"].name
    shutil.copytree(records["trecx_ev 0"].folder, folder)
    clips = robustness.read_clips(audio, per_class=1)
    assert robustness.published_robustness([Record(folder)]) == []
    (made,) = robustness.evaluate_robustness([Record(folder)], clips, publish=True, conditions=CONDITIONS[:1])
    assert robustness.published_robustness([Record(folder)]) == [made]
    shutil.copy(records["trecx_ev 1"].folder / "predictions.npz", folder)
    assert robustness.published_robustness([Record(folder)]) == []


# --- the command


def test_command(records: dict[str, Record], audio: Path, folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["robustness", str(records["trecx_ev 0"].folder), "--audio", str(audio), "--per-class", "2"]
    assert main([*words, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["condition"] == "clean"
    assert rows[0]["n"] == 10
    assert len(rows[0]["accuracies"]) == 2
    assert (paths.RECORDS / "speech_commands" / "robustness" / records["trecx_ev 0"].name).is_dir()
    assert not paths.PUBLISHED.exists()
    assert main(words) == 0
    assert "background only" in capsys.readouterr().out


def test_command_says_what_is_wrong_in_one_sentence(
    records: dict[str, Record], audio: Path, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = str(records["baseline 0"].folder)
    other = write_record(Run("ic", "baseline", "cifar10", "fast"), tmp_path / "other")
    bare = write_record(Run("kws", "baseline", "speech_commands", "fast"), tmp_path / "bare")
    for words, says in (
        ([own, "--audio", str(tmp_path / "none")], "is no folder"),
        ([str(other.folder), "--audio", str(audio)], "is a run on ic: robustness is measured on keyword spotting"),
        ([str(bare.folder), "--audio", str(audio)], "no weights at"),
        (["no-such-run", "--audio", str(audio)], "no record 'no-such-run'"),
        ([own, "--audio", str(audio), "--per-class", "-1"], "per-class -1 is impossible"),
        ([own], "--audio"),
    ):
        assert main(["robustness", *words]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert says in error


# --- real clips


def test_real_clips_give_the_benchmark_s_features_and_stay_in_order(shared: Callable[[str], Path]) -> None:
    pytest.importorskip("soundfile")
    clips = robustness.read_clips(shared("data/speech_commands/audio"))
    assert len(clips.labels) == 720
    assert (np.bincount(clips.labels) == 60).all()
    assert len(clips.noise) == 6
    with np.load(shared("data/speech_commands/test_mfcc.npz")) as file:
        row = {name: k for k, name in enumerate(file["clip"])}
        rows = [row[name.removesuffix(".flac") + ".wav"] for name in clips.names]
        np.testing.assert_array_equal(file["y"][rows], clips.labels)
        np.testing.assert_allclose(mfcc(clips.waves), file["x"][rows], rtol=1e-3, atol=3e-4)
