"""alif against its loop bit for bit, and its raw ops; the rest in test_second_states.py."""

import pytest
import torch
from neuron_samples import PARAMETERS

from synops.spiking import alif, lif


def loop(x, beta, rho, beta_a, threshold, late):
    """By hand."""
    v, a, s, spikes = torch.zeros_like(x[0]), torch.zeros_like(x[0]), torch.zeros_like(x[0]), []
    for x_t in x.unbind(0):
        if late:
            a = rho * a + s
            v = beta * v + x_t - s * threshold
            s = (v > threshold + beta_a * a).to(x.dtype)
        else:
            u = beta * v + x_t
            s = (u > threshold + beta_a * a).to(x.dtype)
            v = u - s * threshold
            a = rho * a + s
        spikes.append(s)
    return torch.stack(spikes), v, a


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_bits_of_the_loop(dtype, late):
    x = torch.randn(40, 4, 100, dtype=dtype)
    parameters = {k: torch.rand(100, dtype=dtype) for k in (*PARAMETERS["alif"], "threshold")}
    got = alif(x, **parameters, delayed_reset=late)
    for one, other in zip(got[:3], loop(x, **parameters, late=late), strict=True):
        assert torch.equal(one, other)
    assert 0.1 < got.spikes.mean() < 0.9


def test_without_adaptation_it_is_lif():
    x = torch.randn(9, 2, 30)
    got, want = alif(x, beta=0.9, rho=0.5, beta_a=0.0), lif(x, beta=0.9)
    assert torch.equal(got.spikes, want.spikes)
    assert torch.equal(got.v, want.v)


def test_opcheck():
    x, beta = torch.randn(4, 2, 5), torch.rand(5)
    one, rule = torch.tensor(0.5), (0, True, False, True, 1, 2.0)
    v0 = torch.randn(2, 5)
    torch.library.opcheck(
        torch.ops.synops.alif.default,
        (x, v0, None, beta, one, one, one, *rule, 0, 2, True, True),
    )
    torch.library.opcheck(
        torch.ops.synops.alif_backward.default,
        (x, None, v0, None, x, x, v0, None, beta, one, one, one, *rule, 0, *[True] * 7),
    )


def test_raw_ops_are_safe():
    x, one, rule = torch.randn(3, 2, 4), torch.tensor(0.5), (0, False, False, True, 0, 2.0)
    good = [x, None, x[0], one, one, one, torch.rand(4), *rule, 0, 1, True, True]
    torch.ops.synops.alif(*good)
    for at, value, message in (
        (2, x[0, :1], "rows of a0"),
        (5, torch.rand(3), "rho"),
        (6, one.double(), "beta_a has the wrong dtype"),
        (13, 5, "spikes must be 0, 1 or 2"),
    ):
        bad = list(good)
        bad[at] = value
        with pytest.raises(RuntimeError, match=message):
            torch.ops.synops.alif(*bad)
    back = [x, None, None, None, x, None, None, None, one, one, one, one, *rule, 0]
    torch.ops.synops.alif_backward(*back, True, True, True, False, True, False, False)
    with pytest.raises(RuntimeError, match="adaptation was not saved"):
        torch.ops.synops.alif_backward(*back, *[True] * 7)
    with pytest.raises(RuntimeError, match="steps of second"):
        torch.ops.synops.alif_backward(*back[:5], x[:1], *back[6:], *[True] * 7)
