"""attention_with_stats (Triton): attention and the moments of its scores in one pass.

    l = sum e^x, a = sum e^x x, b = sum e^x x^2,  x = s - running maximum
    lse = m + log l, entropy = log l - a / l, varentropy = b / l - (a / l)^2, max_prob = 1 / l

Split: a program has BLOCK_N rows of a head and passes over the keys that they may see; for the
sums over rows (``received``) one has BLOCK_M keys and passes over all rows, with the lse known. No
atomics, so results do not depend on the order of programs.

Sums are in float32 (float64 for float64); for 16 bits, p is rounded to the element type before it
multiplies v, as in FlashAttention. Not measured: no GPU was at hand.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.launch import OPTIONS
from ..common.tile import dot
from . import attention_tile as tile
from .attention_backward import attention_with_stats_backward  # noqa: F401  (its launcher)
from .attention_tile import LN2, LOG2E, first_key, last_key, rows_at, scores_of

ENTROPY, VARENTROPY, MAX_PROB, RECEIVED = 1 << 1, 1 << 2, 1 << 4, 1 << 7
_LOG2E = tl.constexpr(LOG2E)
_LN2 = tl.constexpr(LN2)


@triton.jit
def _attention_kernel(
    query_ptr,
    key_ptr,
    value_ptr,
    mask_ptr,  # or None
    out_ptr,  # (B, H, N, DV)
    lse_ptr,  # (B, H, N), as the next three, which may be None
    entropy_ptr,
    varentropy_ptr,
    max_prob_ptr,
    H,
    GROUP,
    N,
    M,
    D,
    DV,
    WINDOW,
    q_b,
    q_h,
    q_n,
    k_b,
    k_h,
    k_m,
    v_b,
    v_h,
    v_m,
    mask_b,
    mask_h,
    mask_n,
    mask_m,
    SCALE: tl.constexpr,
    CAUSAL: tl.constexpr,
    WINDOWED: tl.constexpr,
    ACC: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    blocks = tl.cdiv(N, BLOCK_N)
    start = (blocks - 1 - tl.program_id(0) % blocks) * BLOCK_N  # causal: the longest first
    head = (tl.program_id(0) // blocks).to(tl.int64)
    b = head // H
    h = head % H
    key_ptr += b * k_b + h // GROUP * k_h
    value_ptr += b * v_b + h // GROUP * v_h
    if mask_ptr is not None:
        mask_ptr += b * mask_b + h * mask_h
    i = start + tl.arange(0, BLOCK_N)
    q = rows_at(query_ptr + b * q_b + h * q_h, i, q_n, i < N, D, BLOCK_D)
    top = tl.full((BLOCK_N,), float("-inf"), ACC)
    first = tl.zeros((BLOCK_N,), ACC)
    second = tl.zeros((BLOCK_N,), ACC)
    total = tl.zeros((BLOCK_N,), ACC)
    acc = tl.zeros((BLOCK_N, BLOCK_V), ACC)
    begin = first_key(start, M, WINDOW, WINDOWED, BLOCK_M)
    end = last_key(tl.minimum(start + BLOCK_N, N), M, WINDOW, CAUSAL, WINDOWED)
    for at in range(begin, end, BLOCK_M):
        j = at + tl.arange(0, BLOCK_M)
        k = rows_at(key_ptr, j, k_m, j < M, D, BLOCK_D)
        s = scores_of(
            q, k, i, j, mask_ptr, N, M, mask_n, mask_m, WINDOW, SCALE, CAUSAL, WINDOWED, ACC, WIDEN,
            BLOCK_N, BLOCK_M,
        )  # fmt: skip
        risen = tl.maximum(top, tl.max(s, 1))
        shift = tl.where(risen == float("-inf"), 0.0, risen)
        banned = s == float("-inf")
        y = tl.where(banned, 0.0, (s - shift[:, None]) * _LOG2E)
        p = tl.where(banned, 0.0, tl.exp2(y))
        moment = p * y
        delta = tl.where(top == float("-inf"), 0.0, (top - shift) * _LOG2E)
        factor = tl.where(top == float("-inf"), 0.0, tl.exp2(delta))
        if varentropy_ptr is not None:
            squares = tl.sum(moment * y, 1)
            second = factor * (second + delta * (2 * first + delta * total)) + squares
        if entropy_ptr is not None:
            first = factor * (first + delta * total) + tl.sum(moment, 1)
        total = factor * total + tl.sum(p, 1)
        top = risen
        v = rows_at(value_ptr, j, v_m, j < M, DV, BLOCK_V)
        if not WIDEN:
            p = p.to(v.dtype)
        acc = dot(p, v, acc * factor[:, None], ACC, WIDEN)
    none = (top == float("-inf")) & (total == 0)
    inverse = tl.where(none, 0.0, 1.0 / tl.where(none, 1.0, total))
    log_total = tl.log(tl.where(none, 1.0, total))
    to = head * N + i
    tl.store(lse_ptr + to, tl.where(none, float("-inf"), top + log_total), mask=i < N)
    if max_prob_ptr is not None:
        tl.store(max_prob_ptr + to, inverse, mask=i < N)
    if entropy_ptr is not None:
        mean = first * inverse * _LN2
        entropy = log_total - mean
        tl.store(entropy_ptr + to, tl.where(entropy < 0, 0.0, entropy), mask=i < N)
        if varentropy_ptr is not None:
            varentropy = second * inverse * (_LN2 * _LN2) - mean * mean
            varentropy = tl.where(varentropy < 0, 0.0, varentropy)
            tl.store(varentropy_ptr + to, varentropy, mask=i < N)
    d = tl.arange(0, BLOCK_V)
    inside = (i < N)[:, None] & (d < DV)[None, :]
    out = (acc * inverse[:, None]).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + to[:, None] * DV + d[None, :], out, mask=inside)


@triton.jit
def _attention_received_kernel(
    query_ptr,
    key_ptr,
    mask_ptr,  # or None
    lse_ptr,  # (B, H, N)
    received_ptr,  # (B, H, M)
    H,
    GROUP,
    N,
    M,
    D,
    WINDOW,
    q_b,
    q_h,
    q_n,
    k_b,
    k_h,
    k_m,
    mask_b,
    mask_h,
    mask_n,
    mask_m,
    SCALE: tl.constexpr,
    CAUSAL: tl.constexpr,
    WINDOWED: tl.constexpr,
    ACC: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    blocks = tl.cdiv(M, BLOCK_M)
    j = tl.program_id(0) % blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    head = (tl.program_id(0) // blocks).to(tl.int64)
    b = head // H
    h = head % H
    k = rows_at(key_ptr + b * k_b + h // GROUP * k_h, j, k_m, j < M, D, BLOCK_D)
    if mask_ptr is not None:
        mask_ptr += b * mask_b + h * mask_h
    received = tl.zeros((BLOCK_M,), ACC)
    for at in range(0, N, BLOCK_N):
        i = at + tl.arange(0, BLOCK_N)
        q = rows_at(query_ptr + b * q_b + h * q_h, i, q_n, i < N, D, BLOCK_D)
        s = scores_of(
            q, k, i, j, mask_ptr, N, M, mask_n, mask_m, WINDOW, SCALE, CAUSAL, WINDOWED, ACC, WIDEN,
            BLOCK_N, BLOCK_M,
        )  # fmt: skip
        lse = tl.load(lse_ptr + head * N + i, mask=i < N, other=0.0)
        lse = tl.where(lse == float("-inf"), 0.0, lse)
        received += tl.sum(tl.exp2((s - lse[:, None]) * _LOG2E), 0)
    tl.store(received_ptr + head * M + j, received, mask=j < M)


def attention_with_stats(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    is_causal: bool,
    window: int,
    scale: float,
    stats: int,
) -> tuple[Tensor, ...]:
    """The launcher; see the reference."""
    op = "attention_with_stats"
    b, h, kv, n, m, d, dv = tile.check(op, query, key, value, attn_mask)
    query, key, value = (tile.unit_rows(t) for t in (query, key, value))
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32

    def stat(asked: int, size: int) -> Tensor:
        return query.new_empty((b, h, size) if asked else (0,), dtype=dtype)

    output = query.new_empty(b, h, n, dv)
    lse, entropy = stat(1, n), stat(stats & (ENTROPY | VARENTROPY), n)
    varentropy, max_prob = stat(stats & VARENTROPY, n), stat(stats & MAX_PROB, n)
    received = stat(stats & RECEIVED, m)
    if b * h == 0:
        return output, lse, entropy, varentropy, max_prob, received
    sizes = {"BLOCK_D": tile.block_of(d), "BLOCK_V": tile.block_of(dv)}
    blocks, options = tile.launch(query.dtype, max(sizes.values()), False)
    fixed = tile.constants(query.dtype, scale, is_causal, window, **blocks)
    window = tile.window_of(window, n, m)
    strides = [t.stride()[:3] for t in (query, key, value)]
    mask = tile.mask_strides(attn_mask)
    if n:
        results: list[Any] = [entropy, varentropy, max_prob]
        asked = (stats & (ENTROPY | VARENTROPY), stats & VARENTROPY, stats & MAX_PROB)
        results = [t if bit else None for t, bit in zip(results, asked, strict=True)]
        _attention_kernel[(b * h * triton.cdiv(n, blocks["BLOCK_N"]),)](
            *(query, key, value, attn_mask, output, lse, *results),
            *(h, h // kv, n, m, d, dv, window),
            *(*strides[0], *strides[1], *strides[2], *mask),
            **(fixed | sizes | options | OPTIONS),
        )
    if stats & RECEIVED and m:
        _attention_received_kernel[(b * h * triton.cdiv(m, blocks["BLOCK_M"]),)](
            *(query, key, attn_mask, lse, received),
            *(h, h // kv, n, m, d, window),
            *(*strides[0], *strides[1], *mask),
            **(fixed | {"BLOCK_D": sizes["BLOCK_D"]} | options | OPTIONS),
        )
    return output, lse, entropy, varentropy, max_prob, received


def _builds(dtype: torch.dtype, size: int, causal: bool, mask: str | None) -> list[Build]:
    blocks, options = tile.launch(dtype, size, False)
    fixed = tile.constants(dtype, 0.125, causal, -1, **blocks, BLOCK_D=size)
    name, acc = "*" + NAMES[dtype], "*fp64" if dtype == torch.float64 else "*fp32"
    kinds = tile.SIGNATURE | dict.fromkeys(tile.MASK_STRIDES, "i64")
    kinds |= dict.fromkeys(("query_ptr", "key_ptr", "value_ptr", "out_ptr"), name)
    stats = ("lse_ptr", "entropy_ptr", "varentropy_ptr", "max_prob_ptr", "received_ptr")
    kinds |= dict.fromkeys(stats, acc)
    if mask is None:
        fixed["mask_ptr"] = None
    else:
        kinds["mask_ptr"] = mask

    def build(kernel: Any, more: dict) -> Build:
        names = kernel.arg_names
        signature = {n: kinds[n] for n in names if n in kinds}
        return Build(kernel, signature, fixed | more, options)

    return [build(_attention_kernel, {"BLOCK_V": size}), build(_attention_received_kernel, {})]


AOT = [
    *_builds(torch.float32, 64, True, None),
    *_builds(torch.float32, 128, False, "*i1"),
    *_builds(torch.float32, 256, False, None),
    *_builds(torch.bfloat16, 64, True, None),
    *_builds(torch.bfloat16, 128, False, "*bf16"),
    *_builds(torch.bfloat16, 256, True, None),
    *_builds(torch.float64, 64, True, None),
]
