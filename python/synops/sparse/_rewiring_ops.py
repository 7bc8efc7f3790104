"""The raw ops that change which entries a weight has: prune_and_grow and grow_topk share them."""

from __future__ import annotations

import torch
from torch import Tensor

from .._library import Op


def _fake_rewire(
    crow: Tensor, col: Tensor, in_features: int, prune: Tensor, edges: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    nnz = torch.library.get_ctx().new_dynamic_size()
    return torch.empty_like(crow), col.new_empty(nnz), col.new_empty(nnz)


def _fake_dense(
    scores: Tensor, crow: Tensor, col: Tensor, pruned: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if scores.dtype == torch.float64 else torch.float32
    return crow.new_empty(k, dtype=torch.int64), scores.new_empty(k, dtype=dtype)


rewire = Op("prune_and_grow", fake=_fake_rewire)
carry = Op("prune_and_grow_carry", fake=lambda values, origin: values.new_empty(values.shape[0]))
grow_dense = Op("grow_topk_dense", fake=_fake_dense)


def without(
    crow: Tensor, col: Tensor, in_features: int, pruned: Tensor, *, backend: str | None = None
) -> tuple[Tensor, Tensor]:
    """crow and col of the entries that are not pruned."""
    none = crow.new_empty(0, dtype=torch.int64)
    return rewire(crow, col, in_features, pruned, none, backend=backend)[:2]
