"""nn.RecurrentLIF: what the module adds to the function."""

import copy
import pickle

import pytest
import torch
from torch import nn

from synops.nn import RecurrentLIF, SparseLinear
from synops.spiking import recurrent_lif


@pytest.mark.parametrize("sparse", [False, True])
def test_is_the_function(sparse):
    x, state = torch.randn(6, 3, 10), (torch.ones(3, 10), torch.randn(3, 10))
    options = {"reset": "zero", "surrogate": "triangle", "slope": 2.0, "record": "v"}
    mask = torch.rand(10, 10) < 0.4 if sparse else None
    layer = RecurrentLIF(10, 0.8, torch.full((10,), 0.7), pattern=mask, **options)
    weight = layer.recurrent.values if sparse else layer.recurrent.weight
    assert list(layer.parameters()) == [weight]
    pattern = layer.recurrent.pattern if sparse else None
    want = recurrent_lif(x, weight, state, pattern=pattern, beta=0.8, threshold=0.7, **options)
    got = layer(x, state)
    assert torch.equal(got.spikes, want.spikes)
    assert torch.equal(got.trajectory, want.trajectory)
    got.spikes.sum().backward()
    assert weight.grad.any()


def test_learns():
    torch.manual_seed(1)
    x = torch.randn(20, 4, 10) * 0.5
    layer = RecurrentLIF(10, 0.5, learn_beta=True, slope=2.0)
    optimizer = torch.optim.Adam(layer.parameters(), 0.05)
    rates = []
    for _ in range(40):
        rate = layer(x).spikes.mean()
        optimizer.zero_grad()
        (rate - 0.3).square().backward()
        optimizer.step()
        rates.append(float(rate.detach()))
    assert abs(rates[0] - 0.3) > 0.15
    assert abs(rates[-1] - 0.3) < 0.05


def test_starts_as_a_linear_layer():
    torch.manual_seed(3)
    layer = RecurrentLIF(12, 0.9)
    torch.manual_seed(3)
    assert torch.equal(layer.recurrent.weight, nn.Linear(12, 12, bias=False).weight)


def test_moves_copies_loads():
    mask = torch.rand(6, 6) < 0.5
    layer = RecurrentLIF(6, 0.9, learn_threshold=True, pattern=mask)
    x = torch.randn(5, 2, 6)
    want = layer(x).spikes
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x).spikes, want)
        assert twin.double()(x.double()).spikes.dtype == torch.float64
    other = RecurrentLIF(6, 0.1, pattern=mask)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x).spikes, want)
    dense = RecurrentLIF(6, 0.1)
    dense.load_state_dict(layer.state_dict() | {"recurrent.weight": torch.eye(6)}, strict=False)
    assert dense.beta == layer.beta
    assert dense.recurrent.weight[0, 0] == 1
    assert isinstance(layer.recurrent, SparseLinear)
    assert "beta=0.9" in repr(layer)


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ({"resets": "zero"}, TypeError, "RecurrentLIF: no option 'resets'"),
        ({"save": "half"}, TypeError, "RecurrentLIF: no option 'save'"),
        ({"beta": 1.5}, ValueError, r"beta must lie in \[0, 1\], got 1.5"),
        ({"reset": "hard"}, ValueError, "reset must be one of"),
        ({"threshold": torch.rand(3)}, ValueError, r"threshold must have shape \(\) or \(N,\)"),
        ({"pattern": torch.ones(3, 4, dtype=torch.bool)}, ValueError, "shape"),
    ],
)
def test_wrong_arguments(args, error, message):
    with pytest.raises(error, match=message):
        RecurrentLIF(4, **({"beta": 0.9} | args))
