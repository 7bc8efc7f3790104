"""sparse_linear: a linear layer whose weight exists at the entries of a Pattern only."""

from __future__ import annotations

from torch import Tensor

from .._bilinear import BilinearOp, autocast, autocast_enabled, on_rows
from .._check import check_device, check_float, check_like, check_linear, fail
from ._pattern import Pattern

# Forward and backward together against the dense product, one AVX-512 thread, 128 x 1024 x 1024:
# .91 of its time at density .5, 1.12 at .6, 1.34 at .7; behind a mask .76, 1.06 and 1.23.
DENSE_ABOVE = 0.6

_op = BilinearOp("sparse_linear", lambda values, row_ptr, *_: row_ptr.shape[1]).forward


def sparse_linear(
    input: Tensor,
    values: Tensor,
    pattern: Pattern,
    bias: Tensor | None = None,
    *,
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
    the finished dense weight: 3.3x at density .2, 6x at .1, 11x at .05, 29x at .01 (docs and
    ``python -m synops bench sparse`` have this machine's); above density .6 the dense product is
    faster.

    Source: SpMM and SDDMM of T. Gale et al., "Sparse GPU Kernels for Deep Learning", SC 2020,
    arXiv:2006.10901, as ops for training.
    """
    if autocast_enabled():
        input, values, bias = autocast(input, values, bias)  # type: ignore[assignment]
    _check_args(input, values, pattern, bias)
    if input.dim() == 2:  # not through on_rows: 0.4 us
        return _op(input, values, bias, *pattern.tensors, backend=backend)
    return on_rows(lambda rows: _op(rows, values, bias, *pattern.tensors, backend=backend), input)


def route(
    input: Tensor,
    values: Tensor,
    pattern: Pattern,
    bias: Tensor | None = None,
    *,
    backend: str | None = None,
) -> tuple[bool, str]:
    """Never dense; says when the dense product would be faster (for ``synops.which``)."""
    if input.device.type == "cpu" and pattern.density > DENSE_ABOVE:
        rule = f"slower than dense above density {DENSE_ABOVE}"
        return False, f"density {pattern.density:.3g}: {rule}, which masked_linear takes by itself"
    return False, f"density {pattern.density:.3g}"


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
