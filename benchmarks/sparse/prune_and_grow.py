"""prune_and_grow: a step of RigL on one layer, against dense masks and torch's selections."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..common import suite
from ..common.call import Call, Tensors
from ..common.public import public


class Layer(NamedTuple):
    """A sparse layer, and the share of its edges that is exchanged."""

    outputs: int
    inputs: int
    density: float
    share: float
    source: str

    @property
    def work(self) -> int:
        """Elements of the dense weight."""
        return self.outputs * self.inputs


_RIGL = "drop fraction of RigL (arXiv:1911.11134) at its first update"
_SIZES = {
    "1024x1024 d=.1": Layer(1024, 1024, 0.1, 0.3, _RIGL),
    "1024x1024 d=.01": Layer(1024, 1024, 0.01, 0.3, _RIGL),
    "2048x2048 d=.256": Layer(2048, 2048, 0.256, 0.1, "layer of G2GNet (arXiv:2508.14140)"),
    "300x784 d=.1": Layer(300, 784, 0.1, 0.3, "first layer of GraNet's MNIST network"),
    "8x8 d=.5": Layer(8, 8, 0.5, 0.3, "next to no arithmetic: the cost of a call"),
}


def build(impl: str, size: Layer, dtype: torch.dtype, device: str) -> Call:
    """One of

    - synops: from the values, two moments and the dense gradient to those of the new pattern;
    - torch: the same on matrices: topk of the entries' magnitudes, topk of the others' gradients,
      both unsorted, the new mask, and weight and moments multiplied by it;
    - sorted: both by all elements in order, as in rigl-torch.

    What leaves may come again, and then keeps its weight. Of all, matrices are compared.
    """
    generator = torch.Generator().manual_seed(0)
    shape = size.outputs, size.inputs
    weight, grad, first, second = (
        torch.randn(shape, generator=generator).to(device, dtype) for _ in range(4)
    )
    mask = (torch.rand(shape, generator=generator) < size.density).to(device)
    second = second.square()
    count = int(mask.sum())
    k = round(size.share * count)
    if impl == "synops":
        step = public("sparse.prune_and_grow")
        pattern = public("sparse.Pattern").from_mask(mask)
        values, *state = (pattern.gather(t) for t in (weight, first, second))

        def matrices(new) -> Tensors:
            kept = (new.values, *new.state)
            return new.pattern.mask().to(dtype), *(new.pattern.scatter(t) for t in kept)

        return Call(lambda: step(values, pattern, k, grad, state=state), (), matrices)
    if impl not in ("torch", "sorted"):
        raise ValueError(impl)
    in_order = impl == "sorted"
    weight, first, second = weight * mask, first * mask, second * mask

    def masked() -> Tensors:
        size = weight.abs()
        if in_order:
            kept = size.masked_fill_(~mask, -1).flatten().sort(descending=True).indices
            new = torch.zeros_like(mask).view(-1)
            new[kept[: count - k]] = True
        else:
            left = (
                size.masked_fill_(~mask, torch.inf).flatten().topk(k, largest=False, sorted=False)
            )
            new = mask.flatten().clone()
            new[left.indices] = False
        score = grad.abs().flatten().masked_fill_(new, -1)
        if in_order:
            new[score.sort(descending=True).indices[:k]] = True
        else:
            new[score.topk(k, sorted=False).indices] = True
        new = new.view_as(mask)
        return new, weight * new, first * new, second * new

    return Call(masked, (), lambda results: (results[0].to(dtype), *results[1:]))


class PruneAndGrow(suite.ForwardSuite):
    """On one thread."""

    op = "sparse.prune_and_grow"
    impls = ("synops", "torch", "sorted")
    cases = _SIZES

    def build(
        self, impl: str, size: Layer, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        return build(impl, size, dtype, device)
