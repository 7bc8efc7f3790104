"""The Triton kernels of the sparse family, through the public functions with backend="triton".

On a GPU, or interpreted on the CPU: ``TRITON_INTERPRET=1 pytest -m triton``, where a program takes
a millisecond, so that shapes are small. The float64 answers are computed on the CPU.
"""

import importlib
from dataclasses import replace

import pytest
import torch
from sparse_layers import LAYERS, MASKED, SPARSE, Layer
from sparse_samples import DTYPES, Answer, Sample, answer, check, run, sample

import synops
from close import assert_close
from synops._library import launcher, reference
from synops.sparse import Pattern, masked_linear, sparse_linear

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
triton = pytest.mark.triton
every_layer = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)

# batch, in, out, density. The first of each list are for every dtype.
SPARSE_SHAPES = [
    (1, 1, 1, 1.0),  # one entry; a slab of one batch row
    (17, 65, 17, 0.3),  # one past: float64 line, columns of a turned tile, rows of a program
    (17, 40, 200, 0.01),  # so sparse that the value gradient is gathered, not sampled
    (17, 150, 70, 0.3),  # several sampled tiles
    (33, 20, 16, 0.3),  # one past the float32 line; exactly the rows of a program
    (65, 5, 30, 0.5),  # one past the 16-bit line; output rows of a few entries
    (3, 20, 300, 0.3),  # three tiles of the transpose
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
# rows of a block, how far apart, batch, in, out, density of blocks. The first three are for every
# dtype.
BLOCK_SHAPES = [
    (16, 1, 17, 65, 32, 0.3),  # least rows; several windows and steps of columns
    (32, 3, 65, 40, 192, 0.3),  # interleaved, two groups; one past the batch of a tile
    (128, 1, 16, 20, 128, 0.5),  # most rows, least batch: parts of a block in the input gradient
    (64, 2, 33, 70, 256, 0.3),  # two windows
    (16, 1, 20, 30, 2112, 0.1),  # more blocks than a step of the plan
    (16, 1, 1040, 20, 16, 0.5),  # the larger tile of the batch, twice one and a rest
    (16, 1, 20, 40, 48, 0.0),  # no entries
    (16, 1, 15, 40, 32, 0.3),  # a batch too small for blocks, and 8 rows: entry by entry
    (8, 1, 17, 40, 32, 0.3),
]
EMPTY_SHAPES = [(0, 5, 7, 0.5), (3, 0, 7, 1.0), (3, 5, 0, 1.0), (0, 0, 0, 1.0)]


def on(device, t):
    return t if t is None else t.to(device)


def block_mask(rows, step, out, columns, density):
    """Every block its own columns."""
    lists = torch.rand(out // (rows * step), 1, step, columns) < density
    return lists.expand(-1, rows, -1, -1).reshape(out, columns)


def blocked(rows, step):
    """sparse_linear of patterns with such blocks."""

    def topology(mask):
        return replace(Pattern.from_mask(mask), block=(rows, step))

    return Layer("blocks", True, topology, sparse_linear)


def block_sample(rows, step, batch, columns, out, density, dtype=torch.float32):
    s = sample(batch, columns, out, density, dtype)
    s.mask = block_mask(rows, step, out, columns, density)
    s.weight = torch.randn(out, columns).masked_fill(~s.mask, torch.nan).to(dtype)
    return s


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
    @pytest.mark.parametrize("shape", SPARSE_SHAPES[:3], ids=str)
    def test_sparse_linear(self, shape, dtype):
        verify(SPARSE, sample(*shape, dtype))

    @pytest.mark.parametrize("shape", SPARSE_SHAPES[3:], ids=str)
    def test_sparse_linear_float32(self, shape):
        verify(SPARSE, sample(*shape))

    def test_sparse_linear_16_bit_slabs(self):
        verify(SPARSE, sample(*SPARSE_SHAPES[5], torch.float16))

    @every_dtype
    @pytest.mark.parametrize("shape", BLOCK_SHAPES[:3], ids=str)
    def test_row_blocks(self, shape, dtype):
        verify(blocked(*shape[:2]), block_sample(*shape, dtype))

    @pytest.mark.parametrize("shape", BLOCK_SHAPES[3:], ids=str)
    def test_row_blocks_float32(self, shape):
        verify(blocked(*shape[:2]), block_sample(*shape))

    def test_row_blocks_16_bit_batch(self):
        verify(blocked(16, 1), block_sample(*BLOCK_SHAPES[5], torch.float16))

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


def feature_major(t):
    return t.t().contiguous().t()


@triton
class TestFeatureMajor:
    """Activations of a chain of sparse layers: batch innermost, read and written as they are."""

    @pytest.mark.parametrize("activation", [None, "relu", "gelu"])
    @pytest.mark.parametrize("turned", [False, True], ids=["row-major", "feature-major"])
    @pytest.mark.parametrize("block", [(1, 1), (16, 2)], ids=str)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_output(self, block, turned, activation, dtype):
        s = block_sample(16, 2, 33, 20, 32, 0.4, dtype)
        s.bias[3] = torch.nan  # stays one
        layer = blocked(*block)
        options = {"activation": activation, "feature_major": turned}
        args = [t.to(DEVICE) for t in (s.input, s.values, s.bias)]
        got = layer.bind(s.mask.to(DEVICE), backend="triton", **options)(*args)
        want = layer.bind(s.mask, backend="reference", **options)(
            *(t.double() for t in (s.input, s.values, s.bias))
        )
        assert got.stride() == want.stride()
        torch.testing.assert_close(got.cpu(), want.to(dtype), equal_nan=True)
        assert got[:, 3].isnan().all()

    @pytest.mark.parametrize("batch", [32, 33])
    @pytest.mark.parametrize("block", [(1, 1), (16, 2)], ids=str)
    def test_gradients(self, block, batch):
        s = block_sample(16, 2, batch, 20, 32, 0.4)
        s.input, s.grad = feature_major(s.input), feature_major(s.grad)
        verify(blocked(*block), s)

    @pytest.mark.parametrize("block", [(1, 1), (16, 2)], ids=str)
    @pytest.mark.parametrize("turned", [False, True], ids=["row-major", "feature-major"])
    def test_gradient_has_the_layout_of_the_input(self, block, turned):
        args = arguments("sparse_linear_backward", block)
        if turned:
            args["input"] = feature_major(args["input"])
        grad_input, _, _ = launcher("sparse_linear_backward")(*args.values())
        assert grad_input.stride() == args["input"].stride()


@triton
class TestSlab:
    @pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
    @pytest.mark.parametrize("batch", [1, 5, 32, 70])
    def test_holds_the_operand_and_zeros(self, view, batch):
        x = view(torch.randn(batch, 65, device=DEVICE))
        slab = slabs().slab_of(x)
        assert slab.features == 65
        runs = slab.data.as_strided((65, slab.width), (slab.ld, 1))
        assert torch.equal(runs[:, :batch], x.t())
        assert not runs[:, batch:].any()
        assert slab.width % slabs().line_of(x.dtype, batch) == 0

    def test_is_the_operand_where_it_can_be(self):
        x = feature_major(torch.randn(64, 20, device=DEVICE))
        rows = feature_major(torch.randn(65, 20, device=DEVICE))
        of = {"whole": x, "half": x[:32], "unaligned": x[1:33], "ragged": x[:33], "odd": rows[:64]}
        direct = {name for name, t in of.items() if slabs().slab_of(t).data is t}
        assert direct == {"whole", "half"}


def slabs():
    """The kernels are imported with the first test that runs them."""
    return importlib.import_module("synops.kernels.sparse.slab")


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
    @pytest.mark.parametrize(
        ("op", "block"),
        [
            ("sparse_linear_backward", (1, 1)),
            ("sparse_linear_backward", (16, 2)),
            ("masked_linear_backward", (1, 1)),
        ],
        ids=str,
    )
    def test_only_what_is_needed(self, op, block, needed):
        *args, _, _, _ = arguments(op, block).values()
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

    def test_twice_the_same_row_blocks(self):
        args = arguments("sparse_linear_backward", (16, 2))
        once, again = (launcher("sparse_linear_backward")(*args.values()) for _ in range(2))
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


def arguments(op, block=(1, 1)):
    """A valid call by argument name, in the order of the schema."""
    batch, cols, out = (20, 40, 64) if block[0] > 1 else (6, 7, 5)
    mask = block_mask(*block, out, cols, 0.4)
    mask[:, 0] = True
    pattern = replace(Pattern.from_mask(mask), block=block)
    pool = {"mask": mask, "in_features": cols, "activation": 0, "feature_major": False}
    pool |= {"input": torch.randn(batch, cols), "grad": torch.randn(batch, out)}
    pool |= {"weight": torch.randn(out, cols), "bias": torch.randn(out)}
    pool |= {"values": torch.randn(pattern.nnz)}
    pool |= dict.fromkeys(("need_input", "need_values", "need_weight", "need_bias"), True)
    names = ["crow", "col", "row_ptr", "tile_col", "col_ptr", "tile_row", "perm", "bits"]
    pool |= zip([*names, "block_rows", "block_step"], pattern.args, strict=True)
    schema = getattr(torch.ops.synops, op).default._schema
    args = {a.name: pool[a.name] for a in schema.arguments}
    return {k: on(DEVICE, v) if isinstance(v, torch.Tensor) else v for k, v in args.items()}


def wrong(t):
    """Bounds and indices that point before and behind everything."""
    return torch.where(torch.arange(t.numel()).view(t.shape) % 2 == 0, 2**31 - 1, -5).to(t)


SPARSE_OPS = ["sparse_linear", "sparse_linear_backward"]


@triton
class TestRawLaunchers:
    @pytest.mark.parametrize(
        ("op", "spoilt", "block"),
        [
            (op, spoilt, (1, 1))
            for op in ("pattern_gather", "pattern_scatter", *SPARSE_OPS)
            for spoilt in ("crow", "col", "col_ptr", "tile_row", "perm")
            if op in SPARSE_OPS or spoilt in ("crow", "col")
        ]
        + [(op, spoilt, (16, 2)) for op in SPARSE_OPS for spoilt in ("crow", "col")],
        ids=str,
    )
    def test_indices_outside_are_skipped(self, op, spoilt, block):
        """No address is formed from them: the interpreter would end this process."""
        args = arguments(op, block)
        args[spoilt] = wrong(args[spoilt])
        result = launcher(op)(*args.values())
        results = result if isinstance(result, tuple) else (result,)
        assert all(r.device.type == DEVICE for r in results)

    @pytest.mark.parametrize("block", [(16, 1), (16, 2), (32, 1), (64, 1), (32, 2)], ids=str)
    @pytest.mark.parametrize("op", SPARSE_OPS)
    def test_false_blocks_are_harmless(self, op, block):
        """Rows of all lengths, that claim to be equal; an empty first row, and a full one."""
        args = arguments(op, (16, 2))
        mask = torch.rand(64, 40) < torch.rand(64, 1)
        mask[0], mask[16], mask[32] = False, True, False
        pattern = replace(Pattern.from_mask(mask), block=block).to(DEVICE)
        args["values"] = torch.randn(pattern.nnz, device=DEVICE)
        places = [name for name in args if name in vars(pattern)]
        args |= {name: getattr(pattern, name) for name in places}
        args |= {"block_rows": block[0], "block_step": block[1]}
        got = launcher(op)(*args.values())
        want = reference(op)(*args.values())
        got, want = (r if isinstance(r, tuple) else (r,) for r in (got, want))
        assert [g.shape for g in got] == [w.shape for w in want]

    @pytest.mark.parametrize("block", [(24, 1), (16, 3), (0, 1), (16, 0), (-16, -2), (2**40, 1)])
    def test_impossible_blocks_are_ignored(self, block):
        args = arguments("sparse_linear", (16, 2))
        want = launcher("sparse_linear")(*args.values())
        args |= {"block_rows": block[0], "block_step": block[1]}
        torch.testing.assert_close(launcher("sparse_linear")(*args.values()), want)

    @pytest.mark.parametrize(
        ("op", "argument", "change"),
        [
            ("pattern_from_mask", "mask", torch.Tensor.float),
            ("pattern_gather", "weight", lambda t: t[1:]),
            ("pattern_gather", "col", torch.Tensor.long),
            ("pattern_gather", "crow", lambda t: t[None]),
            ("pattern_scatter", "values", lambda t: t[1:]),
            ("pattern_scatter", "crow", lambda t: t[:0]),
            ("sparse_linear", "input", lambda t: t[0]),
            ("sparse_linear", "values", lambda t: t[1:]),
            ("sparse_linear", "bias", lambda t: t[1:]),
            ("sparse_linear", "activation", lambda _: 3),
            ("sparse_linear_backward", "perm", lambda t: t[1:]),
            ("sparse_linear_backward", "tile_row", torch.Tensor.int),
            ("sparse_linear_backward", "col_ptr", lambda t: t[1:]),
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
        args = arguments(op)
        args[argument] = change(args[argument])
        with pytest.raises(RuntimeError, match=f"^{op}: "):
            launcher(op)(*args.values())
