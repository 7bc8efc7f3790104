"""hebb in plain torch: its definition. Arguments: plasticity.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .plasticity import local_rule


def _factors(y: Tensor, rate: Tensor, modulator: Tensor) -> tuple[float, Tensor]:
    return 0.0, rate * modulator[:, None] * y


def hebb(
    weight: Tensor, pre: Tensor, post: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """dW = lr mean_b m_b post x pre."""
    return local_rule(weight, pre, post, _factors, *rest)[:3]


def hebb_(weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """The same into ``weight``."""
    new, post, report = hebb(weight, *rest)
    weight.copy_(new)
    return post, report
