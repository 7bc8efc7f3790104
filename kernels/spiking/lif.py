"""lif (Triton): a block of neurons over all time steps, its state in registers.

A step reads the input and writes the spikes once. Products and sums are rounded one by one (no
fused multiply-adds), so that spikes are those of the CPU.

Reference: python/synops/_reference/spiking/lif.py
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.launch import accumulator
from .lif_backward import lif_backward
from .neurons import (
    BLOCK,
    OPTIONS,
    check_parameters,
    check_rule,
    fires,
    offsets,
    parameter,
    series,
    state,
)

__all__ = ["AOT", "lif", "lif_backward"]


@triton.jit
def _lif_kernel(
    input_ptr,
    v0_ptr,  # or None
    beta_ptr,
    threshold_ptr,
    spikes_ptr,
    v_ptr,
    membrane_ptr,  # or None
    trajectory_ptr,  # or None
    T,
    COUNT,
    P,
    STRIDE_T,
    STRIDE_R,
    RESET: tl.constexpr,  # 0 subtract, 1 zero, 2 none
    DELAYED: tl.constexpr,
    INCLUSIVE: tl.constexpr,
    ONE_BETA: tl.constexpr,
    ONE_THRESHOLD: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < COUNT
    beta = parameter(beta_ptr, i, P, inside, ONE_BETA)
    threshold = parameter(threshold_ptr, i, P, inside, ONE_THRESHOLD)
    x_at = input_ptr + i // P * STRIDE_R + i % P
    if v0_ptr is None:
        v = tl.zeros((BLOCK,), ACC)
    else:
        v = tl.load(v0_ptr + i, mask=inside, other=0)
    shown = v
    owed = tl.zeros((BLOCK,), ACC)
    if DELAYED:
        fired = fires(v, threshold, INCLUSIVE)
        if RESET == 0:
            owed = tl.where(fired, threshold, owed)
        if RESET == 1:
            v = tl.where(fired, 0.0, v)
    at = i
    for _ in range(T):
        u = beta * v + tl.load(x_at, mask=inside, other=0).to(ACC)
        if DELAYED and RESET == 0:
            u -= owed
        fired = fires(u, threshold, INCLUSIVE)
        spikes = fired.to(ACC).to(spikes_ptr.dtype.element_ty)
        tl.store(spikes_ptr + at, spikes, mask=inside)
        if membrane_ptr is not None:
            tl.store(membrane_ptr + at, u, mask=inside)
        v = u
        if RESET == 0:
            owed = tl.where(fired, threshold, 0.0)
            if not DELAYED:
                v = u - owed
        if RESET == 1:
            v = tl.where(fired, 0.0, u)
        shown = u if DELAYED else v
        if trajectory_ptr is not None:
            tl.store(trajectory_ptr + at, shown, mask=inside)
        x_at += STRIDE_T
        at += COUNT
    tl.store(v_ptr + i, shown, mask=inside)


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
    op = "lif"
    check_rule(op, reset, surrogate, slope)
    x = series(op, "input", input, input)
    T, R, P = x.shape
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    v0 = state(op, "v0", v0, x, dtype)
    beta, threshold = check_parameters(op, x, dtype, beta, threshold)
    spikes = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    v = torch.empty((R, P), dtype=dtype, device=x.device)
    membrane = torch.empty(x.shape if save else (0,), dtype=dtype, device=x.device)
    trajectory = torch.empty(x.shape if record else (0,), dtype=dtype, device=x.device)
    if R * P:
        _lif_kernel[(triton.cdiv(R * P, BLOCK),)](
            x,
            v0,
            beta,
            threshold,
            spikes,
            v,
            membrane if save else None,
            trajectory if record else None,
            T,
            R * P,
            P,
            *offsets(x),
            RESET=reset,
            DELAYED=bool(delayed) and reset != 2,
            INCLUSIVE=bool(inclusive),
            ONE_BETA=beta.dim() == 0,
            ONE_THRESHOLD=threshold.dim() == 0,
            ACC=accumulator(x.dtype),
            BLOCK=BLOCK,
            **OPTIONS,
        )
    return spikes, v, membrane, trajectory


def _build(dtype: torch.dtype, reset: int, delayed: bool, every: bool) -> Build:
    wide = "*fp64" if dtype == torch.float64 else "*fp32"
    optional = ("v0_ptr", "membrane_ptr", "trajectory_ptr")
    return Build(
        _lif_kernel,
        {
            **dict.fromkeys(("input_ptr", "spikes_ptr"), "*" + NAMES[dtype]),
            **dict.fromkeys(("beta_ptr", "threshold_ptr", "v_ptr"), wide),
            **(dict.fromkeys(optional, wide) if every else {}),
            **dict.fromkeys(("T", "COUNT", "P", "STRIDE_T", "STRIDE_R"), "i32"),
        },
        {
            **({} if every else dict.fromkeys(optional)),
            "RESET": reset,
            "DELAYED": delayed,
            "INCLUSIVE": every,
            "ONE_BETA": not every,
            "ONE_THRESHOLD": not every,
            "ACC": accumulator(dtype),
            "BLOCK": BLOCK,
        },
        OPTIONS,
    )


AOT = [
    _build(torch.float32, 0, False, False),
    _build(torch.float32, 0, True, True),
    _build(torch.bfloat16, 1, True, True),
    _build(torch.float64, 1, False, True),
]
