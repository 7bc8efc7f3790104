"""lif: a layer of spiking neurons over a sequence, against loops over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..common import suite
from ..common.call import Call
from ..common.public import public
from ..common.sizes import SEQUENCES, SEQUENCES_THREADED, SequenceSize
from . import peers

BETA, THRESHOLD, SLOPE = 0.9, 1.0, 25.0
COMPACT = {"bits": {"spikes": "bits"}, "half": {"save": "half"}}
_APART = 1e-4  # of every membrane from the threshold, so that no rounding moves a spike


def currents(size: SequenceSize) -> Tensor:
    """Input at which 3 to 5 % of the neurons fire in a step; float64, whose numbers are float32."""
    x = torch.randn(size.shape, generator=torch.Generator().manual_seed(0)) * 0.35 + 0.02
    x = x.double()
    v = torch.zeros_like(x[0])
    for x_t in x.unbind(0):
        u = BETA * v + x_t
        near = (u - THRESHOLD).abs() < _APART
        x_t += 4 * _APART * near
        x_t.copy_(x_t.float())
        u = BETA * v + x_t
        v = u - (u > THRESHOLD) * THRESHOLD
    return x


class _Spike(torch.autograd.Function):
    """As snnTorch has it, without its subtraction: a step, and the slope of a fast sigmoid."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        ctx.save_for_backward(u)
        return (u > THRESHOLD).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        return grad / (SLOPE * (u - THRESHOLD).abs() + 1).square()


def loop(spike: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The neurons step by step, by ``spike``; x is unbound, since ``x[t]`` has a gradient as large
    as x at every step."""

    def run(x: Tensor) -> Tensor:
        v, spikes = torch.zeros_like(x[0]), []
        for x_t in x.unbind(0):
            u = torch.add(x_t, v, alpha=BETA)
            s = spike(u)
            v = torch.sub(u, s.detach(), alpha=THRESHOLD)
            spikes.append(s)
        return torch.stack(spikes)

    return run


def straight_through(u: Tensor) -> Tensor:
    """A step forward, a fast sigmoid backward, from what torch has."""
    d = u - THRESHOLD
    smooth = d / (SLOPE * d.abs() + 1)  # its derivative is 1 / (SLOPE |d| + 1)^2
    return (d > 0).to(u.dtype) + smooth - smooth.detach()


@torch.no_grad()
def in_place(x: Tensor) -> Tensor:
    """What is left of the loop where nothing has a gradient."""
    spikes, v = torch.empty_like(x), torch.zeros_like(x[0])
    for x_t, s in zip(x.unbind(0), spikes.unbind(0), strict=True):
        v.mul_(BETA).add_(x_t)
        torch.gt(v, THRESHOLD, out=s)
        v.sub_(s, alpha=THRESHOLD)
    return spikes


def build(impl: str, size: SequenceSize, dtype: torch.dtype, device: str) -> Call:
    """Spikes of a layer, subtract reset, detached, fast sigmoid, by

    - synops;
    - torch: a loop over time with an autograd.Function, four operations a step;
    - compile: torch.compile of the loop with straight_through (a graph for each number of steps);
    - in_place: without gradients only;
    - bits: synops, spikes as bits, likewise; half: synops, saving half the membrane;
    - snntorch, spikingjelly, norse: their layers, where they are installed (peers.py).
    """
    x = currents(size).to(device, dtype)
    if impl in ("synops", *COMPACT):
        lif = public("spiking.lif")
        options = {"beta": BETA, "threshold": THRESHOLD, "slope": SLOPE} | COMPACT.get(impl, {})
        if impl == "bits":
            unpack = public("spiking.unpack_spikes")
            return Call(
                lambda x: lif(x.detach(), **options).spikes,
                (x,),
                outputs=lambda bits: (unpack(bits, x.shape[-1]),),
            )
        return Call(lambda x: lif(x, **options).spikes, (x,))
    if impl == "torch":
        return Call(loop(_Spike.apply), (x,))
    if impl == "compile":
        return Call(torch.compile(loop(straight_through)), (x,))
    if impl == "in_place":
        return Call(in_place, (x,))
    if impl in peers.LAYERS:
        return Call(peers.LAYERS[impl](BETA, THRESHOLD, SLOPE), (x,))
    raise ValueError(impl)


class LIF(suite.TrainingSuite):
    """On one thread."""

    op = "spiking.lif"
    impls = ("synops", "torch", "compile")
    cases = SEQUENCES
    table_impls = ("in_place", "bits", "half", "snntorch", "spikingjelly", "norse")

    def build(
        self, impl: str, size: SequenceSize, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        return build(impl, size, dtype, device)


class LIF2Threads(LIF):
    """Where there is enough work to share."""

    cases = SEQUENCES_THREADED
    threads = 2
