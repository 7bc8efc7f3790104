"""Row blocks (Triton): gradients of sparse_linear of rows with equal column lists.

With the blocks, lists, panels W and the pack of row_blocks.py:

    gx[b, i] = sum over blocks with i = list[p] of g[b, rows] @ W[p]
    gW       = x[:, list].T @ g[:, rows]

gx    a program has BLOCK_N adjacent columns (a window) and BLOCK_B batch rows, and visits the
      blocks with a column among them, in ascending order; columns of the window that a block lacks
      are zeros in its panel. For square blocks (BLOCK_N = R, 64 at most) nothing is lacking and the
      work is that of the entries. For columns without structure a window has 1 - (1 - d)^BLOCK_N of
      the blocks at density d, and the work is that part of the dense product: BLOCK_N = 16: .81 at
      .1, .15 at .01; 64: all of it, and .47. (Entry by entry, by the transpose, it would be d, and
      16 times the bytes.)
      A non-finite g reaches the whole window, as it does in a dense product.
plan  which blocks those are: 8 + BLOCK_N bytes for each pair of window and block (float64: 8 + 4
      BLOCK_N), OUT * IN / R in all, found by one binary search in each list: about 15 reads of L2
      one after the other for 2048 / BLOCK_N blocks, some microseconds a call. The transpose that a
      Pattern has lists rows, not blocks, and interleaved blocks (STEP > 1) lie scattered in it.
gW    a program has BLOCK_K places of one list and the whole batch, and stores in CSR order.

Bytes: gx reads R * B elements of g for each block of a window, gW B of x for each place of a list:
both one for BLOCK_N or R multiply-adds, as the forward.

Sums are in float32 (float64 for float64), BLOCK_K (gx) or BLOCK_B (gW) terms at a time. No atomics:
every output has one writer and one order of sums.
Memory safety: as in row_blocks.py; a place that the plan finds outside the pack is skipped.

Not measured: tile sizes are from registers and bytes, no GPU was at hand.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import Build
from ..common.interpreter import INTERPRETED
from ..common.launch import OPTIONS, accumulator
from ..common.tile import dot, lower_bound
from .pattern import chunks_of
from .row_blocks import (
    BUILT,
    TERMS,
    RowBlocks,
    block_b_of,
    block_list,
    build,
    candidates,
    config,
    packed,
    rank_of,
    tuned,
)
from .slab import Slab


@triton.jit
def _row_blocks_plan_kernel(
    crow_ptr,  # (OUT + 1,)
    col_ptr,  # (NNZ,)
    count_ptr,  # (WINDOWS,), blocks of a window
    row_ptr,  # (WINDOWS, BLOCKS), first row of each
    unit_ptr,  # (WINDOWS, BLOCKS), place in the pack of its first column in the window
    rank_ptr,  # (WINDOWS, BLOCKS, BLOCK_N): of each column, places behind that; 255: absent
    BLOCKS,
    NNZ,
    UNITS,
    STEP,
    SEARCH,  # steps that halve the longest list to nothing
    R: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    window = tl.program_id(0).to(tl.int64)
    first = window * BLOCK_N
    rank = tl.arange(0, BLOCK_N)
    count = tl.zeros((), tl.int32)
    for start in range(0, BLOCKS, BLOCK_C):
        n = start + tl.arange(0, BLOCK_C)
        row, begin, end, unit = block_list(crow_ptr, tl.minimum(n, BLOCKS - 1), NNZ, STEP, R)
        low = lower_bound(col_ptr, begin, end, first, SEARCH)
        j = low[:, None] + rank[None, :]
        inside = (n < BLOCKS)[:, None] & (j < end[:, None])
        local = tl.load(col_ptr + j, mask=inside, other=0) - first
        inside = inside & (local >= 0) & (local < BLOCK_N)
        found = tl.max(inside.to(tl.int32), 1)
        at = window * BLOCKS + count + tl.cumsum(found, 0) - found
        unit += low - begin
        unit = tl.where((unit >= 0) & (unit < UNITS), unit, UNITS)
        tl.store(row_ptr + at, row.to(tl.int32), mask=found != 0)
        tl.store(unit_ptr + at, unit.to(tl.int32), mask=found != 0)
        to = rank_ptr + at[:, None] * BLOCK_N + local
        ranks = tl.broadcast_to(rank[None, :], to.shape).to(rank_ptr.dtype.element_ty)
        tl.store(to, ranks, mask=inside)
        count += tl.sum(found, 0)
    tl.store(count_ptr + window, count)


@tuned
@triton.jit
def _row_blocks_input_kernel(
    slab_ptr,  # (ROWS, LD), of the gradient
    pack_ptr,  # (UNITS, R)
    count_ptr,  # (WINDOWS,), see plan
    row_ptr,  # (WINDOWS, BLOCKS)
    unit_ptr,  # (WINDOWS, BLOCKS)
    rank_ptr,  # (WINDOWS, BLOCKS, BLOCK_N)
    gx_ptr,  # (B, COLS), by the strides below
    B,
    ROWS,
    COLS,
    UNITS,
    STEP,
    LD,
    WIDTH,
    gx_stride_b,
    gx_stride_k,
    ACC: tl.constexpr,
    WIDEN: tl.constexpr,
    R: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    windows = tl.cdiv(COLS, BLOCK_N)
    window = (tl.program_id(0) % windows).to(tl.int64)
    b = (tl.program_id(0) // windows).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    column = tl.arange(0, BLOCK_N)
    slab_ptr += b[:, None]
    acc = tl.zeros((BLOCK_B, BLOCK_N), ACC)
    parts = R // BLOCK_K
    for i in range(tl.load(count_ptr + window) * parts):
        at = window * (ROWS // R) + i // parts
        r = i % parts * BLOCK_K + tl.arange(0, BLOCK_K)
        row = tl.load(row_ptr + at).to(tl.int64) + r * STEP
        g = tl.load(slab_ptr + row[None, :] * LD, mask=(b < WIDTH)[:, None], other=0.0)
        rank = tl.load(rank_ptr + at * BLOCK_N + column)
        place = tl.load(unit_ptr + at).to(tl.int64) + rank
        present = (rank < BLOCK_N) & (place < UNITS)
        w = tl.load(pack_ptr + place[None, :] * R + r[:, None], mask=present[None, :], other=0.0)
        acc = dot(g, w, acc, ACC, WIDEN)
    k = window * BLOCK_N + column
    to = gx_ptr + b[:, None] * gx_stride_b + k[None, :] * gx_stride_k
    tl.store(to, acc.to(gx_ptr.dtype.element_ty), mask=(b < B)[:, None] & (k < COLS)[None, :])


@tuned
@triton.jit
def _row_blocks_values_kernel(
    grad_ptr,  # (ROWS, G_LD)
    slab_ptr,  # (COLS, X_LD), of the input
    crow_ptr,  # (ROWS + 1,)
    col_ptr,  # (NNZ,)
    gv_ptr,  # (NNZ or more,)
    ROWS,
    COLS,
    NNZ,
    STEP,
    CHUNKS,
    G_LD,
    X_LD,
    WIDTH,
    ACC: tl.constexpr,
    WIDEN: tl.constexpr,
    R: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row, begin, end, _ = block_list(crow_ptr, tl.program_id(0) // CHUNKS, NNZ, STEP, R)
    row += tl.arange(0, R) * STEP
    own_begin = tl.maximum(tl.load(crow_ptr + row), 0).to(tl.int64)
    own_end = tl.minimum(tl.load(crow_ptr + row + 1), NNZ)
    local = tl.arange(0, BLOCK_B)
    for start in range(tl.program_id(0) % CHUNKS * BLOCK_K, end - begin, CHUNKS * BLOCK_K):
        p = start + tl.arange(0, BLOCK_K)
        k = tl.load(col_ptr + begin + p, mask=begin + p < end, other=-1)
        kept = (k >= 0) & (k < COLS)
        x_run = slab_ptr + k.to(tl.int64)[:, None] * X_LD
        g_run = grad_ptr + row[None, :] * G_LD
        acc = tl.zeros((BLOCK_K, R), ACC)
        for b0 in range(0, WIDTH, BLOCK_B):
            b = b0 + local
            inside = b < WIDTH
            x = tl.load(x_run + b[None, :], mask=kept[:, None] & inside[None, :], other=0.0)
            g = tl.load(g_run + b[:, None], mask=inside[:, None], other=0.0)
            acc = dot(x, g, acc, ACC, WIDEN)
        j = own_begin[None, :] + p[:, None]
        inside = (p < end - begin)[:, None] & (j < own_end[None, :])
        tl.store(gv_ptr + j, acc.to(gv_ptr.dtype.element_ty), mask=inside)


def _plan_c(block_n: int) -> int:
    """Blocks of a step of plan: 16 columns a thread, more spill."""
    return 2048 // block_n


# Places of a list in a tile of gW.
_PLACES = {2: 64, 4: 64, 8: 32}


def grad_input(
    slab: Slab,  # of the gradient
    values: Tensor,
    crow: Tensor,
    col: Tensor,
    blocks: RowBlocks,
    gx: Tensor,  # (B, IN), either layout
) -> None:
    """Writes ``gx``."""
    (batch, cols), nnz = gx.shape, col.shape[0]
    pack = packed(values, crow, nnz, blocks)
    units, block_b, block_n = pack.shape[0], block_b_of(gx.dtype, batch), min(64, blocks.rows)
    windows = triton.cdiv(cols, block_n)
    count = crow.new_empty(windows)
    row, unit = crow.new_empty(2, windows, blocks.count)
    rank = gx.new_full((windows, blocks.count, block_n), 255, dtype=rank_of(gx.dtype))
    _row_blocks_plan_kernel[(windows,)](
        crow,
        col,
        count,
        row,
        unit,
        rank,
        blocks.count,
        nnz,
        units,
        blocks.step,
        cols.bit_length(),
        R=blocks.rows,
        BLOCK_N=block_n,
        BLOCK_C=_plan_c(block_n),
        **OPTIONS,
    )
    _row_blocks_input_kernel[(windows * triton.cdiv(batch, block_b),)](
        slab.data,
        pack,
        count,
        row,
        unit,
        rank,
        gx,
        batch,
        slab.features,
        cols,
        units,
        blocks.step,
        slab.ld,
        slab.width,
        *gx.stride(),
        ACC=accumulator(gx.dtype),
        WIDEN=INTERPRETED,
        R=blocks.rows,
        BLOCK_B=block_b,
        BLOCK_N=block_n,
        BLOCK_K=min(blocks.rows, TERMS[gx.dtype.itemsize]),
        **OPTIONS,
    )


def grad_values(
    grad: Slab, slab: Slab, crow: Tensor, col: Tensor, blocks: RowBlocks, gv: Tensor
) -> None:
    """Writes the first nnz of ``gv``, from the slabs of the gradient and the input."""
    nnz = col.shape[0]
    places = _PLACES[gv.dtype.itemsize]
    chunks = chunks_of(nnz, grad.features, places)
    _row_blocks_values_kernel[(blocks.count * chunks,)](
        grad.data,
        slab.data,
        crow,
        col,
        gv,
        grad.features,
        slab.features,
        nnz,
        blocks.step,
        chunks,
        grad.ld,
        slab.ld,
        min(grad.width, slab.width),  # zeros from the end of the batch on
        ACC=accumulator(gv.dtype),
        WIDEN=INTERPRETED,
        R=blocks.rows,
        BLOCK_B=TERMS[gv.dtype.itemsize],
        BLOCK_K=places,
        **OPTIONS,
    )


def _builds(dtype: torch.dtype, rows: int, batch: int) -> list[Build]:
    """The kernels as they run for adjacent rows and a row-major result."""
    terms, block_n = TERMS[dtype.itemsize], min(64, rows)
    common = {"R": rows, "STEP": 1}
    types = {"ACC": accumulator(dtype), "WIDEN": False}
    plan = {"BLOCK_N": block_n, "BLOCK_C": _plan_c(block_n)}
    by_window = {"BLOCK_N": block_n, "BLOCK_K": min(rows, terms), "gx_stride_k": 1}
    by_window |= {"BLOCK_B": block_b_of(dtype, batch)}
    by_place = {"BLOCK_B": terms, "BLOCK_K": _PLACES[dtype.itemsize]}
    kernels = ((_row_blocks_input_kernel, by_window), (_row_blocks_values_kernel, by_place))
    return [build(_row_blocks_plan_kernel, dtype, config(4, 3), **common, **plan)] + [
        build(kernel, dtype, c, **common, **types, **tile)
        for kernel, tile in kernels
        for c in candidates(dtype.itemsize, rows)
    ]


AOT = [
    b for dtype, sizes in BUILT.items() for rows in sizes for b in _builds(dtype, rows, 2048)
] + _builds(torch.bfloat16, 128, 128)
