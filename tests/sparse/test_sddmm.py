"""sddmm against float64 and torch.sparse.sampled_addmm, of which it is the drop-in."""

import pytest
import torch
from layouts import LAYOUTS, SHORT, feature_major
from sparse_samples import DTYPES
from test_spmm import csr_of, small

from close import Bound
from synops.sparse import Pattern, sddmm

# The inner side is the batch of the product's gradient: its edges.
INNER = [0, 1, 3, 8, 16, 33, 130]


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", SHORT)
def test_reference(name, dtype):
    """Values and both gradients, in every memory of both; zeros behind nnz."""
    pattern = LAYOUTS[name].make()
    rows, cols = pattern.shape
    mask, nnz = pattern.mask(), pattern.nnz
    turns = [(lambda t: t), (lambda t: feature_major(t, gap=1))]
    for i, k in enumerate(INNER):
        a, b = torch.randn(rows, k).to(dtype), torch.randn(k, cols).to(dtype)
        mat1 = turns[i % 2](a).detach().requires_grad_()
        mat2 = turns[i // 2 % 2](b).detach().requires_grad_()
        got = sddmm(mat1, mat2, pattern)
        assert got.shape == (pattern.capacity,)
        assert not got[nnz:].any()
        a, b = a.double(), b.double()
        size = (a.square() @ b.square()).sqrt()[mask]
        Bound((a @ b)[mask], dtype, k, size).check(got[:nnz].detach(), vector=True)
        grad = torch.randn(pattern.capacity).to(dtype)
        g = pattern.scatter(grad[:nnz].double())
        to1, to2 = torch.autograd.grad(got, (mat1, mat2), grad)
        size = (g.square() @ b.t().square()).sqrt()
        Bound(g @ b.t(), dtype, cols, size).check(to1, vector=True)
        size = (a.t().square() @ g.square()).sqrt()
        Bound(a.t() @ g, dtype, rows, size).check(to2, vector=True)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("name", ["one tile", "tiles of 128", "blocks of 16", "parts", "bits"])
def test_is_torchs(name):
    """With every beta and alpha; torch has no gradient of its own for a dense result."""
    pattern = LAYOUTS[name].make()
    rows, cols = pattern.shape
    for k in (1, 7, 40):
        mat1 = torch.randn(rows, k, dtype=torch.float64)
        mat2 = torch.randn(k, cols, dtype=torch.float64)
        input = torch.randn(pattern.nnz, dtype=torch.float64)
        for beta, alpha in ((1.0, 1.0), (0.0, 2.0), (-0.5, 0.0), (2.0, 3.0)):
            options = {"beta": beta, "alpha": alpha}
            want = torch.sparse.sampled_addmm(csr_of(pattern, input), mat1, mat2, **options)
            got = sddmm(mat1, mat2, pattern, input, **options)
            torch.testing.assert_close(got, want.values())
        zeros = csr_of(pattern, torch.zeros_like(input))
        want = torch.sparse.sampled_addmm(zeros, mat1, mat2)
        torch.testing.assert_close(sddmm(mat1, mat2, pattern), want.values())


def test_beta_of_0_does_not_read():
    """As torch: NaN in what counts nothing."""
    pattern = small("one tile")
    mat1, mat2 = torch.randn(6, 4), torch.randn(4, 5)
    nan = torch.full((pattern.nnz,), torch.nan)
    assert torch.equal(sddmm(mat1, mat2, pattern, nan, beta=0), sddmm(mat1, mat2, pattern))


def test_capacity():
    """What lies behind nnz of input is not read, is 0 in the result, and has gradient 0."""
    for name in ("capacity", "blocks of 16, capacity", "groups and more, interleaved, capacity"):
        pattern = LAYOUTS[name].make()
        rows, cols = pattern.shape
        for k in (3, 20):
            mat1, mat2 = torch.randn(rows, k), torch.randn(k, cols)
            input = torch.full((pattern.capacity,), torch.nan)
            input[: pattern.nnz] = torch.randn(pattern.nnz)
            input.requires_grad_()
            got = sddmm(mat1, mat2, pattern, input, beta=2)
            want = sddmm(mat1, mat2, pattern)[: pattern.nnz] + 2 * input[: pattern.nnz]
            torch.testing.assert_close(got[: pattern.nnz], want)
            assert not got[pattern.nnz :].any()
            (grad,) = torch.autograd.grad(got.sum(), input)
            assert torch.equal(grad[: pattern.nnz], torch.full((pattern.nnz,), 2.0))
            assert not grad[pattern.nnz :].any()


@pytest.mark.parametrize("name", ["one tile", "groups, interleaved", "parts"])
@pytest.mark.parametrize("k", [2, 18])
def test_derivatives(name, k):
    pattern = small(name)
    rows, cols = pattern.shape
    args = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((rows, k), (k, cols), (pattern.capacity,))
    ]

    def call(mat1, mat2, input):
        return sddmm(mat1, mat2, pattern, input, beta=0.5, alpha=-2)

    assert torch.autograd.gradcheck(call, args, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, args, fast_mode=True)
    loss = lambda *args: call(*args).square().sum()  # noqa: E731
    want = torch.autograd.grad(loss(*args), args)
    got = torch.func.grad(loss, (0, 1, 2))(*(a.detach() for a in args))
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other)
    mat1, mat2, input = (a.detach() for a in args)
    stack = torch.stack([mat1, 2 * mat1])
    mapped = torch.vmap(call, (0, None, None))(stack, mat2, input)
    for one, a in zip(mapped, stack, strict=True):
        torch.testing.assert_close(one, call(a, mat2, input))


def test_compiled():
    for name in ("tiles of 128", "blocks of 16", "parts"):
        torch._dynamo.reset()
        pattern = LAYOUTS[name].make()
        rows, cols = pattern.shape
        compiled = torch.compile(sddmm, fullgraph=True, backend="aot_eager")
        mat1, mat2 = torch.randn(rows, 20, requires_grad=True), torch.randn(20, cols)
        got, want = compiled(mat1, mat2, pattern), sddmm(mat1, mat2, pattern)
        assert torch.equal(got, want)
        grads = [torch.autograd.grad(y.sum(), mat1)[0] for y in (got, want)]
        torch.testing.assert_close(*grads)


def test_autocast():
    pattern = LAYOUTS["one tile"].make()
    rows, cols = pattern.shape
    mat1, mat2 = torch.randn(rows, 9), torch.randn(9, cols)
    want = sddmm(mat1.bfloat16(), mat2.bfloat16(), pattern)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sddmm(mat1, mat2, pattern), want)
        assert torch.equal(sddmm(mat1.bfloat16(), mat2, pattern), want)


def test_memory_is_sparse():
    """Nothing of size out x in is allocated."""
    n = 4096  # out x in: 64 MiB
    pattern = Pattern.from_mask(torch.rand(n, n) < 0.001)
    mat1, mat2 = torch.randn(n, 8), torch.randn(8, n)
    with torch.profiler.profile(profile_memory=True) as profile:
        sddmm(mat1, mat2, pattern)
    sizes = [e.self_cpu_memory_usage for e in profile.events() if e.self_cpu_memory_usage > 0]
    assert 0 < sum(sizes) < 4 * n * n / 10


MASK = torch.tensor([[True, True, True], [True, False, True]])
P, A, B, U = Pattern.from_mask(MASK), torch.randn(2, 4), torch.randn(4, 3), torch.randn(5)
BAD = {
    "mat1: no tensor": ((None, B, P), TypeError, "mat1 must be a torch.Tensor, got NoneType"),
    "mat1: integers": ((A.int(), B, P), TypeError, "mat1 must be float32, float64"),
    "mat1: rows": ((A.t(), B, P), ValueError, "mat1 must have shape (out, k) = (2, k), got (4, 2)"),
    "mat1: 1-D": ((A[:, 0], B, P), ValueError, "mat1 must have shape (out, k) = (2, k), got (2,)"),
    "mat2: no tensor": ((A, 3, P), TypeError, "mat2 must be a torch.Tensor, got int"),
    "mat2: dtype": (
        (A, B.double(), P),
        TypeError,
        "mat2 must have the dtype of mat1 (float32), got float64",
    ),
    "mat2: device": (
        (A, B.to("meta"), P),
        ValueError,
        "mat2 must be on the device of mat1 (cpu), got meta",
    ),
    "mat2: inner side": (
        (A, B[:3], P),
        ValueError,
        "mat2 must have shape (k, in) = (4, 3), got (3, 3)",
    ),
    "mat2: 3-D": ((A, B[None], P), ValueError, "mat2 must have shape (k, in) = (4, 3), got"),
    "pattern": ((A, B, MASK), TypeError, "pattern must be a synops.sparse.Pattern, got Tensor"),
    "pattern: device": (
        (A, B, P.to("meta")),
        ValueError,
        "pattern must be on the device of mat1 (cpu), got meta",
    ),
    "input: length": ((A, B, P, U[:4]), ValueError, "input must have shape (nnz,) = (5,), got"),
    "input: dense": ((A, B, P, A), ValueError, "input must have shape (nnz,) = (5,), got (2, 4)"),
    "input: dtype": (
        (A, B, P, U.double()),
        TypeError,
        "input must have the dtype of mat1 (float32), got float64",
    ),
}


@pytest.mark.parametrize(("args", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input(args, error, message):
    with pytest.raises(error) as raised:
        sddmm(*args)
    assert str(raised.value).startswith(f"sddmm: {message}")
