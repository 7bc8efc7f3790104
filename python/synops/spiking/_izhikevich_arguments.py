"""What izhikevich is given, checked: each argument as the op takes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._check import check_device, check_float, check_shape, check_tensor, dtype_name, fail
from .._library import traced
from ..sparse import Pattern
from ._neurons import _check_number

OP = "izhikevich"
RECORDS = ("indices", "bits", "raster", "v", "traces")
MOST_DELAY = 1 << 16


def check_synapses(values: Any, pattern: Any) -> None:
    """values (nnz,) of a square Pattern."""
    if not isinstance(pattern, Pattern):
        fail(TypeError, OP, "pattern", "be a synops.sparse.Pattern", type(pattern).__name__)
    if pattern.shape[0] != pattern.shape[1]:
        fail(ValueError, OP, "pattern", "be square, (N, N)", pattern.shape)
    check_float(OP, "values", values)
    if values.dim() != 1 or values.shape[0] not in (pattern.nnz, pattern.capacity):
        rule = f"have shape (nnz,) = ({pattern.nnz},)"
        fail(ValueError, OP, "values", rule, tuple(values.shape))
    check_device(OP, "values", values, pattern.col, "the Pattern")


def check_sign(sign: Any, values: Tensor, pattern: Pattern) -> None:
    """Dale's law: no weight of a neuron has the other sign than the neuron."""
    check_tensor(OP, "sign", sign)
    check_shape(OP, "sign", sign, "(N,)", pattern.shape[1:])
    check_device(OP, "sign", sign, values, "values")
    if traced(sign) or traced(values):
        return
    if not bool((sign.abs() == 1).all()):
        fail(ValueError, OP, "sign", "be 1 or -1 for each neuron", sign.unique().tolist()[:5])
    weights = values[: pattern.nnz]
    wrong = weights * sign[pattern.col.long()] < 0
    if bool(wrong.any()):
        at = int(wrong.int().argmax())
        rule = f"have the sign of their pre-synaptic neuron ({int(pattern.col[at])} at entry {at})"
        fail(ValueError, OP, "values", rule, float(weights[at]))


def positive(argument: str, value: Any) -> float:
    """A positive, finite number."""
    _check_number(OP, argument, value)
    if not (value > 0 and math.isfinite(value)):
        fail(ValueError, OP, argument, "be positive and finite", value)
    return float(value)


def finite(argument: str, value: Any) -> float:
    """A finite number."""
    _check_number(OP, argument, value)
    if not math.isfinite(value):
        fail(ValueError, OP, argument, "be finite", value)
    return float(value)


def parameter(argument: str, value: Any, like: Tensor, neurons: int) -> Tensor:
    """A number or (N,) as (N,), in the dtype and on the device of ``like``."""
    if not isinstance(value, Tensor):
        return like.new_full((neurons,), finite(argument, value))
    check_float(OP, argument, value)
    check_device(OP, argument, value, like, "values")
    if value.numel() == 1 and value.dim() == 0:
        return value.to(like.dtype).expand(neurons)
    check_shape(OP, argument, value, "(N,)", (neurons,))
    return value.to(like.dtype)


def array(argument: str, value: Any, like: Tensor, names: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor of this shape, in the dtype of ``like``."""
    check_float(OP, argument, value)
    check_device(OP, argument, value, like, "values")
    check_shape(OP, argument, value, names, shape)
    return value.to(like.dtype)


def steps_of(steps: Any, input: Tensor | None) -> int:
    """How many steps there are."""
    if steps is None:
        if input is None:
            fail(TypeError, OP, "steps", "be given where there is no input", None)
        return input.shape[0]
    if isinstance(steps, bool) or not isinstance(steps, int):
        fail(TypeError, OP, "steps", "be an int", type(steps).__name__)
    if steps < 0:
        fail(ValueError, OP, "steps", "not be negative", steps)
    if input is not None and input.shape[0] != steps:
        fail(ValueError, OP, "steps", f"be the {input.shape[0]} of the input, or None", steps)
    return steps


def delay_of(delay: Any, like: Tensor, neurons: int, pending: Any) -> tuple[int, Tensor | None]:
    """The longest delay, and one for each neuron where they differ."""
    if isinstance(delay, Tensor):
        check_tensor(OP, "delay", delay)
        if delay.dtype not in (torch.int32, torch.int64):
            fail(TypeError, OP, "delay", "be an int, or int32 or int64", dtype_name(delay.dtype))
        check_shape(OP, "delay", delay, "(N,)", (neurons,))
        check_device(OP, "delay", delay, like, "values")
        if traced(delay):
            if pending is None:
                rule = "be a number, or come with state.pending, where it is traced"
                fail(ValueError, OP, "delay", rule, tuple(delay.shape))
            return pending.shape[0] + 1, delay.to(torch.int32)
        least, most = (int(m) for m in delay.aminmax()) if neurons else (1, 1)
        if least < 1 or most > MOST_DELAY:
            rule = f"lie in [1, {MOST_DELAY}] steps"
            fail(ValueError, OP, "delay", rule, least if least < 1 else most)
        if pending is not None and isinstance(pending, Tensor) and pending.dim():
            most = max(most, pending.shape[0] + 1)  # room that an earlier run had
        return most, delay.to(torch.int32).contiguous()
    if isinstance(delay, bool) or not isinstance(delay, int):
        fail(TypeError, OP, "delay", "be an int or a tensor (N,)", type(delay).__name__)
    if not 1 <= delay <= MOST_DELAY:
        fail(ValueError, OP, "delay", f"lie in [1, {MOST_DELAY}] steps", delay)
    return delay, None


def records_of(record: Any) -> frozenset[str]:
    """The names of what is to be recorded."""
    names = (record,) if isinstance(record, str) else () if record is None else record
    if not isinstance(names, Sequence | set | frozenset):
        fail(TypeError, OP, "record", f"be of {', '.join(RECORDS)}", type(record).__name__)
    for name in names:
        if name not in RECORDS:
            fail(ValueError, OP, "record", f"be of {', '.join(RECORDS)}", repr(name))
    return frozenset(names)


def chosen_of(neurons: Any, like: Tensor, count: int) -> Tensor | None:
    """Indices of neurons, int64."""
    if neurons is None:
        return None
    neurons = torch.as_tensor(neurons, device=like.device)
    if neurons.dtype not in (torch.int32, torch.int64) or neurons.dim() != 1:
        got = f"{dtype_name(neurons.dtype)} of shape {tuple(neurons.shape)}"
        fail(ValueError, OP, "neurons", "be indices of neurons, one dimension", got)
    inside = traced(neurons) or bool(((neurons >= 0) & (neurons < count)).all())
    if not inside:
        fail(ValueError, OP, "neurons", f"lie in [0, {count})", neurons.tolist()[:8])
    return neurons.long().contiguous()
