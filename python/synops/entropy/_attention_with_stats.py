"""attention_with_stats: scaled dot-product attention that returns what its softmax was like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._bilinear import autocast, autocast_enabled
from .._check import check_device, check_float, check_like, check_tensor, dtype_name, fail
from .._library import Op, refused_gradient
from ._stats import BIT, Stats, mask_of

_NAME = "attention_with_stats"
_KNOWN = ("entropy", "varentropy", "lse", "max_prob", "received")
_MOST_SIZE = 256


def attention_with_stats(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    window: int | None = None,
    stats: Sequence[str] | str = ("entropy",),
    backend: str | None = None,
) -> tuple[Tensor, Stats]:
    r"""Scaled dot-product attention and, in the same pass, statistics of its softmax.

    .. math:: p_{ij} = \operatorname{softmax}_j(s\, q_i \cdot k_j + m_{ij}), \quad
        o_i = \sum_j p_{ij} v_j, \quad H_i = -\sum_j p_{ij} \log p_{ij}

    The output is that of ``F.scaled_dot_product_attention(query, key, value, attn_mask,
    is_causal=is_causal, scale=scale, enable_gqa=enable_gqa)``; what else people compute needs the
    N x M matrix: ``p = softmax(scale * q @ k.mT + mask)``, ``-(p * p.log()).sum(-1)``. Here
    memory is O(N + M), forward and backward, and the statistics cost a few percent of the time.
    Output, lse, entropy and varentropy have gradients to query, key and value; double backward and
    forward-mode AD are refused.

    Args:
        query: ``(B, H, N, D)``, float32, float64, bfloat16 or float16; D from 1 to 256.
        key: ``(B, Hkv, M, D)``, dtype of ``query``.
        value: ``(B, Hkv, M, Dv)``, dtype of ``query``; Dv from 1 to 256.
        attn_mask: broadcastable to ``(B, H, N, M)`` and never expanded. bool: True where a row may
            look; else added to the scores, dtype of ``query`` or float32. No gradient.
        is_causal: row i sees keys ``j <= i`` (aligned at the top left, as torch's).
        scale: of the scores; default ``1 / sqrt(D)``.
        enable_gqa: allows fewer key heads than query heads: query head h reads key head
            ``h // (H // Hkv)``, which is not repeated in memory.
        window: row i sees keys ``|i - j| < window`` only (with ``is_causal``, the last
            ``window``); default all.
        stats: any of ``"entropy"``, ``"varentropy"`` (the variance of log p), ``"lse"``,
            ``"max_prob"``, ``"received"`` (sums of p over the rows, by one more pass over the
            scores); nats. ``max_prob`` and ``received`` have no gradient.
        backend: ``"auto"``, ``"cpp"``, ``"triton"`` or ``"reference"``; default as chosen by
            :func:`synops.backend`.

    Returns:
        ``(B, H, N, Dv)``, dtype of ``query``, and a :class:`Stats` of ``(B, H, N)`` (``received``:
        ``(B, H, M)``) in float32 (float64 for float64), None for what was not asked for. A row that
        may see no key has output, entropy, varentropy and max_prob 0, lse -inf, and gradient 0.

    Raises:
        TypeError: not tensors, or dtypes that do not fit.
        ValueError: a shape, device, option or statistic that does not fit.
        NotImplementedError: ``attn_mask`` requires a gradient.
        RuntimeError: ``backend`` cannot run here.

    Source: M. Rabe and C. Staats, arXiv:2112.05682, and T. Dao, FlashAttention-2, arXiv:2307.08691,
    with the moments of the scores kept beside the running maximum.
    """
    if autocast_enabled():
        query, key, value = autocast(query, key, value)  # type: ignore[assignment]
    _check_args(query, key, value, attn_mask, is_causal, enable_gqa)
    bits = mask_of(_NAME, stats, _KNOWN)
    attn_mask = mask_of_attention(_NAME, attn_mask, query, key)
    scale = scale_of(_NAME, scale, query)
    check_window(_NAME, window)
    window = -1 if window is None else window
    output, lse, entropy, varentropy, max_prob, received = _op(
        query, key, value, attn_mask, is_causal, window, scale, bits, backend=backend
    )
    return output, Stats(
        entropy=entropy if bits & BIT["entropy"] else None,
        varentropy=varentropy if bits & BIT["varentropy"] else None,
        lse=lse if bits & BIT["lse"] else None,
        max_prob=max_prob.detach() if bits & BIT["max_prob"] else None,
        received=received.detach() if bits & BIT["received"] else None,
    )


def _check_args(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    is_causal: bool,
    enable_gqa: bool,
) -> None:
    check_float(_NAME, "query", query)
    check_like(_NAME, "key", key, query, "query")
    check_like(_NAME, "value", value, query, "query")
    for name, t in (("query", query), ("key", key), ("value", value)):
        if t.dim() != 4:
            rule = "have 4 dimensions (batch, heads, rows, size)"
            fail(ValueError, _NAME, name, rule, tuple(t.shape))
    b, heads, _, size = query.shape
    kv_heads, keys = key.shape[1], key.shape[2]
    if key.shape[0] != b or key.shape[3] != size:
        rule = f"have shape (B, Hkv, M, D) = ({b}, Hkv, M, {size})"
        fail(ValueError, _NAME, "key", rule, tuple(key.shape))
    if value.shape[:3] != key.shape[:3]:
        rule = f"have shape (B, Hkv, M, Dv) = ({b}, {kv_heads}, {keys}, Dv)"
        fail(ValueError, _NAME, "value", rule, tuple(value.shape))
    for name, t in (("query", query), ("value", value)):
        if not 1 <= t.shape[3] <= _MOST_SIZE:
            fail(ValueError, _NAME, name, f"have a head size of 1 to {_MOST_SIZE}", t.shape[3])
    if heads != kv_heads and not enable_gqa:
        rule = f"have the heads of query ({heads}) unless enable_gqa"
        fail(ValueError, _NAME, "key", rule, kv_heads)
    if heads != kv_heads and (kv_heads == 0 or heads % kv_heads):
        fail(ValueError, _NAME, "key", f"have heads that divide those of query ({heads})", kv_heads)
    if is_causal is not True and is_causal is not False:
        fail(TypeError, _NAME, "is_causal", "be a bool", is_causal)
    if is_causal and attn_mask is not None:
        fail(ValueError, _NAME, "attn_mask", "be None with is_causal", "both")


def scale_of(op: str, scale: float | None, query: Tensor) -> float:
    """The number that the scores are multiplied by."""
    if scale is None:
        scale = 1 / math.sqrt(query.shape[3])
    elif not isinstance(scale, (float, int)):
        fail(TypeError, op, "scale", "be a number", type(scale).__name__)
    return float(scale)


def check_window(op: str, window: int | None) -> None:
    """None, or a positive integer."""
    if window is None:
        return
    if isinstance(window, bool) or not isinstance(window, (int, torch.SymInt)):
        fail(TypeError, op, "window", "be an int", type(window).__name__)
    if window < 1:
        fail(ValueError, op, "window", "be at least 1", window)


def mask_of_attention(
    op: str, attn_mask: Tensor | None, query: Tensor, key: Tensor
) -> Tensor | None:
    """``attn_mask`` with 4 dimensions and a dtype that the ops take."""
    if attn_mask is None:
        return None
    check_tensor(op, "attn_mask", attn_mask)
    check_device(op, "attn_mask", attn_mask, query, "query")
    if attn_mask.dtype not in (torch.bool, query.dtype, torch.float32):
        rule = f"be bool, float32 or have the dtype of query ({dtype_name(query.dtype)})"
        fail(TypeError, op, "attn_mask", rule, dtype_name(attn_mask.dtype))
    if attn_mask.requires_grad and torch.is_grad_enabled():
        raise NotImplementedError(f"{op}: attn_mask has no gradient here; detach() it")
    shape = (query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    ends = zip(reversed(attn_mask.shape), reversed(shape), strict=False)
    if attn_mask.dim() > 4 or any(m not in (1, full) for m, full in ends):
        rule = f"be broadcastable to (B, H, N, M) = {shape}"
        fail(ValueError, op, "attn_mask", rule, tuple(attn_mask.shape))
    return attn_mask[(None,) * (4 - attn_mask.dim())] if attn_mask.dim() < 4 else attn_mask


def _fake(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    bits = rest[-1]
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    shape, received = query.shape[:3], (*query.shape[:2], key.shape[2])

    def of(names: tuple[str, ...], shape: Sequence[int]) -> Tensor:
        asked = any(bits & BIT[name] for name in names)
        return query.new_empty(shape if asked else (0,), dtype=dtype)

    return (
        query.new_empty((*shape, value.shape[3])),
        query.new_empty(shape, dtype=dtype),
        of(("entropy", "varentropy"), shape),
        of(("varentropy",), shape),
        of(("max_prob",), shape),
        of(("received",), received),
    )


def _setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    query, key, value, attn_mask, *ctx.options, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.masked = attn_mask is not None
    masks = (attn_mask,) if ctx.masked else ()
    ctx.save_for_backward(query, key, value, *masks, *output[:4])


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    query, key, value, *masks, output, lse, entropy, varentropy = ctx.saved_tensors
    needs = ctx.needs_input_grad[:3]
    if all(grad is None for grad in grads[:4]):
        return (None,) * 8
    made = _backward_op(
        *grads[:4],
        *(query, key, value, masks[0] if masks else None),
        *(output, lse, entropy, varentropy),
        *ctx.options,
        *needs,
        backend=ctx.backend,
    )
    wanted = (grad if need else None for grad, need in zip(made, needs, strict=True))
    return *wanted, *(None,) * 5


def _fake_backward(*args: Any) -> tuple[Tensor, ...]:
    tensors, needs = args[4:7], args[-3:]
    pairs = zip(tensors, needs, strict=True)
    return tuple(t.new_empty(t.shape if need else (0,)) for t, need in pairs)


_op = Op(_NAME, fake=_fake, setup_context=_setup_context, backward=_backward, leading=3)
_backward_op = Op(
    f"{_NAME}_backward",
    fake=_fake_backward,
    leading=7,
    **refused_gradient(_NAME),
)
