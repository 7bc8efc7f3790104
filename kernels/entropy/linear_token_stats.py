"""linear_token_stats (Triton): a head and the statistics of its tokens, without the logits.

    s[t, v] = sum_d h[t, d] * W[v, d] + bias[v]          statistics of softmax(s / T)

    hidden, weight  (N, D), (V, D)  rows of any stride

Split: a program has a block of tokens and a part of the vocabulary. It makes the logits of one tile
after the other in registers and keeps six moments a token, centred at the running maximum (see
csrc/entropy/linear_token_stats.h). Parts are merged in float64 and in one order; there are as many
whatever the GPU. A part of the weight is read once for each block of tokens, from L2.

Sums are in float32 (float64 for float64). No atomics. Labels are compared, never used as an index;
one out of range has the log-probability NaN.

Not measured: tile sizes are from registers and bytes, no GPU was at hand.

Reference: python/synops/_reference/entropy/linear_token_stats.py
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import Build
from ..common.launch import OPTIONS, require
from .heads import LAUNCH, Head, constants_of, logits_of, signature_of, wide
from .linear_token_stats_backward import linear_token_stats_backward

__all__ = ["linear_token_stats", "linear_token_stats_backward"]

_PARTS = 32


@triton.jit
def _linear_token_stats_kernel(
    hidden_ptr,  # (N, D), rows H_LD apart
    weight_ptr,  # (V, D), rows W_LD apart
    bias_ptr,  # (V,) or None
    labels_ptr,  # (N,), int64, or None
    scale_ptr,  # log2(e) / T
    moments_ptr,  # (parts, 6, N)
    picked_ptr,  # (N,)
    N,
    D,
    V,
    H_LD,
    W_LD,
    TILES,  # of a part
    ACC: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    part = tl.program_id(1).to(tl.int64)
    scale = tl.load(scale_ptr)
    top = tl.full((BLOCK_M,), float("-inf"), ACC)
    l = tl.zeros((BLOCK_M,), ACC)  # noqa: E741
    a = tl.zeros((BLOCK_M,), ACC)
    b = tl.zeros((BLOCK_M,), ACC)
    s = tl.zeros((BLOCK_M,), ACC)
    t = tl.zeros((BLOCK_M,), ACC)
    for i in range(TILES):
        v = (part * TILES + i) * BLOCK_V + tl.arange(0, BLOCK_V)
        logits = logits_of(
            hidden_ptr, weight_ptr, bias_ptr, m, v, N, D, V, H_LD, W_LD,
            ACC, WIDEN, BLOCK_M, BLOCK_V, BLOCK_K,
        )  # fmt: skip
        if labels_ptr is not None:
            label = tl.load(labels_ptr + m, mask=m < N, other=-1)
            own = (v[None, :] == label[:, None]) & (v < V)[None, :]
            found = tl.sum(own.to(tl.int32), 1) > 0
            tl.store(picked_ptr + m, tl.sum(tl.where(own, logits, 0.0), 1), mask=(m < N) & found)
        higher = tl.maximum(top, tl.max(logits, 1))
        # Where nothing was kept so far, any finite centre does.
        centre = tl.where(higher == float("-inf"), 0.0, higher)
        kept = top > float("-inf")
        d = tl.where(kept, (top - centre) * scale, 0.0)
        c = tl.where(kept, tl.exp2(d), 0.0)
        y = (logits - centre[:, None]) * scale
        p = tl.exp2(y)
        y = tl.where(p == 0, 0.0, y)
        py, square = p * y, p * p
        t = c * c * (t + d * s) + tl.sum(p * py, 1)
        s = c * c * s + tl.sum(square, 1)
        b = c * (b + 2 * d * a + d * d * l) + tl.sum(py * y, 1)
        a = c * (a + d * l) + tl.sum(py, 1)
        l = c * l + tl.sum(p, 1)  # noqa: E741
        top = higher
    out = moments_ptr + part * 6 * N + m
    tl.store(out, top, mask=m < N)
    tl.store(out + N, l, mask=m < N)
    tl.store(out + 2 * N, a, mask=m < N)
    tl.store(out + 3 * N, b, mask=m < N)
    tl.store(out + 4 * N, s, mask=m < N)
    tl.store(out + 5 * N, t, mask=m < N)


def _moments(head: Head) -> tuple[Tensor, Tensor]:
    """(parts, 6, N), and the logits of the labels."""
    kind = wide(head.hidden)
    tiles = triton.cdiv(head.vocabulary, head.constants["BLOCK_V"])
    of_part = triton.cdiv(tiles, _PARTS)
    parts = triton.cdiv(tiles, of_part)
    moments = head.hidden.new_empty(parts, 6, head.tokens, dtype=kind)
    picked = head.hidden.new_full((head.tokens,), torch.nan, dtype=kind)
    _linear_token_stats_kernel[(triton.cdiv(head.tokens, head.constants["BLOCK_M"]), parts)](
        *head.tensors,
        moments,
        picked,
        *head.sizes,
        of_part,
        **head.constants,
        **LAUNCH,
        **OPTIONS,
    )
    return moments, picked


def _merge(moments: Tensor, scale: float) -> Tensor:
    """(6, N), float64: the maximum, and the sums centred there."""
    top, sums, first, second, square, product = moments.double().unbind(1)
    most = top.amax(0)
    d = torch.where(top == -torch.inf, 0, (top - most) * scale)
    c = torch.where(top == -torch.inf, 0, d.exp2())
    d = d.masked_fill(c == 0, 0)
    merged = (
        c * sums,
        c * (first + d * sums),
        c * (second + d * (2 * first + d * sums)),
        c * c * square,
        c * c * (product + d * square),
    )
    return torch.stack((most, *(m.sum(0) for m in merged)))


def linear_token_stats(
    hidden: Tensor,  # (N, D)
    weight: Tensor,  # (V, D)
    labels: Tensor | None,  # (N,)
    bias: Tensor | None,  # (V,)
    temperature: float,
    ignore_index: int,
    stats: int,
) -> tuple[Tensor, ...]:
    """The seven statistics, (N,) or empty, and what the backward needs, (6, N)"""
    op = "linear_token_stats"
    head = Head(op, hidden, weight, labels, bias, temperature)
    require(labels is not None or not stats & 1, op, "logprob needs labels")
    n, kind = head.tokens, wide(hidden)
    merged, picked = hidden.new_zeros(6, n, dtype=torch.float64), hidden.new_zeros(n, dtype=kind)
    merged[0] = -torch.inf
    if n and head.vocabulary:
        with torch.cuda.device_of(hidden):
            moments, picked = _moments(head)
            merged = _merge(moments, math.log2(math.e) / temperature)
    top, total, first, second, square, product = merged
    none = top == -torch.inf
    total = total.masked_fill(none, 1)
    log_sum, mean, ln2 = total.log(), first / total, math.log(2)
    entropy = (log_sum - ln2 * mean).clamp(min=0)
    varentropy = (ln2 * ln2 * (second / total - mean * mean)).clamp(min=0)
    collision = square / total**2
    logprob, counts = torch.zeros_like(top), torch.zeros_like(top)
    if labels is not None:
        logit, counted = picked.double(), labels != ignore_index
        logprob = (logit - top.masked_fill(none, 0)) / temperature - log_sum
        logprob = logprob.masked_fill(~counted, 0)
        counts = (counted & (logit != -torch.inf)).double()
    results = (
        logprob,
        entropy,
        varentropy,
        top / temperature + log_sum,
        (1 / total).masked_fill(none, 0),
        collision,
        (ln2 * product - log_sum * square) / total**2,
    )
    empty = hidden.new_empty(0, dtype=kind)
    asked = (r.to(kind) if stats >> i & 1 else empty.clone() for i, r in enumerate(results))
    saved = torch.stack((top, log_sum, entropy, varentropy, collision, counts)).to(kind)
    return (*asked, saved)


AOT = [
    Build(
        _linear_token_stats_kernel,
        signature_of(dtype, ragged)
        | dict.fromkeys(("moments_ptr", "picked_ptr"), "*fp64" if dtype.itemsize == 8 else "*fp32")
        | {"TILES": "i32"},
        constants_of(dtype, ragged),
        LAUNCH,
    )
    for dtype in (torch.float32, torch.bfloat16, torch.float64)
    for ragged in (False, True)
]
