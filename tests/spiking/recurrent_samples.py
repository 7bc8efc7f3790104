"""Inputs of recurrent_lif whose membranes are exact in every type, and what float64 says of them.

All numbers are multiples of powers of two, small enough that no sum of a few steps is rounded: so
spikes and states must be equal bit for bit, in whichever order the weights are added up, and what
gradients jump at is where it is in float64.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from close import assert_grad_close
from synops.sparse import Pattern
from synops.spiking import RecurrentLIF, recurrent_lif

NAMES = ("input", "weight", "spikes", "v", "beta", "threshold")


class Recurrent(NamedTuple):
    input: Tensor
    weight: Tensor
    spikes: Tensor | None  # before the first step, as v
    v: Tensor | None
    beta: Tensor
    threshold: Tensor
    rule: dict  # pattern, reset, delayed_reset, inclusive, detach_reset, surrogate

    def to(self, dtype: torch.dtype) -> "Recurrent":
        """The input in ``dtype``, the rest in the dtype of the state."""
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        rest = [None if t is None else t.to(wide) for t in self[1:6]]
        return Recurrent(self.input.to(dtype), *rest, self.rule)


def sixteenths(low: int, high: int, *shape: int) -> Tensor:
    return torch.randint(low, high, shape).double() / 16


def sample(
    shape: tuple[int, int, int],
    *,
    density: float | None = None,
    one_beta: bool = False,
    start: bool = True,
    level: int = 0,
    **rule,
) -> Recurrent:
    """At most six steps; about a fifth of the membranes fire, and with ``level`` nearly all."""
    _, rows, n = shape
    rule = {"surrogate": "fast_sigmoid", "slope": 2.5} | rule
    weight = torch.randint(-8, 9, (n, n)).double() / 32
    if density is not None:
        rule["pattern"] = pattern = Pattern.from_mask(torch.rand(n, n) < density)
        weight = pattern.gather(weight)
    return Recurrent(
        sixteenths(-24 + level, 24 + level, *shape),
        weight,
        torch.randint(0, 2, (rows, n)).double() if start else None,
        sixteenths(-32, 32, rows, n) if start else None,
        sixteenths(4, 13, *(() if one_beta else (n,))).mul(4).round().div(4),
        sixteenths(12, 24, *(() if one_beta else (n,))),
        rule,
    )


def run(s: Recurrent, **options) -> RecurrentLIF:
    state = None if s.v is None else (s.spikes, s.v)
    values = {"beta": s.beta, "threshold": s.threshold}
    return recurrent_lif(s.input, s.weight, state, **values, **s.rule, **options)


def outputs(got: RecurrentLIF) -> list[Tensor]:
    found = [got.spikes, *got.state]
    return found if got.trajectory is None else [*found, got.trajectory]


def incoming_for(s: Recurrent) -> list[Tensor]:
    """A gradient for each result, of numbers that every type has."""
    row = s.input.shape[1:]
    shapes = (s.input.shape, row, row, s.input.shape)
    return [sixteenths(-32, 32, *shape) for shape in shapes]


def gradients(
    s: Recurrent, incoming: list[Tensor | None], names=NAMES, **options
) -> dict[str, Tensor]:
    """Of those ``names`` that the sample has, through the results with a gradient."""
    names = [n for n in names if getattr(s, n) is not None]
    leaves = {n: getattr(s, n).detach().clone().requires_grad_() for n in names}
    got = outputs(run(s._replace(**leaves), record="v", **options))
    pairs = [(o, g.to(o.dtype)) for o, g in zip(got, incoming, strict=True) if g is not None]
    pairs = [(o, g) for o, g in pairs if o.requires_grad]
    tensors, grads = zip(*pairs, strict=True)
    found = torch.autograd.grad(tensors, list(leaves.values()), grads, materialize_grads=True)
    return dict(zip(names, found, strict=True))


def check(s: Recurrent, dtype: torch.dtype, **options) -> RecurrentLIF:
    """Results, bit for bit, and gradients in ``dtype`` against the reference in float64."""
    here = s.to(dtype)
    got, want = run(here, record="v", **options), run(s, record="v", backend="reference")
    assert got.spikes.dtype == got.state.spikes.dtype == dtype
    assert got.trajectory.dtype == got.state.v.dtype == here.beta.dtype
    for one, other in zip(outputs(got), outputs(want), strict=True):
        assert torch.equal(one.double(), other)
    incoming = incoming_for(s)
    found = gradients(here, incoming, **options)
    exact = gradients(s, incoming, backend="reference")
    for name, g in found.items():
        kind = dtype if name == "input" else here.beta.dtype
        # A membrane's gradient has those of its neighbours in it, and theirs: sums of N, T deep.
        length = s.input.shape[0] * s.input.shape[2]
        assert_grad_close(g, exact[name], kind, max(10, length), _scale(exact, name))
    return got


def _scale(exact: dict[str, Tensor], name: str) -> Tensor:
    """The size of partial sums: of the terms of a gradient, which may cancel."""
    g, of_input = exact[name], exact["input"]
    terms = 1.0
    if name not in ("input", "spikes", "v"):
        terms = of_input.numel() / max(1, g.numel()) ** (0.5 if name == "weight" else 1)
    typical = of_input.square().mean().sqrt() if of_input.numel() else g.new_zeros(())
    return (g.abs() + 4 * max(1.0, terms) ** 0.5 * typical).expand_as(g)
