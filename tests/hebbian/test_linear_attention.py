"""linear_attention against attention without a softmax."""

import pytest
import torch
import torch.nn.functional as F
from fast_weight_samples import sample

from synops.hebbian import delta_rule, linear_attention


def inputs(dtype=torch.float64):
    s = sample((2, 2, 7, 5, 9), dtype)
    return s.to(dtype)


def test_is_attention_without_softmax():
    s = inputs()
    want = (5**-0.5 * s.query @ s.key.mT).tril() @ s.value
    got = linear_attention(*s[:3])
    torch.testing.assert_close(got.output, want)
    torch.testing.assert_close(got.state, s.key.mT @ s.value)


def test_is_hebb():
    s = inputs(torch.float32)
    options = {"decay": s.decay, "initial_state": s.initial_state, "scale": 0.5}
    got = linear_attention(*s[:3], **options)
    want = delta_rule(*s[:3], rule="hebb", **options)
    assert all(map(torch.equal, got, want))


def test_retention():
    """A decay a head: weights fall off with the distance."""
    s = inputs()
    decay = torch.tensor([[0.9], [0.5]]).double()
    distance = torch.arange(7)[:, None] - torch.arange(7)
    weights = torch.where(distance >= 0, decay[..., None] ** distance, 0)
    want = (5**-0.5 * s.query @ s.key.mT * weights) @ s.value
    torch.testing.assert_close(linear_attention(*s[:3], decay=decay).output, want)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_normalized(dtype):
    s = inputs(dtype)
    q, k = F.elu(s.query) + 1, F.elu(s.key) + 1
    weights = (q.double() @ k.double().mT).tril()
    want = weights / weights.sum(-1, keepdim=True) @ s.value.double()
    got = linear_attention(q, k, s.value, normalize=True)
    assert got.output.dtype == dtype
    assert got.state.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = torch.finfo(dtype).eps * (4 if dtype == torch.float64 else 1)
    torch.testing.assert_close(got.output.double(), want, rtol=tolerance, atol=tolerance)
    first = linear_attention(q[:, :, :4], k[:, :, :4], s.value[:, :, :4], normalize=True)
    rest = linear_attention(
        q[:, :, 4:], k[:, :, 4:], s.value[:, :, 4:], normalize=True, initial_state=first.state
    )
    assert torch.equal(torch.cat([first.output, rest.output], 2), got.output)
    scaled = linear_attention(q, k, s.value, normalize=True, scale=0.5)
    torch.testing.assert_close(scaled.output.double(), want, rtol=tolerance, atol=tolerance)


def test_a_sum_of_zero_gives_zero():
    q, v = torch.zeros(1, 1, 2, 3), torch.ones(1, 1, 2, 2, requires_grad=True)
    got = linear_attention(q, q, v, normalize=True).output
    assert not got.any()
    (g,) = torch.autograd.grad(got.sum(), v)
    assert not g.any()


def test_gradients():
    s = inputs()
    leaves = [t.requires_grad_() for t in s[:3]]
    got = linear_attention(*leaves).output
    want = (5**-0.5 * leaves[0] @ leaves[1].mT).tril() @ leaves[2]
    g = torch.randn_like(got)
    pairs = zip(
        torch.autograd.grad(got, leaves, g), torch.autograd.grad(want, leaves, g), strict=True
    )
    for one, other in pairs:
        torch.testing.assert_close(one, other)


def test_errors_name_the_op():
    s = inputs()
    with pytest.raises(ValueError, match="linear_attention: key must have shape"):
        linear_attention(s.query, s.value, s.value)
    with pytest.raises(ValueError, match="linear_attention: value must have shape"):
        linear_attention(s.query, s.key, s.value[0], normalize=True)
