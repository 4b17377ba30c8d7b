"""The int8 stages as C: the operators by emx-onnx-cgen, the exit decision and the rest by hand (`trecx/deploy/c`)."""

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from trecx.deploy import graphs, needs
from trecx.errors import TrecxError
from trecx.models.methods import label_of
from trecx.tasks import get_task

HAND_WRITTEN = Path(__file__).with_name("c")


def write(folder: Path, stages: Sequence[Any], manifest: Mapping[str, Any]) -> None:
    """Write the C code of int8 stages into a new folder.

    Args:
        folder: made here.
        stages: ONNX graphs from `trecx.deploy.graphs.cut`.
        manifest: of the export.

    Raises:
        TrecxError: the generator is missing, or does not know one of the operators.
    """
    needs.packages("C code", needs.EXPORT, needs.GENERATE)
    folder.mkdir()
    for file in HAND_WRITTEN.iterdir():
        shutil.copyfile(file, folder / file.name)
    for stage in stages:
        _generate(stage, folder)
    names = [stage.graph.name for stage in stages]
    (folder / "network.mk").write_text(f"STAGES := {' '.join(f'{name}.c' for name in names)}\n")
    (folder / "network.h").write_text(_header(manifest))
    (folder / "network.c").write_text(_network(manifest, names))


def _generate(stage: Any, folder: Path) -> None:
    import onnx

    own = onnx.ModelProto()
    own.CopyFrom(stage)
    # The weights become global names in C, and two stages may have some of the same name.
    new = {weight.name: f"{own.graph.name}.{weight.name}" for weight in own.graph.initializer}
    for weight in own.graph.initializer:
        weight.name = new[weight.name]
    for node in own.graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
    model, code = (folder / f"{own.graph.name}.{suffix}" for suffix in ("onnx", "c"))
    onnx.save(own, model)
    # Everything in flash or on the stack: a threshold of 0 turns off files of weights and memory from the heap.
    command = [sys.executable, "-m", "emx_onnx_cgen", "compile", str(model), str(code)]
    command += ["--color", "never", "--model-name", own.graph.name]
    command += ["--large-temp-threshold", "0", "--large-weight-threshold", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = re.search(r"FAIL \((.{,200})", done.stdout + done.stderr)
        raise TrecxError(f"emx-onnx-cgen cannot write {own.graph.name}: {said[1] if said else done.stderr[-200:]}")
    model.unlink()
    code.write_text(_rounded_in_single(code.read_text()))


def _rounded_in_single(code: str) -> str:
    """The generated C with convolutions' float results rounded as floats: the same values.

    The generator rounds them as doubles, which a Cortex-M4F computes in software: a third of all its instructions.
    """
    return code.replace("float rounded = ref_scalar_f64_nearbyint(scaled)", "float rounded = nearbyintf(scaled)")


def _header(manifest: Mapping[str, Any]) -> str:
    rule = manifest["rule"]
    return "\n".join(
        [
            "/* Sizes of this network. Made by `python -m trecx export`. */",
            "#ifndef NETWORK_H",
            "#define NETWORK_H",
            "",
            f"#define STAGES {len(manifest['stages'])}",
            f"#define CLASSES {manifest['classes']}",
            f"#define SAMPLE_BYTES {prod(manifest['input']['shape'])}",
            "#ifndef THRESHOLD",
            "#define THRESHOLD 0.9f /* of bare.c: choose your own */",
            "#endif",
            f"#define LEAVES_AT_THRESHOLD {int(rule == '>=')} /* a sample leaves if its confidence {rule} threshold */",
            *_mixing(manifest),
            "",
            "#endif",
            "",
        ]
    )


def _mixing(manifest: Mapping[str, Any]) -> list[str]:
    if not manifest["mix"]:
        return []
    return [
        f"#define FIRST {manifest['first']} /* stages of the first network */",
        f"#define MIX {manifest['mix']!r}f /* share of its last answer in each of the second network's */",
    ]


def _network(manifest: Mapping[str, Any], names: Sequence[str]) -> str:
    """What joins the stages: the maps that pass between them, and a call of each."""
    shape = {**manifest["maps"], graphs.INPUT: [1, *manifest["input"]["shape"]]}
    logits = ("float", [1, manifest["classes"]])

    def array(name: str) -> tuple[str, str]:
        kind, sizes = logits if name.startswith("logits") else ("int8_t", shape[name])
        return kind, "".join(f"[{size}]" for size in sizes)

    lines = ["/* The stages of this network in order. Made by `python -m trecx export`. */", '#include "network.h"', ""]
    lines += ['#include "exit.h"', ""]
    for name, stage in zip(names, manifest["stages"], strict=True):
        tensors = [(f"const {array(t)[0]}", t, array(t)[1]) for t in stage["reads"]]
        tensors += [(array(t)[0], t, array(t)[1]) for t in stage["writes"]]
        lines.append(f"void {name}({', '.join(f'{kind} {t}{size}' for kind, t, size in tensors)});")
    lines += [""]
    lines += [f"static int8_t {name}{array(name)[1]}; /* between stages */" for name in manifest["maps"]]
    lines += [f"static float logits[1][{manifest['classes']}];", ""]
    lines += ["const float *run_stage(int stage, const int8_t *sample)", "{"]
    lines += ["    const void *input = sample;", "", "    (void)input;", "    switch (stage) {"]
    for k, (name, stage) in enumerate(zip(names, manifest["stages"], strict=True)):
        reads = [t if t == graphs.INPUT else f"(const void *){t}" for t in stage["reads"]]
        writes = ["logits" if t.startswith("logits") else t for t in stage["writes"]]
        lines += [f"    case {k}:", f"        {name}({', '.join(reads + writes)});", "        break;"]
    return "\n".join([*lines, "    }", "    return logits[0];", "}", ""])


def _mixing_in_words(manifest: Mapping[str, Any]) -> list[str]:
    if not manifest["mix"]:
        return []
    return [
        "",
        f"Answers are mixed: from stage {manifest['first'] + 1} on, the softmax that counts is {manifest['mix']:g} "
        f"times that of stage {manifest['first']} and {1 - manifest['mix']:g} times the stage's own.",
    ]


def readme(manifest: Mapping[str, Any], c: bool) -> str:
    """What an export is and how to use it, in Markdown."""
    task = get_task(manifest["run"]["task"])
    known = manifest["input"]
    made = " and then ".join(f"`{name}`" for name in manifest["records"])
    labels = " and then ".join(label_of(method) for method in manifest["methods"])
    shape = " x ".join(map(str, known["shape"]))
    divided = "" if known["divided_by"] == 1 else f" after division by {known['divided_by']:g}"
    lines = [
        f"# {labels} for {task.title}, in {len(manifest['stages'])} stage{'s' * (len(manifest['stages']) > 1)}",
        "",
        f"Made by `python -m trecx export` from {made}.",
        "",
        f"A stage reads the input ({shape}: channels, height, width) or the maps that an "
        "earlier stage left, and gives logits. Run them in order; stop behind the first whose largest softmax is "
        f"{manifest['rule']} your threshold. A stage that is not run costs nothing.",
        *_mixing_in_words(manifest),
        "",
        "- `float/`: ONNX, float32, for any runtime.",
        "- `int8/`: ONNX, int8 inside, logits in float32. Its input is "
        f"int8 = round(x / {known['scale']:.9g}) + {known['zero_point']}{divided}, where x is a sample as stored.",
        "- `export.json`: stages, sizes, costs, and what the checks found. Accuracy of each exit on the test part:",
        "",
        "| exit | float32 | int8 |",
        "|---|---|---|",
    ]
    found = manifest["accuracy"]["test"]
    for k, (before, after) in enumerate(zip(found["float"], found["int8"], strict=True)):
        lines.append(f"| {k + 1} | {100 * before:.2f} % | {100 * after:.2f} % |")
    if c:
        lines += [
            "",
            "## C",
            "",
            "`c/` holds the int8 stages as C99 without heap, files or an operating system.",
            "",
            "    make -C c host && c/host c/samples.bin   # on this machine (`python -m trecx device` writes samples)",
            "    make -C c firmware.elf bare.elf          # for a Cortex-M4F; MACHINE=mps2-an385 for a Cortex-M3",
            "    make -C c emulate                        # in QEMU, with instructions counted",
            "",
            "In your own program call `classify` of `exit.h`: it runs stages until one is confident. `exit.c` is the "
            "decision; `network.c` joins the stages; `bare.c` is the smallest program around them. The compilers are "
            "Debian's `gcc`, `gcc-arm-none-eabi` with `picolibc-arm-none-eabi`, and `qemu-system-arm`.",
        ]
    return "\n".join(lines) + "\n"
