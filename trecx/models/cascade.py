"""Networks made from trained ones, without training: two in a row, or one with fewer exits and an earlier end.

A cascade runs a cheap network first and a dear one where that is unsure (big/little, Park et al. 2015; IDK cascades,
Wang et al. 2017; committees, Wang et al. 2020, whose members' answers are averaged). None of this is T-RecX.
"""

import copy
from collections.abc import Callable, Iterable
from math import log, log1p

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trecx.errors import TrecxError, check_choice
from trecx.models.heads import ConcatHead, ExitHead, FinalHead
from trecx.models.methods import Rule
from trecx.models.network import RULES, EarlyExitNetwork, check_mix, inference, stages

Run = Callable[[EarlyExitNetwork, Tensor, int | None], list[Tensor]]  # of a network: inputs and `last` -> by exit


class Resize(nn.Module):
    """Images (N, C, H, W) at `side` x `side` pixels, as training does it: bilinear, antialiased, whole pixel values.

    `levels` is what a white pixel's 255 was divided by: 1 for raw images, 255 for those in [0, 1].
    """

    def __init__(self, side: int, levels: float = 1.0) -> None:
        super().__init__()
        self.side, self.levels = side, levels

    def forward(self, x: Tensor) -> Tensor:
        small = F.interpolate(x, (self.side, self.side), mode="bilinear", antialias=True)
        return torch.fake_quantize_per_tensor_affine(small, 1 / self.levels, 0, 0, 255)


class Cascade(nn.Module):
    """Two complete networks as one: the second sees only the samples of which the first is not sure.

    Its exits are those of the first, the last of which is now an early one, and then those of the second. All that the
    first network costs is paid by a sample that goes on; of what it computed, at most the answer is used again.

    Args:
        first: the cheap network, with early exits or without.
        second: the one that answers where the first is not sure.
        resize: what makes the first and the second network's input of the cascade's, if they see fewer pixels.
        rule: how a confidence must compare with the threshold at every exit; by default that of the first of the two
            that has early exits, `>` where neither has.
        mix: the share that the first network's last answer has in every answer of the second, from 0 (none) to below 1.

    Raises:
        TrecxError: networks with different numbers of classes, an unknown rule, or an impossible share.
    """

    def __init__(
        self,
        first: EarlyExitNetwork,
        second: EarlyExitNetwork,
        resize: tuple[nn.Module | None, nn.Module | None] = (None, None),
        rule: Rule | None = None,
        mix: float = 0.0,
    ) -> None:
        super().__init__()
        if first.num_classes != second.num_classes:
            raise TrecxError(
                f"a cascade needs two networks of one task: the first has {first.num_classes} classes, the second "
                f"{second.num_classes}"
            )
        own: list[Rule] = [part.rule for part in (first, second) if part.num_exits > 1]
        self.rule: Rule = rule or (own[0] if own else ">")
        check_choice("exit rule", self.rule, RULES)
        check_mix(mix)
        self.mix = mix
        # Copies of the outermost object alone, so that the rule can be the cascade's: all weights are shared.
        self.first, self.second = copy.copy(first), copy.copy(second)
        self.first.rule = self.second.rule = self.rule
        self.resize = nn.ModuleList(part or nn.Identity() for part in resize)

    @property
    def num_exits(self) -> int:
        """Exits of both networks together, the final one of the second included."""
        return self.first.num_exits + self.second.num_exits

    @property
    def num_classes(self) -> int:
        """Length of a logits row."""
        return self.second.num_classes

    def forward(self, x: Tensor, last: int | None = None) -> list[Tensor]:
        """Logits of every exit, the first network's first: (N, C, H, W) -> [(N, classes), ...].

        `last` stops behind that exit (0 is the first). Where answers are mixed, the second network's logits are the
        logarithms of the mixtures.
        """
        before, later = self._both(lambda part, inputs, last: part(inputs, last=last), x, last)
        if self.mix and later:
            kept = before[-1].float().log_softmax(1) + log(self.mix)
            later = [torch.logaddexp(kept, y.float().log_softmax(1) + log1p(-self.mix)) for y in later]
        return [*before, *later]

    def answers(self, x: Tensor, last: int | None = None) -> list[Tensor]:
        """Softmax of every exit, mixed in the second network: (N, C, H, W) -> [(N, classes), ...].

        `last` stops behind that exit (0 is the first); the cost report measures such prefixes.
        """
        before, later = self._both(lambda part, inputs, last: part.answers(inputs, last), x, last)
        if self.mix and later:
            kept = self.mix * before[-1]
            later = [kept + (1 - self.mix) * softmax for softmax in later]
        return [*before, *later]

    def _both(self, run: Run, x: Tensor, last: int | None) -> tuple[list[Tensor], list[Tensor]]:
        """What `run` makes of each network's input, an entry an exit, the second network's not yet mixed."""
        own = self.first.num_exits
        if last is not None and last < own:
            return run(self.first, self.resize[0](x), last), []
        before = run(self.first, self.resize[0](x), None)
        return before, run(self.second, self.resize[1](x), None if last is None else last - own)

    def predict(self, x: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        """Classify with early exit: the second network does not run for a sample that has left the first.

        Args:
            x: inputs (N, C, H, W).
            threshold: confidence in [0, 1], one for all exits of both networks.

        Returns:
            Softmax of the exit taken (N, classes), and the index of that exit (N,), 0 for the first.

        Raises:
            TrecxError: threshold outside [0, 1].
        """
        with inference(self):
            probabilities, taken = self.first.predict(self.resize[0](x), threshold)
            own = self.first.num_exits
            sure = RULES[self.rule](probabilities.amax(1).double(), threshold)
            rest = ((taken == own - 1) & ~sure).nonzero()[:, 0]
            if len(rest):
                before = probabilities[rest] if self.mix else None
                probabilities[rest], later = self.second.predict(self.resize[1](x[rest]), threshold, before, self.mix)
                taken[rest] = later + own
        return probabilities, taken


def mixed_flops(classes: int, exits: int) -> list[int]:
    """FLOPs of mixing, cumulative, by exit of the second network: one a class for the share kept, two for each exit."""
    return [classes * (1 + 2 * (k + 1)) for k in range(exits)]


class EarlyEnd(FinalHead):
    """An early exit's head as the final one: (N, C, H, W) -> (N, classes)."""

    def __init__(self, head: ExitHead) -> None:
        nn.Module.__init__(self)  # it has the layers of `head`, none of its own
        self.head = head

    @property
    def classifier(self) -> nn.Linear:  # type: ignore[override]
        """The dense layer."""
        return self.head.classify[-1]  # type: ignore[return-value]

    def forward(self, final: Tensor, early: Tensor | None = None) -> Tensor:
        return self.head(final)[1]


def shortened(network: EarlyExitNetwork, exits: Iterable[str], end: str = "") -> EarlyExitNetwork:
    """A network that keeps some of its exits and may end at one of them; weights are shared, nothing is trained.

    What is left out is neither computed nor paid: heads of other exits, and the stages behind the end.

    Args:
        network: a network with early exits.
        exits: taps of the exits to keep; any order, none for a network that answers at its end only.
        end: tap of the exit that becomes the final one; empty for the network's own end.

    Raises:
        TrecxError: no such exit, an exit at or behind the end, or a final head that reads an exit that is left out.
    """
    taps, kept = list(network.exits), set(exits)
    for tap in [*kept, *([end] if end else [])]:
        check_choice("exit", tap, taps)
    before = taps[: taps.index(end)] if end else taps
    if late := [tap for tap in taps if tap in kept and tap not in before]:
        others = f"choose from {', '.join(before)}" if before else "no exit does, so give none"
        raise TrecxError(f"exit {late[0]!r} does not come before the end {end!r}: {others}")
    if not end and isinstance(network.final, ConcatHead) and kept != set(taps):
        raise TrecxError("the final head reads the early exit's maps: keep that exit, or end the network there")
    rows = stages(network.backbone)
    names = [name for name, _ in rows]
    trunk = nn.Sequential()
    for name, stage in rows[: names.index(end) + 1 if end else len(rows)]:
        trunk.add_module(name, stage)
    heads: dict[str, ExitHead] = {tap: network.exits[tap] for tap in before if tap in kept}  # type: ignore[misc]
    final = EarlyEnd(network.exits[end]) if end else network.final  # type: ignore[arg-type]
    return EarlyExitNetwork(trunk, heads, final, network.rule)
