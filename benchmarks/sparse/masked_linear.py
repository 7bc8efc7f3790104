"""masked_linear: a dense weight behind a mask, against multiplying by the mask."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from ..common import suite
from ..common.call import Call
from ..common.linear import sparse_layer
from ..common.public import public
from ..common.sizes import LINEAR, LINEAR_MEMORY, LINEAR_THREADED, LinearSize


def build(impl: str, size: LinearSize, dtype: torch.dtype, device: str) -> Call:
    """One of

    - synops: the mask as a Pattern, indexed once;
    - synops_bool: the mask as a bool tensor, indexed anew at every call;
    - torch: ``F.linear(x, w * m)``, what pruning layers do;
    - compile: torch.compile of it;
    - premultiplied: F.linear on ``w * m`` that was multiplied beforehand. The best dense form, but
      a layer whose weight changes has it only if it masks weight and gradient elsewhere.
    """
    layer = sparse_layer(size, dtype, device)
    x, weight, mask = layer.input, layer.weight(), layer.mask()
    if impl in ("synops", "synops_bool"):
        masked_linear = public("sparse.masked_linear")
        where = public("sparse.Pattern").from_mask(mask) if impl == "synops" else mask
        return Call(lambda x, w: masked_linear(x, w, where), (x, weight), gradients=layer.kept)
    if impl == "premultiplied":
        return Call(linear, (x, weight), gradients=layer.kept)

    number_mask = mask.to(dtype)

    def multiplied(x: Tensor, w: Tensor) -> Tensor:
        return linear(x, w * number_mask)

    if impl == "torch":
        return Call(multiplied, (x, weight), gradients=layer.kept)
    if impl == "compile":
        if size.density != 0.1:
            raise NotImplementedError("compiled at one density: its time is the dense one")
        return Call(torch.compile(multiplied), (x, weight), gradients=layer.kept)
    raise ValueError(impl)


class MaskedLinear(suite.TrainingSuite):
    """On one thread."""

    op = "sparse.masked_linear"
    impls = ("synops", "torch", "compile", "premultiplied", "synops_bool")
    baseline = "premultiplied"
    cases = LINEAR

    def build(
        self, impl: str, size: LinearSize, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        return build(impl, size, dtype, device)


class MaskedLinear2Threads(MaskedLinear):
    """On two threads, by the wall clock."""

    cases = LINEAR_THREADED
    threads = 2


class MaskedLinearMemory(suite.MemorySuite):
    """A weight of 64 MB: the product with its mask is 64 MB more, and so is a gradient."""

    op = "sparse.masked_linear"
    impls = ("synops", "torch")
    cases = LINEAR_MEMORY
    small = LINEAR["1x8x8 d=.5"]

    def build(
        self, impl: str, size: LinearSize, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        return build(impl, size, dtype, device)
