"""soft_hebb in plain torch: its definition, and what runs where nothing faster does.

Weight (out, in), input (B, in) in the arithmetic type. Numbers of a call are checked here as the
kernels check them: the report is 0, or bits of what was not finite, and nothing changes then.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SOFT, _SIGNED, _HARD = range(3)
_TINY_NORM, _TINY_AMAX = 1e-10, 1e-30  # of the official code: rates and quotients never are 0 / 0


def activity(u: Tensor, temperature: float, variant: int) -> Tensor:
    """y (B, out): a softmax over units, losers negated, or the first winner alone."""
    won = torch.zeros_like(u)
    if u.shape[1]:
        won.scatter_(1, u.argmax(1, keepdim=True), 1)
    if variant == _HARD:
        return won
    y = torch.softmax(u / temperature, 1)
    return y * (2 * won - 1) if variant == _SIGNED else y


def soft_hebb(
    weight: Tensor,
    pre: Tensor,
    u: Tensor | None,
    temperature: float,
    variant: int,
    power: float,
    amax: bool,
    lr: float,
    rate: Tensor | None,
    decay: float,
    modulator: Tensor | None,
    gain_pre: Tensor | None,
    gain_post: Tensor | None,
    lower: float,
    upper: float,
    sign: Tensor | None,
    check_sign: bool,
    mask: Tensor | None,
    mean: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The new weight, the pre-activations u (B, out) and the report; ``power`` < 0: no norms."""
    w = weight.to(pre.dtype)
    if mask is not None:
        w = torch.where(mask, w, 0)
    given = u is not None
    u = pre @ w.t() if u is None else u
    y = activity(u, temperature, variant)
    if modulator is not None:
        y = y * modulator[:, None]
    if gain_post is not None:
        y = y * gain_post
    x = pre if gain_pre is None else pre * gain_pre
    delta = y.t() @ x - (y * u).sum(0)[:, None] * w
    if mask is not None:
        delta = torch.where(mask, delta, 0)
    if amax:
        largest = delta.abs().amax() if delta.numel() else 0.0
        delta = delta / (largest + _TINY_AMAX)
    elif mean:
        delta = delta / max(1, pre.shape[0])
    rates = w.new_full((w.shape[0],), lr) if rate is None else (lr * rate).expand(w.shape[0])
    if power >= 0:
        norm = torch.linalg.vector_norm(w, dim=1)
        rates = rates * ((norm - 1).abs() + _TINY_NORM) ** power
    new = (1 - decay) * w + rates[:, None] * delta
    new = _bounded(new, lower, upper, sign).to(weight.dtype)
    if mask is not None:
        new = torch.where(mask, new, weight)

    def bit(value: int, *tensors: Tensor | None) -> Tensor:
        """``value`` where a number of one of them is not finite."""
        bad = pre.new_zeros((), dtype=torch.int64)
        for t in tensors:
            if t is not None:
                bad = bad | (~t.isfinite().all()).long() * value
        return bad

    report = bit(1, pre) | bit(4, modulator, rate) | bit(8, gain_pre, gain_post, sign)
    if sign is not None and check_sign:
        report = report | (w * sign < 0).any().long() * 16
    report = torch.where(report > 0, report, bit(2, u))
    over = new if mask is None else torch.where(mask, new, 0)
    report = torch.where(report > 0, report, bit(256, over))
    new = torch.where((report & 255) > 0, weight, new)
    return new, u.new_empty(0) if given else u, report


def soft_hebb_(weight: Tensor, *args: object) -> tuple[Tensor, Tensor]:
    """The same in place."""
    new, u, report = soft_hebb(weight, *args)  # type: ignore[arg-type]
    weight.copy_(new)
    return u, report


def _bounded(w: Tensor, lower: float, upper: float, sign: Tensor | None) -> Tensor:
    """w in [lower, upper], and on the side of 0 that belongs to its presynaptic unit."""
    if sign is None:
        return w if lower == -math.inf and upper == math.inf else w.clamp(lower, upper)
    low = torch.where(sign > 0, max(lower, 0.0), lower).to(w.dtype)
    high = torch.where(sign < 0, min(upper, 0.0), upper).to(w.dtype)
    return torch.minimum(torch.maximum(w, low), high)
