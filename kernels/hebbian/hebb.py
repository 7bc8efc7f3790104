"""hebb (Triton): its factors (local_rule.py has the rest).

Reference: python/synops/_reference/hebbian/hebb.py
"""

from typing import Any

import torch
from torch import Tensor

from .local_rule import launch
from .outer_update import build_dense

__all__ = ["AOT", "hebb", "hebb_"]


def _factors(y: Tensor, rate: Tensor, modulator: Tensor) -> tuple[float, Tensor]:
    return 0.0, rate * modulator.unsqueeze(-1) * y


def hebb_(weight: Tensor, pre: Tensor, post: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    return launch("hebb_", weight, weight, pre, post, _factors, *rest)[:2]


def hebb(
    weight: Tensor, pre: Tensor, post: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    out = torch.empty_like(weight, memory_format=torch.contiguous_format)
    return out, *launch("hebb", weight, out, pre, post, _factors, *rest)[:2]


AOT = [build_dense(torch.float32, True, False)]
