"""spmm against float64 and torch.sparse.mm, of which it is the drop-in."""

import pytest
import torch
from layouts import LAYOUTS, SHORT, feature_major, padded
from sparse_samples import DTYPES

from close import Bound
from synops.sparse import Pattern, spmm

# Columns of the dense matrix are the batch of the product: its edges are those of sparse_linear.
WIDTHS = [0, 1, 3, 8, 16, 33, 130]
# of the dense matrix: row-major, column-major, rows apart, every second column
VIEWS = {
    "row-major": lambda d: d,
    "column-major": lambda d: d.t().contiguous().t(),
    "rows apart": lambda d: feature_major(d.t(), gap=3).t(),
    "stepped": lambda d: d.repeat_interleave(2, 1)[:, ::2],
}


def csr_of(pattern, values):
    """torch's tensor of the same entries."""
    index = pattern.crow.long(), pattern.col.long()
    kept = values[: pattern.nnz]
    # said out loud: torch warns, once in a process, when it is left to choose
    return torch.sparse_csr_tensor(*index, kept, pattern.shape, check_invariants=True)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", SHORT)
def test_reference(name, dtype):
    """The product and both gradients; the result is contiguous whatever came in."""
    pattern = LAYOUTS[name].make()
    rows, cols = pattern.shape
    kept = torch.randn(pattern.nnz).to(dtype)
    mask = pattern.mask()
    for n, view in zip(WIDTHS, [*VIEWS.values()] * 2, strict=False):
        dense, grad = (torch.randn(k, n).to(dtype) for k in (cols, rows))
        w = pattern.scatter(kept.double())
        d, g = dense.double(), grad.double()
        values = padded(pattern, kept).requires_grad_()
        x = view(dense).detach().requires_grad_()
        got = spmm(values, pattern, x)
        assert got.is_contiguous()
        Bound(w @ d, dtype, cols, (w.square() @ d.square()).sqrt()).check(got.detach())
        to_values, to_dense = torch.autograd.grad(got, (values, x), grad)
        size = (w.t().square() @ g.square()).sqrt()
        Bound(w.t() @ g, dtype, rows, size).check(to_dense, vector=True)
        want, size = (g @ d.t())[mask], (g.square() @ d.t().square()).sqrt()[mask]
        Bound(want, dtype, n, size).check(to_values[: pattern.nnz], vector=True)
        assert not to_values[pattern.nnz :].any()


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("name", ["one tile", "tiles of 128", "blocks of 16", "parts", "bits"])
def test_is_torchs(name):
    """Values, shape, dtype, strides; gradients by torch's own product of a COO tensor."""
    pattern = LAYOUTS[name].make()
    for n in (1, 7, 40):
        values = torch.randn(pattern.nnz, dtype=torch.float64, requires_grad=True)
        dense = torch.randn(pattern.shape[1], n, dtype=torch.float64, requires_grad=True)
        want = torch.sparse.mm(csr_of(pattern, values.detach()), dense.detach())
        got = spmm(values, pattern, dense)
        torch.testing.assert_close(got.detach(), want)
        assert (got.stride(), got.layout) == (want.stride(), want.layout)
        index = pattern.mask().nonzero().t()
        coo = torch.sparse_coo_tensor(index, values, pattern.shape, is_coalesced=True)
        other = torch.sparse.mm(coo, dense)
        grads = [torch.autograd.grad(y.square().sum(), (values, dense)) for y in (got, other)]
        for one, two in zip(*grads, strict=True):
            torch.testing.assert_close(one, two)


@pytest.mark.parametrize("name", ["one tile", "groups, interleaved", "parts"])
@pytest.mark.parametrize("n", [2, 18])
def test_derivatives(name, n):
    """To the second order, and per column by vmap."""
    pattern = small(name)
    values = torch.randn(pattern.capacity, dtype=torch.float64, requires_grad=True)
    dense = torch.randn(pattern.shape[1], n, dtype=torch.float64, requires_grad=True)

    def call(values, dense):
        return spmm(values, pattern, dense)

    assert torch.autograd.gradcheck(call, (values, dense), fast_mode=True)
    assert torch.autograd.gradgradcheck(call, (values, dense), fast_mode=True)
    stack = torch.stack([dense.detach(), 2 * dense.detach()])
    for one, d in zip(torch.vmap(call, (None, 0))(values.detach(), stack), stack, strict=True):
        torch.testing.assert_close(one, call(values.detach(), d))
    loss = lambda v, d: call(v, d).square().sum()  # noqa: E731
    want = torch.autograd.grad(loss(values, dense), (values, dense))
    got = torch.func.grad(loss, (0, 1))(values.detach(), dense.detach())
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other)


def small(name) -> Pattern:
    """Finite differences go through every entry."""
    if name == "groups, interleaved":
        return Pattern.from_groups((16, 4), 2, interleaved=True)
    if name == "parts":
        extra = torch.rand(32, 4) < 0.2
        return Pattern.from_groups((32, 4), 2, extra=extra, capacity=200)
    return Pattern.from_mask(torch.rand(6, 5) < 0.4)


def test_compiled():
    for name in ("tiles of 128", "blocks of 16", "parts"):
        torch._dynamo.reset()
        pattern = LAYOUTS[name].make()
        compiled = torch.compile(spmm, fullgraph=True, backend="aot_eager")
        values, dense = torch.randn(pattern.nnz), torch.randn(pattern.shape[1], 20)
        got, want = compiled(values, pattern, dense), spmm(values, pattern, dense)
        assert torch.equal(got, want)
        assert got.stride() == want.stride()


def test_autocast():
    """As F.linear: float32 and bfloat16 are cast, float64 is not."""
    pattern = LAYOUTS["one tile"].make()
    values, dense = torch.randn(pattern.nnz), torch.randn(pattern.shape[1], 9)
    want = spmm(values.bfloat16(), pattern, dense.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(spmm(values, pattern, dense), want)
        assert torch.equal(spmm(values, pattern, dense.bfloat16()), want)
        assert spmm(values.double(), pattern, dense.double()).dtype == torch.float64


MASK = torch.tensor([[True, True, True], [True, False, True]])
P, V, D = Pattern.from_mask(MASK), torch.randn(5), torch.randn(3, 4)
BAD = {
    "values: no tensor": ((None, P, D), TypeError, "values must be a torch.Tensor, got NoneType"),
    "values: integers": ((V.int(), P, D), TypeError, "values must be float32, float64"),
    "values: short": ((V[:4], P, D), ValueError, "values must have shape (nnz,) = (5,), got (4,)"),
    "values: 2-D": ((V[None], P, D), ValueError, "values must have shape (nnz,) = (5,), got"),
    "pattern": ((V, MASK, D), TypeError, "pattern must be a synops.sparse.Pattern, got Tensor"),
    "dense: no tensor": ((V, P, [1.0]), TypeError, "dense must be a torch.Tensor, got list"),
    "dense: dtype": (
        (V, P, D.double()),
        TypeError,
        "dense must have the dtype of values (float32), got float64",
    ),
    "dense: sparse": ((V, P, D.to_sparse()), TypeError, "dense must be a strided tensor"),
    "dense: device": (
        (V, P, D.to("meta")),
        ValueError,
        "dense must be on the device of values (cpu), got meta",
    ),
    "dense: rows": (
        (V, P, D.t()),
        ValueError,
        "dense must have shape (in, n) = (3, n), got (4, 3)",
    ),
    "dense: 1-D": ((V, P, D[:, 0]), ValueError, "dense must have shape (in, n) = (3, n), got (3,)"),
    "dense: 3-D": ((V, P, D[None]), ValueError, "dense must have shape (in, n) = (3, n), got"),
}


@pytest.mark.parametrize(("args", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input(args, error, message):
    with pytest.raises(error) as raised:
        spmm(*args)
    assert str(raised.value).startswith(f"spmm: {message}")
