"""Updates of a weight by outer products (Triton): keep_i W + sum_b post[b,i] pre[b,j], clamped.

A program has a tile of a dense weight, or a row of one on a Pattern. Samples one by one, or, from
16 on, by products of tiles. ``report`` was written before: where it is not 0, the weight stays.

Reference: python/synops/_reference/hebbian/plasticity.py
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.launch import OPTIONS, accumulator
from ..common.tile import dot

TILE = {"BLOCK_M": 32, "BLOCK_N": 64}
ROW = {"BLOCK_N": 256}
DOT_SAMPLES = 16  # the least a tile product sums over


@triton.jit
def _ended(new, old, lower_ptr, upper_ptr, n, inside, plastic, report_ptr, overflow_ptr):
    """``new`` within its bounds where entries may change; notes what is not finite."""
    if lower_ptr is not None:
        low = tl.load(lower_ptr + n, mask=inside, other=0)
        high = tl.load(upper_ptr + n, mask=inside, other=0)
        new = tl.where(new < low, low, new)
        new = tl.where(new > high, high, new)
    rounded = new.to(old.dtype)
    frozen = tl.load(report_ptr) != 0
    out = tl.where(plastic & (frozen == 0), rounded, old)
    wide = rounded.to(new.dtype)
    bad = tl.where(plastic & ((wide - wide) != 0), 1, 0)
    tl.atomic_max(overflow_ptr, tl.max(tl.ravel(bad)))
    return out


@triton.jit
def _outer_kernel(
    from_ptr,
    to_ptr,
    pre_ptr,  # (B, cols)
    post_ptr,  # (B, rows)
    keep_ptr,
    lower_ptr,  # or None
    upper_ptr,
    mask_ptr,  # or None
    report_ptr,
    overflow_ptr,
    B,
    ROWS,
    COLS,
    FROM_STRIDE,
    TO_STRIDE,
    DOT: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    rows, cols = m < ROWS, n < COLS
    sums = tl.zeros((BLOCK_M, BLOCK_N), ACC)
    if DOT:
        for b in range(0, B, BLOCK_K):
            k = b + tl.arange(0, BLOCK_K).to(tl.int64)
            held = k < B
            y = tl.load(post_ptr + k[None, :] * ROWS + m[:, None], held[None, :] & rows[:, None], 0)
            x = tl.load(pre_ptr + k[:, None] * COLS + n[None, :], held[:, None] & cols[None, :], 0)
            sums = dot(y, x, sums, ACC, False)
    else:
        for _ in range(B):
            y = tl.load(post_ptr + m, mask=rows, other=0)
            x = tl.load(pre_ptr + n, mask=cols, other=0)
            sums += y[:, None] * x[None, :]
            post_ptr += ROWS
            pre_ptr += COLS
    inside = rows[:, None] & cols[None, :]
    plastic = inside
    if mask_ptr is not None:
        plastic = inside & (
            tl.load(mask_ptr + m[:, None] * COLS + n[None, :], mask=inside, other=0) != 0
        )
    old = tl.load(from_ptr + m[:, None] * FROM_STRIDE + n[None, :], mask=inside, other=0)
    keep = tl.load(keep_ptr + m, mask=rows, other=0)
    new = keep[:, None] * old.to(ACC) + sums
    out = _ended(
        new,
        old,
        lower_ptr,
        upper_ptr,
        n[None, :],
        cols[None, :],
        plastic,
        report_ptr,
        overflow_ptr,
    )
    tl.store(to_ptr + m[:, None] * TO_STRIDE + n[None, :], out, mask=inside)


@triton.jit
def _sampled_kernel(
    from_ptr,
    to_ptr,
    pre_ptr,  # (B, cols)
    post_ptr,  # (B, rows)
    keep_ptr,
    lower_ptr,  # or None
    upper_ptr,
    crow_ptr,
    col_ptr,
    report_ptr,
    overflow_ptr,
    B,
    ROWS,
    COLS,
    NNZ,
    ACC: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    i = tl.program_id(0)
    begin = tl.maximum(tl.load(crow_ptr + i), 0)
    end = tl.minimum(tl.load(crow_ptr + i + 1), NNZ)
    keep = tl.load(keep_ptr + i)
    for first in range(begin, end, BLOCK_N):
        p = first + tl.arange(0, BLOCK_N)
        inside = p < end
        j = tl.load(col_ptr + p, mask=inside, other=0)
        inside = inside & (j >= 0) & (j < COLS)
        sums = tl.zeros((BLOCK_N,), ACC)
        y_ptr, x_ptr = post_ptr + i, pre_ptr + j
        for _ in range(B):
            sums += tl.load(y_ptr) * tl.load(x_ptr, mask=inside, other=0)
            y_ptr += ROWS
            x_ptr += COLS
        old = tl.load(from_ptr + p, mask=inside, other=0)
        new = keep * old.to(ACC) + sums
        out = _ended(new, old, lower_ptr, upper_ptr, j, inside, inside, report_ptr, overflow_ptr)
        tl.store(to_ptr + p, out, mask=inside)


def update_dense(
    source: Tensor,
    to: Tensor,
    pre: Tensor,
    post: Tensor,
    keep: Tensor,
    bounds: tuple[Tensor | None, Tensor | None],
    mask: Tensor | None,
    report: Tensor,
    overflow: Tensor,
) -> None:
    """Rows of ``source`` and ``to`` are contiguous; ``pre`` (B, cols), ``post`` (B, rows) as well.

    ``overflow``, int32 (1,): 1 where a weight is not finite.
    """
    rows, cols = source.shape
    if not rows * cols:
        return
    dotted = pre.shape[0] >= DOT_SAMPLES
    _outer_kernel[(triton.cdiv(rows, TILE["BLOCK_M"]), triton.cdiv(cols, TILE["BLOCK_N"]))](
        source,
        to,
        pre,
        post,
        keep,
        *bounds,
        mask,
        report,
        overflow,
        pre.shape[0],
        rows,
        cols,
        source.stride(0),
        to.stride(0),
        DOT=dotted,
        ACC=accumulator(source.dtype),
        **TILE,
        BLOCK_K=DOT_SAMPLES,
        **OPTIONS,
    )


def update_sampled(
    source: Tensor,
    to: Tensor,
    pre: Tensor,
    post: Tensor,
    keep: Tensor,
    bounds: tuple[Tensor | None, Tensor | None],
    crow: Tensor,
    col: Tensor,
    report: Tensor,
    overflow: Tensor,
) -> None:
    """The same at the entries of a Pattern."""
    rows = crow.shape[0] - 1
    if not rows * col.shape[0]:
        return
    _sampled_kernel[(rows,)](
        source,
        to,
        pre,
        post,
        keep,
        *bounds,
        crow,
        col,
        report,
        overflow,
        pre.shape[0],
        rows,
        pre.shape[1],
        col.shape[0],
        ACC=accumulator(source.dtype),
        **ROW,
        **OPTIONS,
    )


def _signature(dtype: torch.dtype) -> dict[str, str]:
    wide = "*fp64" if dtype == torch.float64 else "*fp32"
    arrays = dict.fromkeys(("pre_ptr", "post_ptr", "keep_ptr"), wide)
    weights = dict.fromkeys(("from_ptr", "to_ptr"), "*" + NAMES[dtype])
    return {**weights, **arrays, "report_ptr": "*i64", "overflow_ptr": "*i32"}


def _bounds(dtype: torch.dtype, bounded: bool) -> tuple[dict[str, str], dict[str, None]]:
    names = ("lower_ptr", "upper_ptr")
    if not bounded:
        return {}, dict.fromkeys(names)
    return dict.fromkeys(names, "*fp64" if dtype == torch.float64 else "*fp32"), {}


def build_dense(dtype: torch.dtype, dotted: bool, full: bool) -> Build:
    held, absent = _bounds(dtype, full)
    mask = {"mask_ptr": "*i1"} if full else {}
    sizes = dict.fromkeys(("B", "ROWS", "COLS", "FROM_STRIDE", "TO_STRIDE"), "i32")
    return Build(
        _outer_kernel,
        {**_signature(dtype), **held, **mask, **sizes},
        {
            **absent,
            **({} if full else {"mask_ptr": None}),
            "DOT": dotted,
            "ACC": accumulator(dtype),
            **TILE,
            "BLOCK_K": DOT_SAMPLES,
        },
        OPTIONS,
    )


def build_sampled(dtype: torch.dtype, bounded: bool) -> Build:
    held, absent = _bounds(dtype, bounded)
    index = dict.fromkeys(("crow_ptr", "col_ptr"), "*i32")
    sizes = dict.fromkeys(("B", "ROWS", "COLS", "NNZ"), "i32")
    return Build(
        _sampled_kernel,
        {**_signature(dtype), **held, **index, **sizes},
        {**absent, "ACC": accumulator(dtype), **ROW},
        OPTIONS,
    )


AOT = [
    build_dense(torch.float32, False, False),
    build_dense(torch.bfloat16, True, True),
    build_dense(torch.float64, True, True),
    build_sampled(torch.float32, True),
    build_sampled(torch.float64, False),
]
