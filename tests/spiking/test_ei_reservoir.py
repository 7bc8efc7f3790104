"""ei_reservoir against float64, against the loop people write, and as it is called."""

import pytest
import torch

import synops
from close import assert_close
from synops.sparse import Pattern
from synops.spiking import EIReservoir, ei_reservoir

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# Units, of them excitatory, and connections a unit: one group, groups and a rest, one kind alone,
# rows that lack a kind.
NETWORKS = {
    "one unit": (1, 1, 1.0),
    "a group": (8, 6, 0.5),
    "groups and a rest": (61, 47, 0.3),
    "excitatory alone": (20, 20, 0.3),
    "inhibitory alone": (20, 0, 0.3),
    "few entries": (40, 30, 0.04),
}


def make(name, steps, batch, inputs=2, **options):
    """Arguments in float64 whose numbers are of float32."""
    n, e, density = NETWORKS[name]
    many = () if batch is None else (batch,)
    rounded = lambda t: t.float().double()  # noqa: E731
    patterns = [Pattern.from_mask(torch.rand(n, k) < density) for k in (e, n - e)]
    per_row = max(1.0, n * density)
    return {
        "input": torch.randint(-64, 65, (steps, *many, inputs)).double() / 64,
        "excitatory": rounded(torch.rand(patterns[0].nnz) * 1.5 / per_row),
        "excitatory_pattern": patterns[0],
        "inhibitory": rounded(torch.rand(patterns[1].nnz) * 5 / per_row),
        "inhibitory_pattern": patterns[1],
        "state": rounded(torch.rand(*many, n)),
        "input_weight": rounded(torch.randn(n, inputs) * 0.1),
        "gain": 5.0,
        "threshold": rounded(torch.rand(n) * 0.2),
        "leak": 1.0,
    } | options


def as_dtype(args, dtype):
    """The input in ``dtype``, the rest in the dtype of the state."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    floats = {k: v for k, v in args.items() if isinstance(v, torch.Tensor)}
    return args | {k: v.to(dtype if k == "input" else wide) for k, v in floats.items()}


def check(args, dtype, **options):
    got = ei_reservoir(**as_dtype(args, dtype), **options)
    want = ei_reservoir(**args, backend="reference")
    assert isinstance(got, EIReservoir)
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    lengths = [args[f"{k}_pattern"].crow.diff().max() for k in ("excitatory", "inhibitory")]
    steps, inputs = args["input"].shape[0], args["input"].shape[-1]
    length = int(sum(lengths)) + inputs + steps
    for one, other in zip(got, want, strict=True):
        if other is None:
            assert one is None
        else:  # a rate moves by gain / 4 of what its sum does
            assert_close(one, other, kind, length, torch.full_like(other, 2.0))
    return got


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_reference(name, dtype):
    """With and without plasticity, one sequence and several, shared inhibition and its own."""
    n = NETWORKS[name][0]
    target = torch.rand(n).float().double()
    check(make(name, 5, None, leak=0.4, washout=2), dtype)
    check(make(name, 5, 3, gain=torch.rand(n).float().double() * 8, record="last"), dtype)
    got = check(make(name, 6, None, target=target, delta=0.05), dtype)
    args = make(name, 6, 2, target=0.3, delta=torch.tensor([0.1, 0, 0.25, 0.5, 0.125, 0.0625]))
    args["inhibitory"] = (torch.rand(2, args["inhibitory_pattern"].nnz) * 0.1).float().double()
    check(args, dtype)
    assert (got.inhibitory >= 0).all()


def test_loop():
    """Dense matrices and the equations as they are written, float64; some weights reach 0."""
    args = make("groups and a rest", 40, None, target=0.4, delta=0.02)
    _, e, _ = NETWORKS["groups and a rest"]
    excites = args["excitatory_pattern"].scatter(args["excitatory"])
    inhibits = args["inhibitory_pattern"].scatter(args["inhibitory"])
    exists = args["inhibitory_pattern"].mask()
    r, rates = args["state"], []
    for u in args["input"]:
        v = excites @ r[:e] - inhibits @ r[e:] + args["input_weight"] @ u
        r = torch.sigmoid(args["gain"] * (v - args["threshold"]))
        moved = (inhibits + 0.02 * (r - 0.4)[:, None]).clamp_min(0)
        inhibits = torch.where(exists, moved, 0)
        rates.append(r)
    got = ei_reservoir(**args)
    torch.testing.assert_close(got.rates, torch.stack(rates), rtol=1e-12, atol=1e-13)
    want = args["inhibitory_pattern"].gather(inhibits)
    torch.testing.assert_close(got.inhibitory, want, rtol=1e-12, atol=1e-13)
    assert (want == 0).any()
    assert (want > 0).any()


def test_rates_come_to_their_targets():
    """What the plasticity is for: heterogeneous targets are reached on average."""
    args = make("groups and a rest", 3000, None, gain=2.0)
    args["input"] *= 0.2
    args["excitatory"] *= 4
    target = 0.2 + 0.4 * torch.rand(61)
    held = args["inhibitory_pattern"].crow.diff() > 0
    before = ei_reservoir(**args).rates[-300:].mean(0)
    after = ei_reservoir(**args, target=target, delta=0.01).rates[-300:].mean(0)
    assert (before - target)[held].abs().mean() > 0.1
    assert (after - target)[held].abs().max() < 0.02


class TestBits:
    @pytest.mark.parametrize("batch", [None, 3])
    @pytest.mark.parametrize("adapts", [False, True])
    def test_of_two_calls_and_of_pieces(self, adapts, batch, monkeypatch):
        args = as_dtype(make("groups and a rest", 11, batch), torch.float32)
        schedule = torch.rand(11) * 0.1
        rule = {"target": 0.3} if adapts else {}
        whole = ei_reservoir(**args, **rule, delta=schedule)
        first = ei_reservoir(**args | {"input": args["input"][:4]}, **rule, delta=schedule[:4])
        rest = {"input": args["input"][4:], "state": first.state}
        if adapts:
            rest["inhibitory"] = first.inhibitory
        second = ei_reservoir(**args | rest, **rule, delta=schedule[4:])
        assert torch.equal(whole.rates, torch.cat([first.rates, second.rates]))
        assert torch.equal(whole.state, second.state)
        if adapts:
            assert torch.equal(whole.inhibitory, second.inhibitory)
        pieces = lambda steps, cost: ((i, min(i + 3, steps)) for i in range(0, steps, 3))  # noqa: E731
        monkeypatch.setattr("synops.spiking._reservoir.chunks", pieces)
        before = args["state"].clone(), args["inhibitory"].clone()
        for options in ({}, {"washout": 5}, {"record": "last"}):
            cut = ei_reservoir(**args, **rule, delta=schedule, **options)
            skipped = 11 if "record" in options else options.get("washout", 0)
            assert torch.equal(cut.rates, whole.rates[skipped:])
            assert torch.equal(cut.state, whole.state)
            if adapts:
                assert torch.equal(cut.inhibitory, whole.inhibitory)
        assert torch.equal(before[0], args["state"])
        assert torch.equal(before[1], args["inhibitory"])

    def test_of_threads(self, threads):
        args = as_dtype(make("groups and a rest", 60, 7, target=0.3), torch.float32)
        answers = []
        for count in (1, 2, 3):
            threads(count)
            answers.append(ei_reservoir(**args))
        for other in answers[1:]:
            assert all(map(torch.equal, answers[0], other))


class TestCalls:
    @pytest.mark.parametrize("shape", [(0, 2), (0, 3, 2), (4, 0, 2), (4, 3, 0)])
    def test_nothing(self, shape):
        """No steps, no sequences, no inputs."""
        args = make("a group", 1, None, inputs=shape[-1])
        args |= {"input": torch.randn(shape), "state": torch.rand(*shape[1:-1], 8)}
        got = ei_reservoir(**as_dtype(args, torch.float32), target=0.5)
        assert got.rates.shape == (shape[0], *shape[1:-1], 8)
        nnz = args["inhibitory_pattern"].nnz
        assert got.inhibitory.shape == (*shape[1:-1], nnz)
        if not shape[0]:
            assert torch.equal(got.state, args["state"])
            assert torch.equal(got.inhibitory, args["inhibitory"].float().expand_as(got.inhibitory))

    def test_capacity_and_layouts(self):
        """Values behind the entries are not read; inputs of any strides."""
        args = as_dtype(make("a group", 4, 3), torch.float32)
        want = ei_reservoir(**args, target=0.5)
        for name in ("excitatory", "inhibitory"):
            pattern = args[f"{name}_pattern"]
            roomy = Pattern.from_mask(pattern.mask(), capacity=100)
            tail = torch.full((100 - pattern.nnz,), torch.nan)
            args |= {name: torch.cat([args[name], tail]), f"{name}_pattern": roomy}
        x = torch.full((3, 9, 5), torch.nan)
        x[:, :4, 1:3] = args["input"].transpose(0, 1)
        args["input"] = x[:, :4, 1:3].transpose(0, 1)
        assert all(map(torch.equal, ei_reservoir(**args, target=0.5), want))

    @pytest.mark.usefixtures("isa")
    def test_nan(self):
        """Of one sequence it stays in it, and gets into its weights."""
        args = as_dtype(make("groups and a rest", 3, 2), torch.float32)
        args["input"][0, 0] = torch.nan
        got = ei_reservoir(**args, target=0.5)
        assert got.rates[:, 0].isnan().any()
        assert got.inhibitory[0].isnan().any()
        assert got.rates[:, 1].isfinite().all()
        assert got.inhibitory[1].isfinite().all()

    def test_a_gradient_is_refused_and_the_references(self):
        args = make("a group", 3, 2, target=torch.full((8,), 0.5, dtype=torch.float64))
        args["gain"] = torch.full((8,), 5.0, dtype=torch.float64)
        for name in ("excitatory", "inhibitory", "input", "state", "gain", "target"):
            leaf = args[name].requires_grad_()
            with pytest.raises(NotImplementedError, match="ei_reservoir: a gradient is not"):
                ei_reservoir(**args).rates.sum().backward()
            ei_reservoir(**args, backend="reference").rates.sum().backward()
            assert leaf.grad.isfinite().all()
            args[name].requires_grad_(False)

    def test_compiled_and_vmapped(self):
        torch._dynamo.reset()
        args = as_dtype(make("a group", 5, 2), torch.float32)

        def f(u, inhibitory):
            return ei_reservoir(**args | {"input": u, "inhibitory": inhibitory}, target=0.4)

        compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
        for steps in (3, 5, 8):
            u = torch.randn(steps, 2, 2)
            assert all(map(torch.equal, compiled(u, args["inhibitory"]), f(u, args["inhibitory"])))
        many = torch.rand(3, args["inhibitory"].shape[0])
        mapped = torch.vmap(lambda w: tuple(f(args["input"], w)))(many)
        for i, w in enumerate(many):
            assert all(map(torch.equal, (m[i] for m in mapped), f(args["input"], w)))

    def test_opcheck_and_which(self):
        torch.library.opcheck(torch.ops.synops.ei_reservoir.default, tuple(raw().values()))
        args = as_dtype(make("a group", 5, 2), torch.float32)
        assert "cpp" in str(synops.which(ei_reservoir, **args)).lower()


def raw(**changes):
    """Arguments of the op, in its order: 7 units, 5 of them excitatory."""
    torch.manual_seed(0)
    kinds = [Pattern.from_mask(torch.ones(7, k).tril() > 0) for k in (5, 2)]
    args = {
        "input": torch.randn(5, 2, 1),
        "state": torch.rand(2, 7),
        "i_values": torch.rand(1, kinds[1].nnz),
        "input_weight": torch.randn(7, 1),
        "e_values": torch.rand(kinds[0].nnz),
        **{name: torch.rand(7) for name in ("gain", "threshold", "leak", "target")},
        "delta": torch.rand(5),
        "e_crow": kinds[0].crow,
        "e_col": kinds[0].col,
        "i_crow": kinds[1].crow,
        "i_col": kinds[1].col,
        "excitatory": 5,
        "washout": 1,
    }
    return args | changes


SQUARE = Pattern.from_mask(torch.eye(8, dtype=torch.bool))
WRONG = [
    ({"input": torch.ones(3)}, ValueError, r"input must have shape \(T, K\) or \(T, B, K\)"),
    ({"excitatory_pattern": "E"}, TypeError, "excitatory_pattern must be a synops.sparse.Pattern"),
    ({"inhibitory_pattern": SQUARE}, ValueError, r"inhibitory_pattern must have shape \(N, N - E"),
    (
        {"excitatory_pattern": Pattern.from_mask(torch.ones(8, 9) > 0)},
        ValueError,
        r"excitatory_pattern must have shape \(N, E\) with E <= N = 8",
    ),
    (
        {"excitatory": -torch.ones(48)},
        ValueError,
        r"excitatory must not be negative \(Dale's law\)",
    ),
    (
        {"inhibitory": -torch.ones(16)},
        ValueError,
        r"inhibitory must not be negative \(Dale's law\)",
    ),
    ({"inhibitory": torch.ones(3)}, ValueError, r"inhibitory must have shape \(nnz,\) = \(16,\)"),
    ({"inhibitory": torch.ones(3, 16)}, ValueError, r"inhibitory must have shape \(nnz,\) or \(B"),
    ({"state": torch.ones(8)}, ValueError, r"state must have shape \(B, N\) = \(2, 8\)"),
    ({"gain": float("inf")}, ValueError, "gain must be finite, got inf"),
    ({"threshold": torch.ones(3)}, ValueError, r"threshold must have shape \(\) or \(N,\)"),
    ({"leak": -0.1}, ValueError, r"leak must lie in \[0, 1\], got -0.1"),
    ({"target": 1.5}, ValueError, r"target must lie in \[0, 1\], got 1.5"),
    ({"target": 0.5, "delta": -1.0}, ValueError, "delta must be finite and not negative, got -1.0"),
    ({"target": 0.5, "delta": torch.ones(4)}, ValueError, r"delta must have shape \(T,\) = \(3,\)"),
    ({"target": 0.5, "delta": "1"}, TypeError, r"delta must be a number or a tensor \(T,\), got s"),
    ({"record": "states"}, ValueError, "record must be one of rates, last, got 'states'"),
    ({"washout": -2}, ValueError, "washout must not be negative, got -2"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_arguments(change, error, message):
    full = [Pattern.from_mask(torch.ones(8, k) > 0) for k in (6, 2)]
    args = {
        "input": torch.randn(3, 2, 1),
        "excitatory": torch.ones(48),
        "excitatory_pattern": full[0],
        "inhibitory": torch.ones(16),
        "inhibitory_pattern": full[1],
        "input_weight": torch.ones(8, 1),
    }
    with pytest.raises(error, match=message):
        ei_reservoir(**args | change)


UNSAFE = [
    ({"input": torch.randn(5, 2)}, "3 dimensions"),
    ({"input": torch.randn(5, 2, 1).bfloat16()}, "float32 or float64"),
    ({"input": torch.randn(5, 3, 1)}, "state|i_values"),
    ({"state": torch.rand(2, 6)}, "state"),
    ({"i_values": torch.rand(3, 13)}, "i_values must have 1 or 2 rows, got 3"),
    ({"i_values": torch.rand(1, 12)}, "i_values"),
    ({"i_values": torch.rand(1, 13).double()}, "i_values has the wrong dtype"),
    ({"input_weight": torch.randn(7, 2)}, "input_weight"),
    ({"e_values": torch.rand(4)}, "e_values must hold at least"),
    ({"excitatory": 8}, r"excitatory must lie in \[0, 7\], got 8"),
    ({"excitatory": 4}, r"col must lie in \[0, 4\)"),
    ({"excitatory": 6}, r"col must lie in \[0, 1\)"),
    ({"e_col": raw()["e_col"] - 1}, "col must lie in"),
    ({"i_crow": torch.zeros(7, dtype=torch.int32)}, "crow must ascend"),
    ({"i_crow": torch.tensor([0, 13], dtype=torch.int32)}, "rows of i_crow"),
    ({"e_crow": torch.zeros(0, dtype=torch.int32)}, "e_crow"),
    ({"gain": torch.rand(())}, "gain"),
    ({"target": None}, "target and delta belong together"),
    ({"delta": torch.rand(4)}, "delta"),
    ({"washout": -1}, "washout must not be negative"),
]


@pytest.mark.parametrize(("change", "message"), UNSAFE, ids=range(len(UNSAFE)))
def test_raw_op(change, message):
    torch.ops.synops.ei_reservoir(*raw().values())
    with pytest.raises(RuntimeError, match=message):
        torch.ops.synops.ei_reservoir(*raw(**change).values())


def test_raw_op_in_place():
    args = raw()
    state, values = args.pop("state"), args.pop("i_values").expand(2, -1).clone()
    rates = torch.zeros(4, 2, 7)
    want = torch.ops.synops.ei_reservoir(*raw().values())
    torch.ops.synops.ei_reservoir_(rates, state, values, *args.values())
    assert all(map(torch.equal, (rates, state, values), want))
    for bad in (
        (rates[:3], state, values),
        (rates, state[:1], values),
        (rates, state, values[:1]),
        (rates, state, values.double()),
    ):
        with pytest.raises(RuntimeError, match="ei_reservoir: "):
            torch.ops.synops.ei_reservoir_(*bad, *args.values())


@pytest.mark.triton
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_triton(dtype):
    check(make("one unit", 2, 17, leak=0.4, washout=1), dtype, backend="triton")
    check(make("a group", 2, 2, target=0.3, delta=0.1), dtype, backend="triton")
    empty = make("a group", 1, None) | {"input": torch.zeros(0, 2)}
    assert ei_reservoir(**as_dtype(empty, dtype), backend="triton").rates.shape == (0, 8)


@pytest.mark.triton
def test_triton_is_memory_safe():
    from synops.kernels.spiking.ei_reservoir import ei_reservoir as launch

    outside = raw()["i_col"].clone()
    outside[0], outside[1] = 7, -1
    assert launch(*raw(i_col=outside).values())[0].isfinite().all()
    with pytest.raises(RuntimeError, match="gain must be"):
        launch(*raw(gain=torch.rand(3)).values())
