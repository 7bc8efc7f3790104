"""unit_stats against float64, at the edges of its vectors, blocks and pieces."""

import pytest
import torch
from no_sync import NoSync

from close import accumulator
from synops.sparse import UnitStats, unit_stats

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)

# A vector with lanes to spare, one that overlaps the one before, 2 to 5 vectors; blocks of 32 rows,
# pieces of 1024.
SHAPES = [(1, 1), (3, 7), (31, 16), (32, 21), (33, 50), (64, 64), (1024, 5), (1025, 17), (2500, 70)]


def expected(x):
    """The definition in float64."""
    x = x.double().reshape(-1, x.shape[-1])
    mean = x.mean(0)
    return UnitStats(x.abs().mean(0), (x > 0).double().mean(0), mean, (x - mean).square().mean(0))


def check(got, x, factor=1.0):
    """Within 1e-6 (float64: 1e-12) of the magnitude, rms or variance; ``positive`` exactly."""
    want, dtype = expected(x), accumulator(x.dtype)
    bound = factor * (1e-6 if dtype == torch.float32 else 1e-12)
    assert isinstance(got, UnitStats)
    assert all(t.dtype == dtype and t.shape == (x.shape[-1],) for t in got)
    assert torch.equal(got.positive, want.positive.to(dtype))
    for name, scale in (
        ("abs_mean", want.abs_mean),
        ("mean", (want.mean.square() + want.variance).sqrt()),
        ("variance", want.variance),
    ):
        error = (getattr(got, name).double() - getattr(want, name)).abs()
        assert (error <= bound * scale).all(), f"{name}: {float((error / scale).max())}"


# Columns that are hard: at an offset, with one outlier (at a row that the shift is made of, and at
# another), in order, equal, dead units among others.
def _outlier(row):
    def make(rows, units):
        x = torch.randn(rows, units) * 1e-3
        x[min(row, rows - 1)] = 1000.0
        return x

    return make


SAMPLES = {
    "normal": lambda rows, units: torch.randn(rows, units),
    "offset": lambda rows, units: torch.randn(rows, units) * 0.1 + 5000,
    "negative offset": lambda rows, units: torch.randn(rows, units) - 3000,
    "outlier first": _outlier(0),
    "outlier later": _outlier(17),
    "ascending": lambda rows, units: torch.randn(rows, units).sort(0).values,
    "constant": lambda rows, units: torch.randn(units).expand(rows, units),
    "dead": lambda rows, units: torch.randn(rows, units).relu() * (torch.arange(units) % 3 > 0),
    "small": lambda rows, units: torch.randn(rows, units) * 1e-12,
}


@pytest.mark.usefixtures("isa")
@EVERY_DTYPE
@pytest.mark.parametrize("name", SAMPLES)
def test_definition(name, dtype):
    for rows, units in SHAPES:
        x = SAMPLES[name](rows, units).to(dtype)
        check(unit_stats(x), x)


@pytest.mark.usefixtures("isa")
@EVERY_DTYPE
def test_what_is_equal_has_no_variance(dtype):
    x = (torch.randn(70) * 1000).to(dtype).expand(2500, 70).contiguous()
    got = unit_stats(x)
    assert not got.variance.any()
    assert torch.equal(got.mean, x[0].to(accumulator(dtype)))


@EVERY_DTYPE
def test_reference(dtype):
    """What other devices run is as right."""
    for name, make in SAMPLES.items():
        x = make(300, 33).to(dtype)
        check(unit_stats(x, backend="reference"), x, factor=4 if name == "ascending" else 2)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_not_finite(dtype):
    """A column each with NaN, inf, -inf, both, at a row that shifts a block and at another."""
    for rows in (1, 40, 2500):
        for at in (0, rows // 2, rows - 1):
            x = torch.randn(rows, 21).to(dtype)
            x[at, 1], x[at, 2], x[at, 3] = torch.nan, torch.inf, -torch.inf
            x[0, 4], x[-1, 4] = torch.inf, -torch.inf
            got, want = unit_stats(x), expected(x)
            for one, other in zip(got, want, strict=True):
                assert torch.equal(one.isnan(), other.isnan()), (rows, at)
                assert torch.equal(one.isposinf(), other.isposinf())
                assert torch.equal(one.isneginf(), other.isneginf())
            fine = [0, *range(5, 21)]
            check(UnitStats(*(t[fine] for t in got)), x[:, fine])


def test_shapes_and_strides():
    """Any leading dimensions; nothing outside a view is read."""
    big = torch.full((40, 90), torch.nan)
    big[:, 7:60] = torch.randn(40, 53)
    for x in (
        big[:, 7:60],
        big[1::3, 7:60],
        torch.randn(5, 6, 33),
        torch.randn(33, 6, 5).permute(1, 2, 0),
        torch.randn(33, 40).t(),
        torch.randn(33).expand(12, 33),
        torch.randn(20, 1).expand(20, 9),
        torch.randn(20, 66)[:, ::2],
        torch.randn(17),
        torch.randn(64, 1),
    ):
        check(unit_stats(x), x)


def test_parameters_and_gradients():
    x = torch.randn(9, 5, requires_grad=True)
    assert not any(t.requires_grad for t in unit_stats(x))
    check(unit_stats(torch.nn.Parameter(x.detach())), x.detach())


def test_empty():
    """Without rows NaN, as torch's means are; without units nothing."""
    for backend in ("auto", "reference"):
        got = unit_stats(torch.empty(0, 5), backend=backend)
        assert all(t.shape == (5,) and t.isnan().all() for t in got)
        assert all(t.shape == (0,) for t in unit_stats(torch.empty(4, 0), backend=backend))
        assert all(t.shape == (3,) for t in unit_stats(torch.empty(2, 0, 3), backend=backend))


def test_threads(threads):
    """The same bits: many columns, many pieces, both."""
    for rows, units in ((300, 1000), (40_000, 5), (5000, 130)):
        x = torch.randn(rows, units)
        results = []
        for count in (1, 2, 3):
            threads(count)
            results.append(torch.stack(unit_stats(x)))
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[0], results[2])


def test_does_not_wait():
    with NoSync():
        unit_stats(torch.randn(9, 5))


def test_transforms():
    x = torch.randn(6, 40, 7)
    op = torch.ops.synops.unit_stats.default
    for sample in (x[0], x[0].double(), x[0].bfloat16(), x[0].t()):
        torch.library.opcheck(op, (sample,))
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: unit_stats(x.sin()), fullgraph=True, backend="aot_eager")
    for batch in (x, x[:, :9]):
        for one, other in zip(compiled(batch), unit_stats(batch.sin()), strict=True):
            assert torch.equal(one, other)
    rows = torch.vmap(unit_stats)(x)
    for i, want in enumerate(zip(*(unit_stats(one) for one in x), strict=True)):
        assert torch.equal(rows[i], torch.stack(want))
    program = torch.export.export(_Module(), (x[0],), dynamic_shapes=({0: torch.export.Dim("b")},))
    assert torch.equal(program.module()(x[0][:5]), unit_stats(x[0][:5]).abs_mean)


class _Module(torch.nn.Module):
    def forward(self, x):
        return unit_stats(x).abs_mean


WRONG = [
    (1.0, TypeError, "input must be a torch.Tensor, got float"),
    (torch.ones(3, 2).long(), TypeError, "input must be float32, float64, bfloat16 or float16"),
    (torch.ones(()), ValueError, r"input must have shape \(\.\.\., units\), got \(\)"),
    (torch.eye(3).to_sparse(), TypeError, "strided"),
]


@pytest.mark.parametrize(("value", "error", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_arguments(value, error, message):
    with pytest.raises(error, match=f"unit_stats: .*{message}"):
        unit_stats(value)


def test_raw_op():
    for bad in (torch.ones(3), torch.ones(2, 3, 4), torch.ones(())):
        with pytest.raises(RuntimeError, match="must have 2 dimensions"):
            torch.ops.synops.unit_stats(bad)
    with pytest.raises(RuntimeError, match="floating point"):
        torch.ops.synops.unit_stats(torch.ones(3, 2).long())


@pytest.mark.triton
@EVERY_DTYPE
@pytest.mark.parametrize("name", SAMPLES)
def test_triton(name, dtype):
    """Tiles of 32 x 64, pieces of 128 rows; the shift is one row: an outlier there costs more."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for rows, units in ((1, 1), (33, 21), (129, 65), (300, 7)):
        x = SAMPLES[name](rows, units).to(dtype)
        got = UnitStats(*(t.cpu() for t in unit_stats(x.to(device), backend="triton")))
        check(got, x, factor=4)


@pytest.mark.triton
@pytest.mark.filterwarnings("ignore:invalid value encountered")  # numpy on inf - inf, interpreted
def test_triton_edges():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.randn(200, 9, device=device)
    x[0, 1], x[150, 2], x[3, 3] = torch.nan, torch.inf, -torch.inf
    got = unit_stats(x, backend="triton")
    for one, other in zip(got, expected(x.cpu()), strict=True):
        assert torch.equal(one.cpu().isnan(), other.isnan())
        assert torch.equal(one.cpu().isinf(), other.isinf())
    wide = torch.full((40, 30), torch.nan, device=device)
    wide[:, 3:20] = torch.randn(40, 17)
    for view in (wide[:, 3:20], wide[::2, 3:20], wide[:, 3:20].t()):
        got = unit_stats(view, backend="triton")
        check(UnitStats(*(t.cpu() for t in got)), view.cpu(), factor=4)
    empty = unit_stats(x[:0], backend="triton")
    assert all(t.shape == (9,) and t.isnan().all() for t in empty)
    assert all(t.shape == (0,) for t in unit_stats(x[:, :0], backend="triton"))
