"""hopfield_retrieve: a few steps of associative memory, against what people iterate in torch."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common import suite
from ..common.call import Call
from ..common.public import public


class MemorySize(NamedTuple):
    """Queries to a memory of so many patterns."""

    queries: int
    patterns: int
    size: int
    steps: int
    source: str

    @property
    def work(self) -> int:
        """Multiply-adds of the products."""
        return 2 * self.steps * self.queries * self.patterns * self.size


_THOUSAND = "1000 patterns and 3 iterations, as in the examples of hopfield-layers"
_MANY = "10,000 patterns: classical capacity is 9"
_LONG = "512 numbers, MNIST-sized patterns"
_SIZES = {
    "256 of 1000x64": MemorySize(256, 1000, 64, 3, _THOUSAND),
    "32 of 1000x64": MemorySize(32, 1000, 64, 3, _THOUSAND),
    "1 of 1000x64": MemorySize(1, 1000, 64, 3, _THOUSAND),
    "256 of 10000x64": MemorySize(256, 10_000, 64, 3, _MANY),
    "1 of 10000x64": MemorySize(1, 10_000, 64, 3, _MANY),
    "256 of 1000x512": MemorySize(256, 1000, 512, 3, _LONG),
    "1 of 1000x512": MemorySize(1, 1000, 512, 3, _LONG),
    "2 of 8x8": MemorySize(2, 8, 8, 3, "next to no arithmetic: the cost of a call"),
}
_THREADED = {
    name: _SIZES[name]
    for name in ("256 of 1000x64", "256 of 10000x64", "256 of 1000x512", "2 of 8x8")
}
_BETA = 8.0


def layers_loop(q: Tensor, k: Tensor, beta: float, steps: int) -> Tensor:
    """What hopfield-layers does without projections, masks and dropout, written anew: its loop
    keeps the softmax of all heads, picks active heads' out of it and of the keys, and compares it
    with the one before."""
    xi: Tensor | None = None
    before: Tensor | None = None
    q, k = q[None], k[None]  # heads
    active = torch.ones(1, 1, 1, dtype=torch.bool, device=q.device)
    for step in range(steps):
        if xi is not None:
            chosen = (t.masked_select(active).view(-1, *t.shape[1:]) for t in (xi, k))
            q = torch.masked_scatter(q, active, torch.bmm(*chosen))
        scores = torch.bmm(q * beta, k.transpose(1, 2))
        if xi is None:
            xi = scores.softmax(-1)
        else:
            p = scores.masked_select(active).view(-1, *xi.shape[1:]).softmax(-1)
            xi = torch.masked_scatter(xi, active, p)
        with torch.no_grad():
            keep = torch.full((1,), step + 1 < steps, device=q.device)
            if before is not None:
                keep &= (before - xi).norm(p=2, dim=(1, 2)) > 0
            active, before = keep[:, None, None], xi
        if not active.any():
            break
    assert xi is not None
    return torch.bmm(xi, k)[0]


def eager_loop(q: Tensor, k: Tensor, beta: float, steps: int) -> Tensor:
    for _ in range(steps):
        q = (q * beta @ k.mT).softmax(-1) @ k
    return q


def sdpa_loop(q: Tensor, k: Tensor, beta: float, steps: int) -> Tensor:
    q, k = q[None, None], k[None, None]
    for _ in range(steps):
        q = F.scaled_dot_product_attention(q, k, k, scale=beta)
    return q[0, 0]


def build(impl: str, size: MemorySize, dtype: torch.dtype, device: str) -> Call:
    """The state after all steps, with gradients to state and patterns, by

    - synops: with the entropy of each step;
    - torch: ``F.scaled_dot_product_attention``, patterns as keys and values, repeated; no entropy;
    - eager: products and a softmax, repeated; no entropy;
    - layers: the loop of hopfield-layers, re-enacted (it does not resolve from the package index).
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(size.queries, size.size, generator=generator)
    # Patterns of length 1.3: a state comes to none in a step, and no form stops before the others.
    patterns = torch.randn(size.patterns, size.size, generator=generator) * 1.3 / size.size**0.5
    state = patterns[torch.arange(size.queries) % size.patterns] + noise * 0.6 / size.size**0.5
    inputs = tuple(t.float().to(device, dtype) for t in (state, patterns))
    if impl == "synops":
        retrieve = public("hebbian.hopfield_retrieve")
        return Call(lambda q, k: retrieve(q, k, beta=_BETA, steps=size.steps).output, inputs)
    forms = {"torch": sdpa_loop, "eager": eager_loop, "layers": layers_loop}
    if impl not in forms:
        raise ValueError(impl)
    return Call(lambda q, k: forms[impl](q, k, _BETA, size.steps), inputs)


class HopfieldRetrieve(suite.TrainingSuite):
    """On one thread."""

    op = "hebbian.hopfield_retrieve"
    impls = ("synops", "torch", "eager", "layers")
    cases = _SIZES

    def build(
        self, impl: str, size: MemorySize, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        return build(impl, size, dtype, device)


class HopfieldRetrieve2Threads(HopfieldRetrieve):
    """On two."""

    cases = _THREADED
    threads = 2
