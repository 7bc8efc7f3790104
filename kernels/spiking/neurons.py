"""What the spiking kernels share: neurons of (T, R, P), their parameters, and surrogates.

A neuron has a number i over all rows: row i // P, place i % P in it.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.launch import require, require_floats

BLOCK = 256  # neurons of a program
OPTIONS = {"num_warps": 4, "num_stages": 2, "enable_fp_fusion": False}


@triton.jit
def fires(u, threshold, INCLUSIVE: tl.constexpr):
    """Where a membrane fires; not where it is NaN."""
    if INCLUSIVE:
        return u >= threshold
    else:
        return u > threshold


@triton.jit
def half_distance(d, fired, INCLUSIVE: tl.constexpr):
    """A distance from the threshold in float16, on the side of 0 where it fired or not."""
    least = 5.9604644775390625e-08  # the smallest number of float16
    if INCLUSIVE:
        d = tl.where(fired | (d < -least) | (d != d), d, -least)
    else:
        d = tl.where((d < least) & fired, least, d)
    return d.to(tl.float16)


@triton.jit
def parameter(ptr, i, P, inside, ONE: tl.constexpr):
    """A parameter of the neurons i: one for all, or one for each place in a row."""
    if ONE:
        return tl.load(ptr)
    else:
        return tl.load(ptr + i % P, mask=inside, other=0)


@triton.jit
def surrogate_at(d, SLOPE, HEIGHT, SURROGATE: tl.constexpr):
    """What stands for the derivative of the step; SLOPE and HEIGHT from curve()."""
    if SURROGATE == 0 or SURROGATE == 3:
        a = 1 + SLOPE * tl.abs(d)
        return 1 / (a * a)
    elif SURROGATE == 1:
        z = SLOPE * d
        return HEIGHT / (1 + z * z)
    elif SURROGATE == 2:
        e = tl.exp(-SLOPE * tl.abs(d))
        return HEIGHT * e / ((1 + e) * (1 + e))
    elif SURROGATE == 4:
        return tl.where(tl.abs(d) < SLOPE, HEIGHT, 0.0)
    else:
        tent = 1 - SLOPE * tl.abs(d)
        return HEIGHT * tl.where(tent < 0, 0.0, tent)


def curve(surrogate: int, slope: float) -> tuple[float, float, float, float]:
    """SLOPE and HEIGHT of surrogate_at(), as two float32 each: a kernel gets no float64."""
    by, height = slope, slope if surrogate in (2, 4, 6) else 1.0
    if surrogate == 1:
        by, height = math.pi / 2 * slope, slope / 2
    if surrogate == 4:
        by = 0.5 / slope
    high = [float(torch.tensor(number, dtype=torch.float32)) for number in (by, height)]
    return high[0], by - high[0], high[1], height - high[1]


@triton.jit
def number(HIGH, LOW, ACC: tl.constexpr):
    """A number of two float32 halves."""
    return tl.full((), HIGH, ACC) + tl.full((), LOW, ACC)


def series(op: str, name: str, t: Tensor, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """(T, R, P) with the neurons of a row side by side; a copy of what is not."""
    require_floats(op, t)
    require(t.dim() == 3, op, f"{name} must have 3 dimensions")
    require(t.shape == like.shape, op, f"{name} must have shape {tuple(like.shape)}")
    good = t.dtype == (dtype or like.dtype) and t.device == like.device
    require(good, op, f"{name} has the wrong dtype or device")
    return t if t.stride(2) == 1 or t.shape[2] <= 1 else t.contiguous()


def offsets(t: Tensor) -> tuple[int, int]:
    """Strides of time and rows."""
    return t.stride(0), t.stride(1)


def state(op: str, name: str, t: Tensor | None, like: Tensor, dtype: torch.dtype) -> Tensor | None:
    """A state (R, P), or none."""
    if t is None:
        return None
    good = t.shape == like.shape[1:] and t.dtype == dtype and t.device == like.device
    require(good, op, f"{name} must be {dtype} of shape {tuple(like.shape[1:])}")
    return t.contiguous()


def check_parameters(op: str, like: Tensor, dtype: torch.dtype, *tensors: Tensor) -> list[Tensor]:
    """() or (P,) in the dtype of the state."""
    for t in tensors:
        good = t.dim() == 0 or t.shape == like.shape[2:]
        good = good and t.dtype == dtype and t.device == like.device
        require(good, op, f"a parameter must be {dtype} of shape () or {tuple(like.shape[2:])}")
    return [t.contiguous() for t in tensors]


def check_rule(op: str, reset: int, surrogate: int, slope: float) -> None:
    require(0 <= reset <= 2, op, f"reset must be 0, 1 or 2, got {reset}")
    require(0 <= surrogate <= 6, op, f"surrogate must be 0 to 6, got {surrogate}")
    good = slope > 0 and math.isfinite(slope)
    require(good, op, f"slope must be positive, got {slope}")
