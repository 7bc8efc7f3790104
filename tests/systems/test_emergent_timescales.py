"""Khajehabdollahi et al., emergent timescales: N-parity by the curriculum of examples/parity.py."""

import pytest
import torch
import torch.nn.functional as F
from example import load

from synops.spiking import LeakyRNN

parity = load("parity")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def official(x, weight, bias, h0, *, tau):
    """The equation of the paper's code, step by step: the diagonal has no part in it, and a time
    constant is at least 1 (arXiv:2309.12927)."""
    weight = weight - torch.diag(weight.diagonal())
    tau, h, states = tau.clamp(min=1), h0, []
    for x_t in x.unbind(0):
        h = F.leaky_relu((1 - 1 / tau) * h + (F.linear(h, weight, bias) + x_t) / tau, 0.01)
        states.append(h)
    return LeakyRNN(torch.stack(states), h)


def networks(neurons):
    """The same one with both."""
    torch.manual_seed(1)
    ours = parity.Network(neurons, most=4)
    theirs = parity.Network(neurons, most=4, recurrent=official)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def test_sequences():
    """Lengths are n + 2 to 4 n + 1, and a parity is of the last n bits."""
    lengths = {parity.sequences(3, 1).shape[0] for _ in range(300)}
    assert lengths == set(range(5, 14))
    bits = torch.tensor([[1, 1, 0, 1], [0, 0, 1, 1]]).t().float()
    assert parity.parities(bits, [2, 3]).tolist() == [[1, 0], [0, 0]]


def test_states_are_those_of_the_equation():
    """500 neurons and 40 steps, in float64 and, within roundings of their sums, in float32."""
    ours, _ = networks(500)
    bits = torch.randint(2, (40, 8)).float()
    args = [ours.project(bits[..., None]), ours.recurrent.weight, ours.recurrent.bias]
    args = [t.detach() for t in (*args, 0.1 * torch.rand(8, 500), 0.5 + ours.tau)]
    for dtype, tolerance in ((torch.float64, 1e-14), (torch.float32, 2e-6)):
        *given, tau = (t.to(dtype) for t in args)
        got = ours.run(*given, tau=tau).states.double()
        want = official(*(t.double() for t in given), tau=tau.double()).states
        assert (got - want).abs().max() < tolerance * want.abs().max()


def test_training_is_that_of_the_loop():
    """20 steps of SGD from the same start: the same losses and weights."""
    courses = []
    for network in networks(60):
        torch.manual_seed(2)
        optimizer = parity.optimizer_of(network)
        losses = [parity.train_step(network, optimizer, 4, [2, 3, 4]) for _ in range(20)]
        courses.append((torch.stack(losses), network.state_dict()))
    (ours, our_state), (theirs, their_state) = courses
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    for name, weight in their_state.items():
        torch.testing.assert_close(our_state[name], weight, rtol=1e-4, atol=1e-5)


def test_the_curriculum_learns_parity():
    """100 neurons get to N = 3 in some hundred steps, as 500 get to 5 in 3600 (the example)."""
    torch.manual_seed(0)
    network = parity.Network(100, 3)
    stages = parity.curriculum(network, 3, steps=100, tests=10, epochs=20)
    assert [stage.n for stage in stages] == [2, 3]
    assert all(min(stage.accuracy) > 0.98 for stage in stages)
    assert len(stages[-1].accuracy) == 2
    single = parity.curriculum(network, 2, single=True, steps=0, tests=10, epochs=1)
    assert min(single[0].accuracy) > 0.98  # with the head of before


def test_a_curriculum_that_fails_says_how_far_it_came():
    network = parity.Network(8, 3)
    assert parity.curriculum(network, 3, steps=1, tests=2, epochs=1) == []


def test_the_example_prints(capsys):
    pytest.importorskip("rich")
    stages = parity.main(["--most", "2", "--neurons", "80", "--steps", "100"])
    assert [stage.n for stage in stages] == [2]
    out = capsys.readouterr().out
    for part in ("epoch 1", "mean tau", "learned"):
        assert part in out
