"""lif in plain torch: its definition, and what runs where nothing faster does.

Input (T, R, P): time, rows, neurons; beta and threshold () or (P,); state in float32 (float64).
The order of the operations is part of the definition: spikes are compared, so a rounding counts.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

SUBTRACT, ZERO = 0, 1  # the reset; 2 is none
FAST_SIGMOID, ATAN, SIGMOID, SUPERSPIKE, BOXCAR, TRIANGLE = range(6)  # 6 is the quadratic gate


def slope_at(d: Tensor, surrogate: int, slope: float) -> Tensor:
    """What stands for the derivative of the step at d = membrane - threshold."""
    if surrogate in (FAST_SIGMOID, SUPERSPIKE):
        return 1 / (1 + slope * d.abs()).square()
    if surrogate == ATAN:
        return slope / 2 / (1 + (math.pi / 2 * slope * d).square())
    if surrogate == SIGMOID:
        e = torch.exp(-slope * d.abs())
        return slope * e / (1 + e).square()
    if surrogate == BOXCAR:
        return slope * (d.abs() < 0.5 / slope).to(d.dtype)
    tent = (1 - slope * d.abs()).clamp_min(0)
    return tent if surrogate == TRIANGLE else slope * tent


class _Spike(torch.autograd.Function):
    """A step whose derivative is that of a surrogate."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, threshold: Tensor, inclusive: bool, *shape: Any) -> Tensor:
        return (u >= threshold if inclusive else u > threshold).to(u.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        u, threshold, _, *ctx.shape = inputs
        ctx.save_for_backward(u, threshold)
        ctx.save_for_forward(u, threshold)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        u, threshold = ctx.saved_tensors
        grad = grad * slope_at(u - threshold, *ctx.shape)
        return grad, -grad.sum_to_size(threshold.shape), None, None, None

    @staticmethod
    def jvp(ctx: Any, of_u: Tensor, of_threshold: Tensor, *rest: Any) -> Tensor:
        u, threshold = ctx.saved_tensors
        return (of_u - of_threshold) * slope_at(u - threshold, *ctx.shape)


def lif(
    input: Tensor,
    v0: Tensor | None,
    beta: Tensor,
    threshold: Tensor,
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
    x = _wide(input)
    v = x.new_zeros(x.shape[1:]) if v0 is None else v0.clone()

    def fire(u: Tensor) -> Tensor:
        return _Spike.apply(u, threshold, inclusive, surrogate, slope)

    def after_reset(u: Tensor, fired: Tensor) -> Tensor:
        fired = fired.detach() if detach_reset else fired
        if reset == SUBTRACT:
            return u - fired * threshold
        if reset == ZERO:  # an infinite membrane, too, is reset to 0
            return (1 - fired) * u.clamp(max=torch.finfo(u.dtype).max)
        return u

    spikes, membrane, trajectory = [], [], []
    for x_t in x.unbind(0):
        if not delayed:
            u = beta * v + x_t
        elif reset == ZERO:
            u = beta * after_reset(v, fire(v)) + x_t
        else:
            u = after_reset(beta * v + x_t, fire(v))
        fired = fire(u)
        v = u if delayed else after_reset(u, fired)
        spikes.append(fired.to(input.dtype))
        membrane.append(u.detach())
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


def lif_backward(
    grad_spikes: Tensor | None,
    grad_v: Tensor | None,
    grad_trajectory: Tensor | None,
    membrane: Tensor,
    v0: Tensor | None,
    beta: Tensor,
    threshold: Tensor,
    reset: int,
    delayed: bool,
    inclusive: bool,
    detach_reset: bool,
    surrogate: int,
    slope: float,
    half: int,
    need_input: bool,
    need_v0: bool,
    need_beta: bool,
    need_threshold: bool,
) -> tuple[Tensor, ...]:
    """Gradients of input, v0, beta and threshold, back in time; 0-size where not needed."""
    zeros = membrane.new_zeros(membrane.shape[1:])
    of_input, of_beta, of_threshold = [], zeros, zeros
    ahead = zeros  # the gradient of the membrane of the step after

    def back(u: Tensor, of_spike: Tensor, of_v: Tensor) -> Tensor:
        """The gradient of u, from those of its spike, its state and the next membrane."""
        nonlocal of_beta, of_threshold
        fired = (u >= threshold if inclusive else u > threshold).to(u.dtype)
        leaked = beta * ahead
        kept = u.where(fired == 0, 0) if reset == ZERO else u
        if reset == SUBTRACT and not delayed:
            kept = u - fired * threshold
        of_beta = of_beta + ahead * kept
        of_reset = leaked + of_v  # the gradient of what the reset makes
        if delayed:
            of_reset = ahead if reset == SUBTRACT else leaked
        if reset == SUBTRACT:
            of_spike = of_spike if detach_reset else of_spike - threshold * of_reset
            of_threshold = of_threshold - fired * of_reset
            through = leaked + of_v
        elif reset == ZERO:
            of_spike = of_spike if detach_reset else of_spike - u * of_reset
            through = of_reset.where(fired == 0, 0) + (of_v if delayed else 0)
        else:
            through = leaked + of_v
        of_step = of_spike * slope_at(u - threshold, surrogate, slope)
        of_threshold = of_threshold - of_step
        return of_step + through

    for t in reversed(range(membrane.shape[0])):
        of_v = zeros if grad_trajectory is None else grad_trajectory[t]
        if grad_v is not None and t == membrane.shape[0] - 1:
            of_v = of_v + grad_v
        of_spike = zeros if grad_spikes is None else grad_spikes[t].to(zeros.dtype)
        ahead = back(membrane[t], of_spike, of_v)
        of_input.append(ahead)
    start = zeros if v0 is None else v0
    if not membrane.shape[0]:
        of_v0 = zeros if grad_v is None else grad_v.clone()
    elif delayed:
        of_v0 = back(start, zeros, zeros)
    else:
        of_beta = of_beta + ahead * start
        of_v0 = beta * ahead
    dtype = (membrane.dtype, torch.bfloat16, torch.float16)[half]
    grad_input = torch.stack(of_input[::-1]) if of_input else membrane
    none = membrane.new_empty((0,))
    return (
        grad_input.to(dtype, copy=True) if need_input else none.to(dtype),
        of_v0 if need_v0 else none.clone(),
        of_beta.sum_to_size(beta.shape) if need_beta else none.clone(),
        of_threshold.sum_to_size(threshold.shape) if need_threshold else none.clone(),
    )


def _wide(input: Tensor) -> Tensor:
    return input if input.dtype == torch.float64 else input.float()
