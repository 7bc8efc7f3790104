"""Parity with SparseProp 0.1.14, the fastest sparse training on the CPU before: `make peers`.

It prints how many times faster synops is; the number is not asserted, the results are.
"""

import statistics
import time

import pytest
import torch
from torch import nn

from synops.nn import SparseLinear

pytestmark = pytest.mark.peers


@pytest.mark.parametrize("density", [0.1, 0.01])
@pytest.mark.parametrize(("batch", "inputs", "outputs"), [(128, 1024, 1024), (60, 784, 300)])
def test_same_layer(batch, inputs, outputs, density, capsys):
    modules = pytest.importorskip("sparseprop.modules", reason="make peers installs it")
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    dense = nn.Linear(inputs, outputs)
    with torch.no_grad():
        dense.weight.masked_fill_(torch.rand(outputs, inputs) >= density, 0)
    ours, theirs = SparseLinear.from_linear(dense), modules.linear.SparseLinear.from_dense(dense)
    x, grad = torch.randn(batch, inputs), torch.randn(batch, outputs)

    def step(layer, values):
        leaf = x.detach().requires_grad_()
        out = layer(leaf)
        return out, *torch.autograd.grad(out, (leaf, values, layer.bias), grad)

    sides = {"synops": (ours, ours.values), "SparseProp": (theirs, theirs.W_val)}
    results = [step(*side) for side in sides.values()]
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    times = {name: [] for name in sides}
    for _ in range(15):
        for name, side in sides.items():
            start = time.thread_time()
            for _ in range(5):
                step(*side)
            times[name].append((time.thread_time() - start) / 5)
    torch.set_num_threads(threads)
    median = {name: 1e6 * statistics.median(t) for name, t in times.items()}
    with capsys.disabled():
        print(
            f"\n{batch} x {inputs} x {outputs}, density {density}, forward + backward, 1 thread: "
            f"SparseProp {median['SparseProp']:.0f} us, synops {median['synops']:.0f} us, "
            f"{median['SparseProp'] / median['synops']:.1f}x"
        )
