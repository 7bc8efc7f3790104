"""Sparse products for training: the time of a layer follows the number of its weights."""

from ._masked_linear import masked_linear
from ._pattern import Pattern
from ._sparse_linear import sparse_linear

__all__ = ["Pattern", "masked_linear", "sparse_linear"]
