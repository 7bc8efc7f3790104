"""The Triton kernels of the sparse family, through the public functions with backend="triton".

On a GPU, or interpreted on the CPU: ``TRITON_INTERPRET=1 pytest -m triton``, where a program takes
a millisecond, so that shapes are small. The float64 answers are computed on the CPU.
"""

import pytest
import torch
from raw_ops import arguments
from sparse_layers import LAYERS, MASKED, SPARSE
from sparse_samples import DTYPES, Answer, Sample, answer, check, run, sample

import synops
from close import assert_close
from synops._library import launcher
from synops.sparse import Pattern, masked_linear, sparse_linear

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
triton = pytest.mark.triton
every_layer = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)

# batch, in, out, density. The first of each list are for every dtype.
SPARSE_SHAPES = [
    (1, 1, 1, 1.0),  # one entry; a slab of one batch row
    (17, 65, 9, 0.3),  # one past: float64 slab, columns of a turned tile, rows of a program
    (33, 20, 8, 0.3),  # one past the float32 slab; exactly the rows of a program
    (65, 5, 30, 0.5),  # one past the 16-bit slab; output rows of a few entries
    (2, 300, 3, 1.0),  # rows of several steps; of several programs in SDDMM and gather
    (3, 40, 9, 0.02),  # most rows empty
    (3, 7, 9, 0.0),  # all of them, without a launch
]
MASKED_SHAPES = [
    (1, 1, 1, 1.0),  # smaller than every tile
    (17, 65, 129, 0.3),  # one past the interpreted tile along every axis
    (16, 64, 128, 0.3),  # exactly one
    (130, 20, 7, 0.5),  # several tiles of batch rows, several steps of the weight gradient
    (2, 3, 1100, 0.3),  # more tiles than a group
    (3, 40, 9, 0.0),  # no entry: the weight gradient skips its sums
]
EMPTY_SHAPES = [(0, 5, 7, 0.5), (3, 0, 7, 1.0), (3, 5, 0, 1.0), (0, 0, 0, 1.0)]


def on(device, t):
    return t if t is None else t.to(device)


def verify(layer, s):
    """``layer.check`` on this device, of Triton."""
    there = Sample(*(on(DEVICE, t) for t in vars(s).values()))
    got = run(layer.bind(there.mask, backend="triton"), there, layer.weight(there))
    got = Answer(*(on("cpu", t) for t in got))
    if s.input.dtype != torch.bfloat16 or DEVICE == "cuda":
        check(got, s, values=layer.values)
        return
    # The interpreter cuts to bfloat16 where a GPU rounds: up to an ulp, always towards zero, which
    # the vector comparison would see.
    want = answer(s)
    weight = want.weight[s.mask] if layer.values else want.weight.masked_fill(~s.mask, 0)
    for g, w in zip(got, (want.output, want.input, weight, want.bias), strict=True):
        assert_close(g, w, torch.bfloat16, s.mask.numel())


@triton
class TestAnswers:
    @every_dtype
    @pytest.mark.parametrize("shape", SPARSE_SHAPES[:2], ids=str)
    def test_sparse_linear(self, shape, dtype):
        verify(SPARSE, sample(*shape, dtype))

    @pytest.mark.parametrize("shape", SPARSE_SHAPES[2:], ids=str)
    def test_sparse_linear_float32(self, shape):
        verify(SPARSE, sample(*shape))

    def test_sparse_linear_16_bit_slabs(self):
        verify(SPARSE, sample(*SPARSE_SHAPES[3], torch.float16))

    @every_dtype
    @pytest.mark.parametrize("shape", MASKED_SHAPES[:2], ids=str)
    def test_masked_linear(self, shape, dtype):
        verify(MASKED, sample(*shape, dtype))

    @pytest.mark.parametrize("shape", MASKED_SHAPES[2:], ids=str)
    def test_masked_linear_float32(self, shape):
        verify(MASKED, sample(*shape))

    @every_layer
    @pytest.mark.parametrize("shape", EMPTY_SHAPES, ids=str)
    def test_empty(self, layer, shape):
        verify(layer, sample(*shape))

    @every_layer
    def test_no_bias(self, layer):
        verify(layer, sample(3, 20, 9, 0.3, bias=False))

    @every_layer
    def test_leading_dimensions(self, layer):
        verify(layer, sample((2, 3), 20, 9, 0.3))

    @every_dtype
    def test_pattern_as_mask(self, dtype):
        """Gathers the weight and scatters its gradient."""
        verify(LAYERS[2], sample(3, 20, 9, 0.3, dtype))


VIEWS = {
    "transposed": lambda x: x.t().contiguous().t(),
    "sliced rows": lambda x: torch.cat([x, x, x], 1)[:, 3 : 3 + x.shape[1]],
    "stepped rows": lambda x: x.repeat_interleave(2, 0)[::2],
    "expanded": lambda x: x[:1, :1].expand(x.shape),
    "expanded rows": lambda x: x[:1].expand(x.shape),
}


@triton
@every_layer
class TestLayouts:
    # 16: rows of full reads, which a view may unalign
    @pytest.mark.parametrize("features", [16, 5])
    @pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
    def test_views(self, layer, view, features):
        s = sample(6, features, features, 0.5)
        s.input, s.grad = view(s.input), view(s.grad)
        verify(layer, s)


@triton
class TestStridedWeight:
    @pytest.mark.parametrize("of", ["weight", "mask"])
    def test_transposed(self, of):
        x, weight = torch.randn(4, 9, device=DEVICE), torch.randn(5, 9, device=DEVICE)
        mask = torch.rand(5, 9, device=DEVICE) < 0.5
        want = masked_linear(x, weight, mask, backend="reference")
        weight, mask = (
            t.t().contiguous().t() if name == of else t
            for name, t in (("weight", weight), ("mask", mask))
        )
        weight.requires_grad_()
        got = masked_linear(x, weight, mask, backend="triton")
        torch.testing.assert_close(got, want)
        (grad,) = torch.autograd.grad(got.sum(), weight)
        torch.testing.assert_close(grad, x.sum(0).expand(5, 9).masked_fill(~mask, 0))


@triton
class TestUnread:
    def test_tail_of_the_capacity(self):
        s = sample(3, 20, 9, 0.3, bias=False)
        pattern = Pattern.from_mask(s.mask, capacity=int(s.mask.sum()) + 7).to(DEVICE)
        values = torch.cat([s.values, torch.full((7,), torch.nan)]).to(DEVICE).requires_grad_()
        output = sparse_linear(s.input.to(DEVICE), values, pattern, backend="triton")
        output.backward(s.grad.to(DEVICE))
        want = answer(s)
        assert_close(output.detach().cpu(), want.output, torch.float32, 20)
        assert_close(values.grad[:-7].cpu(), want.weight[s.mask], torch.float32, 3)
        assert not values.grad[-7:].any()

    def test_masked_out_inf(self):
        """NaN is in every sample; inf times zero would be NaN as well."""
        s = sample(17, 20, 9, 0.3)
        s.weight.masked_fill_(~s.mask, torch.inf)
        verify(MASKED, s)

    def test_batch_rows_do_not_mix(self):
        s = sample(5, 20, 9, 0.3)
        s.input[2] = torch.nan
        pattern = Pattern.from_mask(s.mask).to(DEVICE)
        output = sparse_linear(s.input.to(DEVICE), s.values.to(DEVICE), pattern, backend="triton")
        clean = output.isfinite().all(1).tolist()
        assert clean == [True, True, False, True, True]

    @pytest.mark.parametrize("needed", range(3))
    @pytest.mark.parametrize("op", ["sparse_linear_backward", "masked_linear_backward"])
    def test_only_what_is_needed(self, op, needed):
        *args, _, _, _ = arguments()[op].values()
        args = [t.to(DEVICE) for t in args]
        want = launcher(op)(*args, True, True, True)
        got = launcher(op)(*args, *(i == needed for i in range(3)))
        for i, (g, w) in enumerate(zip(got, want, strict=True)):
            assert torch.equal(g, w) if i == needed else g.numel() == 0 and g.dim() == w.dim()


@triton
class TestAutograd:
    @every_layer
    def test_gradcheck(self, layer):
        s = sample(2, 3, 2, 0.6, torch.float64)
        args = [t.nan_to_num(0.5).to(DEVICE) for t in (s.input, layer.weight(s), s.bias)]
        args = [t.requires_grad_() for t in args]
        torch.autograd.gradcheck(layer.bind(s.mask.to(DEVICE), backend="triton"), args)

    def test_gradgradcheck(self):
        s = sample(1, 2, 2, 1.0, torch.float64)
        args = [t.to(DEVICE).requires_grad_() for t in (s.input, s.values)]
        torch.autograd.gradgradcheck(SPARSE.bind(s.mask.to(DEVICE), backend="triton"), args)

    @every_layer
    def test_twice_the_same(self, layer):
        s = sample(33, 40, 20, 0.4)
        s = Sample(*(on(DEVICE, t) for t in vars(s).values()))
        once, again = (
            run(layer.bind(s.mask, backend="triton"), s, layer.weight(s)) for _ in range(2)
        )
        assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


@triton
class TestPattern:
    # 1030: two steps of from_mask, 300 entries a row: two programs of gather and scatter
    @pytest.mark.parametrize(
        "shape", [(3, 1030, 0.3), (5, 7, 0.0), (5, 7, 1.0), (0, 4, 1.0), (4, 0, 1.0)], ids=str
    )
    def test_from_mask(self, shape):
        rows, cols, density = shape
        mask = torch.rand(rows, cols) < density
        with synops.backend("triton"):
            pattern = Pattern.from_mask(mask.to(DEVICE))
            assert torch.equal(pattern.mask().cpu(), mask)
        for got, want in zip(pattern.tensors, Pattern.from_mask(mask).tensors, strict=True):
            assert torch.equal(got.cpu(), want)

    @every_dtype
    def test_gather_and_scatter_copy(self, dtype):
        mask = torch.rand(3, 1030) < 0.3
        weight = torch.randn(3, 1030).to(dtype)
        pattern = Pattern.from_mask(mask).to(DEVICE)
        values = pattern.gather(weight.to(DEVICE), backend="triton")
        assert torch.equal(values.cpu(), weight[mask])
        dense = pattern.scatter(values, backend="triton")
        assert torch.equal(dense.cpu(), weight.masked_fill(~mask, 0))


def wrong(t):
    """Bounds and indices that point before and behind everything."""
    return torch.where(torch.arange(t.numel()).view(t.shape) % 2 == 0, 2**31 - 1, -5).to(t)


@triton
class TestRawLaunchers:
    @pytest.mark.parametrize("spoilt", ["row_ptr", "col", "col_ptr", "row"])
    @pytest.mark.parametrize(
        "op", ["pattern_gather", "pattern_scatter", "sparse_linear", "sparse_linear_backward"]
    )
    def test_indices_outside_are_skipped(self, op, spoilt):
        """No address is formed from them: the interpreter would end this process."""
        args = arguments()[op]
        if spoilt in args:
            args[spoilt] = wrong(args[spoilt])
        args = [on(DEVICE, t) if isinstance(t, torch.Tensor) else t for t in args.values()]
        result = launcher(op)(*args)
        results = result if isinstance(result, tuple) else (result,)
        assert all(r.device.type == DEVICE for r in results)

    @pytest.mark.parametrize(
        ("op", "argument", "change"),
        [
            ("pattern_from_mask", "mask", torch.Tensor.float),
            ("pattern_gather", "weight", lambda t: t[1:]),
            ("pattern_gather", "col", torch.Tensor.long),
            ("pattern_scatter", "values", lambda t: t[1:]),
            ("sparse_linear", "input", lambda t: t[:, 1:]),
            ("sparse_linear", "values", lambda t: t[1:]),
            ("sparse_linear", "bias", lambda t: t[1:]),
            ("sparse_linear", "perm", lambda t: t[1:]),
            ("sparse_linear", "row_ptr", lambda t: t[:1]),
            ("sparse_linear_backward", "grad", lambda t: t[1:]),
            ("sparse_linear_backward", "input", torch.Tensor.double),
            ("masked_linear", "mask", lambda t: t[1:]),
            ("masked_linear", "input", torch.Tensor.long),
            ("masked_linear", "bias", lambda t: t[1:]),
            ("masked_linear_backward", "grad", lambda t: t[:, 1:]),
            ("masked_linear_backward", "input", lambda t: t[1:]),
        ],
    )
    def test_wrong_arguments_raise(self, op, argument, change):
        args = arguments()[op]
        args[argument] = change(args[argument])
        args = [on(DEVICE, t) if isinstance(t, torch.Tensor) else t for t in args.values()]
        with pytest.raises(RuntimeError, match=f"^{op}: "):
            launcher(op)(*args)
