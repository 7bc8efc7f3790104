"""Pattern: which entries of a weight exist."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .._check import check_device, check_float, check_shape, check_tensor, dtype_name, fail
from .._library import traced
from .._reference.sparse.pattern import BLOCKS
from . import _pattern_ops as ops
from ._blocks import checked_block, group_mask, shared_rows

_INT32_MAX = 2**31 - 1
# One batch row by a bitmap takes 1.8 ms for 4096 x 4096 whatever the density, by column indices
# 2.7 at density .4 and 1.3 at .2.
BITS_ABOVE = 0.4


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
        crow: ``(out + 1,)``, int32. Row starts and the end, as in torch's CSR tensors.
        col: ``(nnz,)``, int32. Columns, ascending inside each row.
        row_ptr, tile_col: ``(tiles * out + 1,)``, int32, and ``(nnz,)``, int16 read as unsigned.
            The same entries tile by tile of the columns, and row by row inside a tile: where a row
            begins, and columns inside the tile.
        col_ptr, tile_row: ``(tiles * in + 1,)`` and ``(nnz,)``. The same for columns, in tiles of
            rows.
        perm: ``(nnz,)``, int32. CSR position of every entry of ``tile_row``.
        bits: ``(out, words)``, int64. A bit an element of the weight, or empty.
        block: rows with equal columns, how many and how far apart; ``(1, 1)`` without that.
        parts: a Pattern of row blocks, the Pattern of all other entries, and ``(nnz,)``, bool,
            which entries are in the first; or None. Made where that is the faster way.
    """

    shape: tuple[int, int]
    capacity: int
    crow: Tensor
    col: Tensor
    row_ptr: Tensor
    tile_col: Tensor
    col_ptr: Tensor
    tile_row: Tensor
    perm: Tensor
    bits: Tensor
    block: tuple[int, int] = (1, 1)
    parts: tuple[Pattern, Pattern, Tensor] | None = None

    @classmethod
    def from_mask(
        cls,
        mask: Tensor,
        *,
        block: tuple[int, int] | None = None,
        capacity: int | None = None,
    ) -> Pattern:
        """The Pattern of the True entries of a mask.

        Rows with equal columns, 8 to 128 at a time (row blocks, square blocks), and a mask that is
        mostly made of such blocks (block diagonal and a random remainder) are found and used.

        Args:
            mask: ``(out, in)``, bool.
            block: ``(rows, columns)`` of the blocks that the mask is made of, to have that checked.
            capacity: length of the values; default ``nnz``.

        Raises:
            TypeError: the mask is not a bool tensor.
            ValueError: it is not two-dimensional, too large for int32 indices, not made of whole
                blocks, or ``capacity`` is smaller than ``nnz``.

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
        if block is not None:
            _check_blocks(op, mask, block)
        crow, col = ops.from_mask(mask.contiguous())
        shape = (mask.shape[0], mask.shape[1])
        pattern = cls._planned(op, crow, col, shape, capacity)
        if traced(mask) or pattern.block != (1, 1):
            return pattern
        return pattern._with_parts(mask, shared_rows(mask, pattern.nnz), 1)

    @classmethod
    def from_blocks(
        cls, blocks: Tensor, block: tuple[int, int], *, capacity: int | None = None
    ) -> Pattern:
        """The Pattern of whole blocks, as in a BSR tensor.

        Args:
            blocks: ``(out / rows, in / columns)``, bool: which blocks are kept.
            block: ``(rows, columns)`` of a block: (16, 1) or (8, 1) for row blocks, (16, 16) to
                (128, 128) for square ones.
            capacity: length of the values; default ``nnz``.

        Raises:
            TypeError, ValueError: as :meth:`from_mask`, or a block without rows or columns.
        """
        op = "Pattern.from_blocks"
        check_tensor(op, "blocks", blocks)
        if blocks.dtype != torch.bool:
            fail(TypeError, op, "blocks", "be bool", dtype_name(blocks.dtype))
        rows, cols = checked_block(op, block)
        if blocks.dim() != 2:
            rule = "have 2 dimensions (out / rows, in / columns)"
            fail(ValueError, op, "blocks", rule, tuple(blocks.shape))
        mask = blocks.repeat_interleave(rows, 0).repeat_interleave(cols, 1)
        return cls.from_mask(mask, capacity=capacity)

    @classmethod
    def from_groups(
        cls,
        shape: tuple[int, int],
        groups: int,
        *,
        interleaved: bool = False,
        extra: Tensor | None = None,
        capacity: int | None = None,
    ) -> Pattern:
        """A block diagonal: every group of outputs sees its own group of inputs, as in G2GNet.

        Args:
            shape: ``(out, in)``.
            groups: how many; divides both sides.
            interleaved: output ``o`` and input ``i`` are in the same group when ``o % groups == i %
                groups``, else when they are in the same ``groups``-th part.
            extra: ``(out, in)``, bool: entries kept besides.
            capacity: length of the values; default ``nnz``.

        Raises:
            TypeError, ValueError: an argument is of another kind, or groups do not divide.
        """
        op = "Pattern.from_groups"
        out_features, in_features = _checked_shape(op, shape)
        groups = _integer(op, "groups", groups)
        if groups < 1 or out_features % groups or in_features % groups:
            rule = f"divide both sides of (out, in) = {(out_features, in_features)}"
            fail(ValueError, op, "groups", rule, groups)
        if extra is not None:
            check_tensor(op, "extra", extra)
            if extra.dtype != torch.bool:
                fail(TypeError, op, "extra", "be bool", dtype_name(extra.dtype))
            check_shape(op, "extra", extra, "(out, in)", (out_features, in_features))
        device = None if extra is None else extra.device
        diagonal = group_mask(out_features, in_features, groups, interleaved, device)
        mask = diagonal if extra is None else diagonal | extra
        crow, col = ops.from_mask(mask)
        pattern = cls._planned(op, crow, col, (out_features, in_features), capacity)
        if traced(mask) or pattern.block != (1, 1):
            return pattern
        step = groups if interleaved else 1
        rows = next((r for r in BLOCKS[::-1] if out_features // groups % r == 0), 1)
        if rows == 1:
            return pattern
        if int(diagonal.count_nonzero()) == pattern.nnz:
            return replace(pattern, block=(rows, step))
        return pattern._with_parts(mask, diagonal, step)

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
        row_ptr, tile_col, col_ptr, tile_row, perm = ops.plan(crow, col, shape[1])
        bits, block = crow.new_empty((0, 0), dtype=torch.int64), 1
        if not traced(crow):
            if crow.device.type == "cpu" and nnz >= BITS_ABOVE * shape[0] * shape[1]:
                bits = ops.bits(crow, col, shape[1])
            block = int(ops.blocks(crow, col))
        length = nnz if capacity is None else capacity
        index = (crow, col, row_ptr, tile_col, col_ptr, tile_row, perm, bits)
        return cls(shape, length, *index, block=(block, 1))

    def _with_parts(self, mask: Tensor, blocks: Tensor | None, step: int) -> Pattern:
        """Itself, with the entries in ``blocks`` apart: rows with equal columns, ``step`` apart."""
        if blocks is None:
            return self
        op = "Pattern"
        select = blocks[mask]
        parts = []
        for part in (blocks, mask & ~blocks):
            crow, col = ops.from_mask(part)
            parts.append(Pattern._planned(op, crow, col, self.shape, None))
        first, rest = parts
        if step > 1:
            rows = next(r for r in BLOCKS[::-1] if self.shape[0] // step % r == 0)
            first = replace(first, block=(rows, step))
        return replace(self, parts=(first, rest, select))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The index tensors, in the order that ops receive them in."""
        return (
            self.crow,
            self.col,
            self.row_ptr,
            self.tile_col,
            self.col_ptr,
            self.tile_row,
            self.perm,
            self.bits,
        )

    @property
    def args(self) -> tuple[Any, ...]:
        """What ops receive."""
        return *self.tensors, *self.block

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

    def mask(self) -> Tensor:
        """``(out, in)``, bool: True at the kept entries."""
        values = torch.ones(self.nnz, device=self.device)
        return ops.scatter(values, self.crow, self.col, self.shape[1]).bool()

    def gather(self, weight: Tensor, *, backend: str | None = None) -> Tensor:
        """The values of a dense weight ``(out, in)`` at the kept entries, ``(nnz,)``;
        differentiable.

        Equals ``weight[pattern.mask()]``.
        """
        check_float("Pattern.gather", "weight", weight)
        check_shape("Pattern.gather", "weight", weight, "(out, in)", self.shape)
        check_device("Pattern.gather", "weight", weight, self.col, "the Pattern")
        return ops.gather(weight.contiguous(), self.crow, self.col, backend=backend)

    def scatter(self, values: Tensor, *, backend: str | None = None) -> Tensor:
        """The dense ``(out, in)`` matrix of values ``(capacity,)``, 0 elsewhere; differentiable."""
        check_float("Pattern.scatter", "values", values)
        if values.dim() != 1 or values.shape[0] not in (self.nnz, self.capacity):
            rule = f"have shape (nnz,) = ({self.nnz},)"
            fail(ValueError, "Pattern.scatter", "values", rule, tuple(values.shape))
        check_device("Pattern.scatter", "values", values, self.col, "the Pattern")
        index = (self.crow, self.col, self.shape[1])
        return ops.scatter(values.contiguous(), *index, backend=backend)

    def to(self, device: torch.device | str) -> Pattern:
        """The same Pattern on another device (itself when it is there already)."""
        if self.device == torch.device(device):
            return self
        return pytree.tree_map(lambda t: t.to(device), self)

    def __repr__(self) -> str:
        where = "" if self.device.type == "cpu" else f", device={str(self.device)!r}"
        return f"Pattern(shape={self.shape}, nnz={self.nnz}, density={self.density:.4g}{where})"


def _check_blocks(op: str, mask: Tensor, block: Any) -> None:
    rows, cols = checked_block(op, block)
    if mask.shape[0] % rows or mask.shape[1] % cols:
        fail(ValueError, op, "block", f"divide the shape {tuple(mask.shape)}", (rows, cols))
    tiles = mask.unflatten(0, (-1, rows)).unflatten(2, (-1, cols)) if mask.numel() else mask
    if mask.numel() and not torch.equal(tiles.any(1).any(-1), tiles.all(1).all(-1)):
        fail(ValueError, op, "mask", f"be made of whole blocks of {(rows, cols)}", "another")


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
_LEAVES = ("crow", "row_ptr", "col_ptr", "col", "tile_col", "tile_row", "perm", "bits")
_Context = tuple[tuple[int, int], int, tuple[int, int]]


def _flatten(p: Pattern) -> tuple[list[Any], _Context]:
    # None would be a leaf
    children = [*(getattr(p, name) for name in _LEAVES), p.parts or ()]
    return children, (p.shape, p.capacity, p.block)


def _flatten_with_keys(p: Pattern) -> tuple[list[Any], _Context]:
    leaves, context = _flatten(p)
    keys = [pytree.GetAttrKey(name) for name in (*_LEAVES, "parts")]
    return list(zip(keys, leaves, strict=True)), context


def _unflatten(leaves: Any, context: _Context) -> Pattern:
    shape, capacity, block = context
    *index, parts = leaves
    fields = dict(zip(_LEAVES, index, strict=True))
    return Pattern(shape, capacity, block=block, parts=parts or None, **fields)


pytree.register_pytree_node(
    Pattern,
    _flatten,
    _unflatten,
    serialized_type_name="synops.sparse.Pattern",
    to_dumpable_context=lambda c: [list(c[0]), c[1], list(c[2])],
    from_dumpable_context=lambda c: (tuple(c[0]), c[1], tuple(c[2])),
    flatten_with_keys_fn=_flatten_with_keys,
)
