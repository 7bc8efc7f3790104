"""cuba_lif against its loop bit for bit, and its raw ops; the rest in test_second_states.py."""

import pytest
import torch
from neuron_samples import PARAMETERS

from synops.spiking import cuba_lif, lif


def loop(x, alpha, beta, threshold, late):
    """By hand."""
    v, i, s, spikes = torch.zeros_like(x[0]), torch.zeros_like(x[0]), torch.zeros_like(x[0]), []
    for x_t in x.unbind(0):
        i = alpha * i + x_t
        u = beta * v + i
        v = u - s * threshold if late else u
        s = (v > threshold).to(x.dtype)
        v = v if late else u - s * threshold
        spikes.append(s)
    return torch.stack(spikes), v, i


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_bits_of_the_loop(dtype, late):
    x = torch.randn(40, 4, 100, dtype=dtype)
    parameters = {k: torch.rand(100, dtype=dtype) for k in (*PARAMETERS["cuba_lif"], "threshold")}
    got = cuba_lif(x, **parameters, delayed_reset=late)
    for one, other in zip(got[:3], loop(x, **parameters, late=late), strict=True):
        assert torch.equal(one, other)
    assert 0.1 < got.spikes.mean() < 0.9


def test_without_memory_of_the_current_it_is_lif():
    x = torch.randn(9, 2, 30)
    got, want = cuba_lif(x, alpha=0.0, beta=0.9), lif(x, beta=0.9)
    assert torch.equal(got.spikes, want.spikes)
    assert torch.equal(got.v, want.v)


def test_opcheck():
    x, alpha = torch.randn(4, 2, 5), torch.rand(5)
    one, rule = torch.tensor(0.5), (1, False, True, False, 2, 2.0)
    torch.library.opcheck(
        torch.ops.synops.cuba_lif.default,
        (x, None, None, one, one, alpha, *rule, 0, 1, True, False),
    )


def test_raw_ops_are_safe():
    x, one, rule = torch.randn(3, 2, 4), torch.tensor(0.5), (0, False, False, True, 0, 2.0)
    back = [x, None, None, None, x, None, None, None, one, one, one, *rule, 0]
    torch.ops.synops.cuba_lif_backward(*back, *[True] * 5, False)
    with pytest.raises(RuntimeError, match="current was not saved"):
        torch.ops.synops.cuba_lif_backward(*back, *[True] * 6)
    with pytest.raises(RuntimeError, match="i0 must have 2 dimensions"):
        torch.ops.synops.cuba_lif(x, None, x, one, one, one, *rule, 0, 1, True, False)
