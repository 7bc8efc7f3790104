"""Modules over the functional ops."""

from ._sparse_linear import SparseLinear

__all__ = ["SparseLinear"]
