"""oja in plain torch: its definition. Arguments: plasticity.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .plasticity import local_rule


def _factors(y: Tensor, rate: Tensor, modulator: Tensor) -> tuple[Tensor, Tensor]:
    by = rate * modulator[:, None] * y
    return (by * y).sum(0), by


def oja(
    weight: Tensor, pre: Tensor, post: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """dW = lr mean_b m_b post (pre - post W)."""
    return local_rule(weight, pre, post, _factors, *rest)[:3]


def oja_(weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """The same into ``weight``."""
    new, post, report = oja(weight, *rest)
    weight.copy_(new)
    return post, report
