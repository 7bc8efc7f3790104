"""attention_with_stats, backward (Triton): the scores again, tile by tile, and the products of dS.

    dS = p (dO . v - c0 + u (c1 + u c2)),  u = log p + H,
    c0 = dO . O - dlse + dV V,  c1 = 2 dV - dH,  c2 = dV

Split: one kernel for grad_query, a program to BLOCK_N rows; one for grad_key and grad_value, a
program to BLOCK_M keys of a key head, over all rows of all heads that read it. So there are 7
products where a pass with atomics has 5, results do not depend on the order of programs, and what
is not needed is not computed. Not measured: no GPU was at hand.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.launch import OPTIONS, require
from ..common.tile import dot
from . import attention_tile as tile
from .attention_tile import LN2, LOG2E, first_key, last_key, rows_at, scores_of

_LOG2E = tl.constexpr(LOG2E)
_LN2 = tl.constexpr(LN2)


@triton.jit
def _score_gradient(
    s,
    v,  # (BLOCK_M, BLOCK_V)
    grad,  # (BLOCK_N, BLOCK_V)
    at,  # of the rows in lse and the next
    inside,
    lse_ptr,
    c0_ptr,
    entropy_ptr,  # None, as the next two: no gradient of a moment
    c1_ptr,
    c2_ptr,
    ACC: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """p and dS."""
    lse = tl.load(lse_ptr + at, mask=inside, other=0.0)
    lse = tl.where(lse == float("-inf"), 0.0, lse)
    banned = s == float("-inf")
    y = tl.where(banned, 0.0, (s - lse[:, None]) * _LOG2E)
    p = tl.where(banned, 0.0, tl.exp2(y))
    w = dot(grad, tl.trans(v), tl.zeros((BLOCK_N, BLOCK_M), ACC), ACC, WIDEN)
    w -= tl.load(c0_ptr + at, mask=inside, other=0.0)[:, None]
    if entropy_ptr is not None:
        entropy = tl.load(entropy_ptr + at, mask=inside, other=0.0)
        c1 = tl.load(c1_ptr + at, mask=inside, other=0.0)
        c2 = tl.load(c2_ptr + at, mask=inside, other=0.0)
        u = y * _LN2 + entropy[:, None]
        w += u * (c1[:, None] + u * c2[:, None])
    return p, p * w


@triton.jit
def _attention_query_kernel(
    query_ptr,
    key_ptr,
    value_ptr,
    mask_ptr,  # or None
    grad_ptr,  # (B, H, N, DV)
    lse_ptr,  # (B, H, N)
    c0_ptr,
    entropy_ptr,
    c1_ptr,
    c2_ptr,
    grad_query_ptr,  # (B, H, N, D)
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
    start = (blocks - 1 - tl.program_id(0) % blocks) * BLOCK_N
    head = (tl.program_id(0) // blocks).to(tl.int64)
    b = head // H
    h = head % H
    if mask_ptr is not None:
        mask_ptr += b * mask_b + h * mask_h
    i = start + tl.arange(0, BLOCK_N)
    q = rows_at(query_ptr + b * q_b + h * q_h, i, q_n, i < N, D, BLOCK_D)
    grad = rows_at(grad_ptr + head * N * DV, i, DV, i < N, DV, BLOCK_V)
    acc = tl.zeros((BLOCK_N, BLOCK_D), ACC)
    begin = first_key(start, M, WINDOW, WINDOWED, BLOCK_M)
    end = last_key(tl.minimum(start + BLOCK_N, N), M, WINDOW, CAUSAL, WINDOWED)
    for at in range(begin, end, BLOCK_M):
        j = at + tl.arange(0, BLOCK_M)
        k = rows_at(key_ptr + b * k_b + h // GROUP * k_h, j, k_m, j < M, D, BLOCK_D)
        v = rows_at(value_ptr + b * v_b + h // GROUP * v_h, j, v_m, j < M, DV, BLOCK_V)
        s = scores_of(
            q, k, i, j, mask_ptr, N, M, mask_n, mask_m, WINDOW, SCALE, CAUSAL, WINDOWED, ACC, WIDEN,
            BLOCK_N, BLOCK_M,
        )  # fmt: skip
        _, ds = _score_gradient(
            s, v, grad, head * N + i, i < N, lse_ptr, c0_ptr, entropy_ptr, c1_ptr, c2_ptr, ACC,
            WIDEN, BLOCK_N, BLOCK_M,
        )  # fmt: skip
        if not WIDEN:
            ds = ds.to(k.dtype)
        acc = dot(ds, k, acc, ACC, WIDEN)
    d = tl.arange(0, BLOCK_D)
    to = (head * N + i)[:, None] * D + d[None, :]
    result = (acc * SCALE).to(grad_query_ptr.dtype.element_ty)
    tl.store(grad_query_ptr + to, result, mask=(i < N)[:, None] & (d < D)[None, :])


@triton.jit
def _attention_key_kernel(
    query_ptr,
    key_ptr,
    value_ptr,
    mask_ptr,  # or None
    grad_ptr,  # (B, H, N, DV)
    lse_ptr,  # (B, H, N)
    c0_ptr,
    entropy_ptr,
    c1_ptr,
    c2_ptr,
    grad_key_ptr,  # (B, H / GROUP, M, D), or None
    grad_value_ptr,  # (B, H / GROUP, M, DV), or None
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
    blocks = tl.cdiv(M, BLOCK_M)
    start = tl.program_id(0) % blocks * BLOCK_M
    kv_head = (tl.program_id(0) // blocks).to(tl.int64)
    b = kv_head // (H // GROUP)
    kv = kv_head % (H // GROUP)
    j = start + tl.arange(0, BLOCK_M)
    k = rows_at(key_ptr + b * k_b + kv * k_h, j, k_m, j < M, D, BLOCK_D)
    v = rows_at(value_ptr + b * v_b + kv * v_h, j, v_m, j < M, DV, BLOCK_V)
    to_key = tl.zeros((BLOCK_M, BLOCK_D), ACC)
    to_value = tl.zeros((BLOCK_M, BLOCK_V), ACC)
    # Rows that see a key are those that it would see, but for the direction of causality.
    begin = start // BLOCK_N * BLOCK_N if CAUSAL else start * 0
    end = N
    if WINDOWED:
        end = tl.minimum(start + BLOCK_M - 1 + WINDOW, N)
        if not CAUSAL:
            begin = first_key(start, N, WINDOW, WINDOWED, BLOCK_N)
    for g in range(GROUP):
        h = kv * GROUP + g
        head = b * H + h
        for at in range(begin, end, BLOCK_N):
            i = at + tl.arange(0, BLOCK_N)
            q = rows_at(query_ptr + b * q_b + h * q_h, i, q_n, i < N, D, BLOCK_D)
            grad = rows_at(grad_ptr + head * N * DV, i, DV, i < N, DV, BLOCK_V)
            mask_at = mask_ptr
            if mask_ptr is not None:
                mask_at = mask_ptr + b * mask_b + h * mask_h
            s = scores_of(
                q, k, i, j, mask_at, N, M, mask_n, mask_m, WINDOW, SCALE, CAUSAL, WINDOWED, ACC,
                WIDEN, BLOCK_N, BLOCK_M,
            )  # fmt: skip
            p, ds = _score_gradient(
                s, v, grad, head * N + i, i < N, lse_ptr, c0_ptr, entropy_ptr, c1_ptr, c2_ptr, ACC,
                WIDEN, BLOCK_N, BLOCK_M,
            )  # fmt: skip
            if not WIDEN:
                p = p.to(grad.dtype)
                ds = ds.to(q.dtype)
            if grad_value_ptr is not None:
                to_value = dot(tl.trans(p), grad, to_value, ACC, WIDEN)
            if grad_key_ptr is not None:
                to_key = dot(tl.trans(ds), q, to_key, ACC, WIDEN)
    inside = (j < M)[:, None]
    to = (kv_head * M + j)[:, None]
    if grad_key_ptr is not None:
        d = tl.arange(0, BLOCK_D)
        result = (to_key * SCALE).to(grad_key_ptr.dtype.element_ty)
        tl.store(grad_key_ptr + to * D + d[None, :], result, mask=inside & (d < D)[None, :])
    if grad_value_ptr is not None:
        e = tl.arange(0, BLOCK_V)
        result = to_value.to(grad_value_ptr.dtype.element_ty)
        tl.store(grad_value_ptr + to * DV + e[None, :], result, mask=inside & (e < DV)[None, :])


def attention_with_stats_backward(
    grad_output: Tensor | None,
    grad_lse: Tensor | None,
    grad_entropy: Tensor | None,
    grad_varentropy: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    output: Tensor,
    lse: Tensor,
    entropy: Tensor,
    varentropy: Tensor,
    is_causal: bool,
    window: int,
    scale: float,
    need_query: bool,
    need_key: bool,
    need_value: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The launcher; see the reference."""
    op = "attention_with_stats_backward"
    b, h, kv, n, m, d, dv = tile.check(op, query, key, value, attn_mask)
    query, key, value = (tile.unit_rows(t) for t in (query, key, value))
    for t in (grad_lse, grad_entropy, grad_varentropy, lse):
        require(t is None or t.shape == (b, h, n), op, "statistics must be (B, H, N)")
    for t in (grad_output, output):
        require(t is None or t.shape == (b, h, n, dv), op, "output must be (B, H, N, Dv)")
    pairs = ((query, need_query), (key, need_key), (value, need_value))
    grads = [t.new_empty(t.shape if need else (0,)) for t, need in pairs]
    if b * h == 0 or n == 0:
        return tuple(grad.zero_() for grad in grads)  # type: ignore[return-value]
    c0 = torch.zeros_like(lse)
    if grad_output is not None:
        c0 = (grad_output.to(lse.dtype) * output.to(lse.dtype)).sum(-1)
    grad_output = grad_output if grad_output is not None else torch.zeros_like(output)
    if grad_lse is not None:
        c0 = c0 - grad_lse
    moments: tuple[Any, ...] = (None, None, None)
    if grad_entropy is not None or grad_varentropy is not None:
        require(entropy.shape == lse.shape, op, "entropy is missing")
        c1, c2 = torch.zeros_like(lse), torch.zeros_like(lse)
        if grad_varentropy is not None:
            require(varentropy.shape == lse.shape, op, "varentropy is missing")
            c0, c1, c2 = c0 + grad_varentropy * varentropy, 2 * grad_varentropy, grad_varentropy
        if grad_entropy is not None:
            c1 = c1 - grad_entropy
        moments = tuple(t.contiguous() for t in (entropy, c1, c2))
    sizes = {"BLOCK_D": tile.block_of(d), "BLOCK_V": tile.block_of(dv)}
    blocks, options = tile.launch(query.dtype, max(sizes.values()), True)
    fixed = tile.constants(query.dtype, scale, is_causal, window, **blocks, **sizes)
    tensors = (query, key, value, attn_mask, grad_output.contiguous(), lse.contiguous())
    shared = (*tensors, c0.contiguous(), *moments)
    rest = (h, h // kv, n, m, d, dv, tile.window_of(window, n, m))
    rest += (*query.stride()[:3], *key.stride()[:3], *value.stride()[:3])
    rest += tile.mask_strides(attn_mask)
    more = fixed | options | OPTIONS
    if need_query:
        programs = b * h * triton.cdiv(n, blocks["BLOCK_N"])
        _attention_query_kernel[(programs,)](*shared, grads[0], *rest, **more)
    if (need_key or need_value) and m:
        programs = b * kv * triton.cdiv(m, blocks["BLOCK_M"])
        results = [t if need else None for t, (_, need) in zip(grads, pairs, strict=True)][1:]
        _attention_key_kernel[(programs,)](*shared, *results, *rest, **more)
    return tuple(grads)  # type: ignore[return-value]


def _builds(dtype: torch.dtype, size: int, causal: bool, moments: bool) -> list[Build]:
    blocks, options = tile.launch(dtype, size, True)
    fixed = tile.constants(dtype, 0.125, causal, -1, **blocks, BLOCK_D=size, BLOCK_V=size)
    fixed["mask_ptr"] = None
    name, acc = "*" + NAMES[dtype], "*fp64" if dtype == torch.float64 else "*fp32"
    kinds = tile.SIGNATURE | dict.fromkeys(tile.MASK_STRIDES, "i64")
    tensors = ("query_ptr", "key_ptr", "value_ptr", "grad_ptr")
    results = ("grad_query_ptr", "grad_key_ptr", "grad_value_ptr")
    kinds |= dict.fromkeys((*tensors, *results), name) | dict.fromkeys(("lse_ptr", "c0_ptr"), acc)
    of_moments = ("entropy_ptr", "c1_ptr", "c2_ptr")
    if moments:
        kinds |= dict.fromkeys(of_moments, acc)
    else:
        fixed |= dict.fromkeys(of_moments)
    return [
        Build(kernel, {n: kinds[n] for n in kernel.arg_names if n in kinds}, fixed, options)
        for kernel in (_attention_query_kernel, _attention_key_kernel)
    ]


AOT = [
    *_builds(torch.float32, 64, True, True),
    *_builds(torch.float32, 128, False, True),
    *_builds(torch.float32, 256, False, False),
    *_builds(torch.bfloat16, 64, True, True),
    *_builds(torch.bfloat16, 128, True, True),
    *_builds(torch.bfloat16, 256, False, True),
    *_builds(torch.float64, 64, True, True),
]
