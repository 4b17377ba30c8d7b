"""Exports: one sentence where something is missing; ONNX, int8 and C against PyTorch and ONNX Runtime."""

import json
import shutil
import subprocess
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from trecx import cli, data, paths
from trecx.analysis import device as tables
from trecx.analysis.device import baselines
from trecx.data import Dataset
from trecx.deploy import device, graphs, needs
from trecx.deploy.export import Export, export
from trecx.deploy.graphs import Affine
from trecx.deploy.records import published
from trecx.deploy.source import HAND_WRITTEN
from trecx.errors import TrecxError
from trecx.experiments.composed import cascade
from trecx.experiments.records import Record, open_record, pack, write
from trecx.experiments.runs import Run, cost_of, identity, inputs, labels
from trecx.models.build import build, input_shape
from trecx.models.methods import METHODS
from trecx.models.network import inference
from trecx.report.catalogue import ON_A_DEVICE
from trecx.training.loop import log_probs
from trecx.training.weights import save_weights

from .small import ALONE, CURVE, write_device_record

needs_onnx = pytest.mark.skipif(
    not all(map(find_spec, (*needs.EXPORT, *needs.GENERATE))), reason="needs `pip install -e '.[deploy]'`"
)
needs_arm = pytest.mark.skipif(
    not all(map(shutil.which, needs.CORTEX_M)), reason="needs gcc-arm-none-eabi, picolibc-arm-none-eabi, qemu"
)


@pytest.fixture
def small_data(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Keyword-like data in place of every data set."""
    draw = np.random.default_rng(0)
    parts: dict[str, Any] = {}
    for split, n in (("train", 48), ("val", 24), ("test", 24)):
        parts[f"y_{split}"] = np.arange(n, dtype=np.uint8) % 12
        parts[f"x_{split}"] = draw.normal(size=(n, 49, 10, 1)).astype(np.float32)
    made = Dataset(
        name="quick_words", title="toy", description="toy", stand_in=True, classes=(), checksum="abc", **parts
    )
    monkeypatch.setattr(data, "load", lambda name, split_seed=0: made)
    return made


def write_trained(run: Run, made: Dataset, root: Path) -> Record:
    """A record of fresh weights with what they really predict; batch norm has statistics to fold."""
    network = run.network()
    x = inputs(made, "train", run)
    with torch.no_grad():
        network.train()(x)
    network.eval()
    predictions: dict[str, Any] = {}
    for split in ("val", "test"):
        predictions[f"{split}_log_probs"] = pack(log_probs(network, inputs(made, split, run), run.task))
        predictions[f"{split}_labels"] = labels(made, split).numpy().astype(np.uint8)
    sizes = {"train": len(made.y_train), "val": len(made.y_val), "test": len(made.y_test)}
    about = {"name": run.data, "title": "toy", "checksum": "abc", "stand_in": True, "sizes": sizes}
    manifest = identity(run, "abc") | {"cost": asdict(cost_of(run)), "data": about, "seconds": 1.0}
    folder = root / run.data / run.name
    folder.mkdir(parents=True)
    write(folder, manifest, pd.DataFrame({"epoch": [1]}), predictions)
    save_weights(network, folder / "weights.safetensors")
    return Record(folder)


def test_what_is_missing_is_said_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "find_spec", lambda module: None)
    with pytest.raises(
        TrecxError, match=r"an export needs onnx, onnxruntime and onnxscript: run `pip install -e '\.\["
    ):
        export([], Path("nowhere"))
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(TrecxError, match=r"needs .*qemu-system-arm: run `apt-get install gcc-arm-none-eabi picolibc"):
        needs.programs("the Cortex-M build", needs.CORTEX_M)


@pytest.mark.parametrize("found", [False, True])
def test_a_compiler_without_its_c_library_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: bool) -> None:
    """GCC prints the path of a file that it has, and else the name that it was given."""
    for program in needs.CORTEX_M:
        script = "echo /usr/lib/picolibc.specs" if found else 'echo "${1#*=}"'
        (tmp_path / program).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    if found:
        needs.programs("the Cortex-M build", needs.CORTEX_M)
        return
    with pytest.raises(TrecxError, match=r"needs picolibc\.specs: run `apt-get install picolibc-arm-none-eabi`"):
        needs.programs("the Cortex-M build", needs.CORTEX_M)


def test_int8_by_hand() -> None:
    """Scale 0.5 and zero point 3: halves of a step go to even, and what does not fit is cut."""
    x = np.array([0, 0.25, 0.75, -0.5, 1000, -1000], dtype=np.float32)
    assert Affine(0.5, 3).to_int8(x).tolist() == [3, 3, 5, 2, 127, -128]


NETWORKS = [(method, "kws") for method, about in METHODS.items() if "kws" in about.tasks]
NETWORKS += [(m, t) for m in ("trecx_ev", "sdn_fair", "nested") for t in ("ic", "vww")] + [("two_resolutions", "vww")]
QUICKLY = ("trecx_concat", "sdn_fair")  # maps that two later stages read, and several exits


@needs_onnx
@pytest.mark.parametrize(
    ("method", "task"),
    [pytest.param(*n, marks=[pytest.mark.slow] * (n[0] not in QUICKLY or n[1] != "kws")) for n in NETWORKS],
)
def test_stages_of_every_network_give_its_logits(method: str, task: str, tmp_path: Path) -> None:
    """Cut into one graph an exit and run in order, they are the network; a stage reads nothing but earlier maps."""
    from trecx.deploy.runtime import Stages

    torch.manual_seed(0)
    network = build(task, method)
    x = torch.randn(2, *input_shape(task))
    network.train()(x)
    stages = graphs.cut(graphs.trace(network, input_shape(task)))
    assert len(stages) == network.num_exits
    graphs.save(stages, tmp_path / "float")
    ran = Stages([tmp_path / "float" / f"stage{k + 1}.onnx" for k in range(len(stages))])
    with inference(network):
        expected = torch.stack(network(x), 1).numpy()
    np.testing.assert_allclose(ran.logits(x.numpy()), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    made = {"input"}
    operators = 0
    for stage in stages:
        assert {i.name for i in stage.graph.input} <= made
        made |= {o.name for o in stage.graph.output}
        operators += sum(node.op_type == "Conv" for node in stage.graph.node)
    passes = 2 if method == "two_resolutions" else 1  # over the image: at both resolutions by the same convolutions
    assert operators == passes * sum(isinstance(m, torch.nn.Conv2d) for m in network.modules())


@needs_onnx
def test_operations_are_the_macs_of_the_cost_report(small_data: Dataset, tmp_path: Path) -> None:
    run = Run("kws", "trecx_ev")
    made = export([write_trained(run, small_data, tmp_path)], tmp_path / "out")
    counted = made.manifest["operations"]
    macs = [sum(stage[kind] for kind in ("conv", "pointwise", "depthwise")) for stage in counted]
    assert np.cumsum(macs).tolist() == list(cost_of(run).macs)


@needs_onnx
def test_confident_samples_run_no_further_stage(small_data: Dataset, tmp_path: Path) -> None:
    made = export([write_trained(Run("kws", "trecx_ev"), small_data, tmp_path)], tmp_path / "out")
    trace = made.trace("test", [1.0, 2.0])
    threshold = float(np.median(trace.scores))
    x = made.affine.to_int8(made.inputs("test"))
    labels, exits = made.stages("int8").predict(x, threshold)
    np.testing.assert_array_equal(exits, trace.leave(threshold))
    right, _ = trace.outcome(threshold)
    np.testing.assert_array_equal(labels == made.predictions["test_labels"], right)
    for kind in ("float", "int8"):
        assert np.abs(np.subtract(*made.manifest["accuracy"]["test"].values())).max() < 0.2, kind


@needs_onnx
def test_a_cascade_is_both_networks_in_a_row(small_data: Dataset, tmp_path: Path) -> None:
    narrow = write_trained(Run("kws", "baseline", width=0.25), small_data, tmp_path)
    wide = write_trained(Run("kws", "baseline"), small_data, tmp_path)
    made = export([narrow, wide], tmp_path / "out")
    assert made.manifest["stages"] == [
        {"reads": ["input"], "writes": ["logits1"]},
        {"reads": ["input"], "writes": ["logits2"]},
    ]
    first, second = (record.manifest["cost"]["macs"][0] for record in (narrow, wide))
    assert made.manifest["cost"]["macs"] == [first, first + second]
    alone = export([wide], tmp_path / "alone")
    x = made.inputs("test")
    np.testing.assert_array_equal(made.stages("float").logits(x)[:, 1], alone.stages("float").logits(x)[:, 0])


@needs_onnx
def test_a_network_that_was_cut_short_is_exported_without_what_is_left_out(
    small_data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `recommend` may name it: one exit of three, and an end before the network's own."""
    run = Run("kws", "sdn_fair", width=0.25)
    whole = write_trained(run, small_data, tmp_path)
    out, both = tmp_path / "out", tmp_path / "both"
    assert cli.main(["export", str(whole.folder), str(out), "--exits", "block1", "--end", "block3"]) == 0
    made, full = Export(out), export([whole], both)
    x, counted = made.inputs("test"), made.manifest["operations"]
    np.testing.assert_allclose(made.stages("float").logits(x), full.stages("float").logits(x)[:, [0, 2]], atol=1e-5)
    assert (
        np.cumsum([sum(s[k] for k in ("conv", "pointwise", "depthwise")) for s in counted]).tolist()
        == (made.manifest["cost"]["macs"])
    )
    assert made.manifest["cost"]["macs"][1] < full.manifest["cost"]["macs"][2]  # less the head that is left out
    assert made.manifest["bytes"]["int8"] < full.manifest["bytes"]["int8"]
    assert made.name == f"{run.name}, exit after block1, ends after block3"
    capsys.readouterr()
    for command in (["export", str(whole.folder), str(out)], ["device", str(whole.folder)]):
        assert cli.main([*command, "--end", "block9"]) == 2
        assert "unknown exit 'block9': choose one of 'block1', 'block2', 'block3'" in capsys.readouterr().err
        two = [command[0], str(whole.folder), *command[1:]]
        assert cli.main([*two, "--exits", "block1"]) == 2
        assert "exits and end cut one network short: give one record with them" in capsys.readouterr().err


@needs_onnx
@pytest.mark.slow
def test_a_cascade_that_mixes_leaves_alike_in_python_and_in_c(small_data: Dataset, tmp_path: Path) -> None:
    """Answers of the second network are three tenths the first one's, here four exits before two."""
    runs = Run("kws", "sdn_fair", width=0.25), Run("kws", "trecx_ev", width=0.5)
    pair = [write_trained(run, small_data, tmp_path) for run in runs]
    made = export(pair, tmp_path / "out", c=True, mix=0.3)
    plain = export(pair, tmp_path / "plain")
    answers, own = (np.exp(one.predictions["test_log_probs"]) for one in (made, plain))
    np.testing.assert_allclose(answers[:, :4], own[:, :4], atol=1e-6)
    np.testing.assert_allclose(answers[:, 4:], 0.3 * own[:, 3:4] + 0.7 * own[:, 4:], atol=1e-6)
    assert made.manifest["accuracy"]["test"]["float"] == cascade(*pair, 0.3).accuracies().tolist()
    assert np.subtract(made.manifest["cost"]["flops"], plain.manifest["cost"]["flops"]).tolist() == [0] * 4 + [36, 60]
    x = made.affine.to_int8(made.inputs("test"))
    device.build_host(made)
    outputs = device.run_host(made, x)
    np.testing.assert_allclose(outputs.confidence, answers.max(2), atol=1e-5)
    np.testing.assert_array_equal(outputs.labels, answers.argmax(2))
    trace = made.trace("test", range(1, 7))
    taken: set[int] = set()
    for threshold in np.quantile(trace.scores, (0.25, 0.5, 0.75), axis=0).ravel() + 1e-4:
        leaves = trace.leave(float(threshold)).tolist()
        taken |= {*leaves}
        assert made.stages("int8").predict(x, float(threshold))[1].tolist() == leaves
        assert device.exits_taken(made, x, float(threshold)) == leaves
    assert taken & {0, 1, 2}
    assert taken & {4, 5}
    assert "from stage 5 on, the softmax that counts is 0.3 times" in (tmp_path / "out" / "README.md").read_text()


@needs_onnx
def test_bad_exports_get_one_sentence(
    small_data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = write_trained(Run("kws", "baseline", width=0.25), small_data, tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    assert cli.main(["export", str(record.folder), str(tmp_path / "mine")]) == 2
    assert "is there and is no export: give a new folder" in capsys.readouterr().err
    assert cli.main(["export", *[str(record.folder)] * 3, str(tmp_path / "new")]) == 2
    assert "3 records are impossible: give one, or two for a cascade" in capsys.readouterr().err
    for share, said in (("0.3", "give two records with it"), ("1", "mix 1.0 is impossible: choose a share from 0")):
        assert cli.main(["export", str(record.folder), str(tmp_path / "new"), "--mix", share]) == 2
        assert said in capsys.readouterr().err
    made = export([record], tmp_path / "new")
    with pytest.raises(TrecxError, match=r"has no C code: export again with --c"):
        device.build_host(made)
    monkeypatch.setattr("trecx.deploy.export.FLOAT_TOLERANCE", -1.0)
    with pytest.raises(TrecxError, match="differ from PyTorch"):
        export([record], tmp_path / "new")
    assert json.loads((tmp_path / "new" / "export.json").read_text()) == made.manifest  # nothing is lost


@pytest.fixture
def in_c(small_data: Dataset, tmp_path: Path) -> Export:
    """A small network with an early exit, in C."""
    run = Run("kws", "trecx_ev", width=0.25)
    return export([write_trained(run, small_data, tmp_path)], tmp_path / "out", c=True)


@needs_onnx
@pytest.mark.slow
def test_c_on_the_host_gives_what_onnx_runtime_gives(in_c: Export) -> None:
    x = in_c.affine.to_int8(in_c.inputs("test"))
    device.build_host(in_c)
    outputs = device.run_host(in_c, x)
    assert device.compare(in_c, outputs, x)["difference"] < device.LOGIT_TOLERANCE
    trace = in_c.trace("test", [1.0, 2.0])
    np.testing.assert_allclose(outputs.confidence[:, 0], trace.scores[:, 0], atol=1e-6)
    threshold = float(np.sort(trace.scores[:, 0])[11:13].mean())
    assert device.exits_taken(in_c, x, threshold) == trace.leave(threshold).tolist()


@needs_onnx
@needs_arm
@pytest.mark.slow
def test_emulated_counts_repeat_and_the_decision_is_cheap(in_c: Export) -> None:
    x = in_c.affine.to_int8(in_c.inputs("test"))[:2]
    device.build_device(in_c, "mps2-an386")
    first, again = (device.run_device(in_c, "mps2-an386", x) for _ in range(2))
    device.compare(in_c, first, x)
    np.testing.assert_array_equal(first.instructions, again.instructions)
    np.testing.assert_array_equal(first.stack, again.stack)
    assert (first.decision < 0.01 * first.instructions.sum(1, keepdims=True)).all()
    macs = np.diff(in_c.manifest["cost"]["macs"], prepend=0)
    assert ((first.instructions > 10 * macs) & (first.instructions < 100 * macs)).all()
    # A stage holds the largest of its maps on the stack at least.
    assert (first.stack > 16 * 25 * 5).all()


def test_savings_by_hand(tmp_path: Path) -> None:
    """Half the samples leave after 600 of 1000 instructions, where the baseline runs 1000."""
    latency = {"full_ratio": 1.0, "points": [{"drop": 1, "ratio": 0.8, "shares": [0.5, 0.5]}]}
    plain = write_device_record(tmp_path, [Run("kws", "baseline")], [1000], ALONE)
    early = write_device_record(tmp_path, [Run("kws", "trecx_ev")], [600, 400], CURVE, latency=latency)
    assert early.cost("instructions").tolist() == [610, 1020]  # a decision behind each stage
    assert plain.cost("instructions").tolist() == [1000]  # none without exits
    one, none = tables.savings([early, plain]).to_dict("records")
    assert (one["drop"], one["threshold"], one["exit rate"]) == (1, 0.8, 50)
    assert one["accuracy"] == pytest.approx(86)
    assert one["FLOPs"] == one["MACs"] == pytest.approx(20)
    assert one["instructions"] == pytest.approx(100 * (1 - 815 / 1000))
    assert one["latency"] == one["FLOPs, same exits"] == pytest.approx(20)
    assert (none["drop"], none["threshold"]) == (0, 1.0)  # the final exit alone is as accurate
    assert np.isnan(none["latency"])
    silent = write_device_record(tmp_path, [Run("kws", "trecx_no_ev")], [600, 400], CURVE)
    assert "latency" not in tables.savings([silent, plain])  # no record has it
    row = tables.costs([early, plain]).to_dict("records")[1]
    assert row["decision"] == pytest.approx(1)
    assert row["first, instructions"] == pytest.approx(100 * 610 / 1020)
    assert tables.sizes([plain])["saved"][0] == pytest.approx(70)


@pytest.mark.parametrize("name", ON_A_DEVICE)
def test_published_device_records_give_every_table(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["results", "device", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_published_device_records_keep_what_was_asked_of_them() -> None:
    """int8 loses half a point at most, C gives what ONNX Runtime gives, the decision is next to nothing."""
    records = published()
    assert {run.task for record in records for run in record.runs} == {"ic", "kws", "vww"}
    known = baselines(records)
    for record in records:
        assert record.path.stat().st_size < 20_000
        checks, stages = record.manifest["checks"], record.manifest["stages"]
        assert checks["host"]["samples"] >= 100
        assert checks["emulated"]["samples"] >= 20
        assert max(check["difference"] for check in checks.values()) <= device.LOGIT_TOLERANCE
        lost = (record.accuracy("float") - record.accuracy("int8")).max()
        assert lost <= (0.015 if record.runs[0].task == "vww" else 0.005), record.name  # its test part is 1000 images
        whole = known[record.setting].cost("instructions")[-1]
        assert sum(stage["decision"] for stage in stages) < 0.01 * whole
        assert all(s["least"] <= s["instructions"] <= s["most"] for s in stages)


@needs_onnx
@needs_arm
@pytest.mark.slow
def test_a_published_count_repeats(tmp_path: Path) -> None:
    """Export and build of a published record's weights give the published firmware, which counts the same."""
    record = next(r for r in published() if r.name == "kws-trecx_ev-fast14-seed4")
    if not (paths.DATA / f"{record.runs[0].data}.npz").is_file():
        pytest.skip("needs the prepared data set speech_commands: set TRECX_DATA to its folder")
    made = export([open_record(record.name)], tmp_path / "out", c=True)
    now = device.measure(made, "mps2-an386")
    if now["versions"] != record.manifest["versions"]:
        pytest.skip("the published firmware was built with other versions")
    assert now["firmware_sha256"] == record.manifest["firmware_sha256"]
    assert now["stages"] == record.manifest["stages"]


LOOP = """
#include <stdio.h>
#include "probe.h"

int main(void)
{
    unsigned turns = 10000000u; /* of two instructions */

    probe_start();
    __asm__ volatile("1: subs %0, #1\\n bne 1b" : "+r"(turns));
    printf("%lu\\n", (unsigned long)probe_ticks());
    return 0;
}
"""


@needs_arm
@pytest.mark.slow
def test_a_loop_of_known_length_counts_as_many_instructions(tmp_path: Path) -> None:
    """Twenty million instructions are half a million ticks of SysTick; more than 2^24 ticks would wrap."""
    for file in (HAND_WRITTEN / "Makefile", HAND_WRITTEN / "probe.h", HAND_WRITTEN / "probe_cortex_m.c"):
        shutil.copy(file, tmp_path)
    (tmp_path / "main.c").write_text(LOOP)
    for empty in ("network.c", "exit.c", "exit.h", "network.h", "network.mk", "samples.bin"):
        (tmp_path / empty).write_text("")
    for machine in device.MACHINES:
        for elf in tmp_path.glob("*.elf"):
            elf.unlink()
        done = subprocess.run(
            ["make", "-s", "emulate", f"MACHINE={machine}"], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        ticks = int((done.stdout + done.stderr).split()[-1])
        assert ticks * device.INSTRUCTIONS_PER_TICK == pytest.approx(20_000_000, rel=1e-5)
