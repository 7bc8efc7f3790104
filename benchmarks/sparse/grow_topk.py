"""grow_topk: the edges that RigL and GraNet grow, against the dense gradient and torch's topk."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..common import suite
from ..common.call import Call
from ..common.public import public


class Growing(NamedTuple):
    """A sparse layer, the samples of a step, and edges to grow as a share of those it has."""

    samples: int
    inputs: int
    outputs: int
    density: float
    share: float
    source: str

    @property
    def work(self) -> int:
        """Multiply-adds of the dense gradient."""
        return self.samples * self.inputs * self.outputs


_G2G = "layer of G2GNet, 5 steps of 64 samples (arXiv:2508.14140)"
_SIZES = {
    "320x2048x2048 d=.256": Growing(320, 2048, 2048, 0.256, 0.1, _G2G),
    "128x1024x1024 d=.1": Growing(128, 1024, 1024, 0.1, 0.3, "1024-unit layer"),
    "100x784x300 d=.1": Growing(100, 784, 300, 0.1, 0.3, "first layer of GraNet's MNIST network"),
    "4x8x8 d=.5": Growing(4, 8, 8, 0.5, 0.5, "next to no arithmetic: the cost of a call"),
}


def build(impl: str, size: Growing, dtype: torch.dtype, device: str) -> Call:
    """One of

    - synops: the positions, in ascending order;
    - torch: the dense gradient's magnitude, existing edges masked, topk without its sort;
    - sorted: the same by a full sort, as in the official codes of RigL and GraNet.
    """
    generator = torch.Generator().manual_seed(0)
    grad = torch.randn(size.samples, size.outputs, generator=generator).to(device, dtype)
    x = torch.randn(size.samples, size.inputs, generator=generator).to(device, dtype)
    mask = torch.rand(size.outputs, size.inputs, generator=generator) < size.density
    mask = mask.to(device)
    k = round(size.share * int(mask.sum()))
    if impl == "synops":
        grow = public("sparse.grow_topk")
        pattern = public("sparse.Pattern").from_mask(mask)
        return Call(lambda: grow(grad, x, pattern, k).edges, ())

    def scores() -> torch.Tensor:
        return (grad.t() @ x).abs_().masked_fill_(mask, -1).flatten()

    if impl == "torch":
        return Call(
            lambda: scores().topk(k, sorted=False).indices, (), lambda i: (i.sort().values,)
        )
    if impl == "sorted":
        return Call(
            lambda: scores().sort(descending=True).indices[:k], (), lambda i: (i.sort().values,)
        )
    raise ValueError(impl)


class GrowTopk(suite.ForwardSuite):
    """On one thread."""

    op = "sparse.grow_topk"
    impls = ("synops", "torch", "sorted")
    cases = _SIZES

    def build(
        self, impl: str, size: Growing, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        return build(impl, size, dtype, device)
