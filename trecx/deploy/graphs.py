"""ONNX graphs of an early-exit network: traced, quantised to int8, and cut into one graph an exit.

A network whose `forward` gives the logits of every exit, cheapest first, is traced as one graph and cut behind each
exit's logits: stage k holds what exit k needs and no earlier one does. What later stages read of it, such as the map
at the tap, becomes an output; nothing is computed twice. So several exits, heads that look at an earlier exit's maps,
and a network inside another one are all cut by the same rule, and stages run in order without a branch in any graph.
"""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trecx.deploy import needs
from trecx.models.network import inference

INPUT = "input"
OPSET = 18
_QUANTISED = "_quantized"  # what ONNX Runtime's quantiser adds to the name of a tensor


@dataclass(frozen=True)
class Affine:
    """How int8 numbers stand for real ones: real = scale * (int8 - zero_point)."""

    scale: float
    zero_point: int

    def to_int8(self, x: NDArray[Any]) -> NDArray[np.int8]:
        """The nearest of the 256 levels, halves to even."""
        return np.clip(np.rint(x / np.float32(self.scale)) + self.zero_point, -128, 127).astype(np.int8)


def logits_name(exit_index: int) -> str:
    """Name of the logits of an exit, counted from 0."""
    return f"logits{exit_index + 1}"


def trace(network: nn.Module, input_shape: tuple[int, int, int], first_exit: int = 0) -> Any:
    """The ONNX graph of a network for one sample: `input` (1, C, H, W) -> `logits1`, `logits2`, ... (1, classes).

    Batch norm is folded into the convolution before it, padding into the convolution behind it.

    Args:
        network: its `forward` gives the logits of every exit, cheapest first.
        input_shape: channels, height and width.
        first_exit: what its first exit counts as, where another network runs before it.

    Raises:
        TrecxError: a package is missing.
    """
    needs.packages("an ONNX graph", needs.EXPORT)
    import onnx

    x = torch.zeros(1, *input_shape)
    with inference(network), warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")  # the exporter's own, about its insides
        names = [logits_name(first_exit + k) for k in range(len(network(x)))]
        program = torch.onnx.export(
            network, (x,), input_names=[INPUT], output_names=names, opset_version=OPSET, dynamo=True, verbose=False
        )
    assert program is not None
    return onnx.shape_inference.infer_shapes(program.model_proto)


def quantise(model: Any, samples: NDArray[np.float32]) -> tuple[Any, Affine]:
    """Static int8 quantisation: weights per output channel, activations by the extremes seen on `samples`.

    The input becomes int8, and how it stands for real numbers is returned. Logits stay float32: they are the 32-bit
    sums of the dense layer in real units, so no confidence is rounded to one of 256 levels.

    Args:
        model: graph from `trace`.
        samples: network inputs (n, C, H, W), of the training part.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.operators.direct_q8 import Direct8BitOp
    from onnxruntime.quantization.registry import QLinearOpsRegistry

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter(samples)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            row = next(self.rows, None)
            return None if row is None else {INPUT: row[None]}

    # The first channels of an int8 map are int8 values with the map's own scale; the quantiser would go through floats.
    QLinearOpsRegistry["Slice"] = Direct8BitOp
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, path = (Path(folder) / f"{kind}.onnx" for kind in ("float", "int8"))
        onnx.save(model, source)  # a file, because a model in memory would be emptied of its weights
        quantize_static(
            source,
            path,
            Reader(),
            quant_format=QuantFormat.QOperator,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
        quantised = onnx.load(path)
    affine = _int8_input(quantised)
    _float_logits(quantised)
    _shapes_of(quantised, model)
    return quantised, affine


def cut(model: Any, first_map: int = 0) -> list[Any]:
    """One graph an exit, cheapest first, see the module's docstring; tensors between them are called maps1, maps2, ...

    A graph's inputs are `input` and maps of earlier graphs; its outputs are its logits and the maps that later ones
    read. `first_map` maps are those of other networks.
    """
    import onnx

    graph = model.graph
    maker = {name: k for k, node in enumerate(graph.node) for name in node.output}
    stage_of: dict[int, int] = {}  # node -> stage
    for stage, output in enumerate(graph.output):
        waiting = [output.name]
        while waiting:
            node = maker.get(waiting.pop())
            if node is not None and node not in stage_of:
                stage_of[node] = stage
                waiting += graph.node[node].input
    rename, crossing = _crossing(graph, stage_of, maker, first_map)
    known = {info.name: info for info in (*graph.value_info, *graph.input, *graph.output)}
    weights = {weight.name: weight for weight in graph.initializer}
    stages = []
    for stage, output in enumerate(graph.output):
        nodes = []
        for k in sorted(k for k, s in stage_of.items() if s == stage):
            node = onnx.NodeProto()
            node.CopyFrom(graph.node[k])
            node.input[:] = [rename.get(name, name) for name in node.input]
            node.output[:] = [rename.get(name, name) for name in node.output]
            nodes.append(node)
        read, made = ({name for node in nodes for name in getattr(node, side)} for side in ("input", "output"))

        def info(name: str) -> Any:
            copy = onnx.ValueInfoProto()
            copy.CopyFrom(known[crossing.get(name, name)])
            copy.name = name
            return copy

        inputs = [name for name in (INPUT, *crossing) if name in read and name not in made]
        outputs = [output.name, *(name for name in crossing if name in made)]
        inner = [name for name in made if name in known and name not in outputs]
        own = onnx.helper.make_graph(
            nodes,
            output.name.replace("logits", "stage"),
            [info(name) for name in inputs],
            [info(name) for name in outputs],
            [weights[name] for name in sorted(read & weights.keys())],
            value_info=[info(name) for name in sorted(inner)],
        )
        stages.append(
            onnx.helper.make_model(own, opset_imports=model.opset_import, ir_version=min(model.ir_version, 10))
        )
    return stages


def _crossing(
    graph: Any, stage_of: dict[int, int], maker: dict[str, int], first_map: int
) -> tuple[dict[str, str], dict[str, str]]:
    """Tensors that a later stage than their own reads: name -> new name, and new name -> name, in order of making."""
    crossing: dict[str, str] = {}
    rename: dict[str, str] = {}
    read = {(name, stage) for k, stage in stage_of.items() for name in graph.node[k].input if name in maker}
    late = {name for name, stage in read if maker[name] in stage_of and stage > stage_of[maker[name]]}
    for name in sorted(late, key=maker.__getitem__):
        rename[name] = f"maps{first_map + len(rename) + 1}"
        crossing[rename[name]] = name
    return rename, crossing


def weight_bytes(stages: list[Any]) -> int:
    """Bytes of all weights, biases, scales and zero points of a network, shared ones once."""
    sizes = {}
    for stage in stages:
        for weight in stage.graph.initializer:
            sizes[weight.name] = len(_array(weight).tobytes())
    return sum(sizes.values())


def shapes(stage: Any) -> dict[str, list[int]]:
    """Shape of every input and output of a stage."""
    return {info.name: _sizes(info) for info in (*stage.graph.input, *stage.graph.output)}


def _sizes(info: Any) -> list[int]:
    return [dim.dim_value for dim in info.type.tensor_type.shape.dim]


def peak_bytes(stage: Any) -> int:
    """The most bytes of inputs and results that are needed at one time, nodes running in order: memory reused at best.

    Inputs count from the start, outputs to the end.
    """
    import onnx

    graph = stage.graph
    sizes = {}
    for info in (*graph.value_info, *graph.input, *graph.output):
        tensor = info.type.tensor_type
        item = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
        sizes[info.name] = item * prod(dim.dim_value for dim in tensor.shape.dim)
    last = {name: k for k, node in enumerate(graph.node) for name in (*node.input, *node.output)}
    last |= {info.name: len(graph.node) for info in graph.output}
    first = {name: k for k, node in enumerate(graph.node) for name in node.output}
    alive = [
        sum(size for name, size in sizes.items() if first.get(name, 0) <= k <= last.get(name, 0))
        for k in range(len(graph.node))
    ]
    return max(alive)


def operations(stage: Any) -> dict[str, int]:
    """What an int8 stage computes: multiplications by kind of layer, and values that are rounded to int8.

    conv: of ordinary convolutions; pointwise: of 1x1 ones and dense layers; depthwise; outputs: values of convolutions,
    each brought from 32 bits to 8; other: values of all other operators.
    """
    sizes = {**shapes(stage), **{info.name: _sizes(info) for info in stage.graph.value_info}}
    kernels = {weight.name: [*weight.dims] for weight in stage.graph.initializer}
    found = dict.fromkeys(("conv", "pointwise", "depthwise", "outputs", "other"), 0)
    for node in stage.graph.node:
        values = prod(sizes[node.output[0]])
        if node.op_type == "QLinearConv":
            kernel, groups = kernels[node.input[3]], {a.name: a.i for a in node.attribute}.get("group", 1)
            kind = "depthwise" if groups > 1 else "pointwise" if kernel[2:] == [1, 1] else "conv"
            found[kind] += values * prod(kernel[1:])
            found["outputs"] += values
        elif node.op_type == "QGemm":
            found["pointwise"] += prod(kernels[node.input[3]])
        else:
            found["other"] += values
    return found


def save(stages: list[Any], folder: Path) -> None:
    """Write stages as stage1.onnx, stage2.onnx, ... into a new folder."""
    import onnx

    folder.mkdir()
    for stage in stages:
        onnx.checker.check_model(stage)
        onnx.save(stage, folder / f"{stage.graph.name}.onnx")


def _int8_input(model: Any) -> Affine:
    """Make the input int8: what quantised it goes, and how it did is returned."""
    graph = model.graph
    (node,) = (node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == INPUT)
    constants = {weight.name: _array(weight) for weight in graph.initializer}
    affine = Affine(float(constants[node.input[1]]), int(constants[node.input[2]]))
    for reader in graph.node:
        reader.input[:] = [INPUT if name == node.output[0] else name for name in reader.input]
    graph.node.remove(node)
    graph.input[0].type.tensor_type.elem_type = _int8()
    return affine


def _float_logits(model: Any) -> None:
    """Have each exit's dense layer give float32 sums instead of int8 ones, as QGemm does without an output scale."""
    graph = model.graph
    for output in graph.output:
        (last,) = (node for node in graph.node if output.name in node.output)
        (dense,) = (node for node in graph.node if last.input[0] in node.output)
        assert (last.op_type, dense.op_type) == ("DequantizeLinear", "QGemm"), "an exit ends in a dense layer"
        dense.input[7:] = ["", ""]  # scale and zero point of the output
        dense.output[0] = output.name
        graph.node.remove(last)


def _shapes_of(quantised: Any, model: Any) -> None:
    """Note type and shape of every int8 tensor, which are those of the float tensor it stands for."""
    import onnx

    known = {info.name: info for info in (*model.graph.value_info, *model.graph.output)}
    del quantised.graph.value_info[:]
    for node in quantised.graph.node:
        for name in node.output:
            info = known.get(name.removesuffix(_QUANTISED))
            if name.endswith(_QUANTISED) and info is not None:
                shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
                quantised.graph.value_info.append(onnx.helper.make_tensor_value_info(name, _int8(), shape))


def _array(weight: Any) -> NDArray[Any]:
    import onnx

    array: NDArray[Any] = onnx.numpy_helper.to_array(weight)
    return array


def _int8() -> int:
    import onnx

    return int(onnx.TensorProto.INT8)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep exporter and quantiser from printing and logging advice that is of no use here."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
