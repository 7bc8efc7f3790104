"""Parity with reservoirpy 0.4.2: the same matrices give the same states. `make peers`."""

import pytest
import torch

from synops.sparse import Pattern
from synops.spiking import esn

pytestmark = pytest.mark.peers


@pytest.mark.parametrize("leak", [0.3, 1.0])
@pytest.mark.parametrize("activation", ["tanh", "relu", "identity"])
def test_same_states(activation, leak):
    nodes = pytest.importorskip("reservoirpy.nodes", reason="make peers installs it")
    sparse = pytest.importorskip("scipy.sparse")
    torch.manual_seed(0)
    pattern = Pattern.from_mask(torch.rand(80, 80) < 0.1)
    values = torch.randn(pattern.nnz, dtype=torch.float64) * 0.3
    input_weight, bias = torch.randn(2, 80, 3, dtype=torch.float64).unbind(0)
    bias = bias[:, 0].contiguous()
    u = torch.randn(50, 3, dtype=torch.float64)
    weight = sparse.csr_matrix(
        (values.numpy(), pattern.col.numpy(), pattern.crow.numpy()), pattern.shape
    )
    node = nodes.Reservoir(
        W=weight, Win=input_weight.numpy(), bias=bias.numpy(), lr=leak, activation=activation
    )
    want = torch.from_numpy(node.run(u.numpy()))
    options = {"input_weight": input_weight, "bias": bias, "leak": leak, "activation": activation}
    got = esn(u, values, pattern, **options)
    torch.testing.assert_close(got.states, want, rtol=1e-11, atol=1e-12)
    single = [t.float() for t in (u, values)]
    options |= {"input_weight": input_weight.float(), "bias": bias.float()}
    got = esn(*single, pattern, **options)
    torch.testing.assert_close(got.states.double(), want, rtol=1e-4, atol=1e-5)
