"""leaky_rnn_backward (Triton): one launch a step back in time, a tile of rows x neurons a program.

A program makes the gradient of its tile of a state: what leaked there from the state after, and
the rows of the gradient of the drive after times its columns of the weight. Leak and activation
follow on the sums. The gradient of the weight is one product of torch over all rows of all steps.

Reference: python/synops/_reference/spiking/leaky_rnn.py
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import Build
from ..common.launch import OPTIONS, require
from .leaky_rnn_layer import LAUNCH, Layer, constants_of, derivative, product
from .neurons import offsets, series, state


@triton.jit
def _leaky_rnn_backward_kernel(
    after_ptr,  # (R, N), the gradient of the drive of the step after, or None
    weight_ptr,  # (N, N)
    rate_ptr,  # (N,)
    grad_states_ptr,  # (R, N) of this step, or None
    states_ptr,  # likewise, and next; None where only of_h is wanted, that of h0
    before_ptr,  # of the step before, or None: 0
    drive_ptr,
    of_drive_ptr,
    of_h_ptr,  # (R, N), what of the gradient leaks to the step before
    of_rate_ptr,  # (R, N), += terms of the gradient of the rate, or None
    R,
    N,
    STRIDE_R,
    SLOPE,
    SLOPE_LOW,
    ACTIVATION: tl.constexpr,
    INNER: tl.constexpr,
    ZERO_DIAGONAL: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (m < R)[:, None] & (n < N)[None, :]
    at = m[:, None] * N + n[None, :]
    g = tl.load(of_h_ptr + at, mask=inside, other=0)
    if after_ptr is not None:
        g += product(
            after_ptr, weight_ptr, m, n, R, N, False, ZERO_DIAGONAL, ACC, BLOCK_M, BLOCK_N, BLOCK_K
        )
    if states_ptr is not None:
        if grad_states_ptr is not None:
            incoming = m[:, None] * STRIDE_R + n[None, :]
            g += tl.load(grad_states_ptr + incoming, mask=inside, other=0)
        if not INNER:
            y = tl.load(states_ptr + at, mask=inside, other=0)
            g *= derivative(y, SLOPE, SLOPE_LOW, ACTIVATION, ACC)
        rate = tl.load(rate_ptr + n, mask=n < N, other=0)[None, :]
        of_z = rate * g
        if INNER:
            y = tl.load(drive_ptr + at, mask=inside, other=0)
            of_z *= derivative(y, SLOPE, SLOPE_LOW, ACTIVATION, ACC)
        if of_rate_ptr is not None:
            moved = tl.load(drive_ptr + at, mask=inside, other=0)
            if before_ptr is not None:
                moved -= tl.load(before_ptr + at, mask=inside, other=0)
            sums = tl.load(of_rate_ptr + at, mask=inside, other=0)
            tl.store(of_rate_ptr + at, sums + g * moved, mask=inside)
        tl.store(of_drive_ptr + at, of_z, mask=inside)
        g *= 1 - rate
    tl.store(of_h_ptr + at, g, mask=inside)


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
    op = "leaky_rnn_backward"
    require(0 <= half <= 2, op, f"half must be 0, 1 or 2, got {half}")
    layer = Layer(op, states, weight, h0, rate, activation, slope, inner, zero_diagonal)
    wide = states.dtype
    require(wide == layer.dtype, op, "states must be float32 or float64")
    states = states.contiguous()
    if inner or need_rate:
        drive = series(op, "drive", drive, states).contiguous()
    if grad_states is not None:
        grad_states = series(op, "grad_states", grad_states, states)
    of_h = state(op, "grad_h", grad_h, states, wide)
    of_h = states.new_zeros(states.shape[1:]) if of_h is None else of_h.clone()
    of_rate = torch.zeros_like(of_h) if need_rate else None
    of_drive = torch.empty_like(states)

    def launch(*tensors: Tensor | None) -> None:
        _leaky_rnn_backward_kernel[layer.grid](
            *tensors,
            *states.shape[1:],
            0 if grad_states is None else offsets(grad_states)[1],
            *layer.slope,
            **layer.constants,
            **LAUNCH,
            **OPTIONS,
        )

    after, given = None, (layer.weight, layer.rate)
    if states.numel():
        for t in reversed(range(states.shape[0])):
            launch(
                after,
                *given,
                None if grad_states is None else grad_states[t],
                states[t],
                states[t - 1] if t else layer.h0,
                drive[t] if inner or need_rate else None,
                of_drive[t],
                of_h,
                of_rate,
            )
            after = of_drive[t]
        if need_h0:
            launch(after, *given, None, None, None, None, None, of_h, None)
    none = states.new_empty(0)
    of_weight = none
    if need_weight:
        of_weight = of_drive[1:].flatten(0, 1).t() @ states[:-1].flatten(0, 1)
        if layer.h0 is not None and states.shape[0]:
            of_weight += of_drive[0].t() @ layer.h0
        if zero_diagonal:
            of_weight.fill_diagonal_(0)
    if of_rate is not None:
        of_rate = of_rate.double().sum((0, 1) if rate.dim() == 0 else 0).to(wide)
    dtype = (wide, torch.bfloat16, torch.float16)[half]
    return (
        of_drive.to(dtype) if need_input else none.to(dtype),
        of_weight,
        of_drive.double().sum((0, 1)).to(wide) if need_bias else none.clone(),
        of_h if need_h0 else none.clone(),
        none.clone() if of_rate is None else of_rate,
    )


def _build(dtype: torch.dtype, activation: int, inner: bool, *left_out: str) -> Build:
    pointers = [name for name in _leaky_rnn_backward_kernel.arg_names if name.endswith("_ptr")]
    kind = "*fp64" if dtype == torch.float64 else "*fp32"
    return Build(
        _leaky_rnn_backward_kernel,
        {
            **{name: kind for name in pointers if name not in left_out},
            **dict.fromkeys(("R", "N", "STRIDE_R"), "i32"),
            **dict.fromkeys(("SLOPE", "SLOPE_LOW"), "fp32"),
        },
        {**dict.fromkeys(left_out), **constants_of(dtype, activation, inner, not inner)},
        LAUNCH,
    )


AOT = [
    _build(torch.float32, 2, False),
    _build(torch.float32, 1, False, "after_ptr", "before_ptr", "drive_ptr", "of_rate_ptr"),
    _build(torch.float32, 3, True, "grad_states_ptr"),
    _build(torch.float64, 3, False),
    _build(
        torch.float32,
        0,
        False,
        "grad_states_ptr",
        "states_ptr",
        "before_ptr",
        "drive_ptr",
        "of_drive_ptr",
        "of_rate_ptr",
    ),
]
