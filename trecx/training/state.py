"""The state of an interrupted training: weights, optimiser and history, in one safetensors file."""

import hashlib
import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trecx.errors import TrecxError
from trecx.training.optimizer import Average
from trecx.training.weights import load_tensors, save_tensors


@dataclass
class Progress:
    """How far a run has come: what is kept between epochs besides the weights."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def epochs(self) -> int:
        """Finished epochs."""
        return len(self.rows)


def save_state(
    network: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, path: Path, average: Average | None = None
) -> None:
    """Write what a run needs to go on: weights, their average, optimiser and history, in one safetensors file."""
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.tensors.items()} if average else {}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v for k, v in values.items() if isinstance(v, Tensor)}
    text = {"rows": json.dumps(progress.rows), "seconds": str(progress.seconds)}
    save_tensors(tensors, path, text | {"sha256": _digest(tensors, text)})


def restore(
    network: nn.Module, optimizer: torch.optim.Optimizer, path: Path, average: Average | None = None
) -> Progress:
    """Read what `save_state` wrote into `network`, `optimizer` and `average`.

    A file that is not whole is removed with a line on standard error, and nothing is changed: the training starts over.
    """
    try:
        tensors, text = load_tensors(path)
        progress = _verified(tensors, text, network, optimizer, average)
    except (TrecxError, KeyError, ValueError) as error:
        print(f"{path} is no whole state of this training, which starts over: {error}", file=sys.stderr)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return Progress()
    network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})
    for name, value in average.tensors.items() if average else ():
        value.copy_(tensors[f"average.{name}"])
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return progress


def _verified(
    tensors: dict[str, Tensor],
    text: dict[str, str],
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average | None,
) -> Progress:
    """The history in a state; ValueError or KeyError unless every tensor is there, unaltered, finite and fits."""
    if text["sha256"] != _digest(tensors, {key: text[key] for key in ("rows", "seconds")}):
        raise ValueError("its checksum is not the one it was written with")
    wanted = {f"network.{k}": v.shape for k, v in network.state_dict().items()}
    wanted |= {f"average.{k}": v.shape for k, v in average.tensors.items()} if average else {}
    found = {k: v.shape for k, v in tensors.items() if not k.startswith("optimizer.")}
    odd = [k for k in {**wanted, **found} if wanted.get(k) != found.get(k)]
    odd += [k for k, v in tensors.items() if not v.isfinite().all()]
    parameters = dict(enumerate(p for group in optimizer.param_groups for p in group["params"]))
    for key in set(tensors) - set(found):
        shapes = ((), parameters[int(key.split(".")[1])].shape)
        odd += [key] if tensors[key].shape not in shapes else []
    if odd:
        raise ValueError(f"{len(odd)} tensors are missing, foreign or not finite, the first is {odd[0]}")
    return Progress(json.loads(text["rows"]), float(text["seconds"]))


def _digest(tensors: dict[str, Tensor], text: dict[str, str]) -> str:
    """sha256 (hex) of names, types, shapes and values of the tensors, and of the text."""
    digest = hashlib.sha256(json.dumps(text, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
