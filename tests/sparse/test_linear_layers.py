"""What the sparse layers do alike: layouts of inputs, autograd to any order, torch's transforms."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparse_layers import LAYERS, MASKED, MASKED_PATTERN
from sparse_samples import Sample, sample

pytestmark = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)

# float64 makes finite differences exact enough; 6 rows: slabs, 2: row dots
BATCH = pytest.mark.parametrize("batch", [2, 6])


def float64(batch, layer, density=0.4):
    """A sample and its arguments (input, weight, bias) that require gradients."""
    s = sample(batch, 5, 6, density, torch.float64)
    weight = layer.weight(s).nan_to_num(0.5)  # finite differences read every entry
    args = [t.clone().requires_grad_() for t in (s.input, weight, s.bias)]
    return layer.bind(s.mask), args


VIEWS = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "sliced rows": lambda x: torch.cat([x, x], -1)[..., x.shape[-1] :],
    "stepped columns": lambda x: x.repeat_interleave(3, -1)[..., ::3],
    "stepped rows": lambda x: x.repeat_interleave(2, 0)[::2],
    "expanded": lambda x: x[:1].expand(x.shape),
    "expanded columns": lambda x: x[..., :1].expand(x.shape),
    "flipped": lambda x: x.flip(-1),
    "overlapping": lambda x: x.flatten().as_strided(x.shape, (1,) * x.dim()),
    "offset": lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape),
}


class TestLayouts:
    @pytest.mark.parametrize("batch", [3, 18])
    @pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
    def test_input(self, layer, view, batch):
        s = sample(batch, 37, 20, 0.3)
        s.input = view(s.input)
        layer.check(s)

    @pytest.mark.parametrize("batch", [3, 18])
    @pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
    def test_grad(self, layer, view, batch):
        s = sample(batch, 37, 20, 0.3)
        s.grad = view(s.grad)
        layer.check(s)

    @pytest.mark.parametrize("batch", [3, 18])
    def test_sum_backward(self, layer, batch):
        """The gradient of a sum is one element, expanded."""
        s = sample(batch, 37, 20, 0.3)
        s.grad = torch.ones(()).expand(batch, 20)
        assert s.grad.stride() == (0, 0)
        layer.check(s)

    @pytest.mark.parametrize(
        "lead", [(), (1,), (2, 3), (2, 3, 4), (0,), (0, 3), (3, 0), (1, 1, 1)], ids=str
    )
    def test_leading_dimensions(self, layer, lead):
        s = sample(lead, 37, 20, 0.3)
        got = layer.check(s)
        assert got.output.shape == (*lead, 20)

    def test_leading_dimensions_that_do_not_merge(self, layer):
        s = sample((2, 3, 4), 37, 20, 0.3)
        s.input = s.input.permute(1, 0, 2, 3).contiguous().permute(1, 0, 2, 3)
        s.grad = s.grad.permute(1, 0, 2, 3).contiguous().permute(1, 0, 2, 3)
        layer.check(s)

    @pytest.mark.parametrize(
        "view", [lambda b: b.repeat_interleave(2)[::2], lambda b: b[:1].expand(20)]
    )
    def test_bias(self, layer, view):
        s = sample(5, 37, 20, 0.3)
        s.bias = view(s.bias)
        assert not s.bias.is_contiguous()
        layer.check(s)

    @pytest.mark.parametrize("argument", ["input", "weight", "bias"])
    @pytest.mark.parametrize("grad", [False, True], ids=["no grad", "grad"])
    def test_lazily_negated(self, layer, argument, grad):
        """The imaginary part of a conjugate has a negative bit, which a kernel cannot see."""
        s = sample(5, 7, 6, 0.4)
        args = {"input": s.input, "weight": layer.weight(s), "bias": s.bias}
        call = layer.bind(s.mask)
        lazy = torch._neg_view(-args[argument])  # contiguous; x.conj().imag is not
        assert lazy.is_neg()
        if grad:
            s.input.requires_grad_()
        assert torch.equal(call(*(args | {argument: lazy}).values()), call(*args.values()))

    @given(data=st.data())
    def test_any_shape_layout_and_density(self, layer, data):
        lead = tuple(data.draw(st.lists(st.integers(0, 7), min_size=1, max_size=3), label="lead"))
        features = st.one_of(st.integers(0, 20), st.integers(180, 210))
        inner, outer = data.draw(features, label="in"), data.draw(features, label="out")
        density = data.draw(st.sampled_from([0.01, 0.1, 0.3, 0.6, 0.99]), label="density")
        dtype = data.draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
        bias = data.draw(st.booleans(), label="bias")
        s = sample(lead, inner, outer, density, dtype, bias=bias)
        safe = [v for name, v in VIEWS.items() if name != "overlapping" or s.input.numel()]
        s.input = data.draw(st.sampled_from(safe), label="layout")(s.input)
        layer.check(s)


class TestAutograd:
    @BATCH
    def test_gradcheck(self, layer, batch):
        call, args = float64(batch, layer)
        assert torch.autograd.gradcheck(call, args, check_batched_grad=True)

    @BATCH
    def test_gradgradcheck(self, layer, batch):
        call, args = float64(batch, layer)
        assert torch.autograd.gradgradcheck(call, args, check_batched_grad=True)

    def test_third_order(self, layer):
        call, (x, weight, bias) = float64(3, layer)

        def once(x, weight, bias):
            return torch.autograd.grad(
                call(x, weight, bias).pow(3).sum(), weight, create_graph=True
            )[0]

        assert torch.autograd.gradgradcheck(once, (x, weight, bias))

    @pytest.mark.parametrize("changed", [0, 1])
    def test_changed_in_place_before_the_backward(self, layer, changed):
        call, args = float64(3, layer)
        want = torch.autograd.grad(call(*args).sum(), args)
        output = call(*args)
        with torch.no_grad():
            args[changed].mul_(2)
        if layer is MASKED_PATTERN and changed == 1:  # saved are the values it gathered
            got = torch.autograd.grad(output.sum(), args)
            assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
            return
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.sum().backward()

    def test_no_grad_and_inference_mode(self, layer):
        call, args = float64(3, layer)
        want = call(*args)
        assert want.requires_grad
        with torch.no_grad():
            got = call(*args)
        assert not got.requires_grad
        assert torch.equal(got, want)
        with torch.inference_mode():
            assert torch.equal(call(*args), want)

    def test_checkpoint(self, layer):
        call, args = float64(6, layer)
        want = torch.autograd.grad(call(*args).square().sum(), args)
        output = torch.utils.checkpoint.checkpoint(call, *args, use_reentrant=False)
        got = torch.autograd.grad(output.square().sum(), args)
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))

    def test_backward_twice(self, layer):
        call, args = float64(6, layer)
        output = call(*args).sum()
        first = torch.autograd.grad(output, args, retain_graph=True)
        second = torch.autograd.grad(output, args)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    def test_one_tensor_for_two_arguments(self, layer):
        """Gradients of both uses add up."""
        mask = torch.eye(4, dtype=torch.bool)
        x = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
        call = layer.bind(mask)
        twice = lambda x: call(x, x[mask] if layer.values else x)  # noqa: E731
        assert torch.autograd.gradcheck(twice, x)


# torch's own forward mode scripts its decompositions when it is first used
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
class TestForwardMode:
    """Refused by the kernels, which would return zero tangents; the reference has them."""

    def test_jvp_is_refused(self, layer):
        call, args = float64(3, layer)
        args = tuple(a.detach() for a in args)
        with pytest.raises(NotImplementedError, match=r"forward.mode AD"):
            torch.func.jvp(call, args, args)

    def test_compiled_jvp_is_refused(self, layer):
        call, args = float64(3, layer)
        args = tuple(a.detach() for a in args)
        compiled = torch.compile(
            lambda *a: torch.func.jvp(call, a, a)[1], backend="aot_eager", fullgraph=False
        )
        with pytest.raises(NotImplementedError, match=r"forward.mode AD"):
            compiled(*args)

    @pytest.mark.parametrize("which", [0, 1, 2])
    def test_dual_numbers_are_refused(self, layer, which):
        call, args = float64(3, layer)
        args = [a.detach() for a in args]
        with torch.autograd.forward_ad.dual_level():
            args[which] = torch.autograd.forward_ad.make_dual(args[which], args[which])
            with pytest.raises(NotImplementedError, match=r"forward.mode AD"):
                call(*args)

    def test_forward_over_reverse_is_refused(self, layer):
        call, (x, weight, bias) = float64(3, layer)
        loss = lambda w: call(x.detach(), w, bias.detach()).square().sum()  # noqa: E731
        with pytest.raises(NotImplementedError, match=r"forward.mode AD"):
            torch.func.hessian(loss)(weight.detach())

    def test_without_a_tangent_it_runs(self, layer):
        call, args = float64(3, layer)
        args = [a.detach() for a in args]
        with torch.autograd.forward_ad.dual_level():
            got = call(*args)
        assert torch.equal(got, call(*args))

    def test_reference_has_it(self, layer):
        s = sample(3, 5, 6, 0.4, torch.float64)
        call = layer.bind(s.mask, backend="reference")
        args = (s.input, layer.weight(s).nan_to_num(0.5), s.bias)
        tangents = tuple(torch.randn_like(a) for a in args)
        output, tangent = torch.func.jvp(call, args, tangents)
        step = 1e-6
        ahead = call(*(a + step * t for a, t in zip(args, tangents, strict=True)))
        torch.testing.assert_close((ahead - output) / step, tangent, rtol=1e-5, atol=1e-5)


class TestTransforms:
    """torch.func, each against a loop or against plain autograd."""

    @pytest.mark.parametrize(
        "mapped", ["input", "weight", "bias", "input weight", "input weight bias"]
    )
    @pytest.mark.parametrize("dim", [0, 1])
    def test_vmap(self, layer, mapped, dim):
        call, args = float64(4, layer)
        names = ["input", "weight", "bias"]
        stacked = [
            torch.stack([a.detach() * k for k in (1, 2, 3)], min(dim, a.dim()))
            if n in mapped
            else a
            for n, a in zip(names, args, strict=True)
        ]
        dims = [
            min(dim, a.dim()) if n in mapped else None for n, a in zip(names, args, strict=True)
        ]
        got = torch.vmap(call, tuple(dims))(*stacked)
        for i in range(3):
            one = [t if d is None else t.select(d, i) for t, d in zip(stacked, dims, strict=True)]
            torch.testing.assert_close(got[i], call(*one))

    @pytest.mark.parametrize("mapped", [0, 1])
    def test_vmap_over_nothing(self, layer, mapped):
        """As F.linear: an empty stack of outputs."""
        call, args = float64(4, layer)
        args = [a.detach() for a in args]
        args[mapped] = args[mapped].new_empty(0, *args[mapped].shape)
        dims = tuple(0 if i == mapped else None for i in range(3))
        assert torch.vmap(call, dims)(*args).shape == (0, 4, 6)

    def test_nested_vmap(self, layer):
        call, (_, weight, bias) = float64(4, layer)
        x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
        weights = torch.stack([weight.detach(), 2 * weight.detach(), 3 * weight.detach()])
        inner = torch.vmap(call, (0, 0, None))
        got = torch.vmap(inner, (0, None, None))(x, weights, bias.detach())
        for i in range(2):
            for j in range(3):
                torch.testing.assert_close(got[i, j], call(x[i, j], weights[j], bias.detach()))

    def test_grad(self, layer):
        call, args = float64(4, layer)
        loss = lambda *args: call(*args).square().sum()  # noqa: E731
        want = torch.autograd.grad(loss(*args), args)
        got = torch.func.grad(loss, (0, 1, 2))(*(a.detach() for a in args))
        for one, other in zip(got, want, strict=True):
            torch.testing.assert_close(one, other)

    def test_per_sample_gradients(self, layer):
        """vmap(grad): one gradient for each batch row, which sum to that of the batch."""
        call, (x, weight, bias) = float64(6, layer)
        loss = lambda w, b, row: call(row, w, b).square().sum()  # noqa: E731
        want = torch.autograd.grad(loss(weight, bias, x), (weight, bias))
        args = (weight.detach(), bias.detach(), x.detach())
        rows = torch.vmap(torch.func.grad(loss, (0, 1)), (None, None, 0))(*args)
        for one, other in zip(rows, want, strict=True):
            torch.testing.assert_close(one.sum(0), other)

    def test_gradient_of_vmap(self, layer):
        call, (_, weight, bias) = float64(4, layer)
        x = torch.randn(3, 4, 5, dtype=torch.float64)
        loss = lambda w: torch.vmap(call, (0, None, None))(x, w, bias).square().sum()  # noqa: E731
        want = torch.autograd.grad(call(x, weight, bias).square().sum(), weight)[0]
        torch.testing.assert_close(torch.func.grad(loss)(weight.detach()), want)

    @pytest.mark.parametrize("argument", [0, 1, 2])
    def test_jacrev(self, layer, argument):
        call, args = float64(2, layer)
        args = tuple(a.detach() for a in args)
        want = torch.autograd.functional.jacobian(call, args)[argument]
        torch.testing.assert_close(torch.func.jacrev(call, argument)(*args), want)

    def test_hessian_by_reverse(self, layer):
        call, (x, weight, bias) = float64(2, layer)
        x, weight, bias = x.detach(), weight.detach(), bias.detach()
        loss = lambda w: call(x, w, bias).pow(3).sum()  # noqa: E731
        want = torch.autograd.functional.hessian(loss, weight)
        torch.testing.assert_close(torch.func.jacrev(torch.func.jacrev(loss))(weight), want)

    def test_functional_call(self, layer):
        """An ensemble of modules by stack_module_state, as torch's own tutorial does it."""
        s = sample(4, 5, 6, 0.4, torch.float64)
        modules = [LayerModule(layer, s) for _ in range(3)]
        params, buffers = torch.func.stack_module_state(modules)
        base = copy.deepcopy(modules[0]).to("meta")

        def one(params, buffers, x):
            return torch.func.functional_call(base, (params, buffers), (x,))

        base.topology = modules[0].topology  # shared, not stacked
        got = torch.vmap(one, (0, 0, None))(params, buffers, s.input)
        for i, module in enumerate(modules):
            torch.testing.assert_close(got[i], module(s.input))


class LayerModule(torch.nn.Module):
    """A user's module that holds a Pattern (or a mask) as a plain attribute."""

    def __init__(self, layer, s: Sample):
        super().__init__()
        self.layer = layer
        self.topology = layer.topology(s.mask)
        self.weight = torch.nn.Parameter(torch.randn_like(layer.weight(s)))
        self.bias = torch.nn.Parameter(torch.randn_like(s.bias))

    def forward(self, x):
        return self.layer.call(x, self.weight, self.topology, self.bias)


class TestAutocast:
    def autocast(self, dtype):
        return torch.autocast("cpu", dtype)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_casts_as_linear_does(self, layer, dtype):
        s = sample(5, 12, 9, 0.4)
        args = [t.requires_grad_() for t in (s.input, layer.weight(s), s.bias)]
        with self.autocast(dtype):
            got = layer.bind(s.mask)(*args)
        assert got.dtype == dtype
        cast = [a.detach().to(dtype).requires_grad_() for a in args]
        want = layer.bind(s.mask)(*cast)
        assert torch.equal(got, want)
        grads = torch.autograd.grad(got, args, torch.ones_like(got))
        for grad, other in zip(
            grads, torch.autograd.grad(want, cast, torch.ones_like(want)), strict=True
        ):
            assert grad.dtype == torch.float32
            assert torch.equal(grad, other.float())

    def test_second_layer_of_a_network(self, layer):
        """Its input is bfloat16 already, its weights are float32; F.linear takes that."""
        s = sample(5, 12, 9, 0.4)
        dense = torch.where(s.mask, s.weight, 0)
        with self.autocast(torch.bfloat16):
            want = torch.nn.functional.linear(s.input.bfloat16(), dense, s.bias)
            got = layer.bind(s.mask)(s.input.bfloat16(), layer.weight(s), s.bias)
        assert got.dtype == want.dtype == torch.bfloat16
        torch.testing.assert_close(got, want)

    def test_float64_is_left_alone(self, layer):
        call, args = float64(5, layer)
        want = call(*args)
        with self.autocast(torch.bfloat16):
            got = call(*args)
        assert got.dtype == torch.float64
        assert torch.equal(got, want)

    def test_disabled_inside(self, layer):
        s = sample(5, 12, 9, 0.4)
        with self.autocast(torch.bfloat16), torch.autocast("cpu", enabled=False):
            assert layer.bind(s.mask)(s.input, layer.weight(s), s.bias).dtype == torch.float32


class TestFakeTensors:
    """Shapes, dtypes and devices without data."""

    def test_meta(self, layer):
        s = sample((2, 3), 5, 6, 0.4)
        topology = layer.topology(s.mask).to("meta")
        args = [t.to("meta").requires_grad_() for t in (s.input, layer.weight(s), s.bias)]
        output = layer.call(args[0], args[1], topology, args[2])
        assert (output.shape, output.device.type) == ((2, 3, 6), "meta")
        grads = torch.autograd.grad(output.sum(), args)
        assert [g.shape for g in grads] == [a.shape for a in args]

    def test_fake_tensor_mode(self, layer):
        from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

        s = sample((2, 3), 5, 6, 0.4)
        topology = layer.topology(s.mask)
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        args = [mode.from_tensor(t) for t in (s.input, layer.weight(s), s.bias)]
        if isinstance(topology, torch.Tensor):
            topology = mode.from_tensor(topology)
        with mode:
            output = layer.call(args[0], args[1], topology, args[2])
        assert isinstance(output, FakeTensor)
        assert output.shape == (2, 3, 6)


def test_profiler_sees_the_op(layer):
    """Who profiles a model finds a layer's time under its name, also without gradients."""
    s = sample(5, 12, 9, 0.4)
    call = layer.bind(s.mask)
    with torch.no_grad(), torch.profiler.profile() as profile:
        call(s.input, layer.weight(s))
    name = "masked_linear" if layer is MASKED else "sparse_linear"
    assert any(name in event.name for event in profile.events())


def test_zero_tensor(layer):
    """Autograd's stand-in for zeros has no memory behind it."""
    s = sample(5, 12, 9, 0.4)
    zeros = torch._efficientzerotensor(5, 12)
    assert not layer.bind(s.mask)(zeros, layer.weight(s)).any()
