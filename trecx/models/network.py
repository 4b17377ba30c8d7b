"""The early-exit network of Figure 1: a backbone, exit heads at its taps, a final head."""

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trecx.errors import TrecxError, check_choice
from trecx.models.heads import DepthwiseExit, EarlyViewHead, ExitHead, FinalHead
from trecx.models.methods import Rule

Maps = tuple[Tensor, ...]  # of a nested network: what a layer reads, one map a group of channels

# A sample leaves at the first early exit whose confidence compares so with the threshold.
RULES: dict[Rule, Callable[[Tensor, float], Tensor]] = {">": operator.gt, ">=": operator.ge}


# Samples that `predict` runs together on a processor: the maps of many more leave its cache, and the large maps before
# the first exit then take far more of the time than of the FLOPs.
AT_A_TIME = 100


def check_mix(mix: float) -> None:
    """TrecxError if this can be no share of one network's answer in another's."""
    if not 0 <= mix < 1:
        raise TrecxError(f"mix {mix} is impossible: choose a share from 0 to below 1")


class EarlyExitNetwork(nn.Module):
    """A backbone whose stages run in order; after a tapped stage its exit head classifies.

    Args:
        backbone: stages by name, in order.
        exits: exit head by tap name, any number of them, none for a plain network.
        final: classifier after the last stage.
        rule: how a confidence must compare with the threshold for a sample to leave, > (T-RecX) or >= (the baselines).

    Raises:
        TrecxError: an exit at no stage or behind the last one, or an unknown rule.
    """

    def __init__(
        self, backbone: nn.Sequential, exits: Mapping[str, ExitHead], final: FinalHead, rule: Rule = ">"
    ) -> None:
        super().__init__()
        check_choice("exit rule", rule, RULES)
        taps = [name for name, _ in stages(backbone)]
        for tap in exits:
            if tap not in taps[:-1]:
                raise TrecxError(f"unknown tap {tap!r}: choose one of {', '.join(taps[:-1])}")
        self.backbone = backbone
        self.exits = nn.ModuleDict({tap: exits[tap] for tap in taps if tap in exits})
        self.final = final
        self.rule = rule

    @property
    def num_exits(self) -> int:
        """Early exits and the final one."""
        return len(self.exits) + 1

    def forward(self, x: Tensor, last: int | None = None) -> list[Tensor]:
        """Logits of every exit, cheapest first: (N, C, H, W) -> [(N, classes), ...]. Used for training.

        `last` stops behind that exit (0 is the first); the cost report measures such prefixes.
        """
        logits: list[Tensor] = []
        early = None
        for tap, stage in stages(self.backbone):
            x = stage(x)
            if tap in self.exits:
                early, exit_logits = self.exits[tap](x)
                logits.append(exit_logits)
                if last == len(logits) - 1:
                    return logits
        return [*logits, self.final(x, early)]

    def answers(self, x: Tensor, last: int | None = None) -> list[Tensor]:
        """Softmax of every exit, cheapest first: (N, C, H, W) -> [(N, classes), ...]; `last` as in `forward`."""
        return [logits.float().softmax(1) for logits in self(x, last=last)]

    def predict(
        self, x: Tensor, threshold: float, before: Tensor | None = None, mix: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Classify with early exit: a sample that is confident enough for `threshold` runs no further (eq. 1).

        A batch goes on with the samples that are left, so the time spent follows the exit rate.

        Args:
            x: inputs (N, C, H, W).
            threshold: confidence in [0, 1], one for all exits, that an early exit's largest softmax value must exceed
                (reach, under the rule >=). 1 sends every sample to the final exit (those below 1, under >=).
            before: answers (N, classes) that another network has given for the same samples, if one has.
            mix: the share that they have in each answer, and so in its confidence.

        Returns:
            Softmax of the exit taken (N, classes), and the index of that exit (N,), 0 for the first.

        Raises:
            TrecxError: threshold outside [0, 1], an impossible share, or one of answers that do not fit the samples.
        """
        if not 0 <= threshold <= 1:
            raise TrecxError(f"threshold {threshold} is impossible: choose a confidence from 0 to 1")
        check_mix(mix)
        if (before is None and mix) or (before is not None and before.shape != (len(x), self.num_classes)):
            given = "none" if before is None else f"of shape {tuple(before.shape)}"
            raise TrecxError(f"mixing needs answers of shape {(len(x), self.num_classes)} from before, not {given}")
        n = len(x) if x.is_cuda else AT_A_TIME
        kept = [None] * len(x.split(n)) if before is None else (mix * before).split(n)
        with inference(self):
            parts = [self._predict(*rows, threshold, 1 - mix) for rows in zip(x.split(n), kept, strict=True)]
        probabilities, taken = zip(*parts, strict=True)
        return torch.cat(probabilities), torch.cat(taken)

    def _predict(self, x: Tensor, kept: Tensor | None, threshold: float, own: float) -> tuple[Tensor, Tensor]:
        """`kept`: what every answer starts from (N, classes); `own`: the share of the network's own softmax in it."""

        def answer(logits: Tensor) -> Tensor:
            softmax = logits.float().softmax(1)
            return softmax if kept is None else kept[left] + own * softmax

        probabilities = torch.zeros(len(x), self.num_classes, device=x.device)
        taken = torch.full((len(x),), self.num_exits - 1, device=x.device)
        left = torch.arange(len(x), device=x.device)  # rows of the batch that are still running
        early, exit_index = None, 0
        for tap, stage in stages(self.backbone):
            x = stage(x)
            if tap not in self.exits:
                continue
            early, exit_logits = self.exits[tap](x)
            softmax = answer(exit_logits)
            leave = RULES[self.rule](softmax.amax(1).double(), threshold)  # double, as a trace compares
            probabilities[left[leave]] = softmax[leave]
            taken[left[leave]] = exit_index
            exit_index += 1
            if leave.any():
                stay = (~leave).nonzero()[:, 0]
                left, x, early = left[stay], _rows(x, stay), _rows(early, stay)
            if len(left) == 0:
                break
        else:
            probabilities[left] = answer(self.final(x, early))
        return probabilities, taken

    @property
    def num_classes(self) -> int:
        """Length of a logits row."""
        return self.final.classifier.out_features

    def parts(self) -> list[list[nn.Module]]:
        """The modules that run from one exit to the next, an entry an exit: stages, then the exit's own head."""
        parts: list[list[nn.Module]] = [[]]
        for tap, stage in stages(self.backbone):
            parts[-1].append(stage)
            if tap in self.exits:
                parts[-1].append(self.exits[tap])
                parts.append([])
        parts[-1].append(self.final)
        return parts

    def depthwise_pair(self) -> tuple[nn.Conv2d, nn.Conv2d] | None:
        """The early and the final depthwise layer that EV-assistance ties, or None without EV-assistance."""
        if not isinstance(self.final, EarlyViewHead) or not self.exits:
            return None
        (head,) = self.exits.values()
        assert isinstance(head.features, DepthwiseExit)
        return head.features.depthwise, self.final.view.depthwise

    @torch.no_grad()
    def transfer_weights(self) -> None:
        """Copy kernel and bias of the early depthwise layer onto the final one (paper section 3.3)."""
        pair = self.depthwise_pair()
        if pair is None:
            return
        early, final = pair
        final.weight.copy_(early.weight)
        final.bias.copy_(early.bias)  # type: ignore[union-attr,arg-type]

    def l2_kernels(self) -> Iterator[Tensor]:
        """Kernels under L2: those of ordinary convolutions, 1x1 included; never depthwise, dense, bias or BN."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.groups == 1:
                yield module.weight


def stages(backbone: nn.Sequential) -> list[tuple[str, nn.Module]]:
    """Name and module of every stage, in order.

    `named_children` would leave out a module that already stood at an earlier place, such as one ReLU for all.
    """
    return [(name, stage) for name, stage in backbone._modules.items() if stage is not None]


@contextmanager
def inference(module: nn.Module) -> Iterator[None]:
    """Inference mode without gradients inside the block; behind it every part is in the mode that it had before."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread inside the block: with one sample more of them wait for each other, and for a busy machine long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _rows(x: Any, rows: Tensor) -> Any:
    """The given samples of a batch (N, C, H, W), in the memory layout they had: another one would slow what follows.

    A nested network's stages hand on a tuple of such batches.
    """
    if isinstance(x, tuple):
        return tuple(_rows(part, rows) for part in x)
    layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    return x[rows].contiguous(memory_format=layout)
