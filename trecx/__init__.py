"""T-RecX, replicated: early-exit models for tiny CNNs, their training, cost and comparison."""

__version__ = "1.0.0"
