"""leaky_rnn in plain torch: its definition, and what runs where nothing faster does.

Input (T, R, N): time, rows, neurons; weight (N, N), to the neuron of its row; rate = 1 / tau, () or
(N,). All but the input are of the dtype of the state, float32 (float64).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IDENTITY, RELU, LEAKY_RELU, TANH = range(4)


def activated(x: Tensor, activation: int, slope: float) -> Tensor:
    """f(x)."""
    if activation == RELU:
        return x.relu()
    if activation == LEAKY_RELU:
        return F.leaky_relu(x, slope)
    return x.tanh() if activation == TANH else x


def derivative(y: Tensor, activation: int, slope: float) -> Tensor:
    """f' where f is y: its sign is that of the argument, as slopes are not negative."""
    if activation == TANH:
        return 1 - y * y
    below = {IDENTITY: 1.0, RELU: 0.0}.get(activation, slope)
    return torch.where(y > 0, y.new_ones(()), y.new_full((), below))


def _recurrent(weight: Tensor, zero_diagonal: bool) -> Tensor:
    """The weight that is multiplied with."""
    if not zero_diagonal:
        return weight
    own = torch.eye(weight.shape[0], dtype=torch.bool, device=weight.device)
    return weight.masked_fill(own, 0)


def leaky_rnn(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    h0: Tensor | None,
    rate: Tensor,
    activation: int,
    slope: float,
    inner: bool,
    zero_diagonal: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """states (T, R, N), the last of them (R, N), drive (T, R, N) or 0-size.

    The drive is what is mixed with the state: z = W h + b + x, or f(z) where f is inside.
    """
    x = input if input.dtype == torch.float64 else input.float()
    weight = _recurrent(weight, zero_diagonal)
    h = x.new_zeros(x.shape[1:]) if h0 is None else h0.clone()
    states, drives = [], []
    for x_t in x.unbind(0):
        drive = F.linear(h, weight, bias) + x_t
        if inner:
            drive = activated(drive, activation, slope)
        h = (1 - rate) * h + rate * drive
        if not inner:
            h = activated(h, activation, slope)
        states.append(h)
        drives.append(drive.detach())
    stacked = torch.stack(states) if states else torch.empty_like(x)
    saved = torch.stack(drives) if save and drives else x.new_empty(x.shape if save else (0,))
    return stacked, h.clone(), saved


def leaky_rnn_(states: Tensor, *args: Any) -> Tensor:
    """The same without a gradient, into ``states``; the last state."""
    found, h, _ = leaky_rnn(*(*args, False))
    states.copy_(found)
    return h


def leaky_rnn_backward(
    grad_states: Tensor | None,
    grad_h: Tensor | None,
    states: Tensor,
    drive: Tensor,
    weight: Tensor,
    h0: Tensor | None,
    rate: Tensor,
    activation: int,
    slope: float,
    inner: bool,
    zero_diagonal: bool,
    half: int,
    need_input: bool,
    need_weight: bool,
    need_bias: bool,
    need_h0: bool,
    need_rate: bool,
) -> tuple[Tensor, ...]:
    """Gradients of input, weight, bias, h0 and rate, back in time; 0-size where not needed."""
    weight = _recurrent(weight, zero_diagonal)
    zeros = states.new_zeros(states.shape[1:])
    start = zeros if h0 is None else h0
    of_h = zeros if grad_h is None else grad_h.clone()
    of_rate, of_weight = zeros, torch.zeros_like(weight)
    of_drives = []  # before the activation
    for t in reversed(range(states.shape[0])):
        before = states[t - 1] if t else start
        if grad_states is not None:
            of_h = of_h + grad_states[t]
        if not inner:
            of_h = of_h * derivative(states[t], activation, slope)
        of_z = rate * of_h
        if inner:
            of_z = of_z * derivative(drive[t], activation, slope)
        if need_rate:
            of_rate = of_rate + of_h * (drive[t] - before)
        of_weight = of_weight + of_z.t() @ before
        of_drives.append(of_z)
        of_h = (1 - rate) * of_h + of_z @ weight
    of_input = torch.stack(of_drives[::-1]) if of_drives else torch.empty_like(states)
    dtype = (states.dtype, torch.bfloat16, torch.float16)[half]
    none = states.new_empty((0,))
    return (
        of_input.to(dtype, copy=True) if need_input else none.to(dtype),
        _recurrent(of_weight, zero_diagonal).clone() if need_weight else none.clone(),
        of_input.sum((0, 1)) if need_bias else none.clone(),
        of_h if need_h0 else none.clone(),
        of_rate.sum_to_size(rate.shape).clone() if need_rate else none.clone(),
    )
