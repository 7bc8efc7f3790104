"""sddmm: dense times dense at the entries of a pattern, against torch.sparse.sampled_addmm."""

from __future__ import annotations

import torch

from ..common import suite
from ..common.call import Call
from ..common.linear import sparse_layer
from ..common.public import public
from ..common.sizes import LinearSize
from .spmm import CASES, csr_tensor


class SDDMM(suite.TrainingSuite):
    """On one thread."""

    op = "sparse.sddmm"
    impls = ("synops", "torch")
    cases = CASES

    def build(
        self, impl: str, size: LinearSize, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        layer = sparse_layer(size, dtype, device)
        other = torch.randn(
            size.out_features, size.batch, generator=torch.Generator().manual_seed(1)
        )
        mats = other.to(device, dtype), layer.input
        if impl == "synops":
            sddmm, pattern = public("sparse.sddmm"), layer.pattern()
            return Call(lambda a, b: sddmm(a, b, pattern), mats)
        if impl == "torch":
            zeros = csr_tensor(layer._replace(values=torch.zeros_like(layer.values)))
            return Call(lambda a, b: torch.sparse.sampled_addmm(zeros, a, b, beta=0).values(), mats)
        raise ValueError(impl)
