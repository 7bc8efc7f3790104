"""The raw ops behind Pattern, and their adjoints."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._library import Op
from .._reference.sparse.pattern import tiles_of


def _fake_from_mask(mask: Tensor) -> tuple[Tensor, Tensor]:
    nnz = torch.library.get_ctx().new_dynamic_size()
    return mask.new_empty(mask.shape[0] + 1, dtype=torch.int32), mask.new_empty(
        nnz, dtype=torch.int32
    )


def _fake_plan(crow: Tensor, col: Tensor, in_features: int) -> tuple[Tensor, ...]:
    rows, nnz = crow.shape[0] - 1, col.shape[0]
    return (
        crow.new_empty(tiles_of(rows, in_features, nnz) * rows + 1),
        crow.new_empty(nnz, dtype=torch.int16),
        crow.new_empty(tiles_of(in_features, rows, nnz) * in_features + 1),
        crow.new_empty(nnz, dtype=torch.int16),
        crow.new_empty(nnz),
    )


def _save_gather(ctx: Any, inputs: Any, output: Any) -> None:
    weight, crow, col = inputs
    ctx.in_features = weight.shape[1]
    ctx.save_for_backward(crow, col)


def _gather_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    index = ctx.saved_tensors
    return scatter(grad.contiguous(), *index, ctx.in_features, backend=ctx.backend), None, None


def _save_scatter(ctx: Any, inputs: Any, output: Any) -> None:
    values, crow, col, _ = inputs
    ctx.capacity = values.shape[0]
    ctx.save_for_backward(crow, col)


def _scatter_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    crow, col = ctx.saved_tensors
    kept = gather(grad.contiguous(), crow, col, backend=ctx.backend)
    if ctx.capacity > col.shape[0]:
        kept = torch.cat([kept, kept.new_zeros(ctx.capacity - col.shape[0])])
    return kept, None, None, None


from_mask = Op("pattern_from_mask", fake=_fake_from_mask)
plan = Op("pattern_plan", fake=_fake_plan)


def _save_split(ctx: Any, inputs: Any, output: Any) -> None:
    values, select, _ = inputs
    ctx.tail = values.shape[0] - select.shape[0]
    ctx.save_for_backward(select)


def _split_backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    (select,) = ctx.saved_tensors
    merged = merge(*(g.contiguous() for g in grads), select, backend=ctx.backend)
    return torch.cat([merged, merged.new_zeros(ctx.tail)]) if ctx.tail else merged, None, None


def _save_merge(ctx: Any, inputs: Any, output: Any) -> None:
    selected, _, select = inputs
    ctx.count = selected.shape[0]
    ctx.save_for_backward(select)


def _merge_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *split(grad.contiguous(), *ctx.saved_tensors, ctx.count, backend=ctx.backend), None


bits = Op(
    "pattern_bits",
    fake=lambda crow, col, in_features: crow.new_empty(
        crow.shape[0] - 1, (in_features + 63) // 64, dtype=torch.int64
    ),
)
blocks = Op("pattern_blocks", fake=lambda crow, col: crow.new_empty(1))
split = Op(
    "pattern_split",
    fake=lambda values, select, count: (
        values.new_empty(count),
        values.new_empty(select.shape[0] - count),
    ),
    setup_context=_save_split,
    backward=_split_backward,
)
merge = Op(
    "pattern_merge",
    fake=lambda selected, rest, select: selected.new_empty(select.shape[0]),
    setup_context=_save_merge,
    backward=_merge_backward,
    leading=2,
)
gather = Op(
    "pattern_gather",
    fake=lambda weight, crow, col: weight.new_empty(col.shape[0]),
    setup_context=_save_gather,
    backward=_gather_backward,
)
scatter = Op(
    "pattern_scatter",
    fake=lambda values, crow, col, in_features: values.new_empty(crow.shape[0] - 1, in_features),
    setup_context=_save_scatter,
    backward=_scatter_backward,
)
