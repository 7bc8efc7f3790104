"""recurrent_lif_backward (Triton): two launches a step back in time, one product for the weight.

Spikes and states are made again from the saved membrane, of all steps at once.

Reference: python/synops/_reference/spiking/recurrent_lif.py
"""

from typing import Any

import torch
from torch import Tensor

from ..common.launch import require
from .lif import lif
from .lif_backward import lif_backward
from .neurons import check_parameters, check_rule, series, state
from .recurrent_weight import Weight


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
    *rule: Any,
) -> tuple[Tensor, ...]:
    op = "recurrent_lif_backward"
    *rule, half, need_input, need_weight, need_spikes, need_v0, need_beta, need_threshold = rule
    reset, delayed, *others = rule
    check_rule(op, reset, rule[4], rule[5])
    require(0 <= half <= 2, op, f"half must be 0, 1 or 2, got {half}")
    u = series(op, "membrane", membrane, membrane).contiguous()
    wide = u.dtype
    require(wide in (torch.float32, torch.float64), op, "membrane must be float32 or float64")
    dtype = (wide, torch.bfloat16, torch.float16)[half]
    if grad_spikes is not None:
        grad_spikes = series(op, "grad_spikes", grad_spikes, u, dtype)
    if grad_trajectory is not None:
        grad_trajectory = series(op, "grad_trajectory", grad_trajectory, u, wide)
    grad_v, spikes0, v0 = (
        state(op, name, t, u, wide)
        for name, t in (("grad_v", grad_v), ("spikes0", spikes0), ("v0", v0))
    )
    beta, threshold = check_parameters(op, u, wide, beta, threshold)
    matrix = Weight(op, weight, crow, col, u, wide)

    steps, rows, neurons = u.shape
    zeros = torch.zeros((rows, neurons), dtype=wide, device=u.device)
    spikes0, v0 = (zeros if t is None else t for t in (spikes0, v0))
    # What the steps before left: lif of their membranes alone, which a delayed reset keeps.
    before = u[:-1].reshape(1, max(steps - 1, 0) * rows, neurons)
    at_once = (reset, False, *others, 0, 0, False)  # spikes as they are, nothing saved
    fired, left, _, _ = lif(before, None, torch.zeros_like(beta), threshold, *at_once)
    shape = (max(steps, 1), rows, neurons)
    spikes = torch.cat([spikes0, fired[0]]).view(shape)[:steps]
    states = torch.cat([v0, before[0] if delayed else left]).view(shape)[:steps]

    of_v = zeros if grad_v is None else grad_v
    of_s, of_beta, of_threshold = zeros, torch.zeros_like(beta), torch.zeros_like(threshold)
    of_u = torch.empty_like(u)
    for t in reversed(range(steps)):
        if grad_trajectory is not None:
            of_v = of_v + grad_trajectory[t]
        if grad_spikes is not None:
            of_s = of_s + grad_spikes[t].to(wide)
        found, of_v, by_beta, by_threshold = lif_backward(
            of_s.unsqueeze(0), of_v, None, u[t : t + 1], states[t], beta, threshold,
            *rule, 0, True, True, need_beta, need_threshold,
        )  # fmt: skip
        of_u[t] = found[0]
        of_beta = of_beta + by_beta if need_beta else of_beta
        of_threshold = of_threshold + by_threshold if need_threshold else of_threshold
        if t or need_spikes:
            of_s = matrix.backward(found[0])
    none = torch.empty(0, dtype=wide, device=u.device)
    return (
        of_u.to(dtype) if need_input else none.to(dtype),
        matrix.outer(of_u.flatten(0, 1), spikes.flatten(0, 1)) if need_weight else none,
        of_s.clone() if need_spikes else none.clone(),
        of_v.clone() if need_v0 else none.clone(),
        of_beta if need_beta else none.clone(),
        of_threshold if need_threshold else none.clone(),
    )
