"""quick_faces: is there a face in a 96 x 96 scene? A stand-in for Visual Wake Words, built in seconds.

Scenes are crops of photographs without people. For 'person', one of the 100 faces (25 x 25 grey, from Labeled Faces
in the Wild) of scikit-image's `lfw_subset` is pasted in. Half of the 'no person' scenes stay empty, which is easy to
see; into the others goes a grey piece of a photograph with the brightness and contrast of a face, tinted, scaled,
turned and blended in the same way. The 100 pictures without a face in `lfw_subset` are not used: most are black bars,
which a network learns at once, and some show part of a face.
"""

import numpy as np
from numpy.typing import NDArray

from trecx.data.quick.photographs import blocks, bundled, crop

SIZES = {"train": 2400, "val": 500, "test": 1000}
SCENES = ("cat", "coffee", "rocket", "galaxies", "retina", "tissue", "motorcycle", "flower")  # nobody is in these
FACES = {"train": range(65), "val": range(65, 75), "test": range(75, 100)}  # of the 100, after a shuffle
SIDE = 96
PATCH = 25
EMPTY = 0.5  # share of the scenes without a face into which nothing is pasted
_SEED = 20_230_510


def build() -> dict[str, NDArray]:
    """Return x_* uint8 (N, 96, 96, 3) and y_* uint8 (1: face), half of each class.

    No face and no part of a photograph is in two of train, val and test.
    """
    rng = np.random.default_rng(_SEED)
    faces = np.load(bundled("skimage", "data/lfw_subset.npy"))[rng.permutation(100)]
    scenes = [blocks(name, rng) for name in SCENES]
    arrays: dict[str, NDArray] = {}
    for split, size in SIZES.items():
        y = rng.permutation(np.arange(size) % 2).astype(np.uint8)
        backgrounds = [block for scene in scenes for block in scene[split]]
        x = np.empty((size, SIDE, SIDE, 3), dtype=np.uint8)
        for i, label in enumerate(y):
            patch = faces[rng.choice(FACES[split])]
            if not label:
                patch = _without_face(patch, backgrounds[rng.integers(len(backgrounds))], rng)
            empty = not label and rng.random() < EMPTY
            scene = crop(backgrounds[rng.integers(len(backgrounds))], SIDE, rng)
            x[i] = _place(patch, scene, 0 if empty else rng.uniform(0.9, 1), rng)
        arrays[f"x_{split}"], arrays[f"y_{split}"] = x, y
    return arrays


def _without_face(face: NDArray, block: NDArray[np.uint8], rng: np.random.Generator) -> NDArray:
    """Return a patch without a face, with the mean and the spread of grey of `face` (25 x 25, 0 to 1)."""
    grey = crop(block, PATCH, rng).mean(axis=2) / 255
    return np.clip((grey - grey.mean()) / max(grey.std(), 0.01) * face.std() + face.mean(), 0, 1)


def _place(patch: NDArray, scene: NDArray[np.uint8], strength: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blend a grey patch (0 to 1) into a scene, as a soft oval of opacity `strength` at a random place."""
    from PIL import Image

    side = int(rng.integers(64, 95))
    image = Image.fromarray(np.rint(patch * 255).astype(np.uint8))
    image = image.resize((side, side), Image.Resampling.BICUBIC).rotate(rng.uniform(-8, 8), Image.Resampling.BILINEAR)
    grey = np.asarray(image, dtype=np.float32)
    if rng.random() < 0.5:
        grey = grey[:, ::-1]
    grey = (grey - grey.mean()) * rng.uniform(0.9, 1.3) + grey.mean() * rng.uniform(0.8, 1.2)
    tint = np.array([1.1, 0.97, 0.85]) ** rng.uniform(-0.5, 1.5)
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    radius = np.sqrt((axis[:, None] / 0.95) ** 2 + (axis / 0.8) ** 2)
    alpha = (np.clip((1 - radius) / 0.25, 0, 1) * strength).astype(np.float32)[..., None]
    top, left = rng.integers(0, SIDE - side + 1, 2)
    out = scene.astype(np.float32) * np.float32(rng.uniform(0.6, 1.2))
    window = out[top : top + side, left : left + side]
    window += alpha * (grey[..., None] * tint.astype(np.float32) - window)
    out += rng.standard_normal(out.shape, dtype=np.float32) * np.float32(rng.uniform(0, 5))
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)
