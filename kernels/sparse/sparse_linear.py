"""sparse_linear (Triton): products of a dense matrix with the entries of a compressed one.

    y[b, o]  = sum_j values[j] * x[b, col[j]] + bias[o]        entries j of row o        SpMM
    gx[b, i] = sum_j values[perm[j]] * g[b, row[j]]            entries j of column i     SpMM
    gv[j]    = sum_b g[b, row of j] * x[b, col[j]]                                       SDDMM

    input, grad  (B, IN), (B, OUT)  rows of any stride
    values       (nnz or more,)     CSR order; what lies behind nnz is not read
    row_ptr      (tiles + 1, OUT)   int32; row 0 has the row starts, the last row the row ends (the
                                    tiles in between are for the CPU)
    col_ptr      (tiles + 1, IN)    the same by columns

Slabs: a dense operand with N columns is first turned to (blocks, N, BLOCK_B), blocks of the batch
feature-major and padded with zeros, so that an entry reads one run of BLOCK_B batch rows: 128
bytes, one cache line, 16 bytes a thread. The slab of a batch block is N lines in one piece: 128 KiB
at N = 1024, which fits the L1 of an SM, whereas the lines of a plain transpose would often lie a
power of two apart, in few sets of it.

Split, SpMM: a program has BLOCK_R rows and one batch block; neighbours in the grid share the batch
block, so an SM rereads its slab from L1. Sums are kept apart in BLOCK_J columns and added once at
the end, so the loop has no reduction. BLOCK_R output rows are written as one run of 16 or 32 bytes
in each batch row; y needs no transpose back.
Bytes: an entry costs 128 of L1 or L2 for 32 (float32) or 64 (16-bit) multiply-adds, and 6 to 8 of
index and value in each batch block. At 128 bytes a cycle and SM, an H200 (132 SMs, 1.75 GHz) reads
29 TB/s from L1, enough for 15 TFLOP/s in float32 while slabs fit, against 67 of dense FMA on its
data sheet: break-even with a dense product at its peak would be near density .2.
Split, SDDMM: a program has every CHUNKS-th block of BLOCK_J entries of one row and the whole batch;
the run of g is read once for BLOCK_J runs of x.

No atomics: every output has one writer and one order of sums, in float32 (float64 for float64).
Nothing of size OUT x IN is allocated. Memory safety: bounds from row_ptr are clamped to nnz and
indices outside an operand are skipped.

Not measured: tile sizes are from registers and bytes, no GPU was at hand.

Reference: python/synops/_reference/sparse/sparse_linear.py
Source: T. Gale et al., "Sparse GPU Kernels for Deep Learning", SC 2020, arXiv:2006.10901 (a program
for a piece of a row, dense rows read as vectors).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.launch import OPTIONS, accumulator, require, require_floats, require_index, unit_rows
from .pattern import chunks_of

BLOCK_R = 8  # rows of a program: 32 bytes of float32 output
_LINE = 128  # bytes of batch that an entry reads
_SLAB_COLUMNS = 64  # of a tile that is turned


@triton.jit
def _sparse_linear_slab_kernel(
    x_ptr,  # (B, N), rows x_stride apart
    slab_ptr,  # (BLOCKS, N, BLOCK_B)
    B,
    N,
    x_stride,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    tiles = tl.cdiv(N, BLOCK_N)
    block = (tl.program_id(0) // tiles).to(tl.int64)
    n = tl.program_id(0) % tiles * BLOCK_N + tl.arange(0, BLOCK_N)
    local = tl.arange(0, BLOCK_B)
    b = block * BLOCK_B + local
    inside = (b < B)[:, None] & (n < N)[None, :]
    x = tl.load(x_ptr + b[:, None] * x_stride + n[None, :], mask=inside, other=0.0)
    at = (block * N + n)[:, None] * BLOCK_B + local[None, :]
    tl.store(slab_ptr + at, tl.trans(x), mask=(n < N)[:, None])


@triton.jit
def _sparse_linear_kernel(
    slab_ptr,  # (BLOCKS, IN, BLOCK_B)
    values_ptr,  # (NNZ or more,)
    row_ptr_ptr,  # (TILES + 1, OUT)
    col_ptr,  # (NNZ,)
    bias_ptr,  # (OUT,) or None
    y_ptr,  # (B, OUT)
    B,
    IN,
    OUT,
    NNZ,
    LAST,  # TILES * OUT
    ACC: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    groups = tl.cdiv(OUT, BLOCK_R)
    block = (tl.program_id(0) // groups).to(tl.int64)
    r = tl.program_id(0) % groups * BLOCK_R + tl.arange(0, BLOCK_R)
    local = tl.arange(0, BLOCK_B)
    # rows past the end are empty; int64 as j runs past nnz, which may be 2^31 - 1
    begin = tl.maximum(tl.load(row_ptr_ptr + r, mask=r < OUT, other=0), 0).to(tl.int64)
    end = tl.minimum(tl.load(row_ptr_ptr + LAST + r, mask=r < OUT, other=0), NNZ).to(tl.int64)
    slab_ptr += block * IN * BLOCK_B + local[None, None, :]
    acc = tl.zeros((BLOCK_R, BLOCK_J, BLOCK_B), ACC)
    for step in range(0, tl.max(end - begin, 0), BLOCK_J):
        j = begin[:, None] + (step + tl.arange(0, BLOCK_J))[None, :]
        k = tl.load(col_ptr + j, mask=j < end[:, None], other=-1)
        kept = (k >= 0) & (k < IN)
        value = tl.load(values_ptr + j, mask=kept, other=0.0).to(ACC)
        run = slab_ptr + k.to(tl.int64)[:, :, None] * BLOCK_B
        x = tl.load(run, mask=kept[:, :, None], other=0.0).to(ACC)
        acc += value[:, :, None] * x
    y = tl.sum(acc, 1)
    if bias_ptr is not None:
        y += tl.load(bias_ptr + r, mask=r < OUT, other=0.0).to(ACC)[:, None]
    b = block * BLOCK_B + local
    inside = (r < OUT)[:, None] & (b < B)[None, :]
    tl.store(y_ptr + b[None, :] * OUT + r[:, None], y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _sparse_linear_backward_kernel(
    grad_ptr,  # (BLOCKS, OUT, BLOCK_B)
    slab_ptr,  # (BLOCKS, IN, BLOCK_B), of the input
    row_ptr_ptr,  # (TILES + 1, OUT)
    col_ptr,  # (NNZ,)
    grad_values_ptr,  # (NNZ or more,)
    BLOCKS,
    IN,
    NNZ,
    LAST,  # TILES * OUT
    CHUNKS,
    grad_stride,  # OUT * BLOCK_B
    slab_stride,  # IN * BLOCK_B
    ACC: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    r = (tl.program_id(0) // CHUNKS).to(tl.int64)
    local = tl.arange(0, BLOCK_B)
    begin = tl.maximum(tl.load(row_ptr_ptr + r), 0).to(tl.int64)
    end = tl.minimum(tl.load(row_ptr_ptr + LAST + r), NNZ).to(tl.int64)
    for start in range(begin + tl.program_id(0) % CHUNKS * BLOCK_J, end, CHUNKS * BLOCK_J):
        j = start + tl.arange(0, BLOCK_J)
        k = tl.load(col_ptr + j, mask=j < end, other=-1)
        kept = (k >= 0) & (k < IN)
        g_run = grad_ptr + r * BLOCK_B + local
        x_run = slab_ptr + k.to(tl.int64)[:, None] * BLOCK_B + local[None, :]
        acc = tl.zeros((BLOCK_J, BLOCK_B), ACC)
        for _ in range(BLOCKS):
            g = tl.load(g_run).to(ACC)
            x = tl.load(x_run, mask=kept[:, None], other=0.0).to(ACC)
            acc += g[None, :] * x
            g_run += grad_stride
            x_run += slab_stride
        value = tl.sum(acc, 1).to(grad_values_ptr.dtype.element_ty)
        tl.store(grad_values_ptr + j, value, mask=j < end)


def _block_b(dtype: torch.dtype, batch: int) -> int:
    """Batch rows of a slab: a cache line, fewer for a smaller batch."""
    return min(_LINE // dtype.itemsize, triton.next_power_of_2(batch))


def _block_j(dtype: torch.dtype, block_b: int) -> int:
    """Entries of a step of SpMM: 32 registers of sums a thread at BLOCK_R = 8 and 4 warps."""
    return min(64, (256 if dtype == torch.float64 else 512) // block_b)


def _sddmm_j(block_b: int, mean: int) -> int:
    """Entries of a step of SDDMM, 16 sums a thread at 4 warps; fewer for rows of fewer entries."""
    return min(128, 2048 // block_b, max(16, triton.next_power_of_2(mean)))


def _slab(x: Tensor, block_b: int) -> Tensor:
    """(B, N) -> (blocks, N, block_b)"""
    x = unit_rows(x)
    batch, n = x.shape
    blocks = triton.cdiv(batch, block_b)
    slab = x.new_empty(blocks, n, block_b)
    grid = (blocks * triton.cdiv(n, _SLAB_COLUMNS),)
    _sparse_linear_slab_kernel[grid](
        x, slab, batch, n, x.stride(0), BLOCK_B=block_b, BLOCK_N=_SLAB_COLUMNS, **OPTIONS
    )
    return slab


def _spmm(
    slab: Tensor, values: Tensor, bias: Tensor | None, ptr: Tensor, index: Tensor, batch: int
) -> Tensor:
    """y (batch, rows) of compressed rows with ``values`` in their order."""
    blocks, cols, block_b = slab.shape
    rows = ptr.shape[1]
    y = slab.new_empty(batch, rows)
    _sparse_linear_kernel[(blocks * triton.cdiv(rows, BLOCK_R),)](
        slab,
        values,
        ptr,
        index,
        bias,
        y,
        batch,
        cols,
        rows,
        index.shape[0],
        (ptr.shape[0] - 1) * rows,
        ACC=accumulator(slab.dtype),
        BLOCK_R=BLOCK_R,
        BLOCK_J=_block_j(slab.dtype, block_b),
        BLOCK_B=block_b,
        **OPTIONS,
    )
    return y


def _sddmm(grad: Tensor, slab: Tensor, values: Tensor, row_ptr: Tensor, col: Tensor) -> Tensor:
    """Gradient of ``values`` from the slabs of the gradient and the input."""
    blocks, rows, block_b = grad.shape
    nnz = col.shape[0]
    grad_values = values.new_empty(values.shape)
    grad_values[nnz:] = 0
    block_j = _sddmm_j(block_b, triton.cdiv(nnz, rows))
    chunks = chunks_of(nnz, rows, block_j)
    _sparse_linear_backward_kernel[(rows * chunks,)](
        grad,
        slab,
        row_ptr,
        col,
        grad_values,
        blocks,
        slab.shape[1],
        nnz,
        (row_ptr.shape[0] - 1) * rows,
        chunks,
        grad.stride(0),
        slab.stride(0),
        ACC=accumulator(slab.dtype),
        BLOCK_J=block_j,
        BLOCK_B=block_b,
        **OPTIONS,
    )
    return grad_values


def _check(op: str, dense: Tensor, columns: int, values: Tensor, index: tuple[Tensor, ...]) -> None:
    row_ptr, col, col_ptr, row, perm = index
    nnz = col.shape[0]
    require_index(op, dense, *index)
    require(
        dense.dim() == 2 and dense.shape[1] == columns,
        op,
        f"the pattern needs a matrix of {columns} columns, got {tuple(dense.shape)}",
    )
    require(
        row_ptr.dim() == col_ptr.dim() == 2 and min(row_ptr.shape[0], col_ptr.shape[0]) > 1,
        op,
        "row_ptr and col_ptr must be (tiles + 1, out) and (tiles + 1, in)",
    )
    require(
        col.dim() == 1 and col.shape == row.shape == perm.shape,
        op,
        "col, row and perm must have one length",
    )
    require(
        values.dim() == 1 and values.shape[0] >= nnz,
        op,
        f"values must hold at least {nnz} elements, got {tuple(values.shape)}",
    )


def sparse_linear(
    input: Tensor,  # (B, IN)
    values: Tensor,  # (nnz or more,)
    bias: Tensor | None,  # (OUT,)
    row_ptr: Tensor,  # (tiles + 1, OUT)
    col: Tensor,  # (nnz,)
    col_ptr: Tensor,  # (tiles + 1, IN)
    row: Tensor,  # (nnz,)
    perm: Tensor,  # (nnz,)
) -> Tensor:
    """(B, OUT)"""
    op = "sparse_linear"
    _check(op, input, col_ptr.shape[-1], values, (row_ptr, col, col_ptr, row, perm))
    require_floats(op, input, values, *(() if bias is None else (bias,)))
    batch, out = input.shape[0], row_ptr.shape[1]
    require(bias is None or bias.shape == (out,), op, f"bias must have shape ({out},)")
    if batch == 0 or out == 0 or col.shape[0] == 0:
        zeros = input.new_zeros(batch, out)
        return zeros if bias is None else zeros + bias
    with torch.cuda.device_of(input):
        slab = _slab(input, _block_b(input.dtype, batch))
        bias = None if bias is None else bias.contiguous()
        return _spmm(slab, values.contiguous(), bias, row_ptr, col, batch)


def sparse_linear_backward(
    grad: Tensor,  # (B, OUT)
    input: Tensor,  # (B, IN)
    values: Tensor,  # (nnz or more,)
    row_ptr: Tensor,  # (tiles + 1, OUT)
    col: Tensor,  # (nnz,)
    col_ptr: Tensor,  # (tiles + 1, IN)
    row: Tensor,  # (nnz,)
    perm: Tensor,  # (nnz,)
    need_input: bool,
    need_values: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(B, IN), (nnz or more,), (OUT,); empty where not needed"""
    op = "sparse_linear_backward"
    index = (row_ptr, col, col_ptr, row, perm)
    _check(op, grad, row_ptr.shape[-1], values, index)
    _check(op, input, col_ptr.shape[-1], values, index)
    require_floats(op, grad, input, values)
    require(grad.shape[0] == input.shape[0], op, "grad and input must have one batch size")
    batch, nnz = grad.shape[0], col.shape[0]
    grad_input, grad_values = grad.new_empty(0, 0), values.new_empty(0)
    grad_bias = grad.sum(0) if need_bias else grad.new_empty(0)
    if batch == 0 or nnz == 0:
        if need_input:
            grad_input = torch.zeros_like(input, memory_format=torch.contiguous_format)
        if need_values:
            grad_values = values.new_zeros(values.shape)
        return grad_input, grad_values, grad_bias
    with torch.cuda.device_of(grad):
        block_b = _block_b(grad.dtype, batch)
        slab = _slab(grad, block_b) if need_input or need_values else grad
        if need_input:
            by_column = values.index_select(0, perm)
            grad_input = _spmm(slab, by_column, None, col_ptr, row, batch)
        if need_values:
            grad_values = _sddmm(slab, _slab(input, block_b), values, row_ptr, col)
    return grad_input, grad_values, grad_bias


_INDEX = {"row_ptr_ptr": "*i32", "col_ptr": "*i32"}
_SIZES = {"IN": "i32", "NNZ": "i32", "LAST": "i32"}


def _builds(dtype: torch.dtype, batch: int) -> list[Build]:
    """The kernels as they run for a batch and rows of about 100 entries."""
    p, block_b = "*" + NAMES[dtype], _block_b(dtype, batch)
    acc = {"ACC": accumulator(dtype), "BLOCK_B": block_b}
    stride = "i32:16" if block_b % 16 == 0 else "i32"
    slab = {"x_ptr": p, "slab_ptr": p, "B": "i32"}
    spmm = {"slab_ptr": p, "values_ptr": p, **_INDEX, "bias_ptr": p, "y_ptr": p, **_SIZES}
    sddmm = {"grad_ptr": p, "slab_ptr": p, **_INDEX, "grad_values_ptr": p, **_SIZES}
    return [
        *(
            Build(
                _sparse_linear_slab_kernel,
                {**slab, "N": size, "x_stride": size},
                {"BLOCK_B": block_b, "BLOCK_N": _SLAB_COLUMNS},
                {},
            )
            for size in ("i32", "i32:16")
        ),
        Build(
            _sparse_linear_kernel,
            {**spmm, "B": "i32", "OUT": "i32"},
            {**acc, "BLOCK_R": BLOCK_R, "BLOCK_J": _block_j(dtype, block_b)},
            {},
        ),
        Build(
            _sparse_linear_backward_kernel,
            {
                **sddmm,
                "BLOCKS": "i32",
                "CHUNKS": "i32",
                "grad_stride": stride,
                "slab_stride": stride,
            },
            {**acc, "BLOCK_J": _sddmm_j(block_b, 100)},
            {},
        ),
    ]


AOT = [
    build
    for dtype in (torch.float32, torch.bfloat16, torch.float64)
    for build in _builds(dtype, 128)
] + _builds(torch.float32, 1)
