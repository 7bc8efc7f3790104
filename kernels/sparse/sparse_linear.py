"""sparse_linear (Triton): products of a dense matrix with the entries of a compressed one.

    y[b, o]  = act(sum_j values[j] * x[b, col[j]] + bias[o])   entries j of row o        SpMM
    gx[b, i] = sum_j values[perm[j]] * g[b, row[j]]            entries j of column i     SpMM
    gv[j]    = sum_b g[b, row of j] * x[b, col[j]]                                       SDDMM

    input, grad       (B, IN), (B, OUT)  of any strides; y and gx row-major or feature-major
    values            (nnz or more,)     CSR order; what lies behind nnz is not read
    crow, col         (OUT + 1,), (nnz,) int32, compressed rows
    col_ptr           (tiles * IN + 1,)  int32, the transpose tile by tile of the rows, tile rows
    tile_row, perm    (nnz,)             each: runs (t, i) of entries of column i, uint16 row inside
                                         tile t and CSR position

These kernels are for entries without structure; row_blocks.py and row_blocks_backward.py have those
for equal rows. Dense operands are read as slabs (slab.py): an entry reads a run of BLOCK_B batch
rows, 128 bytes, one cache line, 16 bytes a thread.

Split, SpMM: a program has BLOCK_R rows and one run of the batch, and passes over the tiles (of CSR:
one). Sums are kept apart in BLOCK_J columns and added once at the end, so the loop has no
reduction; 4096 sums are 32 registers a thread at 4 warps. BLOCK_R = 16 rows make 32 or 64 bytes of
a row of y, whole sectors; neighbours in the grid share the batch block and pass over the columns
together, so that a line comes from L2 once for the rows that an SM has at one time (density .1 and
four programs: 6 times used), also where a slab is larger than L1.
Bytes: an entry costs 128 of L1 for 32 (float32) or 64 (16-bit) multiply-adds, and 6 to 8 of index
and value for each run of the batch. At 128 bytes a cycle and SM, an H200 (132 SMs, 1.75 GHz) reads
29 TB/s from L1, enough for 15 TFLOP/s in float32 and 29 in 16 bits, against 67 and 989 of dense on
its data sheet: break-even with a dense product at its peak near density .2 and .03.
gx has its values brought into the order of the transpose first: 12 bytes an entry once, instead of
a sector of 32 for each run of the batch.

Split, SDDMM: a program has every CHUNKS-th block of BLOCK_J entries of one row and the whole batch;
the run of g is read once for BLOCK_J runs of x. Those are not shared with another row, so that L2
feeds it: 4 * B bytes an entry at 5.5 TB/s. Where that is more than the whole product on the tensor
cores, sampled.py makes gv.

No atomics: every output has one writer and one order of sums, in float32 (float64 for float64).
Nothing of size OUT x IN is allocated. Memory safety: bounds are clamped to nnz and indices outside
an operand are skipped (perm: clamped).

Not measured: tile sizes are from registers and bytes, no GPU was at hand.

Reference: python/synops/_reference/sparse/sparse_linear.py
Source: T. Gale et al., "Sparse GPU Kernels for Deep Learning", SC 2020, arXiv:2006.10901 (a program
for a piece of a row, dense rows read as vectors).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._reference.sparse.pattern import tile_of
from ..._reference.sparse.sparse_linear import is_feature_major
from ..common.aot import NAMES, Build
from ..common.launch import OPTIONS, accumulator, require, require_floats, require_index
from ..common.tile import activated
from . import row_blocks, row_blocks_backward, sampled
from .pattern import chunks_of, rows_of
from .slab import Slab, line_of, slab_of

BLOCK_R = 16  # rows of a program


@triton.jit
def _sparse_linear_kernel(
    slab_ptr,  # (COLS, LD)
    values_ptr,  # (NNZ or more,), in the order of the index
    ptr_ptr,  # (TILES * ROWS + 1,)
    index_ptr,  # (NNZ,), int32, or int16: unsigned, inside tiles of TILE
    bias_ptr,  # (ROWS,) or None
    y_ptr,  # (B, ROWS), by the strides below
    B,
    ROWS,
    COLS,
    NNZ,
    LD,
    TILES,
    TILE,
    y_stride_b,
    y_stride_r,
    ACTIVATION: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    groups = tl.cdiv(ROWS, BLOCK_R)
    r = tl.program_id(0) % groups * BLOCK_R + tl.arange(0, BLOCK_R)
    b = (tl.program_id(0) // groups).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    slab_ptr += b[None, None, :]
    acc = tl.zeros((BLOCK_R, BLOCK_J, BLOCK_B), ACC)
    tile = 0
    for _ in range(TILES):
        # rows past the end are empty; int64 as j runs past nnz, which may be 2^31 - 1
        begin = tl.maximum(tl.load(ptr_ptr + r, mask=r < ROWS, other=0), 0).to(tl.int64)
        end = tl.minimum(tl.load(ptr_ptr + r + 1, mask=r < ROWS, other=0), NNZ).to(tl.int64)
        for step in range(0, tl.max(end - begin, 0), BLOCK_J):
            j = begin[:, None] + (step + tl.arange(0, BLOCK_J))[None, :]
            kept = j < end[:, None]
            k = tl.load(index_ptr + j, mask=kept, other=0).to(tl.int32)
            if index_ptr.dtype.element_ty == tl.int16:
                k = (k & 0xFFFF) + tile
            kept = kept & (k >= 0) & (k < COLS)
            value = tl.load(values_ptr + j, mask=kept, other=0.0).to(ACC)
            run = slab_ptr + k.to(tl.int64)[:, :, None] * LD
            x = tl.load(run, mask=kept[:, :, None], other=0.0).to(ACC)
            acc += value[:, :, None] * x
        ptr_ptr += ROWS
        tile += TILE
    y = tl.sum(acc, 1)
    if bias_ptr is not None:
        y += tl.load(bias_ptr + r, mask=r < ROWS, other=0.0).to(ACC)[:, None]
    y = activated(y, ACTIVATION).to(y_ptr.dtype.element_ty)
    inside = (r < ROWS)[:, None] & (b < B)[None, :]
    to = y_ptr + b[None, :] * y_stride_b + r.to(tl.int64)[:, None] * y_stride_r
    tl.store(to, y, mask=inside)


@triton.jit
def _sparse_linear_backward_kernel(
    grad_ptr,  # (OUT, G_LD)
    slab_ptr,  # (IN, X_LD), of the input
    crow_ptr,  # (OUT + 1,)
    col_ptr,  # (NNZ,)
    grad_values_ptr,  # (NNZ or more,)
    B,
    IN,
    NNZ,
    CHUNKS,
    G_LD,
    X_LD,
    ACC: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    r = (tl.program_id(0) // CHUNKS).to(tl.int64)
    b = tl.arange(0, BLOCK_B)
    begin = tl.maximum(tl.load(crow_ptr + r), 0).to(tl.int64)
    end = tl.minimum(tl.load(crow_ptr + r + 1), NNZ).to(tl.int64)
    for start in range(begin + tl.program_id(0) % CHUNKS * BLOCK_J, end, CHUNKS * BLOCK_J):
        j = start + tl.arange(0, BLOCK_J)
        k = tl.load(col_ptr + j, mask=j < end, other=-1)
        kept = (k >= 0) & (k < IN)
        g_run = grad_ptr + r * G_LD + b
        x_run = slab_ptr + k.to(tl.int64)[:, None] * X_LD + b[None, :]
        acc = tl.zeros((BLOCK_J, BLOCK_B), ACC)
        for _ in range(0, B, BLOCK_B):
            g = tl.load(g_run).to(ACC)
            x = tl.load(x_run, mask=kept[:, None], other=0.0).to(ACC)
            acc += g[None, :] * x
            g_run += BLOCK_B
            x_run += BLOCK_B
        value = tl.sum(acc, 1).to(grad_values_ptr.dtype.element_ty)
        tl.store(grad_values_ptr + j, value, mask=j < end)


def _block_j(dtype: torch.dtype, block_b: int) -> int:
    """Entries of a step of SpMM, by the registers that sums may take."""
    return min(64, (2048 if dtype == torch.float64 else 4096) // (BLOCK_R * block_b))


def _sddmm_j(block_b: int, mean: int) -> int:
    """Entries of a step of SDDMM, 16 sums a thread at 4 warps; fewer for rows of fewer entries."""
    return min(128, 2048 // block_b, max(16, triton.next_power_of_2(mean)))


def _spmm(
    slab: Slab,
    values: Tensor,
    bias: Tensor | None,
    ptr: Tensor,
    index: Tensor,
    tiles: int,
    activation: int,
    y: Tensor,  # (B, ROWS), either layout
) -> None:
    """Writes ``y``, of compressed rows with ``values`` in their order."""
    batch, rows = y.shape
    block_b = line_of(y.dtype, batch)
    _sparse_linear_kernel[(triton.cdiv(rows, BLOCK_R) * triton.cdiv(batch, block_b),)](
        slab.data,
        values.contiguous(),
        ptr,
        index,
        bias,
        y,
        batch,
        rows,
        slab.features,
        index.shape[0],
        slab.ld,
        tiles,
        tile_of(slab.features, tiles),
        *y.stride(),
        ACTIVATION=activation,
        ACC=accumulator(y.dtype),
        BLOCK_R=BLOCK_R,
        BLOCK_J=_block_j(y.dtype, block_b),
        BLOCK_B=block_b,
        **OPTIONS,
    )


def _sddmm(
    grad: Slab, slab: Slab, crow: Tensor, col: Tensor, batch: int, grad_values: Tensor
) -> None:
    """Writes the first nnz of ``grad_values``, from the slabs of the gradient and the input."""
    rows, nnz = grad.features, col.shape[0]
    block_b = line_of(grad_values.dtype, batch)
    block_j = _sddmm_j(block_b, triton.cdiv(nnz, rows))
    chunks = chunks_of(nnz, rows, block_j)
    _sparse_linear_backward_kernel[(rows * chunks,)](
        grad.data,
        slab.data,
        crow,
        col,
        grad_values,
        batch,
        slab.features,
        nnz,
        chunks,
        grad.ld,
        slab.ld,
        ACC=accumulator(grad_values.dtype),
        BLOCK_J=block_j,
        BLOCK_B=block_b,
        **OPTIONS,
    )


def _check(op: str, dense: Tensor, features: int, values: Tensor, nnz: int) -> None:
    require(
        dense.dim() == 2 and dense.shape[1] == features,
        op,
        f"the pattern needs a matrix of {features} columns, got {tuple(dense.shape)}",
    )
    require(
        values.dim() == 1 and values.shape[0] >= nnz,
        op,
        f"values must hold at least {nnz} elements, got {tuple(values.shape)}",
    )


def _tiles(op: str, col_ptr: Tensor, tile_row: Tensor, perm: Tensor, nnz: int, cols: int) -> int:
    """Checks the transpose; how many tiles it has."""
    require_index(op, perm, col_ptr, perm)
    require_index(op, perm, tile_row, dtype=torch.int16)
    require(
        tile_row.shape == perm.shape == (nnz,), op, "col, tile_row and perm must have one length"
    )
    runs = col_ptr.shape[0] - 1 if col_ptr.dim() == 1 else -1
    require(runs >= cols and runs % cols == 0, op, f"col_ptr must be (tiles * {cols} + 1,)")
    return runs // cols


def _matrix(like: Tensor, rows: int, cols: int, feature_major: bool) -> Tensor:
    return like.new_empty(cols, rows).t() if feature_major else like.new_empty(rows, cols)


def sparse_linear(
    input: Tensor,  # (B, IN)
    values: Tensor,  # (nnz or more,)
    bias: Tensor | None,  # (OUT,)
    crow: Tensor,  # (OUT + 1,)
    col: Tensor,  # (nnz,)
    row_ptr: Tensor,  # from here to perm: unread
    tile_col: Tensor,
    col_ptr: Tensor,
    tile_row: Tensor,
    perm: Tensor,
    bits: Tensor,
    block_rows: int,
    block_step: int,
    activation: int,
    feature_major: bool,
) -> Tensor:
    """(B, OUT)"""
    op = "sparse_linear"
    out = rows_of(op, input, crow, col)
    _check(op, input, input.shape[-1], values, col.shape[0])
    require_floats(op, input, values, *(() if bias is None else (bias,)))
    require(bias is None or bias.shape == (out,), op, f"bias must have shape ({out},)")
    require(activation in (0, 1, 2), op, f"activation must be 0, 1 or 2, got {activation}")
    batch = input.shape[0]
    y = _matrix(input, batch, out, feature_major)
    if batch == 0 or out == 0:
        return y
    blocks = row_blocks.blocks_of(block_rows, block_step, out, batch)
    with torch.cuda.device_of(input):
        slab = slab_of(input)
        bias = None if bias is None else bias.contiguous()
        if blocks is not None:
            row_blocks.forward(slab, values, bias, crow, col, blocks, activation, y)
        else:
            _spmm(slab, values, bias, crow, col, 1, activation, y)
    return y


def sparse_linear_backward(
    grad: Tensor,  # (B, OUT)
    input: Tensor,  # (B, IN)
    values: Tensor,  # (nnz or more,)
    crow: Tensor,  # (OUT + 1,)
    col: Tensor,  # (nnz,)
    row_ptr: Tensor,  # this and the next: unread
    tile_col: Tensor,
    col_ptr: Tensor,  # (tiles * IN + 1,)
    tile_row: Tensor,  # (nnz,)
    perm: Tensor,  # (nnz,)
    bits: Tensor,  # unread
    block_rows: int,
    block_step: int,
    need_input: bool,
    need_values: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(B, IN), (nnz or more,), (OUT,); empty where not needed"""
    op = "sparse_linear_backward"
    out, nnz = rows_of(op, grad, crow, col), col.shape[0]
    _check(op, grad, out, values, nnz)
    _check(op, input, input.shape[-1], values, nnz)
    require_floats(op, grad, input, values)
    batch, cols = input.shape
    require(grad.shape[0] == batch, op, "grad and input must have one batch size")
    grad_bias = grad.sum(0) if need_bias else grad.new_empty(0)
    grad_input, grad_values = grad.new_empty(0, 0), values.new_empty(0)
    if need_input:
        grad_input = _matrix(input, batch, cols, is_feature_major(input))
    if need_values:
        grad_values = values.new_empty(values.shape)
        grad_values[nnz:] = 0
    if 0 in (batch, nnz, out, cols):
        return grad_input.zero_(), grad_values.zero_(), grad_bias
    blocks = row_blocks.blocks_of(block_rows, block_step, out, batch)
    with torch.cuda.device_of(grad):
        g = slab_of(grad) if need_input or need_values else None
        x = slab_of(input) if need_values else None
        if need_input and blocks is not None:
            row_blocks_backward.grad_input(g, values, crow, col, blocks, grad_input)
        elif need_input:
            tiles = _tiles(op, col_ptr, tile_row, perm, nnz, cols)
            by_column = values.index_select(0, perm.clamp(0, nnz - 1))
            _spmm(g, by_column, None, col_ptr, tile_row, tiles, 0, grad_input)
        if need_values and blocks is not None:
            row_blocks_backward.grad_values(g, x, crow, col, blocks, grad_values)
        elif need_values and sampled.pays(grad.dtype, batch, out, cols, nnz):
            sampled.grad_values(g, x, crow, col, grad_values)
        elif need_values:
            _sddmm(g, x, crow, col, batch, grad_values)
    return grad_input, grad_values, grad_bias


_INDEX = {"crow_ptr": "*i32", "col_ptr": "*i32"}


def _builds(dtype: torch.dtype, batch: int) -> list[Build]:
    """The kernels as they run for a batch and rows of about 100 entries, row-major results."""
    p, block_b = "*" + NAMES[dtype], line_of(dtype, batch)
    sums = {"ACC": accumulator(dtype), "BLOCK_B": block_b}
    ld = "i32:16" if block_b % 16 == 0 else "i32"
    spmm = dict.fromkeys(("slab_ptr", "values_ptr", "bias_ptr", "y_ptr"), p)
    spmm |= dict.fromkeys(("B", "ROWS", "COLS", "NNZ", "TILE", "y_stride_b"), "i32")
    spmm |= {"ptr_ptr": "*i32", "LD": ld}
    tile = {**sums, "BLOCK_R": BLOCK_R, "BLOCK_J": _block_j(dtype, block_b), "y_stride_r": 1}
    sddmm = dict.fromkeys(("grad_ptr", "slab_ptr", "grad_values_ptr"), p) | _INDEX
    sddmm |= dict.fromkeys(("B", "IN", "NNZ", "CHUNKS"), "i32") | {"G_LD": ld, "X_LD": ld}
    return [
        Build(
            _sparse_linear_kernel,
            {**spmm, "index_ptr": "*i32"},
            {**tile, "TILES": 1, "ACTIVATION": 2},
            {},
        ),
        Build(
            _sparse_linear_kernel,
            {**spmm, "index_ptr": "*i16", "TILES": "i32"},
            {**tile, "ACTIVATION": 0},
            {},
        ),
        Build(
            _sparse_linear_backward_kernel, sddmm, {**sums, "BLOCK_J": _sddmm_j(block_b, 100)}, {}
        ),
    ]


AOT = [
    build
    for dtype in (torch.float32, torch.bfloat16, torch.float64)
    for build in _builds(dtype, 128)
] + _builds(torch.float32, 1)
