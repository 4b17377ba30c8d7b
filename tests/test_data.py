"""Loading and building data sets: the quick stand-ins for real, the files on disk in every broken state."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trecx import data, paths
from trecx.data import DATASETS, load, prepare, store
from trecx.data.quick import faces, photographs, photos, words
from trecx.errors import TrecxError
from trecx.tasks import TASKS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder."""
    monkeypatch.setattr(paths, "DATA", tmp_path)
    monkeypatch.setattr(paths, "DOWNLOADS", tmp_path / "downloads")
    return tmp_path


def arrays(n: int = 40) -> dict[str, np.ndarray]:
    """A set in the format of CIFAR-10, without a validation part: class k four times in every 40."""
    rng = np.random.default_rng(0)
    out = {}
    for split, size in (("train", 5 * n), ("test", n)):
        out[f"x_{split}"] = rng.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8)
        out[f"y_{split}"] = (np.arange(size) % 10).astype(np.uint8)
    return out


def test_every_task_has_its_data_sets() -> None:
    for task in TASKS.values():
        assert not DATASETS[task.full_data].stand_in
        assert DATASETS[task.full_data].classes == task.classes
        assert DATASETS[task.quick_data].stand_in
        assert len(DATASETS[task.quick_data].classes) == len(task.classes)
    assert DATASETS["quick_photos"].classes == photos.CLASSES


@pytest.mark.parametrize("call", [load, prepare])
def test_unknown_name_lists_the_names(folder: Path, call: Callable[[str], object]) -> None:
    with pytest.raises(TrecxError, match=r"unknown data set 'mnist': choose one of cifar10, .*quick_faces$"):
        call("mnist")


@pytest.mark.parametrize("name", ["cifar10", "speech_commands", "vww96"])
def test_missing_full_set_says_what_to_do(folder: Path, name: str) -> None:
    with pytest.raises(TrecxError, match=rf"{name}\.npz is missing: run `python -m trecx data {name}`.*TRECX_DATA"):
        load(name)


# --- quick sets, built for real


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], data.Dataset]:
    """Builds a quick set once for all tests of this file."""
    folder = tmp_path_factory.mktemp("data")

    def build(name: str) -> data.Dataset:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(paths, "DATA", folder)
            return load(name)

    return build


@pytest.mark.parametrize(
    ("name", "shape", "sizes"),
    [
        ("quick_photos", (32, 32, 3), photos.SIZES),
        pytest.param("quick_words", (49, 10, 1), words.SIZES, marks=pytest.mark.slow),
        pytest.param("quick_faces", (96, 96, 3), faces.SIZES, marks=pytest.mark.slow),
    ],
)
def test_quick_set(built: Callable[[str], data.Dataset], name: str, shape: tuple, sizes: dict[str, int]) -> None:
    if name == "quick_words":
        pytest.importorskip("espeakng_loader")
    found = built(name)
    assert found.stand_in
    assert "tand-in" in found.description
    for split, size in sizes.items():
        x, y = getattr(found, f"x_{split}"), getattr(found, f"y_{split}")
        assert x.shape == (size, *shape)
        assert x.dtype == (np.float32 if name == "quick_words" else np.uint8)
        counts = np.bincount(y, minlength=len(found.classes))
        assert counts.max() - counts.min() <= 1  # balanced
        assert np.isfinite(x).all()
        assert len(np.unique(x[:200].reshape(200, -1), axis=0)) == 200
        assert len({np.round(x[y == k].mean(), 6) for k in range(len(found.classes))}) == len(found.classes)


def test_building_again_gives_the_same_bytes(built: Callable[[str], data.Dataset]) -> None:
    assert store.checksum(photos.build()) == built("quick_photos").checksum


@pytest.mark.slow
def test_clips_do_not_depend_on_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    code = (
        "import sys; from trecx.data.quick import speak; speak.TAKES = 1; speak.COMMANDS = ('yes', 'stop'); "
        "speak.main(sys.argv[1])"
    )
    for name in ("a", "b"):
        subprocess.run([sys.executable, "-c", code, tmp_path / f"{name}.npz"], cwd=paths.ROOT, check=True)
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        np.testing.assert_array_equal(a["clips"], b["clips"])
        assert a["clips"].shape == (len(a["word"]), 16000)
        assert len(np.unique(a["voice"])) > 50
        assert (np.abs(a["clips"].astype(int)).max(axis=1) > 1000).all()  # every one speaks


def test_synthesiser_that_is_not_installed(folder: Path) -> None:
    code = "import sys; sys.modules['espeakng_loader'] = None; from trecx.data.quick import speak; speak.main('x')"
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.endswith("the spoken words need eSpeak NG: run `pip install espeakng-loader`\n")


def test_a_synthesiser_that_fails_is_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words.sys, "executable", "/bin/false")
    with pytest.raises(TrecxError, match=r"quick_words were not spoken: exit status 1$"):
        load("quick_words")
    assert list(folder.iterdir()) == []


def test_nothing_imports_the_synthesiser() -> None:
    code = "import sys, trecx.data.quick.words; print([m for m in sys.modules if 'espeak' in m or '.speak' in m])"
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_no_part_of_a_photograph_is_in_two_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    numbered = np.arange(100 * 100).reshape(100, 100, 1).repeat(3, axis=2)
    monkeypatch.setattr(photographs, "photograph", lambda name: numbered)
    parts = photographs.blocks("cat", np.random.default_rng(0))
    pixels = {split: {int(p) for block in found for p in block[..., 0].ravel()} for split, found in parts.items()}
    assert sum(map(len, pixels.values())) == len(set.union(*pixels.values())) == 100 * 100


def test_no_face_is_in_two_splits() -> None:
    assert sorted(k for part in faces.FACES.values() for k in part) == list(range(100))


def test_package_without_its_photographs() -> None:
    with pytest.raises(TrecxError, match=r"data/none\.png is missing from the installed scikit-image"):
        photographs.bundled("skimage", "data/none.png")


def test_quick_set_of_an_older_version_is_built_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(folder / "quick_photos.npz", arrays(), recipe=0)
    monkeypatch.setattr(photos, "build", lambda: arrays(80))
    assert len(load("quick_photos").y_test) == 80


@pytest.mark.slow
def test_two_processes_may_build_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from trecx.data import load; print(load('quick_photos').checksum)"]
    environment = os.environ | {"TRECX_DATA": str(tmp_path), "PYTHONPATH": str(paths.ROOT)}
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (process.communicate()[0] for process in running)
    assert first == second
    assert len(first) == 65
    assert sorted(p.name for p in tmp_path.iterdir()) == ["quick_photos.npz", "quick_photos.sha256.json"]


# --- files on disk


def test_validation_is_a_seeded_tenth_of_every_class(folder: Path) -> None:
    made = arrays()
    np.savez(folder / "cifar10.npz", **made)
    first, again, other = load("cifar10"), load("cifar10"), load("cifar10", split_seed=1)
    assert np.bincount(first.y_val).tolist() == [2] * 10
    assert len(first.y_train) == 180
    np.testing.assert_array_equal(first.x_val, again.x_val)
    assert not np.array_equal(first.x_val, other.x_val)
    both = np.concatenate([first.x_train, first.x_val]).reshape(200, -1)
    assert {row.tobytes() for row in both} == {row.tobytes() for row in made["x_train"].reshape(200, -1)}
    assert first.checksum == other.checksum == store.checksum(made)


def test_stored_validation_is_kept(folder: Path) -> None:
    made = arrays() | {"x_val": arrays()["x_test"], "y_val": arrays()["y_test"]}
    np.savez(folder / "cifar10.npz", **made)
    np.testing.assert_array_equal(load("cifar10").x_val, made["x_val"])
    assert len(load("cifar10").y_train) == 200


def test_checksum_is_computed_once_and_again_when_the_file_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(folder / "cifar10.npz", **arrays())
    before = load("cifar10").checksum
    assert json.loads((folder / "cifar10.sha256.json").read_text())["sha256"] == before
    with monkeypatch.context() as patch:
        patch.setattr(store, "checksum", lambda arrays: pytest.fail("hashed again"))
        assert load("cifar10").checksum == before
    np.savez(folder / "cifar10.npz", **arrays(80))  # a file from elsewhere may be replaced
    assert load("cifar10").checksum == store.checksum(arrays(80)) != before


def test_checksum_is_had_without_loading_and_follows_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(folder / "quick_photos.npz", arrays(), DATASETS["quick_photos"].recipe)
    np.savez(folder / "cifar10.npz", **arrays(80))  # a file from elsewhere, never hashed
    assert data.checksum("cifar10") == store.checksum(arrays(80))
    with monkeypatch.context() as patch:
        patch.setattr(store, "read", lambda *_: pytest.fail("read"))
        patch.setattr(store, "checksum", lambda arrays: pytest.fail("hashed again"))
        assert data.checksum("quick_photos") == data.checksum("quick_photos")
        patch.setattr(store, "recipe_of", lambda *_: pytest.fail("opened again"))
        patch.setattr(store, "remembered", lambda path: pytest.fail("note read again"))
        data.checksum("quick_photos")
        data.checksum("cifar10")
    assert data.checksum("quick_photos") == load("quick_photos").checksum == store.checksum(arrays())
    np.savez(folder / "cifar10.npz", **arrays(120))
    assert data.checksum("cifar10") == load("cifar10").checksum == store.checksum(arrays(120))


def test_checksum_builds_a_stand_in_and_asks_for_a_full_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "build", arrays)
    assert data.checksum("quick_photos") == store.checksum(arrays())
    store.write(folder / "quick_photos.npz", arrays(80), 1)  # left by older code
    assert data.checksum("quick_photos") == store.checksum(arrays())
    with pytest.raises(TrecxError, match="run `python -m trecx data cifar10` to download"):
        data.checksum("cifar10")
    with pytest.raises(TrecxError, match="unknown data set 'mnist': choose one of cifar10"):
        data.checksum("mnist")


def test_truncated_file(folder: Path) -> None:
    store.write(folder / "quick_photos.npz", arrays(), DATASETS["quick_photos"].recipe)
    store.write(folder / "cifar10.npz", arrays(), 1)
    for name in ("quick_photos", "cifar10"):
        path = folder / f"{name}.npz"
        path.write_bytes(path.read_bytes()[:-5000])
        with pytest.raises(TrecxError, match=rf"{name}\.npz is damaged \(.*\): delete it and run .* data {name}`$"):
            load(name)


def test_altered_file(folder: Path) -> None:
    store.write(folder / "cifar10.npz", arrays(), 1)
    with np.load(folder / "cifar10.npz") as file:
        inside = dict(file)
    inside["x_test"][0, 0, 0, 0] ^= 1
    np.savez(folder / "cifar10.npz", **inside)
    with pytest.raises(TrecxError, match=r"cifar10\.npz is damaged \(its checksum differs .*\): delete it and run"):
        load("cifar10")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_test": None}, "has no y_test, so it is not a prepared data set"),
        ({"y_test": np.zeros(3, np.uint8)}, "wrong test part"),
        ({"y_train": np.full(200, 10, np.uint8)}, "wrong train part"),
        ({"x_val": np.zeros((1, 32, 32, 3), np.uint8)}, "wrong val part"),
    ],
)
def test_file_with_other_contents(folder: Path, change: dict, message: str) -> None:
    made = {key: value for key, value in (arrays() | change).items() if value is not None}
    np.savez(folder / "cifar10.npz", **made)
    with pytest.raises(TrecxError, match=message):
        load("cifar10")


def test_a_failed_write_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(TrecxError, match=r"cifar10\.npz cannot be written: No space left on device"):
        store.write(folder / "cifar10.npz", arrays(), 1)
    assert list(folder.iterdir()) == []


def test_prepare_keeps_a_file_unless_forced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(folder / "quick_photos.npz", arrays(), DATASETS["quick_photos"].recipe)
    monkeypatch.setattr(photos, "build", lambda: arrays(80))
    assert prepare("quick_photos") == folder / "quick_photos.npz"
    assert len(load("quick_photos").y_test) == 40
    prepare("quick_photos", force=True)
    assert len(load("quick_photos").y_test) == 80


def test_missing_package_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(TrecxError, match=r"making quick_faces needs the package PIL: run `pip install '\.\[data\]'`"):
        load("quick_faces")
