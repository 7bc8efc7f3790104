"""What the reservoir kernels share: sums over the rows of a compressed weight, and squashing.

A program has one row and a block of sequences; a launch is a time step.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.launch import require, require_index

BLOCKS = {"BLOCK_B": 16, "BLOCK_J": 32}  # sequences, and entries of a row at a time


@triton.jit
def row_sum(
    values_ptr,
    col_ptr,
    begin,
    end,
    x_ptr,  # (B, N)
    b,
    inside,
    N,
    COLUMNS,
    ACC: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_J: tl.constexpr,
):
    """Entries [begin, end) times the first COLUMNS states, (BLOCK_B,); columns outside count 0."""
    acc = tl.zeros((BLOCK_B,), ACC)
    for first in range(begin, end, BLOCK_J):
        j = first + tl.arange(0, BLOCK_J)
        col = tl.load(col_ptr + j, mask=j < end, other=-1)
        held = (col >= 0) & (col < COLUMNS)
        w = tl.load(values_ptr + j, mask=held, other=0)
        at = b[:, None].to(tl.int64) * N + col[None, :]
        x = tl.load(x_ptr + at, mask=inside[:, None] & held[None, :], other=0)
        acc += tl.sum(tl.where(held[None, :], x * w[None, :], 0.0), axis=1)
    return acc


@triton.jit
def input_sum(
    weight_ptr,  # (N, K)
    input_ptr,  # (B, K)
    n,
    b,
    inside,
    K,
    STRIDE_B,
    ACC: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Row n of the input weight times the input of a step."""
    acc = tl.zeros((BLOCK_B,), ACC)
    for k in range(K):
        u = tl.load(input_ptr + b.to(tl.int64) * STRIDE_B + k, mask=inside, other=0)
        acc += tl.load(weight_ptr + n.to(tl.int64) * K + k) * u
    return acc


@triton.jit
def logistic(v):
    """1 / (1 + exp(-v)), without an overflow."""
    e = tl.exp(-tl.abs(v))
    return tl.where(v < 0, e, 1.0) / (1 + e)


@triton.jit
def squashed(v, ACTIVATION: tl.constexpr):
    """0: tanh, 1: relu, 2: v. A NaN stays one."""
    if ACTIVATION == 0:
        e = tl.exp(-2 * tl.abs(v))
        t = (1 - e) / (1 + e)
        v = tl.where(v < 0, -t, t)
    elif ACTIVATION == 1:
        v = tl.where(v < 0, 0.0, v)
    return v


def steps_of(op: str, input: Tensor) -> Tensor:
    """(T, B, K) in float32 or float64, whose inputs of a sequence lie side by side."""
    good = input.dim() == 3 and input.dtype in (torch.float32, torch.float64)
    require(good, op, "input must be float32 or float64 with 3 dimensions")
    return input if input.stride(2) == 1 or input.shape[2] <= 1 else input.contiguous()


def dense(op: str, name: str, t: Tensor, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A contiguous tensor of this shape, in the type and on the device of the input."""
    good = tuple(t.shape) == shape and t.dtype == like.dtype and t.device == like.device
    require(good, op, f"{name} must be {like.dtype} of shape {shape} on {like.device}")
    return t.contiguous()


def entries(op: str, values: Tensor, crow: Tensor, col: Tensor, like: Tensor, rows: int) -> Tensor:
    """Values of compressed rows, all of whose sizes fit. (The kernels keep to the buffers.)"""
    require_index(op, like, crow, col)
    require(crow.dim() == 1 and col.dim() == 1, op, "crow and col must have 1 dimension")
    require(crow.shape[0] == rows + 1, op, f"crow must have {rows + 1} elements")
    good = values.dtype == like.dtype and values.device == like.device
    good = good and values.dim() == 1 and values.shape[0] >= col.shape[0]
    require(good, op, f"values must be {like.dtype} with at least {col.shape[0]} elements")
    return values.contiguous()


def recorded_steps(op: str, input: Tensor, washout: int) -> int:
    """How many steps are recorded."""
    require(washout >= 0, op, f"washout must not be negative, got {washout}")
    return input.shape[0] - min(input.shape[0], washout)
