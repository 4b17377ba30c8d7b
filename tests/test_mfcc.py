"""The audio features, against the benchmark's own on real clips and against stored values."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trecx.data.mfcc import FRAMES, RATE, mel_matrix, mfcc


def signal() -> np.ndarray:
    """Two tones, a chirp from 100 Hz to 7 kHz and a pulse train, one second, in [-1, 1]."""
    t = np.arange(RATE) / RATE
    tones = 0.3 * np.sin(2 * np.pi * 440 * t) + 0.2 * np.sin(2 * np.pi * 1830 * t + 1)
    chirp = 0.3 * np.sin(2 * np.pi * (100 * t + 3450 * t**2))
    return tones + chirp + 0.2 * (np.arange(RATE) % 997 == 0)


# Frames 0, 24 and 48 of the signal, from this code at the time when it gave the benchmark's features of 720 clips.
EXPECTED = np.array(
    [
        [
            -23.114099502563477,
            18.43899917602539,
            3.3317999839782715,
            8.573200225830078,
            -10.052800178527832,
            -5.23360013961792,
            4.009099960327148,
            -2.82669997215271,
            -1.0577000379562378,
            3.2509000301361084,
        ],
        [
            0.12549999356269836,
            -3.8155999183654785,
            1.2688000202178955,
            -2.3671000003814697,
            -2.4072000980377197,
            -4.588900089263916,
            2.2746999263763428,
            -0.5824000239372253,
            2.647599935531616,
            3.302299976348877,
        ],
        [
            -32.8135986328125,
            9.346500396728516,
            -4.537899971008301,
            3.3784000873565674,
            -13.070799827575684,
            -6.7565999031066895,
            4.389500141143799,
            -0.5691999793052673,
            1.6649999618530273,
            4.89769983291626,
        ],
    ]
)


def test_stored_values() -> None:
    got = mfcc(signal()[None])
    assert got.shape == (1, FRAMES, 10, 1)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[0, [0, 24, 48], :, 0], EXPECTED, rtol=1e-3, atol=1e-4)


def test_same_features_as_the_benchmark_on_real_clips(shared: Callable[[str], Path]) -> None:
    soundfile = pytest.importorskip("soundfile")
    with np.load(shared("data/speech_commands/test_mfcc.npz")) as file:
        expected = dict(zip(file["clip"], file["x"], strict=True))
    files = sorted(f for f in shared("data/speech_commands/audio").glob("*/*.flac") if f.parent.name[:3] != "_ba")
    assert len(files) == 720
    got = mfcc(np.stack([soundfile.read(file, dtype="int16")[0] for file in files]))
    want = np.stack([expected[f"{file.parent.name}/{file.stem}.wav"] for file in files])
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=3e-4)


def test_scale_and_number_type_do_not_matter() -> None:
    loud = np.rint(signal() * 20_000)
    np.testing.assert_allclose(mfcc(loud[None].astype(np.int16)), mfcc(loud[None] / 32768), rtol=1e-3, atol=1e-3)


def test_each_clip_is_divided_by_its_largest_sample_not_magnitude() -> None:
    wave = signal()
    wave[100] = -5  # only in the first frame, so a division by the magnitude would lower the others
    np.testing.assert_allclose(mfcc(wave[None])[:, 1:], mfcc(signal()[None])[:, 1:], rtol=1e-4, atol=1e-4)


def test_a_short_clip_is_padded_with_zeros_and_a_long_one_cut() -> None:
    short = signal()[:9000]
    padded = np.concatenate([short, np.zeros(7000)])
    np.testing.assert_array_equal(mfcc(short[None]), mfcc(padded[None]))
    np.testing.assert_array_equal(mfcc(np.concatenate([padded, np.zeros(500)])[None]), mfcc(padded[None]))


def test_silence_is_finite_and_flat() -> None:
    got = mfcc(np.zeros((1, RATE)))
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got[0, :, 0, 0], 2 * 40 * np.log(1e-6) / np.sqrt(80), rtol=1e-5)


def test_batches_do_not_change_the_features() -> None:
    clips = np.stack([np.roll(signal(), shift) for shift in range(0, 503 * 7, 7)])
    np.testing.assert_allclose(mfcc(clips)[[0, 499, 500, 502]], mfcc(clips[[0, 499, 500, 502]]), rtol=1e-4, atol=1e-4)


def test_mel_bands_lie_between_20_and_4000_hertz() -> None:
    weights = mel_matrix()
    assert weights.shape == (257, 40)
    assert not weights[0].any()
    hertz = np.flatnonzero(weights.any(axis=1)) * RATE / 512
    assert hertz.min() >= 20
    assert hertz.max() < 4000
    assert weights.max() <= 1
