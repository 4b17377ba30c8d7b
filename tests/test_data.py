"""Loading and building data sets: the quick stand-ins for real, the files on disk in every broken state."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from trecx import data, paths
from trecx.data import DATASETS, load, prepare, store
from trecx.data.quick import faces, photographs, photos, words
from trecx.errors import TrecxError
from trecx.tasks import TASKS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder."""
    monkeypatch.setenv("TRECX_DATA", str(tmp_path))
    return tmp_path


def arrays(n: int = 40) -> dict[str, np.ndarray]:
    """A set in the format of CIFAR-10, without a validation part: class k four times in every 40."""
    rng = np.random.default_rng(0)
    out = {}
    for split, size in (("train", 5 * n), ("test", n)):
        out[f"x_{split}"] = rng.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8)
        out[f"y_{split}"] = (np.arange(size) % 10).astype(np.uint8)
    return out


X, Y = arrays()["x_train"], arrays()["y_train"]


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
            patch.setenv("TRECX_DATA", str(folder))
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


@pytest.mark.slow
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


def test_another_file_of_the_same_size_and_time_has_its_own_checksum(folder: Path) -> None:
    path = folder / "cifar10.npz"
    one, two = arrays(), arrays() | {"x_test": 255 - arrays()["x_test"]}
    np.savez(path, **one)
    was = path.stat()
    assert data.checksum("cifar10") == load("cifar10").checksum == store.checksum(one)
    with path.open("r+b") as file, io.BytesIO() as packed:  # in place: the same inode
        np.savez(packed, **two)
        file.write(packed.getvalue())
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (was.st_size, was.st_mtime_ns)
    assert data.checksum("cifar10") == load("cifar10").checksum == store.checksum(two)
    np.savez(folder / "other.npz", **one)  # moved into its place: another inode
    os.utime(folder / "other.npz", ns=(was.st_atime_ns, was.st_mtime_ns))
    (folder / "other.npz").replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (was.st_size, was.st_mtime_ns)
    assert data.checksum("cifar10") == load("cifar10").checksum == store.checksum(one)


def test_a_file_that_is_replaced_while_it_is_read_is_not_noted_as_the_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, two = folder / "cifar10.npz", arrays(80)
    np.savez(path, **arrays())
    hashed = store.checksum

    def slow(found: dict[str, np.ndarray]) -> str:
        np.savez(folder / "other.npz", **two)
        (folder / "other.npz").replace(path)
        return hashed(found)

    with monkeypatch.context() as patch:
        patch.setattr(store, "checksum", slow)
        assert load("cifar10").checksum == hashed(arrays())
    assert load("cifar10").checksum == hashed(two)


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
        ({"y_test": np.zeros(3, np.uint8)}, "x_test has 40 samples and y_test 3 labels: give as many of both"),
        ({"y_train": np.full(200, 10, np.uint8)}, "y_train has labels from 10 to 10: give whole numbers from 0 to 9"),
        ({"x_val": np.full((1, 32, 32, 3), 9, np.uint8)}, "x_val and y_val belong together, and one is missing"),
        ({"x_val": X[:0], "y_val": Y[:0]}, "x_val has 0 samples and y_val 0 labels: give as many of both, at least"),
        # Pictures.
        ({"x_train": X / 255}, "x_train is float64: give pictures as uint8 from 0 to 255"),
        ({"x_test": (X / 255).astype(np.float32)}, "x_test is float32: give pictures as uint8"),
        ({"x_train": X.astype(np.int8)}, "x_train is int8: give pictures as uint8"),
        ({"x_train": X.astype(np.uint16)}, "x_train is uint16: give pictures as uint8"),
        ({"x_train": X.astype(np.complex64)}, "x_train is complex64: give pictures as uint8"),
        ({"x_test": np.full(X.shape, np.nan)}, "x_test is float64: give pictures as uint8"),
        ({"x_train": X.astype("U3")}, "x_train is <U3: give pictures as uint8"),
        ({"x_train": X // 255}, "x_train has no value above 1: give pictures as uint8 from 0 to 255"),
        ({"x_train": X.transpose(0, 3, 1, 2)}, r"x_train has the shape \(200, 3, 32, 32\): give \(N, 32, 32, 3\)"),
        ({"x_test": X[:, :28, :28]}, r"x_test has the shape \(200, 28, 28, 3\): give \(N, 32, 32, 3\)"),
        ({"x_train": X[..., 0]}, r"x_train has the shape \(200, 32, 32\): give \(N, 32, 32, 3\)"),
        ({"x_train": X[..., :1]}, r"x_train has the shape \(200, 32, 32, 1\): give \(N, 32, 32, 3\)"),
        ({"x_train": np.uint8(200)}, r"x_train has the shape \(\): give \(N, 32, 32, 3\)"),
        # Labels.
        ({"y_train": Y[:, None]}, r"y_train has the shape \(200, 1\): give whole numbers from 0 to 9, one a sample"),
        ({"y_train": np.eye(10, dtype=np.uint8)[Y]}, r"y_train has the shape \(200, 10\): give whole numbers"),
        ({"y_train": Y.astype(np.int64) - 1}, "y_train has labels from -1 to 8: give whole numbers from 0 to 9"),
        ({"y_test": np.full(40, np.nan)}, "y_test is float64: give whole numbers from 0 to 9"),
        ({"y_train": Y * 0.5}, "y_train is float64: give whole numbers from 0 to 9"),
        ({"y_train": Y.astype("U1")}, "y_train is <U1: give whole numbers from 0 to 9"),
        ({"y_train": Y > 4}, "y_train is bool: give whole numbers from 0 to 9"),
        ({"y_train": Y.astype(">i4")}, "y_train is >i4: give whole numbers from 0 to 9"),
        ({"y_train": Y.astype(complex)}, "y_train is complex128: give whole numbers from 0 to 9"),
        ({"y_train": np.where(np.arange(200), Y % 9, 9)}, "y_train has a single sample of class 9: give two or more"),
    ],
)
def test_file_with_other_contents(folder: Path, change: dict, message: str) -> None:
    """The contract of `trecx.data.contract`, point by point."""
    made = {key: value for key, value in (arrays() | change).items() if value is not None}
    np.savez(folder / "cifar10.npz", **made)
    for look in (load, data.checksum):
        with pytest.raises(TrecxError, match=message) as caught:
            look("cifar10")
        assert "\n" not in str(caught.value)
        assert str(caught.value).endswith("delete it and run `python -m trecx data cifar10`")
        (folder / "cifar10.sha256.json").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.astype(np.float64), "x_train is float64: give features as float32"),
        (lambda x: x.astype(np.float16), "x_train is float16: give features as float32"),
        (lambda x: x.astype(">f4"), "x_train is >f4: give features as float32"),
        (lambda x: x.transpose(0, 3, 1, 2), r"x_train has the shape \(24, 1, 49, 10\): give \(N, 49, 10, 1\)"),
        (lambda x: np.where(x > 2, np.nan, x), "x_train has values that are not finite: give features without NaN"),
        (lambda x: np.where(x > 2, -np.inf, x), "x_train has values that are not finite"),
        (lambda x: x * 32768, "x_train has values beyond ±1000: give MFCC as trecx.data.mfcc computes them"),
    ],
)
def test_features_of_another_form(folder: Path, change: Callable, message: str) -> None:
    features = np.random.default_rng(0).normal(size=(24, 49, 10, 1)).astype(np.float32)
    labels = np.arange(24) % 12
    made = {"x_train": features, "y_train": labels, "x_test": features, "y_test": labels}
    np.savez(folder / "speech_commands.npz", **made)
    assert load("speech_commands").x_train.dtype == np.float32
    np.savez(folder / "speech_commands.npz", **made | {"x_train": change(features)})
    with pytest.raises(TrecxError, match=message):
        load("speech_commands")


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int32, np.uint16, np.int64, np.uint64])
def test_labels_of_every_whole_type_serve(folder: Path, kind: type) -> None:
    made = arrays() | {"y_train": Y.astype(kind)}
    np.savez(folder / "cifar10.npz", **made)
    found = torch.from_numpy(load("cifar10").y_train).long()
    assert torch.bincount(found).tolist() == [18] * 10


def test_few_samples_a_class_still_leave_a_validation_part(folder: Path) -> None:
    made = arrays()
    for n, held in ((2, 1), (4, 1), (14, 1), (16, 2)):  # rounded half to even, as ever
        kept = {"x_train": X[: 10 * n], "y_train": Y[: 10 * n]}
        np.savez(folder / "cifar10.npz", **made | kept)
        found = load("cifar10")
        assert np.bincount(found.y_val).tolist() == [held] * 10
        assert np.bincount(found.y_train).tolist() == [n - held] * 10


def test_a_failed_write_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(TrecxError, match=r"cifar10\.npz cannot be written: No space left on device"):
        store.write(folder / "cifar10.npz", arrays(), 1)
    assert list(folder.iterdir()) == []


def test_a_folder_of_somebody_else_is_read_and_its_files_are_hashed_each_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    np.savez(folder / "cifar10.npz", **arrays())
    monkeypatch.setattr(store, "whole_file", refused)
    for _ in range(2):
        assert load("cifar10").checksum == data.checksum("cifar10") == store.checksum(arrays())
    assert [path.name for path in folder.iterdir()] == ["cifar10.npz"]
    monkeypatch.setattr(photos, "build", arrays)
    with pytest.raises(TrecxError, match=r"quick_photos\.npz cannot be written: Permission denied; TRECX_DATA names"):
        load("quick_photos")


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
