"""three_factor_sequence in plain torch: its definition, and what runs where nothing faster does.

Steps of three_factor, with (T, B, in) for pre and (T, B, out) for post. A modulator of at most one
dimension is that of all steps; otherwise its first are the steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .three_factor import OVERFLOW, three_factor


def three_factor_sequence(
    weight: Tensor,
    eligibility: Tensor,
    pre: Tensor,
    post: Tensor,
    trace_decay: float,
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
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """The weight and eligibility after the last step, and the report."""
    w, e = weight.clone(), eligibility.clone()
    bits = torch.zeros((), dtype=torch.int64, device=weight.device)
    for t in range(pre.shape[0]):
        of_step = modulator
        if modulator is not None and modulator.dim() > 1:
            of_step = modulator[t].expand(*modulator.shape[1:-1], post.shape[2])
        w, e, report = three_factor(
            w, e, pre[t], post[t], trace_decay, lr, rate, decay, of_step, gain_pre, gain_post,
            lower, upper, sign, check_sign and t == 0, *rest,
        )  # fmt: skip
        bits = bits | report
    refused = bits % OVERFLOW
    w, e = torch.where(refused != 0, weight, w), torch.where(refused != 0, eligibility, e)
    return w, e, torch.where(refused != 0, refused, bits)


def three_factor_sequence_(weight: Tensor, eligibility: Tensor, *rest: Any) -> Tensor:
    """The same into ``weight`` and ``eligibility``."""
    w, e, report = three_factor_sequence(weight, eligibility, *rest)
    weight.copy_(w)
    eligibility.copy_(e)
    return report
