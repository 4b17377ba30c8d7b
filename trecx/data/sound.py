"""Recordings as the benchmark has them: one channel, 16 kHz, 16 bits."""

import wave
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from trecx.data.mfcc import RATE
from trecx.errors import TrecxError


def read_wav(file: Path | BinaryIO, name: object) -> NDArray[np.int16]:
    """Return the samples (n,) of a WAV file that error messages call `name`.

    Nothing is converted: at another rate or width the features would be others than those that networks were trained
    on. Raises TrecxError when it is no such recording.
    """
    try:
        with wave.open(str(file) if isinstance(file, Path) else file) as sound:
            form = (sound.getframerate(), sound.getnchannels(), sound.getsampwidth())
            promised, content = sound.getnframes(), sound.readframes(sound.getnframes())
        if form != (RATE, 1, 2):
            problem = f"{form}: rate in Hz, channels, bytes a sample"
        elif len(content) != 2 * promised:
            problem = f"it ends too early: of {promised} samples {len(content) // 2} are there"
        else:
            return np.frombuffer(content, dtype="<i2")
    except (OSError, EOFError, ValueError, wave.Error) as error:
        problem = " ".join(str(error).split()) or "it ends too early"
    raise unfit(name, problem)


def unfit(name: object, problem: object) -> TrecxError:
    """The error for a recording of another form."""
    return TrecxError(f"{name} is no 16-bit recording at 16 kHz with one channel ({problem})")
