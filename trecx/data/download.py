"""Fetch large archives: resumed where they stopped, checked, with a progress bar, nothing half-done left as done."""

import hashlib
import http.client
import json
import shutil
import sys
import urllib.error
import urllib.request
from pathlib import Path

from trecx.errors import TrecxError
from trecx.files import sync, whole_file

_CHUNK = 1 << 20
_TIMEOUT = 60  # seconds without a byte
CHECKSUMS = "checksums.json"  # sha256 of archives without a published one, as of their first download


def fetch(url: str, folder: Path, sha256: str | None = None, spare: int = 0) -> Path:
    """Download `url` into `folder` and return the file; one that is there already is taken as it is.

    Unfinished downloads stay as NAME.part and go on from there. Without a known `sha256` the checksum of the first
    download is written to checksums.json in `folder`, and later downloads must have the same ("trust on first use").
    `spare` bytes must be free besides the file itself. Raises TrecxError: no network, disk full, wrong checksum.
    """
    target = folder / url.rsplit("/", 1)[-1]
    if target.exists():
        return target
    part = target.with_name(target.name + ".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _transfer(url, part, spare)
        got = file_sha256(part)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise TrecxError(f"{url} cannot be downloaded ({reason}): run the command again to go on") from error
    except OSError as error:
        raise TrecxError(f"{part} cannot be written: {error.strerror or error}") from error
    expected = sha256 or _first_use(folder).get(target.name)
    if expected and got != expected:
        part.unlink()
        raise TrecxError(f"{url} has the sha256 {got}, not {expected}: the download was deleted, try again")
    if not expected:
        print(f"{target.name}: no published checksum, sha256 {got} recorded in {folder / CHECKSUMS}", file=sys.stderr)
        known = json.dumps(_first_use(folder) | {target.name: got}, indent=1)
        with whole_file(folder / CHECKSUMS) as file:
            file.write(f"{known}\n".encode())
    sync(part)
    part.replace(target)
    sync(folder)
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


def _transfer(url: str, part: Path, spare: int) -> None:
    from tqdm import tqdm

    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        whole = error.headers.get("Content-Range", "").rpartition("/")[2]
        if error.code == 416 and have and whole == str(have):
            return  # it was complete and only not renamed
        if error.code == 416:
            part.unlink()
        raise
    with response:
        if response.status != 206:
            have = 0  # the server does not resume
        length = response.headers.get("Content-Length")
        if length:
            need_space(part.parent, int(length) + spare, part.stem)
        total = have + int(length) if length else None
        with (
            part.open("ab" if have else "wb") as file,
            tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.stem) as bar,
        ):
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if total and part.stat().st_size != total:
        raise ConnectionError(f"the connection ended at {part.stat().st_size} of {total} bytes")


def _first_use(folder: Path) -> dict[str, str]:
    path = folder / CHECKSUMS
    try:
        return json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise TrecxError(f"{path} is damaged: delete it to trust the next downloads") from error
