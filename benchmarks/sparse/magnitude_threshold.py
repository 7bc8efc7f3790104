"""magnitude_threshold: where global magnitude pruning cuts, against torch's selections."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..common import suite
from ..common.call import Call
from ..common.public import public


class Weights(NamedTuple):
    """Tensors of one size, and the share of their entries that is kept."""

    tensors: int
    shape: tuple[int, ...]
    share: float
    source: str

    @property
    def work(self) -> int:
        """Entries."""
        return self.tensors * int(torch.Size(self.shape).numel())


_RESNET = "last stage of ResNet-50, as GraNet prunes it (arXiv:2106.10404)"
_SIZES = {
    "1x512x512x3x3 keep=.1": Weights(1, (512, 512, 3, 3), 0.1, _RESNET),
    "8x1024x1024 keep=.1": Weights(8, (1024, 1024), 0.1, "layers of an MLP, pruned together"),
    "1x8x8 keep=.5": Weights(1, (8, 8), 0.5, "next to nothing to select from: the cost of a call"),
}


def build(impl: str, size: Weights, dtype: torch.dtype, device: str) -> Call:
    """One of

    - synops: the threshold;
    - torch: ``kthvalue`` of the concatenated magnitudes;
    - topk: ``topk`` of them, unsorted, and its minimum;
    - sort: all of them sorted, as in the official code of GraNet.
    """
    generator = torch.Generator().manual_seed(0)
    tensors = tuple(
        torch.randn(size.shape, generator=generator).to(device, dtype) for _ in range(size.tensors)
    )
    keep = round(size.work * size.share)
    if impl == "synops":
        threshold = public("sparse.magnitude_threshold")
        return Call(lambda: threshold(tensors, keep), ())

    def magnitudes() -> Tensor:
        return torch.cat([t.abs().flatten() for t in tensors])

    if impl == "torch":
        return Call(lambda: magnitudes().kthvalue(size.work - keep + 1).values, ())
    if impl == "topk":
        return Call(lambda: magnitudes().topk(keep, sorted=False).values.min(), ())
    if impl == "sort":
        return Call(lambda: magnitudes().sort().values[size.work - keep], ())
    raise ValueError(impl)


class MagnitudeThreshold(suite.ForwardSuite):
    """On one thread."""

    op = "sparse.magnitude_threshold"
    impls = ("synops", "torch", "topk", "sort")
    cases = _SIZES

    def build(
        self, impl: str, size: Weights, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        return build(impl, size, dtype, device)
