"""Modules: layers with the constructors and state_dicts of torch.nn, on synops' ops."""

from ._chain import chain_
from ._sparse_linear import SparseLinear

# They are made of the layers.
from .._dynamic import DynamicSparsity  # isort: skip

__all__ = ["DynamicSparsity", "SparseLinear", "chain_"]
