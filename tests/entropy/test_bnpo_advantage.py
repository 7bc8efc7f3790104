"""bnpo_advantage against a loop over samples, as the paper's code goes through them."""

import math
from collections import defaultdict
from statistics import fmean, variance

import pytest
import torch
from no_sync import NoSync

from synops.entropy import bnpo_advantage


def loop(rewards, groups, min_value=0.0, max_value=1.0, max_weight=1e6):
    """In Python's floats, with torch's Beta distribution in float64."""
    scores = [(r - min_value) / (max_value - min_value) for r in rewards.double().tolist()]
    members = defaultdict(list)
    for score, group in zip(scores, groups.tolist(), strict=True):
        members[group].append(score)
    means = {g: fmean(s) if len(s) > 1 else 0.0 for g, s in members.items()}
    mu = fmean(means.values()) if len(means) > 1 else 0.0
    var = variance(means.values()) if len(means) > 1 else 1.0
    alpha = beta = 1.0
    if var > 1e-20:
        nu = mu * (1 - mu) / var - 1
        alpha, beta = max(1 + nu * mu / 3, 1), max(1 + nu * (1 - mu) / 3, 1)
    parameters = (torch.tensor(x, dtype=torch.float64) for x in (alpha, beta))
    density = torch.distributions.Beta(*parameters)
    out = []
    for score, group in zip(scores, groups.tolist(), strict=True):
        p = torch.tensor(means[group], dtype=torch.float64)
        weight = float((1 / density.log_prob(p).exp()).clamp(0, max_weight))
        out.append(weight * (score - float(p)))
    return torch.tensor(out, dtype=torch.float64)


def samples(groups=9, each=16, seed=0):
    """Binary rewards whose probability differs by group, shuffled."""
    g = torch.Generator().manual_seed(seed)
    rate = torch.rand(groups, generator=g).repeat_interleave(each)
    rewards = (torch.rand(groups * each, generator=g) < rate).double()
    order = torch.randperm(groups * each, generator=g)
    names = torch.arange(groups).repeat_interleave(each)
    return rewards[order], names[order]


class TestLoop:
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("shape", [(9, 16), (2, 4), (64, 8), (3, 2)], ids=str)
    def test_binary(self, shape, seed):
        rewards, groups = samples(*shape, seed=seed)
        torch.testing.assert_close(bnpo_advantage(rewards, groups), loop(rewards, groups))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
    def test_is_float32_for_less_than_float64(self, dtype):
        rewards, groups = samples()
        got = bnpo_advantage(rewards.to(dtype), groups)
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), loop(rewards, groups), rtol=1e-6, atol=1e-6)

    def test_rewards_of_any_range(self):
        rewards, groups = 5 * torch.rand(60, dtype=torch.float64) - 2, torch.arange(60) % 7
        options = {"min_value": -2, "max_value": 3}
        want = loop(rewards, groups, **options)
        torch.testing.assert_close(bnpo_advantage(rewards, groups, **options), want)

    def test_group_of_one_has_mean_0(self):
        """And so the weight of p = 0, which only max_weight bounds."""
        rewards = torch.tensor([1.0, 0, 1, 1, 0, 1, 0], dtype=torch.float64)
        groups = torch.tensor([0, 0, 0, 1, 2, 2, 2])
        got = bnpo_advantage(rewards, groups)
        torch.testing.assert_close(got, loop(rewards, groups))
        assert got[3] == 1e6
        got = bnpo_advantage(rewards, groups, max_weight=10)
        torch.testing.assert_close(got, loop(rewards, groups, max_weight=10))
        assert got[3] == 10

    def test_a_single_group_is_reinforce(self):
        rewards = torch.tensor([1.0, 0, 1, 1], dtype=torch.float64)
        got = bnpo_advantage(rewards, torch.full((4,), 7))
        torch.testing.assert_close(got, loop(rewards, torch.zeros(4)))
        torch.testing.assert_close(got, rewards - 0.75)

    @pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
    def test_equal_means_are_reinforce(self, p):
        """Also where their rounding differs: groups of 10 and of 30 with the same share."""
        rewards, groups = [], []
        for group, n in enumerate((10, 30, 10, 30)):
            rewards += [0.1] * n if p == 0.3 else [p] * n
            groups += [group] * n
        rewards, groups = torch.tensor(rewards, dtype=torch.float64), torch.tensor(groups)
        got = bnpo_advantage(rewards, groups)
        torch.testing.assert_close(got, loop(rewards, groups))
        assert got.abs().max() < 1e-12

    def test_groups_all_right_or_all_wrong(self):
        """p of 0 and 1: the density is 0 or infinite, R - p is 0."""
        rewards = torch.tensor([1.0, 1, 0, 0, 1, 0, 1, 1], dtype=torch.float64)
        groups = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
        got = bnpo_advantage(rewards, groups)
        torch.testing.assert_close(got, loop(rewards, groups))
        assert got[[0, 1, 2, 3, 6, 7]].tolist() == [0] * 6


def test_grpo_is_the_beta_of_three_halves():
    """There f is 8 / pi sqrt(p (1 - p)): advantages are those of GRPO without Bessel, by pi / 8."""
    # with mean 1/2, alpha = beta = 1 + nu / 6; nu = 3 makes 1.5, so the variance is 1/16
    p = torch.tensor([0.5, 0.5 + math.sqrt(1 / 16), 0.5 - math.sqrt(1 / 16)], dtype=torch.float64)
    rewards = torch.cat([(torch.arange(8) < 8 * x).double() for x in p])
    groups = torch.arange(3).repeat_interleave(8)
    want = (rewards - p[groups]) / (p * (1 - p)).sqrt()[groups] * math.pi / 8
    torch.testing.assert_close(bnpo_advantage(rewards, groups), want)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8], ids=str)
def test_names_of_groups_are_any_integers(dtype):
    rewards, groups = samples()
    want = bnpo_advantage(rewards, groups)
    assert torch.equal(bnpo_advantage(rewards, 11 * groups.to(dtype)), want)
    assert torch.equal(bnpo_advantage(rewards, 2**62 - 10**15 * groups), want)
    torch.testing.assert_close(bnpo_advantage(rewards, -groups), want)


def test_mask_spreads_over_tokens():
    rewards, groups = samples()
    mask = torch.rand(len(rewards), 5) < 0.5
    want = bnpo_advantage(rewards, groups)
    for kind in (torch.bool, torch.float32, torch.int64):
        got = bnpo_advantage(rewards, groups, mask=mask.to(kind))
        assert torch.equal(got, want[:, None] * mask)


def test_mean_outside_of_0_and_1_is_nan():
    rewards = torch.tensor([1.0, 0, 3, 2, 1, 1])
    got = bnpo_advantage(rewards, torch.tensor([0, 0, 1, 1, 2, 2]))
    assert got.isnan().tolist() == [False, False, True, True, False, False]


def test_empty():
    got = bnpo_advantage(torch.zeros(0), torch.zeros(0, dtype=torch.long), mask=torch.ones(0, 3))
    assert got.shape == (0, 3)
    assert bnpo_advantage(torch.zeros(0), torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_nothing_waits_for_the_device():
    rewards, groups = samples()
    with NoSync():
        bnpo_advantage(rewards, groups, mask=torch.ones(len(rewards), 2))


def test_compiles_whole():
    rewards, groups = samples()
    compiled = torch.compile(bnpo_advantage, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(rewards, groups), bnpo_advantage(rewards, groups))


def test_no_gradient():
    rewards, groups = samples()
    assert not bnpo_advantage(rewards.requires_grad_(), groups).requires_grad


GOOD = {"rewards": torch.zeros(4), "groups": torch.arange(4)}
BAD = {
    "rewards": ({"rewards": [0.0]}, TypeError, "rewards must be a torch.Tensor, got list"),
    "rewards dtype": ({"rewards": torch.arange(4)}, TypeError, "rewards must be float32"),
    "rewards shape": (
        {"rewards": torch.zeros(4, 1)},
        ValueError,
        r"rewards must have shape \(samples,\), got \(4, 1\)",
    ),
    "groups": ({"groups": "abcd"}, TypeError, "groups must be a torch.Tensor, got str"),
    "groups dtype": ({"groups": torch.zeros(4)}, TypeError, "groups must be integers, got float32"),
    "groups shape": ({"groups": torch.arange(3)}, ValueError, r"groups must have shape .*\(3,\)"),
    "groups device": ({"groups": torch.arange(4, device="meta")}, ValueError, "on the device"),
    "mask": ({"mask": True}, TypeError, "mask must be a torch.Tensor, got bool"),
    "mask shape": ({"mask": torch.ones(3, 4)}, ValueError, r"\(samples, tokens\) = \(4, tokens\)"),
    "min_value": ({"min_value": math.inf}, ValueError, "min_value must be finite"),
    "max_value": ({"max_value": 0}, ValueError, r"max_value must be finite and above min_value"),
    "max_weight": ({"max_weight": 0}, ValueError, "max_weight must be above 0, got 0"),
    "a text": ({"max_weight": "1"}, TypeError, "max_weight must be a number, got str"),
    "group": ({"group": 0}, TypeError, "group must be None, True or"),
}


@pytest.mark.parametrize(("change", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input(change, error, message):
    with pytest.raises(error, match=f"^bnpo_advantage: .*{message}"):
        bnpo_advantage(**(GOOD | change))
