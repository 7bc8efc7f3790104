"""delta_rule as it is called: layouts, edges, transforms, bad arguments, raw ops."""

import math

import pytest
import torch
from fast_weight_samples import NAMES, RULES, gradients, incoming_for, run, sample

import synops
from synops.hebbian import FastWeights, delta_rule


class TestLayout:
    def test_any_strides(self):
        s = sample((2, 3, 5, 7, 9), torch.float32).to(torch.float32)
        want, incoming = run(s), incoming_for(s)
        other = s._replace(
            query=s.query.transpose(1, 2).contiguous().transpose(1, 2),  # (B, T, H, D)
            key=s.key.mT.contiguous().mT,
            value=torch.stack([s.value, s.value], -1)[..., 1],
            beta=s.beta.mT.contiguous().mT,
            decay=torch.stack([s.decay, s.decay], -1)[..., 0],
            initial_state=s.initial_state.mT.contiguous().mT,
        )
        assert all(map(torch.equal, run(other), want))
        got = gradients(other, incoming)
        for name, g in gradients(s, incoming).items():
            assert torch.equal(got[name], g)

    def test_expanded(self):
        s = sample((2, 3, 4, 5, 6), torch.float32).to(torch.float32)
        one = s._replace(key=s.key[:, :1].expand(2, 3, 4, 5), value=s.value[:1].expand(2, 3, 4, 6))
        copies = one._replace(key=one.key.contiguous(), value=one.value.contiguous())
        assert all(map(torch.equal, run(one), run(copies)))

    def test_incoming_gradients_anywhere(self):
        s = sample((1, 2, 4, 5, 6))
        ones = FastWeights(torch.ones(()).double().expand(1, 2, 4, 6), None)
        turned = FastWeights(None, torch.randn(1, 2, 6, 5).double().mT)
        for g in (ones, turned):
            copy = FastWeights(*(None if t is None else t.contiguous() for t in g))
            got = gradients(s, g)
            for name, want in gradients(s, copy).items():
                assert torch.equal(got[name], want)

    def test_beta_and_decay_in_any_form(self):
        s = sample((2, 3, 4, 5, 6), torch.float32, start=False).to(torch.float32)
        whole = s._replace(beta=torch.full((2, 3, 4), 0.25), decay=torch.full((2, 3, 4), 0.5))
        want = run(whole)
        for shape in ((), (1,), (4,), (3, 1), (2, 3, 1)):
            forms = {"beta": torch.full(shape, 0.25), "decay": torch.full(shape, 0.5).half()}
            assert all(map(torch.equal, run(s._replace(**forms)), want))
        assert all(map(torch.equal, run(s._replace(beta=0.25, decay=0.5)), want))
        plain = run(s._replace(beta=None, decay=None))
        assert all(map(torch.equal, run(s._replace(beta=1, decay=1.0)), plain))
        gates = {"decay": torch.rand(3, 1, requires_grad=True)}
        (g,) = torch.autograd.grad(run(s._replace(**gates)).output.sum(), gates["decay"])
        assert g.shape == (3, 1)

    def test_offsets_beyond_32_bits(self, tmp_path):
        """Steps 2^30 elements apart, in a file that is one hole."""
        file = torch.from_file(str(tmp_path / "k"), shared=True, size=2**31 + 64)
        k = file.as_strided((1, 1, 3, 5), (0, 0, 2**30, 1))
        k.copy_(torch.randn(1, 1, 3, 5))
        q, v = torch.randn(1, 1, 3, 5), torch.randn(1, 1, 3, 4)
        assert torch.equal(delta_rule(q, k, v).output, delta_rule(q, k.contiguous(), v).output)


class TestEdges:
    @pytest.mark.parametrize("rule", RULES)
    @pytest.mark.parametrize(
        "shape",
        [(1, 2, 0, 3, 4), (0, 2, 3, 3, 4), (1, 0, 3, 2, 2), (1, 2, 3, 0, 4), (1, 2, 3, 4, 0)],
    )
    def test_empty(self, shape, rule):
        """The state passes through where there are no steps; nothing is read from nothing."""
        s = sample(shape, rule=rule)
        got, incoming = run(s), incoming_for(s)
        assert got.output.shape == (*shape[:3], shape[4])
        assert not got.output.any()
        found = gradients(s, incoming)
        of_state = found.pop("initial_state")
        if shape[2] == 0:
            assert torch.equal(got.state, s.initial_state)
            assert torch.equal(of_state, incoming.state)
        for name, g in found.items():
            assert g.shape == getattr(s, name).shape
            assert not g.any()

    @pytest.mark.usefixtures("isa")
    @pytest.mark.parametrize("rule", RULES)
    def test_nan_stays_in_its_head(self, rule):
        s = sample((2, 2, 4, 20, 17), torch.float32, rule=rule).to(torch.float32)
        v = s.value.clone()
        v[1, 0, 1, 16] = torch.nan
        got, want = run(s._replace(value=v)), run(s)
        assert got.output[1, 0, 1:].isnan().any()
        for head in ((0, 0), (0, 1), (1, 1)):
            assert torch.equal(got.output[head], want.output[head])
        assert torch.equal(got.output[1, 0, 0], want.output[1, 0, 0])
        if rule != "oja":  # a column of the weight is a value
            assert torch.equal(got.output[..., :16], want.output[..., :16])

    def test_no_decay_is_one_of_all_that_was(self):
        """decay 0 forgets all but the last pair."""
        s = sample((1, 2, 5, 6, 7), beta=False)
        got = run(s._replace(decay=torch.zeros(1, 2, 5).double()))
        want = s.key[:, :, -1, :, None] * s.value[:, :, -1, None]
        torch.testing.assert_close(got.state, want)

    def test_gradient_of_beta_at_zero(self):
        """What would have been learned."""
        s = sample((1, 2, 4, 5, 6))
        s = s._replace(beta=torch.zeros(1, 2, 4).double())
        incoming = incoming_for(s)
        want = gradients(s, incoming, ("beta",), backend="reference")["beta"]
        got = gradients(s, incoming, ("beta",))["beta"]
        assert want.all()
        torch.testing.assert_close(got, want)


class TestTransforms:
    def test_second_gradient_is_refused(self):
        s = sample((1, 1, 3, 4, 5), torch.float32).to(torch.float32)
        k = s.key.clone().requires_grad_()
        out = run(s._replace(key=k * 2)).output
        (g,) = torch.autograd.grad(out.sum(), k, create_graph=True)
        with pytest.raises(NotImplementedError, match="double backward"):
            (g * k).sum().backward()

    def test_forward_mode_is_refused(self):
        s = sample((1, 1, 3, 4, 5), torch.float32).to(torch.float32)
        with pytest.raises(NotImplementedError, match="forward-mode AD"):
            torch.func.jvp(lambda v: run(s._replace(value=v)).output, (s.value,), (s.value,))

    def test_func(self):
        s = sample((1, 2, 3, 4, 5))
        f = lambda k, a: run(s._replace(key=k, decay=a)).output.cumsum(2).sum()  # noqa: E731
        want = [t.clone().requires_grad_() for t in (s.key, s.decay)]
        want = torch.autograd.grad(f(*want), want)
        for one, other in zip(torch.func.grad(f, (0, 1))(s.key, s.decay), want, strict=True):
            torch.testing.assert_close(one, other)
        keys = torch.stack([s.key, s.key + 1])
        mapped = torch.vmap(torch.func.grad(f, (0, 1)), (0, None))(keys, s.decay)
        for one, other in zip(mapped, want, strict=True):
            torch.testing.assert_close(one[0], other)

    def test_compiled(self):
        torch._dynamo.reset()

        def f(q, k, v, b):
            return delta_rule(q.sin(), k, v, b, decay=0.9)

        compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
        for steps in (3, 5, 8):  # from the second on for any number
            s = sample((1, 2, steps, 4, 5), torch.float32).to(torch.float32)
            leaves = [t.requires_grad_() for t in s[:4]]
            got, want = (g(*leaves) for g in (compiled, f))
            one, other = (
                torch.autograd.grad(r.output.sum() + r.state.sum(), leaves) for r in (got, want)
            )
            for a, b in zip((*got, *one), (*want, *other), strict=True):
                torch.testing.assert_close(a, b)

    def test_exported(self):
        class Layer(torch.nn.Module):
            def forward(self, q, k, v):
                return tuple(delta_rule(q, k, v, rule="oja"))

        steps = {2: torch.export.Dim("steps")}
        s = sample((1, 2, 3, 4, 5), torch.float32).to(torch.float32)
        program = torch.export.export(Layer(), s[:3], dynamic_shapes=(steps,) * 3)
        s = sample((1, 2, 6, 4, 5), torch.float32).to(torch.float32)
        for one, other in zip(program.module()(*s[:3]), Layer()(*s[:3]), strict=True):
            torch.testing.assert_close(one, other)

    def test_opcheck(self):
        ops = torch.ops.synops
        s = sample((1, 2, 3, 4, 5), torch.float32).to(torch.float32)
        leaves = [t.clone().requires_grad_() for t in s[:6]]
        torch.library.opcheck(ops.delta_rule.default, (*leaves, 0.5, 1, False))
        # what is saved has no gradient, and opcheck asks for one of every result
        torch.library.opcheck(ops.delta_rule.default, (*s[:3], None, None, None, 0.5, 2, True))
        _, last, error = ops.delta_rule(*s[:6], 0.5, 0, True)
        needs = [True, True, False, True, True, True]
        args = (s.value, None, *s[:6], last, error, 0.5, 0, *needs)
        torch.library.opcheck(ops.delta_rule_backward.default, args)

    def test_which(self):
        s = sample((1, 1, 3, 4, 5), torch.float32).to(torch.float32)
        assert "cpp" in str(synops.which(delta_rule, *s[:3])).lower()


Q, V = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 6)
WRONG = [
    ({"query": [1.0]}, TypeError, "query must be a torch.Tensor, got list"),
    ({"query": Q.int()}, TypeError, "query must be float32, float64"),
    ({"query": Q[0]}, ValueError, r"query must have shape \(B, H, T, d_k\), got \(3, 4, 5\)"),
    ({"key": Q.double()}, TypeError, r"key must have the dtype of query \(float32\)"),
    ({"key": Q[..., :4]}, ValueError, r"key must have shape \(B, H, T, d_k\) = \(2, 3, 4, 5\)"),
    ({"key": Q.to("meta")}, ValueError, "key must be on the device of query"),
    (
        {"value": V[:, :, :3]},
        ValueError,
        r"value must have shape \(B, H, T, d_v\) = \(2, 3, 4, d_v",
    ),
    ({"value": V[0]}, ValueError, r"value must have shape .*, got \(3, 4, 6\)"),
    (
        {"beta": torch.ones(2, 3, 5)},
        ValueError,
        r"beta must broadcast to \(B, H, T\) = \(2, 3, 4\)",
    ),
    ({"beta": torch.ones(1, 2, 3, 4)}, ValueError, "beta must broadcast"),
    ({"beta": "1"}, TypeError, "beta must be a number, got str"),
    ({"beta": math.inf}, ValueError, "beta must be finite, got inf"),
    ({"decay": torch.ones(4).int()}, TypeError, "decay must be float32"),
    ({"decay": math.nan}, ValueError, "decay must be finite, got nan"),
    ({"initial_state": torch.ones(2, 3, 6, 5)}, ValueError, r"\(B, H, d_k, d_v\) = \(2, 3, 5, 6\)"),
    ({"initial_state": 0.0}, TypeError, "initial_state must be a torch.Tensor, got float"),
    ({"scale": "1"}, TypeError, "scale must be a number, got str"),
    ({"scale": math.nan}, ValueError, "scale must be finite, got nan"),
    ({"rule": "bcm"}, ValueError, "rule must be one of delta, hebb, oja, got 'bcm'"),
    ({"rule": 0}, TypeError, "rule must be one of delta, hebb, oja, got int"),
    ({"backend": "cuda"}, ValueError, "backend"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG, ids=[m for *_, m in WRONG])
def test_wrong_arguments(change, error, message):
    args = {"query": Q, "key": Q, "value": V} | change
    with pytest.raises(error, match=message):
        delta_rule(args.pop("query"), args.pop("key"), args.pop("value"), **args)


class TestRawOp:
    """Memory-safe whatever it is called with."""

    def good(self):
        ones = torch.ones(2, 3, 4)
        return [Q, Q, V, ones, ones, torch.ones(2, 3, 5, 6), 1.0, 0]

    def test_forward(self):
        for at, value, message in (
            (0, Q.half(), "query must be float32 or float64"),
            (0, Q[0], "query must have 4"),
            (1, Q[:, :2], "heads of key must be 3, got 2"),
            (1, Q.double(), "key has the wrong dtype"),
            (2, V[:, :, :3], "steps of value must be 4, got 3"),
            (2, V[0], "value must have 4"),
            (3, torch.ones(2, 3), "beta must have 3"),
            (4, torch.ones(2, 3, 3), "steps of decay must be 4, got 3"),
            (5, torch.ones(2, 3, 6, 5), "rows of state must be 5, got 6"),
            (5, torch.ones(2, 3, 5, 6).double(), "state has the wrong dtype"),
            (7, 3, "rule must be 0, 1 or 2, got 3"),
        ):
            bad = self.good()
            bad[at] = value
            with pytest.raises(RuntimeError, match=message):
                torch.ops.synops.delta_rule(*bad, True)

    def test_backward(self):
        *tensors, scale, rule = self.good()
        _, last, error = torch.ops.synops.delta_rule(*tensors, scale, rule, True)
        good = [V, last, *tensors, last, error, scale, rule, *[True] * 6]
        torch.ops.synops.delta_rule_backward(*good)
        for at, value, message in (
            (0, Q, "size of grad_output must be 6, got 5"),
            (1, last.mT, "rows of grad_state must be 5, got 6"),
            (2, Q[:1], "batch"),
            (5, None, "beta must be there"),
            (6, None, "decay must be there"),
            (7, last[:1], "batch of state must be 2, got 1"),
            (8, last[..., :5], "columns of last must be 6, got 5"),
            (9, torch.empty(0), "error must have 4"),
            (9, Q, "size of error must be 6, got 5"),
            (11, -1, "rule must be 0, 1 or 2"),
        ):
            bad = list(good)
            bad[at] = value
            with pytest.raises(RuntimeError, match=message):
                torch.ops.synops.delta_rule_backward(*bad)

    def test_a_backward_without_the_error(self):
        args = self.good()
        args[0] = Q.clone().requires_grad_()
        output, *_ = torch.ops.synops.delta_rule(*args, False)
        with pytest.raises(RuntimeError, match="not saved"):
            output.sum().backward()
        *_, error = torch.ops.synops.delta_rule(*args, True)
        with pytest.raises(RuntimeError, match="has no gradient"):
            error.sum().backward()


def test_names():
    assert FastWeights._fields == ("output", "state")
    assert set(NAMES) <= set(delta_rule.__annotations__)
