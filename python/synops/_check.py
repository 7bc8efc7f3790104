"""Argument checks with one message form: ``<op>: <argument> must <rule>, got <value>``."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

# These run on every call. So names are looked up once, and a tensor is asked as little as can be:
# t.shape takes 0.08 us, t.size(0) 0.17, t.dtype and t.layout 0.04, t.is_cpu 0.04, t.device 0.06.
_STRIDED = torch.strided
FLOATS = frozenset((torch.float32, torch.float64, torch.bfloat16, torch.float16))


def fail(error: type[Exception], op: str, argument: str, rule: str, got: Any) -> NoReturn:
    """Raises ``error`` with the message of the library."""
    raise error(f"{op}: {argument} must {rule}, got {got}")


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def check_tensor(op: str, argument: str, value: Any) -> None:
    """A torch.Tensor with strides (not sparse, not quantised)."""
    if not isinstance(value, Tensor):
        fail(TypeError, op, argument, "be a torch.Tensor", type(value).__name__)
    if value.layout is not _STRIDED:
        fail(TypeError, op, argument, "be a strided tensor", str(value.layout))


def check_float(op: str, argument: str, value: Any) -> None:
    """A tensor of one of the floating point types the kernels take."""
    check_tensor(op, argument, value)
    if value.dtype not in FLOATS:
        fail(
            TypeError,
            op,
            argument,
            "be float32, float64, bfloat16 or float16",
            dtype_name(value.dtype),
        )


def check_like(op: str, argument: str, value: Any, like: Tensor, name: str = "input") -> None:
    """A tensor with the dtype and on the device of ``like``."""
    if not isinstance(value, Tensor) or value.layout is not _STRIDED:
        check_tensor(op, argument, value)
    if value.dtype is not like.dtype:
        rule = f"have the dtype of {name} ({dtype_name(like.dtype)})"
        fail(TypeError, op, argument, rule, dtype_name(value.dtype))
    if not (value.is_cpu and like.is_cpu):
        check_device(op, argument, value, like, name)


def check_device(op: str, argument: str, value: Tensor, like: Tensor, name: str = "input") -> None:
    """On the device of ``like``."""
    if not (value.is_cpu and like.is_cpu) and value.device != like.device:
        fail(ValueError, op, argument, f"be on the device of {name} ({like.device})", value.device)


def check_shape(op: str, argument: str, value: Tensor, names: str, shape: tuple[int, ...]) -> None:
    """Of exactly this shape; ``names`` are its axes, as in ``(out, in)``."""
    if value.shape != shape:
        got = tuple(value.shape)
        fail(ValueError, op, argument, f"have shape {names} = {tuple(shape)}", got)


def check_linear(op: str, input: Tensor, bias: Tensor | None, shape: tuple[int, int]) -> None:
    """input (..., in) and bias (out,) of a linear layer with a weight of shape (out, in)."""
    out_features, in_features = shape
    size = input.shape
    if not size or size[-1] != in_features:
        rule = f"have shape (..., in) = (..., {in_features})"
        fail(ValueError, op, "input", rule, tuple(size))
    if bias is not None:
        check_like(op, "bias", bias, input)
        check_shape(op, "bias", bias, "(out,)", (out_features,))
