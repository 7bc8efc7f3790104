"""grow_topk against all scores in float64, at the edges of its blocks and of what a score is."""

import pytest
import torch

from synops._library import reference
from synops.sparse import Pattern, grow_topk

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)
# (out, in, samples): panels of 64 outputs or fewer, blocks of 96 inputs in groups of 6, chunks of
# 256 samples; with 24 blocks and more a threshold is sampled
SHAPES = [(1, 1, 1), (3, 7, 5), (64, 96, 256), (65, 97, 257), (200, 300, 20), (300, 784, 9)]


def make(out, inputs, samples, dtype=torch.float32, density=0.2):
    pattern = Pattern.from_mask(torch.rand(out, inputs) < density)
    return torch.randn(samples, out).to(dtype), torch.randn(samples, inputs).to(dtype), pattern


def exact(grad, x, score):
    """The definition, in float64."""
    g, x = grad.double(), x.double()
    if score == "grad":
        return (g.t() @ x).abs()
    if score == "pearson":
        g, x = g - g.mean(0), x - x.mean(0)
    norms = g.norm(dim=0)[:, None] * x.norm(dim=0)
    return torch.where(norms == 0, 0, g.t() @ x / norms)


def check(got, scores, pattern, k, tolerance):
    """k different absent edges in order, their scores, and no better one left out."""
    absent = ~pattern.mask().flatten()
    scores = scores.flatten()
    assert got.edges.dtype == torch.int64
    assert got.edges.shape == got.scores.shape == (k,)
    assert bool((got.edges.diff() > 0).all())
    assert bool(absent[got.edges].all())
    error = (got.scores.double() - scores[got.edges]).abs()
    assert not k or float(error.max()) <= tolerance
    absent[got.edges] = False
    if k and bool(absent.any()):
        assert float(scores[got.edges].min()) >= float(scores[absent].max()) - 2 * tolerance


@pytest.mark.usefixtures("isa")
@EVERY_DTYPE
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_reference(shape, dtype):
    grad, x, pattern = make(*shape, dtype)
    absent = shape[0] * shape[1] - pattern.nnz
    eps = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    for score in ("grad", "cosine", "pearson"):
        scores = exact(grad, x, score)
        size = shape[2] * float(grad.abs().max() * x.abs().max()) if score == "grad" else 1.0
        for k in {0, 1, absent // 10, absent}:
            got = grow_topk(grad, x, pattern, k, score)
            check(got, scores, pattern, k, 8 * eps * max(1, shape[2]) ** 0.5 * size)


@pytest.mark.usefixtures("isa")
def test_equal_scores():
    """The lower position first, also where most scores are 0, as behind dead units."""
    for out, inputs in ((5, 9), (130, 900)):
        mask = torch.rand(out, inputs) < 0.1
        grad, x = torch.randint(-1, 2, (4, out)).float(), torch.randint(-1, 2, (4, inputs)).float()
        grad[:, ::3] = 0
        x[:, 100:] *= (torch.arange(inputs - 100 if inputs > 100 else 0) % 7 == 0).float()
        pattern = Pattern.from_mask(mask)
        scores = torch.where(mask, -1, (grad.t() @ x).abs()).flatten()
        order = scores.sort(descending=True, stable=True).indices
        for k in (1, 10, out * inputs // 3, int((~mask).sum())):
            got = grow_topk(grad, x, pattern, k)
            assert torch.equal(got.edges, order[:k].sort().values)


@pytest.mark.usefixtures("isa")
def test_nan_is_last():
    grad, x, pattern = make(70, 200, 12)
    grad[3, 5] = torch.nan
    x[2, 7] = torch.inf
    numbers = ~pattern.mask()
    numbers[5] = False
    numbers[:, 7] &= (grad[2] != 0) & torch.isfinite(grad[2])
    finite = int(numbers.sum())
    for backend in ("cpp", "reference"):
        got = grow_topk(grad, x, pattern, finite, backend=backend)
        assert bool(numbers.flatten()[got.edges].all())
        everything = 70 * 200 - pattern.nnz
        got = grow_topk(grad, x, pattern, everything, backend=backend)
        assert torch.equal(got.edges, (~pattern.mask()).flatten().nonzero()[:, 0])
        assert int(got.scores.isinf().logical_and(got.scores < 0).sum()) == everything - finite


def test_silent_units():
    """Their similarity is 0, not NaN."""
    grad, x, pattern = make(20, 30, 8)
    grad[:, 3] = 0
    x[:, 4] = 2.5  # no variance
    got = grow_topk(grad, x, pattern, 600 - pattern.nnz, "cosine")
    assert bool((got.scores[got.edges // 30 == 3] == 0).all())
    got = grow_topk(grad, x, pattern, 600 - pattern.nnz, "pearson")
    assert bool((got.scores[(got.edges // 30 == 3) | (got.edges % 30 == 4)] == 0).all())


class TestRandom:
    def test_is_uniform(self):
        """Every absent edge is as likely as any other: a chi-square of 400 draws."""
        pattern = Pattern.from_mask(torch.rand(20, 30) < 0.2)
        generator = torch.Generator().manual_seed(1)
        count = torch.zeros(600)
        for _ in range(400):
            got = grow_topk(None, None, pattern, 60, "random", generator=generator)
            count[got.edges] += 1
        absent = 600 - pattern.nnz
        assert not count[pattern.mask().flatten()].any()
        mean = 400 * 60 / absent
        chi = float(((count[~pattern.mask().flatten()] - mean) ** 2 / mean).sum())
        freedom = absent * (1 - 60 / absent)  # draws without replacement vary less
        assert abs(chi - freedom) < 5 * (2 * freedom) ** 0.5

    def test_is_the_generators(self):
        pattern = Pattern.from_mask(torch.rand(40, 300) < 0.2)
        draw = lambda seed, **options: grow_topk(  # noqa: E731
            None,
            None,
            pattern,
            500,
            "random",
            generator=torch.Generator().manual_seed(seed),
            **options,
        )
        assert torch.equal(draw(1).edges, draw(1).edges)
        assert not torch.equal(draw(1).edges, draw(2).edges)
        assert torch.equal(draw(1).edges, draw(1, backend="reference").edges)
        assert torch.equal(draw(1).scores, draw(1, backend="reference").scores)


@pytest.mark.usefixtures("isa")
def test_pruned_may_grow_again():
    """They count as absent, for the bound on k, too; what stays never grows."""
    grad, x, pattern = make(65, 97, 12)
    pruned = torch.rand(pattern.nnz) < 0.5
    mask = pattern.mask()
    stays = mask.masked_scatter(mask, ~pruned)
    left = Pattern.from_mask(stays)
    for k in (0, 100, 65 * 97 - left.nnz):
        got, want = grow_topk(grad, x, pattern, k, pruned=pruned), grow_topk(grad, x, left, k)
        assert torch.equal(got.edges, want.edges)
        assert torch.equal(got.scores, want.scores)
        again = grow_topk(grad, x, pattern, k, pruned=pruned, backend="reference")
        check(again, exact(grad, x, "grad"), left, k, 1e-4)
    draws = (grow_topk(None, None, p, 70, "random", pruned=q, generator=torch.Generator())
             for p, q in ((pattern, pruned), (left, None)))  # fmt: skip
    assert torch.equal(*(d.edges for d in draws))
    with pytest.raises(ValueError, match=f"0, {65 * 97 - left.nnz}.*the number of absent edges"):
        grow_topk(grad, x, pattern, 65 * 97 - left.nnz + 1, pruned=pruned)


def dense(scores, pattern, k, pruned=None):
    """grow_topk_dense, and the reference's answer, which must be equal."""
    pruned = torch.zeros(pattern.nnz, dtype=torch.bool) if pruned is None else pruned
    args = scores, pattern.crow, pattern.col, pruned, k
    got = torch.ops.synops.grow_topk_dense(*args)
    for one, other in zip(got, reference("grow_topk_dense")(*args), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    return got


@pytest.mark.usefixtures("isa")
@EVERY_DTYPE
@pytest.mark.parametrize("shape", [*SHAPES, (0, 5, 1), (5, 0, 1)], ids=str)
def test_dense(shape, dtype):
    """Of a matrix: the same to the bit, of views, too; many ties in half precision."""
    out, inputs, _ = shape
    for density in (0.0, 0.2, 0.8):
        pattern = Pattern.from_mask(torch.rand(out, inputs) < density)
        scores = torch.randn(out, inputs).to(dtype)
        absent = out * inputs - pattern.nnz
        for k in {0, min(1, absent), absent // 20, absent // 2, absent}:
            want = dense(scores, pattern, k)
            dense(scores, pattern, k, torch.rand(pattern.nnz) < 0.5)
            wide = torch.full((out, inputs + 3), torch.nan).to(dtype)
            wide[:, 1:-2] = scores
            for view in (wide[:, 1:-2], scores.t().contiguous().t()):
                assert torch.equal(dense(view, pattern, k)[0], want[0])


@pytest.mark.usefixtures("isa")
def test_dense_unlucky_samples():
    """The best in a corner, where no sample is; most scores equal; NaN and inf."""
    pattern = Pattern.from_mask(torch.rand(200, 300) < 0.1)
    scores = torch.rand(200, 300)
    scores[7] += 5
    for k in (1, 5, 100, 200, 400, 20000):
        dense(scores, pattern, k)
        dense((scores > 4).float(), pattern, k)
    scores.view(-1)[::3] = torch.nan
    scores.view(-1)[::7] = -torch.inf
    for k in (1, 8000, 30000, 60000 - pattern.nnz):
        dense(scores, pattern, k)


def test_dense_raw_op():
    pattern = Pattern.from_mask(torch.rand(4, 6) < 0.3)
    scores, crow, col = torch.ones(4, 6), pattern.crow, pattern.col
    none = torch.zeros(pattern.nnz, dtype=torch.bool)
    for args, message in (
        ((scores, crow, col, ~none, 25), r"k must lie in \[0, 24\]"),
        ((scores, crow, col, none, 25 - pattern.nnz), "k must lie"),
        ((scores, crow, col, none, -1), "k must lie"),
        ((scores[:3], crow, col, none, 1), "size 0 of scores"),
        ((scores[0], crow, col, none, 1), "2 dimensions"),
        ((scores[:, :2], crow, col, none, 1), "col must .* lie"),
        ((scores.int(), crow, col, none, 1), "floating point"),
        ((scores, crow, col, none[1:], 1), "size 0 of pruned"),
        ((scores, crow, col, none.int(), 1), "pruned has the wrong dtype"),
    ):
        with pytest.raises(RuntimeError, match=message):
            torch.ops.synops.grow_topk_dense(*args)


def test_views_and_batches():
    """(..., features), rows apart, every second column; nothing outside a view is read."""
    pattern = Pattern.from_mask(torch.rand(12, 20) < 0.3)
    wide = torch.full((2, 5, 60), torch.nan)
    wide[..., 1:41:2] = torch.randn(2, 5, 20)
    wide[..., 45:57] = torch.randn(2, 5, 12)
    x, grad = wide[..., 1:41:2], wide[..., 45:57]
    got = grow_topk(grad, x, pattern, 30)
    want = grow_topk(grad.reshape(10, 12).clone(), x.reshape(10, 20).clone(), pattern, 30)
    assert torch.equal(got.edges, want.edges)
    assert torch.equal(got.scores, want.scores)


def test_empty():
    for out, inputs, samples in ((0, 5, 3), (5, 0, 3), (0, 0, 0)):
        got = grow_topk(*make(out, inputs, samples), 0)
        assert got.edges.shape == (0,)
    grad, x, pattern = make(4, 6, 0)  # no samples: all scores are 0
    got = grow_topk(grad, x, pattern, 3)
    assert torch.equal(got.edges, (~pattern.mask()).flatten().nonzero()[:3, 0])


def test_threads(threads):
    for score in ("grad", "random"):
        results = []
        grad, x, pattern = make(300, 800, 30)
        for count in (1, 2, 3):
            threads(count)
            generator = torch.Generator().manual_seed(3)
            results.append(grow_topk(grad, x, pattern, 5000, score, generator=generator))
        for other in results[1:]:
            assert torch.equal(other.edges, results[0].edges)
            assert torch.equal(other.scores, results[0].scores)


def test_transforms():
    grad, x, pattern = make(6, 9, 4)
    op = torch.ops.synops.grow_topk.default
    torch.library.opcheck(op, (grad, x, pattern.crow, pattern.col, 9, 5, 0, 0))
    torch.library.opcheck(op, (None, None, pattern.crow, pattern.col, 9, 5, 3, 11))
    torch._dynamo.reset()
    f = lambda g, x: grow_topk(g.sin(), x, pattern, 5)  # noqa: E731
    got = torch.compile(f, fullgraph=True, backend="aot_eager")(grad, x)
    assert torch.equal(got.edges, f(grad, x).edges)
    leaf = grad.clone().requires_grad_()
    assert not grow_topk(leaf, x, pattern, 5).scores.requires_grad


WRONG = [
    ({"pattern": torch.ones(4, 6)}, TypeError, "pattern must be a synops.sparse.Pattern"),
    ({"score": "gradient"}, ValueError, "score must be one of grad, cosine, pearson, random, got"),
    ({"k": 25}, ValueError, r"k must lie in \[0, \d+\], the number of absent edges, got 25"),
    ({"k": -1}, ValueError, "k must lie in"),
    ({"k": 2.0}, TypeError, "k must be an int, got float"),
    ({"pruned": torch.ones(6)}, TypeError, "pruned must be bool, got float32"),
    ({"pruned": torch.ones(5).bool()}, ValueError, r"pruned must have shape \(nnz,\) = \(6,\)"),
    ({"pruned": [True] * 6}, TypeError, "pruned must be a torch.Tensor, got list"),
    ({"input": None}, TypeError, "input must be a torch.Tensor, got NoneType"),
    ({"grad_output": None}, TypeError, "grad_output must be a torch.Tensor, got NoneType"),
    ({"grad_output": torch.ones(3, 4).double()}, TypeError, "grad_output must have the dtype of"),
    ({"input": torch.ones(3, 5)}, ValueError, r"input must have shape \(..., in\) = \(..., 6\)"),
    ({"grad_output": torch.ones(2, 4)}, ValueError, r"grad_output must have shape .* \(3, 4\)"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_arguments(change, error, message):
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[0] = True
    args = {
        "grad_output": torch.ones(3, 4),
        "input": torch.ones(3, 6),
        "pattern": Pattern.from_mask(mask),
        "k": 2,
    } | change
    with pytest.raises(error, match=message):
        grow_topk(**args)


def test_raw_op():
    grad, x, pattern = make(4, 6, 3)
    crow, col = pattern.crow, pattern.col
    call = torch.ops.synops.grow_topk
    bad = torch.tensor([0, 2, 2, 2, 2], dtype=torch.int32)
    for args, message in (
        ((grad, x, crow, col, 6, 25, 0, 0), "k must lie"),
        ((grad, x, crow, col, 6, 2, 4, 0), "no such score"),
        ((None, x, crow, col, 6, 2, 0, 0), "missing"),
        ((grad[:2], x, crow, col, 6, 2, 0, 0), "size 0 of grad_output"),
        ((grad, x[:, :3], crow, col, 6, 2, 0, 0), "size 1 of input"),
        ((grad.double(), x, crow, col, 6, 2, 0, 0), "dtype"),
        ((grad, x, bad, torch.tensor([3, 1], dtype=torch.int32), 6, 2, 0, 0), "ascend"),
        ((grad, x, bad, torch.tensor([3, 6], dtype=torch.int32), 6, 2, 0, 0), "col must .* lie"),
    ):
        with pytest.raises(RuntimeError, match=message):
            call(*args)


@pytest.mark.triton
@EVERY_DTYPE
def test_triton(dtype, monkeypatch):
    """By strips of 70 outputs."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = __import__("synops.kernels.sparse.grow_topk", fromlist=["_STRIP"])
    monkeypatch.setattr(module, "_STRIP", 70 * 97)
    grad, x, pattern = make(150, 97, 20, dtype)
    grad[:, 5] = torch.nan
    for score in ("grad", "cosine", "pearson", "random"):
        for k in (0, 1, 300, 150 * 97 - pattern.nnz):
            args = [t.to(device) for t in (grad, x)], pattern.to(device), k, score
            got, want = (
                grow_topk(*args[0], *args[1:], generator=torch.Generator(), backend=backend)
                for backend in ("triton", "reference")
            )
            torch.testing.assert_close(got.scores, want.scores, rtol=1e-4, atol=1e-4)
            same = got.edges == want.edges
            assert float(same.float().mean()) > 0.99 if k else True  # sums in another order
    scores = torch.randn(150, 97).to(dtype)
    scores[3, ::2] = torch.nan
    pruned = (torch.rand(pattern.nnz) < 0.5).to(device)
    args = scores.to(device), pattern.crow.to(device), pattern.col.to(device), pruned
    for k in (0, 300, 150 * 97 - pattern.nnz + int(pruned.sum())):
        got = module.grow_topk_dense(*args, k)
        for one, other in zip(got, reference("grow_topk_dense")(*args, k), strict=True):
            assert torch.equal(one, other)
