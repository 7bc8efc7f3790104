"""policy_loss: PPO, and the losses that keep a policy's entropy: Clip-Cov, KL-Cov, STEER."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from .._check import fail
from ._covariance_select import check_selection, clip_cov, covariance, kl_cov
from ._steer import estimated_change, exact_change, weights
from ._tokens import (
    bits_of,
    check_choice,
    check_generator,
    check_group,
    check_number,
    check_tokens,
    padded,
    sum_dtype,
)


class PolicyMetrics(NamedTuple):
    """Means over the valid tokens of this process, 0-dimensional, without gradient."""

    clip_fraction: Tensor  # of tokens where the clipped ratio made the loss larger
    dual_clip_fraction: Tensor  # of tokens with A < 0 where dual clip made it smaller
    selected_fraction: Tensor  # of tokens that Clip-Cov dropped or KL-Cov held back
    approx_kl: Tensor  # mean of old_logprob - logprob
    abs_kl: Tensor  # mean of |logprob - old_logprob|
    covariance: Tensor  # of advantage and log-probability: what entropy falls by
    weight: Tensor  # of STEER; 1 for the rest


class _Default(NamedTuple):
    """What the code of a paper runs with."""

    clip_low: float
    clip_high: float
    dual_clip: float
    limit: float  # of the difference of log-probabilities


_STEER = _Default(0.2, 0.28, 10.0, 20.0)
_DEFAULTS = {
    "ppo": _Default(0.2, 0.2, 3.0, 20.0),
    "clip_cov": _Default(1.0, 1.0, math.inf, math.inf),
    "kl_cov": _Default(math.inf, math.inf, math.inf, math.inf),
    "steer": _STEER,
    "steer_exact": _STEER,
}
_STATISTICS = {"steer": ("entropy",), "steer_exact": ("entropy", "collision", "plogp2")}
_REDUCTIONS = (
    "token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm",
)  # fmt: skip


def policy_loss(
    logprob: Tensor,
    old_logprob: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    kind: str = "ppo",
    entropy: Tensor | None = None,
    collision: Tensor | None = None,
    plogp2: Tensor | None = None,
    clip_low: float | None = None,
    clip_high: float | None = None,
    dual_clip: float | None = None,
    ratio: float = 2e-4,
    lower: float = 1.0,
    upper: float = 5.0,
    kl_percent: float = 0.2,
    kl_coef: float = 1.0,
    weighting: str = "linear",
    lambda_min: float = 0.8,
    lambda_max: float = 1.2,
    reduction: str = "token-mean",
    generator: torch.Generator | None = None,
    group: dist.ProcessGroup | bool | None = None,
) -> tuple[Tensor, PolicyMetrics]:
    r"""Loss of a policy gradient step, with the numbers that the papers' own code gives.

    With :math:`r = \pi / \pi_{old}` and L the PPO loss of a token,

    .. math:: L = \max(-A r,\; -A\,\mathrm{clip}(r, 1 - \epsilon_{low}, 1 + \epsilon_{high})),
        \quad L \leftarrow \min(L, -A c) \text{ where } A < 0

    - ``"ppo"``: L, with dual clip c.
    - ``"clip_cov"``: L, and 0 for tokens that :func:`covariance_select` draws (Clip-Cov) from those
      not clipped.
    - ``"kl_cov"``: L, and ``+ kl_coef * |log r|`` for those that it takes (KL-Cov).
    - ``"steer"``: :math:`\lambda L` with a weight that falls with
      :math:`|\Omega|, \Omega = A / \pi_{old}\; \pi (1 - \pi)(\log\pi + H)` (both
      probabilities at least 1e-8).
    - ``"steer_exact"``: the same with the exact change of entropy to the first order,
      :math:`\Omega^* = A r\,[\pi (\log\pi + H) - (T_2 + H S_2)]`.

    =============  ========  =========  =========  ==========
    default of     clip_low  clip_high  dual_clip  \|log r\|
    =============  ========  =========  =========  ==========
    ppo            .2        .2         3          <= 20
    clip_cov       1         1          inf
    kl_cov         inf       inf        inf
    steer (both)   .2        .28        10         <= 20
    =============  ========  =========  =========  ==========

    Args:
        logprob: ``(..., tokens)``, log-probabilities of the tokens under the policy, in nats.
            float32, float64, bfloat16 or float16; all is computed in float32 (float64 if an
            argument is).
        old_logprob, advantages: of that shape; any of these dtypes. No gradient reaches them.
        mask: of that shape, bool or numbers: a token counts where it is above 0. What is under the
            rest is never read, and gets gradient 0.
        entropy: of that shape, H of the policy in nats; STEER needs it.
        collision, plogp2: of that shape, :math:`S_2 = \sum p^2` and
            :math:`T_2 = \sum p^2 \log p`; ``"steer_exact"`` needs them.
        clip_low, clip_high: at least 0, inf for no clipping; None is the default above.
        dual_clip: c, above 1, inf for none; None is the default above.
        ratio, lower, upper: of Clip-Cov, as in :func:`covariance_select`.
        kl_percent, kl_coef: of KL-Cov: ``percent`` there, and at least 0.
        weighting: of STEER. "linear": :math:`\lambda` from ``lambda_max`` at the smallest
            :math:`|\Omega|` to ``lambda_min`` at the largest. "exp":
            :math:`\exp(-k |\Omega|)` from 1 to ``lambda_min`` at the largest (or .02, if it is
            below).
        lambda_min, lambda_max: above 0 (at most 1 for "exp"), and at least ``lambda_min``.
        reduction: "token-mean", the mean over all tokens; "seq-mean-token-sum" and
            "seq-mean-token-mean", the mean over sequences (the last axis) of their sum or mean;
            "seq-mean-token-sum-norm", the sum over the length of that axis. A sequence without
            tokens is 0.
        generator: as in :func:`covariance_select`.
        group: as there: Clip-Cov and KL-Cov choose, and STEER looks for the largest change, among
            the tokens of all processes. The loss and the metrics are of this process.

    Returns:
        The loss, 0-dimensional, float32 or float64, and :class:`PolicyMetrics`. The gradient is
        that of ``logprob`` in the ratios; none passes through choices and weights.

    Raises:
        TypeError: not a tensor, a number, a generator or a group where one belongs.
        ValueError: a shape, device, name or number does not fit, or a statistic is missing.

    Source: J. Schulman et al., arXiv:1707.06347; D. Ye et al. (dual clip), arXiv:1912.09729; G. Cui
    et al. (Clip-Cov, KL-Cov), arXiv:2505.22617; Z. Hao et al. (STEER), arXiv:2510.10150. Defaults
    of verl, github.com/PRIME-RL/Entropy-Mechanism-of-RL and github.com/zz-haooo/STEER.
    """
    op = "policy_loss"
    check_choice(op, "kind", kind, tuple(_DEFAULTS))
    default = _DEFAULTS[kind]
    clip_low = default.clip_low if clip_low is None else clip_low
    clip_high = default.clip_high if clip_high is None else clip_high
    dual_clip = default.dual_clip if dual_clip is None else dual_clip
    statistics = {"entropy": entropy, "collision": collision, "plogp2": plogp2}
    given = {name: value for name, value in statistics.items() if value is not None}
    check_tokens(op, logprob, mask, old_logprob=old_logprob, advantages=advantages, **given)
    for name in _STATISTICS.get(kind, ()):
        if name not in given:
            fail(ValueError, op, name, f"be given for kind={kind!r}", None)
    _check_numbers(op, clip_low, clip_high, dual_clip, kl_coef)
    _check_weights(op, weighting, lambda_min, lambda_max)
    check_selection(op, ratio, lower, upper, kl_percent=kl_percent)
    check_choice(op, "reduction", reduction, _REDUCTIONS)
    check_generator(op, generator, logprob)
    world = check_group(op, group)

    valid = mask > 0
    dtype = sum_dtype(logprob, old_logprob, advantages, *given.values())
    bits = bits_of(valid, dtype)
    difference = torch.where(valid, logprob.to(dtype) - old_logprob.detach().to(dtype), 0.0)
    logprob, old_logprob, advantages = (
        padded(value, bits) for value in (logprob, old_logprob, advantages)
    )
    if default.limit < math.inf:
        difference = difference.clamp(-default.limit, default.limit)
    r, cost = difference.exp(), -advantages
    plain, bounded = cost * r, cost * r.clamp(1 - clip_low, 1 + clip_high)
    loss = torch.maximum(plain, bounded)
    clipped = bounded > plain
    held = selected = weight = None
    if dual_clip < math.inf:
        ceiling = cost.clamp(min=0) * dual_clip  # 0 for A >= 0, where the loss is at most 0
        held = loss > ceiling
        loss = torch.minimum(loss, ceiling)

    cov, n = covariance(logprob, advantages, bits, world)
    if kind == "clip_cov":
        free = valid & ~clipped
        selected = clip_cov(cov, n, free, ratio, lower, upper, generator, world)
        loss = loss * ~selected
    elif kind == "kl_cov":
        selected = kl_cov(cov, n, valid, kl_percent, world)
        loss = loss + kl_coef * torch.where(selected, difference.abs(), 0.0)
    elif kind in _STATISTICS:
        stats = {name: padded(given[name], bits) for name in _STATISTICS[kind]}
        if kind == "steer":
            change = estimated_change(logprob, old_logprob, advantages, **stats)
        else:
            change = exact_change(logprob, r.detach(), advantages, **stats)
        weight = weights(change, valid, weighting, lambda_min, lambda_max, world)
        loss = loss * weight

    with torch.no_grad():
        tokens = bits.count_nonzero()  # of this process; n is of all
        some, tokens = tokens.clamp(max=1).to(dtype), tokens.clamp(min=1).to(dtype)

        def fraction(chosen: Tensor | None) -> Tensor:
            return (0 * some if chosen is None else chosen.count_nonzero()) / tokens

        metrics = PolicyMetrics(
            clip_fraction=fraction(clipped),
            dual_clip_fraction=fraction(held),
            selected_fraction=fraction(selected),
            approx_kl=-difference.sum() / tokens,
            abs_kl=difference.abs().sum() / tokens,
            covariance=cov.sum() / tokens,
            weight=some if weight is None else padded(weight, bits).sum() / tokens,
        )
    return _reduce(loss, bits, reduction), metrics


def _reduce(loss: Tensor, bits: Tensor, reduction: str) -> Tensor:
    """As verl's agg_loss; ``loss`` is 0 where not valid."""
    if reduction == "token-mean":
        return loss.sum() / bits.count_nonzero().clamp(min=1)
    if reduction == "seq-mean-token-sum-norm":
        return loss.sum() / max(loss.shape[-1], 1)
    sums = loss.sum(-1)
    if reduction == "seq-mean-token-mean":
        sums = sums / bits.count_nonzero(-1).clamp(min=1)
    return sums.sum() / max(sums.numel(), 1)


def _check_numbers(
    op: str, clip_low: float, clip_high: float, dual_clip: float, kl_coef: float
) -> None:
    for name, value in (("clip_low", clip_low), ("clip_high", clip_high)):
        check_number(op, name, value, "be at least 0", lambda x: x >= 0)
    check_number(op, "dual_clip", dual_clip, "be above 1", lambda x: x > 1)
    check_number(op, "kl_coef", kl_coef, "be at least 0 and finite", lambda x: 0 <= x < math.inf)


def _check_weights(op: str, weighting: str, lambda_min: float, lambda_max: float) -> None:
    check_choice(op, "weighting", weighting, ("linear", "exp"))
    if weighting == "exp":
        check_number(op, "lambda_min", lambda_min, "be in (0, 1]", lambda x: 0 < x <= 1)
        return
    check_number(op, "lambda_min", lambda_min, "be above 0", lambda x: 0 < x < math.inf)
    rule = f"be finite and at least lambda_min ({lambda_min})"
    check_number(op, "lambda_max", lambda_max, rule, lambda x: lambda_min <= x < math.inf)
