"""The C++ autograd node, against the Python function that stands in for it: the same semantics."""

import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import torch
from sparse_layers import MASKED, SPARSE
from sparse_samples import sample
from torch.autograd import Function, graph
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import synops
from synops import _library, _node
from synops._bilinear import BilinearOp
from synops.sparse import Pattern, _masked_linear, _sparse_linear

OPS = (_sparse_linear._op, _masked_linear._op)
NAMES = {SPARSE.name: "SparseLinearBackward", MASKED.name: "MaskedLinearBackward"}


@pytest.fixture(params=["node", "python"])
def way(request, monkeypatch):
    """Both ways of a call with a gradient."""
    if request.param == "python":
        for op in OPS:
            monkeypatch.setattr(op, "native", None)
    return request.param


@pytest.fixture(params=[SPARSE, MASKED], ids=lambda layer: layer.name)
def layer(request):
    return request.param


class Call:
    """A float64 call of a layer with leaves that require gradients."""

    def __init__(self, layer, needed=(0, 1, 2), batch=6):
        s = sample(batch, 5, 7, 0.4, torch.float64)
        self.topology = layer.topology(s.mask)
        self.leaves = [s.input, layer.weight(s).nan_to_num(0.5), s.bias]
        for i in needed:
            self.leaves[i].requires_grad_()
        self.layer, self.needed = layer, [self.leaves[i] for i in needed]

    def __call__(self, *args):
        input, weight, bias = args or self.leaves
        return self.layer.call(input, weight, self.topology, bias)

    def grads(self, output=None, **options):
        output = self() if output is None else output
        return torch.autograd.grad(output.square().sum(), self.needed, **options)

    def by_python(self, monkeypatch):
        with monkeypatch.context() as patch:
            for op in OPS:
                patch.setattr(op, "native", None)
            return self.grads()


def assert_equal(got, want):
    assert len(got) == len(want)
    assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))


def assert_close(got, want):
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w)


class Seen(TorchDispatchMode):
    """Arguments of every synops op."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "synops":
            self.calls.append((func.overloadpacket.__name__, args))
        return func(*args, **(kwargs or {}))


class TestChoice:
    """Which way a call takes."""

    def test_auto_takes_the_node(self, layer):
        output = Call(layer)()
        assert output.grad_fn.name() == NAMES[layer.name]
        assert NAMES[layer.name] in repr(output)
        assert "C++ node" in synops.show_config()

    def test_named_backend_and_fallback_do_not(self, layer, monkeypatch):
        call = Call(layer)
        with synops.backend("cpp"):
            assert "function" in call().grad_fn.name()
        for op in OPS:
            monkeypatch.setattr(op, "native", None)
        assert "function" in call().grad_fn.name()

    @pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)])
    def test_equals_python(self, layer, needed, monkeypatch):
        call = Call(layer, needed)
        edges = [e[0] is not None for e in call().grad_fn.next_functions]
        assert edges == [i in needed for i in range(3)]
        assert_equal(call.grads(), call.by_python(monkeypatch))

    def test_without_a_gradient_there_is_no_graph(self, layer):
        call = Call(layer)
        want = call().detach()
        with torch.no_grad():
            assert call().grad_fn is None
        for t in call.leaves:
            t.requires_grad_(False)
        got = call()
        assert got.grad_fn is None
        assert not got.requires_grad
        assert torch.equal(got, want)

    def test_a_function_mode_sees_the_op(self, way, layer):
        class Mode(TorchFunctionMode):
            names: tuple = ()

            def __torch_function__(self, func, types, args=(), kwargs=None):
                self.names += (str(func),)
                return func(*args, **(kwargs or {}))

        call = Call(layer)
        with Mode() as mode:
            call()
        assert any(f"{layer.name}.default" in name for name in mode.names)

    def test_a_subclass_stays_one(self, way, layer):
        """Its default __torch_function__ wraps what comes out."""

        class Mine(torch.Tensor):
            pass

        call = Call(layer, needed=(1,))
        call.leaves[0] = call.leaves[0].as_subclass(Mine)
        assert type(call()) is Mine
        with torch.no_grad():
            assert type(call()) is Mine

    def test_arguments_that_do_not_fit(self, way):
        """torch's own message, whatever the way."""
        s = sample(6, 5, 7, 0.4)
        pattern = Pattern.from_mask(s.mask)
        for values in (s.values, s.values.requires_grad_()):
            with pytest.raises(RuntimeError, match="Expected a value of type 'Tensor'"):
                OPS[0](s.input, values, None, 3, *pattern.args[1:], 0, False)
            with pytest.raises(RuntimeError, match="missing value for argument 'feature_major'"):
                OPS[0](s.input, values, None, *pattern.args, 0)


class TestSaving:
    @pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 1)])
    def test_keeps_what_the_backward_reads(self, way, layer, needed):
        call = Call(layer, needed)
        args = [t * 1 if t.requires_grad else t.clone() for t in call.leaves]  # no leaves
        before = [t._use_count() for t in args]
        output = call(*args)
        kept = [t._use_count() - n for t, n in zip(args, before, strict=True)]
        assert [n > 0 for n in kept] == [1 in needed, 0 in needed, False]
        assert output._use_count() == torch.nn.functional.relu(args[needed[0]])._use_count()
        output.sum().backward()
        assert [t._use_count() for t in args] == before

    def test_a_topology_that_changed(self, way, layer):
        call = Call(layer)
        output = call()
        index = call.topology if layer is MASKED else call.topology.perm
        index.copy_(index.clone())
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            call.grads(output)

    def test_hooks(self, way, layer):
        """Every saved tensor goes out and comes back, as save_on_cpu does it."""
        call = Call(layer)
        want = call.grads()
        packed, unpacked = [], []

        def unpack(i):
            unpacked.append(i)
            return packed[i].clone()

        with graph.saved_tensors_hooks(lambda t: packed.append(t) or len(packed) - 1, unpack):
            output = call()
        assert_equal(call.grads(output), want)
        assert {t.data_ptr() for t in call.leaves[:2]} <= {t.data_ptr() for t in packed}
        assert len(unpacked) >= len(packed)

    @pytest.mark.parametrize("reentrant", [False, True])
    def test_checkpoint(self, way, layer, reentrant):
        """It is the node's own unpacking that computes the segment anew."""
        call = Call(layer)

        def segment(x, weight, bias):
            return call(x.sin(), weight.cos(), bias)

        want = torch.autograd.grad(segment(*call.leaves).sum(), call.leaves)
        checkpoint(segment, *call.leaves, use_reentrant=reentrant).sum().backward()
        assert_equal([t.grad for t in call.leaves], want)

    def test_inference_tensors_are_refused(self, way, layer):
        call = Call(layer, needed=(1,))
        with torch.inference_mode():
            call.leaves[0] = call.leaves[0].clone()
        with pytest.raises(RuntimeError, match="Inference tensors cannot be saved"):
            call()


class TestBackward:
    def test_second_time(self, way, layer):
        call = Call(layer)
        output = call()
        first = call.grads(output, retain_graph=True)
        assert_equal(call.grads(output), first)
        with pytest.raises(RuntimeError, match="a second time"):
            torch.autograd.grad(output, call.leaves, torch.ones_like(output))

    def test_computes_what_is_asked_for(self, layer):
        """Not what could have a gradient: torch.autograd.grad of one of several leaves."""
        call = Call(layer)
        output = call()
        for i in range(3):
            with Seen() as seen:
                torch.autograd.grad(output.sum(), call.leaves[i], retain_graph=True)
            ((name, args),) = seen.calls
            assert name == f"{layer.name}_backward"
            assert args[-3:] == tuple(k == i for k in range(3))

    def test_undefined_gradient(self, way, layer):
        """What comes back from a function that gives None is zeros."""

        class Nothing(Function):
            @staticmethod
            def forward(ctx, x):
                return x.clone()

            @staticmethod
            def backward(ctx, grad):
                return None

        call = Call(layer)
        Nothing.apply(call()).sum().backward()
        assert all(t.grad is not None and not t.grad.any() for t in call.leaves)

    def test_hooks(self, way, layer):
        call = Call(layer)
        output = call()
        want = torch.autograd.grad(output.sum(), call.leaves, retain_graph=True)
        order = []
        output.register_hook(lambda g: order.append("tensor") or 2 * g)
        output.grad_fn.register_prehook(lambda g: order.append("before") or (3 * g[0],))
        output.grad_fn.register_hook(
            lambda out, _: order.append("after") or tuple(None if g is None else 5 * g for g in out)
        )
        got = torch.autograd.grad(output.sum(), call.leaves)
        assert sorted(order) == ["after", "before", "tensor"]
        assert order[-1] == "after"
        assert_close(got, [30 * w for w in want])

    def test_anomaly_mode(self, way, layer):
        call = Call(layer)
        with torch.autograd.set_detect_anomaly(True):
            output = call()
            bad = torch.full_like(output, torch.nan)
            with (
                pytest.warns(UserWarning, match="test_node"),  # where the forward was called
                pytest.raises(RuntimeError, match=r"inear.*Backward' returned nan values"),
            ):
                torch.autograd.grad(output, call.leaves, bad)

    def test_lazily_negated_and_zero_gradients(self, way, layer):
        """Their keys are above the kernel and below autograd."""
        call = Call(layer)
        output = call()
        grad = torch.randn_like(output)
        want = torch.autograd.grad(output, call.leaves, -grad, retain_graph=True)
        lazy = torch._neg_view(grad)
        assert_equal(torch.autograd.grad(output, call.leaves, lazy, retain_graph=True), want)
        zero = torch._efficientzerotensor(output.shape, dtype=output.dtype)
        assert not any(g.any() for g in torch.autograd.grad(output, call.leaves, zero))

    def test_batched_gradients(self, way, layer):
        call = Call(layer)
        output = call()
        many = torch.randn(3, *output.shape, dtype=output.dtype)
        got = torch.autograd.grad(
            output, call.leaves, many, retain_graph=True, is_grads_batched=True
        )
        for i in range(3):
            want = torch.autograd.grad(output, call.leaves, many[i], retain_graph=True)
            assert_close([g[i] for g in got], want)

    def test_vmap_over_the_backward(self, way, layer):
        """torch.func above a graph that was built outside of it."""
        call = Call(layer)
        output = call()
        many = torch.randn(3, *output.shape, dtype=output.dtype)

        def weight_grad(grad):
            return torch.autograd.grad(output, call.leaves[1], grad, retain_graph=True)[0]

        got = torch.vmap(weight_grad)(many)
        for i in range(3):
            torch.testing.assert_close(got[i], weight_grad(many[i]))

    # torch's own forward mode scripts its decompositions when it is first used
    @pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
    @pytest.mark.parametrize("create_graph", [False, True])
    def test_forward_mode_over_it_is_refused(self, way, layer, create_graph):
        """A tangent that arrives with the gradient would be lost."""
        call = Call(layer)
        output = call()
        ones = torch.ones_like(output)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(ones, ones)
            with pytest.raises(NotImplementedError, match=r"forward.mode AD"):
                torch.autograd.grad(output, call.leaves, dual, create_graph=create_graph)

        def jvp(t):
            return torch.autograd.grad(output, call.leaves[1], t, retain_graph=True)[0]

        with pytest.raises(NotImplementedError, match=r"forward.mode AD"):
            torch.func.jvp(jvp, (ones,), (ones,))

    def test_errors_of_the_op(self, way):
        s = sample(6, 5, 7, 0.4)
        pattern = Pattern.from_mask(s.mask)
        values = s.values.requires_grad_()
        with pytest.raises(RuntimeError, match="sparse_linear: values has the wrong dtype"):
            OPS[0](s.input, values.double(), s.bias, *pattern.args, 0, False)
        wrong = replace(pattern, perm=pattern.perm + 10**6)  # the forward does not read it
        output = OPS[0](s.input.requires_grad_(), values, s.bias, *wrong.args, 0, False)
        with pytest.raises(RuntimeError, match=r"sparse_linear_backward: .*perm must lie inside"):
            output.sum().backward()

    def test_threads(self, way, layer):
        """One graph, several threads, with Python hooks that want the GIL."""
        call = Call(layer)
        output = call()
        output.register_hook(lambda g: g + 0)
        want = call.grads(output, retain_graph=True)
        results, begin = [], threading.Barrier(4)

        def work():
            begin.wait()
            for _ in range(50):
                results.append(call.grads(output, retain_graph=True))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(60)
        assert len(results) == 200
        for got in results:
            assert_equal(got, want)

    def test_profiler(self, layer):
        call = Call(layer)
        output = call().sum()
        with torch.profiler.profile() as profile:
            output.backward()
        names = {event.name for event in profile.events()}
        assert {NAMES[layer.name], f"synops::{layer.name}_backward"} <= names

    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # its own asking
    def test_compiled_autograd(self, way, layer):
        """The backward of an eager forward as one compiled graph, cached over calls."""
        from torch._dynamo import compiled_autograd

        torch._dynamo.reset()
        calls = [Call(layer, needed) for needed in [(0, 1, 2), (0, 1, 2), (1,), (0,), (2,)]]
        calls += [Call(layer, batch=4), Call(layer, needed=(2,), batch=4)]  # shapes alone are kept
        wants = [call.grads() for call in calls]

        def compiler(gm):
            return torch.compile(gm, backend="eager", fullgraph=True)

        with compiled_autograd._enable(compiler):
            for call, want in zip(calls, wants, strict=True):
                call().square().sum().backward()
                for leaf, grad in zip(call.needed, want, strict=True):
                    torch.testing.assert_close(leaf.grad, grad)


def _scaled(input, weight, bias, index, count, flip, factor, extra, activation, feature_major):
    """A bilinear op with arguments of every kind behind the bias, the last for the forward only."""
    scale = count * factor * (-1 if flip else 1) * (2 if extra is None else 1)
    output = scale * input[:, index] @ weight.T
    return output if bias is None else output + bias


def _scaled_backward(grad, input, weight, index, count, flip, factor, extra, *needs):
    scale = count * factor * (-1 if flip else 1) * (2 if extra is None else 1)
    return (
        scale * torch.zeros_like(input).index_add(1, index, grad @ weight),
        scale * grad.T @ input[:, index],
        grad.sum(0),
    )


@pytest.fixture(scope="module")
def scaled():
    """It as an Op, with its own entry under torch.ops.synops."""
    rest = "Tensor index, int count, bool flip, float factor, Tensor? extra"
    functions = {"scaled_in_tests": _scaled, "scaled_in_tests_backward": _scaled_backward}
    schemas = (
        f"(Tensor input, Tensor weight, Tensor? bias, {rest},"
        " SymInt activation, bool feature_major) -> Tensor",
        f"(Tensor grad, Tensor input, Tensor weight, {rest},"
        " bool need_input, bool need_weight, bool need_bias) -> (Tensor, Tensor, Tensor)",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_library, "reference", functions.__getitem__)
        for (name, function), schema in zip(functions.items(), schemas, strict=True):
            _library._library.define(name + schema)
            _library._library.impl(name, function, "CompositeExplicitAutograd")
        yield BilinearOp(
            "scaled_in_tests", lambda weight, *_: weight.shape[0], options=True
        ).forward


class TestArguments:
    REST = (torch.tensor([2, 0]), 3, True, 0.5, None, 0, False)

    @pytest.fixture
    def leaves(self):
        shapes = (4, 3), (5, 2), (5,)
        return [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]

    @pytest.mark.parametrize("node", [True, False])
    def test_of_every_kind(self, scaled, leaves, node, monkeypatch):
        """Captured once, and what is for the forward only is not passed on."""
        if not node:
            monkeypatch.setattr(scaled, "native", None)

        def call(*leaves):
            return scaled(*leaves, *self.REST)

        assert (call(*leaves).grad_fn.name() == "ScaledInTestsBackward") is node
        assert torch.equal(call(*leaves), _scaled(*leaves, *self.REST))
        assert torch.autograd.gradcheck(call, leaves)
        assert torch.autograd.gradgradcheck(call, leaves)

    def test_an_optional_tensor_behind_the_bias(self, scaled, leaves):
        rest = (*self.REST[:4], torch.ones(1), 0, False)
        got = torch.autograd.grad(scaled(*leaves, *rest).square().sum(), leaves)
        assert_close(got, torch.autograd.grad(_scaled(*leaves, *rest).square().sum(), leaves))

    @pytest.mark.parametrize(
        ("at", "value"),
        [(3, None), (4, True), (4, 2**70), (4, 1.0), (5, 1), (6, 1), (7, 1), (8, False)],
    )
    def test_that_do_not_fit_are_left_to_python(self, scaled, leaves, at, value):
        args = [*leaves, *self.REST]
        assert isinstance(scaled.native(*args), torch.Tensor)
        args[at] = value
        assert scaled.native(*args) is NotImplemented
        assert scaled.native(*args[:-1]) is NotImplemented
        assert scaled.native(*args, 1) is NotImplemented

    @pytest.mark.parametrize(
        ("name", "gradient"),
        [
            ("sparse_linear", _node.Gradient("sparse_linear_backward", ((1,),), 2)),
            ("sparse_linear", _node.Gradient("sparse_linear_backward", ((1,), (0,)), 1)),
            ("sparse_linear", _node.Gradient("masked_linear_backward", ((1,), (0,)), 2)),
            ("pattern_plan", _node.Gradient("sparse_linear_backward", ((1,), (0,)))),
        ],
    )
    def test_a_backward_that_does_not_fit(self, name, gradient):
        """Found when the op is made, not when a backward runs."""
        with pytest.raises(RuntimeError, match=r"does not fit|one result"):
            _node.bind(name, 3, gradient)
        with pytest.raises(RuntimeError, match="leading must be at most"):
            _node.bind(name, 33, None)

    @pytest.mark.usefixtures("scaled")
    def test_several_results(self):
        """The backward op itself, called without a gradient."""
        native = _node.bind("scaled_in_tests_backward", 3, None)
        args = [torch.randn(4, 5), torch.randn(4, 3), torch.randn(5, 2), *self.REST[:-2]]
        got = native(*args, True, True, True)
        assert isinstance(got, tuple)
        assert_close(got, _scaled_backward(*args, True, True, True))
        args[1].requires_grad_()
        assert native(*args, True, True, True) is NotImplemented


class TestWithoutIt:
    """The module is missing, broken or of another torch: Python does the same."""

    CODE = """
import sys
{before}
import torch, synops
from synops.sparse import Pattern, sparse_linear
pattern = Pattern.from_mask(torch.rand(6, 8) < .4)
x = torch.randn(5, 8)
values = torch.randn(pattern.nnz, requires_grad=True)
output = sparse_linear(x, values, pattern)
(got,) = torch.autograd.grad(output.square().sum(), values)
want = torch.nn.functional.linear(x, pattern.scatter(values))
torch.testing.assert_close(got, torch.autograd.grad(want.square().sum(), values)[0])
print(synops.show_config())
"""
    BLOCK = """
class Block:
    def find_spec(self, name, path=None, target=None):
        if name == "synops._autograd": raise ImportError("undefined symbol: deleteNode")
sys.meta_path.insert(0, Block())
"""
    OTHER = """
import types
sys.modules["synops._autograd"] = types.SimpleNamespace(torch_version="2.0.0")
"""

    @pytest.mark.parametrize(
        ("before", "reason"),
        [
            ("sys.modules['synops._autograd'] = None", "None in sys.modules)"),
            (BLOCK, "Python (undefined symbol: deleteNode)"),
            (OTHER, "Python (the C++ node was built with torch 2.0.0)"),
        ],
        ids=["missing", "broken", "other torch"],
    )
    def test_is_said_and_computes(self, before, reason):
        code = self.CODE.format(before=before)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert any(
            line.startswith("autograd") and line.endswith(reason)
            for line in done.stdout.splitlines()
        )
