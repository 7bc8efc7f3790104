"""attention_with_stats: softmax attention and the moments of its softmax, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

# As python/synops/entropy/_stats.py numbers them.
ENTROPY, VARENTROPY, MAX_PROB, RECEIVED = 1 << 1, 1 << 2, 1 << 4, 1 << 7


def _widened(t: Tensor) -> Tensor:
    return t if t.dtype == torch.float64 else t.float()


def _repeated(t: Tensor, query: Tensor) -> Tensor:
    """One key head for each query head, in the arithmetic type."""
    groups = query.shape[1] // t.shape[1] if t.shape[1] else 1
    return _widened(t).repeat_interleave(groups, 1)


def _kept(query: Tensor, key: Tensor, is_causal: bool, window: int) -> Tensor:
    """(N, M), bool: the keys that a row may see, before the mask."""
    behind = torch.arange(query.shape[2], device=query.device)[:, None] - torch.arange(
        key.shape[2], device=query.device
    )
    kept = torch.ones_like(behind, dtype=torch.bool)
    if is_causal:
        kept = kept & (behind >= 0)
    if window >= 0:
        kept = kept & (behind < window) & (behind > -window)
    return kept


def _scores(
    query: Tensor,
    key: Tensor,
    attn_mask: Tensor | None,
    is_causal: bool,
    window: int,
    scale: float,
) -> Tensor:
    """(B, H, N, M): scaled products, -inf where a row must not look."""
    scores = (_widened(query) * scale) @ _repeated(key, query).transpose(-2, -1)
    if attn_mask is not None and attn_mask.dtype != torch.bool:
        scores = scores + attn_mask.to(scores.dtype)
    elif attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    return scores.masked_fill(~_kept(query, key, is_causal, window), -torch.inf)


def _log_softmax(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """lse (B, H, N), p and log p, both 0 where the score is -inf."""
    if scores.shape[-1] == 0:
        return scores.sum(-1) - torch.inf, scores, scores
    top = scores.detach().amax(-1, keepdim=True)
    top = torch.where(top == -torch.inf, 0.0, top)
    powers = torch.exp(scores - top)
    total = powers.sum(-1, keepdim=True)
    none = total == 0
    lse = top + torch.where(none, 1.0, total).log()
    t = torch.where(scores == -torch.inf, 0.0, scores - lse)
    p = torch.where(scores == -torch.inf, 0.0, torch.exp(scores - lse))
    return torch.where(none, -torch.inf, lse).squeeze(-1), p, t


def attention_with_stats(
    query: Tensor,  # (B, H, N, D)
    key: Tensor,  # (B, Hkv, M, D)
    value: Tensor,  # (B, Hkv, M, Dv)
    attn_mask: Tensor | None,  # broadcastable to (B, H, N, M): bool, or added to the scores
    is_causal: bool,
    window: int,  # -1: none
    scale: float,
    stats: int,  # bits
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """softmax(scale q k^T + mask) v; lse, entropy, varentropy, max p (B, H, N), sums over rows
    (B, H, M). lse always; the others empty where not asked for, but entropy comes with
    varentropy."""
    scores = _scores(query, key, attn_mask, is_causal, window, scale)
    lse, p, t = _log_softmax(scores)
    none = scores.new_empty(0)
    output = (p @ _repeated(value, query)).to(query.dtype)
    entropy = -(p * t).sum(-1)
    return (
        output,
        lse,
        entropy if stats & (ENTROPY | VARENTROPY) else none,
        (p * (t + entropy[..., None]).square()).sum(-1) if stats & VARENTROPY else none,
        (p.amax(-1) if p.shape[-1] else p.sum(-1)) if stats & MAX_PROB else none,
        p.sum(-2) if stats & RECEIVED else none,
    )


def attention_with_stats_backward(
    grad_output: Tensor | None,  # (B, H, N, Dv)
    grad_lse: Tensor | None,  # (B, H, N), as the next two
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
    """With u = log p + H: dS = p (dO . v - dO . O + dlse - dH u + dV (u^2 + 2 u - V)); dq and dk of
    it, and dv = p^T dO; empty where not needed."""
    _, p, t = _log_softmax(_scores(query, key, attn_mask, is_causal, window, scale))
    inner = torch.zeros_like(p)
    to_value = torch.zeros_like(_repeated(value, query))
    if grad_output is not None:
        grad = _widened(grad_output)
        inner = grad @ _repeated(value, query).transpose(-2, -1)
        inner = inner - (grad * _widened(output)).sum(-1, keepdim=True)
        to_value = p.transpose(-2, -1) @ grad
    if grad_lse is not None:
        inner = inner + grad_lse[..., None]
    if grad_entropy is not None:
        inner = inner - grad_entropy[..., None] * (t + entropy[..., None])
    if grad_varentropy is not None:
        u = t + entropy[..., None]
        inner = inner + grad_varentropy[..., None] * (u * (u + 2) - varentropy[..., None])
    scaled = p * inner * scale
    to_query = scaled @ _repeated(key, query)
    to_key = scaled.transpose(-2, -1) @ _widened(query)

    def narrowed(grad: Tensor, like: Tensor, needed: bool) -> Tensor:
        if not needed:
            return like.new_empty(0)
        heads = grad.unflatten(1, (like.shape[1], -1)) if like.numel() else grad[:, :, None]
        return heads.sum(2).to(like.dtype).reshape(like.shape)

    return (
        narrowed(to_query, query, need_query),
        narrowed(to_key, key, need_key),
        narrowed(to_value, value, need_value),
    )
