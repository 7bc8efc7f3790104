"""Entropy: statistics of softmaxes that nobody has to materialise, and losses that use them."""

from ._linear_token_stats import linear_token_stats
from ._stats import Stats

__all__ = ["Stats", "linear_token_stats"]
