"""Pavlovian attention: what examples/pavlovian_attention.py finds, and what it follows from."""

import pytest
import torch
import torch.nn.functional as F
from example import load

pavlovian = load("pavlovian_attention")


@pytest.fixture(scope="module")
def found():
    return {rule: pavlovian.curves(rule, trials=100) for rule in ("hebb", "delta")}


@pytest.mark.parametrize("d", pavlovian.SIZES)
def test_error_of_hebb_is_n_minus_1_over_d(found, d):
    """Each other pair adds a squared overlap of mean 1 / d and relative variance 2, and 100 trials
    have 50 n (n - 1) of them: four standard deviations."""
    for n, point in zip(pavlovian.NUMBERS, found["hebb"][d], strict=True):
        relative = 4 * (2 / max(1, 50 * n * (n - 1))) ** 0.5
        assert point.error == pytest.approx((n - 1) / d, rel=relative, abs=1e-6)


@pytest.mark.parametrize("d", pavlovian.SIZES)
def test_exact_recall_is_of_the_order_of_sqrt_d(found, d):
    """All right at sqrt(d) / 2 pairs, none at 4 sqrt(d)."""
    exact = dict(zip(pavlovian.NUMBERS, (p.exact for p in found["hebb"][d]), strict=True))
    assert exact[int(d**0.5) // 2] > 0.97
    assert exact[int(d**0.5) * 4] < 0.03


def test_delta_rule_errs_less(found):
    """About .6 of Hebb's error at n = d; always less, and not at all for a single pair."""
    for d in pavlovian.SIZES:
        hebb, delta = found["hebb"][d], found["delta"][d]
        assert all(b.error < a.error for a, b in zip(hebb[1:], delta[1:], strict=True))
        assert delta[0].error < 1e-6
    assert found["delta"][64][-1].error / found["hebb"][64][-1].error == pytest.approx(
        0.6, abs=0.05
    )


def test_answers_are_those_of_the_equations():
    """One trial, written out: S = sum of v k^T, and S + (v - S k) k^T for each pair in turn."""
    n, d = 6, 16
    torch.manual_seed(0)
    keys, values = F.normalize(torch.randn(n, d), dim=-1), torch.randn(n, d).sign()
    hebb, delta = torch.zeros(d, d), torch.zeros(d, d)
    for k, v in zip(keys, values, strict=True):
        hebb += torch.outer(v, k)
        delta += torch.outer(v - delta @ k, k)
    for rule, weight in (("hebb", hebb), ("delta", delta)):
        one = (keys[None, None], keys[None, None], values[None, None])
        got = pavlovian.delta_rule(*one, rule=rule, scale=1.0)
        torch.testing.assert_close(got.state[0, 0], weight.t())
