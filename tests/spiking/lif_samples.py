"""Inputs of lif at the edges of its kernels, whose spikes no rounding can move, and what float64
says of them.

A membrane within a rounding of the threshold fires in one type and not in another, and a gradient
of a boxcar jumps. So inputs are moved until every membrane keeps a distance from the threshold,
from the edges of the surrogates and from 0 in float64.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from close import assert_close, assert_grad_close
from synops.spiking import LIF, lif

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SURROGATES = ("fast_sigmoid", "atan", "sigmoid", "superspike", "boxcar", "triangle", "qgate")
NAMES = ("input", "v0", "beta", "threshold")
SLOPE = 2.5
DISTANCE = 1e-3  # of membranes from where something jumps


class Sample(NamedTuple):
    input: Tensor
    v0: Tensor | None
    beta: Tensor
    threshold: Tensor
    rule: dict  # reset, delayed_reset, inclusive, detach_reset, surrogate

    def to(self, dtype: torch.dtype) -> "Sample":
        """The input in ``dtype``, the rest in the dtype of the state."""
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        rest = [None if t is None else t.to(wide) for t in self[1:4]]
        return Sample(self.input.to(dtype), *rest, self.rule)


def sample(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    *,
    per_neuron: bool = True,
    start: bool = True,
    **rule,
) -> Sample:
    """About a fifth of the membranes fire; the numbers are of ``dtype``."""
    rule = {"surrogate": "fast_sigmoid", "slope": SLOPE} | rule
    n = shape[-1:] if per_neuron else ()
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    beta = (0.6 + 0.35 * torch.rand(n)).to(wide).double()
    threshold = (0.7 + 0.6 * torch.rand(n)).to(wide).double()
    x = (torch.randn(shape) * 0.6 + 0.2).to(dtype).double()
    v0 = torch.randn(shape[1:]).to(wide).double() if start else None
    if start:
        v0[(v0 - threshold).abs() < 0.01] = 0  # delayed resets look at it
    s = Sample(x, v0, beta, threshold, rule)
    half = dtype in (torch.bfloat16, torch.float16)
    v = v0
    for t in range(shape[0]):  # step by step, since a step moves all behind it
        while (near := _near(_membrane(s, x[t], v) - threshold)).any():
            x[t] = (x[t] + near * (0.0625 if half else 0.01)).to(dtype).double()
        v = run(s._replace(input=x[t : t + 1], v0=v), backend="reference").v
    return s


def _near(d: Tensor) -> Tensor:
    """Where something jumps: the spike, a boxcar, the tip and the ends of a triangle."""
    return torch.stack([(d.abs() - e).abs() < DISTANCE for e in (0, 0.5 / SLOPE, 1 / SLOPE)]).any(0)


def _membrane(s: Sample, x: Tensor, v: Tensor | None) -> Tensor:
    """Before the reset of this step."""
    v = torch.zeros_like(x) if v is None else v
    reset = s.rule.get("reset", "subtract")
    if not s.rule.get("delayed_reset") or reset == "none":
        return s.beta * v + x
    fired = (v >= s.threshold if s.rule.get("inclusive") else v > s.threshold).double()
    if reset == "zero":
        return s.beta * (1 - fired) * v + x
    return s.beta * v + x - fired * s.threshold


def parameters(s: Sample) -> dict:
    return {"beta": s.beta, "threshold": s.threshold}


def run(s: Sample, **options) -> LIF:
    return lif(s.input, s.v0, **parameters(s), **s.rule, **options)


def gradients(s: Sample, incoming: LIF, names=NAMES, **options) -> dict[str, Tensor]:
    """Of those ``names`` that the sample has; through every result that ``incoming`` has."""
    names = [n for n in names if getattr(s, n) is not None]
    leaves = {n: getattr(s, n).detach().clone().requires_grad_() for n in names}
    got = run(s._replace(**leaves), record=None if incoming.trajectory is None else "v", **options)
    pairs = [(o, g.to(o.dtype)) for o, g in zip(got, incoming, strict=True) if g is not None]
    outputs, grads = zip(*pairs, strict=True)
    found = torch.autograd.grad(outputs, list(leaves.values()), grads, materialize_grads=True)
    return dict(zip(names, found, strict=True))


def incoming_for(s: Sample, trajectory: bool = True) -> LIF:
    """A gradient for each result, of the numbers of its type."""
    kind = s.input.dtype
    spikes = torch.randn(s.input.shape).to(kind).double()
    v = torch.randn(s.input.shape[1:])
    return LIF(spikes, v.double(), torch.randn(s.input.shape).double() if trajectory else None)


def check(s: Sample, dtype: torch.dtype, trajectory: bool = True, **options) -> None:
    """Results and gradients in ``dtype`` against those of the reference in float64."""
    here = s.to(dtype)
    wide = here.beta.dtype
    T = s.input.shape[0]
    got, want = run(here, record="v", **options), run(s, record="v", backend="reference")
    assert got.spikes.dtype == dtype
    assert torch.equal(got.spikes.double(), want.spikes)
    size = torch.tensor(3.0, dtype=torch.float64)  # of membranes
    for one, other in zip(got[1:], want[1:], strict=True):
        assert_close(one, other, wide, 10, size.expand_as(other))
    incoming = incoming_for(here, trajectory)
    found = gradients(here, incoming, **options)
    exact = gradients(s, incoming, backend="reference")
    for name, g in found.items():
        kind = dtype if name == "input" else wide
        scale = _scale(exact, name, T)
        assert_grad_close(g, exact[name], kind, max(10, T), scale)


def _scale(exact: dict[str, Tensor], name: str, steps: int) -> Tensor:
    """The size of partial sums: of the terms of a gradient, which may cancel."""
    g, of_input = exact[name], exact["input"]
    terms = of_input.numel() / max(1, steps * g.numel())  # over neurons; over time see length
    if name in ("input", "v0"):
        terms = 1
    typical = of_input.square().mean().sqrt() if of_input.numel() else g.new_zeros(())
    return (g.abs() + 4 * max(1, terms) ** 0.5 * typical).expand_as(g)
