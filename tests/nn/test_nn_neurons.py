"""nn.ALIF and nn.CubaLIF: what the modules add to the functions."""

import copy
import pickle

import pytest
import torch

from synops.nn import ALIF, CubaLIF
from synops.spiking import alif, cuba_lif

CASES = {
    "alif": (ALIF, alif, {"beta": 0.9, "rho": 0.8, "beta_a": 0.3}),
    "cuba_lif": (CubaLIF, cuba_lif, {"alpha": 0.5, "beta": 0.9}),
}


@pytest.mark.parametrize("name", CASES)
class TestModules:
    def test_is_the_function(self, name):
        kind, function, parameters = CASES[name]
        x, v0, w0 = torch.randn(6, 3, 10), torch.randn(3, 10), torch.randn(3, 10)
        given = {k: torch.full((10,), p) for k, p in parameters.items()}
        options = {"reset": "zero", "surrogate": "atan", "slope": 2.0, "record": "v"}
        layer = kind(**given, threshold=0.7, **options)
        want = function(x, v0, w0, **given, threshold=0.7, **options)
        for one, other in zip(layer(x, v0, w0), want, strict=True):
            assert torch.equal(one, other)
        assert not list(layer.parameters())
        assert layer.state_dict().keys() == {*parameters, "threshold"}

    def test_learns_copies_loads(self, name):
        kind, _, parameters = CASES[name]
        layer = kind(**parameters, **{f"learn_{k}": True for k in parameters})
        x = torch.randn(8, 3, 10)
        layer(x).spikes.sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
        for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(twin(x).spikes, layer(x).spikes)
        other = kind(**dict.fromkeys(parameters, 0.1))
        other.load_state_dict(layer.state_dict())
        assert torch.equal(other(x).spikes, layer(x).spikes)
        assert "learned" in repr(layer)

    def test_wrong_arguments(self, name):
        kind, _, parameters = CASES[name]
        with pytest.raises(TypeError, match=f"{kind.__name__}: no option 'resets'"):
            kind(**parameters, resets="zero")
        with pytest.raises(ValueError, match="must lie in"):
            kind(**parameters | {"beta": 1.5})
