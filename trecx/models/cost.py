"""What a network costs: parameters, MACs and FLOPs of every exit, counted by fvcore.

Two conventions, both cumulative over everything that runs before a sample leaves (all earlier heads
included), both for one sample in inference:

* `macs`: multiply-accumulates of convolutions and dense layers, nothing else.
* `flops`: what keras-flops reports, the convention of the paper (its reference 54): 2 per MAC, 1 per
  output element of a bias, 2 per element and 6 per channel of batch norm, 1 per element of a sum
  or product (of maps or of answers), the window per output of a pooling, 5 per class of a softmax;
  ReLU, slices, concatenation and resizing are free. Group, layer and instance norm take mean and
  variance from the sample itself, which TensorFlow counts as 4 per element (the mean 1, the variance
  3); applying them is 2 per element, 3 per mean and variance, 3 per scale, which for batch norm makes
  its 6 per channel.

`fvcore` is the figure of fvcore's default settings: MACs plus 2 per element of batch norm.

The memory of activations is `peak_activations`.
"""

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from trecx.models.build import tap_shapes
from trecx.models.cascade import Cascade
from trecx.models.network import EarlyExitNetwork, inference, one_thread

with warnings.catch_warnings():
    # fvcore scripts a loss on import and traces the model; torch announces the end of both.
    warnings.simplefilter("ignore", FutureWarning)
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import get_shape


@dataclass(frozen=True)
class Cost:
    """Cost of a network. The tuples have one entry an exit, cheapest first."""

    params: int  # with batch norm's running statistics, as Keras counts
    trainable_params: int
    macs: tuple[int, ...]
    flops: tuple[int, ...]
    fvcore: tuple[int, ...]


Network = EarlyExitNetwork | Cascade


def measure(network: Network, input_shape: tuple[int, int, int]) -> Cost:
    """Count parameters and the cumulative cost of every exit (paper Table 1), for one sample in inference.

    Args:
        network: any early-exit network or cascade; its weights do not matter and do not change.
        input_shape: channels, height and width of an input.

    Returns:
        The parameters and, an entry an exit, cheapest first, `macs` (multiply-accumulates of convolutions and dense
        layers) and `flops` (as keras-flops counts, the paper's convention), all heads on the way included.
    """
    return _cost(network, [Prefix(network, k) for k in range(network.num_exits)], input_shape)


def head_costs(network: EarlyExitNetwork, input_shape: tuple[int, int, int]) -> dict[str, Cost]:
    """Tap -> the cost of its exit head alone, softmax included: what a network without that exit does not pay.

    Costs of one entry each, for one sample in inference; `input_shape` as in `measure`.
    """
    maps = tap_shapes(network.backbone, input_shape)
    return {tap: _cost(head, [_Head(head)], maps[tap]) for tap, head in network.exits.items()}


def _cost(counted: nn.Module, prefixes: Sequence[nn.Module], input_shape: tuple[int, int, int]) -> Cost:
    """Parameters of `counted`, and the cost of each of `prefixes`."""
    params, trainable = parameters(counted)
    x = torch.zeros(1, *input_shape)
    counts = [counted_as(prefix, x, CONVENTIONS) for prefix in prefixes]
    return Cost(params, trainable, **{name: tuple(count[name] for count in counts) for name in CONVENTIONS})


def parameters(module: nn.Module) -> tuple[int, int]:
    """Parameters of a module: with batch norm's running statistics, as Keras counts, and the trainable ones alone."""
    trainable = sum(p.numel() for p in module.parameters())
    statistics = sum(2 * m.num_features for m in module.modules() if isinstance(m, nn.BatchNorm2d))
    return trainable + statistics, trainable


class Prefix(nn.Module):
    """The part of a network that runs when a sample leaves at exit `last`, with every softmax on the way."""

    def __init__(self, network: Network, last: int) -> None:
        super().__init__()
        self.network, self.last = network, last

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.network.answers(x, self.last)


class _Head(nn.Module):
    """An exit head with its softmax."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, tap: Tensor) -> Tensor:
        return self.head(tap)[1].softmax(1)


# Operators that a deployed network has no buffer of its own for: folded into the convolution before them (batch norm,
# ReLU, rounding) or behind them (padding), in place, or another view of the same values.
_NO_BUFFER = ("batch_norm", "relu", "pad", "fake_quantize", "softmax", "permute", "flatten", "view", "slice", "dropout")


def peak_activations(network: Network, input_shape: tuple[int, int, int]) -> int:
    """Peak memory of activations in bytes, one sample, one byte (int8) an element, all exits on the way.

    The largest sum, over the operators in the order in which they run, of an operator's inputs, its output and all that
    is still needed later: a shortcut, a tap while its exit runs, a cascade's input while its first network runs. Batch
    norm, activations and padding have no buffers of their own. Logits that an exit has given are not kept. It is the
    least that an arena needs; that of a runtime also holds scratch buffers.

    Args:
        network: any early-exit network or cascade.
        input_shape: channels, height and width of an input.
    """
    x = torch.zeros(1, *input_shape)
    with inference(network), one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch.jit.trace(network, x, check_trace=False, strict=False).inlined_graph
    size, first, last = [x.numel()], [0], [0]  # of each buffer, and when it is written and read for the last time
    # Value -> its buffer, by number, or a tuple of such for a list; those of parameters alone are not in it.
    (given,) = (value for value in graph.inputs() if value.type().kind() == "TensorType")
    held: dict[str, Any] = {given.debugName(): 0}
    for time, node in enumerate(graph.nodes(), start=1):
        inputs = tuple(held.get(value.debugName(), ()) for value in node.inputs())
        outputs = [value.debugName() for value in node.outputs()]
        operator = node.kind().split("::")[1].lstrip("_")
        if operator.endswith("Construct"):
            held[outputs[0]] = inputs
        elif operator.endswith("Unpack"):
            held |= zip(outputs, inputs[0], strict=True)
        elif used := _flat(inputs):
            for buffer in used:
                last[buffer] = time
            shape = node.output().type().sizes() if node.output().type().kind() == "TensorType" else None
            if not shape:
                continue  # a number, such as the size of a map
            if operator.startswith(_NO_BUFFER):
                held[outputs[0]] = next(entry for entry in inputs if entry != ())
                continue
            held[outputs[0]] = len(size)
            size.append(prod(shape))
            first.append(time)
            last.append(time)
    return max(sum(s for s, a, b in zip(size, first, last, strict=True) if a <= now <= b) for now in first)


def _flat(entry: Any) -> set[int]:
    """The numbers in nested tuples."""
    return {entry} if isinstance(entry, int) else set().union(*map(_flat, entry))


Rule = Callable[[list[Any], list[Any]], Counter[str] | float]


def count(module: nn.Module, x: Tensor, rules: dict[str, Rule]) -> int:
    """Total of fvcore's analysis of `module` in inference mode on `x`, with `rules` by operator name on top."""
    return counted_as(module, x, {"": rules})[""]


def counted_as(module: nn.Module, x: Tensor, conventions: Mapping[str, dict[str, Rule]]) -> dict[str, int]:
    """Name of a convention -> `count` under its rules; the module runs once for all of them."""
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    analysis = _Analysis(module, x, conventions)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with inference(module), one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counts = analysis.by_operator()
    return {name: round(counts[name]) for name in conventions}


class _Analysis(FlopCountAnalysis):
    """fvcore's analysis under several conventions: what it reports by operator is by convention here."""

    def __init__(self, module: nn.Module, x: Tensor, conventions: Mapping[str, dict[str, Rule]]) -> None:
        super().__init__(module, x)
        own = dict(self._op_handles)
        for kind in {*own, *(kind for rules in conventions.values() for kind in rules)}:
            taken = {name: rules.get(kind, own.get(kind)) for name, rules in conventions.items()}
            self.set_op_handle(kind, partial(self._by_convention, {name: rule for name, rule in taken.items() if rule}))

    @staticmethod
    def _by_convention(rules: dict[str, Rule], inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        counts: Counter[str] = Counter()
        for name, rule in rules.items():
            found = rule(inputs, outputs)
            counts[name] = sum(found.values()) if isinstance(found, Counter) else found  # type: ignore[assignment]
        return counts


# The rules of keras-flops. fvcore hands each the operator's inputs and outputs as traced values.
def _convolution(inputs: list[Any], outputs: list[Any]) -> float:
    kernel, out = get_shape(inputs[1]), get_shape(outputs[0])
    bias = 0 if get_shape(inputs[2]) is None else prod(out)
    return 2 * prod(kernel[1:]) * prod(out) + bias


def _dense(inputs: list[Any], outputs: list[Any]) -> float:
    features, out = get_shape(inputs[0]), get_shape(outputs[0])
    return 2 * features[-1] * prod(out) + (0 if get_shape(inputs[2]) is None else prod(out))


def _batch_norm(inputs: list[Any], outputs: list[Any]) -> float:
    out = get_shape(outputs[0])
    return 2 * prod(out) + 6 * out[1]


def _own_norm(out: list[int], pairs: int, scale: list[int] | None) -> float:
    """Of a normalisation with `pairs` means and variances of the sample itself; `scale` is the shape of its weight."""
    return 6 * prod(out) + 3 * pairs + (3 * prod(scale) if scale is not None else 0)


def _group_norm(inputs: list[Any], outputs: list[Any]) -> float:
    out = get_shape(outputs[0])
    return _own_norm(out, out[0] * inputs[1].toIValue(), get_shape(inputs[2]))


def _layer_norm(inputs: list[Any], outputs: list[Any]) -> float:
    out = get_shape(outputs[0])
    return _own_norm(out, prod(out) // prod(_sizes(inputs[1])), get_shape(inputs[2]))


def _instance_norm(inputs: list[Any], outputs: list[Any]) -> float:
    out = get_shape(outputs[0])
    from_sample = inputs[5].toIValue()  # else it has running statistics, as batch norm
    return _own_norm(out, out[0] * out[1], get_shape(inputs[1])) if from_sample else _batch_norm(inputs, outputs)


def _pool(inputs: list[Any], outputs: list[Any]) -> float:
    return prod(_sizes(inputs[1])) * prod(get_shape(outputs[0]))


def _sizes(value: Any) -> list[int]:
    """The numbers in a traced list, such as a window."""
    return [size.toIValue() for size in value.node().inputs()]


def _elements(inputs: list[Any], outputs: list[Any]) -> float:
    """One per element of maps or answers; sums of sizes, which the tracer also records, are no arithmetic."""
    out = get_shape(outputs[0])
    return prod(out) if out is not None and len(out) >= 2 else 0


def _softmax(inputs: list[Any], outputs: list[Any]) -> float:
    return 5 * prod(get_shape(outputs[0]))


def _free(inputs: list[Any], outputs: list[Any]) -> float:
    """fvcore prefers its own rule over None, so what costs nothing needs a rule that says so."""
    return 0


_RESIZING = (
    "aten::upsample_nearest2d",
    "aten::upsample_bilinear2d",
    "aten::_upsample_bilinear2d_aa",  # with antialiasing
    "aten::grid_sampler",
)
_NORMS: dict[str, Rule] = {
    "aten::batch_norm": _batch_norm,
    "aten::group_norm": _group_norm,
    "aten::layer_norm": _layer_norm,
    "aten::instance_norm": _instance_norm,
}
MAC_RULES: dict[str, Rule] = dict.fromkeys((*_NORMS, *_RESIZING, "aten::adaptive_avg_pool2d"), _free)
KERAS_RULES: dict[str, Rule] = {
    **_NORMS,
    **dict.fromkeys(_RESIZING, _free),
    "aten::_convolution": _convolution,
    "aten::linear": _dense,
    "aten::avg_pool2d": _pool,
    "aten::max_pool2d": _pool,
    "aten::add": _elements,
    "aten::add_": _elements,  # in place, as torchvision's networks add
    "aten::mul": _elements,
    "aten::mul_": _elements,
    "aten::softmax": _softmax,
}
CONVENTIONS: dict[str, dict[str, Rule]] = {"macs": MAC_RULES, "flops": KERAS_RULES, "fvcore": {}}  # fields of `Cost`
