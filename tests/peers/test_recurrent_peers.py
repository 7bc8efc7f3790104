"""recurrent_lif against released layers: the same spikes and gradients. `make peers`."""

import pytest
import torch

from synops.spiking import recurrent_lif

pytestmark = pytest.mark.peers


def dyadic(low, high, *shape):
    """Sixteenths: eight steps of them are exact in float32, which both make their spikes in."""
    return torch.randint(low, high, shape) / 16


def same(theirs, ours, x, weight):
    assert torch.equal(ours, theirs)
    assert 0.02 < theirs.mean() < 0.9
    g = torch.randn_like(theirs)
    want = torch.autograd.grad(theirs, (x, weight), g)
    got = torch.autograd.grad(ours, (x, weight), g)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def set_dyadic(linear):
    with torch.no_grad():
        for t in linear.parameters():
            t.copy_(dyadic(-6, 7, *t.shape))


@pytest.mark.parametrize("reset", ["subtract", "none"])
def test_snntorch(reset):
    """(Its reset to zero takes what comes in with it.)"""
    snn = pytest.importorskip("snntorch", reason="make peers installs it")
    torch.manual_seed(0)
    layer = snn.RLeaky(0.5, linear_features=20, reset_mechanism=reset)
    linear = layer.recurrent
    set_dyadic(linear)
    x = dyadic(-20, 24, 8, 3, 20).requires_grad_()
    s, mem, spikes = *torch.zeros(2, 3, 20), []
    for x_t in x.unbind(0):
        s, mem = layer(x_t, s, mem)
        spikes.append(s)
    ours = recurrent_lif(
        x + linear.bias, linear.weight, beta=0.5, reset=reset, delayed_reset=True,
        surrogate="atan", slope=2.0,
    ).spikes  # fmt: skip
    same(torch.stack(spikes), ours, x, linear.weight)


@pytest.mark.parametrize("decay_input", [False, True])
def test_spikingjelly(decay_input):
    layers = pytest.importorskip("spikingjelly.activation_based.layer", reason="make peers")
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    torch.manual_seed(0)
    tau = 2.0
    node = neuron.LIFNode(tau, decay_input=decay_input, v_threshold=0.25)
    layer = layers.LinearRecurrentContainer(node, in_features=20, out_features=20)
    linear = layer.rc
    set_dyadic(linear)
    x = dyadic(-8, 9, 6, 3, 20).requires_grad_()
    spikes = torch.stack([layer(x_t) for x_t in x.unbind(0)])
    by = 1 / tau if decay_input else 1.0
    ours = recurrent_lif(
        torch.nn.functional.linear(x, linear.weight[:, :20], linear.bias) * by,
        linear.weight[:, 20:] * by, beta=1 - 1 / tau, threshold=0.25, reset="zero", inclusive=True,
        detach_reset=False, surrogate="sigmoid", slope=4,
    ).spikes  # fmt: skip
    same(spikes, ours, x, linear.weight)
