"""lif, alif and cuba_lif in plain torch: their definition, and what runs where nothing faster does.

Input (T, R, P): time, rows, neurons; parameters () or (P,); states in float32 (float64). Beside the
membrane v a neuron may have a second state w: the adaptation of its threshold (ADAPTIVE), or a
synaptic current (CURRENT). The order of the operations is part of the definition: spikes are
compared, so a rounding counts.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

PLAIN, ADAPTIVE, CURRENT = range(3)  # the neurons
SUBTRACT, ZERO, NONE = range(3)  # the reset
FAST_SIGMOID, ATAN, SIGMOID, SUPERSPIKE, BOXCAR, TRIANGLE = range(6)  # 6 is the quadratic gate
INPUT, BYTES, BITS = range(3)  # the form of the spikes
FULL, HALF = 1, 2  # what is saved; 0 is nothing


class Rule(NamedTuple):
    """How neurons fire and reset, and the surrogate of their gradient, as the ops take it."""

    reset: int
    delayed: bool
    inclusive: bool
    detach_reset: bool
    surrogate: int
    slope: float


class Second(NamedTuple):
    """The second state: where it starts, what a step leaves of it, how it counts."""

    kind: int = PLAIN
    start: Tensor | None = None
    decay: Any = None  # tensors, where the neuron has them
    strength: Any = None  # of the adaptation in the threshold


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


def forward(
    input: Tensor,
    v0: Tensor | None,
    beta: Tensor,
    threshold: Tensor,
    second: Second,
    rule: Rule,
    spikes: int,
    save: int,
    save_second: bool,
    record: bool,
) -> tuple[Tensor, ...]:
    """Spikes; v and w (R, P); what is saved of membranes and of w, and the trajectory of v.

    (T, R, P) each; of those that are not asked for 0-size; of bits (T, R, ceil(P / 8)).
    """
    x = _wide(input)
    kind, start, decay, strength = second
    v = x.new_zeros(x.shape[1:]) if v0 is None else v0.clone()
    w = torch.zeros_like(v) if start is None else start.clone()
    late = rule.delayed and rule.reset != NONE

    def fire(u: Tensor, w: Tensor) -> Tensor:
        at = threshold + strength * w if kind == ADAPTIVE else threshold
        return _Spike.apply(u, at, rule.inclusive, rule.surrogate, rule.slope)

    def after_reset(u: Tensor, fired: Tensor) -> Tensor:
        fired = fired.detach() if rule.detach_reset else fired
        if rule.reset == SUBTRACT:
            return u - fired * threshold
        if rule.reset == ZERO:  # an infinite membrane, too, is reset to 0
            return (1 - fired) * u.clamp(max=torch.finfo(u.dtype).max)
        return u

    fires, saved, seconds, trajectory = [], [], [], []
    for drive in x.unbind(0):
        if kind == CURRENT:
            drive = w = decay * w + drive
        if not late:
            u = beta * v + drive
        elif rule.reset == ZERO:
            before = fire(v, w)
            u = beta * after_reset(v, before) + drive
        else:
            leaked = beta * v + drive
            before = fire(v, w)
            u = after_reset(leaked, before)
        if kind == ADAPTIVE and late:
            w = decay * w + before
        fired = fire(u, w)
        v = u if late else after_reset(u, fired)
        fires.append(_formed(fired, spikes, input.dtype))
        at = threshold + strength * w if kind == ADAPTIVE else threshold
        saved.append(_saved(u.detach(), at.detach(), fired, kind, rule.inclusive, save))
        seconds.append(w.detach())
        trajectory.append(v)
        if kind == ADAPTIVE and not late:
            w = decay * w + fired

    def stacked(parts: list[Tensor], wanted: bool, like: Tensor) -> Tensor:
        if not wanted:
            return like.new_empty((0,))
        return torch.stack(parts) if parts else torch.empty_like(like)

    none = torch.empty_like(x)
    return (
        stacked(fires, True, _formed(none, spikes, input.dtype)),
        v,
        w,
        stacked(saved, save > 0, none.half() if save == HALF else none),
        stacked(seconds, save_second, none),
        stacked(trajectory, record, none),
    )


def _formed(fired: Tensor, spikes: int, dtype: torch.dtype) -> Tensor:
    if spikes == INPUT:
        return fired.to(dtype)
    fired = fired.detach() > 0
    if spikes == BYTES:
        return fired.to(torch.uint8)
    fired = torch.nn.functional.pad(fired, (0, -fired.shape[-1] % 8)).unflatten(-1, (-1, 8))
    weight = 2 ** torch.arange(8, device=fired.device)
    return (fired * weight).sum(-1).to(torch.uint8)


def _saved(u: Tensor, at: Tensor, fired: Tensor, kind: int, inclusive: bool, save: int) -> Tensor:
    """The membrane; of ADAPTIVE, and by HALF, its distance from the threshold.

    What would be rounded to the wrong side of 0 is the smallest number of float16 instead.
    """
    if save != HALF:
        return u - at if kind == ADAPTIVE else u
    d, least = u - at, 2.0**-24
    if inclusive:
        return d.where(fired > 0, d.clamp_max(-least)).half()
    return d.clamp_min(least).where(fired > 0, d).half()


def backward(
    grad_spikes: Tensor | None,
    grad_v: Tensor | None,
    grad_w: Tensor | None,
    grad_trajectory: Tensor | None,
    membrane: Tensor,
    seconds: Tensor | None,
    v0: Tensor | None,
    beta: Tensor,
    threshold: Tensor,
    second: Second,
    rule: Rule,
    half: int,
) -> tuple[Tensor, ...]:
    """Gradients of input, v0, w0, beta, threshold, decay and strength, back in time."""
    kind, start_w, decay, strength = second
    reset, delayed, inclusive, detach_reset, surrogate, slope = rule
    late = delayed and reset != NONE
    distances = kind == ADAPTIVE or membrane.dtype == torch.float16
    zeros = beta.new_zeros(membrane.shape[1:])
    of_input, of_beta, of_threshold, of_decay, of_strength = [], zeros, zeros, zeros, zeros
    ahead = zeros  # the gradient of the membrane of the step after, and of its w
    ahead_w = zeros
    if kind == ADAPTIVE and not late and grad_w is not None:
        ahead_w = grad_w

    def back(u: Tensor, d: Tensor, fired: Tensor, w: Tensor, of_spike: Tensor, of_v: Tensor):
        """The gradient of u, from those of its spike, its state and the next membrane."""
        nonlocal of_beta, of_threshold, of_decay, of_strength, ahead_w
        leaked = beta * ahead
        kept = u.where(fired == 0, 0) if reset == ZERO else u
        if reset == SUBTRACT and not late:
            kept = u - fired * threshold
        if kind == ADAPTIVE:
            of_spike = of_spike + ahead_w
        of_beta = of_beta + ahead * kept
        of_reset = leaked + of_v  # the gradient of what the reset makes
        if late:
            of_reset = ahead if reset == SUBTRACT else leaked
        through = leaked + of_v
        if reset == SUBTRACT:
            of_spike = of_spike if detach_reset else of_spike - threshold * of_reset
            of_threshold = of_threshold - fired * of_reset
        elif reset == ZERO:
            of_spike = of_spike if detach_reset else of_spike - u * of_reset
            through = of_reset.where(fired == 0, 0) + (of_v if late else 0)
        of_step = of_spike * slope_at(d, surrogate, slope)
        of_threshold = of_threshold - of_step
        if kind == ADAPTIVE:
            of_strength = of_strength - of_step * w
            of_decay = of_decay + ahead_w * w
            ahead_w = decay * ahead_w - strength * of_step
        return of_step + through

    def current_back(w: Tensor) -> Tensor:
        """The gradient of a current from that of the next one."""
        nonlocal of_decay
        of_decay = of_decay + ahead_w * w
        return decay * ahead_w

    for t in reversed(range(membrane.shape[0])):
        last = t == membrane.shape[0] - 1
        of_v = zeros if grad_trajectory is None else grad_trajectory[t]
        if grad_v is not None and last:
            of_v = of_v + grad_v
        of_spike = zeros if grad_spikes is None else grad_spikes[t].to(zeros.dtype)
        w = zeros if seconds is None else seconds[t]
        at = threshold + strength * w if kind == ADAPTIVE else threshold
        u = membrane[t].to(zeros.dtype)
        d, u = (u, u + at) if distances else (u - at, u)
        fired = (d >= 0 if inclusive else d > 0).to(zeros.dtype)
        ahead = back(u, d, fired, w, of_spike, of_v)
        if kind == CURRENT:
            ahead_w = ahead + current_back(w)
        if last and grad_w is not None and (kind == CURRENT or late):
            ahead_w = ahead_w + grad_w
        of_input.append(ahead_w if kind == CURRENT else ahead)

    start = zeros if v0 is None else v0
    w = zeros if start_w is None else start_w
    if kind == CURRENT:
        ahead_w = current_back(w)
    if not membrane.shape[0]:
        of_v0 = zeros if grad_v is None else grad_v.clone()
        ahead_w = zeros if grad_w is None else grad_w.clone()
    elif late:
        d = start - (threshold + strength * w if kind == ADAPTIVE else threshold)
        fired = (d >= 0 if inclusive else d > 0).to(zeros.dtype)
        of_v0 = back(start, d, fired, w, zeros, zeros)
    else:
        of_beta = of_beta + ahead * start
        of_v0 = beta * ahead
    dtype = (zeros.dtype, torch.bfloat16, torch.float16)[half]
    shape = membrane.shape
    grad_input = torch.stack(of_input[::-1]) if of_input else zeros.new_empty(shape)
    summed = [of_beta.sum_to_size(beta.shape), of_threshold.sum_to_size(threshold.shape)]
    for total, like in ((of_decay, decay), (of_strength, strength)):
        summed.append(zeros if like is None else total.sum_to_size(like.shape))
    return (grad_input.to(dtype, copy=True), of_v0, ahead_w, *summed)


def needed(gradients: tuple[Tensor, ...], needs: tuple[bool, ...]) -> tuple[Tensor, ...]:
    """Those that are needed; 0-size for the others."""
    pairs = zip(gradients, needs, strict=True)
    return tuple(g.clone() if need else g.new_empty((0,)) for g, need in pairs)


def _wide(input: Tensor) -> Tensor:
    return input if input.dtype == torch.float64 else input.float()
