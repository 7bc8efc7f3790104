"""Logits at the edges of the kernels, and what float64 says of them."""

from typing import NamedTuple

import torch
from torch import Tensor

from synops.entropy import Stats, token_stats

ALL = ("logprob", "entropy", "varentropy", "lse", "max_prob", "collision", "plogp2")
GRADS = ("logprob", "entropy", "varentropy", "lse", "collision")
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]

# Absolute, in nats (collision, max_prob: of 1); float32 sums. lse and logprob as large as logits
# are right to their own rounding besides.
TOLERANCE = {
    "logprob": 1e-5,
    "entropy": 1e-5,
    "varentropy": 2e-5,
    "lse": 1e-5,
    "max_prob": 1e-6,
    "collision": 1e-6,
    "plogp2": 1e-5,
}
IGNORED = -100


class Sample(NamedTuple):
    logits: Tensor
    labels: Tensor
    temperature: float


def sample(
    rows: int, size: int, dtype: torch.dtype, offset: float = 0, spread: float = 3
) -> Sample:
    """Rows among which are one of -inf alone, one with a single finite logit, one half masked, and
    one whose label is ignored."""
    logits = (torch.randn(rows, size) * spread + offset).to(dtype)
    labels = torch.randint(size, (rows,))
    if rows > 4:
        logits[1] = -torch.inf
        logits[2] = -torch.inf
        logits[2, size // 2] = 3
        logits[3, ::2] = -torch.inf
        labels[3] = 0  # masked
        labels[4] = IGNORED
    return Sample(logits, labels, 1.0)


def stats_of(s: Sample, **options) -> Stats:
    return token_stats(s.logits, s.labels, temperature=s.temperature, stats=ALL, **options)


def expected(s: Sample) -> Stats:
    """In float64 from the definition, of the same rounded logits."""
    return stats_of(s._replace(logits=s.logits.double()), backend="reference")


def check_stats(got: Stats, want: Stats, dtype: torch.dtype) -> None:
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    for name in ALL:
        one, other = getattr(got, name), getattr(want, name)
        assert one.dtype == kind, name
        assert torch.equal(one.isinf(), other.isinf()), name
        eps = torch.finfo(kind).eps
        scale = 1e-7 if kind == torch.float64 else 1
        error = (one.double() - other).abs().masked_fill(other.isinf(), 0)
        bound = TOLERANCE[name] * scale + 2 * eps * other.abs().masked_fill(other.isinf(), 0)
        assert (error <= bound).all(), f"{name}: {float((error - bound).max())} above the bound"
        if name in ("entropy", "varentropy"):
            assert (one >= 0).all(), f"{name} is negative"


def incoming(s: Sample) -> list[Tensor]:
    """A gradient for each of GRADS, float64."""
    return [torch.randn(s.labels.shape, dtype=torch.float64) for _ in GRADS]


def gradient(s: Sample, grads: list[Tensor], names=GRADS, **options) -> Tensor:
    """Of the logits, through the statistics called ``names``."""
    x = s.logits.detach().clone().requires_grad_()
    got = token_stats(x, s.labels, temperature=s.temperature, stats=names, **options)
    outputs = [getattr(got, name) for name in names]
    pairs = dict(zip(GRADS, grads, strict=True))
    given = [pairs[name].to(outputs[0].dtype) for name in names]
    return torch.autograd.grad(outputs, x, given)[0]


def expected_gradient(s: Sample, grads: list[Tensor], names=GRADS) -> Tensor:
    """In float64 from the reference's formula."""
    return gradient(s._replace(logits=s.logits.double()), grads, names, backend="reference")


def check_gradient(got: Tensor, want: Tensor, s: Sample, grads: list[Tensor]) -> None:
    """Rounding of the result, and of float32 sums in what it is made of (H, log p and V)."""
    assert got.dtype == s.logits.dtype
    assert got.isfinite().all()
    kind = torch.float64 if got.dtype == torch.float64 else torch.float32
    size = sum(g.abs() for g in grads).unsqueeze(-1) / s.temperature
    p = (s.logits.double() / s.temperature).softmax(-1).nan_to_num(0)
    # terms of p times a polynomial in log p, which is at most 10 in these samples where p counts
    bound = torch.finfo(got.dtype).eps * want.abs() + 400 * torch.finfo(kind).eps * size * p
    bound = bound + torch.finfo(kind).eps * size + torch.finfo(got.dtype).smallest_normal
    error = (got.double() - want).abs()
    assert (error <= bound).all(), f"off by {float((error - bound).max())} above the bound"
