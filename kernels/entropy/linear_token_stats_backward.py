"""Gradients of linear_token_stats (Triton): logits made again, a chunk of the vocabulary at a time.

    gs[t, v] = p (alpha + u (beta + gamma u) + kappa p), and the label's share; u = log p + entropy
    gh = gs @ W          gW = gs.T @ h

Gradients of the logits, (N, chunk), exist for at most _CHUNK_BYTES of the vocabulary; from there
they go into the two products. Those of bfloat16 are rounded to it once, as torch's own are, and
multiplied on tensor cores; those of float16, which would underflow, are float32 and multiplied as
such. The weight's gradient is written once, rounded once; that of the input is summed in float32.
The interpreter has no bfloat16 product and rounds nothing.

Sums are in float32 (float64 for float64). float32 is multiplied as float32 (no TF32). No atomics.

Not measured: tile sizes are from registers and bytes, no GPU was at hand.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.interpreter import INTERPRETED
from ..common.launch import OPTIONS, accumulator, require
from ..common.tile import dot, first_of_tile
from .heads import LAUNCH, Head, constants_of, logits_of, signature_of, wide

_CHUNK_BYTES = 64 << 20
_GROUP = 8  # tiles
_SAVED = 6


@triton.jit
def _linear_token_stats_backward_kernel(
    hidden_ptr,
    weight_ptr,
    bias_ptr,
    labels_ptr,
    scale_ptr,
    coefficients_ptr,  # (8, N): centre, log2 of the sum, entropy, alpha, beta, gamma, kappa, share
    grad_ptr,  # (N, CHUNK), stored rounded where it is bfloat16
    N,
    D,
    V,
    H_LD,
    W_LD,
    FIRST,  # row of the weight that the chunk begins with
    CHUNK,
    ACC: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):
    m0, v0 = first_of_tile(N, CHUNK, BLOCK_M, BLOCK_V, GROUP)
    m = m0 + tl.arange(0, BLOCK_M)
    local = v0 + tl.arange(0, BLOCK_V)
    v = FIRST + local
    logits = logits_of(
        hidden_ptr, weight_ptr, bias_ptr, m, v, N, D, V, H_LD, W_LD,
        ACC, WIDEN, BLOCK_M, BLOCK_V, BLOCK_K,
    )  # fmt: skip
    inside = m < N
    of_token = coefficients_ptr + m
    centre = tl.load(of_token, mask=inside, other=0.0)
    log_sum = tl.load(of_token + N, mask=inside, other=0.0)
    entropy = tl.load(of_token + 2 * N, mask=inside, other=0.0)
    alpha = tl.load(of_token + 3 * N, mask=inside, other=0.0)
    beta = tl.load(of_token + 4 * N, mask=inside, other=0.0)
    gamma = tl.load(of_token + 5 * N, mask=inside, other=0.0)
    kappa = tl.load(of_token + 6 * N, mask=inside, other=0.0)
    y = (logits - centre[:, None]) * tl.load(scale_ptr) - log_sum[:, None]
    p = tl.exp2(tl.where(inside[:, None], y, float("-inf")))
    u = tl.where(p == 0, 0.0, y * 0.6931471805599453 + entropy[:, None])
    grad = p * (alpha[:, None] + u * (beta[:, None] + u * gamma[:, None]) + kappa[:, None] * p)
    if labels_ptr is not None:
        label = tl.load(labels_ptr + m, mask=inside, other=-1)
        share = tl.load(of_token + 7 * N, mask=inside, other=0.0)
        grad += tl.where(v[None, :] == label[:, None], share[:, None], 0.0)
    at = m[:, None] * CHUNK + local[None, :]
    tl.store(grad_ptr + at, grad, mask=inside[:, None] & (local < CHUNK)[None, :])


@triton.jit
def _head_product_kernel(
    a_ptr,  # (M, K), by the strides below, of the arithmetic type or bfloat16
    b_ptr,  # (K, N), rows B_LD apart
    c_ptr,  # (M, N)
    M,
    N,
    K,
    A_M,
    A_K,
    B_LD,
    ACCUMULATE: tl.constexpr,
    ACC: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):
    m0, n0 = first_of_tile(M, N, BLOCK_M, BLOCK_N, GROUP)
    m, n = m0 + tl.arange(0, BLOCK_M), n0 + tl.arange(0, BLOCK_N)
    acc = tl.zeros((BLOCK_M, BLOCK_N), ACC)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K).to(tl.int64)
        a_mask, b_mask = (m < M)[:, None] & (k < K)[None, :], (n < N)[None, :] & (k < K)[:, None]
        a = tl.load(a_ptr + (m[:, None] * A_M + k[None, :] * A_K), mask=a_mask, other=0.0)
        b = tl.load(b_ptr + (k[:, None] * B_LD + n[None, :]), mask=b_mask, other=0.0)
        acc = dot(a, b, acc, ACC, WIDEN)
    at = m[:, None] * N + n[None, :]
    mask = (m < M)[:, None] & (n < N)[None, :]
    if ACCUMULATE:
        acc += tl.load(c_ptr + at, mask=mask, other=0.0)
    tl.store(c_ptr + at, acc.to(c_ptr.dtype.element_ty), mask=mask)


def _grad_type(dtype: torch.dtype) -> torch.dtype:
    """Of the gradients of logits."""
    rounded = dtype == torch.bfloat16 and not INTERPRETED
    return dtype if rounded or dtype == torch.float64 else torch.float32


def _product_constants(dtype: torch.dtype) -> dict:
    # of 16-bit operands a tile takes half the room; float16 meets float32
    terms = 64 if dtype == torch.bfloat16 else 16
    tile = {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": terms, "GROUP": _GROUP}
    return {"ACC": accumulator(dtype), "WIDEN": _grad_type(dtype) != dtype, **tile}


def _coefficients(
    saved: Tensor, grads: tuple[Tensor | None, ...], temperature: float, kind: torch.dtype
) -> Tensor:
    """(8, N), see _linear_token_stats_backward_kernel."""
    top, log_sum, entropy, varentropy, collision, counts = saved.double()
    zero = torch.zeros_like(top)
    logprob, of_entropy, of_varentropy, lse, of_collision = (
        zero if g is None else g.double() for g in grads
    )
    own = torch.where(counts != 0, logprob, 0)
    alpha = lse - own - of_varentropy * varentropy - 2 * of_collision * collision
    factors = (alpha, 2 * of_varentropy - of_entropy, of_varentropy, 2 * of_collision, own)
    by = min(1 / temperature, torch.finfo(kind).max)
    rows = (top, log_sum * math.log2(math.e), entropy, *(f * by for f in factors))
    none = top == -torch.inf  # nothing but -inf: every p is 0
    return torch.stack([r.masked_fill(none, 0) for r in rows]).to(kind).contiguous()


def _product(a: Tensor, b: Tensor, c: Tensor, accumulate: bool) -> None:
    """c (+)= a @ b; a of any strides, b with dense rows, c contiguous."""
    (m, k), n = a.shape, b.shape[1]
    constants = _product_constants(b.dtype)
    tiles = triton.cdiv(m, constants["BLOCK_M"]) * triton.cdiv(n, constants["BLOCK_N"])
    _head_product_kernel[(tiles,)](
        a, b, c, m, n, k, *a.stride(), b.stride(0), ACCUMULATE=accumulate, **constants,
        **LAUNCH, **OPTIONS,
    )  # fmt: skip


def linear_token_stats_backward(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor | None,
    bias: Tensor | None,
    saved: Tensor,  # (6, N)
    grad_logprob: Tensor | None,  # (N,), like the others
    grad_entropy: Tensor | None,
    grad_varentropy: Tensor | None,
    grad_lse: Tensor | None,
    grad_collision: Tensor | None,
    temperature: float,
    need_hidden: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(N, D), (V, D), (V,); empty where not needed"""
    op = "linear_token_stats_backward"
    head = Head(op, hidden, weight, labels, bias, temperature)
    kind, n, v = wide(hidden), head.tokens, head.vocabulary
    grads = (grad_logprob, grad_entropy, grad_varentropy, grad_lse, grad_collision)
    for t, shape in ((saved, (_SAVED, n)), *((g, (n,)) for g in grads if g is not None)):
        fits = t.shape == shape and t.dtype == kind and t.device == hidden.device
        require(fits, op, f"saved and gradients must be {kind}, {shape}, got {tuple(t.shape)}")
    to_hidden = hidden.new_zeros((n, head.features) if need_hidden else (0, 0), dtype=kind)
    to_weight = hidden.new_zeros((v, head.features) if need_weight else (0, 0))
    to_bias = hidden.new_zeros(v if need_bias else 0)
    if n and v:
        with torch.cuda.device_of(hidden):
            coefficients = _coefficients(saved, grads, temperature, kind)
            tokens, rows = head.constants["BLOCK_M"], head.constants["BLOCK_V"]
            most = max(8 * rows, _CHUNK_BYTES // (n * kind.itemsize) // rows * rows)
            for first in range(0, v, most):
                chunk = min(most, v - first)
                grad = hidden.new_empty(n, chunk, dtype=_grad_type(hidden.dtype))
                _linear_token_stats_backward_kernel[
                    (triton.cdiv(n, tokens) * triton.cdiv(chunk, rows),)
                ](
                    *head.tensors,
                    coefficients,
                    grad,
                    *head.sizes,
                    first,
                    chunk,
                    **head.constants,
                    GROUP=_GROUP,
                    **LAUNCH,
                    **OPTIONS,
                )
                part = slice(first, first + chunk)
                if need_hidden and head.features:
                    _product(grad, head.weight[part], to_hidden, True)
                if need_weight and head.features:
                    _product(grad.t(), head.hidden, to_weight[part], False)
                if need_bias:
                    to_bias[part] = grad.sum(0, dtype=kind).to(hidden.dtype)
    return to_hidden.to(hidden.dtype), to_weight, to_bias


def _builds(dtype: torch.dtype, ragged: bool) -> list[Build]:
    p, sums = "*" + NAMES[dtype], "*fp64" if dtype == torch.float64 else "*fp32"
    size = "i32" if ragged else "i32:16"
    grad = "*" + NAMES[_grad_type(dtype)]
    backward = signature_of(dtype, ragged) | {"coefficients_ptr": sums, "grad_ptr": grad}
    backward |= {"FIRST": "i32", "CHUNK": size}
    constants = constants_of(dtype, ragged) | {"GROUP": _GROUP}
    product = {"a_ptr": grad, "b_ptr": p, "M": "i32", "N": size, "K": "i32", "B_LD": size}
    to_hidden = product | {"c_ptr": sums, "A_M": size}, {"A_K": 1, "ACCUMULATE": True}
    to_weight = product | {"c_ptr": p, "A_K": size}, {"A_M": 1, "ACCUMULATE": False}
    return [
        Build(_linear_token_stats_backward_kernel, backward, constants, LAUNCH),
        *(
            Build(_head_product_kernel, signature, _product_constants(dtype) | more, LAUNCH)
            for signature, more in (to_hidden, to_weight)
        ),
    ]


# float16 is as bfloat16, but for its products, which are as those of float32.
AOT = [
    build
    for dtype in (torch.float32, torch.bfloat16, torch.float64)
    for ragged in (False, True)
    for build in _builds(dtype, ragged)
] + _builds(torch.float16, False)[1:]
