"""What the C code of an export costs on a Cortex-M, counted in emulation, and whether it gives the right answers.

QEMU runs one instruction after the other on a clock of its own (`-icount shift=0`), so counts depend on the firmware
and the sample alone, not on the machine that emulates. They are instructions of plain scalar C: ratios between stages
and networks are results, absolute speed is not, and neither cycles nor energy are measured.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trecx.deploy import needs
from trecx.deploy.export import SEED, Export, sha256
from trecx.deploy.runtime import log_softmax
from trecx.errors import TrecxError, check_choice
from trecx.evaluation.trace import mixed

MACHINES = {"mps2-an385": "Cortex-M3", "mps2-an386": "Cortex-M4F"}
INSTRUCTIONS_PER_TICK = 40  # of SysTick at 25 MHz, where an instruction takes a nanosecond
HOST_SAMPLES = 100
EMULATED_SAMPLES = 20
# Of the largest logit: with products of scales in another order, a value half-way between two int8 steps (of a learned
# pooling, say) may fall on the other side. Most networks agree to 1e-7.
LOGIT_TOLERANCE = 2e-3
NEVER = 2.0  # a threshold that no confidence reaches
SECONDS = 900  # after which a run counts as hanging


@dataclass(frozen=True)
class Outputs:
    """What a program printed for n samples that ran every stage, (n, stages) each.

    stack: bytes; logits: (n, stages, classes); instructions and decision are in instructions, 0 on the host.
    """

    labels: NDArray[np.int64]
    confidence: NDArray[np.float32]
    instructions: NDArray[np.int64]
    decision: NDArray[np.int64]
    stack: NDArray[np.int64]
    logits: NDArray[np.float32]


def samples(export: Export, n: int) -> NDArray[np.int8]:
    """The first `n` of a fixed shuffle of the test samples, as the int8 stages take them."""
    x = export.inputs("test")
    rows = np.random.default_rng(SEED).permutation(len(x))[:n]
    return export.affine.to_int8(x[rows])


def build_host(export: Export) -> None:
    """Compile the C code for this machine; TrecxError without C code, a compiler, or success."""
    _has_c(export)
    needs.programs("the host build", needs.HOST)
    _run(["make", "-s", "host"], export.c)


def build_device(export: Export, machine: str) -> None:
    """Compile `firmware.elf`, which measures, and `bare.elf`, what a device would hold; TrecxError as `build_host`."""
    check_choice("machine", machine, MACHINES)
    _has_c(export)
    needs.programs("the Cortex-M build", needs.CORTEX_M)
    for file in ("firmware.elf", "bare.elf"):
        (export.c / file).unlink(missing_ok=True)  # of another machine, perhaps
    _run(["make", "-s", "firmware.elf", "bare.elf", f"MACHINE={machine}"], export.c)


def run_host(export: Export, x: NDArray[np.int8]) -> Outputs:
    """Run every stage of the host build on int8 samples (n, C, H, W)."""
    write_samples(export, x, NEVER)
    return _outputs(export, _run(["./host", "samples.bin"], export.c), len(x))


def run_device(export: Export, machine: str, x: NDArray[np.int8]) -> Outputs:
    """The same of `firmware.elf` under QEMU, with instructions and stack."""
    write_samples(export, x, NEVER)
    return _outputs(export, _run(["make", "-s", "emulate", f"MACHINE={machine}"], export.c), len(x))


def exits_taken(export: Export, x: NDArray[np.int8], threshold: float) -> list[int]:
    """The exit (from 0) at which the host build leaves for each sample, no stage behind it being run."""
    write_samples(export, x, threshold)
    lines = _lines(_run(["./host", "samples.bin"], export.c))
    last = {int(line[0]): int(line[1]) for line in lines}
    return [last[k] for k in range(len(x))]


def write_samples(export: Export, x: NDArray[np.int8], threshold: float) -> None:
    """Write `samples.bin`, which both programs read: number, threshold, int8 samples."""
    content = np.int32(len(x)).tobytes() + np.float32(threshold).tobytes() + np.ascontiguousarray(x).tobytes()
    (export.c / "samples.bin").write_bytes(content)


def compare(export: Export, outputs: Outputs, x: NDArray[np.int8]) -> dict[str, Any]:
    """C against ONNX Runtime: the largest difference of a logit, relative to the largest logit.

    Raises:
        TrecxError: it is more than LOGIT_TOLERANCE, or a confidence differs by more than such logits explain.
    """
    expected = export.stages("int8").logits(x)
    highest = np.abs(expected).max()
    difference = float(np.abs(outputs.logits - expected).max() / highest)
    if not difference <= LOGIT_TOLERANCE:
        raise TrecxError(
            f"the C code differs from ONNX Runtime by {difference:.2g} of the largest logit, more than "
            f"{LOGIT_TOLERANCE:g}"
        )
    known = export.manifest
    sure = np.exp(mixed(log_softmax(expected), known["mix"], known["first"])).max(2)
    # Of logits that differ by d, the largest probabilities differ by d / 2 at most; then some float rounding.
    if not np.abs(outputs.confidence - sure).max() <= difference * highest + 1e-5:
        raise TrecxError("the C code is as good as ONNX Runtime in its logits, but not in its confidences")
    return {"samples": len(x), "difference": difference, "tolerance": LOGIT_TOLERANCE}


def measure(export: Export, machine: str) -> dict[str, Any]:
    """Build, run and check an export with C on the host and on an emulated machine.

    Returns:
        machine: its name and processor. stages: instructions of each (mean, least and most over the samples), of the
        decision behind it, and bytes of stack. flash and ram: bytes of the smallest firmware around the network. checks
        and versions.

    Raises:
        TrecxError: something is missing, does not build or run, or gives other answers than ONNX Runtime.
    """
    x = samples(export, HOST_SAMPLES)
    build_host(export)
    host = compare(export, run_host(export, x), x)
    build_device(export, machine)
    few = x[:EMULATED_SAMPLES]
    ran = run_device(export, machine, few)
    emulated = compare(export, ran, few)
    stages = [
        {
            "instructions": round(ran.instructions[:, k].mean()),
            "least": int(ran.instructions[:, k].min()),
            "most": int(ran.instructions[:, k].max()),
            "decision": round(ran.decision[:, k].mean()),
            "stack": int(ran.stack[:, k].max()),
        }
        for k in range(ran.labels.shape[1])
    ]
    return {
        "machine": {"name": machine, "processor": MACHINES[machine], "instructions_per_tick": INSTRUCTIONS_PER_TICK},
        "stages": stages,
        "flash": _flash(export.c / "bare.elf"),
        "ram": _ram(export, max(stage["stack"] for stage in stages)),
        "firmware_sha256": sha256(export.c / "firmware.elf"),
        "checks": {"host": host, "emulated": emulated},
        "versions": export.manifest["versions"] | needs.package_versions(needs.GENERATE.values()) | _versions(),
    }


def _flash(elf: Path) -> dict[str, int]:
    """Bytes that a firmware has in flash: weights with their scales, code and constants, starting values of variables.

    The generator calls the arrays of a network's numbers `weight1_...`.
    """
    sizes = _sections(elf)
    symbols = (line.split() for line in _run(["arm-none-eabi-nm", "--print-size", elf.name], elf.parent).splitlines())
    weights = sum(int(line[1], 16) for line in symbols if len(line) == 4 and line[3].startswith("weight"))
    code = sizes[".init"] + sizes[".text"] - weights
    return {"weights": weights, "code": code, "data": sizes[".data"], "total": weights + code + sizes[".data"]}


def _ram(export: Export, stack: int) -> dict[str, int]:
    """Bytes of RAM: variables (input, maps between stages, logits) and the most stack that a stage used.

    Maps inside a stage lie on the stack, none on the place of another. `planned` is the least that the same order of
    operators needs if they do: input and maps that are alive at one time.
    """
    sizes = _sections(export.c / "bare.elf")
    variables = sizes[".data"] + sizes[".bss"]
    return {"variables": variables, "stack": stack, "total": variables + stack, "planned": planned_ram(export.manifest)}


def planned_ram(manifest: dict[str, Any]) -> int:
    """The most bytes of maps alive at one time, those that wait for a later stage included."""
    stages = manifest["stages"]
    most = 0
    for k, (stage, peak) in enumerate(zip(stages, manifest["activations"], strict=True)):
        made = {name for earlier in stages[:k] for name in earlier["writes"]}
        waiting = {name for later in stages[k + 1 :] for name in later["reads"]} & made - {*stage["reads"]}
        most = max(most, peak + sum(prod(manifest["maps"][name]) for name in waiting))
    return most


def _sections(elf: Path) -> dict[str, int]:
    lines = (line.split() for line in _run(["arm-none-eabi-size", "-A", elf.name], elf.parent).splitlines())
    return {line[0]: int(line[1]) for line in lines if len(line) == 3 and line[1].isdigit()}


def _versions() -> dict[str, str]:
    """The first lines that the compiler and the emulator say about themselves."""
    programs = ("arm-none-eabi-gcc", "qemu-system-arm")
    return {name: _run([name, "--version"], Path()).splitlines()[0] for name in programs}


def _has_c(export: Export) -> None:
    if not (export.c / "Makefile").is_file():
        raise TrecxError(f"{export.folder} has no C code: export again with --c")


def _run(command: Sequence[str], folder: Path) -> str:
    """What a program printed; TrecxError with its last line if it failed. QEMU prints on standard error."""
    done = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=SECONDS,
        check=False,
    )
    if done.returncode:
        said = done.stdout.strip().splitlines() or [f"exit status {done.returncode}"]
        first = next((line for line in said if "error" in line), said[-1])
        raise TrecxError(f"`{' '.join(command)}` failed in {folder}: {first}")
    return done.stdout


def _lines(printed: str) -> list[list[str]]:
    """The lines of a program's output that are about a stage; TrecxError if it did not come to its end."""
    said = printed.strip().splitlines()
    if not said or said[-1] != "done":
        raise TrecxError(f"the program stopped early: {said[-1] if said else 'it printed nothing'}")
    return [line.split() for line in said[:-1]]


def _outputs(export: Export, printed: str, n: int) -> Outputs:
    lines = _lines(printed)
    stages = len(export.manifest["stages"])
    if len(lines) != n * stages:
        raise TrecxError(f"the program printed {len(lines)} stages: {n} samples have {n * stages}")

    def floats(columns: slice) -> NDArray[np.float32]:
        words = [[int(word, 16) for word in line[columns]] for line in lines]
        return np.array(words, dtype=np.uint32).view(np.float32).reshape(n, stages, -1)

    numbers = np.array([[int(line[k]) for k in (2, 4, 5, 6)] for line in lines]).reshape(n, stages, 4)
    return Outputs(
        labels=numbers[:, :, 0],
        confidence=floats(slice(3, 4))[:, :, 0],
        instructions=INSTRUCTIONS_PER_TICK * numbers[:, :, 1],
        decision=INSTRUCTIONS_PER_TICK * numbers[:, :, 2],
        stack=numbers[:, :, 3],
        logits=floats(slice(7, None)),
    )
