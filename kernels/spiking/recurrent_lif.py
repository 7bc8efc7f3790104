"""recurrent_lif (Triton): two launches a step, a product with the weight and the neurons of lif.

Reference: python/synops/_reference/spiking/recurrent_lif.py
"""

from typing import Any

import torch
from torch import Tensor

from .lif import lif
from .neurons import check_parameters, check_rule, series, state
from .recurrent_lif_backward import recurrent_lif_backward
from .recurrent_weight import AOT, Weight

FLOAT, FULL = 0, 1  # spikes in the dtype of the state, the whole membrane saved

__all__ = ["AOT", "recurrent_lif", "recurrent_lif_backward"]


def recurrent_lif(
    input: Tensor,
    weight: Tensor,
    spikes0: Tensor | None,
    v0: Tensor | None,
    beta: Tensor,
    threshold: Tensor,
    crow: Tensor | None,
    col: Tensor | None,
    *rule: Any,
) -> tuple[Tensor, ...]:
    op = "recurrent_lif"
    *rule, save, record = rule
    reset, _, _, _, surrogate, slope = rule
    check_rule(op, reset, surrogate, slope)
    x = series(op, "input", input, input)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    s, v = state(op, "spikes0", spikes0, x, dtype), state(op, "v0", v0, x, dtype)
    beta, threshold = check_parameters(op, x, dtype, beta, threshold)
    matrix = Weight(op, weight, crow, col, x, dtype)
    v = torch.zeros(x.shape[1:], dtype=dtype, device=x.device) if v is None else v.clone()
    spikes, membrane, trajectory = [], [], []
    for x_t in x.to(dtype).unbind(0):
        current = x_t if s is None else matrix.forward(s, x_t)
        fired, v, u, _ = lif(current.unsqueeze(0), v, beta, threshold, *rule, FLOAT, FULL, False)
        s = fired[0]
        spikes.append(s.to(x.dtype))
        membrane.append(u[0])
        trajectory.append(v)

    def stacked(wanted: bool, parts: list[Tensor], kind: torch.dtype) -> Tensor:
        if wanted and parts:
            return torch.stack(parts)
        return torch.empty(x.shape if wanted else (0,), dtype=kind, device=x.device)

    return (
        stacked(True, spikes, x.dtype),
        v,
        stacked(save, membrane, dtype),
        stacked(record, trajectory, dtype),
    )
