"""esn against float64, against the loops people write, and as it is called."""

import math

import pytest
import torch
from reservoir_samples import PATTERNS, check, run, sample

import synops
from synops.sparse import Pattern
from synops.spiking import esn

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# One sequence with its batch dimension and without; two by themselves; from three on together: one
# vector of AVX2, one of AVX-512, two and one more.
BATCHES = (None, 1, 2, 3, 8, 13, 33)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", PATTERNS)
def test_reference(name, dtype):
    """Every batch on every layout; activations, inputs and washouts take turns."""
    pattern = PATTERNS[name]()
    batches = (None, 4) if name == "wide" else BATCHES
    for i, batch in enumerate(batches):
        activation = ("tanh", "relu", "identity")[i % 3]
        s = sample(pattern, 4, batch, (1, 3, 0)[i % 3], dtype, activation=activation)
        if i % 2:
            s = s._replace(state=None)
        check(s._replace(rest=s.rest | {"washout": (0, 2, 0, 9)[i % 4]}), dtype)


def test_loop():
    """The formula as it is written, in float64."""
    s = sample(Pattern.from_mask(torch.rand(30, 30) < 0.3), 20, None, 2, torch.float64)
    weight = s.pattern.scatter(s.values)
    x, states = s.state, []
    for u in s.input:
        drive = weight @ x + s.rest["input_weight"] @ u + s.rest["bias"]
        x = (1 - s.rest["leak"]) * x + s.rest["leak"] * torch.tanh(drive)
        states.append(x)
    got = run(s)
    torch.testing.assert_close(got.states, torch.stack(states), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(got.state, x, rtol=1e-13, atol=1e-14)


@pytest.mark.usefixtures("isa")
def test_tanh():
    """Within 4 ulps everywhere, odd, 1 at the end; NaN stays."""
    x = torch.cat([torch.logspace(-30, 2, 20_000), torch.linspace(0, 10, 20_000)])
    x = torch.cat([x, torch.tensor([0.0, math.inf, math.nan, 8.999, 9.011, 9.1])])
    one = Pattern.from_mask(torch.zeros(1, 1, dtype=torch.bool))

    def squash(x):
        args = {"input_weight": torch.ones(1, 1), "leak": 1.0}
        return esn(x[None, :, None], torch.zeros(0), one, **args).states[0, :, 0]

    got, want = squash(x), x.double().tanh()
    off = (got.double() - want).abs() / want.abs().clamp_min(1e-38)
    assert off[want != 0].nan_to_num().max() < 4 * 2**-24 * 2
    assert got[-4].isnan()
    assert not got[want == 0].any()
    assert (got[x > 9.02] == 1).all()
    assert torch.equal(squash(-x)[:-6], -got[:-6])


class TestBits:
    @pytest.mark.parametrize("batch", [None, 2, 5])
    def test_of_two_calls(self, batch):
        for name in ("groups and a rest", "tiles", "blocks of 16"):
            s = sample(PATTERNS[name](), 11, batch, 2, torch.float32).to(torch.float32)
            whole = run(s)
            first = run(s._replace(input=s.input[:4]))
            second = run(s._replace(input=s.input[4:], state=first.state))
            assert torch.equal(whole.states, torch.cat([first.states, second.states]))
            assert torch.equal(whole.state, second.state)

    def test_of_threads(self, threads):
        """Over sequences, over blocks of them, and over the rows of one."""
        cases = [(600, 0.3, 2), (600, 0.3, 32), (600, 0.3, 70), (1100, 0.5, None)]
        for n, density, batch in cases:
            pattern = Pattern.from_mask(torch.rand(n, n) < density)
            s = sample(pattern, 3, batch, 1, torch.float32).to(torch.float32)
            answers = []
            for count in (1, 2, 3, 7):
                threads(count)
                answers.append(run(s))
            for other in answers[1:]:
                assert all(map(torch.equal, answers[0], other))

    @pytest.mark.parametrize("batch", [None, 4])
    def test_of_pieces(self, batch, monkeypatch):
        """A long run is cut, and nothing tells."""
        s = sample(PATTERNS["groups and a rest"](), 10, batch, 2, torch.float32).to(torch.float32)
        for options in ({}, {"washout": 4}, {"washout": 12}, {"record": "last"}):
            whole = run(s, **options)
            with monkeypatch.context() as patch:
                pieces = lambda steps, cost: ((i, min(i + 3, steps)) for i in range(0, steps, 3))  # noqa: E731
                patch.setattr("synops.spiking._reservoir.chunks", pieces)
                before = s.state.clone()
                assert all(map(torch.equal, run(s, **options), whole))
                assert torch.equal(s.state, before)

    def test_washout_and_last(self):
        s = sample(PATTERNS["groups and a rest"](), 7, 3, 2, torch.float32).to(torch.float32)
        whole = run(s)
        assert torch.equal(run(s, washout=3).states, whole.states[3:])
        last = run(s, record="last")
        assert last.states.shape == (0, 3, 45)
        assert torch.equal(last.state, whole.state)


class TestCalls:
    def test_rows_anywhere(self):
        """Batch first, every other step, cut: NaN in between is not read; expanded."""
        x = torch.full((4, 8, 6), torch.nan)
        x[:, :6, 1:4] = torch.randn(4, 6, 3)
        pattern = PATTERNS["groups and a rest"]()
        s = sample(pattern, 6, 4, 3, torch.float32).to(torch.float32)
        for input in (
            x[:, :6, 1:4].transpose(0, 1),
            x[:, :6, 1:4].transpose(0, 1)[::2],
            torch.randn(6, 1, 3).expand(6, 4, 3),
            torch.randn(6, 3, 4).transpose(1, 2),
        ):
            got, want = run(s._replace(input=input)), run(s._replace(input=input.contiguous()))
            assert got.states.isfinite().all()
            assert torch.equal(got.states, want.states)

    def test_what_lies_behind_the_values_is_not_read(self):
        pattern = Pattern.from_mask(torch.rand(20, 20) < 0.3, capacity=400)
        s = sample(pattern, 4, 2, 1, torch.float32).to(torch.float32)
        longer = torch.cat([s.values, torch.full((400 - pattern.nnz,), torch.nan)])
        assert torch.equal(run(s._replace(values=longer)).states, run(s).states)

    @pytest.mark.parametrize("shape", [(0, 3), (0, 2, 3), (4, 0, 3), (4, 2, 0)])
    def test_nothing(self, shape):
        """No steps, no sequences, no inputs."""
        s = sample(PATTERNS["less than a group"](), 1, None, shape[-1], torch.float32)
        many = shape[1:-1]
        state = torch.randn(*many, 7)
        s = s.to(torch.float32)._replace(input=torch.randn(shape), state=state)
        got = run(s)
        assert got.states.shape == (shape[0], *many, 7)
        assert got.state.shape == (*many, 7)
        if not shape[0]:
            assert torch.equal(got.state, state)

    def test_no_units(self):
        pattern = Pattern.from_mask(torch.zeros(0, 0, dtype=torch.bool))
        s = sample(pattern, 4, 2, 1, torch.float32).to(torch.float32)
        assert run(s).states.shape == (4, 2, 0)

    @pytest.mark.usefixtures("isa")
    @pytest.mark.parametrize("batch", [None, 5])
    def test_nan_stays_where_it_belongs(self, batch):
        """It spreads along the weights and into no other sequence; short rows do not meet it."""
        mask = torch.zeros(20, 20, dtype=torch.bool)
        mask[5, 3] = mask[6, 5] = True
        mask[8:16, :2] = True  # the groups' longest rows
        s = sample(Pattern.from_mask(mask), 2, batch, 1, torch.float32).to(torch.float32)
        s.state[..., 3].fill_(torch.nan)
        if batch:
            s.state[1:, 3] = 0
        got = run(s).states
        got = got[:, 0] if batch else got
        assert got[0].isnan().nonzero().flatten().tolist() == [3, 5]
        assert got[1].isnan().nonzero().flatten().tolist() == [3, 5, 6]
        if batch:
            assert not run(s).states[:, 1:].isnan().any()

    def test_leak(self):
        s = sample(PATTERNS["groups and a rest"](), 3, None, 2, torch.float32).to(torch.float32)
        want = run(s, leak=torch.full((45,), 0.5))
        for leak in (0.5, torch.tensor(0.5), torch.tensor([0.5], dtype=torch.float64)):
            assert torch.equal(run(s, leak=leak).states, want.states)
        assert torch.equal(run(s, leak=0.0).states, s.state.expand(3, 45))

    def test_a_gradient_is_refused_and_the_references(self):
        s = sample(PATTERNS["less than a group"](), 3, 2, 1, torch.float64)
        for leaf in (s.input, s.values, s.state, *list(s.rest.values())[:3]):
            leaf.requires_grad_()
            with pytest.raises(NotImplementedError, match="esn: a gradient is not implemented"):
                run(s).states.sum().backward()
            run(s, backend="reference").states.sum().backward()
            assert leaf.grad.isfinite().all()
            leaf.requires_grad_(False)


class TestTransforms:
    def test_compiled(self):
        torch._dynamo.reset()
        s = sample(PATTERNS["less than a group"](), 5, 2, 1, torch.float32).to(torch.float32)

        def f(u, x):
            return esn(u.sin(), s.values, s.pattern, x, washout=1, **s.rest)

        compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
        for steps in (3, 5, 8):
            u = torch.randn(steps, 2, 1)
            assert all(map(torch.equal, compiled(u, s.state), f(u, s.state)))

    def test_exported(self):
        s = sample(PATTERNS["less than a group"](), 5, 2, 1, torch.float32).to(torch.float32)

        class Layer(torch.nn.Module):
            def forward(self, u):
                return tuple(esn(u, s.values, s.pattern, **s.rest))

        dims = ({0: torch.export.Dim("steps"), 1: torch.export.Dim("batch")},)
        program = torch.export.export(Layer(), (s.input,), dynamic_shapes=dims)
        u = torch.randn(6, 3, 1)
        assert all(map(torch.equal, program.module()(u), Layer()(u)))

    def test_vmap(self):
        """Over seeds: values and states of one pattern."""
        s = sample(PATTERNS["groups and a rest"](), 4, 2, 1, torch.float32).to(torch.float32)
        values = torch.randn(3, s.pattern.nnz) * 0.3
        f = lambda v: run(s._replace(values=v)).states  # noqa: E731
        assert torch.equal(torch.vmap(f)(values), torch.stack([f(v) for v in values]))

    def test_opcheck(self):
        torch.library.opcheck(torch.ops.synops.esn.default, tuple(raw().values()))
        args = raw()
        args["state"], args["input"] = args["state"].clone(), args["input"]
        in_place = (torch.zeros(3, 2, 7), args.pop("state"), *args.values())
        torch.library.opcheck(torch.ops.synops.esn_.default, in_place)

    def test_which(self):
        s = sample(PATTERNS["less than a group"](), 5, 2, 1, torch.float32)
        found = synops.which(esn, s.input, s.values, s.pattern, **s.rest)
        assert "cpp" in str(found).lower()


def raw(**changes):
    """Arguments of the op, in its order."""
    p = Pattern.from_mask(torch.ones(7, 7).tril() > 0)
    s = sample(p, 5, 2, 1, torch.float32).to(torch.float32)
    args = {
        "input": s.input,
        "state": s.state,
        **{k: s.rest[k] for k in ("input_weight", "bias", "leak")},
        "values": s.values,
        **{k: getattr(p, k) for k in ("crow", "col", "row_ptr", "tile_col")},
        "block_rows": 1,
        "block_step": 1,
        "activation": 0,
        "washout": 2,
    }
    return args | changes


PATTERN = Pattern.from_mask(torch.eye(7, dtype=torch.bool))
WRONG = [
    ({"input": [1.0]}, TypeError, "input must be a torch.Tensor, got list"),
    ({"input": torch.ones(3, 2).int()}, TypeError, "input must be float32, float64"),
    ({"input": torch.ones(3)}, ValueError, r"input must have shape \(T, K\) or \(T, B, K\)"),
    ({"pattern": torch.eye(7)}, TypeError, "pattern must be a synops.sparse.Pattern, got Tensor"),
    (
        {"pattern": Pattern.from_mask(torch.ones(7, 6) > 0)},
        ValueError,
        r"pattern must have shape \(N, N\), got \(7, 6\)",
    ),
    ({"values": torch.ones(6)}, ValueError, r"values must have shape \(nnz,\) = \(7,\), got \(6,"),
    ({"values": torch.ones(7).int()}, TypeError, "values must be float32"),
    ({"input_weight": torch.ones(7, 3)}, ValueError, r"input_weight must have shape \(N, K\)"),
    ({"bias": torch.ones(8)}, ValueError, r"bias must have shape \(N,\) = \(7,\), got \(8,\)"),
    ({"state": torch.ones(2, 7)}, ValueError, r"state must have shape \(N,\) = \(7,\)"),
    ({"state": 0.0}, TypeError, "state must be a torch.Tensor, got float"),
    ({"leak": 1.5}, ValueError, r"leak must lie in \[0, 1\], got 1.5"),
    ({"leak": "1"}, TypeError, "leak must be a number, got str"),
    ({"leak": torch.ones(6)}, ValueError, r"leak must have shape \(\) or \(N,\) = \(7,\)"),
    ({"activation": "gelu"}, ValueError, "activation must be one of tanh, relu, identity"),
    ({"record": "none"}, ValueError, "record must be one of states, last, got 'none'"),
    ({"washout": -1}, ValueError, "washout must not be negative, got -1"),
    ({"washout": 1.5}, TypeError, "washout must be an integer, got float"),
    ({"backend": "cuda"}, ValueError, "backend"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_arguments(change, error, message):
    args = {
        "input": torch.randn(3, 2),
        "values": torch.ones(7),
        "pattern": PATTERN,
        "input_weight": torch.ones(7, 2),
    }
    with pytest.raises(error, match=message):
        esn(**args | change)


UNSAFE = [
    ({"input": torch.randn(5, 1)}, "3 dimensions"),
    ({"input": torch.randn(5, 2, 1).half()}, "float32 or float64"),
    ({"input": torch.randn(5, 2, 1).double()}, "wrong dtype"),
    ({"input": torch.randn(5, 2, 4)}, "input_weight"),
    ({"state": torch.randn(2, 8)}, "state"),
    ({"bias": torch.randn(6)}, "bias"),
    ({"leak": torch.randn(())}, "leak"),
    ({"values": torch.randn(3)}, "values must hold at least"),
    ({"crow": torch.zeros(8, dtype=torch.int64)}, "crow"),
    ({"crow": torch.zeros(0, dtype=torch.int32)}, "crow"),
    ({"crow": torch.full((8,), 3, dtype=torch.int32)}, "crow must ascend"),
    ({"col": torch.full_like(raw()["col"], 7)}, "col must lie in"),
    ({"col": torch.full_like(raw()["col"], -1)}, "col must lie in"),
    ({"col": raw()["col"][:-1]}, "crow must ascend"),
    ({"row_ptr": raw()["row_ptr"][:-1]}, "row_ptr"),
    ({"tile_col": raw()["tile_col"][:-1]}, "row_ptr must ascend"),
    ({"block_rows": 2}, "block_rows and block_step must divide"),
    ({"block_rows": 0}, "block_rows and block_step must divide"),
    ({"block_rows": 7}, "equally many entries"),
    ({"activation": 3}, "activation must be 0, 1 or 2, got 3"),
    ({"washout": -1}, "washout must not be negative, got -1"),
]


@pytest.mark.parametrize(("change", "message"), UNSAFE, ids=range(len(UNSAFE)))
def test_raw_op(change, message):
    torch.ops.synops.esn(*raw().values())
    with pytest.raises(RuntimeError, match=message):
        torch.ops.synops.esn(*raw(**change).values())


def test_raw_op_together_and_in_place():
    """The other layout's indices, and results that do not fit."""
    u, x = torch.randn(5, 4, 1), torch.randn(4, 7)
    bad = torch.full_like(raw()["tile_col"], 7)
    with pytest.raises(RuntimeError, match="tile_col lies outside"):
        torch.ops.synops.esn(*raw(input=u, state=x, tile_col=bad).values())
    args = raw()
    del args["state"]
    good = torch.zeros(3, 2, 7), torch.zeros(2, 7)
    for states, state in (
        (torch.zeros(5, 2, 7), good[1]),
        (good[0], torch.zeros(7, 2).t()),
        (good[0].double(), good[1]),
        (good[0], good[1][:1]),
    ):
        with pytest.raises(RuntimeError, match="state"):
            torch.ops.synops.esn_(states, state, *args.values())


@pytest.mark.triton
@pytest.mark.parametrize("i", range(3))
def test_triton(i):
    """No entries, one unit in 18 sequences, and rows of more entries than are read at a time."""
    long = torch.zeros(40, 40, dtype=torch.bool)
    long[3:5] = True
    pattern = (PATTERNS["no entries"], PATTERNS["one unit"], lambda: Pattern.from_mask(long))[i]()
    options = {"activation": ("tanh", "relu", "identity")[i], "washout": (1, 0, 0)[i]}
    dtype = DTYPES[i % 2]
    s = sample(pattern, 2 - i // 2, (None, 18, 1)[i], 1 + i, dtype, **options)
    check(s, dtype, backend="triton")


@pytest.mark.triton
def test_triton_edges():
    s = sample(PATTERNS["less than a group"](), 3, 2, 1, torch.float32).to(torch.float32)
    for input in (s.input[:0], s.input[:, :0]):
        state = s.state[: input.shape[1]]
        got = run(s._replace(input=input, state=state), backend="triton")
        assert got.states.shape == (*input.shape[:2], 7)
    outside = raw()["col"].clone()
    outside[0], outside[1] = 7, -1
    from synops.kernels.spiking.esn import esn as launch

    assert launch(*raw(col=outside).values())[0].isfinite().all()
    with pytest.raises(RuntimeError, match="values must be"):
        launch(*raw(values=torch.ones(2)).values())
