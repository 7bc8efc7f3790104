"""Modern Hopfield networks (arXiv:2008.02217): examples/modern_hopfield.py."""

import itertools
import math

import pytest
import torch
from example import load

from synops.hebbian import hopfield_retrieve

example = load("modern_hopfield")


@pytest.fixture(scope="module")
def found():
    return example.measure()


def test_entropy_falls_from_that_of_all_patterns_to_that_of_one(found):
    entropies = list(found.entropies.values())
    assert entropies[0] == pytest.approx(math.log(example.PATTERNS), abs=1e-2)
    assert entropies[-1] == pytest.approx(0, abs=1e-3)
    assert all(high >= low for high, low in itertools.pairwise(entropies))
    assert sum(0.5 < h < 6.5 for h in entropies) >= 1


def test_noise(found):
    """Little noise goes in one iteration; of more, more goes in three."""
    assert found.once[0.8] >= 0.99
    assert found.once[2.0] < 0.6
    assert all(found.thrice[n] >= found.once[n] for n in example.NOISES)
    assert found.thrice[1.6] > found.once[1.6] + 0.1


def test_capacity_is_exponential(found):
    """Doublings by at least 2 for every 8 numbers more, all the way; the classical stays near
    .1 d."""
    capacities = list(found.modern.values())
    assert all(large >= 4 * small for small, large in itertools.pairwise(capacities))
    assert found.modern[32] >= 1000 * found.classical[32]
    assert all(count <= 0.14 * size + 2 for size, count in found.classical.items())


def test_energy_falls():
    """No iteration raises it (theorem 1), at any beta."""
    patterns = example.sphere().double()
    states = example.noisy(patterns, 1.5).double()
    for beta in example.BETAS[::3]:
        energy = hopfield_retrieve(states, patterns, beta=beta, steps=10, stats="energy").energy
        assert (energy.diff(dim=0) <= 1e-12).all()
        assert (energy >= -1e-12).all()  # bounded from below by 0
        assert (energy <= 2 * patterns.square().sum(-1).max() + states.square().sum(-1)).all()


def test_stored_patterns_are_fixed_points():
    """At a large beta, and reached in one iteration but for what is exponentially small."""
    patterns = example.sphere()
    found = hopfield_retrieve(patterns, patterns, beta=64.0, steps=5, tolerance=1e-4)
    assert (found.iterations == 1).float().mean() > 0.95
    torch.testing.assert_close(found.output, patterns, rtol=0, atol=1e-3)
