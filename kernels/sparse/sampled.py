"""Sampled products (Triton): the value gradient of sparse_linear from tiles of the dense one.

    gv[j] = sum_b g[b, row of j] * x[b, col[j]]

Split: a program makes one tile of g.T @ x in registers, all BLOCK_O x BLOCK_N of it, and keeps what
the pattern has: it finds where the entries of each row begin in its columns by a binary search, and
picks the sums by column. Nothing of size OUT x IN is written, and no line of x is gathered: tiles
are read whole, as slabs (slab.py), and multiplied on tensor cores.

When: the arithmetic is that of the dense product at any density, against 1 / density of a gather of
B elements an entry (sparse_linear.py). On an H200, with 5.5 TB/s of L2 for the gather: in 16 bits,
with tensor cores at 600 TFLOP/s, even at density .01; in float64 at 40 TFLOP/s, .03; in float32 at
27, .1. ABOVE is twice that, since a gather may find lines in L1.

Sums are in float32 (float64 for float64), BLOCK_B terms at a time, in one order. No atomics.
Memory safety: bounds are clamped to nnz, columns outside the tile are skipped.

Not measured: tile sizes are from registers and bytes, no GPU was at hand.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.interpreter import INTERPRETED
from ..common.launch import OPTIONS, accumulator
from ..common.tile import dot, first_of_tile, lower_bound
from .slab import Slab

ABOVE = {2: 0.02, 4: 0.2, 8: 0.06}  # density, by bytes of an element
LEAST_BATCH = 16
_GROUP = 8  # tiles that share columns follow each other, see first_of_tile
_BLOCK_J = 16  # entries of a row that are picked at a time

# Sides of a tile and terms of a step, by bytes of an element; warps and stages.
_TILES = {2: (128, 64), 4: (64, 16), 8: (64, 16)}
_LAUNCH = {"num_warps": 8, "num_stages": 3}


@triton.jit
def _sampled_kernel(
    grad_ptr,  # (OUT, G_LD)
    slab_ptr,  # (IN, X_LD), of the input
    crow_ptr,  # (OUT + 1,)
    col_ptr,  # (NNZ,)
    gv_ptr,  # (NNZ or more,)
    OUT,
    IN,
    NNZ,
    G_LD,
    X_LD,
    WIDTH,
    SEARCH,  # steps that halve the longest row to nothing
    ACC: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_J: tl.constexpr,
    GROUP: tl.constexpr,
):
    first_o, first_n = first_of_tile(OUT, IN, BLOCK_O, BLOCK_N, GROUP)
    o = first_o + tl.arange(0, BLOCK_O)
    n = first_n + tl.arange(0, BLOCK_N)
    local = tl.arange(0, BLOCK_B)
    acc = tl.zeros((BLOCK_O, BLOCK_N), ACC)
    for start in range(0, WIDTH, BLOCK_B):
        b = start + local
        inside = b < WIDTH
        g_at = o[:, None] * G_LD + b[None, :]
        x_at = n[None, :] * X_LD + b[:, None]
        g = tl.load(grad_ptr + g_at, mask=(o < OUT)[:, None] & inside[None, :], other=0.0)
        x = tl.load(slab_ptr + x_at, mask=(n < IN)[None, :] & inside[:, None], other=0.0)
        acc = dot(g, x, acc, ACC, WIDEN)
    begin = tl.maximum(tl.load(crow_ptr + o, mask=o < OUT, other=0), 0).to(tl.int64)
    end = tl.minimum(tl.load(crow_ptr + o + 1, mask=o < OUT, other=0), NNZ).to(tl.int64)
    begin = lower_bound(col_ptr, begin, end, first_n, SEARCH)
    sums = acc.to(gv_ptr.dtype.element_ty)
    for start in range(0, BLOCK_N, BLOCK_J):
        j = begin[:, None] + (start + tl.arange(0, BLOCK_J))[None, :]
        k = tl.load(col_ptr + j, mask=j < end[:, None], other=-1) - first_n
        kept = (k >= 0) & (k < BLOCK_N)
        picked = tl.gather(sums, tl.where(kept, k, 0).to(tl.int32), 1)
        tl.store(gv_ptr + j, picked, mask=kept)


def pays(dtype: torch.dtype, batch: int, rows: int, cols: int, nnz: int) -> bool:
    """Whether this is to be preferred to a gather."""
    return batch >= LEAST_BATCH and nnz > ABOVE[dtype.itemsize] * rows * cols


def grad_values(grad: Slab, slab: Slab, crow: Tensor, col: Tensor, gv: Tensor) -> None:
    """Writes the first nnz of ``gv``, from the slabs of the gradient and the input."""
    side, _ = _TILES[gv.dtype.itemsize]
    out, cols = grad.features, slab.features
    _sampled_kernel[(triton.cdiv(out, side) * triton.cdiv(cols, side),)](
        grad.data,
        slab.data,
        crow,
        col,
        gv,
        out,
        cols,
        col.shape[0],
        grad.ld,
        slab.ld,
        min(grad.width, slab.width),  # zeros from the end of the batch on
        cols.bit_length(),
        **_constants(gv.dtype),
        **_LAUNCH,
        **OPTIONS,
    )


def _constants(dtype: torch.dtype) -> dict:
    side, terms = _TILES[dtype.itemsize]
    tile = {"BLOCK_O": side, "BLOCK_N": side, "BLOCK_B": terms, "BLOCK_J": _BLOCK_J}
    return {"ACC": accumulator(dtype), "WIDEN": INTERPRETED, "GROUP": _GROUP, **tile}


AOT = [
    Build(
        _sampled_kernel,
        {
            **dict.fromkeys(("grad_ptr", "slab_ptr", "gv_ptr"), "*" + NAMES[dtype]),
            **dict.fromkeys(("crow_ptr", "col_ptr"), "*i32"),
            **dict.fromkeys(("OUT", "IN", "NNZ", "SEARCH"), "i32"),
            **dict.fromkeys(("G_LD", "X_LD", "WIDTH"), "i32:16"),
        },
        _constants(dtype),
        _LAUNCH,
    )
    for dtype in (torch.float32, torch.bfloat16, torch.float64)
]
