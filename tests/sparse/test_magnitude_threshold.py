"""magnitude_threshold against a sort, at the edges of its pieces, sample and bracket."""

import pytest
import torch

from synops.sparse import magnitude_threshold

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def ordered(tensors):
    """The definition, in float64, which holds every type exactly: entry keep + strict of this."""
    magnitudes = torch.cat([t.double().abs().flatten() for t in tensors])
    magnitudes[magnitudes.isnan()] = -torch.inf
    return [torch.inf, *magnitudes.sort(descending=True).values.tolist(), -torch.inf]


def expected(tensors, keep):
    return ordered(tensors)[keep]


def kept(tensors, threshold, strict=False):
    over = (t.abs() > threshold if strict else t.abs() >= threshold for t in tensors)
    return sum(int(o.sum()) for o in over)


# Values whose order is hard: in ranks, in ties, in bits.
SAMPLES = {
    "normal": lambda n: torch.randn(n),
    "pruned": lambda n: torch.randn(n) * (torch.rand(n) < 0.1),
    "equal": lambda n: torch.full((n,), -2.5),
    "two values": lambda n: torch.where(torch.rand(n) < 0.3, -1.0, 2.0),
    "wide": lambda n: torch.randn(n) * torch.randn(n).mul(4).exp2(),
    "some NaN and inf": lambda n: (
        torch.randn(n)
        .masked_fill(torch.rand(n) < 0.2, torch.nan)
        .masked_fill(torch.rand(n) < 0.05, -torch.inf)
    ),
    "subnormal": lambda n: torch.randn(n) * 2.0**-140,
    "periodic": lambda n: (torch.arange(n) % 64 == 0) * torch.rand(n),
}


@pytest.mark.usefixtures("isa")
@EVERY_DTYPE
@pytest.mark.parametrize("name", SAMPLES)
def test_reference(name, dtype):
    """Below the sample's size, and at it; past a group of 64, and a piece of 65536."""
    for n in (1, 63, 65, 1000, 32768, 70001):
        x = SAMPLES[name](n).to(dtype)
        order = ordered([x])
        for keep in {0, 1, n // 10, n // 2, n - 1, n}:
            for strict in (False, True):
                got = magnitude_threshold(x, keep, strict=strict)
                assert got.dtype == dtype
                assert got.shape == ()
                assert float(got) == order[keep + strict], (n, keep, strict)


@pytest.mark.usefixtures("isa")
def test_what_it_keeps():
    """As many as are wanted; with ties at least, and strictly at most, as many."""
    for name in ("normal", "two values", "pruned"):
        x = [SAMPLES[name](n) for n in (40_000, 30_000)]
        for keep in (0, 1, 7000, 69_999, 70_000):
            least = kept(x, magnitude_threshold(x, keep))
            most = kept(x, magnitude_threshold(x, keep, strict=True), strict=True)
            assert most <= keep <= least
            if name == "normal" and keep:
                assert most == keep == least


def test_unlucky_sample():
    """Entries that the sample looks at are not like the others: the other side is searched."""
    n = 40_000
    mask, x = 2**64 - 1, torch.ones(n)
    for i in range(8192):  # splitmix64, as in the kernel
        z = (i + 0x9E3779B97F4A7C15) & mask
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
        x[(z ^ z >> 31) % n] = 0
    ones = int(x.sum())
    x[x == 1] += torch.rand(ones)
    for keep in (10, ones // 2, ones, ones + 1, n - 1):
        assert float(magnitude_threshold(x, keep)) == expected([x], keep)
        assert float(magnitude_threshold(3 - x, keep)) == expected([3 - x], keep)


def test_tensors():
    """Of any shapes and strides, empty ones among them; nothing outside a view is read."""
    big = torch.full((50, 60), torch.nan)
    big[:, 7:40] = torch.randn(50, 33)
    tensors = [
        big[:, 7:40],
        torch.randn(4, 6, 3, 3).to(memory_format=torch.channels_last),
        torch.randn(0, 5),
        torch.randn(()),
        torch.randn(17, 1).expand(17, 9),
        torch.randn(31, 8).t(),
        torch.randn(20)[::3],
    ]
    count = sum(t.numel() for t in tensors)
    for keep in (0, 5, count // 3, count):
        assert float(magnitude_threshold(tensors, keep)) == expected(tensors, keep)
    assert float(magnitude_threshold([torch.randn(0)], 0)) == torch.inf
    for keep, fraction in ((round(count * 0.3), 0.3), (0, 0.0), (count, 1.0)):
        assert magnitude_threshold(tensors, fraction) == magnitude_threshold(tensors, keep)


def test_threads(threads):
    x = torch.randn(300_000)
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(magnitude_threshold(x, 30_000))
    assert len({float(r) for r in results}) == 1


def test_has_no_gradient():
    x = torch.nn.Parameter(torch.randn(10))
    assert not magnitude_threshold([x], 3).requires_grad


def test_transforms():
    x, y = torch.randn(3, 40), torch.randn(7)
    op = torch.ops.synops.magnitude_threshold.default
    torch.library.opcheck(op, ([x, y], 5, False))
    want = magnitude_threshold([x.sin(), y], 5)
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x, y: magnitude_threshold([x.sin(), y], 5), fullgraph=True, backend="aot_eager"
    )
    assert compiled(x, y) == want
    rows = torch.vmap(lambda row: magnitude_threshold([row, y], 5))(x)
    assert torch.equal(rows, torch.stack([magnitude_threshold([row, y], 5) for row in x]))


WRONG = [
    (([], 1), ValueError, "tensors must be at least one, got none"),
    (([1.0], 1), TypeError, r"tensors\[0\] must be a torch.Tensor, got float"),
    ((torch.ones(3).long(), 1), TypeError, r"tensors\[0\] must be float32"),
    (([torch.ones(3), torch.ones(3).double()], 1), TypeError, r"tensors\[1\] must have the dtype"),
    ((torch.ones(3), 4), ValueError, r"keep must lie in \[0, 3\], got 4"),
    ((torch.ones(3), -1), ValueError, r"keep must lie in \[0, 3\], got -1"),
    ((torch.ones(3), 1.5), ValueError, r"keep must lie in \[0, 1\] as a fraction, got 1.5"),
    ((torch.ones(3), float("nan")), ValueError, r"as a fraction, got nan"),
    ((torch.ones(3), "1"), TypeError, "keep must be an int or a float, got str"),
    ((torch.ones(3), True), TypeError, "keep must be an int or a float, got bool"),
]


@pytest.mark.parametrize(("args", "error", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_arguments(args, error, message):
    with pytest.raises(error, match=message):
        magnitude_threshold(*args)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (([torch.ones(3)], 4, False), "keep must lie"),
        (([torch.ones(3), torch.ones(2).double()], 1, False), "one dtype"),
        (([torch.ones(3).long()], 1, False), "floating point"),
    ],
)
def test_raw_op(args, message):
    with pytest.raises(RuntimeError, match=message):
        torch.ops.synops.magnitude_threshold(*args)


@pytest.mark.triton
@EVERY_DTYPE
def test_triton(dtype):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name, make in SAMPLES.items():
        x = [make(n).to(device, dtype) for n in (5000, 77)]
        order = ordered([t.cpu() for t in x])
        for keep in (0, 1, 2000, 5077):
            for strict in (False, True):
                got = magnitude_threshold(x, keep, strict=strict, backend="triton")
                assert got.dtype == dtype
                assert float(got) == order[keep + strict], (name, keep)
