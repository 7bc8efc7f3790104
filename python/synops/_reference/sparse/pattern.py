"""pattern: compressed rows and columns of a bool mask, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

# As in csrc/sparse/formats.h: the narrowest tile in which a row has enough entries on average,
# (columns, entries); else one tile, of at most WIDEST_TILE columns (16-bit indices).
TILES = ((128, 20), (256, 15))
WIDEST_TILE = 65536
BLOCKS = (8, 16, 32, 64, 128)


def tiles_of(rows: int, cols: int, nnz: int) -> int:
    """Tiles that ``rows`` compressed rows over ``cols`` columns get."""
    for columns, entries in TILES:
        if cols > columns and nnz * columns >= entries * rows * cols:
            return (cols + columns - 1) // columns
    return (cols + WIDEST_TILE - 1) // WIDEST_TILE if cols > WIDEST_TILE else 1


def tile_of(cols: int, tiles: int) -> int:
    """Columns of a tile, a multiple of 16, when ``cols`` columns are split into ``tiles``."""
    return ((max(1, cols) + tiles - 1) // tiles + 15) // 16 * 16


def pattern_from_mask(mask: Tensor) -> tuple[Tensor, Tensor]:
    """mask (out, in) -> crow (out + 1,), col (nnz,)."""
    crow = torch.zeros(mask.shape[0] + 1, dtype=torch.int32, device=mask.device)
    crow[1:] = mask.sum(1).cumsum(0)
    return crow, mask.nonzero()[:, 1].to(torch.int32)


def _tiled(row: Tensor, col: Tensor, rows: int, cols: int) -> tuple[Tensor, Tensor, Tensor]:
    """Entries sorted by row -> order by tile and row, run pointers, column inside the tile."""
    tiles = tiles_of(rows, cols, col.numel())
    tile = tile_of(cols, tiles)
    run = col // tile * rows + row
    order = torch.argsort(run, stable=True)
    ask = torch.arange(tiles * rows + 1, device=row.device)
    ptr = torch.searchsorted(run[order], ask).to(torch.int32)
    near = (col % tile)[order]
    return order, ptr, torch.where(near < 2**15, near, near - 2**16).to(torch.int16)


def pattern_plan(
    crow: Tensor, col: Tensor, in_features: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """CSR -> row_ptr, tile_col of its rows; col_ptr, tile_row, perm of its columns."""
    rows = crow.shape[0] - 1
    row = rows_of(crow, col)
    _, row_ptr, tile_col = _tiled(row, col.long(), rows, in_features)
    by_column = torch.argsort(col, stable=True)
    order, col_ptr, tile_row = _tiled(col.long()[by_column], row[by_column], in_features, rows)
    return row_ptr, tile_col, col_ptr, tile_row, by_column[order].to(torch.int32)


def rows_of(crow: Tensor, col: Tensor) -> Tensor:
    """Row of every entry, in CSR order (nnz,), int64."""
    rows = torch.arange(crow.shape[0] - 1, device=col.device)
    return torch.repeat_interleave(rows, crow.diff().long(), output_size=col.shape[0])


def pattern_bits(crow: Tensor, col: Tensor, in_features: int) -> Tensor:
    """(out, words), int64: bit k % 64 of word k // 64 is set where column k is kept."""
    rows, words = crow.shape[0] - 1, (in_features + 63) // 64
    bits = torch.zeros(rows * words, dtype=torch.int64, device=col.device)
    k = col.long()
    one = torch.ones_like(k) << (k % 64)
    return bits.index_add_(0, rows_of(crow, col) * words + k // 64, one).view(rows, words)


def pattern_blocks(crow: Tensor, col: Tensor) -> Tensor:
    """(1,), int32: the largest of BLOCKS such that rows have equal columns so many at a time."""
    lists = [tuple(row.tolist()) for row in col.split(crow.diff().tolist())]
    most = 1
    for rows in BLOCKS:
        groups = [lists[i : i + rows] for i in range(0, len(lists), rows)]
        if not lists or len(lists) % rows or any(len(set(group)) > 1 for group in groups):
            break
        most = rows
    return torch.tensor([most], dtype=torch.int32, device=col.device)


def pattern_split(values: Tensor, select: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """values[select], and the others."""
    kept = values[: select.shape[0]]
    return kept[select], kept[~select]


def pattern_merge(selected: Tensor, rest: Tensor, select: Tensor) -> Tensor:
    """The values that pattern_split splits into these."""
    values = selected.new_empty(select.shape[0])
    return values.masked_scatter(select, selected).masked_scatter(~select, rest)


def pattern_gather(weight: Tensor, crow: Tensor, col: Tensor) -> Tensor:
    """values[j] = weight[row of j, col[j]]."""
    return weight[rows_of(crow, col), col.long()]


def pattern_scatter(values: Tensor, crow: Tensor, col: Tensor, in_features: int) -> Tensor:
    """The dense matrix with ``values`` at the kept entries and zeros elsewhere."""
    out = values.new_zeros(crow.shape[0] - 1, in_features)
    index = (rows_of(crow, col), col.long())
    return out.index_put(index, values[: col.shape[0]])
