"""sparse_linear: a linear layer whose weight exists at the entries of a Pattern only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, relu

from .._bilinear import BilinearOp, autocast, autocast_enabled, on_rows
from .._check import check_device, check_float, check_like, check_linear, fail
from .._library import _functorch_active
from ._layout import PARTS_ROWS, layout
from ._pattern import Pattern
from ._pattern_ops import split

# Forward and backward together against the dense product, one AVX-512 thread, 128 x 1024 x 1024:
# .91 of its time at density .5, 1.12 at .6, 1.34 at .7; behind a mask .76, 1.06 and 1.23.
DENSE_ABOVE = 0.6

# Their places are the codes of the op.
ACTIVATIONS = (None, "relu", "gelu")

_pair = BilinearOp("sparse_linear", lambda values, crow, *_: crow.shape[0] - 1, options=True)
_op = _pair.forward


def sparse_linear(
    input: Tensor,
    values: Tensor,
    pattern: Pattern,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    feature_major: bool = False,
    backend: str | None = None,
) -> Tensor:
    r"""Linear layer with a sparse weight, its gradient sparse as well.

    .. math:: y_{bo} = \sum_{(o, i) \in \text{pattern}} x_{bi} w_{oi} + b_o

    Same result as ``F.linear(input, pattern.scatter(values), bias)``, which writes the weight out.
    Here nothing of size out x in is allocated, forward or backward: the gradient of ``values`` has
    the shape of ``values``. Differentiable to any order; forward-mode AD is refused.

    Args:
        input: ``(..., in)``, float32, float64, bfloat16 or float16.
        values: ``(nnz,)`` (``(capacity,)`` if the Pattern has one), dtype of ``input``: the weight
            at the kept entries in CSR order. An ordinary 1-D tensor; every optimizer takes it.
        pattern: :class:`Pattern` of shape ``(out, in)``, on the device of ``input``.
        bias: ``(out,)``, dtype of ``input``, optional.
        activation: ``"relu"`` or ``"gelu"`` (the exact one) of the result: ``F.relu``, ``F.gelu``.
            Without gradients it is part of the product's write-out.
        feature_major: the memory of the result is ``(out, ...)``, its shape and values are the
            same. An ``input`` in that layout is read as it is, and so is its gradient written
            (where the values are trained, too): a chain of sparse layers and elementwise functions
            transposes at its two ends only.
        backend: ``"auto"``, ``"cpp"``, ``"triton"`` or ``"reference"``; default as chosen by
            :func:`synops.backend`.

    Returns:
        ``(..., out)``, dtype of ``input``. Sums are in float32 (float64 for float64).

    Raises:
        TypeError: not tensors, not a Pattern, or dtypes differ.
        ValueError: a shape or device does not match.
        RuntimeError: ``backend`` cannot run here.

    Speed: the time follows the number of entries. On one core, 128 x 1024 x 1024 against
    ``F.linear`` on
    the finished dense weight: 3.5x at density .2, 6x at .1, 10x at .05, 27x at .01 (docs and
    ``python -m synops bench sparse`` have this machine's); above density .6 the dense product is
    faster.

    Source: SpMM and SDDMM of T. Gale et al., "Sparse GPU Kernels for Deep Learning", SC 2020,
    arXiv:2006.10901, as ops for training.
    """
    if autocast_enabled():
        input, values, bias = autocast(input, values, bias)  # type: ignore[assignment]
    _check_args(input, values, pattern, bias)
    if feature_major is not True and feature_major is not False:
        fail(TypeError, "sparse_linear", "feature_major", "be a bool", feature_major)
    if activation is None:
        fused, after = 0, None
    else:
        fused, after = _activation(activation, pattern, input, values, bias)
    if pattern.parts is not None and input.numel() >= PARTS_ROWS * input.size(-1):
        output = _in_parts(input, values, pattern, bias, feature_major, backend)
    elif input.dim() == 2:  # not through on_rows: 0.4 us
        output = _op(input, values, bias, *pattern.args, fused, feature_major, backend=backend)
    else:
        output = on_rows(
            lambda rows: _op(
                rows, values, bias, *pattern.args, fused, feature_major, backend=backend
            ),
            input,
        )
    return output if after is None else after(output)


def _in_parts(
    input: Tensor,
    values: Tensor,
    pattern: Pattern,
    bias: Tensor | None,
    feature_major: bool,
    backend: str | None,
) -> Tensor:
    """The product of the blocks of a Pattern, plus that of its other entries."""
    blocks, rest, select = pattern.parts  # type: ignore[misc]
    dtype = input.dtype
    if dtype in (torch.bfloat16, torch.float16):  # what is rounded is the sum, once
        input, values = input.float(), values.float()
        bias = None if bias is None else bias.float()
    selected, others = split(values, select, blocks.nnz, backend=backend)

    def product(rows: Tensor) -> Tensor:
        options = (0, feature_major)
        first = _op(rows, selected, bias, *blocks.args, *options, backend=backend)
        return first + _op(rows, others, None, *rest.args, *options, backend=backend)

    return on_rows(product, input).to(dtype)


def _activation(
    activation: str, pattern: Pattern, *tensors: Tensor | None
) -> tuple[int, Callable[[Tensor], Tensor] | None]:
    """The code for the op and what is left to do after it: one of the two does the work."""
    if activation not in ACTIVATIONS:
        fail(ValueError, "sparse_linear", "activation", "be 'relu', 'gelu' or None", activation)
    needs_gradient = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in tensors
    )
    if needs_gradient or _functorch_active() or pattern.parts is not None:
        return 0, relu if activation == "relu" else gelu
    return ACTIVATIONS.index(activation), None


def route(
    input: Tensor,
    values: Tensor,
    pattern: Pattern,
    bias: Tensor | None = None,
    **options: Any,
) -> tuple[bool, str]:
    """Never dense; says which layout the product goes by, and when the dense product would be
    faster (for ``synops.which``)."""
    why = f"density {pattern.density:.3g}"
    if input.device.type == "cpu":
        rows = input.numel() // max(1, input.shape[-1])
        why += f", {layout(pattern, rows, input.dtype)}"
        if pattern.density > DENSE_ABOVE and pattern.block == (1, 1) and pattern.parts is None:
            why += f"; slower than dense above density {DENSE_ABOVE}, which masked_linear takes"
    return False, why


def _check_args(input: Tensor, values: Tensor, pattern: Pattern, bias: Tensor | None) -> None:
    op = "sparse_linear"
    check_float(op, "input", input)
    if not isinstance(pattern, Pattern):
        fail(TypeError, op, "pattern", "be a synops.sparse.Pattern", type(pattern).__name__)
    check_linear(op, input, bias, pattern.shape)
    check_like(op, "values", values, input)
    if values.dim() != 1 or values.size(0) != pattern.capacity:
        name = "nnz" if pattern.capacity == pattern.nnz else "capacity"
        rule = f"have shape ({name},) = ({pattern.capacity},)"
        fail(ValueError, op, "values", rule, tuple(values.shape))
    check_device(op, "pattern", pattern.col, input)
