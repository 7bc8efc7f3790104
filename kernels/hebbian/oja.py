"""oja (Triton): its factors (local_rule.py has the rest).

Reference: python/synops/_reference/hebbian/oja.py
"""

from typing import Any

import torch
from torch import Tensor

from .local_rule import launch
from .outer_update import build_dense

__all__ = ["AOT", "oja", "oja_"]


def _factors(y: Tensor, rate: Tensor, modulator: Tensor) -> tuple[Tensor, Tensor]:
    by = rate * modulator.unsqueeze(-1) * y
    return (by * y).sum(0), by


def oja_(weight: Tensor, pre: Tensor, post: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    return launch("oja_", weight, weight, pre, post, _factors, *rest)[:2]


def oja(
    weight: Tensor, pre: Tensor, post: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    out = torch.empty_like(weight, memory_format=torch.contiguous_format)
    return out, *launch("oja", weight, out, pre, post, _factors, *rest)[:2]


AOT = [build_dense(torch.float32, False, True)]
