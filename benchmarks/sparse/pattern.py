"""Pattern: indexing a mask, and moving values between the dense and the stored weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..common import suite
from ..common.call import Call, Tensors
from ..common.linear import sparse_layer
from ..common.public import public
from ..common.sizes import LINEAR, LINEAR_TABLES, LinearSize

# The batch of these sizes is not used.
CASES = {
    name: LINEAR[name]
    for name in ("128x1024x1024 d=.1", "128x1024x1024 d=.01", "60x784x300 d=.1", "1x8x8 d=.5")
}


def index_mask(mask: Tensor) -> Tensors:
    """CSR and CSC with the permutation between them, as torch has it: crow, col, row, perm."""
    row, col = mask.nonzero(as_tuple=True)
    crow = torch.nn.functional.pad(mask.sum(1).cumsum(0), (1, 0))
    perm = col.argsort(stable=True)
    return crow, col, row[perm], perm


def index_of(pattern: Any) -> Tensors:
    """The same of a Pattern, whose transpose is ordered tile by tile."""
    counts = pattern.crow.diff().long()
    row = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    at = pattern.perm.long()
    order = (pattern.col[at].long() * len(counts) + row[at]).argsort()
    return pattern.crow, pattern.col, row[at][order], at[order]


class PatternFromMask(suite.ForwardSuite):
    """Index a bool mask, as after every prune-and-grow step."""

    op = "sparse.Pattern.from_mask"
    impls = ("synops", "torch")
    cases = CASES
    table_cases = LINEAR_TABLES

    def build(
        self, impl: str, size: LinearSize, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        mask = sparse_layer(size, device=device).mask()
        if impl == "synops":
            return Call(public("sparse.Pattern").from_mask, (mask,), outputs=index_of)
        return Call(index_mask, (mask,), outputs=tuple)


class PatternGather(suite.TrainingSuite):
    """Values of a dense weight at the kept entries; torch, whose places are int64 and known, by
    index_select (a mask, take and gather are 2 to 30 times slower)."""

    op = "sparse.Pattern.gather"
    impls = ("synops", "torch")
    cases = CASES

    def build(
        self, impl: str, size: LinearSize, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        layer = sparse_layer(size, dtype, device)
        if impl == "synops":
            gather = public("sparse.Pattern").from_csr(layer.crow, layer.col, layer.shape).gather
            return Call(gather, (layer.weight(),))
        at = layer.positions()
        return Call(lambda w: w.view(-1).index_select(0, at), (layer.weight(),))


class PatternScatter(suite.TrainingSuite):
    """The dense weight of values; torch, whose places are int64 and known, by scatter_ into zeros
    (index_copy, index_put and a mask are slower)."""

    op = "sparse.Pattern.scatter"
    impls = ("synops", "torch")
    cases = CASES

    def build(
        self, impl: str, size: LinearSize, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        layer = sparse_layer(size, dtype, device)
        if impl == "synops":
            scatter = public("sparse.Pattern").from_csr(layer.crow, layer.col, layer.shape).scatter
            return Call(scatter, (layer.values,))
        at, shape = layer.positions(), layer.shape

        def scatter_(values: Tensor) -> Tensor:
            return values.new_zeros(shape[0] * shape[1]).scatter_(0, at, values).view(shape)

        return Call(scatter_, (layer.values,))
