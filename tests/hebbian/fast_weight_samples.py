"""Inputs of delta_rule, and what float64 says of them."""

from typing import NamedTuple

import torch
from torch import Tensor

from close import assert_close, assert_grad_close
from synops.hebbian import FastWeights, delta_rule

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
RULES = ("delta", "hebb", "oja")
NAMES = ("query", "key", "value", "beta", "decay", "initial_state")
SERIES = NAMES[:3]


def wide(dtype: torch.dtype) -> torch.dtype:
    """Of the state."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class Sample(NamedTuple):
    query: Tensor
    key: Tensor
    value: Tensor
    beta: Tensor | None
    decay: Tensor | None
    initial_state: Tensor | None
    options: dict

    def to(self, dtype: torch.dtype) -> "Sample":
        """Series in ``dtype``, the rest in the dtype of the state."""
        rest = [None if t is None else t.to(wide(dtype)) for t in self[3:6]]
        return Sample(*(t.to(dtype) for t in self[:3]), *rest, self.options)


def sample(
    shape: tuple[int, int, int, int, int],
    dtype: torch.dtype = torch.float64,
    *,
    beta: bool = True,
    decay: bool = True,
    start: bool = True,
    **options,
) -> Sample:
    """float64 tensors of numbers of ``dtype`` for (B, H, T, d_k, d_v); keys and values of norm 1
    about, so that no rule runs away."""
    *batch, keys, values = shape
    state = wide(dtype)

    def numbers(*size: int, of: torch.dtype = state) -> Tensor:
        return torch.randn(size).to(of).double()

    return Sample(
        numbers(*batch, keys, of=dtype),
        (torch.randn(*batch, keys) / max(1, keys) ** 0.5).to(dtype).double(),
        (torch.randn(*batch, values) / max(1, values) ** 0.5).to(dtype).double(),
        torch.rand(batch).to(state).double() if beta else None,
        (0.5 + 0.5 * torch.rand(batch)).to(state).double() if decay else None,
        numbers(*batch[:2], keys, values) if start else None,
        options,
    )


def run(s: Sample, **options) -> FastWeights:
    return delta_rule(*s[:4], decay=s.decay, initial_state=s.initial_state, **(s.options | options))


def incoming_for(s: Sample) -> FastWeights:
    """A gradient for each result."""
    *batch, keys = s.key.shape
    values = s.value.shape[-1]
    state = torch.randn(*batch[:2], keys, values).double()
    return FastWeights(torch.randn(*batch, values).bfloat16().double(), state)


def gradients(
    s: Sample, incoming: FastWeights, names=NAMES, call=run, **options
) -> dict[str, Tensor]:
    """Of those ``names`` that the sample has, through the results that ``incoming`` has."""
    names = [n for n in names if getattr(s, n) is not None]
    leaves = {n: getattr(s, n).detach().clone().requires_grad_() for n in names}
    got = call(s._replace(**leaves), **options)
    pairs = [(o, g.to(o.dtype)) for o, g in zip(got, incoming, strict=True) if g is not None]
    outputs, grads = zip(*pairs, strict=True)
    found = torch.autograd.grad(outputs, list(leaves.values()), grads, materialize_grads=True)
    return dict(zip(names, found, strict=True))


def check(s: Sample, dtype: torch.dtype, **options) -> None:
    """Results and gradients in ``dtype`` against those of the reference in float64."""
    here = s.to(dtype)
    _, _, steps, keys = s.key.shape
    values = s.value.shape[-1]
    length = steps * (keys + values)
    got, want = run(here, **options), run(s, backend="reference")
    assert_close(got.output, want.output, dtype, length)
    assert_close(got.state, want.state, wide(dtype), length)
    incoming = incoming_for(s)
    found = gradients(here, incoming, **options)
    exact = gradients(s, incoming, backend="reference")
    assert list(found) == list(exact)
    for name, g in found.items():
        kind = dtype if name in SERIES else wide(dtype)
        # partial sums are as large as the typical gradient; of what is a sum over rows and
        # columns, as its terms
        size = exact[name].square().mean().sqrt()
        if name in ("beta", "decay"):
            size = size + exact["value"].square().mean().sqrt() * max(1, values) ** 0.5
        assert_grad_close(g, exact[name], kind, length, exact[name].abs() + size)
