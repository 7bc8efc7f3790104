"""Inputs of a linear layer with a sparse weight, made without anything of the dense size."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .sizes import LinearSize

_ROWS = 64  # of the mask at a time


class SparseLayer(NamedTuple):
    """A batch and a weight whose kept entries are drawn uniformly."""

    input: Tensor  # (batch, in)
    values: Tensor  # (nnz,), in row-major order
    crow: Tensor  # (out + 1,), int32
    col: Tensor  # (nnz,), int32

    @property
    def shape(self) -> tuple[int, int]:
        """``(out, in)``."""
        return self.crow.shape[0] - 1, self.input.shape[1]

    def positions(self) -> Tensor:
        """``(nnz,)``, int64: places of the entries in the flattened weight."""
        out_features, in_features = self.shape
        counts = self.crow.diff().long()
        row = torch.arange(out_features, device=counts.device).repeat_interleave(counts)
        return row * in_features + self.col

    def mask(self) -> Tensor:
        """``(out, in)``, bool."""
        return self.dense(torch.ones_like(self.col, dtype=torch.bool))

    def weight(self) -> Tensor:
        """``(out, in)``, dense: 0 where nothing is kept."""
        return self.dense(self.values)

    def dense(self, values: Tensor) -> Tensor:
        """``(out, in)`` with these values at the kept entries."""
        flat = values.new_zeros(self.shape[0] * self.shape[1])
        return flat.index_copy_(0, self.positions(), values).view(self.shape)

    def kept(self, grad_input: Tensor, grad_weight: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients as every implementation has them: a dense weight's at the kept entries."""
        if grad_weight.dim() == 2:
            grad_weight = grad_weight.flatten()[self.positions()]
        return grad_input, grad_weight


def sparse_layer(
    size: LinearSize, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> SparseLayer:
    """The layer of a size: the same float32 numbers at every call, then converted."""
    g = torch.Generator().manual_seed(0)
    input = torch.randn(size.batch, size.in_features, generator=g)
    counts, columns = [torch.zeros(1, dtype=torch.long)], []
    for first in range(0, size.out_features, _ROWS):
        rows = min(_ROWS, size.out_features - first)
        mask = torch.rand(rows, size.in_features, generator=g) < size.density
        counts.append(mask.sum(1))
        columns.append(mask.nonzero()[:, 1])
    crow, col = torch.cat(counts).cumsum(0).int(), torch.cat(columns).int()
    values = torch.randn(col.shape[0], generator=g) / size.in_features**0.5
    return SparseLayer(
        input.to(device, dtype), values.to(device, dtype), crow.to(device), col.to(device)
    )
