"""masked_linear: a linear layer with a dense weight behind a mask."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from .. import _backend
from .._bilinear import BilinearOp, autocast, autocast_enabled, on_rows
from .._check import (
    check_device,
    check_float,
    check_like,
    check_linear,
    check_shape,
    check_tensor,
    dtype_name,
    fail,
)
from .._library import traced
from ._pattern import Pattern
from ._sparse_linear import DENSE_ABOVE
from ._sparse_linear import _op as _sparse_linear

_op = BilinearOp("masked_linear", lambda weight, mask: weight.shape[0]).forward


def masked_linear(
    input: Tensor,
    weight: Tensor,
    mask: Tensor | Pattern,
    bias: Tensor | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    r"""Linear layer whose weight is kept where a mask is True, without forming the masked weight.

    .. math:: y = x (W \odot M)^\top + b

    Same result as ``F.linear(input, weight * mask, bias)``, except that a masked-out weight is
    never read: a NaN or inf there does no harm. The gradient of ``weight`` is dense and zero
    outside the mask. Differentiable to any order; forward-mode AD is refused.

    Args:
        input: ``(..., in)``, float32, float64, bfloat16 or float16.
        weight: ``(out, in)``, dtype of ``input``. A Parameter or a tensor computed from others.
        mask: ``(out, in)``, bool, indexed anew at every call; or a :class:`Pattern`, which is
            indexed once and is the fast form. Not differentiable.
        bias: ``(out,)``, dtype of ``input``, optional.
        backend: ``"auto"``, ``"cpp"``, ``"triton"`` or ``"reference"``; default as chosen by
            :func:`synops.backend`.

    Returns:
        ``(..., out)``, dtype of ``input``. Sums are in float32 (float64 for float64).

    Raises:
        TypeError: not tensors, a mask that is not bool, or dtypes that differ.
        ValueError: a shape or device does not match.
        RuntimeError: ``backend`` cannot run here.

    Speed: on the CPU above density .6 the dense product is faster and is what runs
    (``synops.which`` tells); inside torch.compile this is decided for a Pattern only. A weight
    that is stored sparse (:func:`sparse_linear`) saves reading and writing ``(out, in)`` on top.

    Source: the masked layer of J. Frankle and M. Carbin, "The Lottery Ticket Hypothesis", ICLR
    2019, arXiv:1803.03635, and of every dynamic sparse training method since.
    """
    if autocast_enabled():
        input, weight, bias = autocast(input, weight, bias)  # type: ignore[assignment]
    _check_args(input, weight, mask, bias)
    dense, _ = route(input, weight, mask, bias, backend=backend)
    if isinstance(mask, Pattern):
        if dense:
            return linear(input, mask.scatter(mask.gather(weight)), bias)
        values = mask.gather(weight, backend=backend)
        return on_rows(
            lambda rows: _sparse_linear(rows, values, bias, *mask.args, 0, False, backend=backend),
            input,
        )
    if dense:
        return linear(input, torch.where(mask, weight, 0), bias)
    return on_rows(lambda rows: _op(rows, weight, bias, mask, backend=backend), input)


def route(
    input: Tensor,
    weight: Tensor,
    mask: Tensor | Pattern,
    bias: Tensor | None = None,
    *,
    backend: str | None = None,
) -> tuple[bool, str]:
    """Whether a call takes the dense product, and why."""
    if input.device.type != "cpu" or _backend.requested(backend) != "auto":
        return False, "the dense product is considered on the CPU and by backend 'auto' only"
    if isinstance(mask, Pattern):
        density = mask.density
    elif traced(mask):
        return False, "the density of a bool mask is not known while tracing"
    else:
        density = int(mask.count_nonzero()) / max(1, mask.numel())
    relation = "above" if density > DENSE_ABOVE else "not above"
    return density > DENSE_ABOVE, f"density {density:.3g} is {relation} {DENSE_ABOVE}"


def _check_args(input: Tensor, weight: Tensor, mask: Tensor | Pattern, bias: Tensor | None) -> None:
    op = "masked_linear"
    check_float(op, "input", input)
    check_like(op, "weight", weight, input)
    if weight.dim() != 2:
        fail(ValueError, op, "weight", "have 2 dimensions (out, in)", tuple(weight.shape))
    shape = (weight.shape[0], weight.shape[1])
    check_linear(op, input, bias, shape)
    if isinstance(mask, Pattern):
        if mask.shape != shape:
            fail(ValueError, op, "mask", f"have shape (out, in) = {shape}", mask.shape)
        check_device(op, "mask", mask.col, input)
        return
    check_tensor(op, "mask", mask)
    if mask.dtype != torch.bool:
        fail(TypeError, op, "mask", "be bool or a Pattern", dtype_name(mask.dtype))
    check_shape(op, "mask", mask, "(out, in)", shape)
    check_device(op, "mask", mask, input)
