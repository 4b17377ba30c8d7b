"""Damaged records: said in one sentence where one is opened, left out with one line where many are listed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.small import change_json, write_record
from trecx import paths
from trecx.cli import main
from trecx.errors import TrecxError
from trecx.experiments import intact, ray, records, runs
from trecx.experiments.intact import FORMAT, WEIGHTS, Damaged, Newer, check
from trecx.experiments.records import Record, all_records, open_record
from trecx.experiments.robustness import FILES as ROBUSTNESS
from trecx.experiments.robustness import RobustnessRecord
from trecx.experiments.runs import Run, evaluate, execute, find, publish, refuse_another, run_of

RUN, OTHER = Run("kws", "trecx_ev"), Run("kws", "trecx_ev", seed=1)
DATA = RUN.data


@pytest.fixture(autouse=True)
def roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Empty folders of records; nothing was said yet."""
    monkeypatch.setenv("TRECX_RECORDS", str(tmp_path / "records"))
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "published")
    monkeypatch.setattr(records, "_told", set())
    return tmp_path


def good(run: Run = RUN, root: Path | None = None) -> Path:
    """The folder of a record with weights."""
    folder = write_record(run, root or paths.PUBLISHED).folder
    weights(torch.zeros(2))(folder)
    records.write_manifest(folder, manifest(folder))
    return folder


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


Damage = Callable[[Path], Any]


def old(folder: Path) -> None:
    """As records were before they had checksums: what is in the files must be seen there."""
    found = manifest(folder)
    del found["files"], found["format"]
    (folder / "manifest.json").write_text(json.dumps(found))


def said(field: str, *value: Any) -> Damage:
    """A manifest with another value, or without the field."""

    def damage(folder: Path) -> None:
        old(folder)
        change_json(folder / "manifest.json", field, *value)

    return damage


def arrays(**change: Callable[[Any], Any]) -> Damage:
    """Predictions with some arrays changed; None leaves one out."""

    def damage(folder: Path) -> None:
        old(folder)
        with np.load(folder / "predictions.npz") as file:
            found = {name: change.get(name, lambda a: a)(file[name]) for name in file.files}
        kept = {name: array for name, array in found.items() if array is not None}
        np.savez_compressed(folder / "predictions.npz", **kept)

    return damage


def weights(tensor: torch.Tensor, name: str = "classifier.weight") -> Damage:
    return lambda folder: save_file({name: tensor}, folder / WEIGHTS)


def content(name: str, change: Callable[[bytes], bytes]) -> Damage:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def both(*changes: Damage) -> Damage:
    return lambda folder: [change(folder) for change in changes]


def set_one(value: float) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array[0, 0, 0] = value
        return array

    return change


MANIFEST: dict[str, tuple[Damage, str]] = {
    "missing": (lambda folder: (folder / "manifest.json").unlink(), "no complete run record: manifest.json missing"),
    "empty": (content("manifest.json", lambda b: b""), "it is no JSON"),
    "cut": (content("manifest.json", lambda b: b[:-9]), "it is no JSON"),
    "binary": (content("manifest.json", lambda b: b"\xff\xfe\0"), "it is no JSON"),
    "deep": (content("manifest.json", lambda b: b"[" * 100_000), "it is no JSON"),
    "a list": (content("manifest.json", lambda b: b"[]"), "it holds list and no set of fields"),
    "null": (content("manifest.json", lambda b: b"null"), "it holds NoneType and no set of fields"),
    "a folder": (lambda f: ((f / "manifest.json").unlink(), (f / "manifest.json").mkdir()), "manifest.json missing"),
    "no run": (said("run"), "run.task is missing: a text is needed"),
    "run a text": (said("run", "kws"), "run.task is missing"),
    "no task": (said("run.task"), "run.task is missing"),
    "another task": (said("run.task", "asr"), "unknown task 'asr': choose one of"),
    "task a list": (said("run.task", ["kws"]), "run.task is ['kws']: a text is needed"),
    "no method": (said("run.method"), "run.method is missing"),
    "seed a text": (said("run.seed", "0"), "run.seed is '0': a whole number is needed"),
    "seed true": (said("run.seed", True), "run.seed is True"),
    "no cost": (said("cost"), "cost.params is missing"),
    "params a text": (said("cost.params", "many"), "cost.params is 'many': a whole number"),
    "no macs": (said("cost.macs"), "cost.macs is missing: a list of rising costs"),
    "cost empty": (said("cost.flops", []), "cost.flops is []"),
    "cost falls": (said("cost.flops", [2, 1]), "cost.flops is [2, 1]: a list of rising costs"),
    "cost negative": (said("cost.flops", [-1, 1]), "cost.flops is [-1, 1]"),
    "cost not finite": (said("cost.flops", [1, float("nan")]), "cost.flops is [1, nan]"),
    "cost of texts": (said("cost.flops", ["1", "2"]), "cost.flops is ['1', '2']"),
    "exits differ": (said("cost.flops", [1]), "cost.macs and cost.flops are of different numbers of exits"),
    "no data": (said("data"), "data.name is missing"),
    "no sizes": (said("data.sizes"), "data.sizes.val is missing"),
    "stand_in a text": (said("data.stand_in", "yes"), "data.stand_in is 'yes': true or false is needed"),
    "recipe a list": (said("recipe", []), "recipe is []: a set of fields is needed"),
    "no epochs": (said("recipe.epochs"), "recipe.epochs is missing"),
    "seconds a text": (said("seconds", "long"), "seconds is 'long': a number is needed"),
    "hardware a text": (said("hardware", "fast"), "hardware is 'fast': a set of fields"),
    "files a list": (said("files", []), "files is []: a set of checksums is needed"),
    "format a text": (said("format", "1"), "format is '1': a whole number is needed"),
    "later": (said("format", FORMAT + 1), f"was written by a later version of trecx (format {FORMAT + 1}; this one"),
}
REST: dict[str, tuple[Damage, str]] = {
    "no history": (lambda folder: (folder / "history.csv").unlink(), "no complete run record: history.csv missing"),
    "history empty": (both(old, content("history.csv", lambda b: b"")), "history.csv is damaged"),
    "history binary": (both(old, content("history.csv", lambda b: b"\xff\xfe\0\1")), "history.csv is damaged"),
    "history of texts": (both(old, content("history.csv", lambda b: b"epoch,loss\n1,x\n")), "finite numbers"),
    "history not finite": (both(old, content("history.csv", lambda b: b"epoch,loss\n1,inf\n")), "finite numbers"),
    "no epoch": (both(old, content("history.csv", lambda b: b"loss\n1\n")), "it needs a column epoch"),
    "history changed": (content("history.csv", lambda b: b"epoch\n2\n"), "history.csv is damaged (its checksum"),
    "no predictions": (lambda folder: (folder / "predictions.npz").unlink(), "predictions.npz missing"),
    "predictions empty": (both(old, content("predictions.npz", lambda b: b"")), "predictions.npz is damaged"),
    "predictions cut": (both(old, content("predictions.npz", lambda b: b[:-99])), "predictions.npz is damaged"),
    "predictions text": (both(old, content("predictions.npz", lambda b: b"hello")), "predictions.npz is damaged"),
    "predictions changed": (content("predictions.npz", lambda b: b + b"\0"), "is damaged (its checksum"),
    "no labels": (arrays(val_labels=lambda a: None), "val_log_probs or val_labels is missing"),
    "no log_probs": (arrays(test_log_probs=lambda a: None), "test_log_probs or test_labels is missing"),
    "objects": (arrays(val_labels=lambda a: a.astype(object)), "predictions.npz is damaged"),
    "whole log_probs": (arrays(test_log_probs=lambda a: a.astype(np.int8)), "is int8: floating point is needed"),
    "one exit": (arrays(test_log_probs=lambda a: a[:, :1]), "has shape (48, 1, 12): (48, 2, 12) is needed"),
    "flat": (arrays(test_log_probs=lambda a: a[:, 0]), "has shape (48, 12): (48, 2, 12) is needed"),
    "fewer samples": (arrays(test_log_probs=lambda a: a[:9]), "has shape (9, 2, 12): (48, 2, 12) is needed"),
    "fewer classes": (arrays(val_log_probs=lambda a: a[..., :9]), "has shape (48, 2, 9)"),
    "no samples": (both(arrays(test_log_probs=lambda a: a[:0], test_labels=lambda a: a[:0]),), "has shape (0, 2, 12)"),
    "not finite": (arrays(test_log_probs=set_one(np.nan)), "holds no logarithms of probabilities"),
    "infinite": (arrays(test_log_probs=set_one(-np.inf)), "holds no logarithms of probabilities"),
    "probabilities": (arrays(test_log_probs=np.exp), "test_log_probs holds no logarithms of probabilities"),
    "logits": (arrays(val_log_probs=lambda a: a * 2), "val_log_probs holds no logarithms of probabilities"),
    "labels not whole": (arrays(val_labels=lambda a: a * 0.5), "val_labels is float64: whole numbers are needed"),
    "fewer labels": (arrays(val_labels=lambda a: a[:9]), "val_labels has shape (9,): (48,) is needed"),
    "a label too high": (arrays(test_labels=lambda a: a + 1), "test_labels goes beyond the 12 classes, from 0"),
    "a label below 0": (arrays(test_labels=lambda a: a.astype(int) - 1), "test_labels goes beyond the 12 classes"),
    "weights empty": (both(old, content(WEIGHTS, lambda b: b"")), f"{WEIGHTS} is damaged (it is no intact"),
    "weights cut": (both(old, content(WEIGHTS, lambda b: b[:-3])), f"{WEIGHTS} is damaged (it is no intact"),
    "weights changed": (weights(torch.ones(2)), f"{WEIGHTS} is damaged (its checksum is not the one"),
    "weights int8": (both(old, weights(torch.ones(2, dtype=torch.int8))), "is torch.int8: torch.float32 is needed"),
    "weights NaN": (both(old, weights(torch.tensor([1, torch.nan]))), "classifier.weight is not finite"),
    "a count in float": (both(old, weights(torch.ones(()), "bn.num_batches_tracked")), "torch.int64 is needed"),
}  # fmt: skip
DAMAGE = MANIFEST | REST


@pytest.mark.parametrize(("damage", "says"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_record_is_told_and_stops_no_list(
    damage: Damage, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """By every way to a record: opened, found, listed, by the command line; and the run can be trained again."""
    bad, whole = good(), good(OTHER)
    damage(bad)
    with pytest.raises(TrecxError) as caught:
        open_record(bad)
    assert says in str(caught.value)
    assert str(bad) in str(caught.value)
    assert "\n" not in str(caught.value)
    capfd.readouterr()
    assert [record.folder for record in all_records(DATA)] == [whole]
    line = capfd.readouterr().err
    assert says in line
    assert line.count("\n") == 1
    assert line.startswith("left out: ")
    assert find(RUN) is None
    assert find(OTHER) is not None
    assert capfd.readouterr().err == ""  # said once
    for command in ("curve", "evaluate"):
        assert main([command, RUN.name]) == 2
        assert capfd.readouterr().err == f"error: {caught.value}\n"
    shutil.copytree(bad, paths.RECORDS / DATA / bad.name)
    if isinstance(caught.value, Newer):
        with pytest.raises(Newer):
            refuse_another(paths.RECORDS / DATA / bad.name, RUN)
    else:
        assert isinstance(caught.value, Damaged)
        refuse_another(paths.RECORDS / DATA / bad.name, RUN)


def test_how_many_kinds_of_damage_there_are() -> None:
    assert len(DAMAGE) >= 70


def test_a_sweep_lists_its_runs_beside_a_damaged_record(roots: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (good() / "manifest.json").write_text("")
    good(OTHER)
    file = roots / "sweep.yaml"
    file.write_text("runs: [{task: kws, method: trecx_ev, seed: [0, 1]}]")
    assert main(["sweep", str(file), "--list", "--json"]) == 0
    out, err = capfd.readouterr()
    assert [row["record"] is None for row in json.loads(out)] == [True, False]
    assert err.count("\n") == 1
    assert "manifest.json is damaged (it is no JSON)" in err


def test_a_whole_record_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = good()
    check(folder)
    monkeypatch.setattr(intact, "read_predictions", None)  # reading it again would fail
    check(folder)
    old(folder)  # changed: it is read again
    with pytest.raises(TypeError):
        check(folder)


def test_records_of_earlier_versions_stay_valid_and_weights_may_be_left_out() -> None:
    folder = good()
    (folder / WEIGHTS).unlink()
    check(folder)
    old(folder)
    check(folder)
    found = manifest(folder)
    for field in ("width", "extra_classes", "start", "frozen", "resolution"):  # as of the first version
        del found["run"][field]
    (folder / "manifest.json").write_text(json.dumps(found))
    assert run_of(open_record(folder)) == RUN
    assert find(RUN) is not None


def test_a_run_with_a_field_of_a_later_version_is_told_where_it_is_needed() -> None:
    folder = good(root=paths.RECORDS)
    said("run.colour", "red")(folder)
    record = open_record(folder)  # what it holds is known all the same
    assert record.accuracies().all()
    with pytest.raises(TrecxError, match="the field 'colour', which this version of trecx does not know: update trecx"):
        evaluate(record)
    assert find(RUN) is None
    with pytest.raises(TrecxError, match="holds the record of another run: move it away"):
        execute(RUN)


def test_an_unfinished_run_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    partial = paths.RECORDS / DATA / f"{RUN.name}.partial"
    partial.mkdir(parents=True)
    for name in (RUN.name, partial.name, str(partial)):
        with pytest.raises(TrecxError, match="is an unfinished run's: the command that trains it goes on"):
            open_record(name)
    assert all_records(DATA) == []


def test_a_name_in_two_data_sets_and_a_stray_folder() -> None:
    folder = good()
    assert open_record(RUN.name).folder == folder
    shutil.copytree(folder, paths.PUBLISHED / "other" / folder.name)
    with pytest.raises(
        TrecxError, match=f"two data sets have a record '{RUN.name}', other and {DATA}: give its folder"
    ):
        open_record(RUN.name)
    (paths.PUBLISHED / DATA / "notes").mkdir()
    (paths.PUBLISHED / DATA / "notes.txt").touch()
    assert [record.folder for record in all_records(DATA)] == [folder]


def test_links_in_the_place_of_records(roots: Path, capfd: pytest.CaptureFixture[str]) -> None:
    away = good(root=roots / "away")
    place = paths.PUBLISHED / DATA / RUN.name
    place.parent.mkdir(parents=True)
    place.symlink_to(away)
    assert open_record(place).accuracies().all()
    assert [record.folder for record in all_records(DATA)] == [place]
    before = (away / "manifest.json").read_bytes()
    for target in (away, roots / "nowhere"):
        place.unlink()
        place.symlink_to(target)
        publish(Record(good(root=roots / f"made {target.name}")))  # takes the place of the link, not of what it names
        assert not place.is_symlink()
        check(place)
        shutil.rmtree(place)
        place.symlink_to(target)
    assert (away / "manifest.json").read_bytes() == before
    assert find(RUN) is None  # the last link leads nowhere
    assert capfd.readouterr().err == ""


def test_a_file_in_the_place_of_a_record_is_kept() -> None:
    place = paths.RECORDS / DATA / RUN.name
    place.parent.mkdir(parents=True)
    place.write_text("mine")
    with pytest.raises(TrecxError, match="is a file in the place of a record: move it away before you train"):
        execute(RUN)
    assert place.read_text() == "mine"


def test_published_results_are_never_short_of_a_damaged_record(monkeypatch: pytest.MonkeyPatch) -> None:
    from trecx.experiments import results

    monkeypatch.setattr(results, "load", lambda path: [RUN, OTHER])
    good(OTHER)
    (good() / "manifest.json").write_text("")
    with pytest.raises(TrecxError, match="is damaged"):
        results.published("quick")


def test_robustness_is_checked_as_well(roots: Path) -> None:
    folder = roots / "robustness"
    folder.mkdir()
    np.savez(folder / "outputs.npz", labels=np.zeros(3))
    (folder / "conditions.csv").write_text("n\n1\n")
    records.write_manifest(folder, {"run": {}})
    assert RobustnessRecord(folder).outputs["labels"].tolist() == [0, 0, 0]
    assert RobustnessRecord(folder).manifest["format"] == FORMAT
    for name in ROBUSTNESS:
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(kept[:-3])
        with pytest.raises(TrecxError, match=f"{name} is damaged"):
            RobustnessRecord(folder).manifest["run"]
        (folder / name).write_bytes(kept)


# --- From a cluster


def test_ray_replaces_nothing_and_writes_whole_records(monkeypatch: pytest.MonkeyPatch, roots: Path) -> None:
    folder = good(root=roots / "far away")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(runs, "identity", lambda run, checksum: manifest(folder))
    record = ray._kept(RUN, files)
    assert {path.name: path.read_bytes() for path in record.folder.iterdir()} == files
    stamp = (record.folder / WEIGHTS).stat().st_mtime_ns
    assert ray._kept(RUN, {}).folder == record.folder  # another process's, or of a shared disk: kept as it is
    assert (record.folder / WEIGHTS).stat().st_mtime_ns == stamp
    with pytest.raises(TrecxError, match="came back from Ray damaged"):
        ray._kept(OTHER, files | {"history.csv": b""})
    said("run.width", 0.5)(record.folder)
    with pytest.raises(TrecxError, match="holds the record of another run"):
        ray._kept(RUN, files)
