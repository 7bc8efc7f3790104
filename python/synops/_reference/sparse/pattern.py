"""pattern: compressed rows and columns of a bool mask, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

TILE = 192  # columns of a tile; as kTile in csrc/sparse/pattern.h
TILE_ENTRIES = 15  # mean entries of a row in a tile from which tiles pay; as kTileEntries there


def tiles_of(rows: int, cols: int, nnz: int) -> int:
    """Tiles that ``rows`` compressed rows over ``cols`` columns get."""
    tiles = (cols + TILE - 1) // TILE
    return tiles if tiles > 1 and nnz >= TILE_ENTRIES * rows * tiles else 1


def pattern_from_mask(mask: Tensor) -> tuple[Tensor, Tensor]:
    """mask (out, in) -> crow (out + 1,), col (nnz,)."""
    crow = torch.zeros(mask.shape[0] + 1, dtype=torch.int32, device=mask.device)
    crow[1:] = mask.sum(1).cumsum(0)
    return crow, mask.nonzero()[:, 1].to(torch.int32)


def _tile_pointers(row: Tensor, col: Tensor, rows: int, cols: int) -> Tensor:
    """(tiles + 1, rows): where in (row, col), sorted, the entries of a row from a tile on begin."""
    tiles = tiles_of(rows, cols, col.numel())
    width = TILE if tiles > 1 else max(cols, 1)
    key = row.long() * tiles + col // width
    ask = torch.arange(rows, device=row.device) * tiles
    ask = ask + torch.arange(tiles + 1, device=row.device)[:, None]
    return torch.searchsorted(key, ask).to(torch.int32)


def pattern_plan(
    crow: Tensor, col: Tensor, in_features: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """CSR -> row_ptr (tiles + 1, out), col_ptr (tiles + 1, in), row (nnz,), perm (nnz,)."""
    rows = crow.shape[0] - 1
    per_row = (crow[1:] - crow[:-1]).long()
    row_of = torch.repeat_interleave(torch.arange(rows, device=col.device), per_row)
    perm = torch.argsort(col, stable=True)
    row = row_of[perm]
    row_ptr = _tile_pointers(row_of, col, rows, in_features)
    col_ptr = _tile_pointers(col[perm], row, in_features, rows)
    return row_ptr, col_ptr, row.to(torch.int32), perm.to(torch.int32)


def rows_of(row_ptr: Tensor, col: Tensor) -> Tensor:
    """Row of every entry, in CSR order (nnz,), int64."""
    per_row = (row_ptr[-1] - row_ptr[0]).long()
    rows = torch.arange(row_ptr.shape[1], device=col.device)
    return torch.repeat_interleave(rows, per_row, output_size=col.shape[0])


def pattern_gather(weight: Tensor, row_ptr: Tensor, col: Tensor) -> Tensor:
    """values[j] = weight[row of j, col[j]]."""
    return weight[rows_of(row_ptr, col), col.long()]


def pattern_scatter(values: Tensor, row_ptr: Tensor, col: Tensor, in_features: int) -> Tensor:
    """The dense matrix with ``values`` at the kept entries and zeros elsewhere."""
    out = values.new_zeros(row_ptr.shape[1], in_features)
    index = (rows_of(row_ptr, col), col.long())
    return out.index_put(index, values[: col.shape[0]])
