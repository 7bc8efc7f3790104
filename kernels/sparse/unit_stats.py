"""unit_stats (Triton): sums of pieces of rows in one read, and a second kernel that adds them up.

Split: a program has a block of columns and a piece of rows; how long pieces are depends on the
number of rows alone, and they are added up in order: the same bits on every run. No atomics.

Numbers are taken as distances to a row of the piece (exact where the mean is large against them);
squares are centred at the mean of their tile, as the C++ kernels' are.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.launch import OPTIONS, accumulator, require, require_floats

_ROWS, _UNITS = 32, 64  # of a tile
_MOST_PIECES = 256  # which the second kernel passes over one by one
_WARPS = 4
_RESULTS = ("magnitude", "positive", "mean", "variance")


@triton.jit
def _piece_kernel(
    x_ptr,  # (N, U), rows STRIDE apart
    sums_ptr,  # (pieces, 5, U): |x|, x > 0, the shift, distances to it, squares
    N,
    U,
    STRIDE,
    PIECE,  # rows, a multiple of ROWS
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    UNITS: tl.constexpr,
):
    piece = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1).to(tl.int64) * UNITS + tl.arange(0, UNITS)
    here = unit < U
    first = piece * PIECE
    shift = tl.load(x_ptr + first * STRIDE + unit, mask=here, other=0.0).to(ACC)
    shift = tl.where(shift - shift == 0, shift, 0.0)  # inf and NaN are none
    magnitude = tl.zeros((UNITS,), ACC)
    positive = tl.zeros((UNITS,), ACC)
    distance = tl.zeros((UNITS,), ACC)
    squares = tl.zeros((UNITS,), ACC)
    mean = tl.zeros((UNITS,), ACC)  # of the distances so far
    seen = tl.zeros((), tl.int32)
    for start in range(0, PIECE, ROWS):
        row = first + start + tl.arange(0, ROWS)
        kept = (row < N)[:, None] & here[None, :]
        x = tl.load(x_ptr + row[:, None] * STRIDE + unit[None, :], mask=kept, other=0.0).to(ACC)
        n = tl.minimum(tl.maximum(N - first - start, 0), ROWS).to(tl.int32)
        d = tl.where(kept, x - shift[None, :], 0.0)
        total = tl.sum(d, 0)
        of_tile = total / tl.maximum(n, 1)
        off = tl.where(kept, d - of_tile[None, :], 0.0)
        gap = of_tile - mean
        seen += n
        share = n.to(ACC) / seen.to(ACC)
        squares += tl.sum(off * off, 0) + gap * gap * share * (seen - n)
        mean += gap * share
        distance += total
        magnitude += tl.sum(tl.abs(x), 0)
        positive += tl.sum(tl.where(x > 0, 1.0, 0.0).to(ACC), 0)
    out = sums_ptr + piece * 5 * U + unit
    tl.store(out, magnitude, mask=here)
    tl.store(out + U, positive, mask=here)
    tl.store(out + 2 * U, shift, mask=here)
    tl.store(out + 3 * U, distance, mask=here)
    tl.store(out + 4 * U, squares, mask=here)


@triton.jit
def _total_kernel(
    sums_ptr,
    magnitude_ptr,  # (U,) each
    positive_ptr,
    mean_ptr,
    variance_ptr,
    N,
    U,
    PIECE,
    PIECES,
    UNITS: tl.constexpr,
):
    unit = tl.program_id(0).to(tl.int64) * UNITS + tl.arange(0, UNITS)
    here = unit < U
    magnitude = tl.zeros((UNITS,), tl.float64)
    positive = tl.zeros((UNITS,), tl.float64)
    total = tl.zeros((UNITS,), tl.float64)
    squares = tl.zeros((UNITS,), tl.float64)
    mean = tl.zeros((UNITS,), tl.float64)
    before = tl.zeros((), tl.float64)
    at = sums_ptr + unit
    for piece in range(PIECES):
        n = tl.minimum(N - piece * PIECE, PIECE).to(tl.float64)
        distance = tl.load(at + 3 * U, mask=here, other=0.0).to(tl.float64)
        of_piece = tl.load(at + 2 * U, mask=here, other=0.0).to(tl.float64) + distance / n
        gap = of_piece - mean
        share = n / (before + n)
        squares += tl.load(at + 4 * U, mask=here, other=0.0) + gap * gap * share * before
        mean += gap * share
        total += n * of_piece
        magnitude += tl.load(at, mask=here, other=0.0)
        positive += tl.load(at + U, mask=here, other=0.0)
        before += n
        at += 5 * U
    tl.store(magnitude_ptr + unit, magnitude / N, mask=here)
    tl.store(positive_ptr + unit, positive / N, mask=here)
    tl.store(mean_ptr + unit, total / N, mask=here)
    tl.store(variance_ptr + unit, squares / N, mask=here)


def unit_stats(input: Tensor) -> tuple[Tensor, ...]:
    op = "unit_stats"
    require_floats(op, input)
    require(input.dim() == 2, op, f"input must have 2 dimensions, got {input.dim()}")
    N, U = input.shape
    dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
    out = [input.new_full((U,), torch.nan, dtype=dtype) for _ in range(4)]
    if not N or not U:
        return tuple(out)
    if input.stride(1) != 1:
        input = input.contiguous()
    per_piece = max(4 * _ROWS, triton.cdiv(triton.cdiv(N, _MOST_PIECES), _ROWS) * _ROWS)
    pieces = triton.cdiv(N, per_piece)
    sums = input.new_empty((pieces, 5, U), dtype=dtype)
    blocks = triton.cdiv(U, _UNITS)
    _piece_kernel[(pieces, blocks)](
        input,
        sums,
        N,
        U,
        input.stride(0),
        per_piece,
        ACC=accumulator(input.dtype),
        ROWS=_ROWS,
        UNITS=_UNITS,
        num_warps=_WARPS,
        **OPTIONS,
    )
    _total_kernel[(blocks,)](
        sums, *out, N, U, per_piece, pieces, UNITS=_UNITS, num_warps=_WARPS, **OPTIONS
    )
    return tuple(out)


def _builds(dtype: torch.dtype) -> list[Build]:
    sums = "*fp64" if dtype == torch.float64 else "*fp32"
    sizes = dict.fromkeys(("N", "U", "STRIDE", "PIECE"), "i32")
    return [
        Build(
            _piece_kernel,
            {"x_ptr": "*" + NAMES[dtype], "sums_ptr": sums, **sizes},
            {"ACC": accumulator(dtype), "ROWS": _ROWS, "UNITS": _UNITS},
            {"num_warps": _WARPS},
        ),
        Build(
            _total_kernel,
            {
                **dict.fromkeys(("sums_ptr", *(f"{name}_ptr" for name in _RESULTS)), sums),
                **dict.fromkeys(("N", "U", "PIECE", "PIECES"), "i32"),
            },
            {"UNITS": _UNITS},
            {"num_warps": _WARPS},
        ),
    ]


AOT = [build for dtype in NAMES for build in _builds(dtype)]
