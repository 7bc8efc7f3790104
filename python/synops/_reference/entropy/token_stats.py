"""token_stats in plain torch: its definition, and what runs where nothing faster does.

A row of logits z gives p = softmax(z / temperature). Entries of -inf have p = 0 and count nothing;
a row of nothing else has entropy, varentropy, max_prob, collision and plogp2 0 and lse -inf.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LOGPROB, _ENTROPY, _VARENTROPY, _COLLISION, _PLOGP2 = 1, 2, 4, 32, 64


def token_stats(
    logits: Tensor, labels: Tensor | None, temperature: float, ignore_index: int, stats: int
) -> tuple[Tensor, ...]:
    """logprob, entropy, varentropy, lse, max_prob, collision, plogp2, max_logit; the middle of the
    rows' shape. Those that ``stats`` does not ask for are 0-size."""
    if not temperature > 0:
        raise RuntimeError(f"token_stats: temperature must be positive, got {temperature}")
    z = _wide(logits)
    most = z.amax(-1) if z.shape[-1] else z.new_full(logits.shape[:-1], -torch.inf)
    log_p, p, lse = _softmax(z / temperature)
    entropy = -(p * log_p).sum(-1)
    found = {
        0: _picked(z, temperature, lse, labels, ignore_index),
        1: entropy.clamp_min(0),
        2: (p * (log_p + entropy.unsqueeze(-1)).square()).sum(-1),
        5: p.square().sum(-1),
        6: (p.square() * log_p).sum(-1),
    }
    bits = {0: _LOGPROB, 1: _ENTROPY, 2: _VARENTROPY, 5: _COLLISION, 6: _PLOGP2}
    none = z.new_empty((0, 0))
    always = {3: lse, 4: p.amax(-1) if z.shape[-1] else torch.zeros_like(most), 7: most}

    def result(i: int) -> Tensor:
        if i in always:
            return always[i].clone()
        value = found[i]
        return none.clone() if value is None or not stats & bits[i] else value

    return tuple(result(i) for i in range(8))


def token_stats_backward(
    logits: Tensor,
    labels: Tensor | None,
    temperature: float,
    ignore_index: int,
    max_logit: Tensor,
    max_prob: Tensor,
    entropy: Tensor | None,
    varentropy: Tensor | None,
    collision: Tensor | None,
    grad_logprob: Tensor | None,
    grad_entropy: Tensor | None,
    grad_varentropy: Tensor | None,
    grad_lse: Tensor | None,
    grad_collision: Tensor | None,
) -> Tensor:
    """The gradient of the logits, term by term (docs/architecture.md, Entropy)."""
    z = _wide(logits)
    log_p, p, _ = _softmax(z / temperature)
    grad = torch.zeros_like(z)
    u = log_p if entropy is None else log_p + entropy.unsqueeze(-1)
    if grad_lse is not None:
        grad = grad + p * grad_lse.unsqueeze(-1)
    if grad_entropy is not None:
        grad = grad - p * u * grad_entropy.unsqueeze(-1)
    if grad_varentropy is not None and varentropy is not None:
        centred = u.square() + 2 * u - varentropy.unsqueeze(-1)
        grad = grad + p * centred * grad_varentropy.unsqueeze(-1)
    if grad_collision is not None and collision is not None:
        centred = p - collision.unsqueeze(-1)
        grad = grad + 2 * p * centred * grad_collision.unsqueeze(-1)
    if grad_logprob is not None and labels is not None:
        kept = labels != ignore_index
        at = labels.where(kept, 0).unsqueeze(-1)
        # Of a label that has no probability there is no gradient.
        kept = kept & (z.gather(-1, at).squeeze(-1) != -torch.inf)
        g = grad_logprob.where(kept, 0).unsqueeze(-1)
        grad = (grad - g * p).scatter_add(-1, at, g)
    return (grad / temperature).to(logits.dtype)


def token_stats_backward_(logits: Tensor, *args) -> None:
    """The same, written over the logits."""
    logits.copy_(token_stats_backward(logits, *args))


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _softmax(s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log p (0 where p is, so that products with it are 0), p and lse; every gradient is finite."""
    if not s.shape[-1]:
        return s, s, s.new_full(s.shape[:-1], -torch.inf)
    none = s == -torch.inf
    empty = none.all(-1, keepdim=True)
    safe = s.masked_fill(empty, 0)
    log_p = safe.log_softmax(-1).masked_fill(none, 0)
    lse = safe.logsumexp(-1).masked_fill(empty.squeeze(-1), -torch.inf)
    return log_p, log_p.exp().masked_fill(none, 0), lse


def _picked(
    z: Tensor, temperature: float, lse: Tensor, labels: Tensor | None, ignore_index: int
) -> Tensor | None:
    """log p of the labels; 0 where they are ignored."""
    if labels is None:
        return None
    kept = labels != ignore_index
    wrong = kept & ((labels < 0) | (labels >= z.shape[-1]))
    if wrong.any():
        raise RuntimeError(f"token_stats: labels must lie in [0, {z.shape[-1]})")
    if not z.shape[-1]:
        return torch.zeros_like(lse)
    at = labels.where(kept, 0).unsqueeze(-1)
    picked = z.gather(-1, at).squeeze(-1)
    none = picked == -torch.inf
    logprob = picked.masked_fill(none, 0) / temperature - lse.masked_fill(none, 0)
    return logprob.masked_fill(none, -torch.inf).masked_fill(~kept, 0)
