"""soft_hebb: a step of learning, forward included, against torch in place and the official code."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..common import suite
from ..common.call import Call
from ..common.public import public

RATE = 1e-5  # of timed steps: thousands in place leave the weight what it is
TEMPERATURE = 1.0

Step = Callable[[Tensor, Tensor, float], Tensor]


class SoftSize(NamedTuple):
    """A layer of units that compete."""

    batch: int
    out_features: int
    in_features: int
    source: str
    amax: bool = False  # changes are divided by the largest of them

    @property
    def work(self) -> int:
        """Weights, times samples."""
        return self.batch * self.out_features * self.in_features


_MNIST = "network of Moraitis et al. (arXiv:2107.05747): 2000 units on MNIST"
_BANDWIDTH = "a weight of 64 MB: more than the caches hold"
_OVERHEAD = "next to no arithmetic: the cost of a call"
SIZES = {
    "1x4096x4096": SoftSize(1, 4096, 4096, _BANDWIDTH),
    "256x4096x4096": SoftSize(256, 4096, 4096, _BANDWIDTH),
    "1x1024x1024": SoftSize(1, 1024, 1024, "in the L2 of a core, nearly"),
    "1x2000x784": SoftSize(1, 2000, 784, _MNIST),
    "100x2000x784": SoftSize(100, 2000, 784, _MNIST),
    "1x4096x4096 amax": SoftSize(1, 4096, 4096, _BANDWIDTH, True),
    "256x4096x4096 amax": SoftSize(256, 4096, 4096, _BANDWIDTH, True),
    "4x8x8": SoftSize(4, 8, 8, _OVERHEAD),
}
THREADED = {name: SIZES[name] for name in list(SIZES)[:2] + list(SIZES)[5:]}


def layer(size: SoftSize) -> tuple[Tensor, Tensor]:
    """A weight with rows of norm about 2, and input of unit variance; float64."""
    generator = torch.Generator().manual_seed(0)
    shape = size.out_features, size.in_features
    weight = torch.randn(shape, generator=generator) * 2 / size.in_features**0.5
    pre = torch.randn(size.batch, size.in_features, generator=generator)
    return weight.double(), pre.double()


def activity(u: Tensor, temperature: float) -> Tensor:
    """Softmax, negated but for the winner."""
    y = torch.softmax(u / temperature, 1).neg_()
    winner = u.argmax(1, keepdim=True)
    return y.scatter_(1, winner, -y.gather(1, winner))


def rates(weight: Tensor, lr: float) -> Tensor:
    """Of rows, by the distance of their norm from 1."""
    norm = torch.linalg.vector_norm(weight, dim=1)
    return lr * ((norm - 1).abs_() + 1e-10).sqrt_()


def in_place(amax: bool, temperature: float = TEMPERATURE) -> Step:
    """As few passes over the weight as torch's operators take."""

    def step(weight: Tensor, pre: Tensor, lr: float) -> Tensor:
        u = pre @ weight.t()
        y = activity(u, temperature)
        rate, overlap = rates(weight, lr), (y * u).sum(0)
        if not amax:
            rate /= len(pre)
            weight.mul_(1 - rate.mul(overlap)[:, None])
            return weight.addmm_((y * rate).t(), pre)
        delta = torch.addmm(weight * -overlap[:, None], y.t(), pre)
        largest = torch.linalg.vector_norm(delta, torch.inf)
        return weight.addcmul_(delta, (rate / (largest + 1e-30))[:, None])

    return step


def as_written(size: SoftSize) -> Step:
    """The equations, as the official code has them (with its linear form's products)."""

    def step(weight: Tensor, pre: Tensor, lr: float) -> Tensor:
        u = pre @ weight.t()
        y = -torch.softmax(u / TEMPERATURE, 1)
        winner, sample = u.argmax(1), torch.arange(len(u), device=u.device)
        y[sample, winner] = -y[sample, winner]
        yx, yu = torch.matmul(y.t(), pre), (y * u).sum(0)
        delta = yx - yu.view(-1, 1) * weight
        delta = delta / (delta.abs().amax() + 1e-30) if size.amax else delta / len(pre)
        norm = torch.linalg.norm(weight, dim=1)
        rate = lr * (torch.abs(norm - 1) + 1e-10) ** 0.5
        weight.add_(rate.view(-1, 1) * delta)
        return weight

    return step


def build(impl: str, size: SoftSize, dtype: torch.dtype, device: str) -> Call:
    """A step in place, by

    - synops;
    - torch: in as few passes as its operators take;
    - compile: torch.compile of the equations;
    - official: the equations, operator by operator, as the official code runs them.
    """
    weight, pre = (t.to(device, dtype) for t in layer(size))
    step: Step
    if impl == "synops":
        soft_hebb_ = public("hebbian.soft_hebb_")
        normalize = "amax" if size.amax else None

        def of_synops(weight: Tensor, pre: Tensor, lr: float) -> Tensor:
            return soft_hebb_(weight, pre, lr=lr, normalize=normalize).weight

        step = of_synops
    elif impl == "torch":
        step = in_place(size.amax)
    elif impl == "compile":
        step = torch.compile(as_written(size))
    elif impl == "official":
        step = as_written(size)
    else:
        raise ValueError(impl)
    start = weight.clone()
    # one step of a size that shows, from the start: weights have moved while they were timed
    return Call(
        lambda: step(weight, pre, RATE), (), lambda _: (step(start.clone(), pre, 0.1) - start,)
    )


class SoftHebb(suite.ForwardSuite):
    """On one thread."""

    op = "hebbian.soft_hebb"
    impls = ("synops", "torch", "compile", "official")
    cases = SIZES

    def build(
        self, impl: str, size: SoftSize, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        return build(impl, size, dtype, device)


class SoftHebb2Threads(SoftHebb):
    """Where there is enough work to share."""

    cases = THREADED
    threads = 2
