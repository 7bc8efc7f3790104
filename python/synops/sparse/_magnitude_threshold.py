"""magnitude_threshold: where global magnitude pruning cuts, over any number of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .._check import check_float, check_like, fail
from .._library import Op


def _fake(tensors: Sequence[Tensor], keep: int, strict: bool) -> Tensor:
    return tensors[0].new_empty(())


_op = Op("magnitude_threshold", fake=_fake)


def magnitude_threshold(
    tensors: Tensor | Sequence[Tensor],
    keep: int | float,
    *,
    strict: bool = False,
    backend: str | None = None,
) -> Tensor:
    r"""The magnitude that ``keep`` entries of all tensors together reach.

    Same number as

        torch.cat([t.abs().flatten() for t in tensors]).topk(keep).values[-1]

    without the concatenation, and without sorting: one read of the tensors and a selection among
    the few per cent that a sample leaves in doubt.

    ``t.abs() >= threshold`` keeps ``keep`` entries, and more where magnitudes are equal to it; with
    ``strict``, ``t.abs() > threshold`` keeps ``keep`` entries, or fewer. A NaN is below every
    number: neither keeps it.

    Args:
        tensors: one or several of any shapes, float32, float64, bfloat16 or float16, of one dtype
            on one device.
        keep: how many, at most as many as there are; or, as a float in [0, 1], a fraction of all,
            rounded as in ``torch.nn.utils.prune``.
        strict: as above.
        backend: ``"auto"``, ``"cpp"``, ``"triton"`` or ``"reference"``; default as chosen by
            :func:`synops.backend`.

    Returns:
        ``()``, in the dtype of the tensors, which it is exact in. Where nothing is kept it may be
        inf, where all numbers are, -inf. No gradient.

    Raises:
        TypeError: not tensors, not of one dtype, or ``keep`` is no number.
        ValueError: no tensors, not on one device, or ``keep`` out of range.
        RuntimeError: ``backend`` cannot run here.

    Source: global magnitude pruning of M. Zhu and S. Gupta, arXiv:1710.01878, as in the codes of
    GraNet (arXiv:2106.10404) and open_lth, which sort.
    """
    op = "magnitude_threshold"
    tensors = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if not tensors:
        fail(ValueError, op, "tensors", "be at least one", "none")
    check_float(op, "tensors[0]", tensors[0])
    for i, t in enumerate(tensors[1:], 1):
        check_like(op, f"tensors[{i}]", t, tensors[0], "tensors[0]")
    count = check_count(op, "keep", keep, sum(t.numel() for t in tensors))
    return _op([t.detach() for t in tensors], count, bool(strict), backend=backend)


def check_count(op: str, argument: str, value: Any, most: int) -> int:
    """A number of entries, given as such or as a fraction of ``most``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        fail(TypeError, op, argument, "be an int or a float", type(value).__name__)
    if isinstance(value, float):
        if not 0 <= value <= 1:
            fail(ValueError, op, argument, "lie in [0, 1] as a fraction", value)
        return round(value * most)
    if not 0 <= value <= most:
        fail(ValueError, op, argument, f"lie in [0, {most}]", value)
    return value
