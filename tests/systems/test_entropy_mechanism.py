"""Cui et al., The Entropy Mechanism of RL: its claims about entropy, on a bandit."""

import pytest
import torch
from bandit import SEEDS, train
from example import load


@pytest.fixture(scope="module")
def courses():
    return train("PPO", "Clip-Cov", "KL-Cov")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("method", ["Clip-Cov", "KL-Cov"])
def test_selection_keeps_entropy(courses, method, seed):
    """4.7 to 6.4 times that of PPO at the end, from the same start."""
    vanilla, kept = courses["PPO"][seed].entropy, courses[method][seed].entropy
    assert vanilla[0] == kept[0]
    assert kept[-1] > 2 * vanilla[-1]


@pytest.mark.parametrize("seed", SEEDS)
def test_entropy_falls_with_the_covariance(courses, seed):
    """In windows of 5 steps: that of one is drawn from 16 arms a context, and noisy."""
    course = courses["PPO"][seed]
    fall = course.entropy.diff()[:195].view(39, 5).mean(1)
    covariance = course.covariance[:195].view(39, 5).mean(1)
    assert (covariance > 0).float().mean() > 0.9
    assert torch.corrcoef(torch.stack((covariance, fall)))[0, 1] < -0.9


@pytest.mark.parametrize("seed", SEEDS)
def test_reward_is_paid_with_entropy(courses, seed):
    """R = -a e^H + b, with a above 0: b is the reward left to gain at entropy 0, and a."""
    course = courses["PPO"][seed]
    x = torch.stack((-course.entropy.exp(), torch.ones_like(course.entropy)), 1)
    fit = torch.linalg.lstsq(x, course.reward[:, None]).solution
    left = (course.reward - (x @ fit)[:, 0]).var() / course.reward.var()
    assert 1 - left > 0.85
    assert fit[0] > 0
    assert 0.4 < fit[1] < 0.5


def test_no_method_finds_the_best_arm(courses):
    """It pays .95, and the draws of 200 steps come too late to it; entropy alone is no reward."""
    for found in courses.values():
        assert all(0.38 < course.reward[-1] < 0.5 for course in found)
    assert all(course.reward[0] < 0.26 for course in courses["PPO"])


def test_the_example_prints_and_plots(tmp_path, capsys):
    pytest.importorskip("rich")
    pytest.importorskip("matplotlib")
    file = tmp_path / "bandit.png"
    found = load("entropy_bandit").main(["--steps", "12", "--seeds", "2", "--out", str(file)])
    assert [len(courses) for courses in found.values()] == [2] * 5
    out = capsys.readouterr().out
    for heading in ("method", "Clip-Cov", "STEER, exact", "step 11", "plot:"):
        assert heading in out
    assert file.stat().st_size > 20_000  # an empty figure has 5000
