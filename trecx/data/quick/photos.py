"""quick_photos: which of ten photographs a 32 x 32 crop was cut from. A stand-in for CIFAR-10, built in seconds."""

import numpy as np
from numpy.typing import NDArray

from trecx.data.quick.photographs import FINE, PHOTOGRAPHS, blocks, crop

SIZES = {"train": 4000, "val": 600, "test": 2000}
CLASSES = tuple(PHOTOGRAPHS)
_SEED = 20_230_509


def build() -> dict[str, NDArray]:
    """Return x_* uint8 (N, 32, 32, 3) and y_* uint8 for train, val and test, the ten classes equally often in each."""
    rng = np.random.default_rng(_SEED)
    parts = [blocks(name, rng, FINE) for name in CLASSES]
    arrays: dict[str, NDArray] = {}
    for split, size in SIZES.items():
        y = rng.permutation(np.arange(size) % len(CLASSES)).astype(np.uint8)
        x = np.stack([crop(parts[k][split][rng.integers(len(parts[k][split]))], 32, rng) for k in y])
        arrays[f"x_{split}"], arrays[f"y_{split}"] = _disturb(x, rng), y
    return arrays


def _disturb(x: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Flip, and change colour, contrast, brightness and noise, so that colour alone does not give the class away."""

    def draw(low: float, high: float, *shape: int) -> NDArray[np.float32]:
        return rng.uniform(low, high, (len(x), 1, 1, 1, *shape)[:4]).astype(np.float32)

    flip = rng.random(len(x)) < 0.5
    out = np.where(flip[:, None, None, None], x[:, :, ::-1], x).astype(np.float32)
    grey = out.mean(axis=3, keepdims=True)
    out = grey + draw(0.1, 0.8) * (out - grey)
    mean = out.mean(axis=(1, 2), keepdims=True)
    out = (out - mean) * draw(0.4, 1.3) + mean * draw(0.6, 1.2) + draw(-25, 25)
    out += rng.standard_normal(out.shape, dtype=np.float32) * draw(0, 10)
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)
