"""leaky_rnn against float64, against the loop that people write, and the same bits in any form."""

import pytest
import torch
import torch.nn.functional as F
from leaky_rnn_samples import DTYPES, NAMES, check, gradients, incoming_for, run, sample

from synops import _chunks
from synops._library import reference
from synops.spiking import LeakyRNN, leaky_rnn

ACTIVATIONS = ("leaky_relu", "relu", "tanh", "identity")
# With the rule of its number: (T, ..., N)
SHAPES = [
    (4, 7, 17),  # a group of rows and one; a vector and one
    (3, 1, 5),  # one row, less than a vector
    (1, 6, 64),  # one step, one group, one panel of AVX-512
    (3, 13, 100),  # a panel of which some vectors are empty
    (5, 2, 3, 33),  # a batch of two dimensions; one column in a panel of float64
    (2, 9, 130),  # two columns past two panels
    (6, 8),  # no batch
    (5, 70, 9),  # more rows than a block of the weight's gradient takes (256)
]
RULES = [{"activation": a, "nonlinearity": n} for n in ("outer", "inner") for a in ACTIVATIONS]


def rule_id(rule):
    return "-".join(map(str, rule.values()))


def options_of(i):
    """bias, h0, tau for all and a diagonal, each in some of the combinations."""
    return {
        "bias": i % 3 != 1,
        "start": i % 4 != 3,
        "per_neuron": i % 5 != 2,
        "zero_diagonal": i % 3 != 2,
    }


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("i", range(len(RULES)), ids=map(rule_id, RULES))
def test_reference(i, dtype):
    check(sample(SHAPES[i], dtype, **RULES[i], **options_of(i)), dtype)


def loop(s, backend=None):
    """As the code of the paper has it, step by step, for a bias and an h0."""
    tau = s.tau.clamp(min=1)
    weight = s.weight * (1 - torch.eye(s.weight.shape[0], dtype=s.weight.dtype))
    f = {
        "leaky_relu": lambda v: F.leaky_relu(v, s.rule["negative_slope"]),
        "relu": torch.relu,
        "tanh": torch.tanh,
        "identity": lambda v: v,
    }[s.rule["activation"]]
    h, states = s.h0, []
    for x in s.input.unbind(0):
        z = F.linear(h, weight, s.bias) + x
        if s.rule["nonlinearity"] == "outer":
            h = f((1 - 1 / tau) * h + z / tau)
        else:
            h = (1 - 1 / tau) * h + f(z) / tau
        states.append(h)
    return LeakyRNN(torch.stack(states), h)


@pytest.mark.parametrize("rule", RULES, ids=rule_id)
def test_is_the_loop(rule):
    """States and autograd's gradients, in float64."""
    s = sample((7, 5, 20), **rule, negative_slope=0.2)
    for one, other in zip(run(s), loop(s), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)
    incoming = incoming_for(s)
    got, want = gradients(s, incoming), gradients(s, incoming, call=loop)
    for name in NAMES:
        torch.testing.assert_close(got[name], want[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rule", RULES, ids=rule_id)
def test_backward_is_autograds_of_the_definition(rule):
    """The formulas of the reference's backward, too; each gradient alone, of each result alone."""
    s = sample((4, 3, 6), **rule)
    numbers = (
        ["identity", "relu", "leaky_relu", "tanh"].index(rule["activation"]),
        0.01,
        rule["nonlinearity"] == "inner",
        True,
    )
    rate = s.tau.clamp(min=1).reciprocal()
    both = incoming_for(s)
    states, _, drive = reference("leaky_rnn")(s.input, s.weight, s.bias, s.h0, rate, *numbers, True)
    for incoming in (both, LeakyRNN(both.states, None), LeakyRNN(None, both.h)):
        want = gradients(s, incoming, backend="reference")
        found = reference("leaky_rnn_backward")(
            *incoming, states, drive, s.weight, s.h0, rate, *numbers, 0, *[True] * 5
        )
        of_tau = -found[4] * rate.square() * (s.tau >= 1)
        for name, g in zip(NAMES, (*found[:4], of_tau), strict=True):
            torch.testing.assert_close(g, want[name], rtol=1e-11, atol=1e-12)
            alone = gradients(s, incoming, (name,))[name]
            torch.testing.assert_close(alone, want[name], rtol=1e-11, atol=1e-12)


class TestBits:
    @pytest.mark.parametrize("rule", RULES[:5:2] + RULES[6:7], ids=rule_id)
    def test_of_two_calls(self, rule):
        s = sample((9, 7, 40), torch.float32, **rule).to(torch.float32)
        whole = run(s)
        first = run(s._replace(input=s.input[:4]))
        second = run(s._replace(input=s.input[4:], h0=first.h))
        assert torch.equal(whole.states, torch.cat([first.states, second.states]))
        assert torch.equal(whole.h, second.h)
        assert torch.equal(whole.h, whole.states[-1])

    @pytest.mark.usefixtures("isa")
    def test_of_threads(self, threads):
        for rows, per_neuron in ((27, False), (5, True)):  # groups of six rows, and of three
            s = sample((9, rows, 90), torch.float32, per_neuron=per_neuron).to(torch.float32)
            incoming, results = incoming_for(s), []
            for count in (1, 2, 3, 7):
                threads(count)
                results.append((*run(s), *gradients(s, incoming).values()))
            for other in results[1:]:
                assert all(map(torch.equal, results[0], other))

    def test_of_pieces(self, monkeypatch):
        """Long runs, with a gradient and without; the caller's tensors stay as they are."""
        s = sample((9, 5, 12), torch.float32).to(torch.float32)
        incoming = incoming_for(s)
        before = [t.clone() for t in s[:5]]
        whole, of_whole = run(s), gradients(s, incoming)
        monkeypatch.setattr(_chunks, "_NANOSECONDS", 500)
        in_pieces, of_pieces = run(s), gradients(s, incoming)
        assert all(map(torch.equal, whole, in_pieces))
        for name in ("input", "h0"):
            assert torch.equal(of_whole[name], of_pieces[name])
        for name in NAMES:  # sums over time are cut
            torch.testing.assert_close(of_whole[name], of_pieces[name])
        assert all(map(torch.equal, before, s[:5]))
        half = s._replace(input=s.input.half(), h0=None)
        assert torch.equal(run(half).states[:3], run(half._replace(input=half.input[:3])).states)

    def test_saving_changes_nothing(self):
        s = sample((5, 3, 12), torch.float32).to(torch.float32)
        plain = run(s)
        for name in NAMES:
            saved = run(s._replace(**{name: getattr(s, name).clone().requires_grad_()}))
            assert all(map(torch.equal, plain, saved))


class TestDiagonal:
    @pytest.mark.usefixtures("isa")
    def test_is_not_read(self):
        s = sample((4, 7, 70), torch.float32).to(torch.float32)
        here = s._replace(weight=s.weight.clone().fill_diagonal_(torch.nan))
        incoming = incoming_for(s)
        assert torch.equal(run(here).states, run(s).states)
        got, want = gradients(here, incoming), gradients(s, incoming)
        for name in NAMES:
            assert torch.equal(got[name], want[name])
        assert not got["weight"].diagonal().any()

    def test_counts_if_asked_for(self):
        s = sample((4, 2, 6), zero_diagonal=False)
        none = s._replace(weight=s.weight.clone().fill_diagonal_(0))
        assert not torch.equal(run(s).states, run(none).states)
        assert gradients(s, incoming_for(s))["weight"].diagonal().all()


def test_tau_below_1_counts_as_1():
    s = sample((4, 3, 6))
    tau = torch.tensor([-2.0, 0.0, 0.5, 1.0, 1.5, 3.0], dtype=torch.float64)
    clamped = s._replace(tau=tau.clamp(min=1))
    s = s._replace(tau=tau)
    assert torch.equal(run(s).states, run(clamped).states)
    of_tau = gradients(s, incoming_for(s))["tau"]
    assert not of_tau[:3].any()
    assert of_tau[3:].all()


@pytest.mark.triton
@pytest.mark.parametrize("i", range(len(RULES)), ids=map(rule_id, RULES))
def test_triton(i):
    """Every rule, each in another type; tiles of 32 rows and 64 neurons."""
    shape = (2, 35, 70) if i == 5 else (3, 2, 3, 20) if i % 2 else (3, 5, 33)
    dtype = DTYPES[i % 4]
    s = sample(shape, dtype, **RULES[i], **options_of(i))
    check(s, dtype, backend="triton")


@pytest.mark.triton
def test_triton_edges(monkeypatch):
    """No steps, no neurons, one gradient alone, one number for all, pieces."""
    w = torch.randn(5, 5)
    h0 = torch.randn(2, 5)
    got = leaky_rnn(torch.zeros(0, 2, 5), w, None, h0, tau=2.0, backend="triton")
    assert torch.equal(got.h, h0)
    nothing = leaky_rnn(torch.zeros(3, 2, 0), torch.zeros(0, 0), tau=2.0, backend="triton")
    assert nothing.states.shape == (3, 2, 0)
    s = sample((3, 2, 5))
    incoming = LeakyRNN(None, incoming_for(s).h)
    want = gradients(s, incoming, ("h0",), backend="reference")["h0"]
    torch.testing.assert_close(gradients(s, incoming, ("h0",), backend="triton")["h0"], want)
    x = torch.randn(4, 3, 1)
    whole = leaky_rnn(x, w, tau=2.0, backend="triton")
    torch.testing.assert_close(whole, leaky_rnn(x, w, tau=2.0, backend="reference"))
    monkeypatch.setattr(_chunks, "_NANOSECONDS", 1)
    pieces = leaky_rnn(x, w, tau=2.0, backend="triton")
    assert all(map(torch.equal, whole, pieces))
