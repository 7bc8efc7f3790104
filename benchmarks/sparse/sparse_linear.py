"""sparse_linear: a layer that stores its kept weights only, against torch's ways to have one."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn.functional import linear

from ..common import suite
from ..common.call import Call
from ..common.linear import sparse_layer
from ..common.public import public
from ..common.sizes import LINEAR, LINEAR_MEMORY, LINEAR_TABLES, LINEAR_THREADED, LinearSize


def build(impl: str, size: LinearSize, dtype: torch.dtype, device: str) -> Call:
    """One of

    - synops: the values of a Pattern;
    - torch: F.linear on the finished dense weight, zeros in place: no mask is applied, so this is
      the best a dense layer can do, and its weight gradient is dense;
    - compile: torch.compile of the expression that the op equals, the weight written out from its
      values;
    - masked_compile: torch.compile of ``F.linear(x, w * m)``, what pruning layers do;
    - csr: ``csr @ x.t()``, the orientation in which torch's CSR tensors are fast;
    - csr_linear: ``F.linear(x, csr)``, the one that comes to mind, with a dense weight gradient;
    - sparseprop: M. Nikdan et al., SparseProp, ICML 2023, arXiv:2302.04852, where it is installed
      (requirements-peers.txt).
    """
    layer = sparse_layer(size, dtype, device)
    x, values = layer.input, layer.values
    if impl == "synops":
        pattern = layer.pattern()
        sparse_linear = public("sparse.sparse_linear")
        return Call(lambda x, values: sparse_linear(x, values, pattern), (x, values))
    if impl == "torch":
        return Call(linear, (x, layer.weight()), gradients=layer.kept)
    if impl in ("compile", "masked_compile") and size.density != 0.1:
        raise NotImplementedError("compiled at one density: its time is the dense one")
    if impl == "masked_compile":
        mask = layer.mask().to(dtype)
        torch.compiler.reset()  # it compiles so many times and then no more, without a word
        masked = torch.compile(lambda x, w: linear(x, w * mask), fullgraph=True, dynamic=False)
        return Call(masked, (x, layer.weight()), gradients=layer.kept)
    if impl == "compile":
        at, shape = layer.positions(), layer.shape

        def written_out(x: Tensor, values: Tensor) -> Tensor:
            flat = values.new_zeros(shape[0] * shape[1])
            return linear(x, flat.index_put((at,), values).view(shape))

        return Call(torch.compile(written_out), (x, values))
    if impl in ("csr", "csr_linear"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch: CSR is in beta state
            csr = torch.sparse_csr_tensor(
                layer.crow, layer.col, values, layer.shape, check_invariants=False
            )
        product = linear if impl == "csr_linear" else lambda x, csr: (csr @ x.t()).t()
        return Call(product, (x, csr), gradients=layer.kept)
    if impl == "sparseprop":
        try:
            from sparseprop.modules.functions import SparseLinearFunction as peer
        except ImportError:
            raise NotImplementedError("sparseprop is not installed") from None
        index, rows = (layer.crow, layer.col), layer.shape[0]
        return Call(lambda x, values: peer.apply(x, values, index, None, rows), (x, values))
    raise ValueError(impl)


class SparseLinear(suite.TrainingSuite):
    """On one thread."""

    op = "sparse.sparse_linear"
    impls = ("synops", "torch", "compile", "csr", "sparseprop")
    cases = LINEAR
    table_impls = ("csr_linear", "masked_compile")
    table_cases = LINEAR_TABLES

    def build(
        self, impl: str, size: LinearSize, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        return build(impl, size, dtype, device)


class SparseLinear2Threads(SparseLinear):
    """On two threads, by the wall clock."""

    cases = LINEAR_THREADED
    threads = 2


class SparseLinearMemory(suite.MemorySuite):
    """A layer whose dense weight, or dense gradient, is 64 MB; its kept entries are 0.7 MB."""

    op = "sparse.sparse_linear"
    impls = ("synops", "torch", "csr")
    cases = LINEAR_MEMORY
    small = LINEAR["1x8x8 d=.5"]

    def build(
        self, impl: str, size: LinearSize, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        return build(impl, size, dtype, device)
