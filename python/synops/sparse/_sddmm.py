"""sddmm: dense times dense at the entries of a Pattern, by the value gradient of sparse_linear."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._bilinear import _shape_only, autocast, autocast_enabled
from .._check import check_device, check_float, check_like, fail
from ._layout import PARTS_ROWS, layout
from ._pattern import Pattern
from ._pattern_ops import merge
from ._sparse_linear import _pair


def sddmm(
    mat1: Tensor,
    mat2: Tensor,
    pattern: Pattern,
    input: Tensor | None = None,
    *,
    beta: float = 1.0,
    alpha: float = 1.0,
    backend: str | None = None,
) -> Tensor:
    r"""Dense times dense, at the entries of a Pattern only, with gradients for both.

    .. math:: v_{oi} = \alpha \sum_k A_{ok} B_{ki} + \beta\, u_{oi}, \quad (o, i) \in
        \text{pattern}

    Same values as ``torch.sparse.sampled_addmm(csr, mat1, mat2, beta=beta, alpha=alpha)`` with the
    CSR tensor of ``pattern`` and ``input``; nothing of size out x in is allocated. Differentiable
    to any order; forward-mode AD is refused.

    Args:
        mat1: ``(out, k)``, float32, float64, bfloat16 or float16.
        mat2: ``(k, in)``, dtype of ``mat1``.
        pattern: :class:`Pattern` of shape ``(out, in)``.
        input: ``(nnz,)`` (``(capacity,)`` if the Pattern has one), added ``beta`` times; optional.
        beta, alpha: factors, as in torch.
        backend: as in :func:`sparse_linear`.

    Returns:
        ``(nnz,)`` (``(capacity,)`` if the Pattern has one, zero behind ``nnz``), in CSR order,
        dtype of ``mat1``. Sums are in float32 (float64 for float64).

    Raises:
        TypeError: not tensors, not a Pattern, or dtypes differ.
        ValueError: a shape or device does not match.
        RuntimeError: ``backend`` cannot run here.

    Source: T. Gale et al., "Sparse GPU Kernels for Deep Learning", SC 2020, arXiv:2006.10901.
    """
    if autocast_enabled():
        mat1, mat2, input = autocast(mat1, mat2, input)  # type: ignore[assignment]
    _check_args(mat1, mat2, pattern, input)
    if pattern.parts is not None and mat1.shape[1] >= PARTS_ROWS:
        blocks, rest, select = pattern.parts
        dtype = mat1.dtype
        if dtype in (torch.bfloat16, torch.float16):  # rounds the sum of both gradients, once
            mat1, mat2 = mat1.float(), mat2.float()
        products = (_product(mat1, mat2, part, part.nnz, backend) for part in (blocks, rest))
        values = merge(*products, select, backend=backend).to(dtype)
        values = torch.nn.functional.pad(values, (0, pattern.capacity - pattern.nnz))
    else:
        values = _product(mat1, mat2, pattern, pattern.capacity, backend)
    if alpha != 1:
        values = values * alpha
    if input is None or beta == 0:
        return values
    tail = pattern.capacity - pattern.nnz  # not read
    if tail:
        input = torch.nn.functional.pad(input[: pattern.nnz], (0, tail))
    return values + input * beta


def _product(
    mat1: Tensor, mat2: Tensor, pattern: Pattern, length: int, backend: str | None
) -> Tensor:
    like = _shape_only(mat1.new_empty(length))  # values are not read for their own gradient
    needs = (False, True, False)
    return _pair.backward(mat1.t(), mat2, like, *pattern.args, *needs, backend=backend)[1]


def route(mat1: Tensor, mat2: Tensor, pattern: Pattern, *rest: Any, **options: Any) -> Any:
    """Never dense; which layout is read."""
    why = f"density {pattern.density:.3g}"
    if mat1.device.type == "cpu":
        why += f", {layout(pattern, mat1.shape[1], mat1.dtype)}"
    return False, why


def _check_args(mat1: Tensor, mat2: Tensor, pattern: Pattern, input: Tensor | None) -> None:
    op = "sddmm"
    check_float(op, "mat1", mat1)
    if not isinstance(pattern, Pattern):
        fail(TypeError, op, "pattern", "be a synops.sparse.Pattern", type(pattern).__name__)
    check_like(op, "mat2", mat2, mat1, "mat1")
    check_device(op, "pattern", pattern.col, mat1, "mat1")
    rows, cols = pattern.shape
    if mat1.dim() != 2 or mat1.shape[0] != rows:
        fail(ValueError, op, "mat1", f"have shape (out, k) = ({rows}, k)", tuple(mat1.shape))
    if mat2.dim() != 2 or mat2.shape != (mat1.shape[1], cols):
        rule = f"have shape (k, in) = {(mat1.shape[1], cols)}"
        fail(ValueError, op, "mat2", rule, tuple(mat2.shape))
    if input is not None:
        check_like(op, "input", input, mat1, "mat1")
        if input.dim() != 1 or input.shape[0] != pattern.capacity:
            rule = f"have shape (nnz,) = ({pattern.capacity},)"
            fail(ValueError, op, "input", rule, tuple(input.shape))
