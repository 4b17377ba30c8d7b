"""Speak words with eSpeak NG, as a program of its own: `python -m trecx.data.quick.speak OUT.npz`.

eSpeak NG is under GPL-3.0. It is optional, it comes with the package `espeakng-loader`, and nothing imports this
module: `words` runs it as a separate process and reads the clips that it leaves. OUT.npz has `clips` (N, 16000) int16
at 16 kHz, the word in the middle; `word` (N,) the word as text; `voice` (N,) the voice as text.
"""

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from math import gcd
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trecx.errors import TrecxError

RATE = 16_000
ACCENTS = ("en", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-us-nyc", "en-029")
COMMANDS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
# The other words of Speech Commands v2: the benchmark's "unknown".
OTHERS = (
    "backward", "bed", "bird", "cat", "dog", "eight", "five", "follow", "forward", "four", "happy", "house", "learn",
    "marvin", "nine", "one", "seven", "sheila", "six", "three", "tree", "two", "visual", "wow", "zero",
)  # fmt: skip
TAKES = 4  # utterances of each command by each voice
_SEED = 20_230_511
_SYNCHRONOUS, _UTF8 = 2, 1  # espeak_AUDIO_OUTPUT, character encoding
_SPEED, _PITCH, _PITCH_RANGE = 1, 3, 4  # espeak_PARAMETER


def main(out: str) -> None:
    """Write the clips of every voice to `out`. Raises TrecxError when eSpeak NG is not installed."""
    speak, voices = _start()
    rng = np.random.default_rng(_SEED)
    clips, words, names = [], [], []
    for voice in voices:
        spoken = [*COMMANDS * TAKES, *rng.choice(OTHERS, TAKES)]
        for word in spoken:
            clips.append(_one_second(speak(f"{rng.choice(ACCENTS)}+{voice}", word, rng)))
            words.append(word)
            names.append(voice)
    np.savez(out, clips=np.stack(clips), word=np.array(words), voice=np.array(names))


def _start() -> tuple[Callable[[str, str, np.random.Generator], tuple[NDArray[np.int16], int]], list[str]]:
    """Return speak(voice, word, rng) -> (samples, samples a second), and the names of the voice variants."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise TrecxError("the spoken words need eSpeak NG: run `pip install espeakng-loader`") from error
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    data = espeakng_loader.get_data_path()
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, str(data).encode(), 0)
    if rate <= 0:
        raise TrecxError("eSpeak NG does not start: run `pip install --force-reinstall espeakng-loader`")
    heard: list[bytes] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def listen(samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int) -> int:
        if samples and count > 0:
            heard.append(ctypes.string_at(samples, 2 * count))
        return 0

    library.espeak_SetSynthCallback(listen)

    def speak(voice: str, word: str, rng: np.random.Generator) -> tuple[NDArray[np.int16], int]:
        assert listen  # ctypes keeps no reference to it
        heard.clear()
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise TrecxError(f"eSpeak NG has no voice {voice!r}: install another version of espeakng-loader")
        library.espeak_SetParameter(_SPEED, int(rng.integers(120, 230)), 0)
        library.espeak_SetParameter(_PITCH, int(rng.integers(20, 81)), 0)
        library.espeak_SetParameter(_PITCH_RANGE, int(rng.integers(20, 81)), 0)
        # Breath and roughness are random, from a generator of the library's own that starts differently every time.
        library.espeak_ng_SetRandSeed(ctypes.c_long(int(rng.integers(1, 2**31))))
        text = word.encode() + b"\0"
        library.espeak_Synth(text, ctypes.c_size_t(len(text)), 0, 0, 0, _UTF8, None, None)
        return np.frombuffer(b"".join(heard), dtype=np.int16), rate

    return speak, sorted(path.name for path in (Path(data) / "voices" / "!v").iterdir())


@cache
def _low_pass(factor: int) -> NDArray[np.float64]:
    """Return the filter that SciPy's resample_poly uses by default and would design anew for every clip."""
    from scipy.signal import firwin

    return firwin(20 * factor + 1, 1 / factor, window=("kaiser", 5.0))


def _one_second(spoken: tuple[NDArray[np.int16], int]) -> NDArray[np.int16]:
    """Trim silence, resample to 16 kHz, and put the word into the middle of one second (a longer one is cut)."""
    from scipy.signal import resample_poly

    samples, rate = spoken
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > 200)
    if len(loud):
        samples = samples[loud[0] : loud[-1] + 1]
    common = gcd(rate, RATE)
    up, down = RATE // common, rate // common
    wave = resample_poly(samples.astype(np.float64), up, down, window=_low_pass(max(up, down)))[:RATE]
    before = (RATE - len(wave)) // 2
    wave = np.pad(wave, (before, RATE - len(wave) - before))
    return np.clip(np.rint(wave), -32768, 32767).astype(np.int16)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except TrecxError as error:
        sys.exit(f"error: {error}")
