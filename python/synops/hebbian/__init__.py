"""Hebbian: local plasticity, fast weights and associative memory."""

from ._hopfield_retrieve import HopfieldRetrieval, hopfield_retrieve

__all__ = ["HopfieldRetrieval", "hopfield_retrieve"]
