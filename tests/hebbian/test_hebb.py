"""hebb against what people write, on a dense weight and a Pattern."""

import torch
from plasticity_samples import sample

from synops.hebbian import hebb, hebb_
from synops.sparse import Pattern


def test_addmm():
    """The in-place torch expression, in float64."""
    s = sample("dense", 13, 70, 9, torch.float64, every=False)
    pre, post = s.pre.double(), s.post.double()
    want = s.weight.clone().addmm_(post.t(), pre, alpha=0.1 / 9)
    torch.testing.assert_close(hebb(s.weight, pre, post, lr=0.1), want, rtol=1e-14, atol=1e-15)


def test_formula():
    """Sample by sample, with every option that has a factor."""
    s = sample("dense", 5, 7, 6, torch.float64).double()
    o = s.options
    want = (1 - o["decay"]) * s.weight
    for b in range(6):
        y, x = s.post[b] * o["gain_post"], s.pre[b] * o["gain_pre"]
        want = want + o["lr"][:, None] * o["modulator"][b] * torch.outer(y, x) / 6
    got = hebb(s.weight, s.pre, s.post, **o)
    torch.testing.assert_close(got, want.clamp(*o["clip"]), rtol=1e-13, atol=1e-14)


def test_pattern_is_the_dense_rule_at_its_entries():
    mask = torch.rand(20, 33) < 0.3
    pattern = Pattern.from_mask(mask)
    weight = torch.randn(20, 33) * mask
    for batch in (1, 5, 40):
        pre, post = torch.randn(batch, 33), torch.randn(batch, 20)
        values = pattern.gather(weight)
        hebb_(values, pre, post, lr=0.1, pattern=pattern)
        want = hebb(weight, pre, post, lr=0.1)[mask]
        torch.testing.assert_close(values, want, rtol=1e-5, atol=1e-6)
