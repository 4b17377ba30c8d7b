"""Backbones, exit heads, the early-exit network, the methods, and what a network costs."""
