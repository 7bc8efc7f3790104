"""Between a SparseLinear and a dense layer: what is read of one, and checked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .._check import check_shape, check_tensor, dtype_name, fail
from ..sparse import Pattern
from ._pruned import masked


def weight_and_mask(op: str, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """The weight that the layer would use now, and its non-zero (or unmasked) entries."""
    found = masked(linear, "weight")
    if found is not None:
        return found
    if isinstance(getattr(linear, "weight_g", None), Tensor):
        fail(ValueError, op, "linear", "be without weight_norm (remove it first)", linear)
    if getattr(linear, "weight_orig", None) is not None:
        fail(ValueError, op, "linear", "be without spectral_norm (remove it first)", linear)
    return linear.weight, linear.weight != 0


def bias_of(linear: nn.Linear) -> tuple[Tensor | None, bool]:
    """A copy of the bias that the layer would use now, and whether it is trained."""
    found = masked(linear, "bias")
    if found is not None:
        return found.finished, found.original.requires_grad
    if linear.bias is None:
        return None, False
    return linear.bias.detach().clone(), linear.bias.requires_grad


def as_pattern(
    pattern: Any, shape: tuple[int, ...], op: str = "SparseLinear", name: str = "pattern"
) -> Pattern:
    """A Pattern of this shape, from one or from a mask; without entries for "infer"."""
    if isinstance(pattern, str):
        if pattern != "infer":
            fail(ValueError, op, name, "be a Pattern, a bool mask or 'infer'", repr(pattern))
        return Pattern.from_mask(torch.zeros(shape, dtype=torch.bool, device="cpu"))
    if isinstance(pattern, Pattern):
        if pattern.shape != shape:
            fail(ValueError, op, name, f"have shape (out, in) = {shape}", pattern.shape)
        return pattern
    check_tensor(op, name, pattern)
    if pattern.dtype != torch.bool:
        fail(TypeError, op, name, "be a Pattern or a bool mask", dtype_name(pattern.dtype))
    check_shape(op, name, pattern, "(out, in)", shape)
    return Pattern.from_mask(pattern)


def padded(pattern: Pattern, values: Tensor) -> Tensor:
    """values (nnz,) with zeros up to the capacity of the pattern."""
    return nn.functional.pad(values, (0, pattern.capacity - pattern.nnz))
