"""linear_token_stats: the statistics of softmax(logits / T) from logits that exist, in plain torch.

p = softmax(s), t = log p, s = (hidden @ weight.T + bias) / T. Sums are of the terms of each
statistic's definition; a term whose p is 0 is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """hidden @ weight.T + bias in float32, or float64."""
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    return linear(hidden.to(wide), weight.to(wide), None if bias is None else bias.to(wide))


def _softmax(scores: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    """p and log p, the latter 0 where p is 0."""
    t = scores - lse.masked_fill(lse == -torch.inf, 0).unsqueeze(-1)
    p = t.exp()
    return p, t.masked_fill(p == 0, 0)


def linear_token_stats(
    hidden: Tensor,  # (N, D)
    weight: Tensor,  # (V, D)
    labels: Tensor | None,  # (N,), int64
    bias: Tensor | None,  # (V,)
    temperature: float,
    ignore_index: int,
    stats: int,
) -> tuple[Tensor, ...]:
    """The seven statistics, (N,) or empty, and what the backward needs, (6, N)."""
    scores = _logits(hidden, weight, bias) / temperature
    lse = scores.logsumexp(-1)
    p, t = _softmax(scores, lse)
    entropy = -(p * t).sum(-1)
    varentropy = (p * (t + entropy.unsqueeze(-1)).square()).sum(-1)
    collision = p.square().sum(-1)
    top = scores.amax(-1) if scores.shape[-1] else torch.full_like(lse, -torch.inf)
    max_prob = (top - lse.masked_fill(lse == -torch.inf, 0)).exp()
    logprob, picked = torch.zeros_like(lse), torch.zeros_like(lse)
    if labels is not None:
        counts = labels != ignore_index
        if scores.shape[-1]:
            index = labels.masked_fill(~counts, 0).unsqueeze(-1)
            logit = scores.gather(-1, index).squeeze(-1)
            above = logit != -torch.inf
            logprob = torch.where(above, logit - lse.masked_fill(~above, 0), -torch.inf)
            logprob = torch.where(counts, logprob, 0)
            picked = (counts & above).to(lse)
    every = (logprob, entropy, varentropy, lse, max_prob, collision, (p.square() * t).sum(-1))
    none = lse.new_empty(0)
    kept = tuple(x if stats >> i & 1 else none for i, x in enumerate(every))
    log_sum = torch.where(lse == -torch.inf, 0, lse - top)
    saved = torch.stack((top * temperature, log_sum, entropy, varentropy, collision, picked))
    return (*kept, saved.detach())


def linear_token_stats_backward(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor | None,
    bias: Tensor | None,
    saved: Tensor,
    grad_logprob: Tensor | None,
    grad_entropy: Tensor | None,
    grad_varentropy: Tensor | None,
    grad_lse: Tensor | None,
    grad_collision: Tensor | None,
    temperature: float,
    need_hidden: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of hidden, weight and bias; empty where not needed.

    That of a score is, with u = log p + H:

        p (dlse - dlogprob - dH u + dV (u^2 + 2 u - V) + 2 dS (p - S)) + dlogprob [label]
    """
    top, log_sum, entropy, varentropy, collision, picked = saved.unsqueeze(-1)
    top = top.masked_fill(top == -torch.inf, 0)
    scores = _logits(hidden, weight, bias)
    # centred before it is scaled: exact however far the logits lie from 0
    t = (scores - top) / temperature - log_sum
    p = t.exp()
    u = (t + entropy).masked_fill(p == 0, 0)
    factor = torch.zeros_like(p)
    if grad_lse is not None:
        factor += grad_lse.unsqueeze(-1)
    if grad_entropy is not None:
        factor -= grad_entropy.unsqueeze(-1) * u
    if grad_varentropy is not None:
        factor += grad_varentropy.unsqueeze(-1) * (u * u + 2 * u - varentropy)
    if grad_collision is not None:
        factor += grad_collision.unsqueeze(-1) * 2 * (p - collision)
    share = torch.zeros_like(p)
    if grad_logprob is not None and labels is not None:
        own = grad_logprob.unsqueeze(-1) * picked
        factor -= own
        counts = labels.unsqueeze(-1) == torch.arange(p.shape[-1], device=labels.device)
        share = own * counts
    grad = (p * factor + share) / temperature
    grad_hidden, grad_weight = hidden.new_empty(0, 0), hidden.new_empty(0, 0)
    grad_bias = hidden.new_empty(0)
    if need_hidden:
        grad_hidden = (grad @ weight.to(grad)).to(hidden)
    if need_weight:
        grad_weight = (grad.t() @ hidden.to(grad)).to(hidden)
    if need_bias:
        grad_bias = grad.sum(0).to(hidden)
    return grad_hidden, grad_weight, grad_bias
