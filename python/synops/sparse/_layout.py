"""Which layout of a Pattern the C++ kernels go by, for ``synops.which``.

The rules are those of csrc/sparse/product.cpp and row_blocks_product.cpp; each came from
measurements on one AVX-512 core, which FACTS.md has.
"""

from __future__ import annotations

import torch

from .. import _backend
from .._reference.sparse.pattern import tile_of
from ._pattern import Pattern

# Batch rows from which the two products of a Pattern with parts cost less than one.
PARTS_ROWS = 16
_FEW_ROWS = 4  # kFewRows
_LEAST_BATCH = 8  # kLeastBatch


def layout(pattern: Pattern, rows: int, dtype: torch.dtype) -> str:
    """In words, the layout that a product with ``rows`` batch rows reads."""
    if pattern.parts is not None and rows >= PARTS_ROWS:
        blocks, rest, _ = pattern.parts
        return f"{_blocks(blocks)} and a remainder of {rest.nnz} entries"
    if rows >= _LEAST_BATCH and pattern.block[0] > 1:  # 8 rows fill a vector of some set
        return _blocks(pattern)
    tiles = max(1, pattern.row_ptr.shape[0] - 1) // max(1, pattern.shape[0])
    if rows < _FEW_ROWS:
        bits = pattern.bits.numel() > 0 and dtype == torch.float32
        if bits and _backend._C is not None and _backend._C.cpu_capability() == "AVX512":
            return "a bitmap"
        return "compressed rows" if tiles > 1 else "compressed rows of 16-bit columns"
    if tiles > 1 and rows > _lanes(dtype):
        return f"tiles of {tile_of(pattern.shape[1], tiles)} columns"
    return "compressed rows" if tiles > 1 else "compressed rows of 16-bit columns"


def _blocks(pattern: Pattern) -> str:
    rows, step = pattern.block
    apart = f", {step} apart" if step > 1 else ""
    return f"blocks of {rows} rows with equal columns{apart}"


def _lanes(dtype: torch.dtype) -> int:
    """Elements of a vector of the instruction set in use."""
    name = _backend._C.cpu_capability() if _backend._C is not None else "DEFAULT"
    return (64 if name == "AVX512" else 32) // (8 if dtype == torch.float64 else 4)
