"""unit_stats: what the units of a layer do over a batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .._check import check_float, fail
from .._library import Op


class UnitStats(NamedTuple):
    """Of each unit over a batch, ``(units,)``, float32 (float64 for float64 input).

    Attributes:
        abs_mean: mean of ``|x|``.
        positive: fraction of ``x > 0``.
        mean: mean of ``x``.
        variance: population variance of ``x`` (divided by the number of rows).
    """

    abs_mean: Tensor
    positive: Tensor
    mean: Tensor
    variance: Tensor


def _fake(input: Tensor) -> tuple[Tensor, ...]:
    dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
    units = input.shape[1]
    a, p, m, v = (input.new_empty(units, dtype=dtype) for _ in range(4))
    return a, p, m, v


_op = Op("unit_stats", fake=_fake)


def unit_stats(input: Tensor, *, backend: str | None = None) -> UnitStats:
    r"""Mean magnitude, fraction above 0, mean and variance of each unit, in one read.

    .. math:: \tfrac 1 B \sum_b |x_{bj}|, \quad \tfrac 1 B \sum_b [x_{bj} > 0], \quad
              \mu_j = \tfrac 1 B \sum_b x_{bj}, \quad \tfrac 1 B \sum_b (x_{bj} - \mu_j)^2

    Same numbers as

        rows = input.flatten(0, -2).float()
        variance, mean = torch.var_mean(rows, 0, correction=0)
        rows.abs().mean(0), (rows > 0).float().mean(0), mean, variance

    which reads and writes several tensors of the size of the input. A unit is dormant by DrM if its
    ``abs_mean`` is below tau times the mean of all; ``positive.mean()`` is the fraction of active
    units (FAU) of a ReLU layer. :class:`synops.Monitor` collects them while a model trains.

    Errors are below 1e-6 of ``variance`` and ``abs_mean``, and of ``mean`` below 1e-6 of the root
    mean square, also where the mean is thousands of standard deviations; ``positive`` is exact.
    Nothing depends on the number of threads.

    Args:
        input: ``(..., units)``, float32, float64, bfloat16 or float16, of any strides. What has no
            view as ``(rows, units)`` with contiguous rows is copied.
        backend: ``"auto"``, ``"cpp"``, ``"triton"`` or ``"reference"``; default as chosen by
            :func:`synops.backend`.

    Returns:
        :class:`UnitStats`. NaN and inf go where torch's functions above take them; without rows
        all are NaN, as theirs are. No gradient.

    Raises:
        TypeError: not a tensor, or of another dtype.
        ValueError: no dimension.
        RuntimeError: ``backend`` cannot run here.

    Source: G. Xu et al., arXiv:2310.19668 (DrM: dormant ratio); G. Ma et al., arXiv:2310.07418
    (Adaptive RR: fraction of active units).
    """
    op = "unit_stats"
    check_float(op, "input", input)
    shape = input.shape
    rows = input.detach()
    if len(shape) != 2:
        if not shape:
            fail(ValueError, op, "input", "have shape (..., units)", ())
        rows = rows.reshape(shape[:-1].numel(), shape[-1])
    return UnitStats(*_op(rows, backend=backend))
