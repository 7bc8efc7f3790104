"""lif_step: lif, a step at a time."""

import pytest
import torch

from synops.spiking import lif, lif_step, unpack_spikes


@pytest.mark.parametrize("delayed", [False, True])
def test_steps_are_the_sequence(delayed):
    x, options = torch.randn(7, 3, 20), {"beta": 0.9, "delayed_reset": delayed, "reset": "zero"}
    want, v = lif(x, **options), None
    for x_t, s_t in zip(x, want.spikes, strict=True):
        s, v = lif_step(x_t, v, **options)
        assert torch.equal(s, s_t)
    assert torch.equal(v, want.v)


def test_gradients_of_the_sequence():
    x, beta = torch.randn(7, 3, 20, requires_grad=True), torch.rand(20, requires_grad=True)
    want = torch.autograd.grad(lif(x, beta=beta).spikes.cumsum(0).sum(), (x, beta))
    v, spikes = None, []
    for x_t in x.unbind(0):
        s, v = lif_step(x_t, v, beta=beta, save="half" if v is None else "full")
        spikes.append(s)
    got = torch.autograd.grad(torch.stack(spikes).cumsum(0).sum(), (x, beta))
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-3)


def test_forms_and_shapes():
    x = torch.randn(2, 3, 11)
    s = lif_step(x, beta=0.5).spikes
    assert s.shape == (2, 3, 11)
    assert torch.equal(unpack_spikes(lif_step(x, beta=0.5, spikes="bits").spikes, 11), s)
    assert lif_step(torch.randn(11), beta=0.5).v.shape == (11,)


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ({"input": 1.0}, TypeError, "lif_step: input must be a torch.Tensor"),
        ({"input": torch.ones(())}, ValueError, r"lif_step: input must have shape \(..., N\)"),
        ({"input": torch.ones(3), "record": "v"}, TypeError, "record must be left out"),
        ({"input": torch.ones(3), "beta": 2.0}, ValueError, r"beta must lie in \[0, 1\]"),
        ({"input": torch.ones(3), "v": torch.ones(4)}, ValueError, "must have shape"),
    ],
)
def test_wrong_arguments(args, error, message):
    with pytest.raises(error, match=message):
        lif_step(**{"beta": 0.5} | args)
