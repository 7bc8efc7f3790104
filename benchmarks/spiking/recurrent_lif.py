"""recurrent_lif: spiking neurons that hear one another, against loops over time."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..common import suite
from ..common.call import Call
from ..common.public import public
from ..common.sizes import RECURRENT, RECURRENT_THREADED, RecurrentSize

BETA, THRESHOLD = 0.9, 1.0
SLOPES = {"fast_sigmoid": 25.0, "triangle": 2.5}  # the latter is not 0 for 10 % of the membranes
_APART = 1e-4  # of every membrane from the threshold, so that no rounding moves a spike


@cache
def inputs(size: RecurrentSize) -> tuple[Tensor, Tensor, Tensor]:
    """Currents, weight and mask at which 3 to 5 % of the neurons fire in a step; float64, whose
    numbers are float32."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size.shape, generator=generator) * 0.35 + 0.02
    n = size.neurons
    weight = torch.randn(n, n, generator=generator) * 0.3 / (n * size.density) ** 0.5
    mask = torch.rand(n, n, generator=generator) < size.density
    x, weight = x.double(), (weight * mask).double()
    v, s = torch.zeros_like(x[0]), torch.zeros_like(x[0])
    for x_t in x.unbind(0):
        heard = BETA * v + s @ weight.T
        x_t += 4 * _APART * ((heard + x_t - THRESHOLD).abs() < _APART)
        x_t.copy_(x_t.float())
        u = heard + x_t
        s = (u > THRESHOLD).to(u.dtype)
        v = u - s * THRESHOLD
    return x, weight, mask


class _FastSigmoid(torch.autograd.Function):
    """A step, and the slope of a fast sigmoid."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        ctx.save_for_backward(u)
        return (u > THRESHOLD).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        return grad / (SLOPES["fast_sigmoid"] * (u - THRESHOLD).abs() + 1).square()


class _Triangle(torch.autograd.Function):
    """A step, and a triangle."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        ctx.save_for_backward(u)
        return (u > THRESHOLD).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        return grad * (1 - SLOPES["triangle"] * (u - THRESHOLD).abs()).clamp_min(0)


_SPIKES = {"fast_sigmoid": _FastSigmoid.apply, "triangle": _Triangle.apply}


def loop(spike: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The neurons step by step; x is unbound, since ``x[t]`` has a gradient as large as x at every
    step, and a step's product has the input added to it."""

    def run(x: Tensor, weight: Tensor) -> Tensor:
        v, s, spikes = torch.zeros_like(x[0]), torch.zeros_like(x[0]), []
        transposed = weight.t()
        for x_t in x.unbind(0):
            u = torch.add(torch.addmm(x_t, s, transposed), v, alpha=BETA)
            s = spike(u)
            v = torch.sub(u, s.detach(), alpha=THRESHOLD)
            spikes.append(s)
        return torch.stack(spikes)

    return run


@torch.no_grad()
def in_place(x: Tensor, weight: Tensor) -> Tensor:
    """What is left of the loop where nothing has a gradient."""
    spikes, v, s, transposed = torch.empty_like(x), *torch.zeros_like(x[:2]), weight.t()
    for x_t, out in zip(x.unbind(0), spikes.unbind(0), strict=True):
        v.mul_(BETA).add_(x_t).addmm_(s, transposed)
        s = torch.gt(v, THRESHOLD, out=out)
        v.sub_(s, alpha=THRESHOLD)
    return spikes


def build(impl: str, size: RecurrentSize, dtype: torch.dtype, device: str) -> Call:
    """Spikes of a layer, subtract reset, detached, by

    - synops; where the weight has a density, on a Pattern;
    - torch: a loop over time with an autograd.Function and a dense product;
    - in_place: without gradients only.
    """
    x, weight, mask = (t.to(device) for t in inputs(size))
    x, weight = x.to(dtype), weight.to(dtype)
    at_entries = lambda of_x, of_weight: (of_x, of_weight[mask])  # noqa: E731
    dense: dict[str, Any] = {"gradients": at_entries} if size.density < 1 else {}
    if impl == "synops":
        layer = public("spiking.recurrent_lif")
        options: dict[str, Any] = {"surrogate": size.surrogate, "slope": SLOPES[size.surrogate]}
        if size.density < 1:
            options["pattern"] = pattern = public("sparse.Pattern").from_mask(mask)
            weight = pattern.gather(weight)
        options |= {"beta": BETA, "threshold": THRESHOLD}
        return Call(lambda x, weight: layer(x, weight, **options).spikes, (x, weight))
    if impl == "torch":
        return Call(loop(_SPIKES[size.surrogate]), (x, weight), **dense)
    if impl == "in_place":
        return Call(in_place, (x, weight), **dense)
    raise ValueError(impl)


class RecurrentLIF(suite.TrainingSuite):
    """On one thread."""

    op = "spiking.recurrent_lif"
    impls = ("synops", "torch")
    cases = RECURRENT
    table_impls = ("in_place",)

    def build(
        self,
        impl: str,
        size: RecurrentSize,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> Call:
        return build(impl, size, dtype, device)


class RecurrentLIF2Threads(RecurrentLIF):
    """Where there is enough work to share."""

    cases = RECURRENT_THREADED
    threads = 2
