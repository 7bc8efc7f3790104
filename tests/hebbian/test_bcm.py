"""bcm against its formula, what it learns, and its threshold's own errors."""

import math

import pytest
import torch
from plasticity_samples import sample

from synops.hebbian import bcm, bcm_


def test_formula():
    """Sample by sample, with every option that has a factor."""
    s = sample("dense", 5, 7, 6, torch.float64).double()
    o = s.options
    want = (1 - o["decay"]) * s.weight
    for b in range(6):
        y, x = s.post[b] * o["gain_post"], s.pre[b] * o["gain_pre"]
        want = want + o["lr"][:, None] * o["modulator"][b] * torch.outer(y * (y - s.theta), x) / 6
    got = bcm(s.weight, s.theta, s.pre, s.post, tau=4.0, **o)
    torch.testing.assert_close(got.weight, want.clamp(*o["clip"]), rtol=1e-13, atol=1e-14)
    theta = 0.75 * s.theta + 0.25 * (s.post * o["gain_post"]).square().mean(0)
    torch.testing.assert_close(got.theta, theta, rtol=1e-14, atol=0)
    assert got.post is s.post


def test_becomes_selective():
    """Of two orthogonal inputs a unit comes to answer one, at the threshold's fixed point: the
    response is 1 / its probability (Intrator and Cooper, 1992)."""
    x = torch.eye(2)
    weight, theta = torch.tensor([[0.6, 0.4]]), torch.ones(1)
    for step in range(6000):
        bcm_(weight, theta, x[step % 2], tau=20.0, lr=0.01)
    responses = (x @ weight.t())[:, 0]
    assert abs(responses.max() - 2) < 0.1
    assert abs(responses.min()) < 0.1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"theta": torch.rand(3)}, ValueError, r"theta must have shape \(out,\) = \(2,\)"),
        ({"theta": torch.rand(2).double()}, TypeError, "theta must be float32, got float64"),
        ({"theta": 0.5}, TypeError, "theta must be a torch.Tensor, got float"),
        ({"theta": torch.rand(4)[::2]}, ValueError, "theta must be contiguous"),
        ({"theta": torch.full((2,), math.nan)}, ValueError, "a gain, sign or theta must be finite"),
        ({"theta": torch.rand(2).requires_grad_()}, ValueError, "theta must not require grad"),
        ({"tau": 0.5}, ValueError, "tau must be at least 1, got 0.5"),
        ({"tau": math.inf}, ValueError, "tau must be finite, got inf"),
        ({"tau": "1"}, TypeError, "tau must be a number, got str"),
    ],
    ids=range(9),
)
def test_wrong_arguments(change, error, message):
    args = {"weight": torch.rand(2, 3), "theta": torch.rand(2), "pre": torch.rand(3), "tau": 2.0}
    with pytest.raises(error, match=f"bcm_: {message}"):
        bcm_(**args | change, lr=0.1)
