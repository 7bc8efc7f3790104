"""Inputs of attention, what the float64 reference makes of them, and how near an answer must be."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from close import accumulator
from synops.entropy import Stats, attention_with_stats

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
STATS = ("entropy", "varentropy", "lse", "max_prob", "received")
# Absolute, whatever the offset of the scores: nats, and powers of nats.
FAR = {"entropy": 1e-5, "varentropy": 2e-5, "lse": 1e-5, "max_prob": 2e-6, "received": 2e-5}


def _bools(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.rand(shape) < 0.7


def _numbers(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(shape)


def _bans(*shape: int) -> Callable[[], Tensor]:
    """Numbers and -inf; whole rows of it, too."""
    return lambda: torch.randn(shape).masked_fill(torch.rand(shape) < 0.5, -torch.inf)


class Case(NamedTuple):
    """Sizes (B, H, Hkv, N, M, D, Dv), options, and what makes the mask."""

    sizes: tuple[int, ...]
    options: dict = {}  # noqa: RUF012 (never changed)
    mask: Callable[[], Tensor] | None = None


# Blocks are of 96 rows in groups of 6, and of 256 keys in panels of 64, 32, 16 or 8.
CASES = {
    "one of each": Case((1, 1, 1, 1, 1, 1, 1)),
    "one key": Case((1, 2, 2, 7, 1, 8, 3)),
    "one row": Case((2, 2, 1, 1, 300, 64, 64)),
    "blocks and a rest": Case((1, 2, 1, 101, 323, 33, 80)),
    "whole blocks": Case((1, 1, 1, 96, 256, 64, 64)),
    "causal": Case((1, 2, 2, 200, 200, 64, 64), {"is_causal": True}),
    "causal, fewer keys": Case((1, 1, 1, 120, 70, 16, 16), {"is_causal": True}),
    "causal, more keys": Case((1, 1, 1, 20, 300, 16, 16), {"is_causal": True}),
    "causal window": Case((1, 2, 1, 300, 300, 40, 24), {"is_causal": True, "window": 20}),
    "window": Case((1, 1, 1, 150, 330, 16, 48), {"window": 5}),
    "window without keys": Case((1, 1, 1, 150, 40, 16, 16), {"window": 5}),
    "window of one": Case((1, 1, 1, 30, 30, 16, 16), {"window": 1}),
    "largest heads": Case((1, 2, 1, 13, 70, 256, 256), {"is_causal": True}),
    "128 and 8": Case((1, 2, 2, 13, 70, 128, 8)),
    "many heads": Case((4, 8, 4, 100, 70, 16, 16), {"is_causal": True}),
    "mask of all": Case((2, 2, 1, 13, 70, 16, 16), {}, _bools(2, 2, 13, 70)),
    "mask of keys": Case((2, 2, 1, 13, 300, 16, 16), {}, _bools(2, 1, 1, 300)),
    "mask of rows": Case((2, 2, 1, 13, 70, 16, 16), {}, _bools(13, 1)),
    "mask of heads": Case((2, 2, 2, 13, 70, 16, 16), {}, _bools(2, 1, 1)),
    "mask and window": Case((1, 2, 1, 130, 270, 16, 16), {"window": 30}, _bools(270)),
    "added to all": Case((2, 2, 1, 13, 70, 16, 16), {}, _numbers(2, 2, 13, 70)),
    "added to rows": Case((2, 2, 1, 13, 70, 16, 16), {}, _numbers(1, 2, 13, 1)),
    "banned": Case((2, 2, 1, 13, 70, 16, 16), {}, _bans(1, 1, 13, 70)),
    "banned keys": Case((2, 1, 1, 13, 3, 16, 16), {}, _bans(2, 1, 1, 3)),
    "one number": Case((1, 1, 1, 3, 5, 4, 4), {"scale": -0.3}, _numbers()),
    "no rows": Case((1, 2, 1, 0, 5, 4, 4)),
    "no keys": Case((1, 2, 1, 5, 0, 4, 4)),
    "no batch": Case((0, 2, 1, 5, 5, 4, 4)),
}

# On CPU up to 4 rows that read a head of keys, in one group, too, take them in parts of 1024.
FEW_ROWS = {
    "few rows": Case((1, 2, 2, 3, 2100, 33, 20), {}, _bans(3, 2100)),
    "few rows, window": Case((1, 2, 1, 2, 1030, 16, 16), {"window": 3}),
    "few rows, causal": Case((1, 1, 1, 4, 1030, 16, 64), {"is_causal": True}),
    "one row of groups": Case((2, 4, 2, 1, 1100, 16, 16), {}, _numbers(2, 4, 1, 1100)),
    "one row of large groups": Case((2, 10, 2, 1, 270, 16, 16), {}, _bools(2, 10, 1, 270)),
}


class Sample(NamedTuple):
    """Arguments of a call, and the gradients that arrive."""

    query: Tensor
    key: Tensor
    value: Tensor
    options: dict
    grads: tuple[Tensor, Tensor, Tensor, Tensor]  # of output, lse, entropy, varentropy


class Answer(NamedTuple):
    """What comes out."""

    output: Tensor
    stats: Stats
    grads: tuple[Tensor, ...]


def sample(case: Case, dtype: torch.dtype) -> Sample:
    b, h, kv, n, m, d, dv = case.sizes
    shapes = [(b, h, n, d), (b, kv, m, d), (b, kv, m, dv)]
    made = [torch.randn(shape).to(dtype) for shape in shapes]
    options = {"enable_gqa": h != kv, **case.options}
    if case.mask is not None:
        mask = case.mask()
        options["attn_mask"] = mask if mask.dtype == torch.bool else mask.to(dtype)
    grads = [torch.randn(b, h, n, dv).to(dtype)]
    grads += [torch.randn(b, h, n, dtype=accumulator(dtype)) for _ in range(3)]
    return Sample(*made, options, tuple(grads))


def doubled(s: Sample) -> Sample:
    """The same numbers in float64."""
    options = {
        k: v.double() if isinstance(v, Tensor) and v.dtype != torch.bool else v
        for k, v in s.options.items()
    }
    return Sample(*(t.double() for t in s[:3]), options, tuple(t.double() for t in s.grads))


def run(s: Sample, backend: str | None = None) -> Answer:
    """Results, and gradients of query, key and value through output, lse, entropy, varentropy."""
    leaves = [t.detach().requires_grad_() for t in s[:3]]
    output, stats = attention_with_stats(*leaves, **s.options, stats=STATS, backend=backend)
    results = (output, stats.lse, stats.entropy, stats.varentropy)
    grads = torch.autograd.grad(results, leaves, s.grads)
    return Answer(output.detach(), Stats(*(t if t is None else t.detach() for t in stats)), grads)


def check(got: Answer, want: Answer, dtype: torch.dtype) -> None:
    """``want`` is the reference's of the same numbers in float64."""
    near(got.output, want.output, dtype)
    for name in STATS:
        g, w = getattr(got.stats, name), getattr(want.stats, name)
        assert g.dtype == accumulator(dtype)
        torch.testing.assert_close(g.double(), w, rtol=1e-6, atol=FAR[name], msg=name)
    assert not (got.stats.entropy < 0).any()
    assert not (got.stats.varentropy < 0).any()
    for g, w in zip(got.grads, want.grads, strict=True):
        near(g, w, dtype)


def near(got: Tensor, want: Tensor, dtype: torch.dtype) -> None:
    """Of a tensor as a vector, 12 ulps of the arithmetic and half an ulp of a 16-bit result; of an
    element, 8 times that of the largest. Softmaxes multiply the rounding of a score, a few ulps of
    its size, into every result."""
    assert got.dtype == dtype
    assert got.shape == want.shape
    assert want.dtype == torch.float64
    ulps = 12 * torch.finfo(accumulator(dtype)).eps
    ulps += torch.finfo(dtype).eps / 2 if dtype.itemsize == 2 else 0
    error = got.double() - want
    assert float(error.norm()) <= ulps * float(want.norm()) + 1e-30
    if want.numel():
        assert float(error.abs().max()) <= 8 * ulps * float(want.abs().max()) + 1e-30
