"""Visual Wake Words: COCO 2014 at 96 x 96, 'person' or not (annotations CC BY 4.0, images under their Flickr terms).

The rule (Chowdhery et al. 2019, with the threshold that the authors' test set has): 'person' if the box of a person
covers more than 2.5 % of the picture; a picture with persons but none that large is left out; all others are 'no
person'. Boxes of crowds are passed over, as in the authors' preparation: a picture with nobody but a crowd is 'no
person'. The test set is COCO's val2017, a part of the 2014 pictures and therefore kept out of training.
Validation is the first tenth of each class by file name, as in the authors' code.
"""

import io
import json
import zipfile
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trecx import paths
from trecx.data.download import fetch, need_space
from trecx.errors import TrecxError

COCO = "https://s3.amazonaws.com/images.cocodataset.org"  # what that host serves, where its name is certified
ARCHIVES = {
    "annotations2014": "annotations/annotations_trainval2014.zip",
    "annotations2017": "annotations/annotations_trainval2017.zip",
    "train2014": "zips/train2014.zip",
    "val2014": "zips/val2014.zip",
}
SIDE = 96
SMALLEST = 0.025  # of the picture's area
PERSON = 1  # COCO's category id, and the class index
_SIZE = 21_000_000_000  # bytes, of the four archives
_PREPARED = 7_000_000_000  # bytes of the prepared file, twice: it replaces an older one


def build() -> dict[str, NDArray]:
    """Return x_* uint8 (N, 96, 96, 3) and y_* uint8 for train, val and test. Downloads 21 GB, holds 4 GB in memory.

    Raises TrecxError: no network, a full disk, a damaged archive.
    """
    here = sum(file.stat().st_size for file in paths.DOWNLOADS.glob("*2014.zip*"))
    need_space(paths.DOWNLOADS, max(0, _SIZE - here) + _PREPARED, "Visual Wake Words")
    return read({name: fetch(f"{COCO}/{path}", paths.DOWNLOADS) for name, path in ARCHIVES.items()})


def read(archives: dict[str, Path]) -> dict[str, NDArray]:
    """Return the arrays of `build` from COCO's archives, by the keys of ARCHIVES."""
    minival = {image["id"] for image in _annotations(archives["annotations2017"], "instances_val2017.json")["images"]}
    chosen: dict[str, list[tuple[str, str, int]]] = {"train": [], "val": [], "test": []}  # archive, file, label
    rest: dict[int, list[tuple[str, str, int]]] = {0: [], PERSON: []}
    for part in ("train2014", "val2014"):
        coco = _annotations(archives["annotations2014"], f"instances_{part}.json")
        names = {image["id"]: image["file_name"] for image in coco["images"]}
        for image, label in labels(coco).items():
            entry = (part, f"{part}/{names[image]}", label)
            (chosen["test"] if image in minival else rest[label]).append(entry)
    for entries in rest.values():
        entries.sort(key=lambda entry: entry[1])
        held = len(entries) // 10
        chosen["val"] += entries[:held]
        chosen["train"] += entries[held:]
    chosen["test"].sort(key=lambda entry: entry[1])
    arrays: dict[str, NDArray] = {}
    for split, entries in chosen.items():
        arrays[f"x_{split}"] = _pictures(archives, entries, split)
        arrays[f"y_{split}"] = np.array([label for _, _, label in entries], dtype=np.uint8)
    return arrays


def labels(coco: dict[str, Any]) -> dict[int, int]:
    """Return {image id: 0 or 1} under this data set's rule, from a COCO instances file; left-out ones are absent."""
    area = {image["id"]: image["width"] * image["height"] for image in coco["images"]}
    largest: dict[int, float] = {}
    for box in coco["annotations"]:
        if box["category_id"] == PERSON and not box.get("iscrowd"):
            image, (_, _, width, height) = box["image_id"], box["bbox"]
            largest[image] = max(largest.get(image, 0.0), width * height / area[image])
    return {image: int(image in largest) for image in area if largest.get(image, 1.0) > SMALLEST}


def _annotations(archive: Path, file: str) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(archive) as folder:
            return json.loads(folder.read(f"annotations/{file}"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise TrecxError(f"{archive} has no readable {file} ({error}): delete it and run the command again") from error


def _pictures(archives: dict[str, Path], entries: Collection[tuple[str, str, int]], what: str) -> NDArray[np.uint8]:
    from PIL import Image
    from tqdm import tqdm

    def picture(entry: tuple[str, str, int]) -> NDArray[np.uint8]:
        part, file, _ = entry
        try:
            with Image.open(io.BytesIO(opened[part].read(file))) as image:
                return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS))
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise TrecxError(f"{archives[part]} has no readable {file} ({error}): delete it and start again") from error

    out = np.empty((len(entries), SIDE, SIDE, 3), dtype=np.uint8)
    opened = {}
    try:
        for part in ("train2014", "val2014"):
            opened[part] = zipfile.ZipFile(archives[part])
        with ThreadPoolExecutor() as pool:  # decoding releases Python's lock
            for i, pixels in enumerate(tqdm(pool.map(picture, entries), total=len(entries), desc=what)):
                out[i] = pixels
    except zipfile.BadZipFile as error:
        raise TrecxError(f"{archives[part]} is damaged ({error}): delete it and run the command again") from error
    finally:
        for archive in opened.values():
            archive.close()
    return out
