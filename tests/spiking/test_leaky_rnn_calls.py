"""leaky_rnn as it is called: layouts, edges, transforms, bad arguments, raw ops."""

import math

import pytest
import torch
from leaky_rnn_samples import gradients, incoming_for, run, sample

import synops
from synops.spiking import LeakyRNN, leaky_rnn


class TestLayout:
    def test_shapes(self):
        w = torch.randn(3, 3)
        for shape in ((5, 3), (5, 2, 3), (5, 2, 4, 3)):
            x, h0 = torch.randn(shape), torch.randn(shape[1:])
            got = leaky_rnn(x, w, None, h0, tau=2.0)
            want = leaky_rnn(x.reshape(5, -1, 3), w, None, h0.reshape(-1, 3), tau=2.0)
            assert got.states.shape == shape
            assert got.h.shape == shape[1:]
            assert torch.equal(got.states.reshape(5, -1, 3), want.states)

    def test_any_strides(self):
        s = sample((5, 4, 9), torch.float32).to(torch.float32)
        want, incoming = run(s), incoming_for(s)
        other = s._replace(
            input=s.input.transpose(0, 1).contiguous().transpose(0, 1),
            weight=s.weight.t().contiguous().t(),
            bias=torch.stack([s.bias, s.bias], 1)[:, 0],
            h0=s.h0.t().contiguous().t(),
        )
        columns = s._replace(input=s.input.permute(2, 0, 1).contiguous().permute(1, 2, 0))
        for one in (other, columns):
            assert all(map(torch.equal, run(one), want))
        got = gradients(other, incoming)
        for name, g in gradients(s, incoming).items():
            assert torch.equal(got[name], g)

    @pytest.mark.usefixtures("isa")
    def test_one_number_for_all_neurons(self):
        """As the input expanded, and its gradient the sum."""
        for dtype in (torch.float32, torch.bfloat16):
            s = sample((4, 7, 21), dtype).to(dtype)
            narrow = s._replace(input=s.input[..., :1].clone())
            whole = s._replace(input=narrow.input.expand(4, 7, 21).contiguous())
            assert all(map(torch.equal, run(narrow), run(whole)))
            incoming = incoming_for(s)
            got, want = (gradients(t, incoming)["input"] for t in (narrow, whole))
            assert got.shape == (4, 7, 1)
            torch.testing.assert_close(got, want.sum(-1, keepdim=True))

    def test_incoming_gradients_anywhere(self):
        s = sample((5, 3, 8))
        for g in (torch.ones(()).double().expand(5, 3, 8), torch.randn(3, 5, 8).transpose(0, 1)):
            got = gradients(s, LeakyRNN(g, None))
            for name, want in gradients(s, LeakyRNN(g.contiguous(), None)).items():
                assert torch.equal(got[name], want)

    def test_offsets_beyond_32_bits(self, tmp_path):
        """Steps 2^30 elements apart, in a file that is one hole."""
        file = torch.from_file(str(tmp_path / "x"), shared=True, size=2**31 + 64, dtype=torch.half)
        x = file.as_strided((3, 1, 40), (2**30, 40, 1))
        x.copy_(torch.randn(3, 1, 40))
        w = torch.randn(40, 40) / 7
        got, want = leaky_rnn(x, w, tau=2.0), leaky_rnn(x.contiguous(), w, tau=2.0)
        assert torch.equal(got.states, want.states)


class TestEdges:
    def test_no_steps(self):
        s = sample((0, 2, 5))
        got = run(s)
        assert torch.equal(got.h, s.h0)
        assert got.states.shape == (0, 2, 5)
        g = torch.randn(2, 5).double()
        found = gradients(s, LeakyRNN(None, g))
        assert torch.equal(found.pop("h0"), g)
        assert not any(t.any() for t in found.values())
        assert not run(s._replace(h0=None)).h.any()

    @pytest.mark.parametrize("shape", [(3, 0, 5), (3, 2, 0), (0, 0, 0), (0, 4), (4, 0, 2, 3)])
    def test_no_neurons(self, shape):
        s = sample(shape)
        assert run(s).states.shape == shape
        for name, g in gradients(s, incoming_for(s)).items():
            assert g.shape == getattr(s, name).shape
            assert not g.any() or (name == "h0" and shape[0] == 0)

    @pytest.mark.usefixtures("isa")
    @pytest.mark.parametrize("activation", ["leaky_relu", "relu", "tanh", "identity"])
    def test_nan_and_inf(self, activation):
        """They stay in their row; in it they are what the definition makes of them."""
        s = sample((3, 9, 20), torch.float32, activation=activation).to(torch.float32)
        x = s.input.clone()
        x[0, 2, 5], x[1, 7, 19] = torch.nan, -torch.inf
        got = run(s._replace(input=x))
        want = run(s._replace(input=x), backend="reference")
        torch.testing.assert_close(got.states, want.states, equal_nan=True)
        assert got.states[0, 2, 5].isnan()
        rows = [r for r in range(9) if r not in (2, 7)]
        assert torch.equal(got.states[:, rows], run(s).states[:, rows])

    def test_decay(self):
        """Alone, (1 - 1 / tau)^t is left."""
        h0 = torch.ones(1, 1)
        got = leaky_rnn(torch.zeros(10, 1, 1), torch.ones(1, 1), None, h0, tau=5.0)
        torch.testing.assert_close(got.states.flatten(), 0.8 ** torch.arange(1.0, 11))

    def test_one_tau_in_any_form(self):
        x, w = torch.randn(5, 2, 4), torch.randn(4, 4)
        want = leaky_rnn(x, w, tau=2.5).states
        for tau in (torch.tensor(2.5), torch.tensor([2.5]), torch.full((4,), 2.5).double()):
            assert torch.equal(leaky_rnn(x, w, tau=tau).states, want)

    def test_the_last_state_alone(self):
        """Its gradient is that of states[-1]."""
        s = sample((4, 3, 6))
        g = torch.zeros(4, 3, 6).double()
        g[-1] = torch.randn(3, 6)
        got = gradients(s, LeakyRNN(None, g[-1]))
        for name, want in gradients(s, LeakyRNN(g, None)).items():
            assert torch.equal(got[name], want)


class TestTransforms:
    def test_second_gradient_is_refused(self):
        """Also beside a term that has one, which would hide that this is missing."""
        x, w = torch.randn(4, 2, 3, requires_grad=True), torch.randn(3, 3)
        states = leaky_rnn(x * 2, w, tau=2.0).states
        (g,) = torch.autograd.grad(states.sum(), x, create_graph=True)
        with pytest.raises(NotImplementedError, match="double backward"):
            (g * x).sum().backward()

    def test_forward_mode_is_refused_and_the_references(self):
        x, t, w = torch.randn(4, 2, 3), torch.randn(4, 2, 3), torch.randn(3, 3)
        with pytest.raises(NotImplementedError, match="forward-mode AD"):
            torch.func.jvp(lambda x: leaky_rnn(x, w, tau=2.0).states, (x,), (t,))
        f = lambda x: leaky_rnn(x, w, tau=2.0, backend="reference").h.square().sum()  # noqa: E731
        _, tangent = torch.func.jvp(f, (x,), (t,))
        torch.testing.assert_close(tangent, (torch.func.grad(f)(x) * t).sum())

    def test_func(self):
        x, tau, w = torch.randn(3, 5, 2, 4), 1 + torch.rand(4), torch.randn(4, 4) / 2
        f = lambda x, tau: leaky_rnn(x, w, tau=tau).states.cumsum(0).sum()  # noqa: E731
        want = [t.clone().requires_grad_() for t in (x[0], tau)]
        want = torch.autograd.grad(f(*want), want)
        for one, other in zip(torch.func.grad(f, (0, 1))(x[0], tau), want, strict=True):
            torch.testing.assert_close(one, other)
        mapped = torch.vmap(torch.func.grad(f, (0, 1)), (0, None))(x, tau)
        for one, other in zip(mapped, want, strict=True):
            torch.testing.assert_close(one[0], other)

    def test_compiled(self):
        torch._dynamo.reset()

        def f(x, w, tau):
            return leaky_rnn(x.sin(), w, tau=tau, nonlinearity="inner")

        compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
        for steps in (3, 5, 8):  # from the second on for any number
            leaves = [torch.randn(steps, 2, 4), torch.randn(4, 4), 1 + torch.rand(4)]
            leaves = [t.requires_grad_() for t in leaves]
            got, want = (g(*leaves) for g in (compiled, f))
            one, other = (
                torch.autograd.grad(r.states.sum() + r.h.sum(), leaves) for r in (got, want)
            )
            for a, b in zip((*got, *one), (*want, *other), strict=True):
                torch.testing.assert_close(a, b)

    def test_exported(self):
        class Layer(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.randn(4, 4))

            def forward(self, x):
                return tuple(leaky_rnn(x, self.weight, tau=2.0))

        layer = Layer()
        steps, batch = torch.export.Dim("steps"), torch.export.Dim("batch")
        program = torch.export.export(
            layer, (torch.randn(3, 2, 4),), dynamic_shapes=({0: steps, 1: batch},)
        )
        x = torch.randn(6, 5, 4)
        for one, other in zip(program.module()(x), layer(x), strict=True):
            assert torch.equal(one, other)

    def test_opcheck(self):
        ops, rule = torch.ops.synops, (2, 0.1, True, True)
        x, w, b = torch.randn(4, 2, 5), torch.randn(5, 5), torch.randn(5)
        h0, rate = torch.randn(2, 5), torch.rand(5)
        # what is saved has no gradient, and opcheck asks for one of every result
        leaves = [t.clone().requires_grad_() for t in (x, w, b, h0)]
        outer = (2, 0.1, False, True)
        torch.library.opcheck(ops.leaky_rnn.default, (*leaves, rate, *outer, False))
        torch.library.opcheck(ops.leaky_rnn.default, (x, w, None, None, rate.sum(), *rule, True))
        torch.library.opcheck(
            ops.leaky_rnn_.default, (torch.empty(4, 2, 5), x, w, b, h0, rate, *rule)
        )
        torch.library.opcheck(
            ops.leaky_rnn_backward.default,
            (x, None, x, x, w, h0, rate, *rule, 0, True, True, True, False, True),
        )

    def test_which(self):
        x, w = torch.randn(3, 2, 4), torch.randn(4, 4)
        assert "cpp" in str(synops.which(leaky_rnn, x, w, tau=2.0)).lower()


W = torch.ones(4, 4)
WRONG = [
    ({"input": [1.0]}, TypeError, "input must be a torch.Tensor, got list"),
    ({"input": torch.ones(3, 2, dtype=torch.int)}, TypeError, "input must be float32, float64"),
    ({"input": torch.ones(4)}, ValueError, r"input must have shape \(T, ..., N\), got \(4,\)"),
    ({"input": torch.ones(3, 2, 5)}, ValueError, r"\(T, ..., 4\) or \(T, ..., 1\), for weight"),
    ({"weight": torch.ones(4, 3)}, ValueError, r"weight must have shape \(N, N\), got \(4, 3\)"),
    ({"weight": torch.ones(4, 4).int()}, TypeError, "weight must be float32, float64"),
    ({"weight": W.to("meta")}, ValueError, "weight must be on the device of input"),
    ({"bias": torch.ones(3)}, ValueError, r"bias must have shape \(N,\) = \(4,\), got \(3,\)"),
    ({"h0": torch.zeros(3)}, ValueError, r"h0 must have shape \(..., N\) = \(2, 4\), got \(3,\)"),
    ({"h0": 0.0}, TypeError, "h0 must be a torch.Tensor, got float"),
    ({"tau": 0.0}, ValueError, "tau must be positive and finite, got 0.0"),
    ({"tau": -1}, ValueError, "tau must be positive and finite, got -1"),
    ({"tau": math.nan}, ValueError, "tau must be positive and finite, got nan"),
    ({"tau": "2"}, TypeError, "tau must be a number, got str"),
    ({"tau": torch.ones(3)}, ValueError, r"tau must have shape \(\) or \(N,\) = \(4,\)"),
    ({"activation": "gelu"}, ValueError, "activation must be one of identity, .*, got 'gelu'"),
    ({"nonlinearity": None}, TypeError, "nonlinearity must be one of outer, inner, got NoneType"),
    ({"negative_slope": -0.1}, ValueError, "negative_slope must be positive and finite, got -0.1"),
    ({"backend": "cuda"}, ValueError, "backend"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG, ids=[m for *_, m in WRONG])
def test_wrong_arguments(change, error, message):
    args = {"input": torch.randn(3, 2, 4), "weight": W, "tau": 2.0} | change
    with pytest.raises(error, match=message):
        leaky_rnn(args.pop("input"), args.pop("weight"), **args)


X, H = torch.zeros(3, 2, 4), torch.zeros(2, 4)
UNSAFE = [
    (0, torch.randn(3, 4), "input must have 3 dimensions"),
    (0, X.int(), "floating point"),
    (1, torch.ones(4, 3), "size 1 of weight must be 4, got 3"),
    (1, W.double(), "weight has the wrong dtype"),
    (2, torch.ones(3), "size 0 of bias must be 4, got 3"),
    (3, H.t(), "rows of h0 must be 2, got 4"),
    (3, H.double(), "h0 has the wrong dtype"),
    (4, torch.ones(3), "size 0 of rate must be 4, got 3"),
    (4, torch.ones(2, 4), "rate must have 1 dimensions"),
    (5, 4, "activation must be 0 to 3, got 4"),
    (6, -1.0, "slope must be finite and not negative"),
    (6, math.nan, "slope must be finite and not negative"),
]


class TestRawOp:
    """Memory-safe whatever it is called with."""

    def good(self):
        return [X, W, torch.ones(4), H, torch.ones(4), 2, 0.01, False, True]

    @pytest.mark.parametrize(("at", "value", "message"), UNSAFE, ids=range(len(UNSAFE)))
    def test_forward(self, at, value, message):
        bad = self.good()
        bad[at] = value
        with pytest.raises(RuntimeError, match=message):
            torch.ops.synops.leaky_rnn(*bad, True)
        with pytest.raises(RuntimeError, match=message):
            torch.ops.synops.leaky_rnn_(torch.empty_like(X), *bad)

    def test_into(self):
        for states, message in (
            (X[:2].clone(), "steps of states must be 3, got 2"),
            (X.double(), "states has the wrong dtype"),
            (torch.zeros(3, 4, 2).transpose(1, 2), "states must be contiguous"),
        ):
            with pytest.raises(RuntimeError, match=message):
                torch.ops.synops.leaky_rnn_(states, *self.good())

    def test_backward(self):
        good = [X, H, X, X, W, H, torch.ones(4), 2, 0.01, True, True, 0, *[True] * 5]
        torch.ops.synops.leaky_rnn_backward(*good)
        for at, value, message in (
            (0, X[:2], "steps of grad_states must be 3, got 2"),
            (0, X.double(), "grad_states has the wrong dtype"),
            (1, X, "grad_h must have 2"),
            (2, X.half(), "states must be float32 or float64"),
            (3, X[:, :1], "rows of drive must be 2, got 1"),
            (3, torch.empty(0), "drive must have 3"),
            (4, W[:3], "size 0 of weight"),
            (5, H[:, :3], "neurons of h0"),
            (6, torch.ones(2), "rate"),
            (11, 3, "half must be 0, 1 or 2"),
        ):
            bad = list(good)
            bad[at] = value
            with pytest.raises(RuntimeError, match=message):
                torch.ops.synops.leaky_rnn_backward(*bad)

    def test_a_backward_without_the_drive(self):
        x = X.clone().requires_grad_()
        args = self.good()
        args[0], args[7] = x, True
        states, *_ = torch.ops.synops.leaky_rnn(*args, False)
        with pytest.raises(RuntimeError, match="not saved"):
            states.sum().backward()
        *_, drive = torch.ops.synops.leaky_rnn(*args, True)
        with pytest.raises(RuntimeError, match="has no gradient"):
            drive.sum().backward()
