"""Heads for the tests: inputs whose logits are exact in float32, and their answers in float64."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from close import Bound

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
STATS = ("logprob", "entropy", "varentropy", "lse", "max_prob", "collision", "plogp2")
DIFFERENTIABLE = ("logprob", "entropy", "varentropy", "lse", "collision")

# Absolute, in nats, for float32 statistics; ulps of the result come on top.
ERRORS = {
    "logprob": 1e-5,
    "entropy": 1e-5,
    "varentropy": 2e-5,
    "lse": 1e-5,
    "max_prob": 1e-5,
    "collision": 1e-5,
    "plogp2": 1e-5,
}


class Head(NamedTuple):
    """Arguments of linear_token_stats."""

    hidden: Tensor  # (N, D)
    weight: Tensor  # (V, D)
    labels: Tensor  # (N,)
    bias: Tensor  # (V,)

    def leaves(self) -> Head:
        """With gradients to come."""
        made = (t.detach().clone().requires_grad_() for t in (self.hidden, self.weight, self.bias))
        hidden, weight, bias = made
        return Head(hidden, weight, self.labels, bias)

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """What may need a gradient."""
        return self.hidden, self.weight, self.bias


def head(tokens: int, features: int, vocabulary: int, dtype: torch.dtype = torch.float32) -> Head:
    """Multiples of 1/8 below 1, so that a logit is a multiple of 1/64: exact up to 2^18."""

    def grid(*shape: int) -> Tensor:
        return (torch.randint(-8, 9, shape) / 8).to(dtype)

    labels = torch.randint(0, vocabulary, (tokens,))
    return Head(grid(tokens, features), grid(vocabulary, features), labels, grid(vocabulary))


def stats_of(logits: Tensor, labels: Tensor, temperature: float) -> dict[str, Tensor]:
    """The definitions, on logits in float64. A row has an entry above -inf."""
    scores = logits / temperature
    t = scores.log_softmax(-1)
    p = t.exp()
    logprob = t.gather(-1, labels[:, None])[:, 0]
    t = t.masked_fill(scores == -torch.inf, 0)
    entropy = -(p * t).sum(-1)
    return {
        "logprob": logprob,
        "entropy": entropy,
        "varentropy": (p * (t + entropy[:, None]) ** 2).sum(-1),
        "lse": scores.logsumexp(-1),
        "max_prob": p.amax(-1),
        "collision": (p * p).sum(-1),
        "plogp2": (p * p * t).sum(-1),
    }


class Answer(NamedTuple):
    """In float64: statistics, and a Bound of each gradient."""

    stats: dict[str, Tensor]
    gradients: tuple[Bound, Bound, Bound]


def _size(stats: dict[str, Tensor], logits: Tensor, temperature: float, grads: dict) -> Tensor:
    """How large the terms are that the gradient of a logit is made of, (N, V).

    p (dlse - dlogprob - dH u + dV (u^2 + 2 u - V) + 2 dS (p - S)) + dlogprob at the label, with
    u = log p + H. log p is rounded as a number of its size, so p is by that many ulps, and
    what underflows is a small number times the bracket.
    """
    row = {name: stats[name].detach()[:, None] for name in STATS}
    of = {name: grads.get(name, torch.zeros(1)).detach().double().abs()[:, None] for name in STATS}
    t = (logits.detach() / temperature).log_softmax(-1)
    tiny = torch.finfo(torch.float32).tiny / torch.finfo(torch.float32).eps
    p = t.exp() + (t > -torch.inf) * tiny
    t = t.masked_fill(t == -torch.inf, 0).abs()
    u = t + row["entropy"]
    bracket = of["lse"] + of["logprob"] + of["entropy"] * u
    bracket += of["varentropy"] * (u * u + 2 * u + row["varentropy"])
    bracket += 2 * of["collision"] * (p + row["collision"])
    return (p * (1 + t) * bracket) / temperature


# Gradients of logits are rounded to bfloat16 for the products: a relative error of at most half an
# ulp each, 2^-9, as good as uniform and independent, so that a sum of such errors exceeds 6
# standard deviations with a probability below 2 exp(-18) = 3e-8 (uniform numbers have no longer
# tails than normal ones of their variance). The largest results here have 276,000 elements. The
# norm of a gradient's error has room for it as it was.
_ROUNDED = 6 * 2.0**-9 / 3**0.5


def _bound(want: Tensor, dtype: torch.dtype, length: int, size: Tensor, terms: Tensor) -> Bound:
    """``size``, ``terms``: sums of the squares of how large terms are, and of the terms."""
    bound = Bound(want, dtype, length, size.sqrt())
    if dtype == torch.bfloat16:
        bound.element = bound.element + _ROUNDED * terms.sqrt()
    return bound


def exact(h: Head, temperature: float, grads: dict[str, Tensor]) -> Answer:
    """Of the same inputs. ``grads``: what arrives for some of the statistics."""
    dtype = h.hidden.dtype
    x, w, b = (t.detach().double() for t in h.inputs())
    logits = (x @ w.t() + b).requires_grad_()
    stats = stats_of(logits, h.labels, temperature)
    loss = sum((stats[name] * g.double()).sum() for name, g in grads.items())
    (g,) = torch.autograd.grad(loss, logits)
    size = (_size(stats, logits, temperature, grads) + g.abs()).square()
    # Sums over tokens or vocabulary, of terms that are made of sums over the vocabulary.
    length = sum(logits.shape)
    terms, w2, x2 = g.square(), w.square(), x.square()
    of_hidden = _bound(g @ w, dtype, length, size @ w2, terms @ w2)
    of_weight = _bound(g.t() @ x, dtype, length, size.t() @ x2, terms.t() @ x2)
    of_bias = _bound(g.sum(0), dtype, length, size.sum(0), terms.sum(0))
    return Answer({k: v.detach() for k, v in stats.items()}, (of_hidden, of_weight, of_bias))


def check_stats(got: NamedTuple, want: dict[str, Tensor], dtype: torch.dtype) -> None:
    """Every statistic within ERRORS of float64, none negative that cannot be."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for name in STATS:
        g, w = getattr(got, name), want[name]
        if g is None:
            continue
        assert g.dtype == wide
        assert g.shape == w.shape
        eps = torch.finfo(wide).eps
        least = ERRORS[name] if wide == torch.float32 else 1e-12
        error = (g.detach().double() - w).abs()
        assert bool((error <= least + 2 * eps * w.abs()).all()), f"{name}: {float(error.max()):.3g}"
        if name in ("entropy", "varentropy", "max_prob", "collision"):
            assert bool((g >= 0).all()), name
