"""nn.LIF: what the module adds to the function."""

import copy

import pytest
import torch

from synops.nn import LIF
from synops.spiking import lif


def test_is_the_function():
    x, v0, beta = torch.randn(6, 3, 10), torch.randn(3, 10), torch.rand(10)
    options = {"reset": "zero", "surrogate": "atan", "slope": 2.0, "record": "v"}
    layer = LIF(beta, 0.7, **options)
    for one, other in zip(
        layer(x, v0), lif(x, v0, beta=beta, threshold=0.7, **options), strict=True
    ):
        assert torch.equal(one, other)
    assert not list(layer.parameters())
    assert layer.state_dict().keys() == {"beta", "threshold"}


def test_learns():
    torch.manual_seed(1)
    x = torch.randn(20, 4, 10) * 0.5
    layer = LIF(torch.full((10,), 0.5), 1.0, learn_beta=True, learn_threshold=True, slope=2.0)
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


def test_beta_outside_counts_as_the_end():
    x = torch.randn(5, 2, 3)
    layer = LIF(0.9, learn_beta=True)
    with torch.no_grad():
        layer.beta.fill_(1.2)
    got = layer(x)
    assert torch.equal(got.spikes, lif(x, beta=1.0).spikes)
    got.spikes.sum().backward()
    assert layer.beta.grad == 0


def test_moves_copies_loads():
    layer = LIF(0.9, learn_threshold=True)
    twin = copy.deepcopy(layer).double()
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    assert torch.equal(twin(x).spikes, lif(x, beta=twin.beta).spikes)
    other = LIF(0.1)
    other.load_state_dict(layer.state_dict())
    assert other.beta == layer.beta
    assert repr(layer) == "LIF(beta=0.9, threshold=1, learned)"


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ({"beta": 0.9, "resets": "zero"}, TypeError, "LIF: no option 'resets'"),
        ({"beta": 1.5}, ValueError, r"beta must lie in \[0, 1\], got 1.5"),
        ({"beta": "0.9"}, TypeError, "beta must be a number"),
        ({"beta": 0.9, "reset": "hard"}, ValueError, "reset must be one of"),
        ({"beta": torch.rand(3), "threshold": torch.rand(4)}, ValueError, "must have shape"),
        ({"beta": torch.rand(3, 4)}, ValueError, "must have shape"),
    ],
)
def test_wrong_arguments(args, error, message):
    with pytest.raises(error, match=message):
        LIF(**args)
