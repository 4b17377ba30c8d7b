"""The optimiser of a recipe, and the moving average of the weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from trecx.models.network import EarlyExitNetwork
from trecx.training.recipes import Optimizer, Recipe


class Average:
    """Exponential moving average of a network's weights and batch norm statistics.

    The memory is shorter in the first steps, min(decay, (1 + step) / (10 + step)), so that it forgets the start.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.live = dict(network.state_dict())  # these share memory with the network
        self.tensors = {name: tensor.detach().clone() for name, tensor in self.live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the network as it is after `step` (from 0)."""
        new = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, tensor in self.live.items():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(tensor, new)
            else:
                self.tensors[name].copy_(tensor)  # a count of batches

    @torch.no_grad()
    def keep(self) -> None:
        """Give the network the averaged weights for good."""
        for name, tensor in self.live.items():
            tensor.copy_(self.tensors[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network has the averaged weights inside the block, its own again behind it."""
        own = {name: tensor.clone() for name, tensor in self.live.items()}
        self.keep()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in self.live.items():
                    tensor.copy_(own[name])


OPTIMIZERS: dict[Optimizer, Callable[..., torch.optim.Optimizer]] = {
    "adam": partial(torch.optim.Adam, eps=1e-7),
    "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
}


def make_optimizer(network: EarlyExitNetwork, recipe: Recipe) -> torch.optim.Optimizer:
    """Adam with Keras's epsilon, or SGD with Nesterov momentum; weight decay on ordinary convolutions only.

    Each group's `factor` multiplies the learning rate: `head_rate` for the early exits, 1 for all else.
    """
    kernels = list(network.l2_kernels())
    under_l2 = {id(p) for p in kernels}
    others = [p for p in network.parameters() if id(p) not in under_l2]
    in_exits = {id(p) for p in network.exits.parameters()} if recipe.head_rate != 1 else set()
    groups = [
        {"params": [p for p in params if (id(p) in in_exits) == exits], "weight_decay": decay, "factor": factor}
        for exits, factor in ((False, 1.0), (True, recipe.head_rate))
        for params, decay in ((kernels, recipe.weight_decay), (others, 0.0))
    ]
    groups = [group for group in groups if group["params"]]
    return OPTIMIZERS[recipe.optimizer](groups, lr=recipe.rate)
