"""What one forward left behind, layer by layer, and the figures that are made of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..sparse import UnitStats


class Seen(NamedTuple):
    """One call of a layer; nothing of it was read on the host."""

    stats: UnitStats
    rows: int


class Features(NamedTuple):
    """The output of one call of a layer, and its version when it was new (None if compiled)."""

    output: Tensor
    version: int | None


class Record:
    """Of one forward, by name of the layer: a list of its calls, and the outputs that are kept."""

    def __init__(self) -> None:
        self.calls: dict[str, list[Seen]] = {}
        self.features: dict[str, list[Features]] = {}


def dormant(seen: Seen, tau: float) -> Tensor:
    """How many units are below tau times the mean of all, in mean magnitude; (), float64."""
    a = seen.stats.abs_mean
    return (a < a.mean() * tau).sum(dtype=torch.float64)


def active(seen: Seen) -> Tensor:
    """How many outputs are above 0; (), float64."""
    counts = (seen.stats.positive.double() * seen.rows).round()  # as they were, below 2^23 rows
    return counts.nan_to_num().sum()  # NaN without rows


def read(counts: list[Tensor]) -> list[float]:
    """The one place that waits for the device."""
    if not counts:
        return []
    return torch.stack([count.to(counts[0].device) for count in counts]).tolist()


def effective_rank(features: Tensor, delta: float) -> int:
    """How many of the largest singular values of ``(rows, units)`` make up 1 - delta of them all.

    By the smaller Gram matrix, in float64: it has the squares of them, so that what is below 1e-8
    of the largest is not seen.
    """
    x = features.detach().reshape(-1, features.shape[-1]).double()
    gram = x @ x.T if x.shape[0] < x.shape[1] else x.T @ x
    values = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().flip(0)
    if not values.any():
        return 0
    mass = values.cumsum(0)
    return min(int((mass < (1 - delta) * mass[-1]).sum()) + 1, len(values))
