"""lif against float64, against plain torch bit for bit, and against what others compute."""

import itertools

import pytest
import torch
from lif_samples import (
    DTYPES,
    NAMES,
    SURROGATES,
    check,
    gradients,
    incoming_for,
    parameters,
    run,
    sample,
)

from synops._library import reference
from synops.spiking import LIF, lif

# Every value of every keyword, in few combinations; the resets are code of their own, each with
# and without a delay.
RULES = [
    {"reset": "subtract", "surrogate": "fast_sigmoid"},
    {"reset": "subtract", "surrogate": "atan", "detach_reset": False},
    {"reset": "subtract", "surrogate": "sigmoid", "delayed_reset": True},
    {
        "reset": "subtract",
        "surrogate": "superspike",
        "delayed_reset": True,
        "detach_reset": False,
        "inclusive": True,
    },
    {"reset": "zero", "surrogate": "boxcar", "inclusive": True},
    {"reset": "zero", "surrogate": "triangle", "detach_reset": False},
    {"reset": "zero", "surrogate": "qgate", "delayed_reset": True},
    {"reset": "zero", "surrogate": "sigmoid", "delayed_reset": True, "detach_reset": False},
    {"reset": "none", "surrogate": "fast_sigmoid"},
]
# With the rule of its number: (T, ..., N)
SHAPES = [
    (6, 3, 17),  # rows of one vector and one neuron
    (5, 2, 3, 5),  # less than a vector
    (1, 2, 64),  # one step
    (4, 1040),  # one neuron past a tile, 16 after it; no batch
    (7, 2, 16),
    (3, 9, 100),  # a tile that begins inside a row
    (6, 1, 1),
    (2, 70, 33),
    (12, 4, 8),
]


def rule_ids(rule):
    return "-".join(str(v) if isinstance(v, str) else k for k, v in rule.items())


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("i", range(len(RULES)), ids=[rule_ids(r) for r in RULES])
def test_reference(i, dtype):
    """Spikes, states and all gradients; parameters of neurons and of all, with v0 and without."""
    check(sample(SHAPES[i], dtype, per_neuron=i % 4 != 3, start=i % 3 != 2, **RULES[i]), dtype)


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_backward_is_autograds_of_the_definition(reset, surrogate):
    """The formulas of the reference's backward, too."""
    for delayed, detach in itertools.product((False, True), repeat=2):
        rule = {"delayed_reset": delayed, "detach_reset": detach, "surrogate": surrogate}
        s = sample((5, 2, 4), torch.float64, reset=reset, **rule)
        incoming = incoming_for(s)
        want = gradients(s, incoming, backend="reference")
        with torch.no_grad():
            membrane = reference("lif")(
                s.input, s.v0, *parameters(s).values(), *numbers(s.rule), 0, 1, False
            )[2]
            found = reference("lif_backward")(
                *incoming, membrane, s.v0, *parameters(s).values(), *numbers(s.rule), 0, *[True] * 4
            )
        for name, g in zip(NAMES, found, strict=True):
            torch.testing.assert_close(g, want[name], rtol=1e-11, atol=1e-12)


def numbers(rule):
    """As the ops take them."""
    return (
        ["subtract", "zero", "none"].index(rule["reset"]),
        rule.get("delayed_reset", False),
        rule.get("inclusive", False),
        rule.get("detach_reset", True),
        SURROGATES.index(rule["surrogate"]),
        rule["slope"],
    )


@pytest.mark.parametrize("rule", RULES, ids=rule_ids)
def test_a_gradient_alone(rule):
    """Of each result alone, to each argument alone: what is not needed is not computed."""
    s = sample((4, 2, 9), torch.float64, **rule)
    incoming = incoming_for(s)
    for i in range(3):
        alone = LIF(*(g if j == i else None for j, g in enumerate(incoming)))
        want = gradients(s, alone, backend="reference")
        for name in NAMES:
            got = gradients(s, alone, (name,))[name]
            torch.testing.assert_close(got, want[name], rtol=1e-11, atol=1e-12)


class TestBits:
    """No rounding is another than torch's, so no spike can be."""

    @pytest.mark.usefixtures("isa")
    @pytest.mark.parametrize("delayed", [False, True])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_of_the_loop(self, dtype, delayed):
        x = torch.randn(50, 4, 100, dtype=dtype)
        beta, threshold = torch.rand(100, dtype=dtype), torch.rand(100, dtype=dtype)
        v, spikes, states = torch.zeros_like(x[0]), [], []
        for x_t in x.unbind(0):
            if delayed:
                v = beta * v + x_t - (v > threshold).to(dtype) * threshold
                s = (v > threshold).to(dtype)
            else:
                u = beta * v + x_t
                s = (u > threshold).to(dtype)
                v = u - s * threshold
            spikes.append(s)
            states.append(v)
        got = lif(x, beta=beta, threshold=threshold, delayed_reset=delayed, record="v")
        assert torch.equal(got.spikes, torch.stack(spikes))
        assert torch.equal(got.trajectory, torch.stack(states))
        assert torch.equal(got.v, v)
        assert 0.2 < got.spikes.mean() < 0.8

    @pytest.mark.parametrize("rule", RULES, ids=rule_ids)
    def test_of_two_calls(self, rule):
        x = torch.randn(11, 3, 40)
        whole = lif(x, beta=0.9, **rule)
        first = lif(x[:4], beta=0.9, **rule)
        second = lif(x[4:], first.v, beta=0.9, **rule)
        assert torch.equal(whole.spikes, torch.cat([first.spikes, second.spikes]))
        assert torch.equal(whole.v, second.v)

    def test_of_threads(self, threads):
        """Parameters' gradients are summed over all neurons."""
        for per_neuron in (False, True):
            here = sample((6, 13, 700), torch.float32, per_neuron=per_neuron).to(torch.float32)
            incoming = incoming_for(here)
            results = []
            for count in (1, 2, 3):
                threads(count)
                results.append((*run(here)[:2], *gradients(here, incoming).values()))
            for other in results[1:]:
                assert all(map(torch.equal, results[0], other))

    def test_recording_and_saving_change_nothing(self):
        x = torch.randn(9, 2, 30)
        plain = lif(x, beta=0.9)
        recorded = lif(x, beta=0.9, record="v")
        saved = lif(x.requires_grad_(), beta=0.9)
        for other in (recorded, saved):
            assert torch.equal(plain.spikes, other.spikes)
            assert torch.equal(plain.v, other.v)
        assert torch.equal(recorded.trajectory[-1], plain.v)


class Step(torch.autograd.Function):
    """A peer's spike: of a shifted membrane, with a surrogate of its own."""

    @staticmethod
    def forward(ctx, d, inclusive, derivative):
        ctx.save_for_backward(d)
        ctx.derivative = derivative
        return (d >= 0 if inclusive else d > 0).to(d.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.derivative(ctx.saved_tensors[0]), None, None


def snntorch_leaky(x, beta, threshold, reset, delay):
    """The update of snnTorch's Leaky as its documentation has it: the reset of a step looks at the
    membrane before it. Surrogate: ATan(alpha=2), its default."""
    atan = lambda d: 1 / (1 + (torch.pi * d).square())  # noqa: E731
    mem, spikes, membranes = torch.zeros_like(x[0]), [], []
    for x_t in x.unbind(0):
        was_above = Step.apply(mem - threshold, False, atan).detach()
        if reset == "subtract":
            mem = beta * mem + x_t - was_above * threshold
        elif reset == "zero":
            mem = beta * ((1 - was_above) * mem) + x_t
        else:
            mem = beta * mem + x_t
        spike = Step.apply(mem - threshold, False, atan)
        if not delay:
            again = spike - was_above
            mem = mem - again * (threshold if reset == "subtract" else mem)
        spikes.append(spike)
        membranes.append(mem)
    return torch.stack(spikes), torch.stack(membranes)


def spikingjelly_lif(x, tau, threshold, hard, decay_input, detach):
    """The update of SpikingJelly's LIFNode: charge, fire, reset. Surrogate: Sigmoid(alpha=4)."""

    def sigmoid(d):
        p = (4 * d).sigmoid()
        return 4 * p * (1 - p)

    v, spikes, states = torch.zeros_like(x[0]), [], []
    for x_t in x.unbind(0):
        v = v + (x_t - v) / tau if decay_input else v * (1 - 1 / tau) + x_t
        spike = Step.apply(v - threshold, True, sigmoid)
        out = spike.detach() if detach else spike
        v = (1 - out) * v if hard else v - out * threshold
        spikes.append(spike)
        states.append(v)
    return torch.stack(spikes), torch.stack(states)


def norse_lif_box(x, tau_mem_inv, dt, threshold):
    """The update of norse's lif_box_feed_forward_step, reset to 0. Surrogate: super, alpha=100."""
    superspike = lambda d: 1 / (100 * d.abs() + 1).square()  # noqa: E731
    v, spikes, states = torch.zeros_like(x[0]), [], []
    for x_t in x.unbind(0):
        v = v + dt * tau_mem_inv * (x_t - v)
        spike = Step.apply(v - threshold, False, superspike)
        v = v - spike * v
        spikes.append(spike)
        states.append(v)
    return torch.stack(spikes), torch.stack(states)


class TestPeers:
    """Their equations in plain torch, float64: the same spikes and gradients. (The packages
    themselves are compared where they are installed.)"""

    def agree(self, theirs, ours, leaves):
        spikes, states = theirs
        assert torch.equal(ours.spikes, spikes)
        assert 0.02 < spikes.mean() < 0.9
        torch.testing.assert_close(ours.trajectory, states, rtol=1e-12, atol=1e-12)
        g, h = torch.randn_like(spikes), torch.randn_like(states)
        want = torch.autograd.grad((spikes, states), leaves, (g, h), retain_graph=True)
        got = torch.autograd.grad((ours.spikes, ours.trajectory), leaves, (g, h))
        for one, other in zip(got, want, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)

    def leaves(self):
        x = (torch.randn(30, 3, 20, dtype=torch.float64) * 0.8 + 0.3).requires_grad_()
        threshold = (0.5 + torch.rand(20, dtype=torch.float64)).requires_grad_()
        return x, threshold

    @pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
    def test_snntorch(self, reset):
        x, threshold = self.leaves()
        beta = torch.rand(20, dtype=torch.float64, requires_grad=True)
        args = {"beta": beta, "threshold": threshold, "reset": reset}
        atan = {"surrogate": "atan", "slope": 2.0, "record": "v"}
        theirs = snntorch_leaky(x, beta, threshold, reset, True)
        self.agree(theirs, lif(x, delayed_reset=True, **args, **atan), (x, beta, threshold))

    def test_snntorch_without_a_delay(self):
        """Its reset goes through the spike, undetached, where the membrane was not above before;
        spikes and states are those of ours."""
        x, threshold = self.leaves()
        with torch.no_grad():
            spikes, states = snntorch_leaky(x, 0.9, threshold, "subtract", False)
            ours = lif(x, beta=0.9, threshold=threshold, record="v")
        above = states > threshold  # after a reset: then it would reset once more
        first = torch.where(above.any(0), above.int().argmax(0), x.shape[0])
        before = torch.arange(x.shape[0])[:, None, None] <= first
        assert torch.equal(ours.spikes[before], spikes[before])
        torch.testing.assert_close(ours.trajectory[before], states[before])
        assert before.float().mean() > 0.3

    @pytest.mark.parametrize("detach", [False, True])
    @pytest.mark.parametrize("decay_input", [False, True])
    @pytest.mark.parametrize("hard", [False, True])
    def test_spikingjelly(self, hard, decay_input, detach):
        x, threshold = self.leaves()
        tau = 2.0
        theirs = spikingjelly_lif(x * 2, tau, threshold, hard, decay_input, detach)
        ours = lif(
            x * 2 / tau if decay_input else x * 2,
            beta=1 - 1 / tau,
            threshold=threshold,
            reset="zero" if hard else "subtract",
            inclusive=True,
            detach_reset=detach,
            surrogate="sigmoid",
            slope=4,
            record="v",
        )
        self.agree(theirs, ours, (x, threshold))

    def test_norse(self):
        x, threshold = self.leaves()
        theirs = norse_lif_box(x * 4, 200.0, 1e-3, threshold)
        ours = lif(
            x * 4 * 0.2,
            beta=0.8,
            threshold=threshold,
            reset="zero",
            detach_reset=False,
            surrogate="superspike",
            slope=100,
            record="v",
        )
        self.agree(theirs, ours, (x, threshold))


@pytest.mark.triton
@pytest.mark.parametrize("i", range(len(RULES)), ids=[rule_ids(r) for r in RULES])
def test_triton(i):
    """Every rule, each in another type; blocks of 256 neurons."""
    shape = (3, 2, 150) if i % 2 else (5, 3, 20)
    dtype = DTYPES[i % 4]
    s = sample(shape, dtype, per_neuron=i % 4 != 3, start=i % 3 != 2, **RULES[i])
    check(s, dtype, trajectory=i % 2 == 0, backend="triton")


@pytest.mark.triton
def test_triton_edges():
    """No steps, no neurons, one gradient alone, rows apart."""
    v0 = torch.randn(2, 5)
    got = lif(torch.zeros(0, 2, 5), v0, beta=0.5, backend="triton")
    assert torch.equal(got.v, v0)
    assert lif(torch.zeros(3, 0, 5), beta=0.5, backend="triton").spikes.shape == (3, 0, 5)
    s = sample((4, 2, 9), torch.float64)
    incoming = incoming_for(s)._replace(v=None, trajectory=None)
    want = gradients(s, incoming, ("v0",), backend="reference")["v0"]
    torch.testing.assert_close(gradients(s, incoming, ("v0",), backend="triton")["v0"], want)
    x = torch.randn(3, 7, 10).transpose(0, 1)
    assert torch.equal(
        lif(x, beta=0.9, backend="triton").spikes, lif(x, beta=0.9, backend="reference").spikes
    )
