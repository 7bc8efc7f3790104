"""Compact forms of lif: spikes as bytes and bits, half a membrane."""

import itertools

import pytest
import torch
from lif_samples import DTYPES

from synops.spiking import lif, unpack_spikes

SIZES = [1, 3, 8, 13, 16, 21, 64, 1000, 1032]  # in a byte, a vector, and past a tile


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("neurons", SIZES)
def test_spikes(neurons, dtype):
    """Bytes and bits of the floats; inclusive, since what is behind a row's end is 0 >= 0 else."""
    x = (torch.randn(4, 3, neurons) * 0.8).to(dtype)
    options = {"beta": 0.9, "threshold": 0.0, "inclusive": True}
    want = lif(x, **options)
    got = lif(x, **options, spikes="uint8")
    assert got.spikes.dtype == torch.uint8
    assert torch.equal(got.spikes, want.spikes.to(torch.uint8))
    bits = lif(x, **options, spikes="bits").spikes
    assert bits.shape == (4, 3, (neurons + 7) // 8)
    numbers = want.spikes.to(torch.int64)
    packed = torch.nn.functional.pad(numbers, (0, -neurons % 8)).unflatten(-1, (-1, 8))
    assert torch.equal(bits.long(), (packed << torch.arange(8)).sum(-1))
    reference = lif(x, **options, spikes="bits", backend="reference").spikes
    assert torch.equal(bits, reference)


def test_layouts():
    """Bits are packed along the last dimension, however a step lies."""
    x = torch.randn(4, 2, 3, 5, 11).permute(0, 1, 4, 2, 3)
    want = lif(x, beta=0.9).spikes
    assert torch.equal(lif(x, beta=0.9, spikes="uint8").spikes.float(), want)
    assert torch.equal(unpack_spikes(lif(x, beta=0.9, spikes="bits").spikes, 5), want)
    rows = torch.randn(3, 7, 24).transpose(0, 1)[:, :, 3:19]
    for spikes in (rows, torch.randn(4, 9)):
        bits = lif(spikes, beta=0.9, spikes="bits").spikes
        assert torch.equal(unpack_spikes(bits, spikes.shape[-1]), lif(spikes, beta=0.9).spikes)
    assert lif(torch.zeros(0, 2, 9), beta=0.9, spikes="bits").spikes.shape == (0, 2, 2)
    assert lif(torch.zeros(3, 2, 0), beta=0.9, spikes="bits").spikes.shape == (3, 2, 0)


def test_large_results_are_the_same():
    """Past the caches."""
    x = torch.randn(9, 260, 1024)
    want = lif(x, beta=0.9).spikes
    assert torch.equal(unpack_spikes(lif(x, beta=0.9, spikes="bits").spikes, 1024), want)
    assert torch.equal(lif(x, beta=0.9, spikes="uint8").spikes.float(), want)


def gradient(x, g, **options):
    leaves = [
        t.clone().requires_grad_() for t in (x, torch.full((x.shape[-1],), 0.9), torch.ones(()))
    ]
    spikes = lif(leaves[0], beta=leaves[1], threshold=leaves[2], **options).spikes
    return spikes.detach(), torch.autograd.grad(spikes, leaves, g)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_half_a_membrane(reset):
    """Gradients with the rounding of 11 bits, no spike another."""
    for delayed, detach in itertools.product((False, True), repeat=2):
        x, g = torch.randn(20, 3, 40), torch.randn(20, 3, 40)
        rule = {"reset": reset, "delayed_reset": delayed, "detach_reset": detach, "slope": 2.0}
        spikes, want = gradient(x, g, **rule)
        same, got = gradient(x, g, **rule, save="half")
        assert torch.equal(same, spikes)
        for one, other in zip(got, want, strict=True):
            assert (one - other).norm() < 2e-3 * other.norm()


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_half_a_membrane_keeps_the_spikes(inclusive, reset):
    """Membranes at the threshold, and nearer to it than float16 can tell: the gradient of v0
    through a reset to 0 and that of the threshold by a subtraction tell what fired."""
    near = torch.tensor([0, 1e-7, -1e-7, 1e-9, -1e-9, 3e-8, -3e-8, 1e-4, -1e-4, 0.5, -0.5] * 4)
    x = (1 + near)[None].expand(1, -1)
    x = torch.cat([x, torch.zeros_like(x)])[:, None]

    def gradients(save):
        v0 = torch.zeros(1, 44, requires_grad=True)
        threshold = torch.ones(44, requires_grad=True)
        got = lif(
            x, v0, beta=0.5, threshold=threshold, reset=reset, inclusive=inclusive, save=save,
            surrogate="boxcar", slope=1e-30,
        )  # fmt: skip
        return torch.autograd.grad(got.v.sum(), (v0, threshold))

    for one, other in zip(gradients("half"), gradients("full"), strict=True):
        assert torch.equal(one, other)


def test_half_a_membrane_takes_half_the_memory():
    saved = []

    def pack(t):
        saved.append(t.nbytes)
        return t

    x = torch.randn(10, 4, 50, requires_grad=True)
    for save in ("full", "half"):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            lif(x, beta=0.9, save=save)
    full, half = (max(saved[: len(saved) // 2]), max(saved[len(saved) // 2 :]))
    assert (full, half) == (x.nbytes, x.nbytes // 2)


@pytest.mark.triton
def test_triton():
    x, g = torch.randn(5, 3, 21), torch.randn(5, 3, 21)
    want = lif(x, beta=0.9).spikes
    bits = lif(x, beta=0.9, spikes="bits", backend="triton").spikes
    assert torch.equal(unpack_spikes(bits, 21), want)
    got = lif(x, beta=0.9, spikes="uint8", backend="triton").spikes
    assert torch.equal(got.float(), want)
    for inclusive in (False, True):
        options = {"save": "half", "inclusive": inclusive}
        one, other = (gradient(x, g, **options, backend=b)[1] for b in ("triton", "cpp"))
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b)
