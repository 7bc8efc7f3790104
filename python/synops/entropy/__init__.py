"""Entropy: statistics of softmaxes that nobody has to materialise, and losses that use them."""

from ._stats import Stats
from ._token_stats import token_stats

__all__ = ["Stats", "token_stats"]
