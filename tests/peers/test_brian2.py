"""Parity with Brian2 2.9.0 (needs numpy below 2): traces of uncoupled Izhikevich neurons."""

import pytest
import torch

from synops.sparse import Pattern
from synops.spiking import IzhikevichState, izhikevich

pytestmark = pytest.mark.peers
b2 = pytest.importorskip("brian2", reason="needs numpy below 2, so an environment of its own")

NEURONS = """dv/dt = (.04 * v * v + 5 * v + 140 - u + I + bias) / ms : 1
du/dt = a * (b * v - u) / ms : 1
dI/dt = -I / (5 * ms) : 1
a : 1 (constant)
b : 1 (constant)
c : 1 (constant)
d : 1 (constant)
bias : 1 (constant)"""


def test_uncoupled_neurons():
    """Regular, fast and chattering ones, 100 ms by forward Euler in float64."""
    b2.prefs.codegen.target = "numpy"
    neuron = {
        "a": torch.tensor([0.02, 0.1, 0.02]),
        "b": torch.tensor([0.2, 0.2, 0.2]),
        "c": torch.tensor([-65.0, -65.0, -50.0]),
        "d": torch.tensor([8.0, 2.0, 2.0]),
        "bias": torch.tensor([10.0, 10.0, 10.0]),
    }
    neuron = {name: t.double() for name, t in neuron.items()}
    b2.start_scope()
    b2.defaultclock.dt = 0.5 * b2.ms
    group = b2.NeuronGroup(
        3, NEURONS, threshold="v >= 30", reset="v = c; u += d", method="euler", dt=0.5 * b2.ms
    )
    for name, t in neuron.items():
        setattr(group, name, t.numpy())
    group.v = -65.0
    group.u = "b * v"
    spikes = b2.SpikeMonitor(group)
    traces = b2.StateMonitor(group, ("v", "u"), record=True, when="end")
    b2.Network(group, spikes, traces).run(100 * b2.ms)
    got = izhikevich(
        None,
        torch.zeros(0, dtype=torch.float64),
        Pattern.from_mask(torch.zeros(3, 3, dtype=torch.bool)),
        IzhikevichState(torch.full((3,), -65.0, dtype=torch.float64)),
        steps=200,
        record=("indices", "v"),
        **neuron,
    )
    assert got.indices.tolist() == list(spikes.i)
    assert len(got.indices) > 15
    torch.testing.assert_close(got.v, torch.from_numpy(traces.v.T.copy()), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(
        got.state.u, torch.from_numpy(traces.u[:, -1].copy()), rtol=1e-7, atol=1e-7
    )
