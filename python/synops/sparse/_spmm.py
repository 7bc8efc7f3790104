"""spmm: sparse matrix times dense matrix, by the product of sparse_linear."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .._bilinear import autocast, autocast_enabled
from .._check import check_float, check_like, fail
from ._pattern import Pattern
from ._sparse_linear import route as _route
from ._sparse_linear import sparse_linear


def spmm(values: Tensor, pattern: Pattern, dense: Tensor, *, backend: str | None = None) -> Tensor:
    r"""Product of a sparse matrix and a dense one, with gradients for both.

    .. math:: Y = W X, \quad W_{oi} = \text{values at } (o, i)

    Same result as ``torch.sparse.mm(csr, dense)`` with the CSR tensor of ``pattern`` and
    ``values``; the gradient of ``values`` is ``(nnz,)``, never dense. A row-major ``dense`` is read
    as it is, and the result is row-major: nothing is transposed. Differentiable to any order;
    forward-mode AD is refused.

    Args:
        values: ``(nnz,)`` (``(capacity,)`` if the Pattern has one): the matrix at its entries, in
            CSR order. float32, float64, bfloat16 or float16.
        pattern: :class:`Pattern` of shape ``(out, in)``.
        dense: ``(in, n)``, dtype of ``values``.
        backend: as in :func:`sparse_linear`.

    Returns:
        ``(out, n)``, dtype of ``values``. Sums are in float32 (float64 for float64).

    Raises:
        TypeError: not tensors, not a Pattern, or dtypes differ.
        ValueError: a shape or device does not match.
        RuntimeError: ``backend`` cannot run here.

    Source: T. Gale et al., "Sparse GPU Kernels for Deep Learning", SC 2020, arXiv:2006.10901.
    """
    if autocast_enabled():
        values, dense = autocast(values, dense)  # type: ignore[assignment]
    _check_args(values, pattern, dense)
    return sparse_linear(dense.t(), values, pattern, feature_major=True, backend=backend).t()


def route(values: Tensor, pattern: Pattern, dense: Tensor, **options: Any) -> tuple[bool, str]:
    """Never dense; which layout is read."""
    return _route(dense.t(), values, pattern)


def _check_args(values: Tensor, pattern: Pattern, dense: Tensor) -> None:
    op = "spmm"
    check_float(op, "values", values)
    if not isinstance(pattern, Pattern):
        fail(TypeError, op, "pattern", "be a synops.sparse.Pattern", type(pattern).__name__)
    check_like(op, "dense", dense, values, "values")
    if dense.dim() != 2 or dense.shape[0] != pattern.shape[1]:
        rule = f"have shape (in, n) = ({pattern.shape[1]}, n)"
        fail(ValueError, op, "dense", rule, tuple(dense.shape))
    if values.dim() != 1 or values.shape[0] != pattern.capacity:
        rule = f"have shape (nnz,) = ({pattern.capacity},)"
        fail(ValueError, op, "values", rule, tuple(values.shape))
