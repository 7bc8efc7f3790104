"""izhikevich against a loop in numpy, against its reference, and against itself cut in two."""

import math

import numpy as np
import pytest
import torch
from izhikevich_samples import loop, network

from synops._library import launcher, reference
from synops.sparse import Pattern
from synops.spiking import IzhikevichState, izhikevich
from synops.spiking import _izhikevich_ops as ops

# Every option of synapses, each with what it is in the loop.
OPTIONS = {
    "exponential": {},
    "rising": {"tau_rise": 1.5, "tau": 4.0},
    "delayed": {"delay": 7},
    "axonal": {"delay": torch.arange(100) % 9 + 1, "tau_rise": 2.0},
}


def test_a_neuron_alone():
    """Regular spiking at a constant current of 10 (Izhikevich 2003, figure 2): with dt = .5 ms
    its first spike is early and the next ones at growing distances, by a loop without tensors."""
    v, u, times = -65.0, -13.0, []
    for t in range(400):
        v, u = v + 0.5 * (0.04 * v * v + 5 * v + 140 - u + 10), u + 0.5 * 0.02 * (0.2 * v - u)
        if v >= 30:
            v, u = -65.0, u + 8
            times.append(t)
    alone = Pattern.from_mask(torch.zeros(1, 1, dtype=torch.bool))
    got = izhikevich(
        None, torch.zeros(0, dtype=torch.float64), alone, steps=400, a=0.02, b=0.2, c=-65, d=8,
        bias=10.0, record=("raster", "v"),
    )  # fmt: skip
    assert got.raster[:, 0].nonzero().flatten().tolist() == times
    assert len(times) >= 5
    assert times[2] - times[1] > times[1] - times[0] > times[0]
    torch.testing.assert_close(float(got.state.v), v, rtol=1e-10, atol=0)
    torch.testing.assert_close(float(got.state.u), u, rtol=1e-10, atol=0)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("name", OPTIONS)
def test_loop(name):
    """In float64, where rounding does not move a spike in so few steps."""
    options = OPTIONS[name]
    values, pattern, neuron = network()
    v = torch.linspace(-70, -40, 100, dtype=torch.float64)
    spikes, membranes = loop(values, pattern, neuron, 150, v, **options)
    got = izhikevich(
        None, values, pattern, IzhikevichState(v), steps=150, record=("raster", "indices", "v"),
        **neuron, **options,
    )  # fmt: skip
    assert 150 < spikes.sum() < 1500
    np.testing.assert_array_equal(got.raster.numpy(), spikes)
    np.testing.assert_allclose(got.v.numpy(), membranes, rtol=1e-7, atol=1e-7)
    np.testing.assert_array_equal(got.counts.numpy(), spikes.sum(1))
    np.testing.assert_array_equal(got.indices.numpy(), spikes.nonzero()[1])


@pytest.mark.parametrize("weighted", [False, True])
def test_input(weighted):
    """Pulses through input weights, or one by one; a batch of different ones."""
    values, pattern, neuron = network()
    x = torch.zeros(80, 2, 3 if weighted else 100, dtype=torch.float64)
    x[10:20, 0] = torch.rand_like(x[10:20, 0]) * 20
    x[30:35, 1, :2] = 15.0
    w = torch.rand(100, 3, dtype=torch.float64) if weighted else None
    v = torch.full((2, 100), -65.0, dtype=torch.float64)
    got = izhikevich(
        x, values, pattern, IzhikevichState(v), input_weight=w, record="raster", **neuron
    )
    for b in range(2):
        drive = x[:, b] if w is None else x[:, b] @ w.t()
        want, _ = loop(values, pattern, neuron, 80, v[b], drive=drive)
        np.testing.assert_array_equal(got.raster[:, b].numpy(), want)
        alone = izhikevich(x[:, b], values, pattern, input_weight=w, record="raster", **neuron)
        assert torch.equal(alone.raster, got.raster[:, b])
    assert not torch.equal(got.raster[:, 0], got.raster[:, 1])


# Synapses by entry and by rows of a dense weight; more than one range; one neuron more than a word.
LAYOUTS = [(70, (3, 1)), (200, (3, 3)), (129, (1, 1)), (65, (3, 2)), (16, (3, 1))]


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize(("neurons", "layout"), LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_steps_of_the_reference(neurons, layout, dtype, monkeypatch):
    """Single steps in float32 from the states of a run in float64 (a longer one is chaos), with
    the rounded weights; spikes wherever no rounding decides."""
    monkeypatch.setattr(ops, "layout_for", lambda *args: layout)
    monkeypatch.setattr("synops.spiking._izhikevich.layout_for", lambda *args: layout)
    values, pattern, neuron = network(neurons, 8, dtype)
    state = IzhikevichState(torch.linspace(-70, 25, neurons, dtype=torch.float64))
    exact = {name: t.double() for name, t in neuron.items()}
    args = {"steps": 1, "tau_rise": 2.0, "record": ("raster", "traces")}
    fired = 0
    for _ in range(12):
        narrow = IzhikevichState(*(None if t is None else t.float() for t in state))
        got = izhikevich(None, values, pattern, narrow, **args, **neuron)
        want = izhikevich(
            None, values.double(), pattern, IzhikevichState(*(
                None if t is None else t.double() for t in narrow)),
            **args, **exact, backend="reference",
        )  # fmt: skip
        assert torch.equal(got.raster, want.raster)
        tolerance = {"rtol": 1e-5, "atol": 1e-4}
        for one, other in zip(got.state, want.state, strict=True):
            if one is not None:
                torch.testing.assert_close(one.double(), other, **tolerance)
        fired += int(want.counts.sum())
        state = want.state
    assert fired > 3


class TestBits:
    @pytest.mark.usefixtures("isa")
    @pytest.mark.parametrize("name", OPTIONS)
    def test_of_two_calls(self, name):
        """Also in a batch, with traces and a readout that learns."""
        values, pattern, neuron = network(dtype=torch.float32)
        x = torch.randn(50, 2, 3)
        keys = ("indices", "bits", "raster", "v", "traces")
        args = {"input_weight": torch.randn(100, 3), "record": keys, "learning_rate": 0.01}
        args |= neuron | OPTIONS[name]
        targets, gates = torch.randn(50, 2, 2), (torch.rand(50, 2, 2) < 0.5).float()
        readout = torch.randn(2, 100) * 0.1

        def run(begin, end, state, readout):
            return izhikevich(
                x[begin:end], values, pattern, state, readout=readout, targets=targets[begin:end],
                gates=gates[begin:end], **args,
            )  # fmt: skip

        whole = run(0, 50, None, readout)
        first = run(0, 23, None, readout)
        second = run(23, 50, first.state, first.readout)
        assert int(whole.counts[25:].sum()) > 20
        for one, other in zip(whole.state, second.state, strict=True):
            assert one is other is None or torch.equal(one, other)
        assert torch.equal(whole.readout, second.readout)
        for key in (*keys, "counts", "z"):
            parts = torch.cat([getattr(first, key), getattr(second, key)])
            assert torch.equal(getattr(whole, key), parts), key

    def test_of_pieces(self, monkeypatch):
        """A run is cut into pieces, so that Ctrl-C can stop it; nothing shows."""
        values, pattern, neuron = network(dtype=torch.float32)
        args = {"steps": 60, "record": ("indices", "bits", "raster", "v", "traces"), "delay": 3}
        whole = izhikevich(None, values, pattern, **args, **neuron)
        cuts = [(0, 25), (25, 30), (30, 60)]
        monkeypatch.setattr(ops, "chunks", lambda steps, cost: iter(cuts))
        cut = izhikevich(None, values, pattern, **args, **neuron)
        for one, other in zip((*whole, *whole.state), (*cut, *cut.state), strict=True):
            if isinstance(one, torch.Tensor):
                assert torch.equal(one, other)

    def test_of_threads(self, threads):
        """A large reservoir is shared by ranges, and a batch by reservoirs."""
        N = ops.SHARED_FROM + 100
        g = torch.Generator().manual_seed(0)
        col = torch.randint(0, N, (N, 5), generator=g).sort(1).values
        keep = torch.cat([torch.ones(N, 1, dtype=torch.bool), col[:, 1:] > col[:, :-1]], 1)
        crow = torch.cat([torch.zeros(1, dtype=torch.long), keep.sum(1).cumsum(0)])
        pattern = Pattern.from_csr(crow, col[keep], (N, N))
        values = torch.randn(pattern.nnz, generator=g) * 5
        state = IzhikevichState(torch.rand(3, N, generator=g) * 40 - 70)
        neuron = {"a": 0.02, "b": 0.2, "c": -65.0, "d": 8.0, "bias": 6.0}
        results = []
        for count in (1, 2, 3, 5):
            threads(count)
            many = izhikevich(
                None, values, pattern, state, steps=60, record=("bits", "v"), neurons=[0, N - 1],
                **neuron,
            )  # fmt: skip
            one = izhikevich(
                None, values, pattern, IzhikevichState(state.v[0]), steps=60, delay=2,
                record=("bits", "v"), neurons=[0, N - 1], **neuron,
            )  # fmt: skip
            results.append([many.bits, many.v, *many.state[:3], one.bits, one.v, *one.state[:3]])
            assert one.state.pending.shape == (1, -(-N // 64))
        assert int(many.counts.sum()) > N
        for other in results[1:]:
            assert all(map(torch.equal, results[0], other))


class TestReadout:
    def test_rule(self):
        """z and the three-factor rule, by the definition."""
        values, pattern, neuron = network()
        readout = torch.randn(3, 100, dtype=torch.float64)
        targets = torch.randn(80, 3, dtype=torch.float64)
        gates = torch.rand(80, 3, dtype=torch.float64)
        gates[torch.rand(80) < 0.3] = 0
        got = izhikevich(
            None, values, pattern, steps=80, readout=readout, targets=targets, gates=gates,
            learning_rate=0.05, tau_trace=15.0, record=("raster", "traces"), **neuron,
        )  # fmt: skip
        W, r, z = readout.clone(), torch.zeros(100, dtype=torch.float64), []
        for t in range(80):
            r = math.exp(-0.5 / 15) * r + got.raster[t]
            torch.testing.assert_close(got.traces[t], r)
            z.append(W @ r)
            W = W + 0.05 * torch.outer(gates[t] * (targets[t] - z[-1]), r)
        torch.testing.assert_close(got.z, torch.stack(z))
        torch.testing.assert_close(got.readout, W)
        assert not torch.equal(W, readout)

    def test_without_learning(self):
        values, pattern, neuron = network()
        readout = torch.randn(2, 100, dtype=torch.float64)
        got = izhikevich(
            None, values, pattern, steps=40, readout=readout, record="traces", **neuron
        )
        torch.testing.assert_close(got.z, got.traces @ readout.t())
        assert torch.equal(got.readout, readout)


def test_currents():
    """A spike's current: exp(-t / tau) from the step after; with a rise its peak is the weight
    (times in ms, fine steps)."""
    pattern = Pattern.from_mask(torch.tensor([[False, False], [True, False]]))
    v = torch.tensor([29.9, -65.0], dtype=torch.float64)
    neuron = {"a": 0.02, "b": 0.2, "c": -65.0, "d": 8.0}
    weight = torch.tensor([3.0], dtype=torch.float64)
    for options, want in (
        ({"tau": 5.0}, lambda t: 3 * math.exp(-t / 5)),
        ({"tau": 5.0, "tau_rise": 1.0}, None),
    ):
        state, currents = IzhikevichState(v), []
        for _ in range(400):
            state = izhikevich(
                None, weight, pattern, state, steps=1, dt=0.02, record=None, **neuron, **options
            ).state
            currents.append(float(state.current[1]))
        if want is not None:
            np.testing.assert_allclose(currents, [want(0.02 * k) for k in range(400)], rtol=1e-9)
        else:
            assert max(currents) == pytest.approx(3, rel=1e-4)
            assert currents.index(max(currents)) * 0.02 == pytest.approx(
                5 / 4 * math.log(5), abs=0.03
            )


def test_silent_synapses_are_not_read():
    """NaN in the weights of a neuron that does not fire."""
    values, pattern, neuron = network()
    quiet = 17
    neuron["bias"][quiet] = -100.0
    values[pattern.col == quiet] = torch.nan
    for backend in ("auto", "reference"):
        got = izhikevich(None, values, pattern, steps=100, backend=backend, **neuron)
        assert not got.state.v.isnan().any()
        assert got.counts.sum() > 100


@pytest.mark.triton
@pytest.mark.parametrize("name", OPTIONS)
def test_triton(name):
    """Each option in another layout: by column, packed in ranges, dense, row by row."""
    layout = dict(zip(OPTIONS, [(0, 1), (3, 2), (1, 1), (2, 1)], strict=True))[name]
    N, B, T = 66, 2 - (name == "axonal"), 5
    values, pattern, neuron = network(N, 8, weight=6.0)
    index = (values, pattern.crow, pattern.col)
    synapses = reference("izhikevich_synapses")(*index, layout[1], layout[0])
    v = torch.rand(B, N, dtype=torch.float64) * 110 - 70
    zeros = torch.zeros_like(v)
    delay = torch.as_tensor(OPTIONS[name].get("delay", 1)).int().expand(100)[:N]
    most = int(delay.max())
    x = torch.randn(T, B, 3, dtype=torch.float64)
    learns = name == "axonal"
    args = (
        v, neuron["b"] * v, zeros, zeros if name in ("rising", "axonal") else None,
        zeros if learns else None,
        torch.randint(2**60, (most - 1, B, 2)) if most > 1 else None,
        *neuron.values(), x, torch.randn(3, N, dtype=torch.float64), *synapses, layout[0],
        delay.contiguous() if learns else None, T, 0.5, 0.9, 0.7, 0.3, 0.95, True, True, learns,
        torch.tensor([3, 65]), torch.randn(B, 2, N, dtype=torch.float64) if learns else None,
        torch.randn(T, B, 2, dtype=torch.float64) if learns else None, None, 0.01,
    )  # fmt: skip
    want = reference("izhikevich")(*args)
    assert int(want[6].sum()) > 20
    for one, other in zip(launcher("izhikevich")(*args), want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.triton
def test_triton_edges():
    """No steps, no neurons, through the public function; weights in bfloat16."""
    values, pattern, neuron = network(70, 8, torch.bfloat16)
    v = torch.rand(70) * 60 - 70
    rule = {"record": "raster", "backend": "triton", **neuron}
    got = izhikevich(None, values, pattern, IzhikevichState(v), steps=0, **rule)
    assert torch.equal(got.state.v, v)
    empty = Pattern.from_mask(torch.zeros(0, 0, dtype=torch.bool))
    one = {"a": 0.02, "b": 0.2, "c": -65.0, "d": 8.0}
    none = izhikevich(None, values[:0], empty, steps=3, backend="triton", **one)
    assert none.counts.tolist() == [0, 0, 0]
    got = izhikevich(None, values, pattern, IzhikevichState(v), steps=3, **rule)
    want = izhikevich(
        None, values, pattern, IzhikevichState(v), steps=3, **rule | {"backend": "reference"}
    )
    torch.testing.assert_close(got.state, want.state)
    assert torch.equal(got.raster, want.raster)
