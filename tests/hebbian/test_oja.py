"""oja against what people write, and what it learns."""

import torch
from plasticity_samples import sample

from synops.hebbian import oja, oja_


def test_in_place_torch():
    """The in-place torch expression, in float64."""
    s = sample("dense", 13, 70, 9, torch.float64, every=False)
    pre, post = s.pre.double(), s.post.double()
    lr = 0.1
    s2 = post.square().mean(0)
    want = s.weight.clone().mul_((1 - lr * s2)[:, None]).addmm_(post.t(), pre, alpha=lr / 9)
    torch.testing.assert_close(oja(s.weight, pre, post, lr=lr), want, rtol=1e-13, atol=1e-14)


def test_formula():
    """Sample by sample, with every option that has a factor."""
    s = sample("dense", 5, 7, 6, torch.float64).double()
    o = s.options
    want = (1 - o["decay"]) * s.weight
    for b in range(6):
        y, x = s.post[b] * o["gain_post"], s.pre[b] * o["gain_pre"]
        step = y[:, None] * (x[None] - y[:, None] * s.weight)
        want = want + o["lr"][:, None] * o["modulator"][b] * step / 6
    got = oja(s.weight, s.pre, s.post, **o)
    torch.testing.assert_close(got, want.clamp(*o["clip"]), rtol=1e-13, atol=1e-14)


def test_finds_the_first_principal_component():
    """Each unit, at length 1; forward and update in one pass."""
    direction = torch.nn.functional.normalize(torch.randn(20), dim=0)
    x = torch.randn(2000, 1) * direction * 2 + torch.randn(2000, 20) * 0.3
    weight = torch.randn(3, 20) * 0.1
    for sample_ in x:
        oja_(weight, sample_, lr=0.01)
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(3), rtol=0, atol=0.03)
    assert ((weight @ direction).abs() > 0.98).all()
