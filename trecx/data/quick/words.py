"""quick_words: ten commands, silence and unknown words, spoken by a synthesiser. A stand-in for Speech Commands."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trecx import paths
from trecx.data.mfcc import RATE, mfcc
from trecx.errors import TrecxError
from trecx.tasks import KWS

SIZES = {"train": 4000, "val": 600, "test": 2000}
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}  # of the voices
SILENCE, UNKNOWN = KWS.classes.index("silence"), KWS.classes.index("unknown")
_SEED = 20_230_512


def build() -> dict[str, NDArray]:
    """Return x_* float32 (N, 49, 10, 1) and y_* uint8 for train, val and test, the classes equally often in each.

    The voices of the three parts differ. Raises TrecxError when the clips cannot be spoken.
    """
    clips, words, voices = _speak()
    labels = np.array([KWS.classes.index(word) if word in KWS.classes else UNKNOWN for word in words])
    rng = np.random.default_rng(_SEED)
    order = rng.permutation(np.unique(voices))
    ends = np.rint(np.cumsum([0, *SHARES.values()]) * len(order)).astype(int)
    arrays: dict[str, NDArray] = {}
    for k, (split, size) in enumerate(SIZES.items()):
        heard = np.isin(voices, order[ends[k] : ends[k + 1]])
        choices = [np.flatnonzero(heard & (labels == label)) for label in range(len(KWS.classes))]
        y = rng.permutation(np.arange(size) % len(KWS.classes)).astype(np.uint8)
        x = [mfcc(_record([clips[rng.choice(choices[c])] if c != SILENCE else None for c in part], rng))
             for part in np.array_split(y, max(1, size // 500))]  # fmt: skip
        arrays[f"x_{split}"], arrays[f"y_{split}"] = np.concatenate(x), y
    return arrays


def _speak() -> tuple[NDArray[np.int16], NDArray, NDArray]:
    """Run the synthesiser in a process of its own; return its clips (N, 16000), words (N,) and voices (N,)."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "clips.npz"
        command = [sys.executable, "-m", "trecx.data.quick.speak", str(out)]
        done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise TrecxError(f"the words of quick_words were not spoken: {reason.removeprefix('error: ')}")
        with np.load(out) as file:
            return file["clips"], file["word"], file["voice"]


def _record(clips: list[NDArray[np.int16] | None], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return (N, 16000): every clip moved by up to 0.2 s, in noise 5 to 30 dB below it; None is noise alone."""
    n = len(clips)
    noise = _noise(n, rng)
    wave = np.zeros((n, RATE), dtype=np.float32)
    for i, clip in enumerate(clips):
        if clip is not None:
            wave[i] = np.roll(clip, rng.integers(-RATE // 5, RATE // 5 + 1))
    power = np.square(wave).mean(axis=1, keepdims=True)
    power[power == 0] = 1  # silence has no level of its own; the features do not depend on it
    decibel = rng.uniform(5, 30, (n, 1))
    noise *= np.sqrt(power / 10 ** (decibel / 10) / np.square(noise).mean(axis=1, keepdims=True)).astype(np.float32)
    return wave + noise


def _noise(n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return (n, 16000) noise between white and brown, as the power of its spectrum falls with f^0 to f^-2."""
    from scipy.fft import irfft, rfft

    spectrum = rfft(rng.standard_normal((n, RATE), dtype=np.float32), axis=1)
    frequency = np.arange(1, spectrum.shape[1] + 1, dtype=np.float32)
    spectrum *= frequency ** -rng.uniform(0, 1, (n, 1)).astype(np.float32)
    return irfft(spectrum, n=RATE, axis=1).astype(np.float32)
