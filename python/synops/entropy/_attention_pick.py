"""attention_pick: single probabilities of an attention whose lse is known."""

from __future__ import annotations

import torch
from torch import Tensor

from .._check import (
    check_device,
    check_float,
    check_like,
    check_shape,
    check_tensor,
    dtype_name,
    fail,
)
from .._library import traced
from ._attention_with_stats import scale_of

_NAME = "attention_pick"


def attention_pick(
    query: Tensor, key: Tensor, lse: Tensor, index: Tensor, *, scale: float | None = None
) -> Tensor:
    r"""Probabilities of an attention at given keys, without the N x M matrix.

    .. math:: p_{ir} = \exp(s\, q_i \cdot k_{\text{index}_{ir}} - \text{lse}_i)

    Same values as ``softmax(scale * q @ k.mT + mask).gather(-1, index)``, from the ``lse`` of
    :func:`attention_with_stats` on the same query, key, scale and mask: O(N R D) work, O(N D)
    memory a column of ``index`` (and that R times where gradients are needed). Previous-token,
    induction and sink scores of a head are means of such columns. Gradients to query, key and lse,
    to any order; that of lse goes on through :func:`attention_with_stats`.

    Args:
        query: ``(B, H, N, D)``, float32, float64, bfloat16 or float16.
        key: ``(B, Hkv, M, D)``, dtype of ``query``; Hkv divides H.
        lse: ``(B, H, N)``, float32 (float64 for float64).
        index: ``(N, R)`` or ``(B, H, N, R)``, int64, below M. Negative: the result is 0. The mask
            is not known here, so a key that the row could not see must be negative; so must one
            whose score the mask changed.
        scale: of the scores; default ``1 / sqrt(D)``.

    Returns:
        ``(B, H, N, R)``, dtype of ``lse``; 0 where ``lse`` is -inf.

    Raises:
        TypeError: not tensors, or dtypes that do not fit.
        ValueError: a shape or device does not fit.
        IndexError: an index is M or more (on the CPU; elsewhere torch's own assertion).
    """
    check_attention(_NAME, query, key, lse)
    _check_index(index, query, key)
    b, heads, rows, size = query.shape
    kv_heads, keys = key.shape[1:3]
    group = heads // kv_heads if kv_heads else 1
    scale = scale_of(_NAME, scale, query)
    q = query.to(lse.dtype).unflatten(1, (kv_heads, group))
    lse = lse.unflatten(1, (kv_heads, group))
    columns = []
    for column in index.unbind(-1):
        at = column.clamp(min=0)
        if index.dim() == 2:
            k = key.index_select(2, at)[:, :, None]
        else:
            # whole rows by their number: gather looks up every element, 4 times the time
            column = column.unflatten(1, (kv_heads, group))
            first = keys * torch.arange(b * kv_heads, device=at.device).view(b, kv_heads, 1, 1)
            number = first + at.unflatten(1, (kv_heads, group))
            k = key.flatten(0, 2).index_select(0, number.flatten()).view(*number.shape, size)
        score = scale * (q * k.to(lse.dtype)).sum(-1)
        kept = (column >= 0) & (lse > -torch.inf)
        # the exponent, not the power: a power that is dropped may be inf, and inf * 0 is NaN
        columns.append(torch.where(kept, score - lse, -torch.inf).exp())
    if not columns:
        return lse.new_empty(b, heads, rows, 0)
    return torch.stack(columns, -1).flatten(1, 2)


def check_attention(op: str, query: Tensor, key: Tensor, lse: Tensor) -> None:
    """query (B, H, N, D), key (B, Hkv, M, D) and the lse (B, H, N) of their attention."""
    check_float(op, "query", query)
    check_like(op, "key", key, query, "query")
    for name, t in (("query", query), ("key", key)):
        if t.dim() != 4:
            rule = "have 4 dimensions (batch, heads, rows, size)"
            fail(ValueError, op, name, rule, tuple(t.shape))
    b, heads, rows, size = query.shape
    kv_heads = key.shape[1]
    if key.shape[0] != b or key.shape[3] != size:
        rule = f"have shape (B, Hkv, M, D) = ({b}, Hkv, M, {size})"
        fail(ValueError, op, "key", rule, tuple(key.shape))
    if heads != kv_heads and (kv_heads == 0 or heads % kv_heads):
        fail(ValueError, op, "key", f"have heads that divide those of query ({heads})", kv_heads)
    if not size:
        fail(ValueError, op, "query", "have a head size of at least 1", size)
    check_tensor(op, "lse", lse)
    check_device(op, "lse", lse, query, "query")
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    if lse.dtype != dtype:
        fail(TypeError, op, "lse", f"be {dtype_name(dtype)}", dtype_name(lse.dtype))
    check_shape(op, "lse", lse, "(B, H, N)", (b, heads, rows))


def _check_index(index: Tensor, query: Tensor, key: Tensor) -> None:
    b, heads, rows = query.shape[:3]
    keys = key.shape[2]
    check_tensor(_NAME, "index", index)
    check_device(_NAME, "index", index, query, "query")
    if index.dtype != torch.int64:
        fail(TypeError, _NAME, "index", "be int64", dtype_name(index.dtype))
    if index.shape[:-1] not in ((rows,), (b, heads, rows)):
        rule = f"have shape (N, R) = ({rows}, R) or (B, H, N, R) = ({b}, {heads}, {rows}, R)"
        fail(ValueError, _NAME, "index", rule, tuple(index.shape))
    if index.numel() and index.is_cpu and not traced(index) and int(index.max()) >= keys:
        fail(IndexError, _NAME, "index", f"be below M = {keys}", int(index.max()))
