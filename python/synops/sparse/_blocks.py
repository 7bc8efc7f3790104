"""Block structure of masks: what from_mask looks for, and the block diagonal of groups."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

from .._check import fail

# Rows that are compared to find blocks: as many as a vector of float32 has lanes (AVX-512).
ROWS = 16
# Blocks and remainder apart pay when the blocks hold at least this share of the entries, and where
# the mask has at least this density (a product of the remainder costs its transposes again).
SHARE = 0.5
DENSITY = 0.05


def checked_block(op: str, block: Any) -> tuple[int, int]:
    """``(rows, columns)``, both at least 1."""
    try:
        rows, cols = (operator.index(n) for n in block)
    except (TypeError, ValueError):
        fail(TypeError, op, "block", "be a pair of integers (rows, columns)", block)
    if rows < 1 or cols < 1:
        fail(ValueError, op, "block", "have sides of at least 1", (rows, cols))
    return rows, cols


def shared_rows(mask: Tensor, nnz: int) -> Tensor | None:
    """The entries that ROWS rows have in common, ROWS after ROWS; None when they are too few."""
    rows, cols = mask.shape
    if rows == 0 or rows % ROWS or nnz < DENSITY * rows * cols:
        return None
    # Two rows first: a random mask is ruled out by an eighth of the work.
    first = mask[0::ROWS] & mask[1::ROWS]
    if int(first.count_nonzero()) * ROWS < SHARE * nnz:
        return None
    shared = mask.view(rows // ROWS, ROWS, cols).all(1)
    if int(shared.count_nonzero()) * ROWS < SHARE * nnz:
        return None
    return shared.repeat_interleave(ROWS, 0)


def group_mask(
    out_features: int, in_features: int, groups: int, interleaved: bool, device: Any
) -> Tensor:
    """``(out, in)``, bool: True where output and input are in one of ``groups`` groups."""

    def group(n: int) -> Tensor:
        index = torch.arange(n, device=device)
        return index % groups if interleaved else index // max(1, n // groups)

    return group(out_features)[:, None] == group(in_features)[None, :]
