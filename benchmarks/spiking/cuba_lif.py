"""cuba_lif: neurons with a synaptic current over a sequence, against a loop over time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..common import suite
from ..common.call import Call
from ..common.public import public
from ..common.sizes import SEQUENCES, SequenceSize

ALPHA, BETA, THRESHOLD, SLOPE = 0.5, 0.9, 1.0, 25.0
_APART = 1e-4  # of every membrane from the threshold, so that no rounding moves a spike


class _Spike(torch.autograd.Function):
    """A step, and the slope of a fast sigmoid."""

    @staticmethod
    def forward(ctx: Any, d: Tensor) -> Tensor:
        ctx.save_for_backward(d)
        return (d > 0).to(d.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (d,) = ctx.saved_tensors
        return grad / (SLOPE * d.abs() + 1).square()


def loop(x: Tensor) -> Tensor:
    """The neurons step by step."""
    v, i, spikes = torch.zeros_like(x[0]), torch.zeros_like(x[0]), []
    for x_t in x.unbind(0):
        i = torch.add(x_t, i, alpha=ALPHA)
        u = torch.add(i, v, alpha=BETA)
        s = _Spike.apply(u - THRESHOLD)
        v = torch.sub(u, s.detach(), alpha=THRESHOLD)
        spikes.append(s)
    return torch.stack(spikes)


def currents(size: SequenceSize) -> Tensor:
    """Input at which a few percent of the neurons fire in a step; no rounding moves a spike."""
    x = torch.randn(size.shape, generator=torch.Generator().manual_seed(0)) * 0.3 + 0.01
    x = x.double()
    v, i = torch.zeros_like(x[0]), torch.zeros_like(x[0])
    for x_t in x.unbind(0):
        near = (BETA * v + ALPHA * i + x_t - THRESHOLD).abs() < _APART
        x_t += 4 * _APART * near
        x_t.copy_(x_t.float())
        i = ALPHA * i + x_t
        u = BETA * v + i
        v = u - (u > THRESHOLD) * THRESHOLD
    return x


class CubaLIF(suite.TrainingSuite):
    """Spikes of a layer, subtract reset, detached, fast sigmoid, on one thread, by

    - synops;
    - torch: a loop over time with an autograd.Function.
    """

    op = "spiking.cuba_lif"
    impls = ("synops", "torch")
    cases = SEQUENCES

    def build(
        self, impl: str, size: SequenceSize, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        x = currents(size).to(device, dtype)
        if impl == "torch":
            return Call(loop, (x,))
        cuba_lif = public("spiking.cuba_lif")
        options = {"threshold": THRESHOLD, "slope": SLOPE}
        return Call(lambda x: cuba_lif(x, alpha=ALPHA, beta=BETA, **options).spikes, (x,))
