"""nn.IzhikevichReservoir: what the module adds to the function."""

import copy
import pickle

import pytest
import torch

from synops.nn import IzhikevichReservoir
from synops.sparse import Pattern
from synops.spiking import IzhikevichState, izhikevich


def small(neurons=120, **options):
    options = {"strength": (2.0, 4.0), "generator": torch.Generator().manual_seed(1)} | options
    return IzhikevichReservoir.random(neurons, 10, **options)


def pattern_of(module):
    return Pattern.from_csr(module.crow, module.col, (module.neurons, module.neurons))


@pytest.mark.parametrize("delay", [1, torch.arange(120) % 4 + 1], ids=["one", "axonal"])
def test_is_the_function(delay):
    module = small(inputs=3, delay=delay, tau_rise=1.0, tau=6.0)
    x = torch.randn(60, 2, 3)
    keys = ("a", "b", "c", "d", "bias", "input_weight")
    args = {name: getattr(module, name) for name in keys}
    want = izhikevich(
        x, module.values, pattern_of(module), delay=delay, tau_rise=1.0, tau=6.0, **args
    )
    for _ in range(2):  # the second time with what was laid out
        got = module(x)
        assert torch.equal(got.indices, want.indices)
        assert torch.equal(got.state.current, want.state.current)
    assert want.counts.sum() > 50
    assert not list(module.parameters())
    saved = {"values", "crow", "col", "a", "b", "c", "d", "bias", "input_weight"}
    assert module.state_dict().keys() == saved | ({"delays"} if module.delay is None else set())


def test_changed_values_are_seen():
    module = small()
    before = module(steps=100)
    module.values.mul_(0)
    silent = module(steps=100)
    assert not silent.state.current.any()
    assert before.state.current.any()
    module.load_state_dict(small().state_dict())
    assert torch.equal(module(steps=100).indices, before.indices)


def test_copies_and_casts():
    module = small()
    want = module(steps=80)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(steps=80).indices, want.indices)
    wide = copy.deepcopy(module).double()
    assert wide(steps=80).state.v.dtype == torch.float64
    assert torch.equal(wide(steps=5).indices, module(steps=5).indices)


def test_random():
    """Every neuron hears as many others, signs are those of Dale's law; it fires, and not all at
    once."""
    module = IzhikevichReservoir.random(500, 40, generator=torch.Generator().manual_seed(0))
    mask = pattern_of(module).mask()
    assert mask.sum(1).tolist() == [40] * 500
    weights = pattern_of(module).scatter(module.values)
    assert (weights[:, :400] >= 0).all()
    assert (weights[:, 400:] <= 0).all()
    counts = module(steps=1600).counts[800:].float()
    assert 8 < counts.mean() / 500 / 0.5e-3 < 20
    assert counts.std() < counts.mean()
    dense = IzhikevichReservoir.random(20, 20)
    assert pattern_of(dense).mask().all()


def test_compiled():
    torch._dynamo.reset()
    module = small()
    run = torch.compile(
        lambda v: module(state=IzhikevichState(v), steps=20, record="raster").raster,
        fullgraph=True, backend="aot_eager",
    )  # fmt: skip
    v = torch.full((120,), 20.0)
    want = module(state=IzhikevichState(v), steps=20, record="raster").raster
    assert torch.equal(run(v), want)


def test_refuses():
    values, pattern = torch.ones(4), Pattern.from_mask(torch.ones(2, 2, dtype=torch.bool))
    rule = {"a": 0.02, "b": 0.2, "c": -65.0, "d": 8.0}
    with pytest.raises(TypeError, match="no option 'theta'; there are dt, tau, tau_rise"):
        IzhikevichReservoir(values, pattern, **rule, theta=1)
    with pytest.raises(ValueError, match="tau must be positive"):
        IzhikevichReservoir(values, pattern, **rule, tau=0.0)
    with pytest.raises(ValueError, match="values must have the sign"):
        IzhikevichReservoir(values, pattern, **rule, sign=torch.tensor([1, -1]))
    with pytest.raises(ValueError, match=r"input_weight must have shape \(N, N_in\)"):
        IzhikevichReservoir(values, pattern, **rule, input_weight=torch.ones(3, 4))
    with pytest.raises(ValueError, match=r"in_degree must lie in \[0, 5\], got 6"):
        IzhikevichReservoir.random(5, 6)
    with pytest.raises(TypeError, match="steps must be given"):
        IzhikevichReservoir(values, pattern, **rule)()
