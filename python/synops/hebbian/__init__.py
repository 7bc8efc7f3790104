"""Hebbian: local plasticity, fast weights and associative memory."""

from ._delta_rule import FastWeights, delta_rule
from ._linear_attention import linear_attention

__all__ = ["FastWeights", "delta_rule", "linear_attention"]
