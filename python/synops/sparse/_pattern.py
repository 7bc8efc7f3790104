"""Pattern: which entries of a weight exist."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .._check import check_device, check_float, check_shape, check_tensor, dtype_name, fail
from .._library import Op
from .._reference.sparse.pattern import tiles_of

_INT32_MAX = 2**31 - 1


def _fake_from_mask(mask: Tensor) -> tuple[Tensor, Tensor]:
    nnz = torch.library.get_ctx().new_dynamic_size()
    return mask.new_empty(mask.shape[0] + 1, dtype=torch.int32), mask.new_empty(
        nnz, dtype=torch.int32
    )


def _fake_plan(crow: Tensor, col: Tensor, in_features: int) -> tuple[Tensor, ...]:
    rows, nnz = crow.shape[0] - 1, col.shape[0]
    return (
        crow.new_empty(tiles_of(rows, in_features, nnz) + 1, rows),
        crow.new_empty(tiles_of(in_features, rows, nnz) + 1, in_features),
        crow.new_empty(nnz),
        crow.new_empty(nnz),
    )


def _save_gather(ctx: Any, inputs: Any, output: Any) -> None:
    weight, row_ptr, col = inputs
    ctx.in_features = weight.shape[1]
    ctx.save_for_backward(row_ptr, col)


def _gather_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    index = ctx.saved_tensors
    return _scatter(grad.contiguous(), *index, ctx.in_features, backend=ctx.backend), None, None


def _save_scatter(ctx: Any, inputs: Any, output: Any) -> None:
    values, row_ptr, col, _ = inputs
    ctx.capacity = values.shape[0]
    ctx.save_for_backward(row_ptr, col)


def _scatter_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    row_ptr, col = ctx.saved_tensors
    kept = _gather(grad.contiguous(), row_ptr, col, backend=ctx.backend)
    if ctx.capacity > col.shape[0]:
        kept = torch.cat([kept, kept.new_zeros(ctx.capacity - col.shape[0])])
    return kept, None, None, None


_from_mask = Op("pattern_from_mask", fake=_fake_from_mask)
_plan = Op("pattern_plan", fake=_fake_plan)
_gather = Op(
    "pattern_gather",
    fake=lambda weight, row_ptr, col: weight.new_empty(col.shape[0]),
    setup_context=_save_gather,
    backward=_gather_backward,
)
_scatter = Op(
    "pattern_scatter",
    fake=lambda values, row_ptr, col, in_features: values.new_empty(row_ptr.shape[1], in_features),
    setup_context=_save_scatter,
    backward=_scatter_backward,
)


@dataclass(frozen=True, eq=False, repr=False)
class Pattern:
    """The kept entries of an ``(out, in)`` weight: immutable, in CSR and CSC form.

    Values that belong to a Pattern are 1-D tensors in CSR (row-major) order. Make one with
    :meth:`from_mask` or :meth:`from_csr`. It is a pytree node, so ``torch.compile``,
    ``torch.export`` and ``torch.func`` see its tensors; two Patterns compare by identity.

    Attributes:
        shape: ``(out, in)``.
        capacity: length of the values, at least ``nnz``; what lies behind ``nnz`` is never read and
            gets a zero gradient. (Room for a mask that changes without a Parameter that changes.)
        row_ptr: ``(tiles + 1, out)``, int32. Where the entries of a row from a tile of columns on
            begin: ``row_ptr[0]`` are the row starts, ``row_ptr[-1]`` the row ends.
        col: ``(nnz,)``, int32. Columns, ascending inside each row.
        col_ptr: ``(tiles + 1, in)``, int32. The same for columns.
        row: ``(nnz,)``, int32. Rows, column by column.
        perm: ``(nnz,)``, int32. CSR position of every entry of ``row``.
    """

    shape: tuple[int, int]
    capacity: int
    row_ptr: Tensor
    col: Tensor
    col_ptr: Tensor
    row: Tensor
    perm: Tensor

    @classmethod
    def from_mask(cls, mask: Tensor, *, capacity: int | None = None) -> Pattern:
        """The Pattern of the True entries of a mask.

        Args:
            mask: ``(out, in)``, bool.
            capacity: length of the values; default ``nnz``.

        Raises:
            TypeError: the mask is not a bool tensor.
            ValueError: it is not two-dimensional, too large for int32 indices, or ``capacity`` is
                smaller than ``nnz``.

        Speed: about 1 ms for 1024 x 1024 at density .1 on one core.
        """
        op = "Pattern.from_mask"
        check_tensor(op, "mask", mask)
        if mask.dtype != torch.bool:
            fail(TypeError, op, "mask", "be bool", dtype_name(mask.dtype))
        if mask.dim() != 2:
            fail(ValueError, op, "mask", "have 2 dimensions (out, in)", tuple(mask.shape))
        if max(mask.shape) >= _INT32_MAX:
            fail(ValueError, op, "mask", "have sides below 2^31 - 1", tuple(mask.shape))
        crow, col = _from_mask(mask.contiguous())
        return cls._planned(op, crow, col, (mask.shape[0], mask.shape[1]), capacity)

    @classmethod
    def from_csr(
        cls, crow: Tensor, col: Tensor, shape: tuple[int, int], *, capacity: int | None = None
    ) -> Pattern:
        """The Pattern of compressed rows, as in ``torch.sparse_csr_tensor(crow, col, ...)``.

        Args:
            crow: ``(out + 1,)``, int32 or int64, ascending from 0 to ``nnz``.
            col: ``(nnz,)``, int32 or int64, strictly ascending inside each row.
            shape: ``(out, in)``.
            capacity: length of the values; default ``nnz``.

        Raises:
            TypeError: ``crow`` or ``col`` is not an int32 or int64 tensor.
            ValueError: a length does not fit, ``crow`` does not ascend, ``col`` is unsorted,
                duplicated or out of range; the message has the first offending position.
        """
        op = "Pattern.from_csr"
        out_features, in_features = _checked_shape(op, shape)
        for name, index in (("crow", crow), ("col", col)):
            check_tensor(op, name, index)
            if index.dtype not in (torch.int32, torch.int64):
                fail(TypeError, op, name, "be int32 or int64", dtype_name(index.dtype))
            if index.dim() != 1:
                fail(ValueError, op, name, "have 1 dimension", tuple(index.shape))
        if crow.device != col.device:
            fail(ValueError, op, "col", f"be on the device of crow ({crow.device})", col.device)
        check_shape(op, "crow", crow, "(out + 1,)", (out_features + 1,))
        _check_csr(op, crow, col, in_features)
        return cls._planned(
            op,
            crow.to(torch.int32).contiguous(),
            col.to(torch.int32, copy=True).contiguous(),  # the Pattern's own from here on
            (out_features, in_features),
            capacity,
        )

    @classmethod
    def _planned(
        cls, op: str, crow: Tensor, col: Tensor, shape: tuple[int, int], capacity: int | None
    ) -> Pattern:
        nnz = col.shape[0]
        if capacity is not None:
            capacity = _integer(op, "capacity", capacity)
            if capacity < nnz:
                fail(ValueError, op, "capacity", f"be at least nnz = {nnz}", capacity)
        row_ptr, col_ptr, row, perm = _plan(crow, col, shape[1])
        return cls(shape, nnz if capacity is None else capacity, row_ptr, col, col_ptr, row, perm)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What ops receive: row_ptr, col, col_ptr, row, perm."""
        return self.row_ptr, self.col, self.col_ptr, self.row, self.perm

    @property
    def nnz(self) -> int:
        """Number of kept entries."""
        return self.col.shape[0]

    @property
    def density(self) -> float:
        """Kept fraction, 0 for an empty shape."""
        return self.nnz / max(1, self.shape[0] * self.shape[1])

    @property
    def device(self) -> torch.device:
        """Where the indices are."""
        return self.col.device

    @property
    def crow(self) -> Tensor:
        """``(out + 1,)``, int32: row starts and the end, as in torch's CSR tensors."""
        return torch.cat([self.row_ptr[0], self.row_ptr.new_full((1,), self.nnz)])

    def mask(self) -> Tensor:
        """``(out, in)``, bool: True at the kept entries."""
        values = torch.ones(self.nnz, device=self.device)
        return _scatter(values, self.row_ptr, self.col, self.shape[1]).bool()

    def gather(self, weight: Tensor, *, backend: str | None = None) -> Tensor:
        """The values of a dense weight ``(out, in)`` at the kept entries, ``(nnz,)``;
        differentiable.

        Equals ``weight[pattern.mask()]``.
        """
        check_float("Pattern.gather", "weight", weight)
        check_shape("Pattern.gather", "weight", weight, "(out, in)", self.shape)
        check_device("Pattern.gather", "weight", weight, self.col, "the Pattern")
        return _gather(weight.contiguous(), self.row_ptr, self.col, backend=backend)

    def scatter(self, values: Tensor, *, backend: str | None = None) -> Tensor:
        """The dense ``(out, in)`` matrix of values ``(capacity,)``, 0 elsewhere; differentiable."""
        check_float("Pattern.scatter", "values", values)
        if values.dim() != 1 or values.shape[0] not in (self.nnz, self.capacity):
            rule = f"have shape (nnz,) = ({self.nnz},)"
            fail(ValueError, "Pattern.scatter", "values", rule, tuple(values.shape))
        check_device("Pattern.scatter", "values", values, self.col, "the Pattern")
        index = (self.row_ptr, self.col, self.shape[1])
        return _scatter(values.contiguous(), *index, backend=backend)

    def to(self, device: torch.device | str) -> Pattern:
        """The same Pattern on another device (itself when it is there already)."""
        if self.device == torch.device(device):
            return self
        return Pattern(self.shape, self.capacity, *(t.to(device) for t in self.tensors))

    def __repr__(self) -> str:
        where = "" if self.device.type == "cpu" else f", device={str(self.device)!r}"
        return f"Pattern(shape={self.shape}, nnz={self.nnz}, density={self.density:.4g}{where})"


def _integer(op: str, argument: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        fail(TypeError, op, argument, "be an integer", value)


def _checked_shape(op: str, shape: Any) -> tuple[int, int]:
    try:
        rows, cols = (operator.index(n) for n in shape)
    except (TypeError, ValueError):
        fail(TypeError, op, "shape", "be a pair of integers (out, in)", shape)
    if not (0 <= rows < _INT32_MAX and 0 <= cols < _INT32_MAX):
        fail(ValueError, op, "shape", "have sides in [0, 2^31 - 1)", (rows, cols))
    return rows, cols


def _check_csr(op: str, crow: Tensor, col: Tensor, in_features: int) -> None:
    """Every rule of from_csr that looks at values."""
    nnz = col.shape[0]
    if nnz > _INT32_MAX:
        fail(ValueError, op, "col", "have at most 2^31 - 1 elements", nnz)
    crow, col = crow.long(), col.long()
    if crow[0] != 0:
        fail(ValueError, op, "crow", "begin with 0", int(crow[0]))
    if crow[-1] != nnz:
        fail(ValueError, op, "crow", f"end with nnz = {nnz}", int(crow[-1]))
    falls = (crow[1:] < crow[:-1]).nonzero()
    if falls.numel():
        at = int(falls[0]) + 1
        fail(ValueError, op, "crow", "not descend", f"{int(crow[at])} at position {at}")
    outside = ((col < 0) | (col >= in_features)).nonzero()
    if outside.numel():
        at = int(outside[0])
        rule = f"lie in [0, {in_features})"
        fail(ValueError, op, "col", rule, f"{int(col[at])} at position {at}")
    first = torch.zeros(nnz + 1, dtype=torch.bool, device=col.device)
    first[crow] = True
    unsorted = ((col[1:] <= col[:-1]) & ~first[1:nnz]).nonzero()
    if unsorted.numel():
        at = int(unsorted[0]) + 1
        rule = "ascend strictly inside each row (sorted, no duplicates)"
        fail(
            ValueError, op, "col", rule, f"{int(col[at])} at position {at} after {int(col[at - 1])}"
        )


# Not in the order of the fields: torch.export writes guards by replacing argument names as text,
# and with col before col_ptr the second is mangled.
_LEAVES = ("row_ptr", "col_ptr", "col", "row", "perm")


def _flatten(p: Pattern) -> tuple[list[Any], tuple[tuple[int, int], int]]:
    return [getattr(p, name) for name in _LEAVES], (p.shape, p.capacity)


def _flatten_with_keys(p: Pattern) -> tuple[list[Any], tuple[tuple[int, int], int]]:
    leaves, context = _flatten(p)
    keys = [pytree.GetAttrKey(name) for name in _LEAVES]
    return list(zip(keys, leaves, strict=True)), context


def _unflatten(leaves: Any, context: tuple[tuple[int, int], int]) -> Pattern:
    return Pattern(*context, **dict(zip(_LEAVES, leaves, strict=True)))


pytree.register_pytree_node(
    Pattern,
    _flatten,
    _unflatten,
    serialized_type_name="synops.sparse.Pattern",
    to_dumpable_context=lambda context: [list(context[0]), context[1]],
    from_dumpable_context=lambda context: (tuple(context[0]), context[1]),
    flatten_with_keys_fn=_flatten_with_keys,
)
