"""covariance_select: the tokens that make a policy lose its entropy, chosen on the device."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from .._check import dtype_name, fail
from ._tokens import (
    Group,
    bits_of,
    check_choice,
    check_generator,
    check_group,
    check_number,
    check_tokens,
    padded,
    sum_dtype,
    total,
)


def covariance_select(
    logprob: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    mode: str = "clip",
    ratio: float = 2e-4,
    percent: float = 0.2,
    lower: float = 1.0,
    upper: float = 5.0,
    excluded: Tensor | None = None,
    generator: torch.Generator | None = None,
    group: dist.ProcessGroup | bool | None = None,
) -> Tensor:
    r"""Tokens whose log-probability and advantage are high together: Clip-Cov and KL-Cov.

    .. math:: C_i = (A_i - \bar A)\,(\log\pi_i - \overline{\log\pi}), \qquad
        \Delta H \approx -\eta\,\mathrm{Cov}(\log\pi, \Delta z)

    with means over the n tokens of the mask. ``mode="clip"`` (Clip-Cov) draws ``max(int(ratio *
    n), 1)`` tokens at random from those with ``lower < C < upper``, or takes all if they are fewer;
    ``mode="kl"`` (KL-Cov) takes the ``max(int(n * percent / 100), 1)`` largest, of equal ones the
    first. Shapes do not depend on the data and no value comes to the host, where the papers' code
    goes through ``nonzero``, ``item`` and ``cpu()``. NaN is never chosen.

    Args:
        logprob: ``(..., tokens)``, log-probabilities of the tokens in nats. float32, float64,
            bfloat16 or float16; covariances are in float32 (float64 if an argument is).
        advantages: of that shape; any of these dtypes.
        mask: of that shape, bool or numbers: a token counts where it is not 0 (above 0). What is
            under the rest is never read.
        mode: "clip" or "kl".
        ratio: in (0, 1], what Clip-Cov takes of the n tokens.
        percent: in (0, 100], what KL-Cov takes, in per cent. (The paper's code takes the smaller of
            this and n per cent, another number only below ``percent`` tokens.)
        lower, upper: Clip-Cov's bounds, both exclusive.
        excluded: of that shape, bool: tokens that count in means and n but are not chosen, such as
            those that PPO has clipped already.
        generator: Clip-Cov draws from it; None is torch's own. (torch.compile takes None only.)
        group: None: this process alone. True, or a ``torch.distributed.ProcessGroup``: means, n and
            the choice are over the tokens of all its processes, of any shapes and the same dtypes;
            each gets its part. All of them must call.

    Returns:
        bool, shape of ``logprob``: what is chosen. No gradient.

    Raises:
        TypeError: not a tensor, a number, a generator or a group where one belongs.
        ValueError: a shape, device, mode or number does not fit; ``group`` before
            ``torch.distributed.init_process_group``.

    Source: G. Cui et al., "The Entropy Mechanism of Reinforcement Learning for Reasoning Language
    Models", 2025, arXiv:2505.22617; defaults of github.com/PRIME-RL/Entropy-Mechanism-of-RL.
    """
    op = "covariance_select"
    check_tokens(op, logprob, mask, advantages=advantages)
    check_choice(op, "mode", mode, ("clip", "kl"))
    check_selection(op, ratio, lower, upper, percent=percent)
    if excluded is not None:
        check_tokens(op, logprob, excluded)
        if excluded.dtype != torch.bool:
            fail(TypeError, op, "excluded", "be bool", dtype_name(excluded.dtype))
    check_generator(op, generator, logprob)
    world = check_group(op, group)
    valid = mask > 0
    bits = bits_of(valid, sum_dtype(logprob, advantages))
    with torch.no_grad():
        cov, n = covariance(padded(logprob, bits), padded(advantages, bits), bits, world)
        candidates = valid if excluded is None else valid & ~excluded
        if mode == "clip":
            return clip_cov(cov, n, candidates, ratio, lower, upper, generator, world)
        return kl_cov(cov, n, candidates, percent, world)


def check_selection(op: str, ratio: float, lower: float, upper: float, **percent: float) -> None:
    """The numbers of both choices; ``percent`` by the name it has there."""
    check_number(op, "ratio", ratio, "be in (0, 1]", lambda x: 0 < x <= 1)
    for name, value in percent.items():
        check_number(op, name, value, "be in (0, 100]", lambda x: 0 < x <= 100)
    check_number(op, "upper", upper, "not be NaN", lambda x: x == x)
    check_number(op, "lower", lower, f"be below upper ({upper})", lambda x: x < upper)


def covariance(
    logprob: Tensor, advantages: Tensor, bits: Tensor, group: Group
) -> tuple[Tensor, Tensor]:
    """Each token's part of the covariance (0 where not valid), and the number of valid tokens."""
    n = total(bits.count_nonzero(), group)
    sums = total(torch.stack((advantages.sum(), logprob.sum())), group)
    of_advantages, of_logprob = (sums / n.clamp(min=1)).unbind()
    return padded((advantages - of_advantages) * (logprob - of_logprob), bits), n


def clip_cov(
    cov: Tensor,
    n: Tensor,
    candidates: Tensor,
    ratio: float,
    lower: float,
    upper: float,
    generator: torch.Generator | None,
    group: Group,
) -> Tensor:
    """Random tokens between the bounds: those with the largest of random keys."""
    candidates = candidates & (cov > lower) & (cov < upper)
    # 32 bits a token: two from each draw of 64, which take half the time of draws of 32
    draws = torch.randint(
        -(2**63), 2**63 - 1, ((cov.numel() + 1) // 2,), generator=generator, device=cov.device
    )
    keys = draws.view(torch.int32)[: cov.numel()]
    if group is not None:
        # processes with equal seeds draw equal keys: the same positions everywhere, but for this
        keys = keys ^ (0x1E3779B9 * dist.get_rank(group) & 0x7FFFFFFF)
    count = (n.double() * ratio).long().clamp(min=1)
    most = max(int(ratio * cov.numel()), 1)
    return _largest(keys.view(cov.shape), candidates, count, most, group)


def kl_cov(cov: Tensor, n: Tensor, candidates: Tensor, percent: float, group: Group) -> Tensor:
    """The largest covariances."""
    keys = (cov + 0.0).view(torch.int64 if cov.dtype == torch.float64 else torch.int32)
    # the bits of negative floats fall as the float rises; -0 is 0 already
    info = torch.iinfo(keys.dtype)
    keys = keys ^ ((keys >> (info.bits - 1)) & info.max)
    # by a tensor: a division by a number is a product with 1 / 100 on some devices
    share = n.double() * percent / torch.full_like(n, 100, dtype=torch.float64)
    count = share.long().clamp(min=1)
    most = max(int(cov.numel() * percent / 100), 1)
    candidates = candidates & ~cov.isnan()
    return _largest(keys, candidates, count, most, group)


def _largest(keys: Tensor, candidates: Tensor, count: Tensor, most: int, group: Group) -> Tensor:
    """The ``count`` largest keys of candidates, of equal ones the first; at most ``most`` here."""
    shape = keys.shape
    keys, candidates = keys.reshape(-1), candidates.reshape(-1)
    count = torch.minimum(count, total(candidates.count_nonzero(), group))
    if group is not None:
        threshold = _threshold(keys, candidates, count, group)
    elif keys.numel():
        # topk of a number known without asking the device; the count-th of them is the threshold
        # (by index_select: best[tensor] would ask). The rest gets the lowest key.
        lowest = torch.iinfo(keys.dtype).min
        of_candidates = ((keys ^ lowest) & -candidates.to(keys.dtype)) ^ lowest
        best = of_candidates.topk(min(most, keys.numel())).values
        threshold = best.index_select(0, (count - 1).clamp(min=0).reshape(1))
    else:
        return candidates.reshape(shape)
    above = candidates & (keys > threshold)
    at = candidates & (keys == threshold)
    taken = total(above.count_nonzero(), group) + _of_lower_ranks(at.count_nonzero(), group)
    # a sum of int64 is 10 times as slow here
    order = at.cumsum(0, dtype=torch.int32)
    return (above | (at & (order <= count - taken))).reshape(shape)


def _threshold(keys: Tensor, candidates: Tensor, count: Tensor, group: Group) -> Tensor:
    """The ``count``-th largest key of all processes, digit by digit from counts of each digit.

    Sends 2 KB a digit of 8 bits, whatever the number of tokens, which may differ by process.
    """
    count = count.reshape(1)
    threshold = torch.zeros_like(count)
    top = torch.iinfo(keys.dtype).bits - 8
    for shift in range(top, -8, -8):
        digit = ((keys >> shift) & 255).long()
        sign = 128 if shift == top else 0  # of the first digit: negative keys are below
        digit = digit ^ sign
        counts = torch.zeros(256, dtype=torch.int64, device=keys.device)
        counts = total(counts.scatter_add_(0, digit, candidates.long()), group)
        from_top = counts.flip(0).cumsum(0).flip(0)
        chosen = (from_top >= count).sum(0, keepdim=True) - 1
        count = count - (from_top - counts).index_select(0, chosen)
        candidates = candidates & (digit == chosen)
        threshold = threshold + ((chosen - sign) << shift)
    return threshold


def _of_lower_ranks(count: Tensor, group: Group) -> Tensor | int:
    """Sum of ``count`` over the processes that come before this one."""
    if group is None:
        return 0
    rank = dist.get_rank(group)
    counts = count.new_zeros(dist.get_world_size(group))
    counts[rank] = count
    return total(counts, group)[:rank].sum()
