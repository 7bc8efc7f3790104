"""Inhibition that is balanced unit by unit (arXiv:2504.12480): examples/ei_reservoir.py."""

import pytest
from example import load

example = load("ei_reservoir")


@pytest.fixture(scope="module")
def found():
    """What the example finds with one network."""
    return {task: comparisons[0] for task, comparisons in example.main(["--seeds", "1"]).items()}


def test_memory_capacity(found):
    """Inhibition that is set unit by unit beats the best balance for all by a tenth, and networks
    far from balance have less memory than a balanced one."""
    capacity = found["memory capacity"]
    best = max(capacity.by_balance.values())
    assert capacity.designed >= 1.1 * best
    assert capacity.adapted >= 1.1 * best
    assert capacity.by_balance[0.0] > 2 * capacity.by_balance[0.5]
    assert capacity.by_balance[0.0] > 2 * capacity.by_balance[-1.0]
    assert max(capacity.by_balance, key=capacity.by_balance.get) <= 0


def test_narma10(found):
    """A series with products over ten steps is followed; one gain for all is better at it."""
    error = found["NARMA-10 error"]
    assert min(error.by_balance.values()) < 0.4
    assert error.designed < 0.65
    assert error.adapted < 0.65
    assert error.by_balance[0.5] > 0.7


def test_narma10_is_the_series():
    u, y = (t[:, 0].double() for t in example.narma10(3, 40))
    u = (u + 1) / 4
    for t in range(10, 39):
        want = 0.3 * y[t - 1] + 0.05 * y[t - 1] * y[t - 10 : t].sum() + 1.5 * u[t - 9] * u[t] + 0.1
        assert y[t] == pytest.approx(float(want), rel=1e-4)


def test_adaptation_comes_to_its_targets():
    reservoir = example.adapted(0, example.uniform(1, 6000))
    rates = reservoir(example.uniform(2)).rates.mean(0)
    before = example.network(0)(example.uniform(2)).rates.mean(0)
    assert (rates - example.TARGET).abs().mean() < 0.02
    assert (rates - example.TARGET).abs().mean() < 0.2 * (before - example.TARGET).abs().mean()


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # theirs: a file
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_laser():
    """The Santa Fe laser, which reservoirpy ships: the next value, by every way."""
    pytest.importorskip("reservoirpy.datasets", reason="make peers installs it")
    found = example.series(0, *example.laser())
    assert min(found.by_balance.values()) < 0.08
    assert found.designed < 0.1
    assert found.adapted < 0.1
