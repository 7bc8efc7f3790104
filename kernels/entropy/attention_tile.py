"""Tiles of attention scores (Triton): what forward and backward of attention_with_stats share.

Scores are kept in natural units, masked ones are -inf; powers are of two, of log2(e) times the
distance to a maximum or to the lse. Head sizes are rounded up to powers of two and read as 0 behind
the end.

Tile sizes are from registers alone (no spills on sm_80 and sm_90), no GPU was at hand.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES
from ..common.interpreter import INTERPRETED
from ..common.launch import accumulator, require
from ..common.tile import dot

LOG2E = 1.4426950408889634
LN2 = 0.6931471805599453
MOST_SIZE = 256


@triton.jit
def first_key(start, M, WINDOW, WINDOWED: tl.constexpr, BLOCK_M: tl.constexpr):
    """Of the blocks of keys that rows from ``start`` on may see."""
    if WINDOWED:
        begin = tl.minimum(tl.maximum(start - WINDOW + 1, 0), M)
        return begin // BLOCK_M * BLOCK_M
    return start * 0


@triton.jit
def last_key(end, M, WINDOW, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr):
    """Behind the last key that rows before ``end`` may see."""
    if CAUSAL:
        return tl.minimum(end, M)
    if WINDOWED:
        return tl.minimum(end - 1 + WINDOW, M)
    return M


@triton.jit
def rows_at(ptr, rows, stride, inside, SIZE, BLOCK: tl.constexpr):
    """(rows, BLOCK) of a tensor whose last stride is 1."""
    d = tl.arange(0, BLOCK)
    at = rows.to(tl.int64)[:, None] * stride + d[None, :]
    return tl.load(ptr + at, mask=inside[:, None] & (d < SIZE)[None, :], other=0.0)


@triton.jit
def scores_of(
    q,  # (BLOCK_N, BLOCK_D)
    k,  # (BLOCK_M, BLOCK_D)
    i,  # rows
    j,  # keys
    mask_ptr,  # at the head, or None
    N,
    M,
    mask_n,
    mask_m,
    WINDOW,
    SCALE: tl.constexpr,
    CAUSAL: tl.constexpr,
    WINDOWED: tl.constexpr,
    ACC: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    s = dot(q, tl.trans(k), tl.zeros((BLOCK_N, BLOCK_M), ACC), ACC, WIDEN) * SCALE
    kept = (i < N)[:, None] & (j < M)[None, :]
    if CAUSAL:
        kept = kept & (j[None, :] <= i[:, None])
    if WINDOWED:
        kept = kept & (i[:, None] - j[None, :] < WINDOW) & (j[None, :] - i[:, None] < WINDOW)
    if mask_ptr is not None:
        at = i.to(tl.int64)[:, None] * mask_n + j.to(tl.int64)[None, :] * mask_m
        if mask_ptr.dtype.element_ty == tl.int1:
            kept = kept & tl.load(mask_ptr + at, mask=kept, other=0).to(tl.int1)
        else:
            s += tl.load(mask_ptr + at, mask=kept, other=0.0).to(ACC)
    return tl.where(kept, s, float("-inf"))


def unit_rows(t: Tensor) -> Tensor:
    """Itself, or a contiguous copy where its last dimension has gaps."""
    return t if t.shape[3] <= 1 or t.stride(3) == 1 else t.contiguous()


def block_of(size: int) -> int:
    """Of a head size: a power of two that ``tl.dot`` takes."""
    return max(16, triton.next_power_of_2(size))


def launch(dtype: torch.dtype, size: int, backward: bool) -> tuple[dict, dict]:
    """Sides of a tile and options, for the larger head size (a block)."""
    if INTERPRETED:
        return {"BLOCK_N": 16, "BLOCK_M": 32}, {"num_warps": 4, "num_stages": 1}
    wide = size * dtype.itemsize
    if dtype.itemsize == 2 and backward:
        tile = (64, 32) if wide <= 256 else (32, 32)
    elif dtype.itemsize == 2:
        tile = (128, 64) if wide <= 256 else (32, 64)
    elif wide <= 512:
        tile = (32, 16) if backward and wide == 512 else (32, 32)
    else:  # float64 of 256 wants 192 KB of shared memory in the backward: Hopper, not Ampere
        tile = (16, 16)
    return dict(zip(("BLOCK_N", "BLOCK_M"), tile, strict=True)), {"num_warps": 8, "num_stages": 1}


def constants(
    dtype: torch.dtype, scale: float, is_causal: bool, window: int, **blocks: int
) -> dict:
    """What all kernels are compiled for. The scale is one, since Triton would pass it in float32:
    a model has one or two."""
    return {
        "SCALE": scale,
        "CAUSAL": is_causal,
        "WINDOWED": window >= 0,
        "ACC": accumulator(dtype),
        "WIDEN": INTERPRETED,
        **blocks,
    }


def check(
    op: str, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None
) -> tuple[int, ...]:
    """Raises RuntimeError on what the kernels would read outside of; (B, H, Hkv, N, M, D, Dv)."""
    tensors = (query, key, value)
    require(all(t.dim() == 4 for t in tensors), op, "tensors must have 4 dimensions")
    require(query.dtype in NAMES, op, f"no kernel for {query.dtype}")
    same = all(t.dtype == query.dtype and t.device == query.device for t in tensors)
    require(same, op, "tensors must have one dtype and device")
    (b, h, n, d), (kv, m), dv = query.shape, key.shape[1:3], value.shape[3]
    require(key.shape == (b, kv, m, d) and value.shape == (b, kv, m, dv), op, "shapes do not fit")
    require(h % kv == 0 if kv else h == 0, op, "heads of key must divide those of query")
    require(all(1 <= s <= MOST_SIZE for s in (d, dv)), op, f"head size must be 1 to {MOST_SIZE}")
    require(max(n, m) < 2**30, op, "at most 2^30 rows and keys")
    if attn_mask is not None:
        require(attn_mask.dim() == 4 and attn_mask.device == query.device, op, "attn_mask: 4-D")
        ends = zip(attn_mask.shape, (b, h, n, m), strict=True)
        require(all(s in (1, full) for s, full in ends), op, "attn_mask must broadcast")
        good = attn_mask.dtype == torch.bool or attn_mask.dtype in NAMES
        require(good, op, "attn_mask must be bool or floating point")
    return b, h, kv, n, m, d, dv


def mask_strides(attn_mask: Tensor | None) -> tuple[int, ...]:
    """0 where it is broadcast."""
    if attn_mask is None:
        return (0, 0, 0, 0)
    pairs = zip(attn_mask.shape, attn_mask.stride(), strict=True)
    return tuple(0 if size == 1 else stride for size, stride in pairs)


def window_of(window: int, n: int, m: int) -> int:
    """Of 32 bits."""
    return min(window, n + m)


# Of every kernel: what its signature shares.
SIGNATURE = {
    **dict.fromkeys(("H", "GROUP", "N", "M", "D", "DV", "WINDOW"), "i32"),
    **dict.fromkeys(
        [f"{t}_{axis}" for t, axes in (("q", "bhn"), ("k", "bhm"), ("v", "bhm")) for axis in axes],
        "i64:16",
    ),
}
MASK_STRIDES = [f"mask_{axis}" for axis in "bhnm"]
