"""torch.compile, torch.export and opcheck on the ops of the sparse family."""

import pytest
import raw_ops
import torch
from layouts import LAYOUTS, feature_major, padded
from sparse_layers import LAYERS, MASKED_PATTERN, SPARSE
from sparse_samples import random_mask, sample
from torch._dynamo.testing import CompileCounterWithBackend

import synops
from synops.nn import SparseLinear
from synops.sparse import Pattern, sparse_linear, spmm

FORMS = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)

# One of each that the driver in Python or in C++ goes another way for.
CHAINED = ["capacity", "tiles of 128", "blocks of 16", "groups, interleaved", "parts"]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()


class Network(torch.nn.Module):
    """Two sparse layers as a user writes them: a Pattern is a plain attribute."""

    def __init__(self, capacity: int = 0):
        super().__init__()
        self.hidden = Pattern.from_mask(random_mask(20, 12, 0.3))
        nnz = self.hidden.nnz
        self.hidden = Pattern.from_mask(self.hidden.mask(), capacity=nnz + capacity)
        self.values = torch.nn.Parameter(torch.randn(nnz + capacity))
        self.bias = torch.nn.Parameter(torch.randn(20))
        self.readout = Pattern.from_mask(random_mask(5, 20, 0.3))
        self.weight = torch.nn.Parameter(torch.randn(5, 20))

    def forward(self, x):
        hidden = sparse_linear(x, self.values, self.hidden, self.bias).relu()
        return synops.sparse.masked_linear(hidden, self.weight, self.readout)


def step(module, x):
    """The output, and every gradient of its square."""
    module.zero_grad()
    output = module(x)
    output.square().sum().backward()
    return [output.detach(), *(p.grad.clone() for p in module.parameters())]


def assert_same(got, want):
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other)


class TestCompile:
    @FORMS
    def test_function(self, layer):
        """One graph, forward and backward; mask or Pattern are among its arguments."""
        s = sample((2, 3), 12, 9, 0.4)
        topology = layer.topology(s.mask)
        args = [
            t.clone().requires_grad_() for t in (s.input, layer.weight(s).nan_to_num(0.5), s.bias)
        ]

        def f(input, weight, topology, bias):
            return layer.call(input.sin(), weight * 2, topology, bias).cos()

        compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
        want = f(args[0], args[1], topology, args[2])
        got = compiled(args[0], args[1], topology, args[2])
        torch.testing.assert_close(got, want)
        assert_same(torch.autograd.grad(got.sum(), args), torch.autograd.grad(want.sum(), args))

    def test_module_with_inductor(self):
        """A C++ compiler behind it: once, with Patterns as attributes and in buffers.

        Without capacity it is test_batches_do_not_recompile.
        """
        module = torch.nn.Sequential(
            Network(capacity=7), SparseLinear(5, 9, pattern=random_mask(9, 5, 0.5))
        )
        x = torch.randn(6, 12)
        want = step(module, x)
        assert_same(step(torch.compile(module, fullgraph=True), x), want)

    def test_batches_do_not_recompile(self):
        """One graph for the first batch, one for all others; regimes are inside the op."""
        module = Network()
        counter = CompileCounterWithBackend("aot_eager")
        compiled = torch.compile(module, fullgraph=True, backend=counter)
        for batch in (7, 2, 3, 4, 5, 33, 130):
            x = torch.randn(batch, 12)
            assert_same(step(compiled, x), step(module, x))
        assert counter.frame_count <= 2

    @pytest.mark.parametrize("name", CHAINED)
    def test_layouts(self, name):
        """Numbers, gradients and strides, in both layouts of memory."""
        pattern = LAYOUTS[name].make()

        def f(x, values, pattern, fm):
            return sparse_linear(x.sin(), values, pattern, activation="gelu", feature_major=fm)

        compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
        values = padded(pattern, torch.randn(pattern.nnz))
        # Two traces of a second each: a layout in both batches and both memories of the result,
        # and the next layout in the other two pairs.
        odd = CHAINED.index(name) % 2 == 1
        for batch, fm in ((2, odd), (33, not odd)):
            torch._dynamo.reset()  # layouts of memory are guards
            rows = torch.randn(batch, pattern.shape[1])
            for x in (rows, feature_major(rows)):
                leaves = [x.clone().requires_grad_(), values.clone().requires_grad_()]
                want, got = f(*leaves, pattern, fm), compiled(*leaves, pattern, fm)
                torch.testing.assert_close(got, want)
                assert got.stride() == want.stride()
                grads = [torch.autograd.grad(y.sum(), leaves) for y in (got, want)]
                for one, other in zip(*grads, strict=True):
                    torch.testing.assert_close(one, other)
                    assert one.stride() == other.stride()
                with torch.no_grad():  # the activation is part of the product
                    got = compiled(x, values, pattern, fm)
                torch.testing.assert_close(got, want.detach())
                assert got.stride() == want.stride()

    def test_another_pattern_of_the_same_shape(self):
        """A graph does not keep the entries of the Pattern that it was traced with."""
        compiled = torch.compile(sparse_linear, fullgraph=True, backend="aot_eager")
        for _ in range(3):
            s = sample(6, 12, 9, 0.4)
            pattern = Pattern.from_mask(s.mask)
            want = sparse_linear(s.input, s.values, pattern, s.bias)
            assert torch.equal(compiled(s.input, s.values, pattern, s.bias), want)

    def test_autocast_inside(self):
        module = Network()

        def f(x):
            with torch.autocast("cpu", torch.bfloat16):
                return module(x)

        x = torch.randn(6, 12)
        got = torch.compile(f, fullgraph=True, backend="aot_eager")(x)
        assert got.dtype == torch.bfloat16
        assert_same(got, f(x))

    @pytest.mark.parametrize("backend", ["reference", "cpp"])
    def test_backend_is_guarded(self, backend):
        """A graph traced under one backend is not used under another."""
        counter = CompileCounterWithBackend("aot_eager")
        compiled = torch.compile(sparse_linear, fullgraph=True, backend=counter)
        s = sample(6, 12, 9, 0.4)
        args = (s.input, s.values, Pattern.from_mask(s.mask), s.bias)
        want = compiled(*args)
        assert _ops_of(counter.graphs[-1]) == ["synops.sparse_linear.default"]
        with synops.backend(backend):
            assert_same(compiled(*args), want)
        kernels = _ops_of(counter.graphs[-1])
        assert kernels == ([] if backend == "reference" else ["synops.sparse_linear.default"])

    def test_triton_on_the_cpu_is_refused(self):
        """A graph that was asked for a kernel it cannot have does not take another."""
        s = sample(6, 12, 9, 0.4)
        pattern = Pattern.from_mask(s.mask)
        f = torch.compile(lambda x: sparse_linear(x, s.values, pattern, backend="triton"))
        with pytest.raises(RuntimeError, match="triton"):
            f(s.input)


def _ops_of(graph):
    names = (str(node.target) for node in graph.graph.nodes if node.op == "call_function")
    return [name for name in names if name.startswith("synops.")]


class TestExport:
    @pytest.mark.parametrize("strict", [False, True])
    def test_dynamic_batch(self, strict):
        module = Network()
        batch = torch.export.Dim("batch")
        program = torch.export.export(
            module, (torch.randn(6, 12),), dynamic_shapes=({0: batch},), strict=strict
        )
        for size in (1, 2, 3, 4, 70):
            x = torch.randn(size, 12)
            torch.testing.assert_close(program.module()(x), module(x))

    def test_pattern_as_an_input(self):
        class Layer(torch.nn.Module):
            def forward(self, x, values, pattern):
                return sparse_linear(x, values, pattern)

        s = sample(6, 12, 9, 0.4)
        pattern = Pattern.from_mask(s.mask)
        program = torch.export.export(Layer(), (s.input, s.values, pattern))
        want = sparse_linear(s.input, s.values, pattern)
        assert torch.equal(program.module()(s.input, s.values, pattern), want)

    @pytest.mark.parametrize("name", CHAINED)
    def test_layouts(self, name, tmp_path):
        """Both memories of a result, saved and loaded."""
        pattern = LAYOUTS[name].make()
        values = padded(pattern, torch.randn(pattern.nnz)).nan_to_num(0.5)

        class Products(torch.nn.Module):
            def forward(self, x, values, pattern):
                product = sparse_linear(x, values, pattern, activation="relu", feature_major=True)
                return product, spmm(values, pattern, x.t())

        x = torch.randn(33, pattern.shape[1])
        program = torch.export.export(Products(), (x, values, pattern))
        torch.export.save(program, tmp_path / "products.pt2")
        with torch.serialization.safe_globals([Pattern]):  # example inputs are saved as well
            loaded = torch.export.load(tmp_path / "products.pt2").module()
        want, got = Products()(x, values, pattern), loaded(x, values, pattern)
        torch.testing.assert_close(got, want)
        assert [t.stride() for t in got] == [t.stride() for t in want]

    def test_saved_and_loaded(self, tmp_path):
        module = Network()
        program = torch.export.export(module, (torch.randn(6, 12),))
        torch.export.save(program, tmp_path / "network.pt2")
        loaded = torch.export.load(tmp_path / "network.pt2").module()
        x = torch.randn(6, 12)
        torch.testing.assert_close(loaded(x), module(x))

    def test_from_mask_inside(self):
        """The number of entries is known when the graph runs."""

        class FromMask(torch.nn.Module):
            def forward(self, x, mask):
                crow, col = torch.ops.synops.pattern_from_mask(mask)
                return x + col.sum() + crow[-1]

        mask = random_mask(5, 7, 0.4)
        x = torch.randn(())
        program = torch.export.export(FromMask(), (x, mask))
        other = random_mask(5, 7, 0.8)
        assert torch.equal(program.module()(x, other), FromMask()(x, other))


NO_GRADIENT = {
    "magnitude_threshold",
    "grow_topk",
    "grow_topk_dense",
    "prune_and_grow_carry",
    "unit_stats",
}


def samples():
    """Every raw op: both regimes of the batch, half precision, gradients wanted.

    Not all four: what a fake says of shapes looks at the batch, and of types at the type.
    """
    for batch, dtype in ((2, torch.bfloat16), (6, torch.float32)):
        for op, args in raw_ops.arguments(dtype, batch).items():
            name = str(dtype).removeprefix("torch.")
            yield pytest.param(op, args, id=f"{op}-{name}-{batch}")


@pytest.mark.parametrize(("op", "args"), list(samples()))
def test_opcheck(op, args):
    def leaf(a):
        # These have no gradient; opcheck cannot add indices to scores that claim one.
        wanted = op not in NO_GRADIENT and isinstance(a, torch.Tensor) and a.is_floating_point()
        return a.detach().requires_grad_() if wanted else a

    torch.library.opcheck(getattr(torch.ops.synops, op).default, [leaf(a) for a in args.values()])


@pytest.mark.parametrize("op", ["sparse_linear", "masked_linear"])
def test_opcheck_without_bias(op):
    args = raw_ops.arguments()[op] | {"bias": None}
    torch.library.opcheck(getattr(torch.ops.synops, op).default, list(args.values()))


@pytest.mark.parametrize("kind", ["tiled", "blocks"])
def test_opcheck_layouts(kind):
    """What a fake says of strides is what comes out, in either memory."""
    for fm in (False, True):
        args = raw_ops.arguments(batch=20, kind=kind)["sparse_linear"] | {"feature_major": fm}
        args["input"] = feature_major(args["input"]) if fm else args["input"]
        torch.library.opcheck(torch.ops.synops.sparse_linear.default, list(args.values()))
        args = raw_ops.arguments(batch=20, kind=kind)["sparse_linear_backward"]
        args["input"] = feature_major(args["input"]) if fm else args["input"]
        torch.library.opcheck(torch.ops.synops.sparse_linear_backward.default, [*args.values()])


@pytest.mark.parametrize(("rows", "cols"), [(40, 400), (400, 40)])
def test_opcheck_tiled(rows, cols):
    """The shape of the tile pointers depends on the number of entries."""
    crow, col = torch.ops.synops.pattern_from_mask(torch.rand(rows, cols) < 0.5)
    torch.library.opcheck(torch.ops.synops.pattern_plan.default, (crow, col, cols))
    row_ptr, _, col_ptr, *_ = torch.ops.synops.pattern_plan(crow, col, cols)
    assert (len(row_ptr) > rows + 1) == (cols > rows)
    assert (len(col_ptr) > cols + 1) == (rows > cols)


@pytest.mark.parametrize("layer", [SPARSE, MASKED_PATTERN], ids=lambda layer: layer.name)
def test_make_fx(layer):
    """The graph of a training step has the ops, and no dense weight of the sparse layer."""
    from torch.fx.experimental.proxy_tensor import make_fx

    s = sample(6, 12, 9, 0.4)
    call = layer.bind(s.mask)

    def f(x, w):
        w = w.detach().requires_grad_()
        return torch.autograd.grad(call(x, w).sum(), w)[0]

    weight = layer.weight(s).nan_to_num(0.5)
    graph = make_fx(f, tracing_mode="symbolic", _allow_non_fake_inputs=True)(s.input, weight)
    assert "synops.sparse_linear_backward.default" in _ops_of(graph)
    torch.testing.assert_close(graph(s.input, weight), f(s.input, weight))
