"""soft_hebb against float64, against the equations written as a loop, and the official code's."""

import math

import pytest
import torch
from soft_hebb_samples import VARIANTS, answer, every_option, layer, loop, numbers

from close import assert_close
from synops import _library
from synops.hebbian import soft_hebb, soft_hebb_

# (out, in, B), with the rule of its number
SHAPES = [
    (7, 17, 1),  # one sample; a vector and one
    (5, 3, 4),  # less than a vector; four samples at a time
    (33, 70, 7),  # 4 + 2 + 1 samples
    (13, 100, 16),  # the first batch that is a product; two tiles and a row
    (8, 600, 70),  # deeper than a block; a panel and a part; two groups of samples
    (70, 9, 150),  # many samples, few inputs; three groups
    (1, 1, 1),
    (6, 64, 64),  # exactly a tile, a panel, a group
]
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def new_weight(weight, pre, dtype, **options):
    """In the type of the weight, by both forms, which agree bit for bit."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    given = {
        k: v.to(wide) if isinstance(v, torch.Tensor) and v.dtype.is_floating_point else v
        for k, v in options.items()
    }
    held = weight.to(dtype, copy=True)
    kept = held.clone()
    got = soft_hebb(held, pre.to(wide), **given)
    assert torch.equal(held, kept)
    same = soft_hebb_(held, pre.to(wide), **given)
    assert same.weight is held
    assert torch.equal(held, got.weight)
    assert torch.equal(same.u, got.u)
    assert got.u.dtype == wide
    return got


def size_of(weight, pre, form):
    """The size of partial sums of an update: products of sums over samples."""
    lr = torch.as_tensor(form.get("lr", 0.3), dtype=torch.float64)
    lr = lr.expand(weight.shape[0]) * ((weight.norm(dim=1) - 1).abs() ** 0.5 + 1)
    u = (pre @ weight.t()).abs()
    terms = u.sum(0)[:, None] * weight.abs() + pre.abs().sum(0)
    if form.get("reduction") != "sum":
        terms = terms / max(1, pre.shape[0])
    if form.get("gain_pre") is not None:
        gains = form["gain_post"].abs()[:, None], form["gain_pre"].abs() + 1
        terms = terms * gains[0] * gains[1] * form["modulator"].abs().max()
    return weight.abs() + lr[:, None] * terms


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("i", range(len(SHAPES)), ids=["x".join(map(str, s)) for s in SHAPES])
def test_reference(i, dtype):
    weight, pre = layer(*SHAPES[i])
    variant = VARIANTS[i % 3]
    for options in ({}, every_option(*SHAPES[i])):
        form = {"lr": 0.3, "variant": variant, "temperature": 0.7, **options}
        want, u = answer(weight, pre, **form)
        got = new_weight(weight, pre, dtype, **form)
        length = weight.shape[1] + pre.shape[0]
        assert_close(got.weight, want, dtype, length, size_of(weight, pre, form))
        scale = (pre.square() @ weight.square().t()).sqrt()
        assert_close(got.u, u, got.u.dtype, weight.shape[1], scale)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("batch", [1, 3, 40])
def test_largest_change(batch, dtype):
    """normalize="amax": the change is divided by its largest entry; a mask counts."""
    weight, pre = layer(21, 33, batch)
    for mask in (None, every_option(21, 33, batch)["mask"]):
        form = {"lr": 1.0, "power": None, "normalize": "amax", "mask": mask}
        want, _ = answer(weight, pre, **form)
        got = new_weight(weight, pre, dtype, **form)
        assert_close(got.weight, want, dtype, 100, weight.abs() + 1)
        if dtype == torch.float64:
            torch.testing.assert_close((got.weight - weight).abs().max().item(), 1.0)


def test_is_the_loop():
    weight, pre = layer(9, 14, 6)
    want = loop(weight, pre, lr=0.3, temperature=0.7, power=0.5)
    got = soft_hebb(weight, pre, lr=0.3, temperature=0.7)
    torch.testing.assert_close(got.weight, want, rtol=1e-12, atol=1e-13)


def test_temperature():
    """Cold, the softmax is the winner alone; hot, all units share alike."""
    weight, pre = layer(9, 14, 6)
    cold = soft_hebb(weight, pre, lr=0.3, temperature=1e-4, variant="soft").weight
    torch.testing.assert_close(cold, soft_hebb(weight, pre, lr=0.3, variant="hard").weight)
    hot = soft_hebb(weight, pre, lr=9 * 0.3, power=None, temperature=1e9, variant="soft").weight
    u = pre @ weight.t()
    want = weight + 0.3 / 6 * (pre.sum(0)[None] - u.sum(0)[:, None] * weight)
    torch.testing.assert_close(hot, want, rtol=1e-6, atol=1e-6)


def test_ties_go_to_the_first_unit():
    weight = torch.ones(4, 3)
    got = soft_hebb(weight, torch.tensor([[1.0, 2.0, 3.0]]), lr=0.1, variant="hard").weight
    assert not torch.equal(got[0], weight[0])
    assert torch.equal(got[1:], weight[1:])


def test_rows_on_the_sphere_rest():
    """The adaptive rate is nearly 0 where a row has norm 1."""
    weight, pre = layer(6, 20, 5)
    weight[0] /= weight[0].norm()
    step = soft_hebb(weight, pre, lr=0.3).weight - weight
    assert step[0].abs().max() < 1e-4
    assert step[1:].abs().amax(1).min() > 1e-4


def test_extreme_activations():
    """Hundreds of nats apart: the initial weights of the official code, cold."""
    weight, pre = layer(12, 30, 20)
    for scale in (1e3, 1e-20):
        want, _ = answer(weight * scale, pre, lr=1e-9, power=None, temperature=1e-2)
        got = soft_hebb(
            (weight * scale).float(), pre.float(), lr=1e-9, power=None, temperature=1e-2
        )
        torch.testing.assert_close(got.weight, want.float(), rtol=1e-5, atol=0)


class TestU:
    def test_given(self):
        """Then it is not computed, and the new weight comes alone."""
        for batch in (1, 20):
            weight, pre = layer(9, 14, batch)
            other = numbers(batch, 9, seed=9)
            got = soft_hebb(weight, pre, other, lr=0.3)
            want, _ = answer(weight, pre, other)
            torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-13)
            assert not torch.equal(got, soft_hebb(weight, pre, lr=0.3).weight)
            assert soft_hebb_(weight, pre, other, lr=0.3) is weight

    def test_any_strides(self):
        weight, pre = layer(9, 14, 20)
        u = pre @ weight.t()
        want = soft_hebb(weight, pre, u, lr=0.3)
        for other in (u.t().contiguous().t(), torch.stack([u, u], 2)[..., 0]):
            assert torch.equal(soft_hebb(weight, pre, other, lr=0.3), want)


class TestBits:
    @pytest.mark.usefixtures("isa")
    @pytest.mark.parametrize("normalize", [None, "amax"])
    def test_of_threads(self, threads, normalize):
        for shape in ((300, 400, 1), (300, 400, 3), (130, 300, 90), (9, 40, 1500)):
            weight, pre = (t.float() for t in layer(*shape))
            results = []
            for count in (1, 2, 3, 7):
                threads(count)
                results.append(soft_hebb(weight, pre, lr=0.3, normalize=normalize))
            for other in results[1:]:
                assert all(map(torch.equal, results[0], other))

    def test_one_sample_in_either_shape(self):
        weight, pre = layer(9, 14, 1)
        one, other = soft_hebb(weight, pre, lr=0.3), soft_hebb(weight, pre[0], lr=0.3)
        assert torch.equal(one.weight, other.weight)
        assert torch.equal(one.u[0], other.u)


class TestMask:
    @pytest.mark.usefixtures("isa")
    @pytest.mark.parametrize("normalize", [None, "amax"])
    @pytest.mark.parametrize("batch", [1, 3, 40])
    def test_is_neither_read_nor_written(self, batch, normalize):
        weight, pre = (t.float() for t in layer(21, 33, batch))
        mask = every_option(21, 33, batch)["mask"]
        want = soft_hebb(weight * mask, pre, lr=0.3, mask=mask, normalize=normalize)
        poisoned = torch.where(mask, weight, torch.nan)
        got = soft_hebb(poisoned, pre, lr=0.3, mask=mask, normalize=normalize)
        assert torch.equal(got.u, want.u)
        assert torch.equal(got.weight[mask], want.weight[mask])
        assert got.weight[~mask].isnan().all()


def test_sign():
    """Dale's law holds after the step, and bounds with it."""
    weight, pre = (t.float() for t in layer(9, 14, 20))
    sign = torch.tensor([1.0, -1, 0, 1, -1, 0, 1, 1, 1, -1, -1, 0, 1, -1])
    weight = torch.where(sign == 0, weight, weight.abs() * sign)
    got = soft_hebb(weight, pre, lr=2.0, sign=sign, clip=(-0.5, 0.4)).weight
    want = answer(weight, pre, lr=2.0, sign=sign, clip=(-0.5, 0.4))[0]
    torch.testing.assert_close(got, want.float())
    assert (got[:, sign > 0] >= 0).all()
    assert (got[:, sign < 0] <= 0).all()
    assert got.abs().max() <= 0.5
    assert (got == 0).any()


class TestEdges:
    @pytest.mark.parametrize("shape", [(3, 4, 0), (3, 0, 2), (0, 4, 2), (0, 0, 0), (3, 0, 20)])
    @pytest.mark.parametrize("normalize", [None, "amax"])
    def test_empty(self, shape, normalize):
        out, inputs, batch = shape
        weight, pre = torch.ones(out, inputs), torch.ones(batch, inputs)
        got = soft_hebb(weight, pre, lr=0.3, decay=0.5, normalize=normalize)
        assert torch.equal(got.weight, weight * 0.5)
        assert got.u.shape == (batch, out)
        assert not got.u.any()

    def test_no_sample_of_mean(self):
        assert torch.equal(
            soft_hebb(torch.ones(2, 3), torch.ones(0, 3), lr=1.0).weight, torch.ones(2, 3)
        )

    def test_spikes(self):
        weight = torch.randn(9, 14)
        pre = torch.rand(6, 14) < 0.3
        want = soft_hebb(weight, pre.float(), lr=0.3)
        for kind in (torch.bool, torch.uint8, torch.bfloat16, torch.float64):
            assert torch.equal(soft_hebb(weight, pre.to(kind), lr=0.3).weight, want.weight)

    def test_any_strides(self):
        weight, pre = (t.float() for t in layer(9, 14, 20))
        want = soft_hebb(weight, pre, lr=0.3).weight
        turned = weight.t().contiguous().t()
        assert torch.equal(soft_hebb(turned, pre.t().contiguous().t(), lr=0.3).weight, want)
        wide = torch.zeros(9, 20)
        wide[:, 3:17] = weight
        soft_hebb_(wide[:, 3:17], pre, lr=0.3)
        assert torch.equal(wide[:, 3:17], want)
        assert not wide[:, :3].any()
        assert not wide[:, 17:].any()
        soft_hebb_(turned, pre, lr=0.3)
        assert torch.equal(turned, want)


def test_learns_directions():
    """Two clusters: two units find one each, with rows of norm 1."""
    torch.manual_seed(0)
    centers = torch.nn.functional.normalize(torch.randn(2, 20), dim=1) * 3
    weight = torch.randn(2, 20) * 0.2
    for _ in range(600):
        x = centers[torch.randint(2, (20,))] + 0.1 * torch.randn(20, 20)
        soft_hebb_(weight, x, lr=0.05, variant="soft", power=None)
    found = torch.nn.functional.cosine_similarity(weight[:, None], centers[None], dim=2)
    assert found.amax(1).min() > 0.99
    assert set(found.argmax(1).tolist()) == {0, 1}
    assert (weight.norm(dim=1) - 1).abs().max() < 0.05


def test_the_reference_is_what_other_devices_run():
    weight, pre = layer(9, 14, 6)
    got = _library.reference("soft_hebb")
    assert got.__module__ == "synops._reference.hebbian.soft_hebb"
    one = soft_hebb(weight, pre, lr=0.3, backend="reference").weight
    torch.testing.assert_close(one, soft_hebb(weight, pre, lr=0.3).weight, rtol=1e-12, atol=1e-13)
    assert math.isfinite(float(one.sum()))


@pytest.mark.triton
@pytest.mark.parametrize("i", range(3))
def test_triton(i):
    """In the interpreter: types of a weight, all options, more than one tile."""
    shape = [(70, 9, 3), (7, 17, 40), (5, 3, 1)][i]
    normalize = (None, "amax", "amax")[i]
    dtype = [torch.float32, torch.float64, torch.bfloat16][i]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    weight, pre = layer(*shape)
    every = every_option(*shape)
    for options in ({}, every):
        form = {"lr": 0.3, "variant": VARIANTS[(i + 1) % 3], "normalize": normalize, **options}
        want, u = answer(weight, pre, **form)
        given = {
            k: v.to(wide) if isinstance(v, torch.Tensor) and k != "mask" else v
            for k, v in form.items()
        }
        got = soft_hebb(weight.to(dtype), pre.to(wide), **given, backend="triton")
        assert_close(got.weight, want, dtype, 100, size_of(weight, pre, form))
        torch.testing.assert_close(got.u.double(), u, rtol=1e-4, atol=1e-4)
        held = weight.to(dtype, copy=True)
        soft_hebb_(held, pre.to(wide), **given, backend="triton")
        assert torch.equal(held, got.weight)
        with pytest.raises(ValueError, match="pre must be finite"):
            soft_hebb_(held, pre.to(wide) * torch.nan, **given, backend="triton")
        assert torch.equal(held, got.weight)
