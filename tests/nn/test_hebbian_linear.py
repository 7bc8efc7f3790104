"""HebbianLinear: forward, learning, and the life of a module."""

import copy
import pickle

import pytest
import torch

from synops.hebbian import bcm, hebb, oja
from synops.nn import HebbianLinear
from synops.sparse import Pattern

MASK = torch.arange(35).reshape(5, 7) % 3 > 0


@pytest.mark.parametrize(
    "pattern", [None, MASK, Pattern.from_mask(MASK)], ids=["dense", "mask", "p"]
)
@pytest.mark.parametrize("rule", ["hebb", "oja", "bcm"])
def test_learn(rule, pattern):
    """The rule on the weight, with leading dimensions as samples."""
    layer = HebbianLinear(7, 5, rule, lr=0.1, pattern=pattern, decay=0.01, clip=(-1, 1), tau=5.0)
    x, m = torch.randn(2, 3, 7), torch.rand(6)
    before, dense = layer.weight.detach().clone(), pattern is None
    options = {"lr": 0.1, "decay": 0.01, "clip": (-1, 1), "modulator": m}
    options |= {} if dense else {"pattern": layer.layer.pattern}
    if rule == "bcm":
        want = bcm(before, torch.ones(5), x.reshape(6, 7), tau=5.0, **options)
    else:
        want = {"hebb": hebb, "oja": oja}[rule](before, x.reshape(6, 7), **options)
    y = layer(x)
    got = layer.learn(x, modulator=m)
    assert got.shape == (2, 3, 5)
    torch.testing.assert_close(got, y)
    assert torch.equal(layer.weight, want.weight)
    if rule == "bcm":
        assert torch.equal(layer.theta, want.theta)
    assert layer.learn(x, y) is y


@pytest.mark.parametrize("pattern", [None, MASK], ids=["dense", "pattern"])
def test_forward_is_differentiable(pattern):
    """Also where it learns right after: by the weight of the forward."""
    for learns in (False, True):
        layer = HebbianLinear(7, 5, lr=0.1, pattern=pattern, learn_on_forward=learns)
        before = layer.weight.detach().clone()
        x = torch.randn(3, 7, requires_grad=True)
        layer(x).sum().backward()
        dense = before if pattern is None else layer.layer.pattern.scatter(before)
        torch.testing.assert_close(x.grad, dense.sum(0).expand(3, 7))
        assert torch.equal(layer.weight, before) != learns
        assert layer.weight.grad is None


def test_learns_on_forward_in_training_only():
    layer = HebbianLinear(7, 5, lr=0.1, learn_on_forward=True)
    before = layer.weight.detach().clone()
    layer.eval()(torch.randn(3, 7))
    assert torch.equal(layer.weight, before)
    with torch.no_grad():
        layer.train()(torch.randn(3, 7))
    assert not torch.equal(layer.weight, before)


def test_copies_and_states():
    sign = torch.ones(7)
    layer = HebbianLinear(7, 5, "bcm", lr=torch.rand(5), pattern=MASK, sign=sign)
    assert (layer.weight > 0).all()
    x = torch.rand(3, 7)
    layer.learn(x)
    other = HebbianLinear(7, 5, "bcm", lr=torch.rand(5), pattern=MASK, sign=sign)
    other.load_state_dict(layer.state_dict())
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), other):
        assert torch.equal(twin.learn(x), copy.deepcopy(layer).learn(x))
        assert not twin.weight.requires_grad
    assert layer.double().learn(x.double()).dtype == torch.float64


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"nn.HebbianLinear: rule must be one of .*, got 'sanger'"):
        HebbianLinear(7, 5, "sanger")
    with pytest.raises(TypeError, match="HebbianLinear: no option 'momentum'"):
        HebbianLinear(7, 5, momentum=0.9)
    with pytest.raises(ValueError, match="oja_: decay must lie in"):
        HebbianLinear(7, 5, decay=2.0)
    with pytest.raises(ValueError, match="bcm_: tau must be at least 1"):
        HebbianLinear(7, 5, "bcm", tau=0.0)
