"""izhikevich: edges, layouts, transforms, bad arguments, and its raw ops on any input."""

import math

import pytest
import torch
from izhikevich_samples import network

import synops
from synops._library import reference
from synops.sparse import Pattern
from synops.spiking import IzhikevichState, izhikevich

RULE = {"a": 0.02, "b": 0.2, "c": -65.0, "d": 8.0}


class TestEdges:
    @pytest.mark.parametrize("backend", ["auto", "reference"])
    def test_no_steps(self, backend):
        values, pattern, neuron = network(70)
        v = torch.randn(2, 70, dtype=torch.float64)
        pending = torch.randint(2**60, (3, 2, 2))
        pending[..., 1] &= 63  # 70 neurons: 6 bits of the second word
        state = IzhikevichState(v, v + 1, v + 2, None, None, pending)
        names = ("indices", "bits", "raster", "v", "traces")
        got = izhikevich(
            None, values, pattern, state, steps=0, delay=4, record=names, backend=backend, **neuron
        )
        assert torch.equal(got.state.pending, pending)
        for one, other in zip(got.state[:3], state[:3], strict=True):
            assert torch.equal(one, other)
            assert one.data_ptr() != other.data_ptr()
        assert got.counts.shape == (0, 2)
        assert got.indices.shape == (0,)
        assert got.bits.shape == (0, 2, 2)
        assert got.raster.shape == got.v.shape == got.traces.shape == (0, 2, 70)

    @pytest.mark.parametrize("backend", ["auto", "reference"])
    def test_no_neurons_no_synapses_no_reservoirs(self, backend):
        names = ("indices", "raster", "v")
        none = Pattern.from_mask(torch.zeros(0, 0, dtype=torch.bool))
        rule = RULE | {"backend": backend, "record": names}
        got = izhikevich(None, torch.zeros(0), none, steps=3, delay=2, **rule)
        assert got.counts.tolist() == [0, 0, 0]
        assert got.raster.shape == got.v.shape == (3, 0)
        apart = Pattern.from_mask(torch.zeros(5, 5, dtype=torch.bool))
        got = izhikevich(None, torch.zeros(0), apart, steps=100, bias=10.0, **rule)
        assert got.raster.sum(0).tolist() == [got.raster[:, 0].sum()] * 5
        assert got.counts.sum() >= 5
        got = izhikevich(torch.zeros(4, 0, 5), torch.zeros(0), apart, **rule)
        assert got.raster.shape == got.v.shape == (4, 0, 5)
        assert got.counts.shape == (4, 0)

    @pytest.mark.usefixtures("isa")
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_nan_and_inf(self, dtype):
        """A membrane of NaN stays and does not spike; one of inf is reset."""
        pattern = Pattern.from_mask(torch.ones(70, 70, dtype=torch.bool))
        values = torch.zeros(70 * 70, dtype=dtype)
        v = torch.full((70,), -65.0, dtype=dtype)
        v[3], v[69] = torch.nan, torch.inf
        got = izhikevich(
            None, values, pattern, IzhikevichState(v, 0.2 * v.clamp(max=0)), steps=4,
            record="raster", **RULE,
        )  # fmt: skip
        assert got.state.v[3].isnan()
        assert not got.raster[:, 3].any()
        assert got.raster[0].tolist() == [0] * 69 + [1]
        assert not got.state.v[[*range(3), *range(4, 69)]].isnan().any()

    @pytest.mark.usefixtures("isa")
    @pytest.mark.parametrize("neurons", [1, 15, 63, 64, 65])
    def test_all_fire(self, neurons):
        """The last word has no bits behind the last neuron."""
        pattern = Pattern.from_mask(torch.eye(neurons, dtype=torch.bool))
        values = torch.ones(neurons)
        got = izhikevich(
            None, values, pattern, IzhikevichState(torch.full((neurons,), 29.0)), steps=1,
            record=("bits", "indices"), bias=100.0, **RULE,
        )  # fmt: skip
        assert got.counts.tolist() == [neurons]
        assert got.indices.tolist() == list(range(neurons))
        assert torch.equal(got.state.current, torch.ones(neurons))
        assert torch.equal(got.state.v, torch.full((neurons,), -65.0))

    def test_layouts_of_memory(self):
        """Slices, transposed and expanded tensors, numbers in any form."""
        values, pattern, neuron = network(dtype=torch.float32)
        x = torch.randn(3, 30, 2).permute(1, 2, 0)
        w = torch.randn(3, 100).t()
        v = torch.rand(100, 2).t() * 40 - 70
        args = neuron | {"a": torch.tensor(0.02), "bias": 4}
        got = izhikevich(x, values[::1], pattern, IzhikevichState(v), input_weight=w, **args)
        dense = izhikevich(
            x.contiguous(), values, pattern, IzhikevichState(v.contiguous()),
            input_weight=w.contiguous(), **args | {"a": torch.full((100,), 0.02), "bias": 4.0},
        )  # fmt: skip
        assert torch.equal(got.indices, dense.indices)
        one = izhikevich(x[:, 0], values, pattern, IzhikevichState(v), input_weight=w, **args)
        both = izhikevich(
            x[:, :1].expand(-1, 2, -1), values, pattern, IzhikevichState(v), input_weight=w, **args
        )
        assert torch.equal(one.indices, both.indices)

    def test_arguments_are_left_alone(self):
        values, pattern, neuron = network(dtype=torch.float32)
        state = izhikevich(None, values, pattern, steps=30, delay=3, **neuron).state
        readout = torch.randn(1, 100)
        kept = [t.clone() for t in (*state, readout) if t is not None]
        izhikevich(
            None, values, pattern, state, steps=50, delay=3, readout=readout,
            targets=torch.ones(50, 1), learning_rate=0.1, **neuron,
        )  # fmt: skip
        for one, other in zip((t for t in (*state, readout) if t is not None), kept, strict=True):
            assert torch.equal(one, other)

    def test_capacity(self):
        """Values behind nnz are never read."""
        values, pattern, neuron = network(dtype=torch.float32)
        roomy = Pattern.from_csr(pattern.crow, pattern.col, pattern.shape, capacity=pattern.nnz + 5)
        longer = torch.cat([values, torch.full((5,), torch.nan)])
        one = izhikevich(None, longer, roomy, steps=60, **neuron)
        other = izhikevich(None, values, pattern, steps=60, **neuron)
        assert torch.equal(one.indices, other.indices)


class TestTransforms:
    def test_gradients_are_refused(self):
        values, pattern, neuron = network()
        for change in ("values", "bias", "input"):
            args = {"values": values, "input": torch.zeros(3, 100).double()} | neuron
            args[change] = args[change].clone().requires_grad_()
            with pytest.raises(ValueError, match=f"{change} must not require a gradient"):
                izhikevich(pattern=pattern, **args)
            with torch.no_grad():
                izhikevich(pattern=pattern, **args)

    def test_compiled_and_exported(self):
        torch._dynamo.reset()
        values, pattern, neuron = network(dtype=torch.float32)
        w = torch.randn(100, 2)

        class Reservoir(torch.nn.Module):
            def forward(self, x):
                got = izhikevich(
                    x.sin(), values, pattern, input_weight=w, record=("raster", "v"), **neuron
                )
                return got.raster, got.v, got.state.u

        module = Reservoir()
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        for steps in (3, 5, 8):
            x = torch.randn(steps, 2)
            for one, other in zip(compiled(x), module(x), strict=True):
                assert torch.equal(one, other)
        steps = torch.export.Dim("steps")
        program = torch.export.export(module, (torch.randn(3, 2),), dynamic_shapes=({0: steps},))
        x = torch.randn(6, 2)
        for one, other in zip(program.module()(x), module(x), strict=True):
            assert torch.equal(one, other)

    def test_vmap(self):
        values, pattern, neuron = network(dtype=torch.float32)
        many = torch.stack([values, values * 2])

        def f(values, v):
            got = izhikevich(
                None, values, pattern, IzhikevichState(v), steps=30, record="raster", **neuron
            )
            return got.raster, got.state.v

        v = torch.rand(2, 100) * 40 - 70
        for one, other in zip(
            torch.vmap(f)(many, v),
            zip(f(many[0], v[0]), f(many[1], v[1]), strict=True),
            strict=True,
        ):
            assert torch.equal(one, torch.stack(other))

    def test_opcheck(self):
        args = raw_arguments()
        torch.library.opcheck(torch.ops.synops.izhikevich.default, tuple(args.values()))
        values, pattern, _ = network(30)
        index = (values, pattern.crow, pattern.col)
        for ranges, layout in ((2, 3), (1, 1)):
            torch.library.opcheck(
                torch.ops.synops.izhikevich_synapses.default, (*index, ranges, layout)
            )
        bits = torch.randint(2**60, (3, 2, 1))
        torch.library.opcheck(torch.ops.synops.izhikevich_indices.default, (bits, 61))

    def test_which(self):
        values, pattern, neuron = network(30)
        assert "cpp" in str(synops.which(izhikevich, None, values, pattern, steps=1, **neuron))


def square(*shape):
    return Pattern.from_mask(torch.ones(*shape, dtype=torch.bool))


WRONG = [
    ({"values": [1.0]}, TypeError, "values must be a torch.Tensor, got list"),
    ({"values": torch.ones(3)}, ValueError, r"values must have shape \(nnz,\) = \(16,\), got"),
    ({"values": torch.ones(16).int()}, TypeError, "values must be float32"),
    ({"pattern": torch.ones(4, 4)}, TypeError, "pattern must be a synops.sparse.Pattern, got Tens"),
    ({"pattern": square(4, 3)}, ValueError, r"pattern must be square, \(N, N\), got \(4, 3\)"),
    ({"input": torch.zeros(3)}, ValueError, r"input must have shape \(T, \[B,\] N_in\), got"),
    ({"input": torch.zeros(3, 5)}, ValueError, r"input must have shape \(T, N\) = \(3, 4\)"),
    ({"input": None, "steps": None}, TypeError, "steps must be given where there is no input"),
    ({"input": torch.zeros(3, 4), "steps": 4}, ValueError, "steps must be the 3 of the input"),
    ({"steps": -1}, ValueError, "steps must not be negative, got -1"),
    ({"steps": 2.0}, TypeError, "steps must be an int, got float"),
    ({"input_weight": torch.zeros(4, 2)}, ValueError, "input_weight must be None where there is"),
    (
        {"input": torch.zeros(5, 2), "input_weight": torch.zeros(2, 4)},
        ValueError,
        r"input_weight must have shape \(N, N_in\) = \(4, 2\), got \(2, 4\)",
    ),
    ({"a": torch.ones(3)}, ValueError, r"a must have shape \(N,\) = \(4,\), got \(3,\)"),
    ({"b": math.nan}, ValueError, "b must be finite, got nan"),
    ({"c": "low"}, TypeError, "c must be a number, got str"),
    ({"bias": torch.ones(4).int()}, TypeError, "bias must be float32"),
    ({"dt": 0}, ValueError, "dt must be positive and finite, got 0"),
    ({"tau": -5.0}, ValueError, "tau must be positive and finite, got -5"),
    ({"tau_rise": 5.0}, ValueError, "tau_rise must be at most .99 of tau = 5.0, got 5"),
    ({"tau_rise": 0.0}, ValueError, "tau_rise must be positive and finite, got 0"),
    ({"tau_trace": math.inf}, ValueError, "tau_trace must be positive and finite, got inf"),
    ({"delay": 0}, ValueError, r"delay must lie in \[1, 65536\] steps, got 0"),
    ({"delay": -3}, ValueError, r"delay must lie in \[1, 65536\] steps, got -3"),
    ({"delay": 1 << 17}, ValueError, r"delay must lie in \[1, 65536\] steps, got 131072"),
    ({"delay": 1.5}, TypeError, r"delay must be an int or a tensor \(N,\), got float"),
    ({"delay": torch.tensor([1, 2, 0, 1])}, ValueError, r"delay must lie in \[1, 65536\].*got 0"),
    ({"delay": torch.ones(4)}, TypeError, "delay must be an int, or int32 or int64, got float32"),
    ({"delay": torch.ones(3).long()}, ValueError, r"delay must have shape \(N,\) = \(4,\)"),
    ({"sign": torch.tensor([1, 1, -1, 1])}, ValueError, r"values must have the sign of their pre-"),
    ({"sign": torch.tensor([1, 0, 1, 1])}, ValueError, "sign must be 1 or -1 for each neuron"),
    ({"sign": torch.ones(3)}, ValueError, r"sign must have shape \(N,\) = \(4,\)"),
    ({"record": "spikes"}, ValueError, "record must be of indices, bits, raster, v, traces, got"),
    ({"record": 3}, TypeError, "record must be of indices, .*, got int"),
    ({"neurons": [4]}, ValueError, r"neurons must lie in \[0, 4\), got \[4\]"),
    ({"neurons": torch.ones(4, dtype=torch.bool)}, ValueError, "neurons must be indices of neur"),
    ({"state": torch.zeros(4)}, TypeError, "state must be an IzhikevichState, got Tensor"),
    ({"state": (torch.zeros(5),)}, ValueError, r"state.v must have shape \(N,\) = \(4,\)"),
    ({"state": (torch.zeros(2, 5),)}, ValueError, r"state.v must have shape \(B, N\) = \(2, 4\)"),
    ({"state": (torch.zeros(4), 3)}, TypeError, "state.u must be a torch.Tensor, got int"),
    ({"state": (*[torch.zeros(4)] * 4,)}, ValueError, "state.rise must be None without tau_rise"),
    (
        {"state": (torch.zeros(4), *[None] * 4, torch.zeros(1, 1).long())},
        ValueError,
        "state.pending must be None where no delay is more than 1",
    ),
    (
        {"state": (torch.zeros(4), *[None] * 4, torch.zeros(1, 1).long()), "delay": 3},
        ValueError,
        r"state.pending must have shape \(D - 1, ceil\(N / 64\)\) = \(2, 1\), got \(1, 1\)",
    ),
    ({"readout": torch.zeros(4)}, ValueError, r"readout must have shape \(K, N\)"),
    ({"readout": torch.zeros(2, 3)}, ValueError, r"readout must have shape \(K, N\) = \(2, 4\)"),
    ({"targets": torch.zeros(5, 2)}, ValueError, "targets must be None without readout"),
    (
        {"readout": torch.zeros(2, 4), "gates": torch.zeros(5, 2)},
        ValueError,
        "gates must be None without targets",
    ),
    (
        {"readout": torch.zeros(2, 4), "targets": torch.zeros(5, 2)},
        TypeError,
        "learning_rate must be given with targets",
    ),
    (
        {"readout": torch.zeros(2, 4), "targets": torch.zeros(4, 2), "learning_rate": 0.1},
        ValueError,
        r"targets must have shape \(T, K\) = \(5, 2\), got \(4, 2\)",
    ),
    ({"backend": "cuda"}, ValueError, "backend"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG, ids=[m for *_, m in WRONG])
def test_wrong_arguments(change, error, message):
    args = {"input": None, "values": torch.ones(16), "pattern": square(4, 4), "steps": 5}
    args |= RULE | change
    if "input" in change and "steps" not in change:
        args["steps"] = None
    if isinstance(args.get("state"), tuple):
        args["state"] = IzhikevichState(*args["state"])
    with pytest.raises(error, match=f"izhikevich: {message}|{message}"):
        izhikevich(**args)


def raw_arguments(N=30, B=2, T=4):
    """Of the raw op, by name; with everything."""
    values, pattern, neuron = network(N)
    start, target, weight = reference("izhikevich_synapses")(
        values, pattern.crow, pattern.col, 1, 3
    )
    state = torch.randn(5, B, N, dtype=torch.float64).unbind(0)
    names = ("v", "u", "current", "rise", "trace")
    return {
        **dict(zip(names, state, strict=True)),
        "pending": torch.randint(2**30, (2, B, 1)),
        **neuron,
        "input": torch.randn(T, B, 3, dtype=torch.float64),
        "input_weight": torch.randn(3, N, dtype=torch.float64),
        "start": start,
        "target": target,
        "weight": weight,
        "layout": 3,
        "delays": torch.randint(1, 4, (N,), dtype=torch.int32),
        "steps": T,
        "dt": 0.5,
        "decay": 0.9,
        "rise_decay": 0.5,
        "transfer": 0.4,
        "trace_decay": 0.9,
        "record_bits": True,
        "record_v": True,
        "record_traces": True,
        "neurons": torch.tensor([0, N - 1]),
        "readout": torch.randn(B, 2, N, dtype=torch.float64),
        "targets": torch.randn(T, B, 2, dtype=torch.float64),
        "gates": torch.rand(T, B, 2, dtype=torch.float64),
        "learning_rate": 0.01,
    }


UNSAFE = [
    ({"v": torch.randn(30)}, "v must have 2 dimensions"),
    ({"v": torch.randn(2, 30).half()}, "v must be float32 or float64"),
    ({"u": torch.randn(2, 29).double()}, "size 1 of u must be 30"),
    ({"current": torch.randn(2, 30)}, "current has the wrong dtype"),
    ({"pending": torch.zeros(2, 2, 2).long()}, "size 2 of pending must be 1"),
    ({"a": torch.randn(1).double()}, "size 0 of a must be 30"),
    ({"input": torch.randn(4, 30).double()}, "input must have 3"),
    ({"input": torch.randn(3, 2, 3).double()}, "size 0 of input must be 4"),
    ({"input_weight": torch.randn(2, 30).double()}, "size 0 of input_weight must be 3"),
    ({"start": torch.arange(31).flip(0).int()}, "start must ascend from 0 to nnz"),
    ({"start": torch.zeros(30).int()}, "start"),
    ({"target": torch.zeros(3).short()}, "size 0 of target must be"),
    ({"weight": torch.zeros(3)}, "weight has the wrong dtype"),
    ({"layout": 2}, "layout must be 1 or 3 on the CPU, got 2"),
    ({"layout": 1}, "weight must have 2 dimensions"),
    ({"delays": torch.full((30,), 4, dtype=torch.int32)}, r"delays must lie in \[1, 3\]"),
    ({"delays": torch.zeros(30, dtype=torch.int32)}, r"delays must lie in \[1, 3\]"),
    ({"steps": -1}, "steps must not be negative"),
    ({"neurons": torch.tensor([30])}, r"neurons must lie in \[0, 30\), got 30"),
    ({"trace": None}, "trace must be given"),
    ({"readout": torch.randn(2, 2, 29).double()}, "size 2 of readout must be 30"),
    ({"targets": torch.randn(4, 2, 3).double()}, "size 2 of targets must be 2"),
    ({"gates": torch.randn(4, 1, 2).double()}, "size 1 of gates must be 2"),
]


class TestRawOps:
    """Memory-safe whatever they are called with."""

    @pytest.mark.parametrize(("change", "message"), UNSAFE, ids=range(len(UNSAFE)))
    def test_run(self, change, message):
        args = raw_arguments()
        torch.ops.synops.izhikevich(*args.values())
        with pytest.raises(RuntimeError, match=message):
            torch.ops.synops.izhikevich(*(args | change).values())

    def test_targets_and_bits_without_a_neuron(self):
        """A target is below 65536 and what it is added to has as many elements; bits of spikes in
        flight behind the last neuron do not count."""
        args = raw_arguments()
        good = torch.ops.synops.izhikevich(*args.values())
        lost = args | {"target": torch.full_like(args["target"], -1)}
        torch.ops.synops.izhikevich(*lost.values())
        more = args | {"pending": args["pending"] | (-1 << 30)}
        for one, other in zip(torch.ops.synops.izhikevich(*more.values()), good, strict=True):
            assert torch.equal(one, other)

    def test_synapses_and_indices(self):
        values, pattern, _ = network(30)
        crow, col = pattern.crow, pattern.col
        for args, message in (
            ((values[:3], crow, col, 1, 3), "values must have"),
            ((values, crow, col + 30, 1, 3), r"col must lie in \[0, 30\)"),
            ((values, crow.flip(0), col, 1, 3), "crow must ascend"),
            ((values, crow, col, 0, 3), "ranges must be 1 to 256"),
            ((values, crow, col, 257, 3), "ranges must be 1 to 256"),
            ((values, crow, col, 1, 2), "layout must be 1 or 3"),
            ((values, crow[:0], col, 1, 3), "crow must have shape"),
        ):
            with pytest.raises(RuntimeError, match=message):
                torch.ops.synops.izhikevich_synapses(*args)
        with pytest.raises(RuntimeError, match="bits must have 1 words, got 2"):
            torch.ops.synops.izhikevich_indices(torch.zeros(3, 2).long(), 64)
        assert (
            torch.ops.synops.izhikevich_indices(torch.full((2, 1), -1), 3).tolist() == [0, 1, 2] * 2
        )

    @pytest.mark.usefixtures("isa")
    @pytest.mark.parametrize("layout", [(3, 1), (3, 3), (1, 1)])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
    def test_synapses_of_the_reference(self, layout, dtype):
        values, pattern, _ = network(200, dtype=dtype)
        args = (values, pattern.crow, pattern.col, layout[1], layout[0])
        want = reference("izhikevich_synapses")(*args)
        for one, other in zip(torch.ops.synops.izhikevich_synapses(*args), want, strict=True):
            assert torch.equal(one, other)
