"""Tensors with one number a token: their checks, their padding, and sums over one process or all.

Nothing here asks the device for a value, so that nothing waits for it: counts stay tensors, and
what a mask leaves out is replaced, not multiplied by 0 (NaN and inf times 0 are NaN).
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from .._check import check_device, check_float, check_shape, check_tensor, dtype_name, fail

# of processes; None is this process alone
Group: TypeAlias = "dist.ProcessGroup | None"


def check_tokens(op: str, logprob: Tensor, mask: Tensor, **others: Any) -> None:
    """Floating point tensors of one shape with at least one axis, and a real mask of that shape."""
    check_float(op, "logprob", logprob)
    if logprob.dim() == 0:
        fail(ValueError, op, "logprob", "have shape (..., tokens)", "()")
    for name, value in others.items():
        check_float(op, name, value)
        _check_like(op, name, value, logprob)
    check_mask(op, "mask", mask)
    _check_like(op, "mask", mask, logprob)


def check_mask(op: str, argument: str, mask: Any) -> None:
    """A tensor of bool, or of real numbers."""
    check_tensor(op, argument, mask)
    if mask.is_complex():
        fail(TypeError, op, argument, "be bool or real", dtype_name(mask.dtype))


def _check_like(op: str, argument: str, value: Tensor, logprob: Tensor) -> None:
    check_device(op, argument, value, logprob, "logprob")
    check_shape(op, argument, value, "logprob.shape", tuple(logprob.shape))


def check_number(
    op: str, argument: str, value: Any, rule: str, holds: Callable[[Any], bool]
) -> None:
    """A real number that ``holds``; NaN holds no comparison."""
    if isinstance(value, bool) or not isinstance(value, Real):
        fail(TypeError, op, argument, "be a number", type(value).__name__)
    if not holds(value):
        fail(ValueError, op, argument, rule, value)


def check_choice(op: str, argument: str, value: Any, known: tuple[str, ...]) -> None:
    """One of the names in ``known``."""
    if not isinstance(value, str):
        fail(TypeError, op, argument, f"be one of {', '.join(known)}", type(value).__name__)
    if value not in known:
        fail(ValueError, op, argument, f"be one of {', '.join(known)}", repr(value))


def check_generator(op: str, generator: Any, like: Tensor) -> None:
    """None, or a torch.Generator of the device of ``like``."""
    if generator is None:
        return
    if not isinstance(generator, torch.Generator):
        fail(TypeError, op, "generator", "be a torch.Generator", type(generator).__name__)
    if generator.device.type != like.device.type:
        fail(ValueError, op, "generator", f"be of the device {like.device}", generator.device)


def check_group(op: str, group: Any) -> Group:
    """None for this process alone, True for all processes, or a group that this one is in."""
    if group is None or group is False:
        return None
    rule = "be None, True or a torch.distributed.ProcessGroup"
    if not dist.is_available() or not (group is True or isinstance(group, dist.ProcessGroup)):
        fail(TypeError, op, "group", rule, type(group).__name__)
    if not dist.is_initialized():
        fail(ValueError, op, "group", "come after torch.distributed.init_process_group", group)
    world = dist.group.WORLD if group is True else group
    if dist.get_rank(world) < 0:
        fail(ValueError, op, "group", "have this process as a member", group)
    return world


def bits_of(valid: Tensor, dtype: torch.dtype) -> Tensor:
    """All bits where valid and none where not, as integers of the size of ``dtype``."""
    return -valid.to(torch.int64 if dtype == torch.float64 else torch.int32)


def padded(value: Tensor, bits: Tensor) -> Tensor:
    """``value`` as float32 or float64 (as wide as ``bits``), 0 where not valid. No gradient.

    By bits, as torch.where is slow on the CPU: 0.8 ms for 262144 tokens, this 0.05.
    """
    dtype = torch.float64 if bits.dtype == torch.int64 else torch.float32
    return (value.detach().to(dtype).view(bits.dtype) & bits).view(dtype)


def sum_dtype(*values: Tensor) -> torch.dtype:
    """float64 if one of the tensors is, float32 for any other."""
    return torch.float64 if any(v.dtype == torch.float64 for v in values) else torch.float32


def total(value: Tensor, group: Group, op: Any = None) -> Tensor:
    """Sum (or another reduction ``op``) over the processes of ``group``."""
    if group is None:
        return value
    value = value.clone()
    dist.all_reduce(value, dist.ReduceOp.SUM if op is None else op, group)
    return value
