"""nn.Hopfield: parity with hopfield-layers' equations and nn.MultiheadAttention, bad arguments."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

from synops.hebbian import hopfield_retrieve
from synops.nn import Hopfield


def inputs(dtype=torch.float64):
    return torch.randn(2, 5, 12, dtype=dtype), torch.randn(2, 9, 12, dtype=dtype)


def test_plain_is_the_op():
    state, patterns = torch.randn(7, 8), torch.randn(20, 8)
    got = Hopfield(scaling=2.0, update_steps_max=3)(state, patterns)
    assert torch.equal(got, hopfield_retrieve(state, patterns, beta=2.0, steps=4).output)
    values = torch.randn(20, 3)
    got = Hopfield()(state, patterns, values)
    want = hopfield_retrieve(state, patterns, values, beta=8**-0.5).output
    assert torch.equal(got, want)
    assert list(Hopfield().parameters()) == []


def test_without_updates_is_multihead_attention():
    state, stored = inputs()
    layer = Hopfield(12, 3).double()
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True).double()
    parts = (layer.q_proj, layer.k_proj, layer.v_proj)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        theirs.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
        theirs.out_proj.weight.copy_(layer.out_proj.weight)
        theirs.out_proj.bias.copy_(layer.out_proj.bias)
    torch.testing.assert_close(layer(state, stored), theirs(state, stored, stored)[0])


@pytest.mark.parametrize("updates", [0, 1, 4])
def test_hopfield_layers(updates):
    """The equations of hopfield-layers' core: projections, queries replaced by what the softmax
    retrieves from the keys, values in the end; one beta a head (theirs, given as a tensor, scales
    interleaved channels, which is not one a head)."""
    state, stored = (t.requires_grad_() for t in inputs())
    projected = torch.randn(2, 9, 12, dtype=torch.float64)
    layer = Hopfield(
        12, 3, head_size=5, scaling=torch.tensor([0.3, 1.0, 3.0]), learn_scaling=True,
        update_steps_max=updates,
    ).double()  # fmt: skip

    def heads(projection, t):
        return projection(t).view(2, -1, 3, 5).transpose(1, 2)

    q, k = heads(layer.q_proj, state), heads(layer.k_proj, stored)
    for _ in range(updates):
        q = (layer.scaling[:, None, None] * q @ k.mT).softmax(-1) @ k
    p = (layer.scaling[:, None, None] * q @ k.mT).softmax(-1)
    want = layer.out_proj((p @ heads(layer.v_proj, projected)).transpose(1, 2).flatten(2))
    got = layer(state, stored, projected)
    torch.testing.assert_close(got, want)
    leaves = [state, stored, *layer.parameters()]
    grad = torch.randn_like(want)
    grads = [torch.autograd.grad(t, leaves, grad) for t in (got, want)]
    for g, w in zip(*grads, strict=True):
        torch.testing.assert_close(g, w)


def test_retrieve():
    state, stored = inputs(torch.float32)
    layer = Hopfield(12, 3, scaling=4.0, update_steps_max=8, update_steps_eps=0.05)
    found = layer.retrieve(state, stored)
    assert found.output.shape == (2, 3, 5, 4)
    assert found.entropy.shape == found.energy.shape == (9, 2, 3, 5)
    assert found.iterations.unique().numel() > 1
    shared = layer(state, stored[0])
    torch.testing.assert_close(shared, layer(state, stored[:1].expand(2, -1, -1)))
    torch.testing.assert_close(layer(state[0], stored[0]), shared[0])


def test_copies_and_state():
    layer = Hopfield(12, 3, scaling=2.0, learn_scaling=True, update_steps_max=1)
    assert {name for name, _ in layer.named_parameters()} == {
        "scaling",
        *(f"{p}_proj.{t}" for p in ("q", "k", "v", "out") for t in ("weight", "bias")),
    }
    state, stored = inputs(torch.float32)
    want = layer(state, stored)
    other = Hopfield(12, 3, scaling=1.0, learn_scaling=True, update_steps_max=1)
    other.load_state_dict(layer.state_dict())
    for one in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), other):
        assert torch.equal(one(state, stored), want)
    assert "num_heads=3" in repr(layer)


def test_learns():
    """Which of two values a pattern is associated with, by gradient descent through 3 updates."""
    torch.manual_seed(0)
    patterns = F.normalize(torch.randn(8, 16), dim=-1)
    values = torch.nn.Parameter(torch.zeros(8, 2))
    memory = Hopfield(scaling=20.0, update_steps_max=3)
    labels = torch.arange(8) % 2
    adam = torch.optim.Adam([values], 0.3)
    for _ in range(20):
        noisy = patterns + 0.05 * torch.randn(8, 16)
        loss = F.cross_entropy(memory(noisy, patterns, values), labels)
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert float(loss.detach()) < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 2}, "nn.Hopfield: size must be given where there are heads"),
        ({"size": 12, "num_heads": 5}, "nn.Hopfield: size must be a multiple of num_heads = 5"),
        ({"size": 0}, "nn.Hopfield: size must be an int of at least 1, got 0"),
        ({"update_steps_max": -1}, "nn.Hopfield: update_steps_max must be an int of at least 0"),
        ({"scaling": 0.0}, "nn.Hopfield: scaling must be a number or a tensor"),
        ({"scaling": torch.ones(2)}, "nn.Hopfield: scaling must be a number or a tensor"),
        ({"learn_scaling": True}, "nn.Hopfield: scaling must be given where it is learned"),
    ],
    ids=["heads", "division", "size", "updates", "scaling", "scalings", "learned"],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        Hopfield(**options)


def test_bad_shapes():
    layer = Hopfield(12, 3)
    state, stored = inputs(torch.float32)
    with pytest.raises(ValueError, match=r"nn.Hopfield: state must have shape"):
        layer(state[..., :11], stored)
    with pytest.raises(TypeError, match=r"nn.Hopfield: stored must be a torch.Tensor"):
        layer(state, None)
