"""Sparse products for training: the time of a layer follows the number of its weights."""

from ._grow_topk import Growth, grow_topk
from ._magnitude_threshold import magnitude_threshold
from ._masked_linear import masked_linear
from ._pattern import Pattern
from ._prune_and_grow import Rewired, prune_and_grow
from ._sddmm import sddmm
from ._sparse_linear import sparse_linear
from ._spmm import spmm
from ._unit_stats import UnitStats, unit_stats

__all__ = [
    "Growth",
    "Pattern",
    "Rewired",
    "UnitStats",
    "grow_topk",
    "magnitude_threshold",
    "masked_linear",
    "prune_and_grow",
    "sddmm",
    "sparse_linear",
    "spmm",
    "unit_stats",
]
