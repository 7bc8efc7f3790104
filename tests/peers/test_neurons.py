"""Parity of neurons with snnTorch 1.0.0, SpikingJelly 2.0.0 and norse 1.1.0: `make peers`.

float64: the packages round products in another order, which moves no spike there.
"""

import pytest
import torch

from synops.spiking import cuba_lif, lif

pytestmark = pytest.mark.peers
REASON = "make peers installs it"


def currents(scale=1.0):
    torch.manual_seed(0)
    x = torch.randn(40, 3, 20, dtype=torch.float64) * 0.6 + 0.25
    return (x * scale).requires_grad_()


def compare(theirs, ours, leaves):
    """Spikes the same, gradients to tolerance."""
    assert torch.equal(ours, theirs)
    assert 0.02 < ours.mean() < 0.9
    g = torch.randn(theirs.shape, dtype=theirs.dtype)
    want = torch.autograd.grad(theirs, leaves, g)
    got = torch.autograd.grad(ours, leaves, g)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def run(layer, x, *states):
    """A loop over time; the first result of the layer is the spikes."""
    spikes = []
    for x_t in x.unbind(0):
        s, *states = layer(x_t, *states)
        spikes.append(s)
    return torch.stack(spikes)


class TestSnnTorch:
    @pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
    def test_leaky(self, reset):
        snntorch = pytest.importorskip("snntorch", reason=REASON)
        layer = snntorch.Leaky(beta=0.9, learn_beta=True, reset_mechanism=reset).double()
        x, beta = currents(), layer.beta
        atan = {"delayed_reset": True, "surrogate": "atan", "slope": 2.0, "reset": reset}
        theirs = run(layer, x, layer.init_leaky().double())
        compare(theirs, lif(x, beta=beta, **atan).spikes, (x, beta))

    @pytest.mark.parametrize("reset", ["subtract", "none"])
    def test_synaptic(self, reset):
        snntorch = pytest.importorskip("snntorch", reason=REASON)
        layer = snntorch.Synaptic(
            alpha=0.5, beta=0.8, learn_alpha=True, learn_beta=True, reset_mechanism=reset
        ).double()
        x = currents(0.5)
        zero = torch.zeros(3, 20, dtype=torch.float64)
        theirs = run(layer, x, zero, zero)
        ours = cuba_lif(
            x, alpha=layer.alpha, beta=layer.beta, delayed_reset=True, reset=reset,
            surrogate="atan", slope=2.0,
        )  # fmt: skip
        compare(theirs, ours.spikes, (x, layer.alpha, layer.beta))


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("hard", [False, True])
def test_spikingjelly(hard, detach):
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron", reason=REASON)
    layer = neuron.LIFNode(
        tau=2.0, decay_input=True, v_reset=0.0 if hard else None, detach_reset=detach, step_mode="m"
    )
    x = currents(2.0)
    ours = lif(
        x / 2, beta=0.5, reset="zero" if hard else "subtract", inclusive=True,
        detach_reset=detach, surrogate="sigmoid", slope=4.0,
    )  # fmt: skip
    compare(layer(x), ours.spikes, (x,))


class TestNorse:
    def parameters(self, kind, **rest):
        norse = pytest.importorskip("norse.torch", reason=REASON)
        numbers = {"tau_mem_inv": 200.0, **rest}
        return getattr(norse, kind)(
            **{k: torch.tensor(v, dtype=torch.float64) for k, v in numbers.items()}
        )

    # its surrogate does not look at alpha
    options = {  # noqa: RUF012
        "reset": "zero", "detach_reset": False, "surrogate": "superspike", "slope": 1.0,
    }  # fmt: skip

    def test_box(self):
        p = self.parameters("LIFBoxParameters")
        from norse.torch.functional.lif_box import LIFBoxFeedForwardState, lif_box_feed_forward_step

        x = currents(5.0)
        zero = torch.zeros(3, 20, dtype=torch.float64)
        theirs = run(
            lambda x, s: lif_box_feed_forward_step(x, s, p), x, LIFBoxFeedForwardState(zero)
        )
        ours = lif(x * 0.2, beta=0.8, **self.options)
        compare(theirs, ours.spikes, (x,))

    def test_current(self):
        p = self.parameters("LIFParameters", tau_syn_inv=300.0)
        from norse.torch.functional.lif import LIFFeedForwardState, lif_feed_forward_step

        x = currents(2.0)
        zero = torch.zeros(3, 20, dtype=torch.float64)
        theirs = run(
            lambda x, s: lif_feed_forward_step(x, s, p), x, LIFFeedForwardState(zero, zero)
        )
        ours = cuba_lif(x * 0.2, alpha=0.7, beta=0.8, **self.options)
        compare(theirs, ours.spikes, (x,))
