"""What the reservoirs share: checks of weights, inputs and states, and runs in pieces.

An op sees (T, B, K), everything in the type of the state; a sequence by itself, (T, K), is a batch
of one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._check import check_device, check_float, check_shape, fail
from .._chunks import chunks
from .._library import traced
from ..sparse import Pattern
from ._neurons import check_choice, state_dtype, wants_gradient


def check_input(op: str, input: Tensor) -> Tensor:
    """(T, K) or (T, B, K) as (T, B, K) in the type of the state."""
    check_float(op, "input", input)
    if input.dim() not in (2, 3):
        fail(ValueError, op, "input", "have shape (T, K) or (T, B, K)", tuple(input.shape))
    wide = input.to(state_dtype(input))
    return wide.unsqueeze(1) if input.dim() == 2 else wide


def check_pattern(op: str, argument: str, pattern: Any, input: Tensor) -> None:
    """A Pattern on the device of the input."""
    if not isinstance(pattern, Pattern):
        rule = "be a synops.sparse.Pattern"
        fail(TypeError, op, argument, rule, type(pattern).__name__)
    check_device(op, argument, pattern.col, input)


def weight_of(
    op: str, argument: str, value: Any, shape: tuple[int, ...], names: str, u: Tensor
) -> Tensor:
    """A tensor of this shape in the type of the state."""
    check_float(op, argument, value)
    check_device(op, argument, value, u)
    check_shape(op, argument, value, names, shape)
    return value.to(u.dtype)


def values_of(op: str, argument: str, value: Any, pattern: Pattern, u: Tensor) -> Tensor:
    """The values of a Pattern, in the type of the state."""
    check_float(op, argument, value)
    check_device(op, argument, value, u)
    if value.dim() != 1 or value.shape[0] not in (pattern.nnz, pattern.capacity):
        rule = f"have shape (nnz,) = ({pattern.nnz},)"
        fail(ValueError, op, argument, rule, tuple(value.shape))
    return value.to(u.dtype)


def check_washout(op: str, record: Any, washout: Any, steps: Any, every: str = "states") -> Any:
    """How many of the first steps are not recorded; ``every`` step may be, or the last."""
    check_choice(op, "record", record, {every: 0, "last": 1})
    try:
        washout = washout if isinstance(washout, torch.SymInt) else operator.index(washout)
    except TypeError:
        fail(TypeError, op, "washout", "be an integer", type(washout).__name__)
    if washout < 0:
        fail(ValueError, op, "washout", "not be negative", washout)
    return steps if record == "last" else washout


class Part(NamedTuple):
    """Steps [begin, end) of a long run, where they are recorded, and how many of them are not."""

    begin: int
    end: int
    out: Tensor
    washout: int


class Pieces(NamedTuple):
    """A long run: what its parts write into, one after the other."""

    recorded: Tensor
    state: Tensor
    parts: list[Part]


def in_pieces(
    u: Tensor,
    state: Tensor | None,
    rows: int,
    washout: Any,
    cost: Callable[[], float],
    given: tuple[Tensor | None, ...],
) -> Pieces | None:
    """The pieces of a run (T, B, K) that Ctrl-C is to stop within a second; None for one call.

    Args:
        cost: of a step, in nanoseconds.
        given: what may need a gradient, which one call refuses.
    """
    if traced(u) or wants_gradient(*given):
        return None
    steps, batch = u.shape[:2]
    pieces = list(chunks(steps, cost()))
    if len(pieces) == 1:
        return None
    recorded = u.new_empty((max(0, steps - washout), batch, rows))
    last = u.new_zeros((batch, rows)) if state is None else state.clone()
    parts = []
    for begin, end in pieces:
        out = recorded[max(0, begin - washout) : max(0, end - washout)]
        parts.append(Part(begin, end, out, max(0, washout - begin)))
    return Pieces(recorded, last, parts)
