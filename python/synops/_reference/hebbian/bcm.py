"""bcm in plain torch: its definition. Arguments: plasticity.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .plasticity import local_rule


def bcm(
    weight: Tensor, theta: Tensor, pre: Tensor, post: Tensor | None, theta_rate: float, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dW = lr mean_b m_b post (post - theta) pre, and theta moves to the mean of post^2."""

    def factors(y: Tensor, rate: Tensor, modulator: Tensor) -> tuple[float, Tensor]:
        return 0.0, rate * modulator[:, None] * y * (y - theta)

    new, computed, report, y = local_rule(weight, pre, post, factors, *rest, other=theta)  # type: ignore[misc]
    slid = (1 - theta_rate) * theta + theta_rate * y.square().mean(0) if y.shape[0] else theta
    kept = (report == 0) | (report == 256)
    return new, torch.where(kept, slid, theta), computed, report


def bcm_(weight: Tensor, theta: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """The same into ``weight`` and ``theta``."""
    new, slid, post, report = bcm(weight, theta, *rest)
    weight.copy_(new)
    theta.copy_(slid)
    return post, report
