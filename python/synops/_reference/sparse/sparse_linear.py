"""sparse_linear: the dense product with the weight written out, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from .pattern import pattern_gather, pattern_scatter


def sparse_linear(
    input: Tensor,  # (batch, in)
    values: Tensor,  # (nnz or more,)
    bias: Tensor | None,  # (out,)
    row_ptr: Tensor,  # (tiles + 1, out)
    col: Tensor,  # (nnz,)
    col_ptr: Tensor,
    row: Tensor,
    perm: Tensor,
) -> Tensor:
    """input @ W.T + bias with W the matrix of ``values``."""
    return linear(input, pattern_scatter(values, row_ptr, col, input.shape[1]), bias)


def sparse_linear_backward(
    grad: Tensor,  # (batch, out)
    input: Tensor,  # (batch, in)
    values: Tensor,  # (nnz or more,)
    row_ptr: Tensor,
    col: Tensor,
    col_ptr: Tensor,
    row: Tensor,
    perm: Tensor,
    need_input: bool,
    need_values: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """grad @ W, (grad.T @ input) at the kept entries, grad.sum(0); empty where not needed."""
    grad_input = grad.new_empty(0, 0)
    grad_values, grad_bias = grad.new_empty(0), grad.new_empty(0)
    if need_input:
        grad_input = grad @ pattern_scatter(values, row_ptr, col, input.shape[1])
    if need_values:
        kept = pattern_gather(grad.t() @ input, row_ptr, col)
        tail = values.shape[0] - col.shape[0]
        grad_values = torch.cat([kept, kept.new_zeros(tail)])
    if need_bias:
        grad_bias = grad.sum(0)
    return grad_input, grad_values, grad_bias
