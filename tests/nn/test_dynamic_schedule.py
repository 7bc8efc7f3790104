"""Rates, densities and who gets them: schedules as in the papers' codes, ERK and uniform."""

import math

import pytest
import torch

from synops._dynamic._arguments import scheduled
from synops._dynamic._density import shared

NOTHING = {
    "initial_density": None,
    "interval": 10,
    "prune_rate": None,
    "begin": 0,
    "end": None,
    "ramp_end": None,
}


def schedule(method, density=0.1, total_steps=1000, **options):
    args = NOTHING | {"total_steps": total_steps} | options
    return scheduled("test", method, density, **args)


class TestErk:
    SHAPES = {"0": (300, 784), "2": (100, 300), "4": (10, 100)}  # noqa: RUF012

    def test_lenet(self):
        """In proportion to (out + in) / (out * in), and a tenth of all together."""
        got = shared("test", self.SHAPES, 0.1, "erk")
        entries = {name: rows * cols for name, (rows, cols) in self.SHAPES.items()}
        total = sum(got[name] * entries[name] for name in got)
        assert total == pytest.approx(0.1 * sum(entries.values()))
        ratios = [got[n] * r * c / (r + c) for n, (r, c) in self.SHAPES.items()]
        assert max(ratios[:2]) == pytest.approx(min(ratios[:2]))
        assert got["4"] == 1  # would be 1.97

    @pytest.mark.parametrize("density", [0.01, 0.1, 0.3, 0.6, 0.9, 0.99, 1.0])
    def test_what_is_dense_is_made_up_for(self, density):
        got = shared("test", self.SHAPES, density, "erk")
        total = sum(got[n] * r * c for n, (r, c) in self.SHAPES.items())
        assert total == pytest.approx(density * sum(r * c for r, c in self.SHAPES.values()))
        assert all(0 < share <= 1 for share in got.values())
        small = sorted(got, key=lambda n: sum(self.SHAPES[n]) / math.prod(self.SHAPES[n]))
        assert [got[n] for n in small] == sorted(got.values())

    def test_uniform(self):
        assert shared("test", self.SHAPES, 0.1, "uniform") == dict.fromkeys(self.SHAPES, 0.1)


class TestRate:
    def test_granet(self):
        """torch's CosineAnnealingLR, which the paper's code steps once a step."""
        weight = torch.nn.Parameter(torch.zeros(1))
        cosine = torch.optim.SGD([weight], lr=0.5)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(cosine, 1000, 0.005)
        got = schedule("granet")
        for step in range(1, 1001):
            cosine.step()
            scheduler.step()
            assert got.rate(step) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-9)

    def test_rigl(self):
        """Falls to 0 at three quarters of the training, where updates end."""
        got = schedule("rigl", None)
        assert got.rate(375) == pytest.approx(0.15)
        assert got.rate(750) == pytest.approx(0)
        assert got.due(750)
        assert not got.due(760)
        assert not got.due(745)

    def test_constant(self):
        got = schedule("set", None, begin=100, end=200)
        assert {got.rate(step) for step in range(1000)} == {0.3}
        assert [step for step in range(1001) if got.due(step)] == list(range(100, 201, 10))
        assert not any(schedule("static", None).due(step) for step in range(1001))

    def test_rounding(self):
        """Up in GraNet's code, down in RigL's."""
        assert schedule("granet", prune_rate=0.5, end=10**9).moving(10, 7) == 4
        assert schedule("set", None, prune_rate=0.5).moving(10, 7) == 3


class TestTarget:
    def test_cubic(self):
        got = schedule("granet", 0.1, ramp_end=800)
        for step in range(0, 1000, 10):
            left = max(0, 1 - step / 800) ** 3
            sparsity = 0.5 + (0.5 - 0.1) * (1 - left)  # as the paper's code has it
            assert got.target(step) == pytest.approx(1 - sparsity)
        assert got.target(1000) == 0.1

    @pytest.mark.parametrize(
        ("interval", "begin", "end"),
        [(60, 0, None), (10, 0, 50), (30, 0, 65), (7, 0, None), (20, 80, 99)],
    )
    def test_is_reached(self, interval, begin, end):
        """Also where updates end before the ramp would, or there is one."""
        got = schedule("gmp", 0.1, total_steps=100, interval=interval, begin=begin, end=end)
        final = max(step for step in range(101) if got.due(step))
        assert got.target(final) == pytest.approx(0.1)

    def test_of_fixed_densities(self):
        assert schedule("rigl").target(500) is None
        assert schedule("gmp", 0.05).target(0) == 1
        assert schedule("gmp", 0.05, initial_density=0.3).target(0) == pytest.approx(0.3)
