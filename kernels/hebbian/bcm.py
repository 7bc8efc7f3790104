"""bcm (Triton): its factors and its threshold (local_rule.py has the rest).

Reference: python/synops/_reference/hebbian/bcm.py
"""

from typing import Any

import torch
from torch import Tensor

from ..common.launch import require
from .local_rule import launch
from .outer_update import build_sampled

__all__ = ["AOT", "bcm", "bcm_"]


def _run(
    op: str,
    weight: Tensor,
    to: Tensor,
    theta: Tensor,
    pre: Tensor,
    post: Tensor | None,
    theta_rate: float,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    crow = rest[-3]
    rows = weight.shape[0] if crow is None else crow.shape[0] - 1
    require(theta.shape == (rows,) and theta.dtype == pre.dtype, op, "theta must fit the weight")

    def factors(y: Tensor, rate: Tensor, modulator: Tensor) -> tuple[float, Tensor]:
        return 0.0, rate * modulator.unsqueeze(-1) * y * (y - theta)

    computed, report, y = launch(op, weight, to, pre, post, factors, *rest, theta)
    slid = (1 - theta_rate) * theta + theta_rate * y.square().mean(0) if y.shape[0] else theta
    return computed, report, torch.where((report == 0) | (report == 256), slid, theta)


def bcm_(weight: Tensor, theta: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    computed, report, slid = _run("bcm_", weight, weight, theta, *rest)
    theta.copy_(slid)
    return computed, report


def bcm(weight: Tensor, theta: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    out = torch.empty_like(weight, memory_format=torch.contiguous_format)
    computed, report, slid = _run("bcm", weight, out, theta, *rest)
    return out, slid.clone(), computed, report


AOT = [build_sampled(torch.float32, False)]
