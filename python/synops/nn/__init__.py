"""Modules: layers with the constructors and state_dicts of torch.nn, on synops' ops."""

from ._chain import chain_
from ._sparse_linear import SparseLinear

__all__ = ["SparseLinear", "chain_"]
