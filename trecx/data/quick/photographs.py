"""The photographs that are installed with scikit-image and scikit-learn. Nothing here downloads."""

import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trecx.errors import TrecxError

# name: (package, file inside it). Only files that both packages' wheels carry themselves.
PHOTOGRAPHS = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "galaxies": ("skimage", "data/hubble_deep_field.jpg"),
    "retina": ("skimage", "data/retina.jpg"),
    "tissue": ("skimage", "data/ihc.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "temple": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
}
_INSTALL = {"skimage": "scikit-image", "sklearn": "scikit-learn"}
# Every photograph is cut into a grid of blocks, and every block belongs to one split.
COARSE = {"train": 15, "val": 3, "test": 7}  # of 5 x 5 blocks
PLAIN = 8.0  # largest deviation of grey values in a block that shows nothing, such as the dark around the retina
FINE = {"train": 38, "val": 12, "test": 14}  # of 8 x 8 blocks: more of them, so validation resembles test


def bundled(package: str, file: str) -> Path:
    """Return the path of a file inside an installed package, without importing it; TrecxError when it is not there."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise TrecxError(f"this data set needs {_INSTALL[package]}: run `pip install {_INSTALL[package]}`")
    path = Path(spec.submodule_search_locations[0]) / file
    if not path.is_file():
        raise TrecxError(f"{path} is missing from the installed {_INSTALL[package]}: install a version that has it")
    return path


def photograph(name: str) -> NDArray[np.uint8]:
    """Return the photograph called `name` (a key of PHOTOGRAPHS) as RGB, H x W x 3."""
    from PIL import Image

    with Image.open(bundled(*PHOTOGRAPHS[name])) as image:
        return np.asarray(image.convert("RGB"))


def blocks(
    name: str, rng: np.random.Generator, shares: Mapping[str, int] = COARSE
) -> dict[str, list[NDArray[np.uint8]]]:
    """Cut a photograph into blocks and deal them to train, val and test, so that no pixel is in two splits.

    `shares` says how many blocks each split gets, less the plain ones, in which there is nothing to see; their sum
    is the square of the blocks along a side.
    """
    whole = photograph(name)
    grid = math.isqrt(sum(shares.values()))
    height, width = whole.shape[0] // grid, whole.shape[1] // grid
    cut = [
        whole[row * height : (row + 1) * height, column * width : (column + 1) * width]
        for row in range(grid)
        for column in range(grid)
    ]
    cut = [block for block in cut if block.std() > PLAIN]
    ends = np.rint(np.cumsum([0, *shares.values()]) * len(cut) / grid**2).astype(int)
    order = rng.permutation(len(cut))
    return {split: [cut[k] for k in order[a:b]] for split, a, b in zip(shares, ends, ends[1:], strict=False)}


def crop(block: NDArray[np.uint8], size: int, rng: np.random.Generator, smallest: float = 0.5) -> NDArray[np.uint8]:
    """Return a random square of a block as size x size pixels; its side is from `smallest` to 1 of the block's."""
    from PIL import Image

    height, width = block.shape[:2]
    side = rng.uniform(smallest, 1.0) * min(height, width)
    left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
    image = Image.fromarray(block).resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    return np.asarray(image)
