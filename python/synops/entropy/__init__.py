"""Entropy: statistics of softmaxes that nobody has to materialise, and losses that use them."""

from ._attention_pick import attention_pick
from ._attention_with_stats import attention_with_stats
from ._stats import Stats

__all__ = ["Stats", "attention_pick", "attention_with_stats"]
