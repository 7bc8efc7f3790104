"""unit_stats: moments of each column, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def unit_stats(input: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the columns of ``(rows, units)``: mean |x|, share above 0, mean, population variance."""
    dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
    x = input.detach().to(dtype)
    mean = x.mean(0)
    d = x - mean
    # The mean is rounded; at an offset of thousands its error squared is seen.
    variance = d.square().mean(0) - d.mean(0).square()
    return x.abs().mean(0), (x > 0).to(dtype).mean(0), mean, variance.clamp_min(0)
