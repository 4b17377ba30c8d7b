"""The machine: what a number was made with (package versions, hardware class), and what makes it faster."""

import ctypes
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a number."""
    found = {"python": platform.python_version()}
    for package in ("trecx", "torch", "torchvision", "numpy", "fvcore"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def hardware(device: torch.device) -> dict[str, Any]:
    """Class of the machine, without its name."""
    kind = torch.cuda.get_device_name() if device.type == "cuda" else _processor()
    return {"device": device.type, "model": kind, "cores": os.cpu_count(), "threads": torch.get_num_threads()}


def arithmetic(device: torch.device, asked: str) -> str:
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


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()
