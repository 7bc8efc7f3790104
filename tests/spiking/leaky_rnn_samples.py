"""Inputs of leaky_rnn, and what float64 says of them."""

from typing import NamedTuple

import torch
from torch import Tensor

from close import assert_close, assert_grad_close
from synops.spiking import LeakyRNN, leaky_rnn

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
NAMES = ("input", "weight", "bias", "h0", "tau")


def wide(dtype: torch.dtype) -> torch.dtype:
    """Of the state."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class Sample(NamedTuple):
    input: Tensor
    weight: Tensor
    bias: Tensor | None
    h0: Tensor | None
    tau: Tensor
    rule: dict

    def to(self, dtype: torch.dtype) -> "Sample":
        """The input in ``dtype``, the rest in the dtype of the state."""
        rest = [None if t is None else t.to(wide(dtype)) for t in self[1:5]]
        return Sample(self.input.to(dtype), *rest, self.rule)


def sample(
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float64,
    *,
    bias: bool = True,
    start: bool = True,
    per_neuron: bool = True,
    **rule,
) -> Sample:
    """float64 tensors of numbers of ``dtype``; a fifth of the time constants is below 1."""
    n, state = shape[-1], wide(dtype)

    def numbers(*size: int, of: torch.dtype = state) -> Tensor:
        return torch.randn(size).to(of).double()

    return Sample(
        numbers(*shape, of=dtype),
        (numbers(n, n) / max(1, n) ** 0.5).to(state).double(),
        numbers(n) if bias else None,
        numbers(*shape[1:]) if start else None,
        (0.5 + 2.5 * torch.rand(n if per_neuron else ())).to(wide(dtype)).double(),
        rule,
    )


def run(s: Sample, **options) -> LeakyRNN:
    return leaky_rnn(s.input, s.weight, s.bias, s.h0, tau=s.tau, **s.rule, **options)


def incoming_for(s: Sample) -> LeakyRNN:
    """A gradient for each result."""
    shape = s.input.shape
    return LeakyRNN(torch.randn(shape).double(), torch.randn(shape[1:]).double())


def gradients(s: Sample, incoming: LeakyRNN, names=NAMES, call=run, **options) -> dict[str, Tensor]:
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
    T, *batch, n = s.input.shape
    rows = max(1, int(torch.tensor(batch).prod()))
    got, want = run(here, **options), run(s, backend="reference")
    for one, other in zip(got, want, strict=True):
        assert_close(one, other, wide(dtype), n * T)
    incoming = incoming_for(s)
    found = gradients(here, incoming, **options)
    exact = gradients(s, incoming, backend="reference")
    terms = {"weight": rows * T, "bias": rows * T, "tau": rows * T * n // s.tau.numel()}
    typical = exact["input"].square().mean().sqrt()
    for name, g in found.items():
        kind = dtype if name == "input" else wide(dtype)
        # The size of partial sums: of the terms of a gradient, which may cancel.
        scale = exact[name].abs() + terms.get(name, 1) ** 0.5 * typical
        assert_grad_close(g, exact[name], kind, n * T, scale)
