"""Audio features of the keyword-spotting benchmark: one second of sound to 49 x 10 MFCC.

The recipe is the one of the MLPerf Tiny reference code (TensorFlow's signal operators), written with SciPy.
"""

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import dct, rfft
from scipy.signal.windows import hann

RATE = 16_000  # samples a second; also the length of every clip
WINDOW, HOP, FFT = 480, 320, 512  # samples: 30 ms, 20 ms, and the next power of two
BINS, LOWEST, HIGHEST = 40, 20.0, 4000.0  # mel bands, Hz
COEFFICIENTS = 10
FRAMES = (RATE - WINDOW) // HOP + 1
_BATCH = 500  # clips at a time: about 100 MB of frames and spectra


def mfcc(wave: ArrayLike) -> NDArray[np.float32]:
    """Return the features (N, 49, 10, 1), float32, of clips (N, samples) at 16 kHz, of any number type and scale.

    Every clip is divided by its largest sample (not the largest magnitude, as in the reference code), then cut or
    padded with zeros to one second. Frames of 480 samples every 320, periodic Hann window, 512-point FFT, magnitude,
    40 triangular mel bands from 20 to 4000 Hz, ln(x + 1e-6), DCT-II, the first 10 coefficients. A clip without any
    positive sample is not divided, where the reference would give NaN.
    """
    clips = np.atleast_2d(np.asarray(wave))
    out = np.empty((len(clips), FRAMES, COEFFICIENTS, 1), dtype=np.float32)
    for start in range(0, len(clips), _BATCH):
        out[start : start + _BATCH, :, :, 0] = _features(clips[start : start + _BATCH])
    return out


def _features(clips: NDArray) -> NDArray[np.float32]:
    wave = clips[:, :RATE].astype(np.float32)
    peak = clips.max(axis=1, keepdims=True).astype(np.float32)
    wave /= np.where(peak > 0, peak, 1)
    wave = np.pad(wave, ((0, 0), (0, RATE - wave.shape[1])))
    frames = np.lib.stride_tricks.sliding_window_view(wave, WINDOW, axis=1)[:, ::HOP]
    window = hann(WINDOW, sym=False).astype(np.float32)
    spectrum = np.abs(rfft(frames * window, n=FFT, axis=-1))
    mel = np.log(spectrum @ mel_matrix() + np.float32(1e-6))
    return dct(mel, type=2, axis=-1)[..., :COEFFICIENTS] / np.float32(np.sqrt(2 * BINS))


@cache
def mel_matrix() -> NDArray[np.float32]:
    """Return the (257, 40) weights from FFT bins to mel bands.

    The triangles are straight lines on the mel axis 1127 ln(1 + f / 700), as in TensorFlow, which also leaves out
    the 0 Hz bin.
    """

    def to_mel(hertz: ArrayLike) -> NDArray[np.float64]:
        return 1127.0 * np.log1p(np.asarray(hertz, dtype=np.float64) / 700.0)

    bins = to_mel(np.linspace(0, RATE / 2, FFT // 2 + 1))[:, None]
    edges = np.linspace(to_mel(LOWEST), to_mel(HIGHEST), BINS + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    weights = np.maximum(0, np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)))
    weights[0] = 0
    return weights.astype(np.float32)
