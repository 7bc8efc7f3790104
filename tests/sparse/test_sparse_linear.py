"""sparse_linear against its reference, at the shapes where kernels change, and what is its own."""

import pytest
import raw_ops
import torch
from layouts import tiles
from sparse_layers import SPARSE
from sparse_samples import DENSITIES, DTYPES, FEATURES, TILINGS, answer, run, sample

from close import assert_close
from synops import _library
from synops.sparse import Pattern, sparse_linear

DTYPE_IDS = {"argvalues": DTYPES, "ids": [str(d).removeprefix("torch.") for d in DTYPES]}


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", **DTYPE_IDS)
class TestReference:
    """C++ against float64, forward and every gradient."""

    # 3: row dots; 19: slabs, a remainder for every width of vector
    @pytest.mark.parametrize("batch", [3, 19])
    @pytest.mark.parametrize(("in_features", "out_features"), FEATURES)
    def test_features(self, in_features, out_features, batch, dtype):
        SPARSE.check(sample(batch, in_features, out_features, 0.5, dtype))

    @pytest.mark.parametrize("batch", [2, 40])
    @pytest.mark.parametrize("density", DENSITIES)
    def test_densities(self, density, batch, dtype):
        SPARSE.check(sample(batch, 70, 51, density, dtype))

    # 3: row dots; 70: several blocks
    @pytest.mark.parametrize("batch", [3, 70])
    @pytest.mark.parametrize("tiling", TILINGS)
    def test_tiles(self, tiling, batch, dtype):
        s = sample(batch, tiling.in_features, tiling.out_features, tiling.density, dtype)
        pattern = Pattern.from_mask(s.mask)
        assert tiles(pattern) == (tiling.row_tiles, tiling.col_tiles)  # it is what it says
        SPARSE.check(s)

    @pytest.mark.parametrize("batch", [2, 9])
    def test_without_bias(self, batch, dtype):
        SPARSE.check(sample(batch, 20, 30, 0.4, dtype, bias=False))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("kept", [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 18, 31, 33])
def test_row_lengths(kept):
    """Entries go 4 (row dots), 4 / V (slabs) and a vector of dots (value gradient) at a time."""
    for batch in (2, 6, 20):
        s = sample(batch, 40, 5, 0.0)
        s.mask[2, torch.randperm(40)[:kept]] = True
        s.weight = torch.randn(5, 40).masked_fill(~s.mask, torch.nan)
        SPARSE.check(s)


@pytest.mark.parametrize("dtype", **DTYPE_IDS)
@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
@pytest.mark.parametrize("density", [0.0, 0.4])  # without entries, nothing must be read
@pytest.mark.parametrize("batch", [0, 2, 9])
def test_each_gradient_alone(batch, density, needed, dtype):
    """What is not asked for is not computed, and what is asked for does not depend on it."""
    s = sample(batch, 30, 20, density, dtype)
    args = [s.input, s.values, s.bias]
    every = run(SPARSE.bind(s.mask), s, s.values)[1:]
    for i in needed:
        args[i] = args[i].clone().requires_grad_()
    output = sparse_linear(args[0], args[1], Pattern.from_mask(s.mask), args[2])
    grads = torch.autograd.grad(output, [args[i] for i in needed], s.grad)
    for i, grad in zip(needed, grads, strict=True):
        assert torch.equal(grad, every[i])


def test_saves_only_what_it_needs():
    """A layer over data that wants no gradient keeps no values, and a frozen one keeps no input."""
    s = sample(64, 256, 128, 0.2)
    pattern = Pattern.from_mask(s.mask)

    def floats(input, values):
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
            sparse_linear(input, values, pattern)
        return sum(t.untyped_storage().nbytes() // 4 for t in saved if t.is_floating_point())

    assert floats(s.input, s.values.requires_grad_()) <= s.input.numel() + 1
    assert floats(s.input.requires_grad_(), s.values.detach()) <= s.values.numel() + 1


class TestCapacity:
    """Values longer than nnz: the tail is never read, and its gradient is exactly 0."""

    @pytest.mark.usefixtures("isa")
    @pytest.mark.parametrize("dtype", **DTYPE_IDS)
    @pytest.mark.parametrize("batch", [0, 2, 9, 70])
    def test_tail(self, batch, dtype):
        s = sample(batch, 37, 20, 0.3, dtype)
        pattern = Pattern.from_mask(s.mask, capacity=int(s.mask.sum()) + 21)
        tail = torch.full((21,), torch.nan, dtype=dtype)
        values = torch.cat([s.values, tail])
        got = run(lambda x, w, b: sparse_linear(x, w, pattern, b), s, values)
        same = run(SPARSE.bind(s.mask), s, s.values)
        assert torch.equal(got.output, same.output)
        assert torch.equal(got.input, same.input)
        assert torch.equal(got.weight, torch.cat([same.weight, torch.zeros(21, dtype=dtype)]))

    def test_double_backward(self):
        s = sample(6, 8, 7, 0.4, torch.float64)
        pattern = Pattern.from_mask(s.mask, capacity=int(s.mask.sum()) + 3)
        values = torch.cat([s.values, torch.full((3,), torch.nan, dtype=torch.float64)])
        values.requires_grad_()
        x = s.input.requires_grad_()
        output = sparse_linear(x, values, pattern)
        gx, gv = torch.autograd.grad(output.square().sum(), (x, values), create_graph=True)
        twice = torch.autograd.grad(gx.square().sum() + gv.square().sum(), values)[0]
        assert twice[:-3].isfinite().all()
        assert not twice[-3:].any()

    def test_empty_pattern_with_room(self):
        s = sample(3, 5, 4, 0.0)
        pattern = Pattern.from_mask(s.mask, capacity=8)
        values = torch.full((8,), torch.nan, requires_grad=True)
        output = sparse_linear(s.input, values, pattern, s.bias)
        assert torch.equal(output, s.bias.expand(3, 4))
        assert not torch.autograd.grad(output.sum(), values)[0].any()


def test_unread_inputs():
    """An input feature without weights may be NaN."""
    s = sample(6, 12, 9, 0.5)  # column 2 of the mask is empty
    s.input[:, 2] = torch.nan
    output = sparse_linear(s.input, s.values, Pattern.from_mask(s.mask), s.bias)
    assert output.isfinite().all()


def test_two_references_agree():
    """The reference by pattern, the one by mask and F.linear are three writings of one thing."""
    s = sample(5, 12, 9, 0.5, torch.float64)
    pattern = Pattern.from_mask(s.mask)
    by_pattern = _library.reference("sparse_linear")(
        s.input, s.values, s.bias, *pattern.args, 0, False
    )
    dense = torch.where(s.mask, s.weight, 0)
    assert torch.equal(by_pattern, torch.nn.functional.linear(s.input, dense, s.bias))
    assert torch.equal(by_pattern, answer(s).output)


def test_reference_backward_is_its_gradient():
    s = sample(5, 12, 9, 0.5, torch.float64)
    pattern = Pattern.from_mask(s.mask, capacity=int(s.mask.sum()) + 4)
    values = torch.cat([s.values, s.values.new_full((4,), torch.nan)])
    backward = _library.reference("sparse_linear_backward")
    gx, gv, gb = backward(s.grad, s.input, values, *pattern.args, True, True, True)
    want = answer(s)
    assert_close(gx, want.input, torch.float64, 9)
    assert_close(gv[:-4], want.weight[s.mask], torch.float64, 5)
    assert not gv[-4:].any()
    assert_close(gb, want.bias, torch.float64, 5)
    nothing = backward(s.grad, s.input, values, *pattern.args, False, False, False)
    assert [t.numel() for t in nothing] == [0, 0, 0]


def test_gradient_memory_is_sparse():
    """Nothing of size out x in is allocated, forward or backward."""
    n = 4096  # out x in: 64 MiB
    mask = torch.rand(n, n) < 0.001
    pattern = Pattern.from_mask(mask)
    values = torch.randn(pattern.nnz, requires_grad=True)
    x = torch.randn(8, n, requires_grad=True)
    with torch.profiler.profile(profile_memory=True) as profile:
        sparse_linear(x, values, pattern).sum().backward()
    allocated = sum(
        e.self_cpu_memory_usage for e in profile.events() if e.self_cpu_memory_usage > 0
    )
    assert 0 < allocated < 4 * n * n / 10


def test_double_backward_has_no_activation():
    """The op that is registered has a gradient without one only, and says so."""
    args = raw_ops.arguments()["sparse_linear"] | {"activation": 1}
    args["input"].requires_grad_()
    with pytest.raises(NotImplementedError, match="sparse_linear: activation has no gradient"):
        raw_ops.call("sparse_linear", args)


X, V = torch.randn(4, 3), torch.randn(5)
MASK = torch.tensor([[True, True, True], [True, False, True]])
P = Pattern.from_mask(MASK)
ROOMY = Pattern.from_mask(MASK, capacity=8)

BAD = {
    "no tensor": ((None, V, P), TypeError, "input must be a torch.Tensor, got NoneType"),
    "bools": (
        (X.bool(), V, P),
        TypeError,
        "input must be float32, float64, bfloat16 or float16, got bool",
    ),
    "complex": ((X.cfloat(), V, P), TypeError, "input must be float32"),
    "sparse": (
        (X.to_sparse(), V, P),
        TypeError,
        "input must be a strided tensor, got torch.sparse_coo",
    ),
    "scalar": ((X[0, 0], V, P), ValueError, "input must have shape (..., in) = (..., 3), got ()"),
    "width": ((X.t(), V, P), ValueError, "input must have shape (..., in) = (..., 3), got (3, 4)"),
    "values: dtype": (
        (X, V.bfloat16(), P),
        TypeError,
        "values must have the dtype of input (float32), got bfloat16",
    ),
    "values: device": (
        (X, V.to("meta"), P),
        ValueError,
        "values must be on the device of input (cpu), got meta",
    ),
    "values: short": ((X, V[:4], P), ValueError, "values must have shape (nnz,) = (5,), got (4,)"),
    "values: long": (
        (X, torch.ones(6), P),
        ValueError,
        "values must have shape (nnz,) = (5,), got (6,)",
    ),
    "values: dense": (
        (X, torch.ones(2, 3), P),
        ValueError,
        "values must have shape (nnz,) = (5,), got (2, 3)",
    ),
    "values: scalar": ((X, V[0], P), ValueError, "values must have shape (nnz,) = (5,), got ()"),
    "values: nnz of a roomy pattern": (
        (X, V, ROOMY),
        ValueError,
        "values must have shape (capacity,) = (8,), got (5,)",
    ),
    "pattern: mask": (
        (X, V, MASK),
        TypeError,
        "pattern must be a synops.sparse.Pattern, got Tensor",
    ),
    "pattern: another shape": (
        (X, V, Pattern.from_mask(MASK.t())),
        ValueError,
        "input must have shape (..., in) = (..., 2), got (4, 3)",
    ),
    "pattern: device": (
        (X, V, P.to("meta")),
        ValueError,
        "pattern must be on the device of input (cpu), got meta",
    ),
    "bias: length": (
        (X, V, P, torch.ones(1)),
        ValueError,
        "bias must have shape (out,) = (2,), got",
    ),
    "bias: dtype": (
        (X, V, P, torch.ones(2).double()),
        TypeError,
        "bias must have the dtype of input (float32), got float64",
    ),
    "bias: device": (
        (X, V, P, torch.ones(2, device="meta")),
        ValueError,
        "bias must be on the device of input (cpu), got meta",
    ),
}

BAD_OPTIONS = {
    "activation: unknown": (
        {"activation": "tanh"},
        ValueError,
        "activation must be 'relu', 'gelu' or None, got tanh",
    ),
    "activation: a function": (
        {"activation": torch.relu},
        ValueError,
        "activation must be 'relu', 'gelu' or None, got <",
    ),
    "activation: a code": ({"activation": 1}, ValueError, "activation must be 'relu', 'gelu'"),
    "feature_major": ({"feature_major": "yes"}, TypeError, "feature_major must be a bool, got yes"),
    "feature_major: None": ({"feature_major": None}, TypeError, "feature_major must be a bool"),
}


@pytest.mark.parametrize(("options", "error", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_bad_option(options, error, message):
    """With a gradient, where an activation is a function, and without."""
    for input in (X, X.clone().requires_grad_()):
        with pytest.raises(error) as raised:
            sparse_linear(input, V, P, **options)
        assert str(raised.value).startswith(f"sparse_linear: {message}")


@pytest.mark.parametrize(("args", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input(args, error, message):
    with pytest.raises(error) as raised:
        sparse_linear(*args)
    assert str(raised.value).startswith(f"sparse_linear: {message}")
