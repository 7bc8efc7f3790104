"""Modules: layers with the constructors and state_dicts of torch.nn, on synops' ops."""

from ._chain import chain_
from ._lif import LIF
from ._sparse_linear import SparseLinear

__all__ = ["LIF", "SparseLinear", "chain_"]
