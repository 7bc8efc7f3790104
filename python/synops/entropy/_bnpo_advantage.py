"""bnpo_advantage: advantages of groups of samples, normalised by a Beta distribution."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor

from .._check import check_device, check_float, check_shape, check_tensor, dtype_name, fail
from ._tokens import check_group, check_mask, check_number, total

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
# Means of 1000 groups of 1000 binary rewards that differ at all have a variance of 1e-9; what is
# below this is the rounding of equal ones.
_NO_VARIANCE = 1e-12


def bnpo_advantage(
    rewards: Tensor,
    groups: Tensor,
    *,
    mask: Tensor | None = None,
    min_value: float = 0.0,
    max_value: float = 1.0,
    max_weight: float = 1e6,
    group: dist.ProcessGroup | bool | None = None,
) -> Tensor:
    r"""Advantages of Beta normalised policy optimisation: one reward a sample, in groups a prompt.

    With p(q) the mean reward of the group of prompt q, and :math:`\mu, \sigma^2` mean and variance
    of the p(q) of all groups,

    .. math:: A = \frac{R - p(q)}{f(p(q); \alpha, \beta)}, \quad
        \alpha = 1 + \tfrac{1}{3}\nu\mu, \quad \beta = 1 + \tfrac{1}{3}\nu(1 - \mu), \quad
        \nu = \frac{\mu(1 - \mu)}{\sigma^2} - 1

    f is the density of the Beta distribution, alpha and beta are at least 1. Equal ones give
    REINFORCE with a baseline (1) and GRPO (1.5, where f is proportional to the standard deviation
    of a binary reward). In float64, and without a loop over samples or groups.

    As in the paper's code: the mean of a group of one is 0, the variance is the unbiased one, and
    1 / f is at most ``max_weight`` (at p of 0 and 1, where a binary reward has R - p = 0). A single
    group has alpha = beta = 1; so have groups whose means are all equal, where the code divides
    by 0. A group mean outside [0, 1] has no density and gives NaN.

    Args:
        rewards: ``(samples,)``: float32, float64, bfloat16 or float16.
        groups: ``(samples,)``, integers in any order: samples with equal ones are a group.
        mask: ``(samples, tokens)``, bool or numbers: the advantage of a sample at its tokens (above
            0), 0 at the rest. None: one advantage a sample.
        min_value, max_value: of rewards: they are mapped to [0, 1] from there.
        max_weight: of 1 / f, above 0.
        group: None: this process alone. True, or a ``torch.distributed.ProcessGroup``: alpha and
            beta are of the groups of samples of all its processes (each group lies in one).

    Returns:
        ``(samples,)``, or the shape of ``mask``: float32 (float64 for float64). No gradient.

    Raises:
        TypeError: not a tensor of such a dtype, a number or a process group where one belongs.
        ValueError: a shape, device or number does not fit.

    Source: C. Xiao et al., "BNPO: Beta Normalization Policy Optimization", 2025, arXiv:2506.02864;
    defaults of github.com/changyi7231/BNPO.
    """
    op = "bnpo_advantage"
    _check_tensors(op, rewards, groups, mask)
    check_number(op, "min_value", min_value, "be finite", math.isfinite)
    rule = f"be finite and above min_value ({min_value})"
    check_number(op, "max_value", max_value, rule, lambda x: min_value < x < math.inf)
    check_number(op, "max_weight", max_weight, "be above 0", lambda x: x > 0)
    world = check_group(op, group)
    with torch.no_grad():
        scores = (rewards.double() - min_value) / (max_value - min_value)
        index = _group_of(groups)
        sizes = torch.zeros_like(scores).index_add_(0, index, torch.ones_like(scores))
        means = torch.zeros_like(scores).index_add_(0, index, scores) / sizes.clamp(min=1)
        means = torch.where(sizes == 1, 0.0, means)
        alpha, beta = _beta(means, sizes > 0, world)
        p = means[index]
        weight = (-_log_density(p, alpha, beta)).exp().clamp(max=max_weight)
        inside = (p >= 0) & (p <= 1)
        advantages = torch.where(inside, weight * (scores - p), math.nan)
        advantages = advantages.to(rewards.dtype if rewards.dtype == torch.float64 else torch.float)
        return advantages if mask is None else torch.where(mask > 0, advantages[:, None], 0.0)


def _group_of(groups: Tensor) -> Tensor:
    """Numbers of the groups, from 0 in the order of their names: torch.unique would wait."""
    values, order = groups.sort(stable=True)
    first = torch.ones_like(values, dtype=torch.bool)
    first[1:] = values[1:] != values[:-1]
    return torch.empty_like(order).scatter_(0, order, first.cumsum(0) - 1)


def _beta(means: Tensor, exists: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor]:
    """alpha and beta by moments of the means of groups."""
    count = total(exists.sum(), group)
    mu = total(torch.where(exists, means, 0.0).sum(), group) / count.clamp(min=1)
    squares = total(torch.where(exists, means - mu, 0.0).square().sum(), group)
    variance = squares / (count - 1).clamp(min=1)
    nu = (mu * (1 - mu) / variance - 1) / 3
    spread = variance > _NO_VARIANCE
    alpha = torch.where(spread, (1 + nu * mu).clamp(min=1), 1.0)
    beta = torch.where(spread, (1 + nu * (1 - mu)).clamp(min=1), 1.0)
    return alpha, beta


def _log_density(p: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Of the Beta distribution; xlogy is 0 where the exponent is."""
    constant = (alpha + beta).lgamma() - alpha.lgamma() - beta.lgamma()
    return torch.xlogy(alpha - 1, p) + torch.xlogy(beta - 1, 1 - p) + constant


def _check_tensors(op: str, rewards: Tensor, groups: Tensor, mask: Tensor | None) -> None:
    check_float(op, "rewards", rewards)
    if rewards.dim() != 1:
        fail(ValueError, op, "rewards", "have shape (samples,)", tuple(rewards.shape))
    check_tensor(op, "groups", groups)
    if groups.dtype not in _INTEGERS:
        fail(TypeError, op, "groups", "be integers", dtype_name(groups.dtype))
    check_device(op, "groups", groups, rewards, "rewards")
    check_shape(op, "groups", groups, "(samples,)", tuple(rewards.shape))
    if mask is not None:
        check_mask(op, "mask", mask)
        check_device(op, "mask", mask, rewards, "rewards")
        if mask.dim() != 2 or mask.shape[0] != rewards.shape[0]:
            rule = f"have shape (samples, tokens) = ({rewards.shape[0]}, tokens)"
            fail(ValueError, op, "mask", rule, tuple(mask.shape))
