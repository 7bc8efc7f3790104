"""cuba_lif against float64, against plain torch bit for bit, and as it is called."""

import pytest
import torch
from lif_samples import DTYPES
from neuron_samples import RULES, call, check, gradients, incoming_for, sample

from synops.spiking import cuba_lif, lif, unpack_spikes

NAME = "cuba_lif"
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
PARAMETERS = {"alpha": 0.5, "beta": 0.9}


def loop(x, alpha, beta, threshold, late):
    """By hand."""
    v, i, s, spikes = torch.zeros_like(x[0]), torch.zeros_like(x[0]), torch.zeros_like(x[0]), []
    for x_t in x.unbind(0):
        i = alpha * i + x_t
        u = beta * v + i
        v = u - s * threshold if late else u
        s = (v > threshold).to(x.dtype)
        v = v if late else u - s * threshold
        spikes.append(s)
    return torch.stack(spikes), v, i


def rule_ids(rule):
    return "-".join(str(v) if isinstance(v, str) else k for k, v in rule.items())


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("i", range(len(RULES)), ids=[rule_ids(r) for r in RULES])
def test_reference(i, dtype):
    """Spikes, states and all gradients; parameters of neurons and of all, starts and none."""
    s = sample(NAME, SHAPES[i], dtype, per_neuron=i % 4 != 3, start=i % 3 != 2, **RULES[i])
    check(NAME, s, dtype)


@pytest.mark.parametrize("rule", RULES, ids=rule_ids)
def test_a_gradient_alone(rule):
    """Of each result alone, to each argument alone: what is not needed is not computed or saved."""
    s = sample(NAME, (4, 2, 9), torch.float64, **rule)
    incoming = incoming_for(s, torch.float64)
    for j in range(4):
        alone = [g if j == k else None for k, g in enumerate(incoming)]
        want = gradients(NAME, s, torch.float64, alone, backend="reference")
        for name, g in want.items():
            got = gradients(NAME, s, torch.float64, alone, (name,))[name]
            torch.testing.assert_close(got, g, rtol=1e-10, atol=1e-11)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_bits_of_the_loop(dtype, late):
    x = torch.randn(40, 4, 100, dtype=dtype)
    parameters = {k: torch.rand(100, dtype=dtype) for k in (*PARAMETERS, "threshold")}
    got = cuba_lif(x, **parameters, delayed_reset=late)
    for one, other in zip(got[:3], loop(x, **parameters, late=late), strict=True):
        assert torch.equal(one, other)
    assert 0.1 < got.spikes.mean() < 0.9


@pytest.mark.parametrize("rule", RULES, ids=rule_ids)
def test_bits_of_two_calls(rule):
    x = torch.randn(11, 3, 40)
    whole = cuba_lif(x, **PARAMETERS, **rule)
    first = cuba_lif(x[:4], **PARAMETERS, **rule)
    second = cuba_lif(x[4:], *first[1:3], **PARAMETERS, **rule)
    assert torch.equal(whole.spikes, torch.cat([first.spikes, second.spikes]))
    for one, other in zip(whole[1:3], second[1:3], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("rule", RULES, ids=rule_ids)
def test_half_a_membrane(rule):
    """Gradients of float16's 11 bits, of the same spikes."""
    s = sample(NAME, (6, 2, 20), torch.float32, **rule)
    incoming = incoming_for(s, torch.float32)
    for name, want in gradients(NAME, s, torch.float32, incoming).items():
        got = gradients(NAME, s, torch.float32, incoming, save="half")[name]
        assert (got - want).norm() <= 4e-3 * want.norm() + 1e-6


def test_forms_of_spikes():
    x = torch.randn(9, 3, 21)
    want = cuba_lif(x, **PARAMETERS)
    assert torch.equal(cuba_lif(x, **PARAMETERS, spikes="uint8").spikes.float(), want.spikes)
    bits = cuba_lif(x, **PARAMETERS, spikes="bits")
    assert torch.equal(unpack_spikes(bits.spikes, 21), want.spikes)
    assert torch.equal(bits.v, want.v)


def test_of_threads(threads):
    s = sample(NAME, (4, 13, 700), torch.float32, per_neuron=False, **RULES[0])
    incoming = incoming_for(s, torch.float32)
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(
            (
                *call(NAME, s, torch.float32)[0][:3],
                *gradients(NAME, s, torch.float32, incoming).values(),
            )
        )
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize("late", [False, True])
def test_no_steps(late):
    v0, w0 = torch.randn(2, 5, requires_grad=True), torch.randn(2, 5, requires_grad=True)
    got = cuba_lif(torch.zeros(0, 2, 5), v0, w0, **PARAMETERS, delayed_reset=late)
    assert torch.equal(got[1], v0)
    assert torch.equal(got[2], w0)
    g, h = torch.randn(2, 5), torch.randn(2, 5)
    of_v0, of_w0 = torch.autograd.grad(got[1:3], (v0, w0), (g, h))
    assert torch.equal(of_v0, g)
    assert torch.equal(of_w0, h)


@pytest.mark.parametrize("shape", [(3, 0, 5), (3, 2, 0), (0, 0, 0)])
def test_no_neurons(shape):
    x = torch.zeros(shape, requires_grad=True)
    got = cuba_lif(x, **PARAMETERS)
    assert got.spikes.shape == shape
    got.spikes.sum().backward()
    assert x.grad.shape == shape


def test_nan_stays_in_its_neuron():
    x = torch.zeros(4, 1, 19)
    x[1, 0, 2] = torch.nan
    got = cuba_lif(x, **PARAMETERS)
    assert got.v[0, 2].isnan()
    assert got.v.isnan().sum() == 1
    assert not got.spikes.any()


def test_compiled():
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, **k: cuba_lif(x, **k), fullgraph=True, backend="aot_eager")
    parameters = {k: torch.full((4,), p, requires_grad=True) for k, p in PARAMETERS.items()}
    x = torch.randn(5, 2, 4, requires_grad=True)
    results = []
    for f in (compiled, cuba_lif):
        got = f(x, **parameters)
        leaves = (x, *parameters.values())
        results.append((*got[:3], *torch.autograd.grad(got.spikes.sum() + got.v.sum(), leaves)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_vmap_and_second_gradient():
    x = torch.randn(3, 5, 2, 4)
    got = torch.vmap(lambda x: cuba_lif(x, **PARAMETERS).spikes)(x)
    assert torch.equal(got[1], cuba_lif(x[1], **PARAMETERS).spikes)
    leaf = x[0].requires_grad_()
    spikes = cuba_lif(leaf * 2, **PARAMETERS).spikes
    (g,) = torch.autograd.grad(spikes.sum(), leaf, create_graph=True)
    with pytest.raises(NotImplementedError, match="double backward"):
        (g * leaf).sum().backward()


@pytest.mark.parametrize("name", [*PARAMETERS, "threshold", "v0"])
def test_wrong_arguments(name):
    x = torch.randn(3, 2, 4)
    with pytest.raises(TypeError, match=f"cuba_lif: {name} must be"):
        cuba_lif(x, **PARAMETERS | {name: "1"})
    with pytest.raises(ValueError, match=f"cuba_lif: {name} must have shape"):
        cuba_lif(x, **PARAMETERS | {name: torch.ones(3)})


@pytest.mark.triton
@pytest.mark.parametrize("i", range(len(RULES)), ids=[rule_ids(r) for r in RULES])
def test_triton(i):
    dtype = DTYPES[i % 4]
    s = sample(NAME, (4, 2, 20), dtype, per_neuron=i % 4 != 3, start=i % 3 != 2, **RULES[i])
    check(NAME, s, dtype, backend="triton")


def test_without_memory_of_the_current_it_is_lif():
    x = torch.randn(9, 2, 30)
    got, want = cuba_lif(x, alpha=0.0, beta=0.9), lif(x, beta=0.9)
    assert torch.equal(got.spikes, want.spikes)
    assert torch.equal(got.v, want.v)


def test_opcheck():
    x, alpha = torch.randn(4, 2, 5), torch.rand(5)
    one, rule = torch.tensor(0.5), (1, False, True, False, 2, 2.0)
    torch.library.opcheck(
        torch.ops.synops.cuba_lif.default,
        (x, None, None, one, one, alpha, *rule, 0, 1, True, False),
    )


def test_raw_ops_are_safe():
    x, one, rule = torch.randn(3, 2, 4), torch.tensor(0.5), (0, False, False, True, 0, 2.0)
    back = [x, None, None, None, x, None, None, None, one, one, one, *rule, 0]
    torch.ops.synops.cuba_lif_backward(*back, *[True] * 5, False)
    with pytest.raises(RuntimeError, match="current was not saved"):
        torch.ops.synops.cuba_lif_backward(*back, *[True] * 6)
    with pytest.raises(RuntimeError, match="i0 must have 2 dimensions"):
        torch.ops.synops.cuba_lif(x, None, x, one, one, one, *rule, 0, 1, True, False)
