"""ei_reservoir in plain torch: its definition, and what runs where nothing faster does.

Input (T, B, K), state (B, N), values of the inhibition (1 or B, nnz); everything in the type of the
state. Differentiable, for all that the kernels do not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .esn import row_of, sparse_product


def ei_reservoir(
    input: Tensor,
    state: Tensor | None,
    i_values: Tensor,
    input_weight: Tensor,
    e_values: Tensor,
    gain: Tensor,
    threshold: Tensor,
    leak: Tensor,
    target: Tensor | None,
    delta: Tensor | None,
    e_crow: Tensor,
    e_col: Tensor,
    i_crow: Tensor,
    i_col: Tensor,
    excitatory: int,
    washout: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rates (T - washout, B, N), the last (B, N), and inhibition (B, nnz), 0-size if it stays."""
    rows = e_crow.shape[0] - 1
    e_row, i_row = row_of(e_crow), row_of(i_crow)
    r = input.new_zeros((input.shape[1], rows)) if state is None else state.clone()
    inhibition = i_values.expand(input.shape[1], -1)
    rates = []
    for t, u in enumerate(input.unbind(0)):
        v = sparse_product(e_values, e_row, e_col, rows, r) + u @ input_weight.t()
        v = v - sparse_product(inhibition, i_row, i_col, rows, r[:, excitatory:])
        r = (1 - leak) * r + leak * torch.sigmoid(gain * (v - threshold))
        if target is not None and delta is not None:
            inhibition = (inhibition + delta[t] * (r - target)[:, i_row]).clamp_min(0)
        if t >= washout:
            rates.append(r)
    recorded = torch.stack(rates) if rates else r.new_empty((0, *r.shape))
    moved = i_values.new_empty((0,)) if target is None else inhibition.clone()
    return recorded, r.clone(), moved


def ei_reservoir_(
    rates: Tensor, state: Tensor, i_values: Tensor, input: Tensor, *rest: object
) -> None:
    """The same from ``state`` and ``i_values`` on, into ``rates`` and these."""
    recorded, last, moved = ei_reservoir(input, state, i_values, *rest)  # type: ignore[arg-type]
    rates.copy_(recorded)
    state.copy_(last)
    if rest[5] is not None:
        i_values.copy_(moved)
