"""leaky_rnn (Triton): one launch a step, a tile of rows x neurons a program.

A program multiplies the rows of the state before with its columns of the turned weight, and does
leak and activation on the sums. Steps follow each other by the order of the launches; the weight,
1 MB for 500 neurons, stays in L2.

Products are float32 (float64 for float64), not TF32: a recurrence adds up what is rounded.

Reference: python/synops/_reference/spiking/leaky_rnn.py
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.launch import OPTIONS, require
from .leaky_rnn_backward import leaky_rnn_backward
from .leaky_rnn_layer import LAUNCH, Layer, activated, constants_of, product

__all__ = ["AOT", "leaky_rnn", "leaky_rnn_", "leaky_rnn_backward"]


@triton.jit
def _leaky_rnn_kernel(
    input_ptr,  # (R, N) of this step
    weight_ptr,  # (N, N)
    bias_ptr,  # (N,) or None
    before_ptr,  # (R, N), or None: 0
    rate_ptr,  # (N,)
    states_ptr,  # (R, N) of this step
    drive_ptr,  # likewise, or None
    R,
    N,
    STRIDE_R,
    STRIDE_N,
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
    x_at = m[:, None] * STRIDE_R + n[None, :] * STRIDE_N
    rate = tl.load(rate_ptr + n, mask=n < N, other=0)[None, :]
    z = tl.load(input_ptr + x_at, mask=inside, other=0).to(ACC)
    if bias_ptr is not None:
        z += tl.load(bias_ptr + n, mask=n < N, other=0)[None, :]
    if before_ptr is not None:
        z += product(
            before_ptr, weight_ptr, m, n, R, N, True, ZERO_DIAGONAL, ACC, BLOCK_M, BLOCK_N, BLOCK_K
        )
    if INNER:
        z = activated(z, SLOPE, SLOPE_LOW, ACTIVATION, ACC)
    if drive_ptr is not None:
        tl.store(drive_ptr + at, z, mask=inside)
    h = rate * z
    if before_ptr is not None:
        h += (1 - rate) * tl.load(before_ptr + at, mask=inside, other=0)
    if not INNER:
        h = activated(h, SLOPE, SLOPE_LOW, ACTIVATION, ACC)
    tl.store(states_ptr + at, h, mask=inside)


def _run(
    layer: Layer, x: Tensor, bias: Tensor | None, states: Tensor, drive: Tensor | None
) -> Tensor:
    """All steps, into states and drive; a copy of the last state."""
    before = layer.h0
    for t in range(x.shape[0] if x.numel() else 0):
        _leaky_rnn_kernel[layer.grid](
            x[t],
            layer.weight,
            bias,
            before,
            layer.rate,
            states[t],
            None if drive is None else drive[t],
            *x.shape[1:],
            *x.stride()[1:],
            *layer.slope,
            **layer.constants,
            **LAUNCH,
            **OPTIONS,
        )
        before = states[t]
    return states.new_zeros(states.shape[1:]) if before is None else before.clone()


def _layer(
    op: str, input: Tensor, weight: Tensor, bias: Tensor | None, *rest
) -> tuple[Layer, Tensor | None]:
    layer = Layer(op, input, weight, *rest)
    return layer, None if bias is None else layer.of_neurons(op, input, bias)


def leaky_rnn(input: Tensor, *args) -> tuple[Tensor, ...]:
    *rest, save = args  # weight, bias, h0, rate, activation, slope, inner, zero_diagonal
    layer, bias = _layer("leaky_rnn", input, *rest)
    states = torch.empty(input.shape, dtype=layer.dtype, device=input.device)
    drive = torch.empty_like(states) if save else states.new_empty(0)
    h = _run(layer, input, bias, states, drive if save else None)
    return states, h, drive


def leaky_rnn_(states: Tensor, input: Tensor, *args) -> Tensor:
    op = "leaky_rnn_"
    layer, bias = _layer(op, input, *args)
    good = states.dtype == layer.dtype and states.device == input.device
    require(good, op, f"states must be {layer.dtype} on {input.device}")
    good = states.shape == input.shape and states.is_contiguous()
    require(good, op, f"states must be contiguous, of shape {tuple(input.shape)}")
    return _run(layer, input, bias, states, None)


def _build(dtype: torch.dtype, activation: int, inner: bool, every: bool) -> Build:
    wide = "*fp64" if dtype == torch.float64 else "*fp32"
    optional = ("bias_ptr", "before_ptr", "drive_ptr")
    state = torch.float64 if dtype == torch.float64 else torch.float32
    return Build(
        _leaky_rnn_kernel,
        {
            "input_ptr": "*" + NAMES[dtype],
            **dict.fromkeys(("weight_ptr", "rate_ptr", "states_ptr"), wide),
            **(dict.fromkeys(optional, wide) if every else {"before_ptr": wide}),
            **dict.fromkeys(("R", "N", "STRIDE_R"), "i32"),
            **dict.fromkeys(("SLOPE", "SLOPE_LOW"), "fp32"),
        },
        {
            **({} if every else dict.fromkeys(("bias_ptr", "drive_ptr"))),
            "STRIDE_N": 1,
            **constants_of(state, activation, inner, not every),
        },
        LAUNCH,
    )


AOT = [
    _build(torch.float32, 2, False, True),
    _build(torch.float32, 1, False, False),
    _build(torch.bfloat16, 3, True, True),
    _build(torch.float64, 3, False, True),
]
