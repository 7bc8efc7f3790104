"""Slabs (Triton): a dense operand (B, N) with the batch innermost, as the sparse products read it.

    element (b, n) = data[n * ld + b]        b < width, zeros where b >= B

An entry of a sparse weight meets one feature of every batch row. Batch innermost, that is a run: a
warp reads 16 bytes a thread from it, where row-major rows would give 2 or 4.

A feature-major tensor whose runs are whole cache lines, from 16-byte addresses, is its own slab.
Anything else, of any strides, is copied once: 2 * B * N elements, which at 4.8 TB/s is 7 us for
bfloat16 2048 x 4096, where the dense product of 4096 outputs takes 70 at its peak. ld of a copy is
an odd number of cache lines, so that the same line of consecutive features falls into all sets of
L1, not into one.

Not measured: no GPU was at hand.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._reference.sparse.sparse_linear import is_feature_major
from ..common.aot import NAMES, Build
from ..common.launch import OPTIONS

_LINE = 128  # bytes
_BLOCK_N = 64  # features of a tile that is turned


class Slab(NamedTuple):
    data: Tensor
    features: int
    ld: int
    width: int


@triton.jit
def _slab_kernel(
    x_ptr,  # (B, N), by the strides below
    slab_ptr,  # (N, LD)
    B,
    N,
    LD,
    x_stride_b,
    x_stride_n,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    tiles = tl.cdiv(N, BLOCK_N)
    n = tl.program_id(0) % tiles * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
    b = tl.program_id(0) // tiles * BLOCK_B + tl.arange(0, BLOCK_B).to(tl.int64)
    inside = (b < B)[:, None] & (n < N)[None, :]
    x = tl.load(x_ptr + b[:, None] * x_stride_b + n[None, :] * x_stride_n, mask=inside, other=0.0)
    inside = (b < LD)[None, :] & (n < N)[:, None]
    tl.store(slab_ptr + n[:, None] * LD + b[None, :], tl.trans(x), mask=inside)


def line_of(dtype: torch.dtype, batch: int) -> int:
    """Batch rows that an entry reads: a cache line, fewer for a smaller batch."""
    return min(_LINE // dtype.itemsize, triton.next_power_of_2(batch))


def slab_of(x: Tensor) -> Slab:
    """(B, N), neither 0 -> slab; ``width`` is a multiple of ``line_of``."""
    (batch, n), line = x.shape, line_of(x.dtype, x.shape[0])
    whole = batch % line == 0 and x.stride(1) % 16 == 0 and x.data_ptr() % 16 == 0
    if is_feature_major(x) and whole:
        return Slab(x, n, x.stride(1), batch)
    lines = triton.cdiv(batch, line)
    ld = (lines | 1) * line
    data = x.new_empty(n, ld)
    _slab_kernel[(triton.cdiv(n, _BLOCK_N) * (ld // line),)](
        x, data, batch, n, ld, *x.stride(), BLOCK_B=line, BLOCK_N=_BLOCK_N, **OPTIONS
    )
    return Slab(data, n, ld, ld)


def _builds(dtype: torch.dtype, batch: int) -> list[Build]:
    """From row-major and from feature-major, of many features and of any."""
    p, line = "*" + NAMES[dtype], line_of(dtype, batch)
    ld = "i32:16" if line % 16 == 0 else "i32"
    signature = {"x_ptr": p, "slab_ptr": p, "B": "i32", "LD": ld}
    return [
        Build(
            _slab_kernel,
            signature | {"N": size, far: size},
            {near: 1, "BLOCK_B": line, "BLOCK_N": _BLOCK_N},
            {},
        )
        for far, near in (("x_stride_b", "x_stride_n"), ("x_stride_n", "x_stride_b"))
        for size in ("i32", "i32:16")
    ]


AOT = [
    build
    for dtype in (torch.float32, torch.bfloat16, torch.float64)
    for build in _builds(dtype, 128)
] + _builds(torch.float32, 1)
