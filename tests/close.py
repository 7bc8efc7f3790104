"""Comparison with float64: one table of tolerances, in ulps.

A result of type T whose sums of n terms were made in type A (float32, float64 for float64) is right
when

    |got - want| <= u * (eps(T) * |want| + eps(A) * sqrt(n) * scale)

The first term is the rounding of the result; the second the rounding of the sum, a random walk of n
steps, each an ulp of a partial sum. scale is the size of partial sums: sqrt(sum of the squares of
the terms), which a sum that happens to cancel does not show. (Of an op that is linear in each of
its inputs, it is the square root of the reference on squared inputs.) Loosening the table is a
change of the library's numerics and belongs in the CHANGELOG, whatever turned red.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Ulps(NamedTuple):
    """Of one element; of a whole gradient, as a vector (relative L2)."""

    element: float
    vector: float


# float32, float64: every multiply-add rounds. bfloat16, float16: sums are float32, so one rounding
# to the nearest, half an ulp, is all that may be seen, and 1 leaves room for the sum behind it.
ULPS = {
    torch.float32: Ulps(4, 1),
    torch.float64: Ulps(4, 1),
    torch.bfloat16: Ulps(1, 0.5),
    torch.float16: Ulps(1, 0.5),
}


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The type of sums of ``dtype``."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _check_kind(got: Tensor, want: Tensor, dtype: torch.dtype) -> None:
    assert got.dtype == dtype, f"dtype {got.dtype}, not {dtype}"
    assert want.dtype == torch.float64, f"the reference must be float64, is {want.dtype}"
    assert got.shape == want.shape, f"shape {tuple(got.shape)}, not {tuple(want.shape)}"


def _of_sum(want: Tensor, dtype: torch.dtype, length: int, scale: Tensor | None) -> Tensor:
    """The size of the rounding of a sum; without a scale, that of a sum as large as results are."""
    if scale is None:
        scale = want.square().mean().sqrt().expand_as(want) if want.numel() else want
    return torch.finfo(accumulator(dtype)).eps * max(1, length) ** 0.5 * scale


def assert_close(
    got: Tensor, want: Tensor, dtype: torch.dtype, length: int, scale: Tensor | None = None
) -> None:
    """Every element of ``got`` is within the table's ulps of the float64 ``want``.

    Args:
        dtype: that ``got`` must have.
        length: the most terms that one element is a sum of.
        scale: of the shape of ``want``, the size of partial sums; default rms(want).
    """
    _check_kind(got, want, dtype)
    assert want.isfinite().all(), "the reference must be finite"
    info = torch.finfo(dtype)
    rounding = info.eps * want.abs() + _of_sum(want, dtype, length, scale)
    # below the smallest normal number, ulps stop shrinking
    allowed = ULPS[dtype].element * rounding + info.smallest_normal * info.eps
    error = (got.double() - want).abs()
    bad = ~(error <= allowed)  # so that NaN is bad
    if bad.any():
        at = tuple(int(i) for i in bad.nonzero()[0])
        what = f"{int(bad.sum())} of {bad.numel()} elements are off, first {at}"
        numbers = f"got {float(got[at])}, want {float(want[at])}"
        raise AssertionError(
            f"{what}: {numbers}, error {float(error[at]):.3g} > {float(allowed[at]):.3g}"
        )


def assert_grad_close(
    got: Tensor, want: Tensor, dtype: torch.dtype, length: int, scale: Tensor | None = None
) -> None:
    """As :func:`assert_close`, and as a vector: the L2 error is within the table's ulps.

    The vector is the sharper test: an error that hides in the large elements' tolerance, such as
    one that has the same sign everywhere, adds up in it.
    """
    assert_close(got, want, dtype, length, scale)
    norm = float(want.norm())
    if norm == 0:
        assert not got.any(), "a gradient that is 0 must be exactly 0"
        return
    of_sum = float(_of_sum(want, dtype, length, scale).norm())
    allowed = ULPS[dtype].vector * (torch.finfo(dtype).eps * norm + of_sum)
    error = float((got.double() - want).norm())
    assert error <= allowed, f"relative L2 error {error / norm:.3g} > {allowed / norm:.3g}"
