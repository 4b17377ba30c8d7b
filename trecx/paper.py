"""The paper's own numbers, read from `paper.yaml` so that no notebook retypes one."""

from functools import lru_cache

import yaml

from trecx.paths import PAPER


@lru_cache(maxsize=1)
def paper() -> dict:
    """Return everything quoted from the paper; accuracies and reductions are in percent, FLOPs in millions."""
    return yaml.safe_load(PAPER.read_text(encoding="utf-8"))
