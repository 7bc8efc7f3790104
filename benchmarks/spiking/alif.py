"""alif: neurons whose threshold adapts over a sequence, against a loop over time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..common import suite
from ..common.call import Call
from ..common.public import public
from ..common.sizes import SEQUENCES, SequenceSize

BETA, RHO, BETA_A, THRESHOLD, SLOPE = 0.9, 0.95, 0.2, 1.0, 25.0
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


def _step(x: Tensor, v: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Membrane, and its distance from the threshold."""
    u = torch.add(x, v, alpha=BETA)
    return u, u - (a * BETA_A + THRESHOLD)


def loop(x: Tensor) -> Tensor:
    """The neurons step by step."""
    v, a, spikes = torch.zeros_like(x[0]), torch.zeros_like(x[0]), []
    for x_t in x.unbind(0):
        u, d = _step(x_t, v, a)
        s = _Spike.apply(d)
        v = torch.sub(u, s.detach(), alpha=THRESHOLD)
        a = torch.add(s, a, alpha=RHO)
        spikes.append(s)
    return torch.stack(spikes)


def currents(size: SequenceSize) -> Tensor:
    """Input at which a few percent of the neurons fire in a step; no rounding moves a spike."""
    x = torch.randn(size.shape, generator=torch.Generator().manual_seed(0)) * 0.35 + 0.02
    x = x.double()
    v, a = torch.zeros_like(x[0]), torch.zeros_like(x[0])
    for x_t in x.unbind(0):
        _, d = _step(x_t, v, a)
        x_t += 4 * _APART * (d.abs() < _APART)
        x_t.copy_(x_t.float())
        u, d = _step(x_t, v, a)
        s = (d > 0).double()
        v, a = u - s * THRESHOLD, RHO * a + s
    return x


class ALIF(suite.TrainingSuite):
    """Spikes of a layer, subtract reset, detached, fast sigmoid, on one thread, by

    - synops;
    - torch: a loop over time with an autograd.Function.
    """

    op = "spiking.alif"
    impls = ("synops", "torch")
    cases = SEQUENCES

    def build(
        self, impl: str, size: SequenceSize, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        x = currents(size).to(device, dtype)
        if impl == "torch":
            return Call(loop, (x,))
        alif = public("spiking.alif")
        options = {"threshold": THRESHOLD, "slope": SLOPE}
        return Call(lambda x: alif(x, beta=BETA, rho=RHO, beta_a=BETA_A, **options).spikes, (x,))
