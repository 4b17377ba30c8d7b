"""Fetch large archives: resumed where they stopped, checked, with a progress bar, nothing half-done left as done.

An unfinished download is NAME.part, with NAME.part.json beside it: what the server said of the whole. If the server
answers a request for the rest with anything but that rest, the whole is fetched into NAME.new, and NAME.part stays
until NAME.new is complete and verified.
"""

import hashlib
import http.client
import json
import re
import shutil
import ssl
import sys
import urllib.error
import urllib.request
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from trecx.errors import TrecxError
from trecx.files import locked, sync, whole_file

_CHUNK = 1 << 20
_TIMEOUT = 60  # seconds without a byte
CHECKSUMS = "checksums.json"  # sha256 of archives without a published one, as of their first download


def fetch(url: str, folder: Path, sha256: str | None = None, spare: int = 0) -> Path:
    """Download `url` into `folder` unless it is there, and return the file, which has the expected checksum.

    Without a known `sha256` the checksum of the first complete download is written to checksums.json in `folder`, and
    the file must have it ever after ("trust on first use"). `spare` bytes must be free besides the file itself.
    Another process that fetches it is waited for.

    Raises:
        TrecxError: no network, disk full, an answer that is not the archive, a wrong checksum. What was downloaded
            stays for the next call unless it was complete and wrong.
    """
    target = folder / url.rsplit("/", 1)[-1]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".locks" / f"{target.name}.lock", f"another process fetches {target.name}: waiting"):
            expected = sha256 or _first_use(folder).get(target.name)
            if target.exists():
                _hold_against(target, expected, folder / CHECKSUMS if sha256 is None else None)
            else:
                _download(url, target, expected, pinned=sha256 is not None, spare=spare)
            for work in _unfinished(target):
                _drop(work)
    except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise TrecxError(f"{url} cannot be downloaded ({reason}): run the command again to go on") from error
    except OSError as error:
        raise TrecxError(f"{error.filename or folder} cannot be read or written: {error.strerror or error}") from error
    return target


def need_space(folder: Path, size: int, what: str) -> None:
    """Raise TrecxError unless `size` bytes are free where `folder` is (or will be)."""
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < size:
        raise TrecxError(
            f"{what} needs {size / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free: "
            "make room or set TRECX_DATA to a folder on another disk"
        )


def file_sha256(path: Path) -> str:
    """Return the sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hold_against(target: Path, expected: str | None, recorded: Path | None) -> None:
    """Raise TrecxError unless a file that lies there has the expected checksum, if there is one."""
    if expected and (got := file_sha256(target)) != expected:
        where = f", which {recorded} has from its first download" if recorded else ""
        raise TrecxError(f"{target} has the sha256 {got}, not {expected}{where}: delete it and run the command again")


def _unfinished(target: Path) -> tuple[Path, Path]:
    return target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.new")


def _drop(work: Path) -> None:
    work.unlink(missing_ok=True)
    _note(work).unlink(missing_ok=True)


def _download(url: str, target: Path, expected: str | None, pinned: bool, spare: int) -> None:
    """Fetch and verify, then put the file in its place."""
    part, new = _unfinished(target)
    work = new if new.exists() else part
    known = _read_note(work)
    # A rest is worth having if it is certain to belong to what is here: by its checksum or by what the server says.
    resumes = (
        work.exists() and work.stat().st_size > 0 and (pinned or bool(known.get("validator") or known.get("total")))
    )
    complete = _resume(url, work, known, spare) if resumes else None
    if complete is None:
        work = new if part.exists() and part.stat().st_size > 0 else part
        complete = _whole(url, work, spare)
    if not complete and not pinned:
        raise ConnectionError("the server does not say how long the file is, so it may be cut short")
    if not _is_archive(work, target.name):
        _drop(work)
        raise TrecxError(f"{url} is answered with something that is no {target.suffix} file: try again later")
    got = file_sha256(work)
    if expected and got != expected:
        if not complete and not resumes:
            raise ConnectionError("the server does not say how long the file is, and its checksum is not the right one")
        _drop(work)
        where = "" if pinned else f", which {target.parent / CHECKSUMS} has from the first download"
        raise TrecxError(f"{url} has the sha256 {got}, not {expected}{where}: the download was deleted, try again")
    if not expected:
        _record(target, got)
    sync(work)
    work.replace(target)
    sync(target.parent)


def _resume(url: str, work: Path, known: dict[str, Any], spare: int) -> bool | None:
    """Fetch the rest of `work`. True: it is complete. False: the server does not say. None: fetch it anew."""
    have = work.stat().st_size
    headers = {"Range": f"bytes={have}-"}
    if known.get("validator"):
        headers["If-Range"] = known["validator"]
    try:
        response = _open(url, headers)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        whole = (error.headers.get("Content-Range") or "").rpartition("/")[2]
        # It was complete and only not renamed; or it is longer than the file on the server.
        return True if whole == str(have) and known.get("total") in (None, have) else None
    with response:
        span = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range") or "")
        if response.status != 206 or not span or int(span[1]) != have:
            return None
        total = known.get("total") if span[3] == "*" else int(span[3])
        if known.get("total") not in (None, total) or (total is not None and int(span[2]) != total - 1):
            return None
        if total is not None:
            need_space(work.parent, total - have + spare, work.stem)
        _receive(response, work, have, total)
        return total is not None


def _whole(url: str, work: Path, spare: int) -> bool:
    """Fetch all of `work`, over what is there. Return whether it is certain to be complete."""
    with _open(url, {}) as response:
        if response.status != 200:
            raise ConnectionError(f"the server answers with status {response.status}")
        if "html" in (response.headers.get("Content-Type") or ""):
            raise ConnectionError("the server answers with a page, not with a file; a network may ask for a login")
        total = response.length  # None: there is none, or it is no number
        if total is not None:
            need_space(work.parent, total + spare, work.stem)
        tag, changed = response.headers.get("ETag") or "", response.headers.get("Last-Modified")
        validator = changed if not tag or tag.startswith("W/") else tag  # a weak one does not promise the same bytes
        with whole_file(_note(work)) as file:
            file.write(json.dumps({"url": url, "validator": validator, "total": total}).encode() + b"\n")
        _receive(response, work, 0, total)
        return total is not None or response.chunked  # a cut-off chunk is an error of its own


def _open(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    response: http.client.HTTPResponse = urllib.request.urlopen(
        urllib.request.Request(url, headers=headers), timeout=_TIMEOUT
    )
    if url.startswith("https:") and not response.url.startswith("https:"):
        response.close()
        raise ConnectionError(f"it leads to {response.url}, which is not encrypted")
    return response


def _receive(response: http.client.HTTPResponse, work: Path, have: int, total: int | None) -> None:
    from tqdm import tqdm

    with (
        work.open("ab" if have else "wb") as file,
        tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=work.stem) as bar,
    ):
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
    if total is not None and work.stat().st_size != total:
        raise ConnectionError(f"the connection ended at {work.stat().st_size} of {total} bytes")


def _is_archive(path: Path, name: str) -> bool:
    """Whether a file is of the kind that its name says; a cut-off zip is not, its index stands at the end."""
    if name.endswith(".zip"):
        return zipfile.is_zipfile(path)
    with path.open("rb") as file:
        return not name.endswith((".gz", ".tgz")) or file.read(2) == b"\x1f\x8b"


def _note(work: Path) -> Path:
    return work.with_name(f"{work.name}.json")


def _read_note(work: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        note = json.loads(_note(work).read_text())
        if isinstance(note, dict):
            return note
    return {}


def _record(target: Path, got: str) -> None:
    path = target.parent / CHECKSUMS
    print(f"{target.name}: no published checksum, sha256 {got} recorded in {path}", file=sys.stderr)
    known = json.dumps(_first_use(target.parent) | {target.name: got}, indent=1)
    with whole_file(path) as file:
        file.write(f"{known}\n".encode())


def _first_use(folder: Path) -> dict[str, str]:
    path = folder / CHECKSUMS
    if not path.exists():
        return {}
    try:
        known = json.loads(path.read_text())
    except ValueError:
        known = None
    if not isinstance(known, dict) or not all(isinstance(v, str) for v in known.values()):
        raise TrecxError(f"{path} is damaged: delete it to trust the next downloads")
    return known
