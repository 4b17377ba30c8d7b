"""Trained weights that a run may start from.

`mlperf_tiny` is the reference model of MLPerf Tiny for visual wake words, trained on the whole of COCO 2014: the
setting of somebody who has a trained network and wants an early exit. `python -m trecx reference PATH` reads it from
a clone of the authors' repository and writes it as a record; its weights are taken from there.
"""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from trecx import paths
from trecx.errors import TrecxError
from trecx.models.build import build
from trecx.models.network import EarlyExitNetwork, stages
from trecx.models.resolutions import Look
from trecx.tasks import get_task
from trecx.training.weights import load_tensors

STARTS = {
    "mlperf_tiny": "vww-baseline"
}  # start -> record among those of `trecx.experiments.reference`; its first part is the task


def task_of(start: str) -> str:
    """The task whose network these weights are of; TrecxError with the allowed names for an unknown start."""
    if start not in STARTS:
        raise TrecxError(f"unknown start {start!r}: choose one of {', '.join(STARTS)}, or none to train from scratch")
    return STARTS[start].partition("-")[0]


def weights_of(start: str) -> Path:
    """Where the weights lie, whether they are there or not."""
    return paths.RECORDS / "reference" / STARTS[start] / "weights.safetensors"


def checksum(start: str) -> str:
    """sha256 of the file of weights, empty if it is not there."""
    path = weights_of(start)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def teacher(start: str) -> nn.Module:
    """The trained network itself, for images of any size: it looks at them at the size that it was trained on."""
    task = get_task(task_of(start))
    network = build(task.name, "baseline")
    apply(network, start)
    return nn.Sequential(nn.Upsample(task.input_shape[1:], mode="bilinear"), network)


@torch.no_grad()
def apply(network: EarlyExitNetwork, start: str) -> None:
    """Give `network` the trained backbone and final classifier; what is new in it keeps its fresh weights.

    A backbone that ends early takes the stages that it has; its classifier looks at another map and starts fresh.
    Where a network looks at several resolutions, each look gets all of the trained one.
    A final head with more inputs than the pooled last map (EV-assistance, concatenation) gets the trained classifier
    for these and zeros for the others: before training its final exit gives the trained network's answers.

    Raises:
        TrecxError: no weights yet, a damaged file, or weights of another network.
    """
    path = weights_of(start)
    if not path.is_file():
        raise TrecxError(
            f"no start weights at {path}: run `python -m trecx reference PATH` on a clone of the authors' repository"
        )
    tensors, _ = load_tensors(path)
    own = network.state_dict()
    copies: list[tuple[Tensor, Tensor]] = []
    theirs = {name.split(".")[1] for name in tensors if name.startswith("backbone.")}
    fresh: list[Tensor] = []
    for prefix, backbone, classifier in _places(network):
        missing = theirs - {name for name, _ in stages(backbone)}
        for name, value in tensors.items():
            if missing and (name.split(".")[1] in missing or name.startswith("final.")):
                continue
            place = name.replace("backbone", prefix, 1).replace("final.classifier", classifier, 1)
            target = own.get(place)
            if target is not None and place == f"{classifier}.weight" and target.shape[0] == value.shape[0]:
                fresh.append(target)
                target = target[:, : value.shape[1]]  # the columns of the pooled last map come first
            if target is None or target.shape != value.shape:
                raise TrecxError(f"{path} does not fit this network: {name} has no place of shape {tuple(value.shape)}")
            copies.append((target, value))
    for target in fresh:
        target.zero_()
    for target, value in copies:
        target.copy_(value)


def _places(network: EarlyExitNetwork) -> list[tuple[str, nn.Sequential, str]]:
    """Every whole backbone in the network: its name, itself, and the name of the dense layer on its last map."""
    looks = [(name, stage) for name, stage in stages(network.backbone) if isinstance(stage, Look)]
    dense = {name: f"exits.{name}.classify.2" for name in network.exits}
    places = [(f"backbone.{name}.backbone", look.backbone, dense.get(name, "final.classifier")) for name, look in looks]
    return places or [("backbone", network.backbone, "final.classifier")]
