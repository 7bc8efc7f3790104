"""Entropy: statistics of softmaxes that nobody has to materialise, and losses that use them."""

from ._stats import Stats

__all__ = ["Stats"]
