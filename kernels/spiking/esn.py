"""esn (Triton): a launch a time step, a program a row and a block of sequences.

Reference: python/synops/_reference/spiking/esn.py
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.launch import OPTIONS, accumulator, require
from .reservoir import (
    BLOCKS,
    dense,
    entries,
    input_sum,
    recorded_steps,
    row_sum,
    squashed,
    steps_of,
)

__all__ = ["AOT", "esn", "esn_"]


@triton.jit
def _esn_kernel(
    input_ptr,  # of the step
    weight_ptr,
    bias_ptr,  # or None
    leak_ptr,
    values_ptr,
    crow_ptr,
    col_ptr,
    now_ptr,
    next_ptr,
    states_ptr,  # of the step, or None
    B,
    N,
    K,
    NNZ,
    STRIDE_B,
    ACTIVATION: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_J: tl.constexpr,
):
    n = tl.program_id(0)
    b = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    inside = b < B
    begin = tl.maximum(tl.load(crow_ptr + n), 0)
    end = tl.minimum(tl.load(crow_ptr + n + 1), NNZ)
    v = row_sum(values_ptr, col_ptr, begin, end, now_ptr, b, inside, N, N, ACC, BLOCK_B, BLOCK_J)
    v += input_sum(weight_ptr, input_ptr, n, b, inside, K, STRIDE_B, ACC, BLOCK_B)
    if bias_ptr is not None:
        v += tl.load(bias_ptr + n)
    leak = tl.load(leak_ptr + n)
    at = b.to(tl.int64) * N + n
    x = tl.load(now_ptr + at, mask=inside, other=0)
    x = (1 - leak) * x + leak * squashed(v, ACTIVATION)
    tl.store(next_ptr + at, x, mask=inside)
    if states_ptr is not None:
        tl.store(states_ptr + at, x, mask=inside)


def esn_(
    states: Tensor,
    state: Tensor,
    input: Tensor,
    input_weight: Tensor,
    bias: Tensor | None,
    leak: Tensor,
    values: Tensor,
    crow: Tensor,
    col: Tensor,
    row_ptr: Tensor,
    tile_col: Tensor,
    block_rows: int,
    block_step: int,
    activation: int,
    washout: int,
) -> None:
    op = "esn"
    u = steps_of(op, input)
    T, B, K = u.shape
    N = crow.shape[0] - 1 if crow.dim() == 1 else -1
    values = entries(op, values, crow, col, u, N)
    weight = dense(op, "input_weight", input_weight, u, (N, K))
    bias = None if bias is None else dense(op, "bias", bias, u, (N,))
    leak = dense(op, "leak", leak, u, (N,))
    recorded = recorded_steps(op, u, washout)
    require(0 <= activation <= 2, op, f"activation must be 0, 1 or 2, got {activation}")
    for name, t, shape in (("states", states, (recorded, B, N)), ("state", state, (B, N))):
        dense(op, name, t, u, shape)
        require(t.is_contiguous(), op, f"{name} must be contiguous")
    if not T * B * N:
        return
    now, after = state.clone(), torch.empty_like(state)
    for t in range(T):
        _esn_kernel[(N, triton.cdiv(B, BLOCKS["BLOCK_B"]))](
            u[t],
            weight,
            bias,
            leak,
            values,
            crow,
            col,
            now,
            after,
            states[t - washout] if t >= washout else None,
            B,
            N,
            K,
            col.shape[0],
            u.stride(1),
            ACTIVATION=activation,
            ACC=accumulator(u.dtype),
            **BLOCKS,
            **OPTIONS,
        )
        now, after = after, now
    state.copy_(now)


def esn(input: Tensor, state: Tensor | None, *fixed: object) -> tuple[Tensor, Tensor]:
    op = "esn"
    crow, washout = fixed[4], fixed[-1]
    require(input.dim() == 3 and crow.dim() == 1, op, "input must have 3 dimensions, crow 1")
    N, B = crow.shape[0] - 1, input.shape[1]
    recorded = recorded_steps(op, input, washout)
    states = torch.empty((recorded, B, N), dtype=input.dtype, device=input.device)
    if state is None:
        last = torch.zeros((B, N), dtype=input.dtype, device=input.device)
    else:
        last = dense(op, "state", state, input, (B, N)).clone()
    esn_(states, last, input, *fixed)
    return states, last


def _build(dtype: torch.dtype, activation: int, every: bool) -> Build:
    kind = "*" + NAMES[dtype]
    pointers = ("input_ptr", "weight_ptr", "leak_ptr", "values_ptr", "now_ptr", "next_ptr")
    optional = ("bias_ptr", "states_ptr")
    return Build(
        _esn_kernel,
        {
            **dict.fromkeys(pointers, kind),
            **(dict.fromkeys(optional, kind) if every else {}),
            **dict.fromkeys(("crow_ptr", "col_ptr"), "*i32"),
            **dict.fromkeys(("B", "N", "K", "NNZ", "STRIDE_B"), "i32"),
        },
        {
            **({} if every else dict.fromkeys(optional)),
            "ACTIVATION": activation,
            "ACC": accumulator(dtype),
            **BLOCKS,
        },
        OPTIONS,
    )


AOT = [
    _build(torch.float32, 0, True),
    _build(torch.float32, 1, False),
    _build(torch.float64, 2, True),
]
