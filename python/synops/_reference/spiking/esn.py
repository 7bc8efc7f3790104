"""esn in plain torch: its definition, and what runs where nothing faster does.

Input (T, B, K), state (B, N), weight (N, N) as compressed rows; everything in the type of the
state. Differentiable, for all that the kernels do not.
"""

from __future__ import annotations

import torch
from torch import Tensor

ACTIVATIONS = (torch.tanh, torch.relu, lambda v: v)


def row_of(crow: Tensor) -> Tensor:
    """The row of each entry."""
    rows = torch.arange(crow.shape[0] - 1, device=crow.device)
    return rows.repeat_interleave(crow.diff())


def sparse_product(values: Tensor, row: Tensor, col: Tensor, rows: int, x: Tensor) -> Tensor:
    """x (B, columns) times the transposed weight: (B, rows). Values (nnz,) or (B, nnz)."""
    products = values[..., : col.shape[0]] * x[:, col]
    return x.new_zeros((x.shape[0], rows)).index_add(1, row, products)


def esn(
    input: Tensor,
    state: Tensor | None,
    input_weight: Tensor,
    bias: Tensor | None,
    leak: Tensor,
    values: Tensor,
    crow: Tensor,
    col: Tensor,
    row_ptr: Tensor,
    tile_col: Tensor,
    block_rows: int,
    block_step: int,
    activation: int,
    washout: int,
) -> tuple[Tensor, Tensor]:
    """States of the steps from ``washout`` on, (T - washout, B, N), and of the last, (B, N)."""
    rows = crow.shape[0] - 1
    row = row_of(crow)
    x = input.new_zeros((input.shape[1], rows)) if state is None else state.clone()
    states = []
    for t, u in enumerate(input.unbind(0)):
        drive = sparse_product(values, row, col, rows, x) + u @ input_weight.t()
        if bias is not None:
            drive = drive + bias
        x = (1 - leak) * x + leak * ACTIVATIONS[activation](drive)
        if t >= washout:
            states.append(x)
    return torch.stack(states) if states else x.new_empty((0, *x.shape)), x.clone()


def esn_(states: Tensor, state: Tensor, input: Tensor, *rest: object) -> None:
    """The same from ``state`` on, into ``states`` and ``state``."""
    recorded, last = esn(input, state, *rest)  # type: ignore[arg-type]
    states.copy_(recorded)
    state.copy_(last)
