"""What alif and cuba_lif do alike: against float64, in all forms, and as they are called."""

import pytest
import torch
from lif_samples import DTYPES
from neuron_samples import OPS, PARAMETERS, RULES, call, check, gradients, incoming_for, sample

from synops.spiking import unpack_spikes

SHAPES = [
    (6, 3, 17),
    (5, 2, 3, 5),
    (4, 1040),
    (3, 9, 100),
    (7, 2, 16),
    (1, 2, 64),
    (6, 1, 1),
    (5, 4, 8),
]


@pytest.fixture(params=OPS)
def name(request):
    return request.param


def rule_ids(rule):
    return "-".join(str(v) if isinstance(v, str) else k for k, v in rule.items())


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("i", range(len(RULES)), ids=[rule_ids(r) for r in RULES])
def test_reference(name, i, dtype):
    """Spikes, states and all gradients; parameters of neurons and of all, starts and none."""
    s = sample(name, SHAPES[i], dtype, per_neuron=i % 4 != 3, start=i % 3 != 2, **RULES[i])
    check(name, s, dtype)


@pytest.mark.parametrize("rule", RULES, ids=rule_ids)
def test_a_gradient_alone(name, rule):
    """Of each result alone, to each argument alone: what is not needed is not computed or saved."""
    s = sample(name, (4, 2, 9), torch.float64, **rule)
    incoming = incoming_for(s, torch.float64)
    for j in range(4):
        alone = [g if j == k else None for k, g in enumerate(incoming)]
        want = gradients(name, s, torch.float64, alone, backend="reference")
        for argument, g in want.items():
            got = gradients(name, s, torch.float64, alone, (argument,))[argument]
            torch.testing.assert_close(got, g, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("rule", RULES, ids=rule_ids)
def test_bits_of_two_calls(name, rule):
    x = torch.randn(11, 3, 40)
    whole = OPS[name](x, **PARAMETERS[name], **rule)
    first = OPS[name](x[:4], **PARAMETERS[name], **rule)
    second = OPS[name](x[4:], *first[1:3], **PARAMETERS[name], **rule)
    assert torch.equal(whole.spikes, torch.cat([first.spikes, second.spikes]))
    for one, other in zip(whole[1:3], second[1:3], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("rule", RULES, ids=rule_ids)
def test_half_a_membrane(name, rule):
    """Gradients of float16's 11 bits, of the same spikes."""
    s = sample(name, (6, 2, 20), torch.float32, **rule)
    incoming = incoming_for(s, torch.float32)
    halves = gradients(name, s, torch.float32, incoming, save="half")
    for argument, want in gradients(name, s, torch.float32, incoming).items():
        got = halves[argument]
        assert (got - want).norm() <= 4e-3 * want.norm() + 1e-6


def test_forms_of_spikes(name):
    x = torch.randn(9, 3, 21)
    want = OPS[name](x, **PARAMETERS[name])
    assert torch.equal(OPS[name](x, **PARAMETERS[name], spikes="uint8").spikes.float(), want.spikes)
    bits = OPS[name](x, **PARAMETERS[name], spikes="bits")
    assert torch.equal(unpack_spikes(bits.spikes, 21), want.spikes)
    assert torch.equal(bits.v, want.v)


def test_of_threads(name, threads):
    s = sample(name, (4, 13, 700), torch.float32, per_neuron=False, **RULES[0])
    incoming = incoming_for(s, torch.float32)
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(
            (
                *call(name, s, torch.float32)[0][:3],
                *gradients(name, s, torch.float32, incoming).values(),
            )
        )
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize("late", [False, True])
def test_no_steps(name, late):
    v0, w0 = torch.randn(2, 5, requires_grad=True), torch.randn(2, 5, requires_grad=True)
    got = OPS[name](torch.zeros(0, 2, 5), v0, w0, **PARAMETERS[name], delayed_reset=late)
    assert torch.equal(got[1], v0)
    assert torch.equal(got[2], w0)
    g, h = torch.randn(2, 5), torch.randn(2, 5)
    of_v0, of_w0 = torch.autograd.grad(got[1:3], (v0, w0), (g, h))
    assert torch.equal(of_v0, g)
    assert torch.equal(of_w0, h)


@pytest.mark.parametrize("shape", [(3, 0, 5), (3, 2, 0), (0, 0, 0)])
def test_no_neurons(name, shape):
    x = torch.zeros(shape, requires_grad=True)
    got = OPS[name](x, **PARAMETERS[name])
    assert got.spikes.shape == shape
    got.spikes.sum().backward()
    assert x.grad.shape == shape


def test_nan_stays_in_its_neuron(name):
    x = torch.zeros(4, 1, 19)
    x[1, 0, 2] = torch.nan
    got = OPS[name](x, **PARAMETERS[name])
    assert got.v[0, 2].isnan()
    assert got.v.isnan().sum() == 1
    assert not got.spikes.any()


def test_compiled(name):
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, **k: OPS[name](x, **k), fullgraph=True, backend="aot_eager")
    parameters = {k: torch.full((4,), p, requires_grad=True) for k, p in PARAMETERS[name].items()}
    x = torch.randn(5, 2, 4, requires_grad=True)
    results = []
    for f in (compiled, OPS[name]):
        got = f(x, **parameters)
        leaves = (x, *parameters.values())
        results.append((*got[:3], *torch.autograd.grad(got.spikes.sum() + got.v.sum(), leaves)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_vmap_and_second_gradient(name):
    x = torch.randn(3, 5, 2, 4)
    got = torch.vmap(lambda x: OPS[name](x, **PARAMETERS[name]).spikes)(x)
    assert torch.equal(got[1], OPS[name](x[1], **PARAMETERS[name]).spikes)
    leaf = x[0].requires_grad_()
    spikes = OPS[name](leaf * 2, **PARAMETERS[name]).spikes
    (g,) = torch.autograd.grad(spikes.sum(), leaf, create_graph=True)
    with pytest.raises(NotImplementedError, match="double backward"):
        (g * leaf).sum().backward()


def test_wrong_arguments(name):
    x, op = torch.randn(3, 2, 4), OPS[name]
    for argument in (*PARAMETERS[name], "threshold", "v0"):
        with pytest.raises(TypeError, match=f"{name}: {argument} must be"):
            op(x, **PARAMETERS[name] | {argument: "1"})
        with pytest.raises(ValueError, match=f"{name}: {argument} must have shape"):
            op(x, **PARAMETERS[name] | {argument: torch.ones(3)})


@pytest.mark.triton
@pytest.mark.parametrize("i", range(len(RULES)), ids=[rule_ids(r) for r in RULES])
def test_triton(name, i):
    dtype = DTYPES[i % 4]
    s = sample(name, (4, 2, 20), dtype, per_neuron=i % 4 != 3, start=i % 3 != 2, **RULES[i])
    check(name, s, dtype, backend="triton")
