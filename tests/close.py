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


class Bound:
    """What results are compared with, made once for many of them.

    Args:
        want: float64.
        dtype: that results must have.
        length: the most terms that one element is a sum of.
        scale: of the shape of ``want``, the size of partial sums; default rms(want).
    """

    def __init__(self, want: Tensor, dtype: torch.dtype, length: int, scale: Tensor | None = None):
        assert want.dtype == torch.float64, f"the reference must be float64, is {want.dtype}"
        assert want.isfinite().all(), "the reference must be finite"
        info = torch.finfo(dtype)
        of_sum = _of_sum(want, dtype, length, scale)
        # below the smallest normal number, ulps stop shrinking
        floor = info.smallest_normal * info.eps
        self.want, self.dtype = want, dtype
        self.element = ULPS[dtype].element * (info.eps * want.abs() + of_sum) + floor
        self.norm = float(want.norm())
        self.vector = ULPS[dtype].vector * (info.eps * self.norm + float(of_sum.norm()))

    def check(self, got: Tensor, *, vector: bool = False) -> None:
        """Every element is within the table's ulps; ``vector``: and the L2 error of all."""
        want = self.want
        _check_kind(got, want, self.dtype)
        error = (got.double() - want).abs()
        good = error <= self.element  # so that NaN is bad
        if not good.all():
            self._raise(got, error, ~good)
        if not vector:
            return
        if self.norm == 0:
            assert not got.any(), "a gradient that is 0 must be exactly 0"
            return
        off, norm = float(error.norm()), self.norm
        assert off <= self.vector, f"relative L2 error {off / norm:.3g} > {self.vector / norm:.3g}"

    def _raise(self, got: Tensor, error: Tensor, bad: Tensor) -> None:
        at = tuple(int(i) for i in bad.nonzero()[0])
        what = f"{int(bad.sum())} of {bad.numel()} elements are off, first {at}"
        numbers = f"got {float(got[at])}, want {float(self.want[at])}"
        raise AssertionError(
            f"{what}: {numbers}, error {float(error[at]):.3g} > {float(self.element[at]):.3g}"
        )


def assert_close(
    got: Tensor, want: Tensor, dtype: torch.dtype, length: int, scale: Tensor | None = None
) -> None:
    """Every element of ``got`` is within the table's ulps of the float64 ``want``: see Bound."""
    _check_kind(got, want, dtype)
    Bound(want, dtype, length, scale).check(got)


def assert_grad_close(
    got: Tensor, want: Tensor, dtype: torch.dtype, length: int, scale: Tensor | None = None
) -> None:
    """As :func:`assert_close`, and as a vector: the L2 error is within the table's ulps.

    The vector is the sharper test: an error that hides in the large elements' tolerance, such as
    one that has the same sign everywhere, adds up in it.
    """
    _check_kind(got, want, dtype)
    Bound(want, dtype, length, scale).check(got, vector=True)
