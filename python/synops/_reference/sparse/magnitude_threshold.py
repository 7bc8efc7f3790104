"""magnitude_threshold: the k-th largest magnitude of several tensors, in plain torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def magnitude_threshold(tensors: Sequence[Tensor], keep: int, strict: bool) -> Tensor:
    """The ``keep``-th largest of all magnitudes, the one behind it if ``strict``; NaN is -inf."""
    magnitudes = torch.cat([t.detach().abs().flatten() for t in tensors])
    magnitudes = torch.where(magnitudes.isnan(), -torch.inf, magnitudes)
    ends = magnitudes.new_tensor([torch.inf, -torch.inf])
    descending = torch.cat([ends[:1], magnitudes.sort(descending=True).values, ends[1:]])
    return descending[keep + strict].clone()
