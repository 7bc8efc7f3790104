"""The what / when reservoir (arXiv:2510.14382): times of events within 30 ms, the frequent one's
also after the delays are swapped; the likelier event has the higher peak."""

import pytest
from example import load

what_when = load("what_when")


@pytest.mark.usefixtures("isa")
def test_times_and_a_swap():
    """Rounding differs between instruction sets and the reservoir is chaotic: three systems. After
    the swap cue B has seen its event ten times in 100 trials, which does not always do."""
    system = what_when.WhatWhen(seed=1)
    before = system.look()
    assert max(map(abs, before.height)) < 1e-3  # it knows nothing
    system.learn(200)
    found = system.look()
    assert max(map(abs, found.late)) < 30
    assert found.height[0] > 2 * found.height[1] > 0
    assert found.height[0] > 0.1
    swapped = what_when.DELAYS[::-1]
    assert max(map(abs, system.look(swapped).late)) > 200
    system.learn(100, swapped)
    assert abs(system.look(swapped).late[0]) < 30
