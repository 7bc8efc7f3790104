"""grow_topk: the best absent edges of a pattern, from all scores, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from .pattern import rows_of

GRAD, COSINE, PEARSON, RANDOM = range(4)


def grow_topk(
    grad_output: Tensor | None,
    input: Tensor | None,
    crow: Tensor,
    col: Tensor,
    in_features: int,
    k: int,
    score: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """-> flat positions (k,), ascending, and their scores."""
    if score == RANDOM:
        scores = noise(seed, 0, (crow.shape[0] - 1) * in_features, crow.device)
    else:
        assert grad_output is not None
        assert input is not None
        post, pre = sides(grad_output, input, score)
        scores = post.t() @ pre
        scores = (scores.abs() if score == GRAD else scores).flatten()
    return _best(scores, rows_of(crow, col) * in_features + col.long(), k)


def grow_topk_dense(
    scores: Tensor, crow: Tensor, col: Tensor, pruned: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """By magnitude from a matrix (out, in), whatever it is; ``pruned`` entries count as absent."""
    wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
    present = (rows_of(crow, col) * scores.shape[1] + col.long())[~pruned]
    return _best(scores.to(wide).abs().flatten(), present, k)


def _best(scores: Tensor, present: Tensor, k: int) -> tuple[Tensor, Tensor]:
    scores = torch.where(scores.isnan(), -torch.inf, scores)
    absent = torch.ones_like(scores, dtype=torch.bool)
    absent[present] = False
    places = absent.nonzero()[:, 0]
    # a stable sort: of equal scores the lower position
    best = scores[places].sort(descending=True, stable=True).indices[:k]
    index = places[best].sort().values
    return index, scores[index]


def sides(grad_output: Tensor, input: Tensor, score: int) -> tuple[Tensor, Tensor]:
    """The matrices whose product the scores are, (samples, out) and (samples, in)."""
    wide = torch.float64 if input.dtype == torch.float64 else torch.float32
    post, pre = grad_output.to(wide), input.to(wide)
    return (post, pre) if score == GRAD else (_unit(post, score), _unit(pre, score))


def _unit(x: Tensor, score: int) -> Tensor:
    """Columns of norm 1, or 0."""
    if score == PEARSON:
        x = x - x.mean(0)
    norm = x.norm(dim=0)
    return x * torch.where(norm == 0, 0, 1 / norm)


def noise(seed: int, begin: int, end: int, device: torch.device) -> Tensor:
    """Of positions [begin, end), in [0, 1): splitmix64 of seed + position, its upper 24 bits."""
    z = torch.arange(begin, end, device=device) + _signed(seed + 0x9E3779B97F4A7C15)
    z = (z ^ _shift(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift(z, 27)) * _signed(0x94D049BB133111EB)
    z = z ^ _shift(z, 31)
    return _shift(z, 40).to(torch.float32) * 2.0**-24


def _signed(value: int) -> int:
    """The int64 with the bits of a uint64."""
    value %= 2**64
    return value - 2**64 if value >= 2**63 else value


def _shift(z: Tensor, bits: int) -> Tensor:
    """To the right, zeros from the left."""
    return (z >> bits) & (2 ** (64 - bits) - 1)
