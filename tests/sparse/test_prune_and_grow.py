"""prune_and_grow against the reference, and against dense masks as RigL's own code has them."""

import pytest
import torch

from synops.sparse import Growth, Pattern, grow_topk, prune_and_grow

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)
# (out, in, density): rows of none, of a vector of 16 and around it, of many; one row, one column
SHAPES = [
    (1, 1, 1.0),
    (1, 300, 0.3),
    (300, 1, 0.3),
    (7, 16, 0.5),
    (33, 47, 0.1),
    (60, 90, 0.02),
    (40, 256, 0.9),
]
EMPTY = [(0, 5), (5, 0), (0, 0)]


def make(out, inputs, density=0.3, dtype=torch.float32, extra=0):
    """Values, a Pattern with room for `extra` more, a dense gradient."""
    mask = torch.rand(out, inputs) < density
    pattern = Pattern.from_mask(mask, capacity=int(mask.sum()) + extra)
    values = torch.randn(pattern.capacity).to(dtype)
    values[pattern.nnz :] = torch.nan
    return values, pattern, torch.randn(out, inputs).to(dtype)


def rigl(weight, mask, grad, count, moments):
    """`_get_update_op` of RigL's code, with reinit_when_same=False, on matrices of this layer."""
    magnitude = torch.where(mask, weight.abs(), torch.inf).flatten()
    # what stays: the n - count entries with the largest magnitude, ties by position
    order = torch.where(mask.flatten(), -magnitude, torch.inf).argsort(stable=True)
    kept = torch.zeros_like(mask).view(-1)
    kept[order[: int(mask.sum()) - count]] = True
    score = torch.where(kept, -1.0, grad.abs().flatten().float())
    grown = torch.zeros_like(kept)
    grown[score.argsort(descending=True, stable=True)[:count]] = True
    new = (kept | grown).view_as(mask)
    came = new & ~mask
    return new, *(torch.where(new & ~came, t, 0) for t in (weight, *moments))


def same(got, want):
    """Two results, to the bit."""
    assert got.pattern.shape == want.pattern.shape
    assert got.pattern.capacity == want.pattern.capacity
    assert got.origin.dtype == torch.int32
    pairs = zip(
        (*got.pattern.tensors, got.values, *got.state, got.origin),
        (*want.pattern.tensors, want.values, *want.state, want.origin),
        strict=True,
    )
    for one, other in pairs:
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


@pytest.mark.usefixtures("isa")
@EVERY_DTYPE
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dense_masks(shape, dtype):
    """The masks, weights and moments of RigL's code."""
    values, pattern, grad = make(*shape, dtype, extra=3)
    state = tuple(torch.randn(pattern.capacity).to(t) for t in (dtype, torch.float32))
    mask = pattern.mask()
    matrices = [pattern.scatter(t) for t in (values, *state)]
    for count in {0, 1, pattern.nnz // 3, pattern.nnz}:
        got = prune_and_grow(values, pattern, count, grad, state=state)
        want = rigl(matrices[0], mask, grad, count, matrices[1:])
        assert torch.equal(got.pattern.mask(), want[0])
        for t, m in zip((got.values, *got.state), want[1:], strict=True):
            assert torch.equal(got.pattern.scatter(t), m)
            assert not t[got.pattern.nnz :].any()
        same(got, prune_and_grow(values, pattern, count, grad, state=state, backend="reference"))
        came = got.origin < 0
        assert not got.values[: got.pattern.nnz][came].any()
        assert torch.equal(got.values[: got.pattern.nnz][~came], values[got.origin[~came].long()])


@pytest.mark.usefixtures("isa")
def test_large_layer():
    """More than a sample: the brackets of both selections; regrown edges in most rows."""
    values, pattern, grad = make(300, 400, 0.4)
    same(*(prune_and_grow(values, pattern, 0.5, grad, backend=b) for b in ("cpp", "reference")))
    grad[pattern.mask()] *= 3  # most of what left comes again
    got = prune_and_grow(values, pattern, 0.5, grad)
    assert int((got.origin >= 0).sum()) > 0.7 * pattern.nnz
    same(got, prune_and_grow(values, pattern, 0.5, grad, backend="reference"))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("special", ["ties", "nan", "inf"])
def test_order_of_magnitudes(special):
    """Of equals the later leave and the first come; NaN leaves before all and comes last."""
    values, pattern, grad = make(20, 30, 0.4)
    n = pattern.nnz
    if special == "ties":
        values, grad = values.sign() * (torch.arange(n) % 3), grad.round().clamp(-1, 1)
    else:
        number = float(special)
        values[::5] = number
        grad.view(-1)[::3] = -number
    size = torch.where(values.isnan(), -torch.inf, values.abs())
    order = torch.arange(n - 1, -1, -1)[size.flip(0).argsort(stable=True)]  # who leaves first
    score = torch.where(grad.isnan(), -torch.inf, grad.abs()).flatten()
    places = pattern.mask().flatten().nonzero()[:, 0]
    for count in (1, n // 5, n // 2, n - 1, n):
        leaves = torch.zeros(n, dtype=torch.bool)
        leaves[order[:count]] = True
        for backend in ("cpp", "reference"):
            got = prune_and_grow(values, pattern, count, grad, backend=backend)
            stays = ~leaves
            candidates = torch.ones(600, dtype=torch.bool)
            candidates[places[stays]] = False
            free = candidates.nonzero()[:, 0]
            grown = free[score[free].argsort(descending=True, stable=True)[:count]]
            want = torch.cat([places[stays], grown]).sort().values
            assert torch.equal(got.pattern.mask().flatten().nonzero()[:, 0], want)
            same(got, prune_and_grow(values, pattern, leaves, grad, backend=backend))


@pytest.mark.usefixtures("isa")
def test_fractions_and_masks():
    values, pattern, grad = make(30, 40)
    n = pattern.nnz
    same(prune_and_grow(values, pattern, 0.3, grad),
         prune_and_grow(values, pattern, round(0.3 * n), grad))  # fmt: skip
    leaves = torch.rand(n) < 0.4
    got = prune_and_grow(values, pattern, leaves)
    assert torch.equal(got.origin, (~leaves).nonzero()[:, 0].int())
    assert got.pattern.capacity == n
    assert torch.equal(got.values[: got.pattern.nnz], values[~leaves])
    strided = torch.stack([leaves, ~leaves], 1)[:, 0]
    same(prune_and_grow(values, pattern, strided), got)


@pytest.mark.usefixtures("isa")
def test_edges_that_are_named():
    """A Growth, its positions, and positions with gaps between them: one result."""
    values, pattern, _ = make(30, 40, extra=50)
    leaves = torch.rand(pattern.nnz) < 0.4
    x, g = torch.randn(8, 40), torch.randn(8, 30)
    for score in ("grad", "cosine"):
        growth = grow_topk(g, x, pattern, 60, score, pruned=leaves)
        assert isinstance(growth, Growth)
        got = prune_and_grow(values, pattern, leaves, growth)
        assert got.pattern.nnz == pattern.nnz - int(leaves.sum()) + 60
        same(got, prune_and_grow(values, pattern, leaves, growth.edges))
        same(got, prune_and_grow(values, pattern, leaves, growth.edges.repeat_interleave(2)[::2]))
        same(got, prune_and_grow(values, pattern, leaves, growth, backend="reference"))
    # every weight that left comes again: the layer as it was
    places = pattern.mask().flatten().nonzero()[:, 0]
    got = prune_and_grow(values, pattern, leaves, places[leaves])
    assert torch.equal(got.origin, torch.arange(pattern.nnz, dtype=torch.int32))
    assert torch.equal(got.values[: pattern.nnz], values[: pattern.nnz])


@pytest.mark.usefixtures("isa")
def test_capacity():
    """Grown to the last place, to every place of the matrix, and no further."""
    mask = torch.rand(12, 20) < 0.5
    pattern = Pattern.from_mask(mask, capacity=240)
    values = torch.randn(240)
    absent = (~mask).flatten().nonzero()[:, 0]
    got = prune_and_grow(values, pattern, 0, absent)
    assert got.pattern.nnz == 240
    assert torch.equal(got.values.view(12, 20), pattern.scatter(values))
    tight = Pattern.from_mask(mask, capacity=int(mask.sum()) + 2)
    values = values[: tight.capacity]
    assert prune_and_grow(values, tight, 1, absent[:3]).pattern.nnz == tight.capacity
    with pytest.raises(ValueError, match=f"leave at most capacity = {tight.capacity} entries, got"):
        prune_and_grow(values, tight, 0, absent[:3])


def test_empty():
    for shape in EMPTY:
        values, pattern, grad = make(*shape)
        for grow in (None, grad):
            got = prune_and_grow(values, pattern, 0.5, grow)
            assert got.pattern.nnz == got.values.numel() == got.origin.numel() == 0
    values, pattern, grad = make(4, 6, 0.0, extra=2)  # no entries
    got = prune_and_grow(values, pattern, 0.5, grad)
    assert got.pattern.nnz == 0
    got = prune_and_grow(values, pattern, 0, torch.tensor([3, 23]))
    assert torch.equal(got.pattern.col, torch.tensor([3, 5], dtype=torch.int32))
    assert torch.equal(got.values, torch.zeros(2))


def test_nothing_is_changed():
    """The arguments, the Parameter among them, are as they were; no result has a graph."""
    values, pattern, grad = make(20, 30)
    leaf = torch.nn.Parameter(values.clone())
    state = (torch.randn(pattern.capacity, dtype=torch.float64, requires_grad=True),)
    before = [t.clone() for t in (*pattern.tensors, leaf, *state, grad)]
    got = prune_and_grow(leaf, pattern, 0.5, grad.requires_grad_(), state=state)
    after = (*pattern.tensors, leaf, *state, grad)
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one, other)
    assert not got.values.requires_grad
    assert not got.state[0].requires_grad
    assert got.state[0].dtype == torch.float64
    assert got.values.data_ptr() != leaf.data_ptr()


def test_threads(threads):
    """400 x 500: enough for several."""
    values, pattern, grad = make(400, 500)
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(prune_and_grow(values, pattern, 0.3, grad, state=(values,)))
    same(results[1], results[0])
    same(results[2], results[0])


def test_transforms():
    values, pattern, grad = make(6, 9)
    leaves = torch.rand(pattern.nnz) < 0.5
    edges = (~pattern.mask()).flatten().nonzero()[:4, 0]
    op = torch.ops.synops.prune_and_grow.default
    torch.library.opcheck(op, (pattern.crow, pattern.col, 9, leaves, edges))
    origin = op(pattern.crow, pattern.col, 9, leaves, edges)[2]
    room = torch.cat([values, values.new_zeros(4)])
    torch.library.opcheck(torch.ops.synops.prune_and_grow_carry.default, (room, origin))
    torch.library.opcheck(torch.ops.synops.grow_topk_dense.default,
                          (grad, pattern.crow, pattern.col, leaves, 5))  # fmt: skip
    torch._dynamo.reset()
    compiled = torch.compile(lambda v, o: torch.ops.synops.prune_and_grow_carry(v.sin(), o),
                             fullgraph=True, backend="aot_eager")  # fmt: skip
    want = torch.ops.synops.prune_and_grow_carry(room.sin(), origin)
    assert torch.equal(compiled(room, origin), want)


N = 8  # entries of the layer below: the first and last column of four rows of six
WRONG = [
    ({"pattern": torch.ones(4, 6)}, TypeError, "pattern must be a synops.sparse.Pattern, got"),
    ({"values": None}, TypeError, "values must be a torch.Tensor"),
    ({"values": torch.ones(9)}, ValueError, r"values must have shape \(capacity,\) = \(10,\)"),
    ({"values": torch.ones(10).long()}, TypeError, "values must be float32"),
    ({"state": torch.ones(10)}, TypeError, "state must be a sequence of tensors, got Tensor"),
    ({"state": [torch.ones(10), torch.ones(8)]}, ValueError, r"state\[1\] must have shape"),
    ({"state": [torch.ones(10).int()]}, TypeError, r"state\[0\] must be float32"),
    ({"prune": 9}, ValueError, r"prune must lie in \[0, 8\], got 9"),
    ({"prune": -1}, ValueError, r"prune must lie in \[0, 8\], got -1"),
    ({"prune": 1.5}, ValueError, r"prune must lie in \[0, 1\] as a fraction, got 1.5"),
    ({"prune": float("nan")}, ValueError, "prune must lie in .* got nan"),
    ({"prune": "1"}, TypeError, "prune must be an int or a float, got str"),
    ({"prune": True}, TypeError, "prune must be an int or a float, got bool"),
    ({"prune": torch.ones(N)}, TypeError, "prune must be bool, got float32"),
    ({"prune": torch.ones(10).bool()}, ValueError, r"prune must have shape \(nnz,\) = \(8,\)"),
    ({"grow": [1, 2]}, TypeError, "grow must be a torch.Tensor, got list"),
    ({"grow": torch.ones(3).int()}, TypeError, "grow must be int64 positions or a matrix, got"),
    ({"grow": torch.ones(4, 6).cfloat()}, TypeError, "grow must be int64 positions or a matrix"),
    ({"grow": torch.ones(2, 2).long()}, ValueError, r"grow must have shape \(k,\), got \(2, 2\)"),
    ({"grow": torch.ones(6, 4)}, ValueError, r"grow must have shape \(out, in\) = \(4, 6\), got"),
    ({"grow": torch.tensor([2, 1])}, ValueError, "ascend strictly, got 1 at position 1 after 2"),
    ({"grow": torch.tensor([2, 2])}, ValueError, "ascend strictly, got 2 at position 1 after 2"),
    ({"grow": torch.tensor([-1, 2])}, ValueError, r"lie in .* \[0, 24\), got -1 at position 0"),
    ({"grow": torch.tensor([2, 24])}, ValueError, r"lie in .* \[0, 24\), got 24 at position 1"),
    ({"grow": torch.tensor([2, 23])}, ValueError, "pattern lacks .* got 23 at position 1, which"),
    ({"grow": torch.arange(1, 5)}, ValueError, "leave at most capacity = 10 entries, got 11"),
    ({"grow": torch.ones(4, 6, device="meta")}, ValueError, "grow must be on the device of the"),
]


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize(("change", "error", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_arguments(change, error, message, backend):
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[:, ::5] = True
    args = {
        "values": torch.arange(1.0, 11),
        "pattern": Pattern.from_mask(mask, capacity=10),
        "prune": 1,
        "grow": None,
    } | change
    with pytest.raises(error, match=f"^prune_and_grow: .*{message}"):
        prune_and_grow(**args, backend=backend)


def test_raw_ops():
    crow = torch.tensor([0, 2, 4], dtype=torch.int32)
    col = torch.tensor([0, 2, 1, 3], dtype=torch.int32)
    none, some = torch.zeros(4, dtype=torch.bool), torch.tensor([1, 4])
    call = torch.ops.synops.prune_and_grow
    for args, message in (
        ((crow, col, 3, none, some), "col must ascend strictly .* lie in"),
        ((crow, col.flip(0), 4, none, some), "col must ascend"),
        ((crow, col, 4, none[:3], some), "size 0 of prune must be 4, got 3"),
        ((crow, col, 4, none.int(), some), "prune has the wrong dtype"),
        ((crow, col, 4, none, some.int()), "edges has the wrong dtype"),
        ((crow, col, 4, none, some.flip(0)), "edges must ascend strictly"),
        ((crow, col, 4, none, some - 2), "edges must ascend strictly and lie in"),
        ((crow, col, 4, none, some + 4), r"lie in \[0, out \* in\) = \[0, 8\)"),
        ((crow, col, 4, none, torch.tensor([1, 5])), "edges must be no entries that stay"),
        ((crow, col, 4, none, torch.tensor([0])), "edges must be no entries that stay"),
        ((crow, col, 4, none, torch.tensor([7])), "edges must be no entries that stay"),
    ):
        with pytest.raises(RuntimeError, match=message):
            call(*args)
    for bad in (40, 2**31 - 1):
        for at in (0, 20, 39):  # in the vectors, and behind them
            origin = torch.full((40,), -1, dtype=torch.int32)
            origin[at] = bad
            for dtype in DTYPES:
                with pytest.raises(RuntimeError, match="origin must be below"):
                    torch.ops.synops.prune_and_grow_carry(torch.ones(40, dtype=dtype), origin)


@pytest.mark.usefixtures("isa")
@EVERY_DTYPE
def test_carry_any_order(dtype):
    """Near, far and negative origins in one vector: what the merge never makes."""
    values = torch.randn(100).to(dtype)
    for origin in (torch.randint(-9, 100, (100,)), torch.arange(99, -1, -1), torch.arange(100)):
        got = torch.ops.synops.prune_and_grow_carry(values, origin.int())
        assert torch.equal(got, torch.where(origin < 0, 0, values[origin]))


@pytest.mark.triton
@EVERY_DTYPE
def test_triton(dtype):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # a row of several steps; rows of none; one row
    for shape in ((3, 700, 0.5), (40, 30, 0.1), (1, 40, 0.3), (5, 6, 0.0)):
        values, pattern, grad = make(*shape, dtype, extra=3)
        args = values.to(device), pattern.to(device)
        for count in (0, pattern.nnz // 3, pattern.nnz):
            got, want = (
                prune_and_grow(*args, count, grad.to(device), state=(args[0],), backend=b)
                for b in ("triton", "reference")
            )
            same(got, want)
        absent = (~pattern.mask()).flatten().nonzero()[:3, 0].to(device)
        same(*(prune_and_grow(*args, 0, absent, backend=b) for b in ("triton", "reference")))
        present = pattern.mask().flatten().nonzero()[:1, 0].to(device)
        if present.numel():
            with pytest.raises(ValueError, match="pattern lacks"):
                prune_and_grow(*args, 0, present, backend="triton")
        with pytest.raises(ValueError, match="ascend"):
            prune_and_grow(*args, 0, absent.flip(0), backend="triton")
