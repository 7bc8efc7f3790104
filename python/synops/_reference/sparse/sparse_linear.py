"""sparse_linear: the dense product with the weight written out, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear, relu

from .pattern import pattern_gather, pattern_scatter


def is_feature_major(t: Tensor) -> bool:
    """(batch, features) whose memory is (features, batch)."""
    batch, features = t.shape
    return bool(batch > 1 and features > 1 and t.stride(0) == 1 and t.stride(1) >= batch)


def laid_out(t: Tensor, feature_major: bool) -> Tensor:
    """``t`` in one of the two layouts."""
    return t.t().contiguous().t() if feature_major else t.contiguous()


def sparse_linear(
    input: Tensor,  # (batch, in)
    values: Tensor,  # (nnz or more,)
    bias: Tensor | None,  # (out,)
    crow: Tensor,  # (out + 1,)
    col: Tensor,  # (nnz,)
    row_ptr: Tensor,  # from here on: the same entries in other orders
    tile_col: Tensor,
    col_ptr: Tensor,
    tile_row: Tensor,
    perm: Tensor,
    bits: Tensor,
    block_rows: int,
    block_step: int,
    activation: int,  # index into sparse_linear.ACTIVATIONS
    feature_major: bool,
) -> Tensor:
    """activation(input @ W.T + bias) with W the matrix of ``values``."""
    output = linear(input, pattern_scatter(values, crow, col, input.shape[1]), bias)
    return laid_out((lambda y: y, relu, gelu)[activation](output), feature_major)


def sparse_linear_backward(
    grad: Tensor,  # (batch, out)
    input: Tensor,  # (batch, in)
    values: Tensor,  # (nnz or more,)
    crow: Tensor,
    col: Tensor,
    row_ptr: Tensor,
    tile_col: Tensor,
    col_ptr: Tensor,
    tile_row: Tensor,
    perm: Tensor,
    bits: Tensor,
    block_rows: int,
    block_step: int,
    need_input: bool,
    need_values: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """grad @ W in the layout of input, (grad.T @ input) at the kept entries, grad.sum(0); empty
    where not needed."""
    grad_input = grad.new_empty(0, 0)
    grad_values, grad_bias = grad.new_empty(0), grad.new_empty(0)
    if need_input:
        grad_input = grad @ pattern_scatter(values, crow, col, input.shape[1])
        grad_input = laid_out(grad_input, is_feature_major(input))
    if need_values:
        kept = pattern_gather(grad.t() @ input, crow, col)
        tail = values.shape[0] - col.shape[0]
        grad_values = torch.cat([kept, kept.new_zeros(tail)])
    if need_bias:
        grad_bias = grad.sum(0)
    return grad_input, grad_values, grad_bias
