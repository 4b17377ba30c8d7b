"""Where a training runs and in which arithmetic."""

import ctypes
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from trecx.training.recipes import Precision


def arithmetic(device: torch.device, asked: Precision) -> Precision:
    """The number format that a training asked to use `asked` really uses on `device`: float32 or bfloat16.

    A processor without instructions for bfloat16 emulates it, at several times the cost of float32.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities()
        native = any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last is ARM's
    return asked if native else "float32"


def keep_freed_memory() -> None:
    """Let this process use memory again that it freed, where the C library is glibc; elsewhere nothing happens.

    By default large blocks go back to the system and come again page by page, zeroed. A training step frees and
    allocates all its activations, so that a fifth of ResNet-8's step was spent on this.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mmap_threshold, trim_threshold = -3, -1  # names in malloc.h
    mallopt(mmap_threshold, 32 << 20)  # the largest that glibc takes
    mallopt(trim_threshold, 2**31 - 1)


def default_device() -> torch.device:
    """A CUDA GPU where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """bfloat16 arithmetic where the recipe asks for it and the device is made for it."""
    low = arithmetic(device, precision) == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16) if low else nullcontext()
