"""leaky_rnn: a recurrent layer with trainable time constants, against the loop over time."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common import suite
from ..common.call import Call
from ..common.public import public
from ..common.sizes import RATE_NETWORKS, RATE_NETWORKS_THREADED, SequenceSize

SLOPE = 0.01


def layer(size: SequenceSize) -> tuple[Tensor, ...]:
    """Input, weight without a diagonal, bias, time constants and h0 as the paper's code has them
    at the start; float64, whose numbers are float32."""
    generator = torch.Generator().manual_seed(0)
    n, bound = size.neurons, size.neurons**-0.5

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(shape, generator=generator)).double()

    bits = torch.randint(2, (size.steps, size.batch, 1), generator=generator)
    x = bits * uniform(-1, 1, n) + uniform(-1, 1, n)
    weight = uniform(-bound, bound, n, n).fill_diagonal_(0)
    start = uniform(0, 0.1, size.batch, n)
    tensors = x, weight, uniform(-bound, bound, n), uniform(1, 2, n), start
    return tuple(t.float().double() for t in tensors)


def loop(x: Tensor, weight: Tensor, bias: Tensor, tau: Tensor, h0: Tensor) -> Tensor:
    """Step by step, as the code of the paper, with 1 / tau made once; x is unbound, since ``x[t]``
    has a gradient as large as x at every step."""
    rate = 1 / tau.clamp(min=1)
    keep, h, states = 1 - rate, h0, []
    for x_t in x.unbind(0):
        h = F.leaky_relu(keep * h + rate * (F.linear(h, weight, bias) + x_t), SLOPE)
        states.append(h)
    return torch.stack(states)


def build(impl: str, size: SequenceSize, dtype: torch.dtype, device: str) -> Call:
    """States of all steps, with gradients to all but h0, by

    - synops;
    - torch: the loop, whose weight has no diagonal to begin with;
    - compile: torch.compile of it (a graph for each number of steps).
    """
    *inputs, h0 = (t.to(device, dtype) for t in layer(size))
    if impl == "synops":
        leaky_rnn = public("spiking.leaky_rnn")

        def whole(x: Tensor, weight: Tensor, bias: Tensor, tau: Tensor) -> Tensor:
            options = {"tau": tau, "negative_slope": SLOPE, "zero_diagonal": False}
            return leaky_rnn(x, weight, bias, h0, **options).states

        return Call(whole, tuple(inputs))
    if impl in ("torch", "compile"):
        run: Callable[..., Tensor] = torch.compile(loop) if impl == "compile" else loop
        return Call(lambda *given: run(*given, h0), tuple(inputs))
    raise ValueError(impl)


class LeakyRNN(suite.TrainingSuite):
    """On one thread."""

    op = "spiking.leaky_rnn"
    impls = ("synops", "torch", "compile")
    cases = RATE_NETWORKS

    def build(
        self, impl: str, size: SequenceSize, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        return build(impl, size, dtype, device)


class LeakyRNN2Threads(LeakyRNN):
    """Where there is enough work to share."""

    cases = RATE_NETWORKS_THREADED
    threads = 2
