"""Hao et al., STEER: entropy changes against those of real steps, and what the weights do."""

import pytest
import torch
from bandit import train

from synops.entropy import policy_loss
from synops.entropy._steer import estimated_change, exact_change

TOKENS, LR = 400, 1e-7  # a step so short that what is left is its first order


def steps(classes):
    """{which: change of entropy} of a gradient step on each of many softmaxes over ``classes``."""
    g = torch.Generator().manual_seed(0)
    spread = 0.5 + 3 * torch.rand(TOKENS, 1, generator=g, dtype=torch.float64)
    logits = spread * torch.randn(TOKENS, classes, generator=g, dtype=torch.float64)
    logits.requires_grad_()
    logp = logits.log_softmax(1)
    label = torch.multinomial(logp.detach().exp(), 1, generator=g)
    logprob = logp.gather(1, label).T  # (1, tokens)
    old = logprob.detach() + 0.1 * torch.randn(1, TOKENS, generator=g, dtype=torch.float64)
    advantages = torch.randn(1, TOKENS, generator=g, dtype=torch.float64)
    mask = torch.ones(1, TOKENS, dtype=torch.bool)
    free = {"clip_low": torch.inf, "clip_high": torch.inf, "dual_clip": torch.inf}
    loss, _ = policy_loss(logprob, old, advantages, mask, reduction="seq-mean-token-sum", **free)
    (grad,) = torch.autograd.grad(loss, logits)

    p, logp, logprob = logp.detach().exp(), logp.detach(), logprob.detach()
    after = (logits.detach() - LR * grad).log_softmax(1)
    entropy = -(p * logp).sum(1)
    true = (-(after.exp() * after).sum(1) - entropy) / -LR
    collision, plogp2 = p.square().sum(1), (p.square() * logp).sum(1)
    ratio = (logprob - old).exp()
    exact = exact_change(logprob, ratio, advantages, entropy, collision, plogp2)[0]
    return {
        "true": true,
        "exact": exact,
        "estimated": estimated_change(logprob, old, advantages, entropy)[0],
    }


def correlation(a, b):
    return float(torch.corrcoef(torch.stack((a, b)))[0, 1])


@pytest.mark.parametrize("classes", [64, 1000, 8000])
def test_exact_change_is_that_of_the_step(classes):
    """Correlation and slope are 1; the paper's estimate correlates by .64, .54 and .44."""
    found = steps(classes)
    true, exact = found["true"], found["exact"]
    assert correlation(true, exact) > 0.999999
    assert abs(float((true * exact).sum() / exact.square().sum()) - 1) < 1e-4
    torch.testing.assert_close(exact, true, rtol=1e-3, atol=1e-6)
    assert 0.4 < correlation(true, found["estimated"]) < 0.7


@pytest.fixture(scope="module")
def courses():
    """{method: entropies, (seeds, steps)}."""
    found = train("PPO", "STEER", "STEER, exact")
    return {m: torch.stack([course.entropy for course in found[m]]) for m in found}


@pytest.mark.parametrize("method", ["STEER", "STEER, exact"])
def test_steer_slows_the_fall(courses, method):
    """Weights from .2 to 1: after 100 steps 1.6 to 2 times PPO's entropy, at the end 1.3 to 1.8."""
    vanilla, kept = courses["PPO"], courses[method]
    assert torch.equal(vanilla[:, 0], kept[:, 0])
    assert (kept.mean(1) > 1.1 * vanilla.mean(1)).all()
    assert (kept[:, [100, -1]] > 1.2 * vanilla[:, [100, -1]]).all()
