"""SoftHebbLinear and SoftHebbConv2d: an ordinary forward, and a weight that learns when asked."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F

from synops.hebbian import soft_hebb, soft_hebb_conv2d
from synops.nn import SoftHebbConv2d, SoftHebbLinear, triangle


def linear(**options):
    return SoftHebbLinear(7, 5, lr=0.1, generator=0, **options)


def conv(**options):
    return SoftHebbConv2d(2, 5, (3, 2), padding=1, stride=(1, 2), lr=0.1, generator=0, **options)


LAYERS = {"linear": (linear, (4, 7)), "conv": (conv, (3, 2, 6, 8))}
each = pytest.mark.parametrize("name", LAYERS)


@each
def test_forward_is_torchs(name):
    make, shape = LAYERS[name]
    layer, x = make(), torch.randn(shape, requires_grad=True)
    if name == "linear":
        want = F.linear(x, layer.weight)
    else:
        want = F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), layer.weight, stride=(1, 2))
    got = layer(x)
    assert torch.equal(got, want)
    assert torch.equal(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (got, want)))


@each
def test_learns_when_asked(name):
    make, shape = LAYERS[name]
    layer, x = make(variant="soft"), torch.randn(shape)
    before = layer.weight.clone()
    layer(x)
    assert torch.equal(layer.weight, before)
    if name == "linear":
        want = soft_hebb(before, x, lr=0.1, variant="soft", normalize="amax")
    else:
        form = {"padding": 1, "stride": (1, 2), "padding_mode": "reflect"}
        want = soft_hebb_conv2d(before, x, lr=0.1, variant="soft", normalize="amax", **form)
    u = layer.learn(x)
    assert torch.equal(u, want.u)
    assert torch.equal(layer.weight, want.weight)
    assert not layer.weight.requires_grad
    after = layer.weight.clone()
    layer.learn(x, modulator=torch.zeros(shape[0]))
    assert torch.equal(layer.weight, after)


@each
def test_learns_on_forward(name):
    """In training mode; the gradient is that of the weight which made the output."""
    make, shape = LAYERS[name]
    asked, layer = make(), make(learn_on_forward=True)
    x = torch.randn(shape, requires_grad=True)
    layer.eval()
    want = torch.autograd.grad(layer(x).square().sum(), x)[0]
    assert torch.equal(layer.weight, asked.weight)
    layer.train()
    got = torch.autograd.grad(layer(x).square().sum(), x)[0]
    assert torch.equal(got, want)
    asked.learn(x.detach())
    torch.testing.assert_close(layer.weight, asked.weight)
    assert not torch.equal(layer.weight, make().weight)
    with torch.no_grad():
        layer(x)


@each
def test_is_kept(name):
    """By deepcopy, pickle and state_dict."""
    make, shape = LAYERS[name]
    layer, x = make(), torch.randn(shape)
    layer.learn(x)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    other = make()
    other.load_state_dict(layer.state_dict())
    for copied in (copy.deepcopy(layer), torch.load(file, weights_only=False), other):
        assert torch.equal(copied.weight, layer.weight)
        assert torch.equal(copied.learn(x), copy.deepcopy(layer).learn(x))
    assert "lr=0.1" in repr(layer)


def test_leading_dimensions():
    layer, x = linear(), torch.randn(2, 3, 7)
    assert layer.learn(x).shape == layer(x).shape == (2, 3, 5)
    assert linear().learn(x[0, 0]).shape == (5,)


def test_radius():
    norms = SoftHebbLinear(1000, 20, lr=0.1, generator=1, radius=3.0).weight.norm(dim=1)
    assert (norms - 3).abs().max() < 0.5


def test_triangle():
    u = torch.randn(3, 4, 5, 5, requires_grad=True)
    got = triangle(u, 0.7)
    want = (u - u.mean(1, keepdim=True)).clamp(min=0) ** 0.7
    torch.testing.assert_close(got, want)
    (g,) = torch.autograd.grad(triangle(u, 1.0).sum(), u)
    assert torch.equal(g, (u > u.mean(1, keepdim=True)).float())


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: SoftHebbLinear(0, 5, lr=0.1), ValueError, "in_features"),
        (lambda: linear(temperature=0), ValueError, "temperature must be positive"),
        (lambda: linear(colour=1), TypeError, "colour"),
        (lambda: linear(radius=0), ValueError, "radius must be"),
        (lambda: SoftHebbLinear(3, 5, lr=float("nan")), ValueError, "lr must be finite"),
        (lambda: conv(dilation=0), ValueError, "dilation must be"),
        (lambda: conv(padding_mode="mirror"), ValueError, "padding_mode must be"),
    ],
    ids=range(7),
)
def test_refuses(make, error, says):
    with pytest.raises(error, match=says):
        make()
