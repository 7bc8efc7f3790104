"""nn.STDPLinear: learns as the function does, and is a layer like others."""

import copy
import pickle

import pytest
import torch

from synops.hebbian import stdp
from synops.nn import LIF, STDPLinear


def spikes(steps=6, batch=2, inputs=12, outputs=5):
    return (torch.rand(steps, batch, n) < 0.3 for n in (inputs, outputs))


@pytest.mark.parametrize("options", [{}, {"tau_e": 5.0}, {"a3_plus": 0.5}, {"bounds": "soft"}])
def test_learns_as_the_function(options):
    layer = STDPLinear(12, 5, lr=0.05, **options)
    before, state = layer.weight.clone(), None
    assert 0.3 < before.mean() < 0.7
    reward = {"reward": 0.5} if "tau_e" in options else {}
    for _ in range(2):
        pre, post = spikes()
        layer.learn(pre, post, **reward)
        rule = {"lr": 0.05, "clip": (0.0, 1.0), **options, **reward}
        before, state = stdp(before, pre, post, state, **rule)
        assert torch.equal(layer.weight, before)
    assert torch.equal(layer.trace_pre, state.pre)
    layer.reset_state()
    assert layer.trace_pre is None


def test_forward_is_linear_in_its_input():
    layer = STDPLinear(12, 5)
    x = torch.randn(4, 3, 12, requires_grad=True)
    y = layer(x)
    assert torch.equal(y, torch.nn.functional.linear(x, layer.weight))
    y.sum().backward()
    assert x.grad is not None
    assert not layer.weight.requires_grad


def test_beside_neurons():
    """Inputs that fire together are bound to the neuron that they make fire."""
    rule = {"a_minus": 1.2, "tau_plus": 3.0, "tau_minus": 6.0, "coincident": "potentiate"}
    layer, neurons = STDPLinear(20, 1, lr=0.02, **rule), LIF(beta=0.8, threshold=2.0)
    for _ in range(30):
        pre = (torch.rand(40, 1, 20) < 0.05).float()
        pre[::8, :, :5] = 1  # five of them together
        layer.learn(pre, neurons(layer(pre))[0].detach())
    assert layer.weight[0, :5].mean() > layer.weight[0, 5:].mean() + 0.2


def test_state_dict_copy_pickle():
    layer = STDPLinear(12, 5, a3_plus=0.5)
    layer.learn(*spikes())
    pre, post = spikes()
    other = STDPLinear(12, 5, a3_plus=0.5)
    other.load_state_dict(layer.state_dict())
    others = [other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    layer.learn(pre, post)
    for one in others:
        one.learn(pre, post)
        assert torch.equal(one.weight, layer.weight)
        assert torch.equal(one.trace_slow_post, layer.trace_slow_post)
    fresh = STDPLinear(12, 5, a3_plus=0.5)
    layer.load_state_dict(fresh.state_dict())
    assert layer.trace_pre is None


def test_what_it_refuses():
    with pytest.raises(TypeError, match="STDPLinear: no option 'tau'"):
        STDPLinear(3, 2, tau=1)
    with pytest.raises(ValueError, match="tau_plus must be positive, got 0"):
        STDPLinear(3, 2, tau_plus=0)
    with pytest.raises(ValueError, match="in_features must be an integer"):
        STDPLinear(-1, 2)
    layer = STDPLinear(12, 5, tau_e=5.0)
    before = layer.weight.clone()
    with pytest.raises(ValueError, match="reward"):
        layer.learn(*spikes())
    layer.learn(*spikes(), reward=0.0)
    with pytest.raises(ValueError, match=r"state\.pre must have shape"):
        layer.learn(*spikes(batch=3), reward=1.0)
    assert torch.equal(layer.weight, before)
