"""What the spiking ops share: names and numbers of their arguments, checks, and layouts.

An op sees (T, R, P): time, rows and neurons, the neurons of a row side by side. A step of the
input that is dense in another order (channels-last) is walked in the order of its memory, and what
comes back has the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._check import check_device, check_float, check_shape, fail
from .._library import _functorch_active

RESETS = {"subtract": 0, "zero": 1, "none": 2}
SURROGATES = {
    "fast_sigmoid": 0,
    "atan": 1,
    "sigmoid": 2,
    "superspike": 3,
    "boxcar": 4,
    "triangle": 5,
    "qgate": 6,
}
SPIKES = {"float": 0, "uint8": 1, "bits": 2}
HALF = {torch.bfloat16: 1, torch.float16: 2}  # as a number, for the backward


def state_dtype(input: Tensor) -> torch.dtype:
    """float64 for float64, float32 for the rest."""
    return torch.float64 if input.dtype == torch.float64 else torch.float32


def check_choice(op: str, argument: str, value: Any, known: Mapping[str, int]) -> int:
    """The number of one of the names in ``known``."""
    if not isinstance(value, str):
        fail(TypeError, op, argument, f"be one of {', '.join(known)}", type(value).__name__)
    if value not in known:
        fail(ValueError, op, argument, f"be one of {', '.join(known)}", repr(value))
    return known[value]


def check_positive(op: str, argument: str, value: Any) -> None:
    """A positive, finite number."""
    _check_number(op, argument, value)
    if not (value > 0 and math.isfinite(value)):
        fail(ValueError, op, argument, "be positive and finite", value)


def check_fraction(op: str, argument: str, value: Any) -> None:
    """A tensor, or a number in [0, 1]."""
    if isinstance(value, Tensor):
        return
    _check_number(op, argument, value)
    if not 0 <= value <= 1:
        fail(ValueError, op, argument, "lie in [0, 1]", value)


def _check_number(op: str, argument: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        fail(TypeError, op, argument, "be a number", type(value).__name__)


def parameter_of(op: str, argument: str, value: Any, input: Tensor) -> Tensor:
    """A number or tensor as a tensor () or (N,) in the dtype of the state."""
    dtype = state_dtype(input)
    if not isinstance(value, Tensor):
        _check_number(op, argument, value)
        if not math.isfinite(value):
            fail(ValueError, op, argument, "be finite", value)
        return torch.full((), value, dtype=dtype, device=input.device)
    check_float(op, argument, value)
    check_device(op, argument, value, input)
    if value.dim() > 0 and value.shape != input.shape[-1:]:
        if value.numel() != 1:
            check_shape(op, argument, value, "() or (N,)", (input.shape[-1],))
        value = value.reshape(())
    return value.to(dtype)


def state_of(op: str, argument: str, value: Any, input: Tensor) -> Tensor:
    """A state (..., N) in its dtype."""
    check_float(op, argument, value)
    check_device(op, argument, value, input)
    check_shape(op, argument, value, "(..., N)", tuple(input.shape[1:]))
    return value.to(state_dtype(input))


def wants_gradient(*tensors: Tensor | None) -> bool:
    """Whether a backward may come: then the forward has to save for it."""
    if not torch.is_grad_enabled():
        return False
    if not torch.compiler.is_compiling() and _functorch_active():
        return True  # a transform outside hides that it wants one
    return any(t is not None and t.requires_grad for t in tensors)


class Layout(NamedTuple):
    """How a step (..., N) lies in memory.

    Attributes:
        shape: of a step.
        order: its axes from the outermost in memory to the innermost; None: as they are.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...] | None

    def steps(self, t: Tensor) -> Tensor:
        """(T, ..., N) as (T, R, P)."""
        if self.order is not None:
            return t.permute(0, *(1 + d for d in self.order)).flatten(1).unsqueeze(1)
        if t.dim() == 3:
            return t
        return t.unsqueeze(1) if t.dim() == 2 else t.flatten(1, -2)

    def state(self, t: Tensor) -> Tensor:
        """(..., N) as (R, P)."""
        return self.steps(t.unsqueeze(0)).squeeze(0)

    def parameter(self, t: Tensor) -> Tensor:
        """() or (N,) as () or (P,)."""
        if t.dim() == 0 or self.order is None:
            return t
        return t.expand(self.shape).permute(self.order).reshape(-1)  # the row is the whole step

    def back(self, t: Tensor) -> Tensor:
        """(T, R, P) as (T, ..., N)."""
        if self.order is None:
            return t if len(self.shape) == 2 else t.reshape(t.shape[:1] + self.shape)
        t = t.reshape(t.shape[0], *(self.shape[d] for d in self.order))
        place = {d: i for i, d in enumerate(self.order)}
        return t.permute(0, *(1 + place[d] for d in range(len(place))))

    def back_state(self, t: Tensor) -> Tensor:
        """(R, P) as (..., N)."""
        return self.back(t.unsqueeze(0)).squeeze(0)


def in_memory_order(input: Tensor) -> Layout:
    """The layout of the steps of ``input``; as they are, where they are not dense."""
    shape = input.shape[1:]
    axes = range(len(shape))
    if len(shape) == 1 or input.is_contiguous():
        return Layout(shape, None)
    strides = input.stride()[1:]
    if not all(isinstance(s, int) for s in (*strides, *shape)):
        return Layout(shape, None)  # traced: what is not known may not be asked
    order = tuple(sorted(axes, key=lambda d: strides[d], reverse=True))
    if order == tuple(axes):
        return Layout(shape, None)
    dense = 1
    for d in reversed(order):
        if shape[d] != 1 and strides[d] != dense:
            return Layout(shape, None)
        dense *= shape[d]
    return Layout(shape, order)
