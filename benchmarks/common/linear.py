"""Inputs of a linear layer with a sparse weight, made without anything of the dense size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .public import public
from .sizes import LinearSize
from .structures import structured_mask

_ROWS = 64  # of the mask at a time


class SparseLayer(NamedTuple):
    """A batch and a weight whose kept entries are drawn uniformly, within their structure."""

    input: Tensor  # (batch, in)
    values: Tensor  # (nnz,), in row-major order
    crow: Tensor  # (out + 1,), int32
    col: Tensor  # (nnz,), int32
    structure: str = "unstructured"

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

    def pattern(self) -> Any:
        """The Pattern that a user would make: what a structure needs, it gets here."""
        Pattern = public("sparse.Pattern")
        if self.structure == "unstructured":
            return Pattern.from_csr(self.crow, self.col, self.shape)
        if self.structure.endswith("interleaved"):
            # Needs telling: from_mask looks for neighbours that are alike.
            if not hasattr(Pattern, "from_groups"):
                raise NotImplementedError("not in this version of synops")
            groups = int(self.structure.split()[1])
            return Pattern.from_groups(self.shape, groups, interleaved=True, extra=self.mask())
        return Pattern.from_mask(self.mask())

    def kept(self, grad_input: Tensor, grad_weight: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients as every implementation has them: a dense weight's at the kept entries."""
        if grad_weight.dim() == 2:
            grad_weight = grad_weight.flatten()[self.positions()]
        return grad_input, grad_weight


def sparse_layer(
    size: LinearSize, dtype: torch.dtype = torch.float32, device: str = "cpu", *, seed: int = 0
) -> SparseLayer:
    """The layer of a size: the same float32 numbers at every call, then converted."""
    g = torch.Generator().manual_seed(seed)
    input = torch.randn(size.batch, size.in_features, generator=g)
    counts, columns = [torch.zeros(1, dtype=torch.long)], []
    for mask in _masks(size, g):
        counts.append(mask.sum(1))
        columns.append(mask.nonzero()[:, 1])
    crow, col = torch.cat(counts).cumsum(0).int(), torch.cat(columns).int()
    values = torch.randn(col.shape[0], generator=g) / size.in_features**0.5
    numbers = input.to(device, dtype), values.to(device, dtype)
    return SparseLayer(*numbers, crow.to(device), col.to(device), size.structure)


def _masks(size: LinearSize, generator: torch.Generator) -> Iterator[Tensor]:
    """The mask from the top to the bottom."""
    if size.structure != "unstructured":
        shape = (size.out_features, size.in_features)
        yield structured_mask(size.structure, shape, size.density, generator)
        return
    for first in range(0, size.out_features, _ROWS):
        rows = min(_ROWS, size.out_features - first)
        yield torch.rand(rows, size.in_features, generator=generator) < size.density
