"""masked_linear: the dense product with the masked-out weights replaced by 0, in plain torch."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import linear


def masked_linear(
    input: Tensor,  # (batch, in)
    weight: Tensor,  # (out, in)
    bias: Tensor | None,  # (out,)
    mask: Tensor,  # (out, in), bool
) -> Tensor:
    """input @ W.T + bias with W = weight where mask, else 0."""
    return linear(input, weight.masked_fill(~mask, 0), bias)


def masked_linear_backward(
    grad: Tensor,  # (batch, out)
    input: Tensor,  # (batch, in)
    weight: Tensor,  # (out, in)
    mask: Tensor,  # (out, in), bool
    need_input: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """grad @ W, (grad.T @ input) where mask, grad.sum(0); empty where not needed."""
    grad_input, grad_weight = grad.new_empty(0, 0), grad.new_empty(0, 0)
    if need_input:
        grad_input = grad @ weight.masked_fill(~mask, 0)
    if need_weight:
        grad_weight = (grad.t() @ input).masked_fill(~mask, 0)
    return grad_input, grad_weight, grad.sum(0) if need_bias else grad.new_empty(0)
