"""prune_and_grow: which entries a weight has after some left and others came, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from .pattern import rows_of


def prune_and_grow(
    crow: Tensor, col: Tensor, in_features: int, prune: Tensor, edges: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """-> crow (out + 1,), col and origin (nnz of new,): the old position, -1 for a new entry.

    An edge that is a pruned entry has its position; RuntimeError for any other that is an entry.
    """
    rows = crow.shape[0] - 1
    old = rows_of(crow, col) * in_features + col.long()
    at = torch.searchsorted(old, edges)
    # one more, which equals no edge
    found = torch.cat([old, old.new_full((1,), -1)])[at] == edges
    again = torch.cat([prune, prune.new_ones(1)])[at]
    inside = (edges >= 0) & (edges < rows * in_features)
    if not bool((inside & (again | ~found)).all() & (edges.diff() > 0).all()):
        raise RuntimeError(
            "prune_and_grow: edges must ascend strictly, lie in the weight and be no entries that "
            "stay"
        )
    stays = ~prune
    positions = torch.cat([stays.nonzero()[:, 0], torch.where(found, at, -1)])
    new, order = torch.cat([old[stays], edges]).sort()
    starts = torch.arange(rows + 1, device=crow.device) * in_features
    # without columns all starts are 0, and there is nothing to find
    new_crow = torch.searchsorted(new, starts).to(torch.int32)
    new_col = (new % max(1, in_features)).to(torch.int32)
    return new_crow, new_col, positions[order].to(torch.int32)


def prune_and_grow_carry(values: Tensor, origin: Tensor) -> Tensor:
    """out[j] = values[origin[j]], 0 where that is negative and behind the last origin."""
    out = torch.zeros_like(values, memory_format=torch.contiguous_format)
    came = (origin >= 0).nonzero()[:, 0]
    out[came] = values[origin[came].long()]
    return out
