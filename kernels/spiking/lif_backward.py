"""lif_backward (Triton): a block of neurons back over all time steps.

Spikes and states are made again from the saved membrane. Gradients of the parameters are added up
over time here, over neurons in torch.

Reference: python/synops/_reference/spiking/lif.py
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.launch import accumulator, require
from .neurons import (
    BLOCK,
    OPTIONS,
    check_parameters,
    check_rule,
    curve,
    fires,
    number,
    offsets,
    parameter,
    series,
    state,
    surrogate_at,
)


@triton.jit
def _back(
    u, of_spike, of_v, ahead, beta, threshold, of_beta, of_threshold, SLOPE, HEIGHT,
    RESET: tl.constexpr, DELAYED: tl.constexpr, INCLUSIVE: tl.constexpr,
    ATTACHED: tl.constexpr, SURROGATE: tl.constexpr,
):  # fmt: skip
    """The gradient of the membranes u, and the sums with their terms."""
    fired = fires(u, threshold, INCLUSIVE)
    leaked = beta * ahead
    through = leaked + of_v
    kept = u
    if RESET == 0:
        of_reset = ahead if DELAYED else through
        if ATTACHED:
            of_spike -= threshold * of_reset
        if not DELAYED:
            kept = u - tl.where(fired, threshold, 0.0)
        of_threshold -= tl.where(fired, of_reset, 0.0)
    if RESET == 1:
        of_reset = leaked if DELAYED else through
        if ATTACHED:
            of_spike -= u * of_reset
        kept = tl.where(fired, 0.0, u)
        through = tl.where(fired, 0.0, of_reset)
        if DELAYED:
            through += of_v
    of_step = of_spike * surrogate_at(u - threshold, SLOPE, HEIGHT, SURROGATE)
    return of_step + through, of_beta + ahead * kept, of_threshold - of_step


@triton.jit
def _lif_backward_kernel(
    grad_spikes_ptr,  # or None, as every gradient
    grad_trajectory_ptr,
    grad_v_ptr,
    membrane_ptr,
    v0_ptr,
    beta_ptr,
    threshold_ptr,
    grad_input_ptr,
    grad_v0_ptr,
    grad_beta_ptr,  # (COUNT,), as the next
    grad_threshold_ptr,
    T,
    COUNT,
    P,
    SPIKES_T,
    SPIKES_R,
    TRAJECTORY_T,
    TRAJECTORY_R,
    MEMBRANE_T,
    MEMBRANE_R,
    SLOPE,
    SLOPE_LOW,
    HEIGHT,
    HEIGHT_LOW,
    RESET: tl.constexpr,
    DELAYED: tl.constexpr,
    INCLUSIVE: tl.constexpr,
    ATTACHED: tl.constexpr,
    SURROGATE: tl.constexpr,
    ONE_BETA: tl.constexpr,
    ONE_THRESHOLD: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < COUNT
    beta = parameter(beta_ptr, i, P, inside, ONE_BETA)
    threshold = parameter(threshold_ptr, i, P, inside, ONE_THRESHOLD)
    slope = number(SLOPE, SLOPE_LOW, ACC)
    height = number(HEIGHT, HEIGHT_LOW, ACC)
    zero = tl.zeros((BLOCK,), ACC)
    row = i // P
    place = i % P
    of_v = zero
    if grad_v_ptr is not None:
        of_v = tl.load(grad_v_ptr + i, mask=inside, other=0)
    of_last = of_v
    ahead = zero
    of_beta = zero
    of_threshold = zero
    for back in range(T):
        t = (T - 1 - back).to(tl.int64)
        u = tl.load(membrane_ptr + t * MEMBRANE_T + row * MEMBRANE_R + place, mask=inside, other=0)
        of_spike = zero
        if grad_spikes_ptr is not None:
            at = t * SPIKES_T + row * SPIKES_R + place
            of_spike = tl.load(grad_spikes_ptr + at, mask=inside, other=0).to(ACC)
        if grad_trajectory_ptr is not None:
            at = t * TRAJECTORY_T + row * TRAJECTORY_R + place
            of_v += tl.load(grad_trajectory_ptr + at, mask=inside, other=0)
        ahead, of_beta, of_threshold = _back(
            u, of_spike, of_v, ahead, beta, threshold, of_beta, of_threshold, slope, height,
            RESET, DELAYED, INCLUSIVE, ATTACHED, SURROGATE,
        )  # fmt: skip
        of_v = zero
        if grad_input_ptr is not None:
            to = grad_input_ptr + t * COUNT + i
            tl.store(to, ahead.to(grad_input_ptr.dtype.element_ty), mask=inside)
    v0 = zero
    if v0_ptr is not None:
        v0 = tl.load(v0_ptr + i, mask=inside, other=0)
    if DELAYED:
        of_v0, of_beta, of_threshold = _back(
            v0, zero, zero, ahead, beta, threshold, of_beta, of_threshold, slope, height,
            RESET, DELAYED, INCLUSIVE, ATTACHED, SURROGATE,
        )  # fmt: skip
    else:
        of_v0 = beta * ahead
        of_beta += ahead * v0
    if T == 0:
        of_v0 = of_last
    if grad_v0_ptr is not None:
        tl.store(grad_v0_ptr + i, of_v0, mask=inside)
    if grad_beta_ptr is not None:
        tl.store(grad_beta_ptr + i, of_beta, mask=inside)
    if grad_threshold_ptr is not None:
        tl.store(grad_threshold_ptr + i, of_threshold, mask=inside)


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
    op = "lif_backward"
    check_rule(op, reset, surrogate, slope)
    require(0 <= half <= 2, op, f"half must be 0, 1 or 2, got {half}")
    u = series(op, "membrane", membrane, membrane)
    wide = u.dtype
    require(wide in (torch.float32, torch.float64), op, "membrane must be float32 or float64")
    dtype = (wide, torch.bfloat16, torch.float16)[half]
    T, R, P = u.shape
    spikes, trajectory = (
        None if t is None else series(op, name, t, u, kind)
        for name, t, kind in (
            ("grad_spikes", grad_spikes, dtype),
            ("grad_trajectory", grad_trajectory, wide),
        )
    )
    grad_v, v0 = state(op, "grad_v", grad_v, u, wide), state(op, "v0", v0, u, wide)
    beta, threshold = check_parameters(op, u, wide, beta, threshold)

    def room(needed: bool, shape: tuple[int, ...], dtype: torch.dtype = wide) -> Tensor:
        return torch.empty(shape if needed else (0,), dtype=dtype, device=u.device)

    of_input = room(need_input, (T, R, P), dtype)
    of_v0, of_beta, of_threshold = (room(n, (R, P)) for n in (need_v0, need_beta, need_threshold))
    if R * P:
        _lif_backward_kernel[(triton.cdiv(R * P, BLOCK),)](
            spikes,
            trajectory,
            grad_v,
            u,
            v0,
            beta,
            threshold,
            of_input if need_input else None,
            of_v0 if need_v0 else None,
            of_beta if need_beta else None,
            of_threshold if need_threshold else None,
            T,
            R * P,
            P,
            *(0, 0) if spikes is None else offsets(spikes),
            *(0, 0) if trajectory is None else offsets(trajectory),
            *offsets(u),
            *curve(surrogate, slope),
            RESET=reset,
            DELAYED=bool(delayed) and reset != 2,
            INCLUSIVE=bool(inclusive),
            ATTACHED=not detach_reset,
            SURROGATE=surrogate,
            ONE_BETA=beta.dim() == 0,
            ONE_THRESHOLD=threshold.dim() == 0,
            ACC=accumulator(wide),
            BLOCK=BLOCK,
            **OPTIONS,
        )

    def summed(of_neurons: Tensor, needed: bool, like: Tensor) -> Tensor:
        if not needed:
            return of_neurons
        return of_neurons.double().sum((0, 1) if like.dim() == 0 else 0).to(wide)

    return (
        of_input,
        of_v0,
        summed(of_beta, need_beta, beta),
        summed(of_threshold, need_threshold, threshold),
    )


def _build(dtype: torch.dtype, reset: int, delayed: bool, surrogate: int, every: bool) -> Build:
    wide = "*fp64" if dtype == torch.float64 else "*fp32"
    optional = (
        "grad_trajectory_ptr", "grad_v_ptr", "v0_ptr", "grad_v0_ptr", "grad_beta_ptr",
        "grad_threshold_ptr",
    )  # fmt: skip
    sizes = (
        "T", "COUNT", "P", "SPIKES_T", "SPIKES_R", "TRAJECTORY_T", "TRAJECTORY_R", "MEMBRANE_T",
        "MEMBRANE_R",
    )  # fmt: skip
    return Build(
        _lif_backward_kernel,
        {
            **dict.fromkeys(("grad_spikes_ptr", "grad_input_ptr"), "*" + NAMES[dtype]),
            **dict.fromkeys(("membrane_ptr", "beta_ptr", "threshold_ptr"), wide),
            **(dict.fromkeys(optional, wide) if every else {}),
            **dict.fromkeys(sizes, "i32"),
            **dict.fromkeys(("SLOPE", "SLOPE_LOW", "HEIGHT", "HEIGHT_LOW"), "fp32"),
        },
        {
            **({} if every else dict.fromkeys(optional)),
            "RESET": reset,
            "DELAYED": delayed,
            "INCLUSIVE": every,
            "ATTACHED": every,
            "SURROGATE": surrogate,
            "ONE_BETA": not every,
            "ONE_THRESHOLD": not every,
            "ACC": accumulator(dtype),
            "BLOCK": BLOCK,
        },
        OPTIONS,
    )


AOT = [
    _build(torch.float32, 0, False, 0, False),
    _build(torch.float32, 0, True, 1, True),
    _build(torch.bfloat16, 1, True, 2, True),
    _build(torch.float64, 1, False, 4, True),
    _build(torch.float16, 2, False, 6, True),
]
