"""soft_hebb_conv2d against the official code's equations, by torch's convolutions."""

import pytest
import torch
import torch.nn.functional as F

from synops.benchmarks.hebbian.soft_hebb_conv2d import official
from synops.hebbian import soft_hebb, soft_hebb_conv2d, soft_hebb_conv2d_


def images(dtype=torch.float64, batch=3):
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 2, 3, 3, generator=g, dtype=torch.float64)
    return weight.to(dtype), torch.randn(batch, 2, 8, 9, generator=g, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("stride", [1, 2])
def test_is_the_official_step(stride):
    weight, x = images()
    padded = F.pad(x, (1, 1, 1, 1), "reflect")
    form = {"stride": stride, "padding": 1, "padding_mode": "reflect"}
    for temperature in (1.0, 4.0):
        want = official(weight, padded, 0.08, temperature, stride)
        got = soft_hebb_conv2d(
            weight, x, lr=0.08, temperature=temperature, normalize="amax", **form
        )
        torch.testing.assert_close(got.weight, want, rtol=1e-10, atol=1e-12)
        u = F.conv2d(padded, weight, stride=stride)
        torch.testing.assert_close(got.u, u, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("isa")
def test_ten_official_steps():
    """In float32, in place: the filters stay together."""
    weight, x = images(torch.float32, 6)
    mine = weight.clone()
    for i in range(10):
        batch = x.roll(i, 3)
        weight = official(weight, batch, 0.05)
        assert soft_hebb_conv2d_(mine, batch, lr=0.05, normalize="amax").weight is mine
    torch.testing.assert_close(mine, weight, rtol=1e-4, atol=1e-4)
    assert (mine - images(torch.float32)[0]).abs().max() > 0.05  # they moved


def test_geometry():
    """Strides, dilations and kernels that differ by direction; one image; u that is known."""
    weight, x = images()
    weight = weight[:, :, :2]
    form = {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)}
    u = F.conv2d(x, weight, None, **form)
    got = soft_hebb_conv2d(weight, x, lr=0.1, **form)
    torch.testing.assert_close(got.u, u, rtol=1e-10, atol=1e-12)
    rows = F.unfold(x, (2, 3), (1, 2), (0, 2), (2, 1)).transpose(1, 2).flatten(0, 1)
    want = soft_hebb(weight.flatten(1), rows, lr=0.1).weight.view_as(weight)
    torch.testing.assert_close(got.weight, want, rtol=1e-10, atol=1e-12)
    given = soft_hebb_conv2d(weight, x, u, lr=0.1, **form)
    torch.testing.assert_close(given, want, rtol=1e-10, atol=1e-12)
    one = soft_hebb_conv2d(weight, x[0], lr=0.1, **form)
    assert one.u.shape == u.shape[1:]
    other = soft_hebb_conv2d(weight, x[:1], lr=0.1, **form)
    assert torch.equal(one.weight, other.weight)


def test_per_image_and_per_place_options():
    weight, x = images()
    g = torch.Generator().manual_seed(1)
    modulator = torch.randn(3, generator=g, dtype=torch.float64)
    gain = torch.rand(2, 3, 3, generator=g, dtype=torch.float64)
    mask = torch.rand(5, 2, 3, 3, generator=g) < 0.6
    got = soft_hebb_conv2d(weight, x, lr=0.1, modulator=modulator, gain_pre=gain, mask=mask)
    rows = F.unfold(x, 3).transpose(1, 2).flatten(0, 1)
    want = soft_hebb(
        weight.flatten(1), rows, lr=0.1, modulator=modulator.repeat_interleave(42),
        gain_pre=gain.flatten(), mask=mask.flatten(1),
    )  # fmt: skip
    torch.testing.assert_close(got.weight, want.weight.view_as(weight))
    assert torch.equal(got.weight[~mask], weight[~mask])


def test_channels_last():
    weight, x = images(torch.float32)
    want = soft_hebb_conv2d(weight, x, lr=0.1).weight
    turned = weight.contiguous(memory_format=torch.channels_last)
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(soft_hebb_conv2d(turned, last, lr=0.1).weight, want)
    soft_hebb_conv2d_(turned, last, lr=0.1)
    assert torch.equal(turned, want)


def test_no_images():
    weight, x = images()
    got = soft_hebb_conv2d(weight, x[:0], lr=0.1)
    assert torch.equal(got.weight, weight)
    assert got.u.shape == (0, 5, 6, 7)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"weight": torch.ones(5, 18)}, ValueError, r"weight must have shape \(O, C, kh, kw\)"),
        ({"input": torch.ones(3, 8, 9)}, ValueError, r"input must have shape .* C = 2"),
        ({"input": torch.ones(3, 2, 2, 9)}, ValueError, "at least as large as the kernel"),
        ({"input": torch.ones(3, 2, 8, 9).int()}, TypeError, "input must be float32"),
        ({"stride": 0}, ValueError, "stride must be an int of at least 1"),
        ({"dilation": (1, 1, 1)}, ValueError, "dilation must be"),
        ({"padding": -1}, ValueError, "padding must be an int of at least 0"),
        ({"padding": 9, "padding_mode": "reflect"}, ValueError, "padding must fit"),
        ({"padding_mode": "mirror"}, ValueError, "padding_mode must be one of"),
        ({"u": torch.ones(3, 5, 6, 8)}, ValueError, r"u must have shape"),
        ({"modulator": torch.ones(4)}, ValueError, r"modulator must have shape \(B,\)"),
        ({"mask": torch.ones(5, 18) > 0}, ValueError, "mask must have shape"),
        ({"lr": None}, TypeError, "lr must be a number"),
    ],
    ids=range(13),
)
def test_refuses(change, error, says):
    weight, x = images(torch.float32)
    given = {"weight": weight, "input": x, "lr": 0.1} | change
    kept = given["weight"].clone()
    for f in (soft_hebb_conv2d, soft_hebb_conv2d_):
        with pytest.raises(error, match=says):
            f(**given)
        assert torch.equal(given["weight"], kept)
