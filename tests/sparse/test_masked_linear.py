"""masked_linear against its reference, its dense route, and what is its own: a dense weight."""

import pytest
import torch
from sparse_layers import LAYERS, MASKED, MASKED_PATTERN
from sparse_samples import BATCHES, DENSITIES, DTYPES, FEATURES, TILINGS, answer, run, sample

import synops
from close import assert_close
from synops import _library
from synops.sparse import Pattern, masked_linear

FORMS = pytest.mark.parametrize("layer", [MASKED, MASKED_PATTERN], ids=lambda layer: layer.name)
DTYPE_IDS = {"argvalues": DTYPES, "ids": [str(d).removeprefix("torch.") for d in DTYPES]}


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", **DTYPE_IDS)
class TestReference:
    """C++ against float64, forward and every gradient; masked-out weights are always NaN."""

    @pytest.mark.parametrize("batch", BATCHES)
    def test_batches(self, batch, dtype):
        MASKED.check(sample(batch, 37, 20, 0.3, dtype))

    # 3: row dots; 19: slabs, a remainder for every width of vector
    @pytest.mark.parametrize("batch", [3, 19])
    @pytest.mark.parametrize(("in_features", "out_features"), FEATURES)
    def test_features(self, in_features, out_features, batch, dtype):
        MASKED.check(sample(batch, in_features, out_features, 0.5, dtype))

    @FORMS
    @pytest.mark.parametrize("batch", [2, 40])
    @pytest.mark.parametrize("density", DENSITIES)
    def test_densities(self, layer, density, batch, dtype):
        layer.check(sample(batch, 70, 51, density, dtype))

    @FORMS
    @pytest.mark.parametrize("tiling", TILINGS)
    def test_tiles(self, layer, tiling, dtype):
        layer.check(sample(70, tiling.in_features, tiling.out_features, tiling.density, dtype))


@pytest.mark.parametrize("dtype", **DTYPE_IDS)
@FORMS
class TestDenseRoute:
    """Above density .6 the dense product runs; nobody should see it in the numbers."""

    @pytest.mark.parametrize("batch", [0, 1, 9, (2, 3), ()])
    @pytest.mark.parametrize("density", [0.7, 1.0])
    def test_reference(self, layer, density, batch, dtype):
        s = sample(batch, 37, 20, density, dtype)
        call = layer.bind(s.mask)
        topology = layer.topology(s.mask)
        assert synops.which(masked_linear, s.input, s.weight, topology).backend == "dense"
        got = run(call, s, s.weight)
        want = answer(s)
        # Half precision: torch's product may keep sums in half, so this is its own accuracy, not
        # ours.
        for one, other in zip(got, want, strict=True):
            torch.testing.assert_close(one.double(), other, **_torch_tolerance(dtype))

    def test_masked_out_weights_are_not_read(self, layer, dtype):
        s = sample(4, 12, 9, 1.0, dtype)
        s.mask[2, 3] = False
        for poison in (torch.nan, torch.inf):
            s.weight[2, 3] = poison
            got = run(layer.bind(s.mask), s, s.weight)
            assert all(t.isfinite().all() for t in got)
            assert got.weight[2, 3] == 0


def _torch_tolerance(dtype):
    eps = torch.finfo(dtype).eps
    return {"rtol": 8 * eps, "atol": 32 * eps}


@pytest.mark.parametrize("density", [0.4, 0.8])  # the sparse and the dense way
@FORMS
class TestWeight:
    """The weight is an ordinary tensor: computed, strided, expanded."""

    def test_gradient_flows_through_a_computed_weight(self, layer, density):
        s = sample(6, 12, 9, density, torch.float64)
        source = torch.randn(9, 12, dtype=torch.float64, requires_grad=True)
        masked_linear(s.input, source.sin() * 2, layer.topology(s.mask)).backward(s.grad)
        want = (s.grad.t() @ s.input) * s.mask * source.detach().cos() * 2
        assert_close(source.grad, want, torch.float64, 6)

    @pytest.mark.parametrize(
        "view",
        [
            lambda w: w.t().contiguous().t(),
            lambda w: w.repeat(2, 2)[:9, :12],
            lambda w: w.repeat_interleave(2, 1)[:, ::2],
        ],
        ids=["transposed", "sliced", "stepped"],
    )
    def test_strides(self, layer, density, view):
        s = sample(6, 12, 9, density)
        want = run(layer.bind(s.mask), s, s.weight)
        got = run(lambda x, w, b: layer.bind(s.mask)(x, view(w), b), s, s.weight)
        assert not view(s.weight).is_contiguous()
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))

    def test_expanded_weight(self, layer, density):
        s = sample(6, 12, 9, density, torch.float64)
        row = torch.randn(12, dtype=torch.float64, requires_grad=True)
        masked_linear(s.input, row.expand(9, 12), layer.topology(s.mask)).backward(s.grad)
        want = ((s.grad.t() @ s.input) * s.mask).sum(0)
        assert_close(row.grad, want, torch.float64, 54)


@pytest.mark.parametrize("density", [0.4, 0.8])
@pytest.mark.parametrize(
    "view",
    [
        lambda m: m.t().contiguous().t(),
        lambda m: m.repeat(2, 2)[:9, :12],
        # any byte that is not 0 is True, in numpy and in torch's own kernels
        lambda m: (m.to(torch.uint8) * 128).view(torch.bool),
        lambda m: (m.to(torch.uint8) * 3).view(torch.bool),
    ],
    ids=["transposed", "sliced", "bytes of 128", "bytes of 3"],
)
def test_mask_layouts(view, density):
    s = sample(6, 12, 9, density)
    want = masked_linear(s.input, s.weight, s.mask, s.bias)
    torch.testing.assert_close(masked_linear(s.input, s.weight, view(s.mask), s.bias), want)


def test_mask_is_read_at_every_call():
    """No memory of a mask that was changed in place."""
    s = sample(6, 12, 9, 0.4)
    weight = torch.randn(9, 12)
    first = masked_linear(s.input, weight, s.mask)
    s.mask.logical_not_()
    second = masked_linear(s.input, weight, s.mask)
    dense = torch.nn.functional.linear(s.input, weight)
    torch.testing.assert_close(first + second, dense)


def test_mask_changed_before_the_backward():
    """The gradient would be that of another mask: autograd must say so."""
    s = sample(6, 12, 9, 0.4)
    weight = torch.randn(9, 12, requires_grad=True)
    output = masked_linear(s.input, weight, s.mask)
    s.mask.logical_not_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_reference_backward_is_its_gradient():
    s = sample(5, 12, 9, 0.5, torch.float64)
    backward = _library.reference("masked_linear_backward")
    grads = backward(s.grad, s.input, s.weight, s.mask, True, True, True)
    for got, want, length in zip(grads, answer(s)[1:], (9, 5, 5), strict=True):
        assert_close(got, want, torch.float64, length)
    nothing = backward(s.grad, s.input, s.weight, s.mask, False, False, False)
    assert [t.numel() for t in nothing] == [0, 0, 0]


def test_forms_agree():
    """By values, by mask and by Pattern are the same kernel: the same bits."""
    s = sample(21, 40, 30, 0.3)
    answers = [run(layer.bind(s.mask), s, layer.weight(s)) for layer in LAYERS]
    dense = answers[1]
    for layer, got in zip(LAYERS, answers, strict=True):
        weight = dense.weight[s.mask] if layer.values else dense.weight
        for one, other in zip(got, dense._replace(weight=weight), strict=True):
            assert torch.equal(one, other), layer.name


X, W, M = torch.randn(4, 3), torch.randn(2, 3), torch.ones(2, 3, dtype=torch.bool)
MM = Pattern.from_mask(M)

BAD = {
    "no tensor": ((3, W, M), TypeError, "input must be a torch.Tensor, got int"),
    "integers": (
        (X.int(), W, M),
        TypeError,
        "input must be float32, float64, bfloat16 or float16, got int32",
    ),
    "sparse input": (
        (X.to_sparse(), W, M),
        TypeError,
        "input must be a strided tensor, got torch.sparse_coo",
    ),
    "scalar": ((X[0, 0], W, M), ValueError, "input must have shape (..., in) = (..., 3), got ()"),
    "width": (
        (X[:, :2], W, M),
        ValueError,
        "input must have shape (..., in) = (..., 3), got (4, 2)",
    ),
    "weight: list": ((X, [1.0], M), TypeError, "weight must be a torch.Tensor, got list"),
    "weight: dtype": (
        (X, W.double(), M),
        TypeError,
        "weight must have the dtype of input (float32), got float64",
    ),
    "weight: device": (
        (X, W.to("meta"), M),
        ValueError,
        "weight must be on the device of input (cpu), got meta",
    ),
    "weight: 1-D": ((X, W[0], M), ValueError, "weight must have 2 dimensions (out, in), got (3,)"),
    "mask: transposed": (
        (X, W, M.t()),
        ValueError,
        "mask must have shape (out, in) = (2, 3), got (3, 2)",
    ),
    "mask: float": ((X, W, M.float()), TypeError, "mask must be bool or a Pattern, got float32"),
    "mask: none": ((X, W, None), TypeError, "mask must be a torch.Tensor"),
    "mask: sparse": ((X, W, M.to_sparse()), TypeError, "mask must be a strided tensor"),
    "mask: device": (
        (X, W, M.to("meta")),
        ValueError,
        "mask must be on the device of input (cpu), got meta",
    ),
    "pattern: shape": (
        (X, W, Pattern.from_mask(M.t())),
        ValueError,
        "mask must have shape (out, in) = (2, 3), got (3, 2)",
    ),
    "pattern: device": (
        (X, W, MM.to("meta")),
        ValueError,
        "mask must be on the device of input (cpu), got meta",
    ),
    "bias: length": (
        (X, W, M, torch.ones(3)),
        ValueError,
        "bias must have shape (out,) = (2,), got (3,)",
    ),
    "bias: 2-D": (
        (X, W, M, torch.ones(1, 2)),
        ValueError,
        "bias must have shape (out,) = (2,), got (1, 2)",
    ),
    "bias: dtype": (
        (X, W, M, torch.ones(2).half()),
        TypeError,
        "bias must have the dtype of input (float32), got float16",
    ),
    "bias: number": ((X, W, M, 1.0), TypeError, "bias must be a torch.Tensor, got float"),
}


@pytest.mark.parametrize(("args", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input(args, error, message):
    with pytest.raises(error) as raised:
        masked_linear(*args)
    assert str(raised.value).startswith(f"masked_linear: {message}")
