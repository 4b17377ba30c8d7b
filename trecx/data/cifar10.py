"""CIFAR-10 through torchvision, which checks its md5."""

from urllib.error import URLError

import numpy as np
from numpy.typing import NDArray

from trecx import paths
from trecx.data.download import need_space
from trecx.errors import TrecxError


def build() -> dict[str, NDArray]:
    """Return x_* uint8 (N, 32, 32, 3) and y_* uint8 for train (50 000) and test (10 000), in the official order.

    Raises TrecxError: no network, a wrong checksum, a full disk.
    """
    from torchvision.datasets import CIFAR10

    need_space(paths.DOWNLOADS, 700_000_000, "CIFAR-10")
    arrays: dict[str, NDArray] = {}
    for split in ("train", "test"):
        try:
            part = CIFAR10(paths.DOWNLOADS, train=split == "train", download=True)
        except (URLError, OSError, RuntimeError, EOFError) as error:
            raise TrecxError(f"CIFAR-10 cannot be downloaded to {paths.DOWNLOADS}: {error}") from error
        arrays[f"x_{split}"], arrays[f"y_{split}"] = part.data, np.array(part.targets, dtype=np.uint8)
    return arrays
