"""recurrent_lif as it is called: layouts, edges, pieces, transforms, bad arguments, raw ops."""

import math

import pytest
import torch

import synops
from synops.sparse import Pattern
from synops.spiking import _recurrent_lif, recurrent_lif


def weight_of(n):
    return torch.randn(n, n) / n**0.5


class TestLayout:
    def test_shapes(self):
        weight = weight_of(3)
        for shape in ((5, 3), (5, 2, 3), (5, 2, 4, 3)):
            x = torch.randn(shape)
            state = torch.ones(shape[1:]), torch.randn(shape[1:])
            got = recurrent_lif(x, weight, state, beta=0.9, record="v")
            flat = [t.reshape(-1, 3) for t in state]
            want = recurrent_lif(x.reshape(5, -1, 3), weight, flat, beta=0.9, record="v")
            assert got.spikes.shape == got.trajectory.shape == shape
            assert got.state.v.shape == got.state.spikes.shape == shape[1:]
            assert torch.equal(got.spikes.reshape(5, -1, 3), want.spikes)
            assert torch.equal(got.state.v.reshape(-1, 3), want.state.v)

    @pytest.mark.usefixtures("isa")
    def test_rows_anywhere(self):
        """Batch first, cut rows, a transposed weight: NaN in between is not read."""
        x = torch.full((4, 8, 40), torch.nan)  # (batch, time, neurons)
        x[:, :6, 3:36] = torch.randn(4, 6, 33)
        cut, weight = x[:, :6, 3:36].transpose(0, 1), weight_of(33)
        for one in (cut, cut[::2], torch.randn(6, 1, 33).expand(6, 3, 33), cut.flip(0)[:, ::3]):
            results = []
            for t, w in ((one, weight), (one.contiguous(), weight.T.contiguous().T)):
                leaves = t.detach().requires_grad_(), w.detach().requires_grad_()
                spikes = recurrent_lif(*leaves, beta=0.9).spikes
                grad = torch.linspace(-1, 1, 33).expand(spikes.shape)
                results.append((spikes, *torch.autograd.grad(spikes, leaves, grad)))
            assert all(map(torch.equal, *results))
            assert results[0][2].isfinite().all()

    def test_capacity(self):
        """What is behind the entries of a Pattern is not read."""
        mask = torch.rand(6, 6) < 0.5
        pattern = Pattern.from_mask(mask, capacity=40)
        values = torch.full((40,), torch.nan)
        values[: pattern.nnz] = torch.randn(pattern.nnz)
        values.requires_grad_()
        x = torch.randn(5, 2, 6)
        got = recurrent_lif(x, values, pattern=pattern, beta=0.9)
        dense = pattern.scatter(values.detach().nan_to_num())
        assert torch.equal(got.spikes, recurrent_lif(x, dense, beta=0.9).spikes)
        got.spikes.sum().backward()
        assert values.grad[: pattern.nnz].any()
        assert not values.grad[pattern.nnz :].any()


class TestEdges:
    def test_no_steps(self):
        state = torch.ones(2, 5, requires_grad=True), torch.randn(2, 5, requires_grad=True)
        weight = weight_of(5).requires_grad_()
        got = recurrent_lif(torch.zeros(0, 2, 5), weight, state, beta=0.5, record="v")
        assert torch.equal(got.state.spikes, state[0])
        assert torch.equal(got.state.v, state[1])
        assert got.spikes.shape == got.trajectory.shape == (0, 2, 5)
        g = torch.randn(2, 5)
        of_spikes, of_v, of_weight = torch.autograd.grad(got.state, (*state, weight), (2 * g, g))
        assert torch.equal(of_spikes, 2 * g)
        assert torch.equal(of_v, g)
        assert not of_weight.any()
        assert not recurrent_lif(torch.zeros(0, 2, 5), weight, beta=0.5).state.spikes.any()

    @pytest.mark.parametrize("shape", [(3, 0, 5), (3, 2, 0), (0, 0, 0), (0, 4)])
    @pytest.mark.parametrize("sparse", [False, True])
    def test_no_neurons(self, shape, sparse):
        x, n = torch.zeros(shape, requires_grad=True), shape[-1]
        pattern = Pattern.from_mask(torch.ones(n, n, dtype=torch.bool)) if sparse else None
        weight = torch.zeros(n * n) if sparse else torch.zeros(n, n)
        weight.requires_grad_()
        got = recurrent_lif(x, weight, pattern=pattern, beta=0.5, record="v")
        assert got.spikes.shape == got.trajectory.shape == shape
        grads = torch.autograd.grad(got.spikes.sum(), (x, weight), materialize_grads=True)
        assert not any(g.any() for g in grads)

    @pytest.mark.usefixtures("isa")
    def test_nan_and_inf(self):
        """A NaN stays where it is: it does not spike. An infinite input does."""
        x, weight = torch.zeros(3, 2, 19), torch.zeros(19, 19)
        weight[:, 5] = 0.25
        x[0, 0, 2], x[1, 0, 5] = torch.nan, torch.inf
        got = recurrent_lif(x, weight, beta=0.5)
        assert got.state.v[0, 2].isnan()
        assert got.spikes[1, 0, 5] == 1
        assert got.state.v[0, 0] == 0.25
        assert got.state.v[1].abs().max() == 0

    def test_spikes_of_any_size(self):
        """The state before may hold more than 0 and 1."""
        weight, spikes = weight_of(70), torch.randn(3, 70).double()
        x = torch.zeros(1, 3, 70, dtype=torch.float64)
        got = recurrent_lif(x, weight, (spikes, x[0]), beta=0.5, threshold=9.0)
        torch.testing.assert_close(got.state.v, spikes @ weight.double().T)


class TestPieces:
    """Long runs."""

    @pytest.fixture
    def short_pieces(self, monkeypatch):
        monkeypatch.setattr(_recurrent_lif, "_NANOSECONDS", (1e8 / (2 * 25 * 2), 0))

    def test_are_one_run(self, short_pieces):
        x = torch.randn(9, 2, 5)
        state, weight = (torch.ones(2, 5), torch.randn(2, 5)), weight_of(5)

        def run(x, weight, *state):
            got = recurrent_lif(x, weight, state, beta=0.9, record="v")
            return got.spikes, got.state.v, got.trajectory

        with torch.autograd.profiler.profile() as profile:
            results = [run(x, weight, *state)]
        names = [e.name for e in profile.function_events]
        assert 2 < names.count("synops::recurrent_lif") < 9
        leaves = [t.detach().clone().requires_grad_() for t in (x, weight, *state)]
        g = [torch.randn_like(t) for t in results[0]]
        grads = [torch.autograd.grad(run(*leaves), leaves, g)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_recurrent_lif, "_NANOSECONDS", (0.01, 0))
            results.append(run(x, weight, *state))
            grads.append(torch.autograd.grad(run(*leaves), leaves, g))
        assert all(map(torch.equal, *results))
        for one, other in zip(*grads, strict=True):
            torch.testing.assert_close(one, other)

    def test_the_state_stays(self):
        state = torch.ones(2, 5), torch.randn(2, 5)
        before = [t.clone() for t in state]
        recurrent_lif(torch.randn(4, 2, 5), weight_of(5), state, beta=0.9)
        assert all(map(torch.equal, state, before))


class TestTransforms:
    def test_second_gradient_is_refused(self):
        x, weight = torch.randn(4, 2, 3, requires_grad=True), weight_of(3)
        spikes = recurrent_lif(x * 2, weight, beta=0.9).spikes
        (g,) = torch.autograd.grad(spikes.sum(), x, create_graph=True)
        with pytest.raises(NotImplementedError, match="double backward"):
            (g * x).sum().backward()

    def test_forward_mode_is_refused(self):
        x, weight = torch.randn(4, 2, 3), weight_of(3)
        with pytest.raises(NotImplementedError, match="forward-mode AD"):
            torch.func.jvp(lambda x: recurrent_lif(x, weight, beta=0.9).spikes, (x,), (x,))

    def test_func(self):
        x, weight = torch.randn(3, 5, 2, 4), weight_of(4)

        def f(x, weight):
            return recurrent_lif(x, weight, beta=0.9).spikes.cumsum(0).sum()

        want = [t.clone().requires_grad_() for t in (x[0], weight)]
        want = torch.autograd.grad(f(*want), want)
        for one, other in zip(torch.func.grad(f, (0, 1))(x[0], weight), want, strict=True):
            torch.testing.assert_close(one, other)
        mapped = torch.vmap(torch.func.grad(f, (0, 1)), (0, None))(x, weight)
        for one, other in zip(mapped, want, strict=True):
            torch.testing.assert_close(one[0], other)

    def test_compiled(self):
        torch._dynamo.reset()
        pattern = Pattern.from_mask(torch.rand(4, 4) < 0.6)
        weight = torch.randn(pattern.nnz, requires_grad=True)

        def f(x, weight, pattern):
            return recurrent_lif(x.sin(), weight, pattern=pattern, beta=0.9, record="v")

        compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
        for steps in (3, 5, 8):  # from the second on for any number
            x = torch.randn(steps, 2, 4, requires_grad=True)
            results = []
            for g in (compiled, f):
                got = g(x, weight, pattern)
                loss = got.spikes.sum() + got.trajectory.sum() + got.state.v.sum()
                results.append((got.spikes, *torch.autograd.grad(loss, (x, weight))))
            for one, other in zip(*results, strict=True):
                torch.testing.assert_close(one, other)

    def test_exported(self):
        class Layer(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(weight_of(4))

            def forward(self, x):
                got = recurrent_lif(x, self.weight, beta=0.9)
                return got.spikes, got.state.v

        layer = Layer()
        steps, batch = torch.export.Dim("steps"), torch.export.Dim("batch")
        program = torch.export.export(
            layer, (torch.randn(3, 2, 4),), dynamic_shapes=({0: steps, 1: batch},)
        )
        x = torch.randn(6, 5, 4)
        for one, other in zip(program.module()(x), layer(x), strict=True):
            assert torch.equal(one, other)

    def test_opcheck(self):
        x, v = torch.randn(4, 2, 5), torch.randn(2, 5)
        beta, threshold = torch.tensor(0.9), torch.rand(5)
        pattern = Pattern.from_mask(torch.rand(5, 5) < 0.5)
        values, weight = torch.randn(pattern.nnz), weight_of(5)
        rule = (0, True, False, True, 4, 2.0)
        leaves = [t.clone().requires_grad_() for t in (x, weight, v, v, beta, threshold)]
        op, backward = torch.ops.synops.recurrent_lif, torch.ops.synops.recurrent_lif_backward
        torch.library.opcheck(op.default, (*leaves, None, None, *rule, False, True))
        index = pattern.crow, pattern.col
        args = (values, None, None, beta, threshold, *index, *rule)
        torch.library.opcheck(op.default, (x, *args, False, False))
        needs = (True, True, False, True, True, False)
        torch.library.opcheck(backward.default, (x, v, None, x, *args, 0, *needs))

    def test_which(self):
        found = synops.which(recurrent_lif, torch.randn(3, 2, 4), weight_of(4), beta=0.9)
        assert "cpp" in str(found).lower()


PATTERN = Pattern.from_mask(torch.eye(4, dtype=torch.bool))
WRONG = [
    ({"input": [1.0]}, TypeError, "input must be a torch.Tensor, got list"),
    ({"input": torch.ones(3)}, ValueError, r"input must have shape \(T, ..., N\), got \(3,\)"),
    ({"weight": 1.0}, TypeError, "weight must be a torch.Tensor, got float"),
    ({"weight": torch.ones(4, 4).int()}, TypeError, "weight must be float32, float64"),
    ({"weight": torch.ones(4, 3)}, ValueError, r"weight must have shape \(N, N\) = \(4, 4\), got"),
    ({"weight": torch.ones(3), "pattern": PATTERN}, ValueError, r"\(capacity,\) = \(4,\), got"),
    ({"pattern": torch.ones(4, 4)}, TypeError, "pattern must be a Pattern, got Tensor"),
    (
        {"pattern": Pattern.from_mask(torch.ones(4, 3, dtype=torch.bool))},
        ValueError,
        r"pattern must have shape \(N, N\) = \(4, 4\), got \(4, 3\)",
    ),
    ({"state": torch.zeros(2, 4)}, TypeError, r"state must be a pair \(spikes, v\), got Tensor"),
    ({"state": (torch.zeros(2, 4),)}, TypeError, r"state must be a pair"),
    ({"state": (None, torch.zeros(2, 4))}, TypeError, "state spikes must be a torch.Tensor"),
    (
        {"state": (torch.zeros(2, 4), torch.zeros(4))},
        ValueError,
        r"state v must have shape \(..., N\) = \(2, 4\), got \(4,\)",
    ),
    ({"beta": 1.5}, ValueError, r"beta must lie in \[0, 1\], got 1.5"),
    ({"beta": torch.ones(3)}, ValueError, r"beta must have shape \(\) or \(N,\) = \(4,\)"),
    ({"threshold": math.inf}, ValueError, "threshold must be finite, got inf"),
    ({"reset": "soft"}, ValueError, "reset must be one of subtract, zero, none, got 'soft'"),
    ({"surrogate": "relu"}, ValueError, "surrogate must be one of fast_sigmoid, .*, got 'relu'"),
    ({"slope": 0}, ValueError, "slope must be positive and finite, got 0"),
    ({"record": "u"}, ValueError, "record must be one of v, got 'u'"),
    ({"backend": "cuda"}, ValueError, "backend"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG, ids=[m for *_, m in WRONG])
def test_wrong_arguments(change, error, message):
    args = {"input": torch.randn(3, 2, 4), "weight": weight_of(4), "beta": 0.9} | change
    with pytest.raises(error, match=message):
        recurrent_lif(args.pop("input"), args.pop("weight"), **args)


INDEX = torch.tensor([0, 1, 2, 3, 4], dtype=torch.int32), torch.arange(4, dtype=torch.int32)
UNSAFE = [
    ({"input": torch.randn(3, 4)}, "3 dimensions"),
    ({"weight": torch.randn(4, 3)}, "columns of weight"),
    ({"weight": torch.randn(4, 4).double()}, "weight has the wrong dtype"),
    ({"weight": torch.randn(4)}, "weight must have 2 dimensions"),
    ({"spikes0": torch.randn(2, 5)}, "spikes0"),
    ({"v0": torch.randn(4, 2)}, "v0"),
    ({"beta": torch.rand(3)}, "beta"),
    ({"threshold": torch.rand(4).half()}, "threshold has the wrong dtype"),
    ({"crow": INDEX[0]}, "crow and col come together"),
    ({"crow": INDEX[0], "col": INDEX[1]}, "weight must have 1 dimensions"),
    ({"crow": INDEX[0], "col": INDEX[1], "weight": torch.randn(3)}, "size 0 of weight"),
    ({"crow": INDEX[0], "col": INDEX[1] + 1, "weight": torch.randn(4)}, "col must lie in"),
    ({"crow": INDEX[0] + 1, "col": INDEX[1], "weight": torch.randn(4)}, "crow must ascend"),
    ({"crow": INDEX[0][:4], "col": INDEX[1], "weight": torch.randn(4)}, "crow"),
    ({"reset": 3}, "reset must be 0, 1 or 2, got 3"),
    ({"surrogate": 7}, "surrogate must be 0 to 6, got 7"),
]


class TestRawOp:
    """Memory-safe whatever it is called with."""

    @pytest.mark.parametrize(("change", "message"), UNSAFE, ids=range(len(UNSAFE)))
    def test_forward(self, change, message):
        good = {
            "input": torch.randn(3, 2, 4),
            "weight": weight_of(4),
            "spikes0": torch.ones(2, 4),
            "v0": torch.randn(2, 4),
            "beta": torch.tensor(0.9),
            "threshold": torch.rand(4),
            "crow": None,
            "col": None,
            "reset": 0,
            "surrogate": 0,
        }

        def call(reset, surrogate, **tensors):
            rule = (reset, False, False, True, surrogate, 2.0)
            return torch.ops.synops.recurrent_lif(*tensors.values(), *rule, True, True)

        call(**good)
        with pytest.raises(RuntimeError, match=message):
            call(**good | change)

    def test_backward(self):
        x, v, weight = torch.randn(3, 2, 4), torch.randn(2, 4), weight_of(4)
        rule = [0, False, False, True, 0, 2.0, 0]
        good = [x, v, x, x, weight, v, v, torch.tensor(0.9), torch.rand(4), None, None, *rule]
        good += [True] * 6
        torch.ops.synops.recurrent_lif_backward(*good)
        for at, value, message in (
            (0, x[:2], "steps of grad_spikes"),
            (0, x.half(), "grad_spikes has the wrong dtype"),
            (1, x, "grad_v must have 2"),
            (2, x[:, :1], "rows of grad_trajectory"),
            (3, x.half(), "membrane must be float32 or float64"),
            (3, v, "membrane must have 3"),
            (4, weight[:3], "rows of weight"),
            (5, v[:, :3], "neurons of spikes0"),
            (6, v[:1], "rows of v0"),
            (7, torch.rand(2), "beta"),
            (9, INDEX[0], "crow and col come together"),
            (17, 3, "half must be 0, 1 or 2"),
        ):
            bad = list(good)
            bad[at] = value
            with pytest.raises(RuntimeError, match=message):
                torch.ops.synops.recurrent_lif_backward(*bad)

    def test_a_backward_without_a_membrane(self):
        x = torch.randn(3, 2, 4, requires_grad=True)
        one = torch.tensor(0.9)
        args = (weight_of(4), None, None, one, one, None, None, 0, False, False, True, 0, 2.0)
        spikes, *_ = torch.ops.synops.recurrent_lif(x, *args, False, False)
        with pytest.raises(RuntimeError, match="not saved"):
            spikes.sum().backward()
        _, _, membrane, _ = torch.ops.synops.recurrent_lif(x, *args, True, False)
        with pytest.raises(RuntimeError, match="has no gradient"):
            membrane.sum().backward()
