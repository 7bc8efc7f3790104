"""Parity with SparseProp 0.1.14, the fastest sparse training on the CPU before: `make peers`.

How many times faster synops is, the table that `make peers` prints next tells.
"""

import pytest
import torch
from torch import nn

from synops.nn import SparseLinear

pytestmark = pytest.mark.peers


@pytest.mark.parametrize("density", [0.1, 0.01])
@pytest.mark.parametrize(("batch", "inputs", "outputs"), [(128, 1024, 1024), (60, 784, 300)])
def test_same_layer(batch, inputs, outputs, density):
    modules = pytest.importorskip("sparseprop.modules", reason="make peers installs it")
    torch.manual_seed(0)
    dense = nn.Linear(inputs, outputs)
    with torch.no_grad():
        dense.weight.masked_fill_(torch.rand(outputs, inputs) >= density, 0)
    ours, theirs = SparseLinear.from_linear(dense), modules.linear.SparseLinear.from_dense(dense)
    x, grad = torch.randn(batch, inputs), torch.randn(batch, outputs)

    def step(layer, values):
        leaf = x.detach().requires_grad_()
        out = layer(leaf)
        return out, *torch.autograd.grad(out, (leaf, values, layer.bias), grad)

    pairs = zip(step(ours, ours.values), step(theirs, theirs.W_val), strict=True)
    for got, want in pairs:
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
