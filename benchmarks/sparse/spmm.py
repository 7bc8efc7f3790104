"""spmm: sparse times dense, against torch.sparse.mm on the same CSR matrix."""

from __future__ import annotations

import warnings

import torch

from ..common import suite
from ..common.call import Call
from ..common.linear import SparseLayer, sparse_layer
from ..common.public import public
from ..common.sizes import LINEAR, LinearSize

CASES = {name: LINEAR[name] for name in ("128x1024x1024 d=.1", "128x1024x1024 d=.01")}


def csr_tensor(layer: SparseLayer) -> torch.Tensor:
    """The weight of a layer as torch has it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch: CSR is in beta state
        return torch.sparse_csr_tensor(
            layer.crow, layer.col, layer.values, layer.shape, check_invariants=False
        )


class SpMM(suite.TrainingSuite):
    """On one thread; the dense matrix is (in, batch), row-major."""

    op = "sparse.spmm"
    impls = ("synops", "torch")
    cases = CASES

    def build(
        self, impl: str, size: LinearSize, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        layer = sparse_layer(size, dtype, device)
        dense = layer.input.t().contiguous()
        if impl == "synops":
            spmm, pattern = public("sparse.spmm"), layer.pattern()
            return Call(lambda d, values: spmm(values, pattern, d), (dense, layer.values))
        if impl == "torch":
            weight = csr_tensor(layer)
            return Call(
                lambda d, w: torch.sparse.mm(w, d),
                (dense, weight),
                gradients=lambda to_dense, to_weight: (to_dense, to_weight.values()),
            )
        raise ValueError(impl)
