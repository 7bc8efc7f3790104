"""hopfield_retrieve: layouts, edges, transforms, and bad arguments."""

import pytest
import torch
from hopfield_samples import CASES, Case, run, sample

import synops
from synops.hebbian import hopfield_retrieve

STATE, X, V = torch.randn(2, 3, 5, 4), torch.randn(3, 6, 4), torch.randn(6, 2)


class TestLayouts:
    def test_not_contiguous(self):
        state, x = torch.randn(4, 7, 3).transpose(0, 2), torch.randn(4, 40, 3).transpose(0, 2)
        values = torch.randn(40, 6)[:, ::2]
        x = x[0]
        got = hopfield_retrieve(state, x, values, beta=1.0, steps=2)
        dense = (t.contiguous() for t in (state, x, values))
        want = hopfield_retrieve(*dense, beta=1.0, steps=2)
        assert torch.equal(got.output, want.output)
        assert torch.equal(got.entropy, want.entropy)

    def test_nothing_else_is_read(self):
        """Neither between the rows of patterns and values nor behind them."""
        x, v = torch.full((40, 9), torch.nan), torch.full((40, 9), torch.nan)
        x[:, :5], v[:, :3] = torch.randn(40, 5), torch.randn(40, 3)
        for rows in (1, 9):
            state = torch.randn(rows, 5)
            leaves = [t.detach()[:, :n].requires_grad_() for t, n in ((x, 5), (v, 3))]
            found = hopfield_retrieve(
                state, *leaves, beta=1.0, steps=2, stats=("energy", "entropy")
            )
            assert all(t.isfinite().all() for t in (found.output, found.entropy, found.energy))
            grads = torch.autograd.grad((found.output.sum() + found.energy.sum(),), leaves)
            assert all(t.isfinite().all() for t in grads)

    def test_shapes(self):
        found = hopfield_retrieve(STATE, X, V, beta=torch.ones(3), steps=3, stats="energy")
        assert found.output.shape == (2, 3, 5, 2)
        assert found.iterations.shape == (2, 3, 5)
        assert found.energy.shape == (3, 2, 3, 5)
        assert found.entropy is None
        found = hopfield_retrieve(torch.randn(2, 2, 2, 2, 4), X[0], beta=1.0)
        assert found.output.shape == (2, 2, 2, 2, 4)
        assert found.entropy.shape == (1, 2, 2, 2, 2)

    def test_empty(self):
        for state in (torch.empty(0, 4), torch.empty(0, 3, 5, 4), torch.empty(2, 3, 0, 4)):
            x = X[0].detach().clone().requires_grad_()
            found = hopfield_retrieve(state, x, beta=1.0, steps=2)
            assert found.output.shape == state.shape
            assert found.entropy.shape == (2, *state.shape[:-1])
            (grad,) = torch.autograd.grad(found.output.sum(), x)
            assert not grad.any()

    def test_input_is_not_changed(self):
        state, x = STATE.clone(), X.clone()
        found = hopfield_retrieve(state, x, beta=1.0, steps=3, tolerance=10.0)
        assert torch.equal(state, STATE)
        assert torch.equal(x, X)
        assert found.output.data_ptr() != state.data_ptr()


def call(state, x, values=None, beta=1.0, **options):
    found = hopfield_retrieve(
        state, x, values, beta=beta, steps=3, stats=("entropy", "energy"), **options
    )
    return found.output, found.entropy, found.energy


class TestTransforms:
    def test_gradcheck(self):
        s = sample(
            CASES["values"]._replace(state=(1, 3, 2, 4), patterns=(3, 5, 4), values=(5, 2)),
            torch.float64,
        )
        leaves = [t.requires_grad_() for t in s[:4]]
        assert torch.autograd.gradcheck(call, leaves, fast_mode=True)

    def test_opcheck(self):
        s = sample(Case((1, 2, 3, 4), (1, 1, 5, 4), (1, 1, 5, 2), (2,)), torch.float64)
        leaves = [t if t is None else t.requires_grad_() for t in s[:4]]
        op = torch.ops.synops.hopfield_retrieve.default
        torch.library.opcheck(op, (*leaves, 3, 0.1, True, True))
        plain = [t if t is None else t.detach() for t in leaves]
        torch.library.opcheck(op, (plain[0], plain[1], None, plain[3], 1, -1.0, False, False))
        output, lse, entropy, norm, iterations, states = op(*plain, 3, 0.1, True, True)
        grads = (torch.randn_like(output), torch.randn_like(lse), None, torch.randn_like(norm))
        back = torch.ops.synops.hopfield_retrieve_backward.default
        for needs in ((True, True, True, True), (False, True, False, False)):
            args = (*grads, *plain, output, lse, entropy, iterations, states, *needs)
            torch.library.opcheck(back, args)

    def test_compile(self):
        torch._dynamo.reset()
        s = sample(CASES["values"], torch.float32)
        leaves = [t.requires_grad_() for t in s[:4]]
        compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
        for got, want in zip(compiled(*leaves), call(*leaves), strict=True):
            torch.testing.assert_close(got, want)
        grads = [torch.autograd.grad(f(*leaves)[0].sum(), leaves) for f in (compiled, call)]
        for got, want in zip(*grads, strict=True):
            torch.testing.assert_close(got, want)

    def test_export(self):
        class Module(torch.nn.Module):
            def forward(self, state, x):
                return call(state, x)

        rows = torch.export.Dim("rows", min=2)
        inputs = (torch.randn(9, 4), torch.randn(7, 4))
        program = torch.export.export(Module(), inputs, dynamic_shapes=({0: rows}, None))
        other = torch.randn(30, 4)
        for got, want in zip(
            program.module()(other, inputs[1]), call(other, inputs[1]), strict=True
        ):
            torch.testing.assert_close(got, want)

    def test_vmap_and_func_grad(self):
        states, x = torch.randn(3, 5, 4), torch.randn(7, 4)
        for got, want in zip(torch.vmap(lambda q: call(q, x))(states)[0], states, strict=True):
            torch.testing.assert_close(got, call(want, x)[0])
        got = torch.vmap(torch.func.grad(lambda q: call(q, x)[0].square().sum()))(states)
        leaf = states.clone().requires_grad_()
        (want,) = torch.autograd.grad(
            hopfield_retrieve(leaf, x, beta=1.0, steps=3).output.square().sum(), leaf
        )
        torch.testing.assert_close(got, want)

    def test_double_backward_is_refused(self):
        x = X[0].clone().requires_grad_()
        output = hopfield_retrieve(STATE, x, beta=1.0).output
        (grad,) = torch.autograd.grad(output.sum(), x, create_graph=True)
        with pytest.raises(NotImplementedError, match="double backward"):
            grad.sum().backward()

    def test_autocast(self):
        want = hopfield_retrieve(STATE.bfloat16(), X.bfloat16(), beta=1.0)
        with torch.autocast("cpu", torch.bfloat16):
            got = hopfield_retrieve(STATE, X, beta=1.0)
        assert torch.equal(got.output, want.output)

    def test_only_what_is_needed(self):
        s = sample(CASES["values"], torch.float32)
        whole = run(s).grads
        for i in range(4):
            leaves = [t.detach().requires_grad_(i == j) for j, t in enumerate(s[:4])]
            found = hopfield_retrieve(
                *leaves[:3], beta=leaves[3], stats=("entropy", "energy"), **s.options
            )
            results = (found.output, found.entropy, found.energy)
            kept = [(r, g) for r, g in zip(results, s.grads, strict=True) if r.requires_grad]
            (grad,) = torch.autograd.grad([r for r, _ in kept], leaves[i], [g for _, g in kept])
            torch.testing.assert_close(grad, whole[i])


ERRORS = {
    "state: type": ((3, X), {}, TypeError, "state must be a torch.Tensor, got int"),
    "state: dtype": (
        (STATE.int(), X),
        {},
        TypeError,
        "state must be float32, float64, bfloat16 or",
    ),
    "patterns: dtype": (
        (STATE, X.double()),
        {},
        TypeError,
        "patterns must have the dtype of state",
    ),
    "patterns: size": (
        (STATE, X[..., :3]),
        {},
        ValueError,
        r"patterns must have shape \(..., N, D\)",
    ),
    "patterns: none": ((STATE, X[:, :0]), {}, ValueError, "patterns must have shape"),
    "patterns: a vector": ((STATE, X[0, 0]), {}, ValueError, "patterns must have shape"),
    "patterns: heads": ((STATE, X[:2]), {}, ValueError, "state must have leading dimensions that"),
    "values: rows": ((STATE, X, V[:5]), {}, ValueError, r"values must have shape \(..., N, Dv\)"),
    "state: dimensions": ((STATE[None], X), {}, ValueError, "state must have at most 4 dimensions"),
    "beta: type": ((STATE, X), {"beta": "1"}, TypeError, "beta must be a number or a tensor"),
    "beta: 0": ((STATE, X), {"beta": 0}, ValueError, "beta must be finite and above 0, got 0"),
    "beta: NaN": ((STATE, X), {"beta": torch.nan}, ValueError, "beta must be finite and above 0"),
    "beta: a NaN": (
        (STATE, X),
        {"beta": torch.tensor([1.0, torch.nan, 1])},
        ValueError,
        "beta must be finite and above 0",
    ),
    "beta: heads": ((STATE, X), {"beta": torch.ones(2)}, ValueError, r"beta must have shape \(\)"),
    "steps: 0": ((STATE, X), {"steps": 0}, ValueError, "steps must be at least 1, got 0"),
    "steps: type": ((STATE, X), {"steps": 1.5}, TypeError, "steps must be an int, got float"),
    "tolerance": (
        (STATE, X),
        {"tolerance": -1},
        ValueError,
        "tolerance must be finite and at least",
    ),
    "stats": ((STATE, X), {"stats": ("lse",)}, ValueError, "stats must be of entropy, energy, got"),
    "backend": ((STATE, X), {"backend": "fast"}, ValueError, "backend: must be one of"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    args, options, error, message = ERRORS[name]
    with pytest.raises(error, match=message):
        hopfield_retrieve(*args, **{"beta": 1.0, **options})


def test_raw_op_is_safe():
    state, x, beta = STATE, X[None], torch.ones(1)
    op = torch.ops.synops.hopfield_retrieve
    good = op(state, x, None, beta, 2, -1.0, True, True)
    for args in (
        (state[0], x, None, beta, 1),
        (state, x[:, :2], None, beta, 1),
        (state, x[..., :3].contiguous(), None, beta, 1),
        (state, x[:, :, :0], None, beta, 1),
        (state, x.double(), None, beta, 1),
        (state, x, x[:, :, :5], beta, 1),
        (state, x, None, beta.double(), 1),
        (state, x, None, torch.ones(2), 1),
        (state, x, None, torch.zeros(1), 1),
        (state, x, None, beta, 0),
        (state, x, None, beta, -(2**60)),
    ):
        with pytest.raises(RuntimeError):
            op(*args, -1.0, True, True)
    back = torch.ops.synops.hopfield_retrieve_backward
    output, lse, entropy, _, iterations, states = good
    grad, needs = torch.ones_like(output), (True, True, False, True)
    args = [grad, None, None, None, state, x, None, beta, output, lse, entropy, iterations, states]
    back(*args, *needs)
    for i, bad in (
        (0, grad[:1]),
        (1, lse[:1]),
        (8, output[:1]),
        (9, lse[:0]),
        (11, iterations[:1]),
        (12, states[:0]),
        (12, states.double()),
    ):
        with pytest.raises(RuntimeError):
            back(*args[:i], bad, *args[i + 1 :], *needs)
    wild = torch.full_like(iterations, -(2**62))
    back(*args[:11], wild, states, *needs)


def test_which():
    assert "cpp" in str(synops.which(hopfield_retrieve, STATE, X, beta=1.0))
