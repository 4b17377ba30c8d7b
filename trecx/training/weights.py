"""Tensors on disk: safetensors files, written whole or not at all."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from trecx.errors import TrecxError
from trecx.files import whole_file


def save_weights(network: nn.Module, path: Path) -> None:
    """Write a network's state (weights and batch norm statistics) as safetensors, whole or not at all."""
    save_tensors(dict(network.state_dict()), path)


def load_weights(network: nn.Module, path: Path) -> None:
    """Read weights that `save_weights` wrote; TrecxError if the file is missing, damaged or of another network."""
    tensors, _ = load_tensors(path)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        own = network.state_dict()
        odd = [k for k in {**own, **tensors} if k not in own or k not in tensors or own[k].shape != tensors[k].shape]
        raise TrecxError(
            f"{path} holds the weights of another network: {len(odd)} tensors differ, the first is {odd[0]}"
        ) from error


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors and text to one safetensors file, whole or not at all."""
    # Each in memory of its own: a module that stands at two places has two names for one tensor.
    own = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    content = save(own, metadata)
    with whole_file(path) as file:
        file.write(content)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `save_tensors` wrote: tensors and text."""
    if not path.is_file():
        raise TrecxError(f"no weights at {path}: train the run again, or fetch the record with its weights")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        return load_file(path), metadata
    except (SafetensorError, OSError) as error:
        raise TrecxError(f"{path} is no intact safetensors file ({error}): train the run again") from error
