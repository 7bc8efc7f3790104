"""What the reservoirs share: checks of weights, inputs and states, and runs in pieces.

An op sees (T, B, K), everything in the type of the state; a sequence by itself, (T, K), is a batch
of one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._check import check_device, check_float, check_shape, fail
from .._library import traced
from ..sparse import Pattern
from ._chunks import chunks
from ._neurons import state_dtype, wants_gradient


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


def weight_of(op: str, argument: str, value: Any, shape: tuple[int, ...], names: str, u: Tensor):
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


def check_washout(op: str, record: Any, washout: Any, steps: Any) -> Any:
    """How many of the first steps are not recorded."""
    if record not in ("states", "last"):
        fail(ValueError, op, "record", "be one of states, last", repr(record))
    try:
        washout = washout if isinstance(washout, torch.SymInt) else operator.index(washout)
    except TypeError:
        fail(TypeError, op, "washout", "be an integer", type(washout).__name__)
    if washout < 0:
        fail(ValueError, op, "washout", "not be negative", washout)
    return steps if record == "last" else washout


def run_in_pieces(
    whole: Callable[[], tuple[Tensor, ...]],
    piece: Callable[[Tensor, Tensor, Tensor, Any], None],
    u: Tensor,
    state: Tensor | None,
    rows: int,
    washout: Any,
    cost: Callable[[], float],
    given: tuple[Tensor | None, ...],
) -> tuple[Tensor, ...]:
    """A run that Ctrl-C stops within a second: in place, piece after piece, where it is long.

    Args:
        whole: the run in one call.
        piece: ``piece(states, state, u, washout)``, the next steps, written into ``states``.
        u: (T, B, K).
        cost: of a step, in nanoseconds.
        given: what may need a gradient; then the run is one call, which refuses it.
    """
    pieces = list(chunks(u.shape[0], cost())) if not traced(u) else []
    if len(pieces) <= 1 or wants_gradient(*given):
        return whole()
    batch = u.shape[1]
    recorded = max(0, u.shape[0] - washout)
    states = u.new_empty((recorded, batch, rows))
    last = u.new_zeros((batch, rows)) if state is None else state.clone()
    for begin, end in pieces:
        left = max(0, washout - begin)
        first = max(0, begin - washout)
        piece(states[first : max(0, end - washout)], last, u[begin:end], left)
    return states, last
