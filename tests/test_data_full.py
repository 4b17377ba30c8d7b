"""The full data sets' own code, on small archives that the tests make, behind a server on this machine."""

import hashlib
import http.server
import io
import json
import pickle
import shutil
import tarfile
import threading
import types
import wave
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from trecx import paths
from trecx.data import download, load, prepare
from trecx.data.download import fetch, file_sha256, need_space
from trecx.data.full import cifar10, speech_commands, vww
from trecx.data.mfcc import mfcc
from trecx.errors import TrecxError
from trecx.experiments.robustness import read_sound
from trecx.tasks import KWS


def packed(content: bytes) -> bytes:
    """A zip archive of 300 000 bytes with one stored file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("file", content)
    return buffer.getvalue()


CONTENT = packed(np.random.default_rng(0).bytes(300_000 - len(packed(b""))))
OTHER = packed(np.random.default_rng(1).bytes(300_000 - len(packed(b""))))  # as long


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder with Range requests; `breaks` ends the next answers in the middle.

    `answers` are functions that give the next answers in its place.
    """

    ranges: ClassVar[list[str]] = []
    answers: ClassVar[list[Callable[["Handler"], None]]] = []
    breaks = 0
    resumes = True
    etag = ""

    def give(self, body: bytes, status: int = 200, length: int | str | None = -1, **headers: str) -> None:
        """Answer with `body`; length None: without that header."""
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(len(body) if length == -1 else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.answers:
            Handler.ranges.append(self.headers.get("Range") or "")
            self.answers.pop(0)(self)
            return
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content, start = path.read_bytes(), 0
        wanted = self.headers.get("Range")
        Handler.ranges.append(wanted or "")
        if wanted and self.resumes:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        if self.headers.get("If-Range", self.etag) != self.etag:
            wanted, start = None, 0
        self.send_response(206 if wanted and self.resumes else 200)
        if wanted and self.resumes:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.etag:
            self.send_header("ETag", self.etag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.breaks:
            Handler.breaks -= 1
            self.wfile.write(content[start : start + (len(content) - start) // 2])
        else:
            self.wfile.write(content[start:])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """The address and the folder of a web server."""
    root = tmp_path / "site"
    root.mkdir()
    monkeypatch.setattr(Handler, "ranges", [])
    monkeypatch.setattr(Handler, "answers", [])
    monkeypatch.setattr(Handler, "etag", "")
    monkeypatch.setattr(Handler, "breaks", 0)
    monkeypatch.setattr(Handler, "resumes", True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Handler(*args, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", root
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder."""
    monkeypatch.setenv("TRECX_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


# --- downloads


def names(folder: Path) -> list[str]:
    """What is in a folder, the lock files aside."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".locks")


PINNED = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def broken(site: tuple[str, Path], tmp_path: Path) -> tuple[str, Path]:
    """The address of an archive and the folder to which half of it has come, from a server that knows ETags."""
    url, root = site
    (root / "a.zip").write_bytes(CONTENT)
    Handler.etag, Handler.breaks = '"one"', 1
    with pytest.raises(TrecxError, match=r"the connection ended at 150000 of 300000 bytes"):
        fetch(f"{url}/a.zip", tmp_path / "d")
    return f"{url}/a.zip", tmp_path / "d"


PAGE = b"<html>please log in, or pay</html>....."
WRONG_ANSWERS: dict[str, Callable[[Handler], None]] = {
    "a login page": lambda h: h.give(PAGE, Content_Type="text/html"),
    "a login page that does not say so": lambda h: h.give(PAGE),
    "a page as a partial answer": lambda h: h.give(PAGE, 206),
    "another range": lambda h: h.give(CONTENT[1000:], 206, Content_Range="bytes 1000-299999/300000"),
    "the rest of another file": lambda h: h.give(OTHER[150_000:], 206, Content_Range="bytes 150000-309999/310000"),
    "a range that is none": lambda h: h.give(CONTENT[150_000:], 206, Content_Range="bytes x"),
    "the whole, cut short": lambda h: h.give(CONTENT[:-5000], length=len(CONTENT)),
    "the whole, cut short, without a length": lambda h: h.give(CONTENT[:-5000], length=None),
    "the whole, without a length": lambda h: h.give(CONTENT, length=None),
    "a length that is no number": lambda h: h.give(CONTENT[:-5000], length="abc"),
    "an error": lambda h: h.give(b"", 503),
    "no such range": lambda h: h.give(b"", 416, Content_Range="bytes */99"),
    "no such range, without saying more": lambda h: h.give(b"", 416),
    "nothing": lambda h: h.give(b""),
}


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("answer", WRONG_ANSWERS)
def test_a_wrong_answer_costs_nothing_and_is_never_trusted(broken: tuple[str, Path], answer: str, pinned: bool) -> None:
    """Whatever a server says in place of the rest: the part stays, and the right file is taken when it comes."""
    url, folder = broken
    sha = PINNED if pinned else None
    Handler.answers.extend([WRONG_ANSWERS[answer]] * 2)
    try:
        got = fetch(url, folder, sha)
    except TrecxError:
        assert not (folder / download.CHECKSUMS).exists()
        assert (folder / "a.zip.part").read_bytes() == CONTENT[:150_000]
        Handler.answers.clear()
        got = fetch(url, folder, sha)
    assert got.read_bytes() == CONTENT
    assert names(folder) == ["a.zip", *([] if pinned else [download.CHECKSUMS])]
    if not pinned:
        assert json.loads((folder / download.CHECKSUMS).read_text()) == {"a.zip": PINNED}


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("answer", sorted(set(WRONG_ANSWERS) - {"the whole, without a length"}))
def test_a_wrong_first_answer_is_never_trusted(
    site: tuple[str, Path], tmp_path: Path, answer: str, pinned: bool
) -> None:
    url, root = site
    (root / "a.zip").write_bytes(CONTENT)
    Handler.answers.extend([WRONG_ANSWERS[answer]] * 9)
    for _ in range(2):
        with pytest.raises(TrecxError):
            fetch(f"{url}/a.zip", tmp_path / "d", PINNED if pinned else None)
        assert not {"a.zip", download.CHECKSUMS} & set(names(tmp_path / "d"))
    Handler.answers.clear()
    assert fetch(f"{url}/a.zip", tmp_path / "d", PINNED if pinned else None).read_bytes() == CONTENT


def test_a_file_that_changed_on_the_server_is_fetched_whole(broken: tuple[str, Path], site: tuple[str, Path]) -> None:
    url, folder = broken
    (site[1] / "a.zip").write_bytes(OTHER)
    Handler.etag = '"two"'
    assert fetch(url, folder).read_bytes() == OTHER
    assert Handler.ranges == ["", "bytes=150000-", ""]


def test_a_replacement_that_breaks_goes_on_where_it_stopped(broken: tuple[str, Path], site: tuple[str, Path]) -> None:
    url, folder = broken
    (site[1] / "a.zip").write_bytes(OTHER)
    Handler.etag, Handler.breaks = '"two"', 2
    with pytest.raises(TrecxError, match="run the command again to go on"):
        fetch(url, folder)
    assert (folder / "a.zip.part").read_bytes() == CONTENT[:150_000]
    assert (folder / "a.zip.new").read_bytes() == OTHER[:150_000]
    assert fetch(url, folder).read_bytes() == OTHER
    assert names(folder) == ["a.zip", download.CHECKSUMS]


def test_a_part_of_unknown_origin_is_gone_on_with_only_under_a_checksum(site: tuple[str, Path], tmp_path: Path) -> None:
    url, root = site
    (root / "a.zip").write_bytes(CONTENT)
    for sha, asked in ((None, ""), (PINNED, "bytes=150000-")):
        folder = tmp_path / f"{sha}"
        folder.mkdir()
        (folder / "a.zip.part").write_bytes((CONTENT if sha else OTHER)[:150_000])
        assert fetch(f"{url}/a.zip", folder, sha).read_bytes() == CONTENT
        assert Handler.ranges.pop() == asked


def test_two_at_once_fetch_a_file_once(site: tuple[str, Path], tmp_path: Path) -> None:
    url, root = site
    (root / "a.zip").write_bytes(CONTENT)
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda _: fetch(f"{url}/a.zip", tmp_path / "d").read_bytes(), range(4)))
    assert got == [CONTENT] * 4
    assert Handler.ranges == [""]


@pytest.mark.parametrize("content", ["null", "[1]", '{"a.zip": 3}', "", "{"])
def test_damaged_list_of_checksums(site: tuple[str, Path], tmp_path: Path, content: str) -> None:
    (site[1] / "a.zip").write_bytes(CONTENT)
    (tmp_path / download.CHECKSUMS).write_text(content)
    with pytest.raises(TrecxError, match=r"checksums\.json is damaged: delete it to trust the next downloads$"):
        fetch(f"{site[0]}/a.zip", tmp_path)


def test_an_archive_that_lies_there_is_held_against_its_checksum(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(OTHER)
    for again in range(2):  # pinned, then recorded
        if again:
            (tmp_path / download.CHECKSUMS).write_text(json.dumps({"a.zip": PINNED}))
        with pytest.raises(TrecxError, match=rf"a\.zip has the sha256 .*, not {PINNED}.*: delete it and run the com"):
            fetch("http://127.0.0.1:9/a.zip", tmp_path, None if again else PINNED)
        assert (tmp_path / "a.zip").read_bytes() == OTHER
    (tmp_path / "a.zip").write_bytes(CONTENT)
    assert fetch("http://127.0.0.1:9/a.zip", tmp_path, PINNED) == tmp_path / "a.zip"
    assert fetch("http://127.0.0.1:9/a.zip", tmp_path) == tmp_path / "a.zip"


def test_archives_come_encrypted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torchvision.datasets import CIFAR10

    for url in (CIFAR10.url, speech_commands.MAIN, speech_commands.TEST, vww.COCO):
        assert url.startswith("https://")
    answer = types.SimpleNamespace(url="http://127.0.0.1/a.zip", close=lambda: None)
    monkeypatch.setattr(download.urllib.request, "urlopen", lambda *_, **__: answer)
    with pytest.raises(TrecxError, match=r"it leads to http://127\.0\.0\.1/a\.zip, which is not encrypted"):
        fetch("https://127.0.0.1/a.zip", tmp_path)


def test_a_folder_that_cannot_be_written(site: tuple[str, Path], tmp_path: Path) -> None:
    (site[1] / "a.zip").write_bytes(CONTENT)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TrecxError, match=r"file cannot be read or written: (Not a directory|File exists)"):
        fetch(f"{site[0]}/a.zip", tmp_path / "file")


def test_download_that_breaks_goes_on_where_it_stopped(site: tuple[str, Path], tmp_path: Path) -> None:
    url, root = site
    (root / "a.zip").write_bytes(CONTENT)
    sha = file_sha256(root / "a.zip")
    Handler.breaks = 1
    with pytest.raises(TrecxError, match=r"a\.zip cannot be downloaded .*: run the command again to go on"):
        fetch(f"{url}/a.zip", tmp_path / "d", sha)
    assert names(tmp_path / "d") == ["a.zip.part", "a.zip.part.json"]
    got = fetch(f"{url}/a.zip", tmp_path / "d", sha)
    assert Handler.ranges == ["", "bytes=150000-"]
    assert got.read_bytes() == CONTENT
    assert fetch(f"{url}/a.zip", tmp_path / "d", sha) == got  # without asking again
    assert len(Handler.ranges) == 2


def test_server_that_does_not_resume(site: tuple[str, Path], tmp_path: Path) -> None:
    url, root = site
    (root / "a.zip").write_bytes(CONTENT)
    (tmp_path / "a.zip.part").write_bytes(CONTENT[:1000])
    Handler.resumes = False
    assert fetch(f"{url}/a.zip", tmp_path).read_bytes() == CONTENT


def test_part_that_was_already_complete(site: tuple[str, Path], tmp_path: Path) -> None:
    url, root = site
    (root / "a.zip").write_bytes(CONTENT)
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    assert fetch(f"{url}/a.zip", tmp_path).read_bytes() == CONTENT


def test_wrong_checksum_keeps_nothing(site: tuple[str, Path], tmp_path: Path) -> None:
    url, root = site
    (root / "a.zip").write_bytes(CONTENT)
    with pytest.raises(TrecxError, match="the download was deleted"):
        fetch(f"{url}/a.zip", tmp_path / "d", "0" * 64)
    assert names(tmp_path / "d") == []


def test_first_download_without_a_published_checksum_is_trusted(
    site: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, root = site
    (root / "a.zip").write_bytes(CONTENT)
    got = fetch(f"{url}/a.zip", tmp_path)
    assert "no published checksum" in capsys.readouterr().err
    assert json.loads((tmp_path / download.CHECKSUMS).read_text()) == {"a.zip": file_sha256(got)}
    got.unlink()
    (root / "a.zip").write_bytes(OTHER)
    with pytest.raises(TrecxError, match=r"checksums\.json has from the first download: the download was deleted"):
        fetch(f"{url}/a.zip", tmp_path)


def test_no_network(tmp_path: Path) -> None:
    with pytest.raises(TrecxError, match=r"http://127\.0\.0\.1:9/a\.zip cannot be downloaded \(.*refused"):
        fetch("http://127.0.0.1:9/a.zip", tmp_path)


def test_address_that_does_not_exist(site: tuple[str, Path], tmp_path: Path) -> None:
    with pytest.raises(TrecxError, match=r"cannot be downloaded \(Not Found\)"):
        fetch(f"{site[0]}/none.zip", tmp_path)


def test_full_disk_is_seen_before_the_start(site: tuple[str, Path], tmp_path: Path) -> None:
    url, root = site
    (root / "a.zip").write_bytes(CONTENT)
    with pytest.raises(TrecxError, match=r"a\.zip needs 1000000\.0 GB in .* make room or set TRECX_DATA"):
        fetch(f"{url}/a.zip", tmp_path / "d", spare=10**15)
    assert names(tmp_path / "d") == []
    need_space(tmp_path / "not" / "there", 1, "nothing")


# --- CIFAR-10


def test_cifar10_from_an_archive(site: tuple[str, Path], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    url, root = site
    rng = np.random.default_rng(0)
    batches = {f"data_batch_{k}": 20 for k in range(1, 6)} | {"test_batch": 10}
    md5 = {}
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as tar:
        for name, size in (batches | {"batches.meta": 0}).items():
            entry = {
                "data": rng.integers(0, 256, (size, 3072), dtype=np.uint8),
                "labels": [k % 10 for k in range(size)],
            }
            content = pickle.dumps(entry if size else {"label_names": list("abcdefghij")})
            md5[name] = hashlib.md5(content).hexdigest()
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    archive = root / "cifar-10-python.tar.gz"
    monkeypatch.setattr(CIFAR10, "url", f"{url}/{archive.name}")
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5[name]] for name in batches if name != "test_batch"])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5["batches.meta"]})
    monkeypatch.setattr(cifar10, "SHA256", file_sha256(archive))
    prepare("cifar10")
    found = load("cifar10")
    assert found.x_train.shape == (90, 32, 32, 3)
    assert found.x_val.shape == (10, 32, 32, 3)
    assert found.x_test.dtype == np.uint8
    assert found.y_test.tolist() == list(range(10))


# --- Speech Commands


def recording(clip: np.ndarray, rate: int = 16_000, channels: int = 1, width: int = 2) -> bytes:
    """A wav file, by default 16-bit mono."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(clip.astype("<i2").tobytes())
    return buffer.getvalue()


def tar_gz(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_speech_commands_from_archives(site: tuple[str, Path], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, root = site
    rng = np.random.default_rng(0)
    clip = {
        name: rng.integers(-9000, 9000, size)
        for name, size in {
            "_background_noise_/white_noise.wav": 40_000,  # starts at 0, 8000, 16000
            "_background_noise_/running_tap.wav": 32_000,  # starts at 0, 8000: not at 16000
            "yes/a_nohash_0.wav": 16_000,
            "yes/b_nohash_0.wav": 11_000,
            "yes/c_nohash_0.wav": 16_000,
            "bed/a_nohash_0.wav": 16_000,
            "down/b_nohash_0.wav": 16_000,
        }.items()
    }
    files = {name: recording(samples) for name, samples in clip.items()}
    files["validation_list.txt"] = b"yes/b_nohash_0.wav\ndown/b_nohash_0.wav\n"
    files["testing_list.txt"] = b"yes/c_nohash_0.wav\n"
    tar_gz(root / "main.tar.gz", files)
    test = {
        name: recording(clip["yes/c_nohash_0.wav"]) for name in ("yes/c.wav", "_silence_/1.wav", "_unknown_/bed.wav")
    }
    tar_gz(root / "test.tar.gz", test)
    for part in ("main", "test"):
        monkeypatch.setattr(speech_commands, part.upper(), f"{url}/{part}.tar.gz")
        monkeypatch.setattr(speech_commands, f"{part.upper()}_SHA256", file_sha256(root / f"{part}.tar.gz"))
    monkeypatch.setattr(speech_commands, "_BATCH", 2)
    prepare("speech_commands")
    found = load("speech_commands")
    assert [KWS.classes[k] for k in found.y_train] == ["silence"] * 3 + ["yes", "unknown"]
    assert [KWS.classes[k] for k in found.y_val] == ["silence"] * 2 + ["yes", "down"]
    assert [KWS.classes[k] for k in found.y_test] == ["yes", "silence", "unknown"]
    noise = clip["_background_noise_/white_noise.wav"]
    expected = np.stack([*(noise[k : k + 16000] for k in (0, 8000, 16000)), clip["yes/a_nohash_0.wav"]])
    np.testing.assert_allclose(found.x_train[:4], mfcc(expected), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.x_val[2:3], mfcc(clip["yes/b_nohash_0.wav"][None]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"rate": 8000}, "8000, 1, 2"),
        ({"rate": 44_100}, "44100, 1, 2"),
        ({"channels": 2}, "16000, 2, 2"),
        ({"width": 1}, "16000, 1, 1"),
        ({"width": 3}, "16000, 1, 3"),
    ],
)
def test_recordings_of_another_form_are_refused_and_not_taken_for_16_khz(
    tmp_path: Path, form: dict[str, int], told: str
) -> None:
    clip = recording(np.arange(48_000) % 99, **form)
    lists = {"validation_list.txt": b"", "testing_list.txt": b""}
    tar_gz(tmp_path / "main.tar.gz", lists | {"yes/a.wav": clip})
    message = rf"yes/a\.wav in .*main\.tar\.gz is no 16-bit recording at 16 kHz with one channel \(\({told}\)"
    with pytest.raises(TrecxError, match=message):
        speech_commands.read(tmp_path / "main.tar.gz", tmp_path / "main.tar.gz")
    (tmp_path / "a.wav").write_bytes(clip)
    with pytest.raises(TrecxError, match=rf"a\.wav is no 16-bit recording at 16 kHz .* \(\({told}\)"):
        read_sound(tmp_path / "a.wav")


@pytest.mark.parametrize("content", [b"", b"RIFF", b"no sound at all", recording(np.arange(9))[:30]])
def test_damaged_recording(tmp_path: Path, content: bytes) -> None:
    lists = {"validation_list.txt": b"", "testing_list.txt": b""}
    tar_gz(tmp_path / "main.tar.gz", lists | {"yes/a.wav": content})
    with pytest.raises(TrecxError, match=r"yes/a\.wav in .*main\.tar\.gz is no 16-bit recording .* \(.+\)$"):
        speech_commands.read(tmp_path / "main.tar.gz", tmp_path / "main.tar.gz")


def test_capitals_in_names_make_no_unknown_words(tmp_path: Path) -> None:
    clip = recording(np.arange(16_000) % 99)
    files = {"validation_list.txt": b"yes/b.wav\nNo/b.wav\n", "testing_list.txt": b"yes/c.wav\n"}
    for name in ("Yes/a.wav", "Yes/B.WAV", "YES/c.wav", "no/b.wav", "Bed/a.wav", "_Background_Noise_/Running_Tap.wav"):
        files[name] = recording(np.arange(17_000) % 99) if "Noise" in name else clip
    tar_gz(tmp_path / "main.tar.gz", files)
    tar_gz(tmp_path / "test.tar.gz", {"Yes/c.wav": clip, "_Silence_/1.wav": clip, "_Unknown_/bed.wav": clip})
    found = speech_commands.read(tmp_path / "main.tar.gz", tmp_path / "test.tar.gz")
    assert [KWS.classes[k] for k in found["y_train"]] == ["yes", "unknown"]
    assert [KWS.classes[k] for k in found["y_val"]] == ["yes", "no", "silence"]
    assert [KWS.classes[k] for k in found["y_test"]] == ["yes", "silence", "unknown"]


def test_speech_commands_has_the_official_numbers_of_silent_clips(shared: Callable[[str], Path]) -> None:
    soundfile = pytest.importorskip("soundfile")
    noises = sorted(shared("data/speech_commands/audio/_background_noise_").glob("*.flac"))
    count = {f.stem: len(range(0, soundfile.info(f).frames - 16000, 8000)) for f in noises}
    assert count.pop("running_tap") == 10_102 - 9_981  # the official list has 9 981 clips
    assert sum(count.values()) == 85_511 - (105_829 - 9_981 - 11_005)


def test_damaged_speech_archive(tmp_path: Path) -> None:
    tar_gz(tmp_path / "whole.tar.gz", {"validation_list.txt": b"", "yes/a.wav": recording(np.arange(16000) % 99)})
    with pytest.raises(TrecxError, match=r"whole\.tar\.gz has no validation_list\.txt or no testing_list\.txt"):
        speech_commands.read(tmp_path / "whole.tar.gz", tmp_path / "whole.tar.gz")
    (tmp_path / "cut.tar.gz").write_bytes((tmp_path / "whole.tar.gz").read_bytes()[:-200])
    with pytest.raises(TrecxError, match=r"cut\.tar\.gz is damaged"):
        speech_commands.read(tmp_path / "cut.tar.gz", tmp_path / "cut.tar.gz")


# --- Visual Wake Words


def box(image: int, width: float, height: float, category: int = 1, iscrowd: int = 0) -> dict:
    return {"image_id": image, "category_id": category, "bbox": [3, 3, width, height], "iscrowd": iscrowd}


IMAGES = {  # id: the boxes of a 200 x 100 picture; 2.5 % of it are 500
    1: [box(1, 50, 50)],
    2: [box(2, 20, 20)],  # small: left out
    3: [box(3, 20, 20), box(3, 26, 20)],  # one of two is large
    4: [box(4, 150, 90, iscrowd=1)],  # only a crowd: nobody
    5: [],
    6: [box(6, 150, 90, category=18)],  # a dog
    7: [box(7, 25, 20)],  # exactly 2.5 %: left out
    8: [box(8, 50, 50)],
    9: [],
}


def instances(images: list[int]) -> dict:
    return {
        "images": [{"id": k, "file_name": f"COCO_{k:012d}.jpg", "width": 200, "height": 100} for k in images],
        "annotations": [annotation for k in images for annotation in IMAGES[k]],
    }


def test_person_rule() -> None:
    assert vww.labels(instances(list(IMAGES))) == {1: 1, 3: 1, 4: 0, 5: 0, 6: 0, 8: 1, 9: 0}


def test_crowd_boxes_neither_make_nor_break_a_person() -> None:
    """As in the authors' preparation: a picture with a crowd is judged by its single persons."""
    crowd = box(1, 190, 95, iscrowd=1)
    for others, label in (([], 0), ([box(1, 20, 20)], None), ([box(1, 50, 50)], 1), ([box(1, 90, 90, 18)], 0)):
        for boxes in ([crowd, *others], [*others, crowd]):
            coco = instances([1]) | {"annotations": boxes}
            assert vww.labels(coco).get(1) == label


def test_minival_is_in_neither_training_nor_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """COCO's val2017 comes from both parts of 2014; of the rest the first tenth of each class is validation."""

    def part(images: range) -> dict:
        # Of every three pictures: a large person, a small one (left out), nobody.
        boxes = [box(k, *((50, 50) if k % 3 == 0 else (20, 20))) for k in images if k % 3 < 2]
        return {"images": [describe(k) for k in images], "annotations": boxes}

    def describe(k: int) -> dict:
        return {"id": k, "file_name": f"{k:06d}.jpg", "width": 200, "height": 100}

    def numbers(archives: object, entries: list[tuple[str, str, int]], what: str) -> np.ndarray:
        return np.array([int(file[-10:-4]) for _, file, _ in entries])

    minival = [*range(0, 60, 2), *range(90, 150)]
    archives = {name: tmp_path / f"{name}.zip" for name in ("annotations2014", "annotations2017")}
    with zipfile.ZipFile(archives["annotations2014"], "w") as archive:
        archive.writestr("annotations/instances_train2014.json", json.dumps(part(range(100))))
        archive.writestr("annotations/instances_val2014.json", json.dumps(part(range(100, 200))))
    with zipfile.ZipFile(archives["annotations2017"], "w") as archive:
        content = {"images": [describe(k) for k in minival], "annotations": []}
        archive.writestr("annotations/instances_val2017.json", json.dumps(content))
    monkeypatch.setattr(vww, "_pictures", numbers)
    found = vww.read(archives)
    ids = {split: set(found[f"x_{split}"].tolist()) for split in ("train", "val", "test")}
    assert ids["test"] == {k for k in minival if k % 3 != 1}
    assert not (ids["train"] | ids["val"]) & set(minival)
    assert not ids["train"] & ids["val"]
    rest = [k for k in range(200) if k not in minival and k % 3 != 1]
    assert ids["train"] | ids["val"] == set(rest)
    for label, remainder in ((1, 0), (0, 2)):
        of_class = sorted(k for k in rest if k % 3 == remainder)  # in the order of the files, train2014 first
        held = of_class[: len(of_class) // 10]
        assert {k for k in ids["val"] if k % 3 == remainder} == set(held) != set()
        assert all(found["y_train"][found["x_train"] % 3 == remainder] == label)


def jpeg(image: int) -> bytes:
    """200 x 100, black on the left and as red as its id on the right."""
    pixels = np.zeros((100, 200, 3), dtype=np.uint8)
    pixels[:, 100:, 0] = 20 * image
    buffer = io.BytesIO()
    Image.fromarray(pixels if image != 5 else pixels[..., 0]).save(buffer, "jpeg", quality=95)  # 5 is grey, as some are
    return buffer.getvalue()


def test_vww_from_archives(site: tuple[str, Path], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, root = site
    (root / "annotations").mkdir()
    (root / "zips").mkdir()
    parts = {"train2014": [1, 2, 3, 5, 6], "val2014": [4, 7, 8, 9]}
    with zipfile.ZipFile(root / vww.ARCHIVES["annotations2014"], "w") as archive:
        for part, images in parts.items():
            archive.writestr(f"annotations/instances_{part}.json", json.dumps(instances(images)))
    with zipfile.ZipFile(root / vww.ARCHIVES["annotations2017"], "w") as archive:
        archive.writestr("annotations/instances_val2017.json", json.dumps(instances([4, 8, 9])))
    for part, images in parts.items():
        with zipfile.ZipFile(root / vww.ARCHIVES[part], "w") as archive:
            for k in images:
                archive.writestr(f"{part}/COCO_{k:012d}.jpg", jpeg(k))
    monkeypatch.setattr(vww, "COCO", url)
    monkeypatch.setattr(vww, "_SIZE", 0)
    monkeypatch.setattr(vww, "_PREPARED", 0)
    prepare("vww96")
    with np.load(folder / "vww96.npz") as found:
        red = {
            split: np.rint(found[f"x_{split}"][:, 48, 72, 0] / 20).astype(int).tolist() for split in ("train", "test")
        }
        assert red == {"train": [5, 6, 1, 3], "test": [4, 8, 9]}  # non-persons first
        assert found["y_train"].tolist() == [0, 0, 1, 1]
        assert found["y_test"].tolist() == [0, 1, 0]
        assert found["x_train"].shape == (4, 96, 96, 3)
        assert found["x_val"].shape == (0, 96, 96, 3)  # a tenth of two
        assert found["x_train"][1, 48, 20].max() < 20  # nothing was cut off on the left
    names = json.loads((paths.DOWNLOADS / download.CHECKSUMS).read_text())
    assert sorted(names) == sorted(path.rsplit("/", 1)[-1] for path in vww.ARCHIVES.values())


def test_vww_needs_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(folder.parent)._replace(free=10**9)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(TrecxError, match=r"Visual Wake Words needs 28\.0 GB in .*, where 1\.0 GB are free"):
        prepare("vww96")
