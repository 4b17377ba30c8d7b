"""Stages run by ONNX Runtime: on one thread, one sample at a time, as a small device would."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trecx.deploy import needs
from trecx.deploy.graphs import INPUT
from trecx.evaluation.trace import mixed

Batch = NDArray[np.float32] | NDArray[np.int8]


class Stages:
    """The stages of a network, or of two in a row, as ONNX files.

    Args:
        files: one a stage, in order.
        rule: how a confidence must compare with the threshold for a sample to leave, > or >=.
        mix: share that the answers of the second network keep of the first one's.
        first: stages of the first network.

    Raises:
        TrecxError: ONNX Runtime is missing.
    """

    def __init__(self, files: Sequence[Path], rule: str = ">", mix: float = 0.0, first: int = 0) -> None:
        needs.packages("running a stage", needs.EXPORT)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors alone: that int8 is slow here is known
        providers = ["CPUExecutionProvider"]
        sessions = [onnxruntime.InferenceSession(str(file), options, providers) for file in files]
        self._stages = [(s, [i.name for i in s.get_inputs()], [o.name for o in s.get_outputs()]) for s in sessions]
        self.rule, self.mix, self.first = rule, mix, first

    def _run(self, sample: Batch) -> Iterator[NDArray[np.float32]]:
        """Logits (classes,) of one exit after the other; a stage runs when its logits are asked for."""
        tensors = {INPUT: sample[None]}
        for session, reads, writes in self._stages:
            tensors |= zip(writes, session.run(writes, {name: tensors[name] for name in reads}), strict=True)
            yield tensors[writes[0]][0]

    def _answer(self, sample: Batch) -> Iterator[NDArray[np.float32]]:
        """As `_run`; what a second network says that mixes, as log probabilities."""
        last: list[NDArray[np.float32]] = []  # of the first network
        for stage, logits in enumerate(self._run(sample), 1):
            if not self.mix or stage <= self.first:
                last = [logits]
                yield logits
            else:
                yield mixed(log_softmax(np.stack([*last, logits])), self.mix, 1)[-1]

    def logits(self, x: Batch) -> NDArray[np.float32]:
        """Logits of every exit, all stages run, nothing mixed: (n, C, H, W) -> (n, exits, classes)."""
        return np.array([[*self._run(sample)] for sample in x])

    def predict(self, x: Batch, threshold: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Class and exit (n,) of each sample, which runs no stage behind the first confident exit (paper eq. 1)."""
        answers = []
        last = len(self._stages) - 1
        for sample in x:
            for taken, logits in enumerate(self._answer(sample)):
                sure = 1 / float(np.exp(logits - logits.max()).sum())  # the largest softmax
                if taken == last or sure > threshold or (self.rule == ">=" and sure == threshold):
                    answers.append((int(logits.argmax()), taken))
                    break
        labels, exits = np.array(answers, dtype=np.intp).T
        return labels, exits


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log probabilities of logits (..., classes)."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
