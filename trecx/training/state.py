"""The state of an interrupted training: weights, optimiser and history, in one safetensors file."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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
    save_tensors(tensors, path, {"rows": json.dumps(progress.rows), "seconds": str(progress.seconds)})


def restore(
    network: nn.Module, optimizer: torch.optim.Optimizer, path: Path, average: Average | None = None
) -> Progress:
    """Read what `save_state` wrote into `network`, `optimizer` and `average`."""
    tensors, text = load_tensors(path)
    network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})
    for name, value in average.tensors.items() if average else ():
        value.copy_(tensors[f"average.{name}"])
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return Progress(json.loads(text["rows"]), float(text["seconds"]))
