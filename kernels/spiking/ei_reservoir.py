"""ei_reservoir (Triton): a launch a time step, a program a row and a block of sequences.

Reference: python/synops/_reference/spiking/ei_reservoir.py
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
    logistic,
    recorded_steps,
    row_sum,
    steps_of,
)

__all__ = ["AOT", "ei_reservoir", "ei_reservoir_"]


@triton.jit
def _ei_kernel(
    input_ptr,  # of the step
    weight_ptr,
    e_values_ptr,
    e_crow_ptr,
    e_col_ptr,
    i_values_ptr,  # (B, nnz), moved
    i_crow_ptr,
    i_col_ptr,
    gain_ptr,
    threshold_ptr,
    leak_ptr,
    target_ptr,  # or None: inhibition stays
    delta_ptr,  # of the step, or None
    now_ptr,
    next_ptr,
    rates_ptr,  # of the step, or None
    B,
    N,
    K,
    E,
    E_NNZ,
    I_NNZ,
    STRIDE_B,
    STRIDE_I,  # between the inhibitory values of sequences
    ACC: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_J: tl.constexpr,
):
    n = tl.program_id(0)
    b = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    inside = b < B
    begin = tl.maximum(tl.load(e_crow_ptr + n), 0)
    end = tl.minimum(tl.load(e_crow_ptr + n + 1), E_NNZ)
    v = row_sum(
        e_values_ptr, e_col_ptr, begin, end, now_ptr, b, inside, N, E, ACC, BLOCK_B, BLOCK_J
    )
    v += input_sum(weight_ptr, input_ptr, n, b, inside, K, STRIDE_B, ACC, BLOCK_B)
    begin = tl.maximum(tl.load(i_crow_ptr + n), 0)
    end = tl.minimum(tl.load(i_crow_ptr + n + 1), I_NNZ)
    for first in range(begin, end, BLOCK_J):
        j = first + tl.arange(0, BLOCK_J)
        col = tl.load(i_col_ptr + j, mask=j < end, other=-1) + E
        held = inside[:, None] & ((col >= E) & (col < N))[None, :]
        w_at = i_values_ptr + b[:, None].to(tl.int64) * STRIDE_I + j[None, :]
        w = tl.load(w_at, mask=held, other=0)
        x = tl.load(now_ptr + b[:, None].to(tl.int64) * N + col[None, :], mask=held, other=0)
        v -= tl.sum(tl.where(held, x * w, 0.0), axis=1)
    at = b.to(tl.int64) * N + n
    r = tl.load(now_ptr + at, mask=inside, other=0)
    leak = tl.load(leak_ptr + n)
    r = (1 - leak) * r + leak * logistic(tl.load(gain_ptr + n) * (v - tl.load(threshold_ptr + n)))
    tl.store(next_ptr + at, r, mask=inside)
    if rates_ptr is not None:
        tl.store(rates_ptr + at, r, mask=inside)
    if target_ptr is not None:
        by = tl.load(delta_ptr) * (r - tl.load(target_ptr + n))
        for first in range(begin, end, BLOCK_J):
            j = first + tl.arange(0, BLOCK_J)
            held = inside[:, None] & (j < end)[None, :]
            w_at = i_values_ptr + b[:, None].to(tl.int64) * STRIDE_I + j[None, :]
            w = tl.load(w_at, mask=held, other=0) + by[:, None]
            tl.store(w_at, tl.where(w < 0, 0.0, w), mask=held)


def ei_reservoir_(
    rates: Tensor,
    state: Tensor,
    i_values: Tensor,
    input: Tensor,
    input_weight: Tensor,
    e_values: Tensor,
    gain: Tensor,
    threshold: Tensor,
    leak: Tensor,
    target: Tensor | None,
    delta: Tensor | None,
    e_crow: Tensor,
    e_col: Tensor,
    i_crow: Tensor,
    i_col: Tensor,
    excitatory: int,
    washout: int,
) -> None:
    op = "ei_reservoir"
    u = steps_of(op, input)
    T, B, K = u.shape
    N = e_crow.shape[0] - 1 if e_crow.dim() == 1 else -1
    require(0 <= excitatory <= N, op, f"excitatory must lie in [0, {N}], got {excitatory}")
    e_values = entries(op, e_values, e_crow, e_col, u, N)
    nnz = i_col.shape[0] if i_col.dim() == 1 else -1
    shared = target is None and i_values.dim() == 2 and i_values.shape[0] == 1
    dense(op, "i_values", i_values, u, (1 if shared else B, nnz))
    require(i_values.is_contiguous(), op, "i_values must be contiguous")
    entries(op, u.new_empty(nnz), i_crow, i_col, u, N)
    weight = dense(op, "input_weight", input_weight, u, (N, K))
    named = {"gain": gain, "threshold": threshold, "leak": leak}
    gain, threshold, leak = (dense(op, name, t, u, (N,)) for name, t in named.items())
    require((target is None) == (delta is None), op, "target and delta belong together")
    if target is not None:
        target, delta = dense(op, "target", target, u, (N,)), dense(op, "delta", delta, u, (T,))
    recorded = recorded_steps(op, u, washout)
    for name, t, shape in (("rates", rates, (recorded, B, N)), ("state", state, (B, N))):
        dense(op, name, t, u, shape)
        require(t.is_contiguous(), op, f"{name} must be contiguous")
    if not T * B * N:
        return
    now, after = state.clone(), torch.empty_like(state)
    for t in range(T):
        _ei_kernel[(N, triton.cdiv(B, BLOCKS["BLOCK_B"]))](
            u[t],
            weight,
            e_values,
            e_crow,
            e_col,
            i_values,
            i_crow,
            i_col,
            gain,
            threshold,
            leak,
            target,
            None if delta is None else delta[t:],
            now,
            after,
            rates[t - washout] if t >= washout else None,
            B,
            N,
            K,
            excitatory,
            e_col.shape[0],
            nnz,
            u.stride(1),
            0 if shared else nnz,
            ACC=accumulator(u.dtype),
            **BLOCKS,
            **OPTIONS,
        )
        now, after = after, now
    state.copy_(now)


def ei_reservoir(
    input: Tensor, state: Tensor | None, i_values: Tensor, *fixed: object
) -> tuple[Tensor, ...]:
    op = "ei_reservoir"
    target, e_crow, washout = fixed[5], fixed[7], fixed[-1]
    good = input.dim() == 3 and e_crow.dim() == 1 and i_values.dim() == 2
    require(good, op, "input must have 3 dimensions, i_values 2, e_crow 1")
    N, B = e_crow.shape[0] - 1, input.shape[1]
    require(i_values.shape[0] in (1, B), op, f"i_values must have 1 or {B} rows")
    recorded = recorded_steps(op, input, washout)
    rates = torch.empty((recorded, B, N), dtype=input.dtype, device=input.device)
    if state is None:
        last = torch.zeros((B, N), dtype=input.dtype, device=input.device)
    else:
        last = dense(op, "state", state, input, (B, N)).clone()
    moved = i_values.contiguous()
    if target is not None:
        moved = i_values.expand(B, -1).clone(memory_format=torch.contiguous_format)
    ei_reservoir_(rates, last, moved, input, *fixed)
    return rates, last, i_values.new_empty((0,)) if target is None else moved


def _build(dtype: torch.dtype, every: bool) -> Build:
    kind = "*" + NAMES[dtype]
    pointers = [
        "input",
        "weight",
        "e_values",
        "i_values",
        "gain",
        "threshold",
        "leak",
        "now",
        "next",
    ]
    optional = [f"{name}_ptr" for name in ("target", "delta", "rates")]
    index = [f"{name}_ptr" for name in ("e_crow", "e_col", "i_crow", "i_col")]
    sizes = ("B", "N", "K", "E", "E_NNZ", "I_NNZ", "STRIDE_B", "STRIDE_I")
    return Build(
        _ei_kernel,
        {
            **{f"{name}_ptr": kind for name in (*pointers, "now", "next")},
            **(dict.fromkeys(optional, kind) if every else {}),
            **dict.fromkeys(index, "*i32"),
            **dict.fromkeys(sizes, "i32"),
        },
        {**({} if every else dict.fromkeys(optional)), "ACC": accumulator(dtype), **BLOCKS},
        OPTIONS,
    )


AOT = [_build(torch.float32, True), _build(torch.float32, False), _build(torch.float64, True)]
