"""CIFAR-10: the official archive, unpacked and checked by torchvision."""

import warnings

import numpy as np
from numpy.typing import NDArray

from trecx import paths
from trecx.data.download import fetch
from trecx.errors import TrecxError

SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"


def build() -> dict[str, NDArray]:
    """Return x_* uint8 (N, 32, 32, 3) and y_* uint8 for train (50 000) and test (10 000), in the official order.

    Raises TrecxError: no network, a wrong checksum, a full disk.
    """
    from torchvision.datasets import CIFAR10

    fetch(CIFAR10.url, paths.DOWNLOADS, SHA256, spare=400_000_000)
    arrays: dict[str, NDArray] = {}
    for split in ("train", "test"):
        try:
            with warnings.catch_warnings():
                # torchvision unpacks without a filter, of which Python 3.12 warns; the archive is the pinned one.
                warnings.filterwarnings("ignore", "Python 3.14 will, by default, filter", DeprecationWarning)
                # It finds the archive, checks its md5 and that of every file inside.
                part = CIFAR10(paths.DOWNLOADS, train=split == "train", download=True)
        except (OSError, RuntimeError, EOFError) as error:
            raise TrecxError(f"CIFAR-10 cannot be unpacked in {paths.DOWNLOADS}: {error}") from error
        arrays[f"x_{split}"], arrays[f"y_{split}"] = part.data, np.array(part.targets, dtype=np.uint8)
    return arrays
