"""recurrent_lif in plain torch: its definition, and what runs where nothing faster does.

A step is one of lif whose input has the products of the last spikes with the weight added. Input
(T, R, P); weight (P, P), row = post-synaptic, or the values (nnz,) of the CSR pattern crow and col;
spikes0 and v0 (R, P); weight, states, beta and threshold in float32 (float64).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .lif import lif, lif_backward
from .neurons import FULL

FLOAT = 0  # spikes in the dtype of the input


def recurrent_lif(
    input: Tensor,
    weight: Tensor,
    spikes0: Tensor | None,
    v0: Tensor | None,
    beta: Tensor,
    threshold: Tensor,
    crow: Tensor | None,
    col: Tensor | None,
    reset: int,
    delayed: bool,
    inclusive: bool,
    detach_reset: bool,
    surrogate: int,
    slope: float,
    save: bool,
    record: bool,
) -> tuple[Tensor, ...]:
    """spikes (T, R, P), v (R, P), membrane before the reset and trajectory (T, R, P) or 0-size."""
    rule = (reset, delayed, inclusive, detach_reset, surrogate, slope)
    x = input if input.dtype == torch.float64 else input.float()
    dense = _dense(weight, crow, col, x.shape[2])
    s = x.new_zeros(x.shape[1:]) if spikes0 is None else spikes0
    v = x.new_zeros(x.shape[1:]) if v0 is None else v0.clone()
    spikes, membrane, trajectory = [], [], []
    for x_t in x.unbind(0):
        current = (x_t + s @ dense.T).unsqueeze(0)
        fired, v, u, _ = lif(current, v, beta, threshold, *rule, FLOAT, FULL, False)
        s = fired[0]
        spikes.append(s.to(input.dtype))
        membrane.append(u[0])
        trajectory.append(v)

    def stacked(parts: list[Tensor], like: Tensor) -> Tensor:
        return torch.stack(parts) if parts else torch.empty_like(like)

    none = x.new_empty((0,))
    return (
        stacked(spikes, input),
        v,
        stacked(membrane, x) if save else none,
        stacked(trajectory, x) if record else none.clone(),
    )


def recurrent_lif_backward(
    grad_spikes: Tensor | None,
    grad_v: Tensor | None,
    grad_trajectory: Tensor | None,
    membrane: Tensor,
    weight: Tensor,
    spikes0: Tensor | None,
    v0: Tensor | None,
    beta: Tensor,
    threshold: Tensor,
    crow: Tensor | None,
    col: Tensor | None,
    reset: int,
    delayed: bool,
    inclusive: bool,
    detach_reset: bool,
    surrogate: int,
    slope: float,
    half: int,
    need_input: bool,
    need_weight: bool,
    need_spikes: bool,
    need_v0: bool,
    need_beta: bool,
    need_threshold: bool,
) -> tuple[Tensor, ...]:
    """Gradients of input, weight, spikes0, v0, beta and threshold; 0-size where not needed."""
    rule = (inclusive, detach_reset, surrogate, slope)
    zeros = membrane.new_zeros(membrane.shape[1:])
    dense = _dense(weight, crow, col, membrane.shape[2])
    of_v = zeros if grad_v is None else grad_v.clone()
    of_dense, of_s = torch.zeros_like(dense), zeros
    of_beta, of_threshold = torch.zeros_like(beta), torch.zeros_like(threshold)
    of_input = []
    for t in reversed(range(membrane.shape[0])):
        if grad_trajectory is not None:
            of_v = of_v + grad_trajectory[t]
        if grad_spikes is not None:
            of_s = of_s + grad_spikes[t].to(zeros.dtype)
        if t:  # what the step before left: lif of its membrane alone, which the delayed reset keeps
            none = torch.zeros_like(beta)
            left = (reset, False, *rule, FLOAT, FULL, False)
            s, v, u, _ = lif(membrane[t - 1 : t], None, none, threshold, *left)
            s, v = s[0], u[0] if delayed else v
        else:
            s, v = (zeros if start is None else start for start in (spikes0, v0))
        of_u, of_v, by_beta, by_threshold = lif_backward(
            of_s.unsqueeze(0), of_v, None, membrane[t : t + 1], v, beta, threshold,
            reset, delayed, *rule, 0, True, True, True, True,
        )  # fmt: skip
        of_beta, of_threshold = of_beta + by_beta, of_threshold + by_threshold
        of_dense = of_dense + of_u[0].T @ s
        of_s = of_u[0] @ dense
        of_input.append(of_u[0])
    if crow is not None and col is not None:
        of_weight = of_dense[_rows(crow, col), col.long()]
    else:
        of_weight = of_dense
    dtype = (membrane.dtype, torch.bfloat16, torch.float16)[half]
    grad_input = torch.stack(of_input[::-1]) if of_input else membrane
    none = membrane.new_empty((0,))
    return (
        grad_input.to(dtype, copy=True) if need_input else none.to(dtype),
        of_weight if need_weight else none.clone(),
        of_s.clone() if need_spikes else none.clone(),
        of_v.clone() if need_v0 else none.clone(),
        of_beta if need_beta else none.clone(),
        of_threshold if need_threshold else none.clone(),
    )


def _dense(weight: Tensor, crow: Tensor | None, col: Tensor | None, neurons: int) -> Tensor:
    """The weight (P, P)."""
    if crow is None or col is None:
        return weight
    at = _rows(crow, col) * neurons + col.long()
    return weight.new_zeros(neurons * neurons).index_put((at,), weight).view(neurons, neurons)


def _rows(crow: Tensor, col: Tensor) -> Tensor:
    """The row of every entry."""
    row = torch.arange(crow.shape[0] - 1, device=crow.device)
    return row.repeat_interleave(crow.diff().long(), output_size=col.shape[0])
