"""What forward and backward of leaky_rnn (Triton) share: the layer, checked, and tiles of it.

Not measured: tile sizes are from registers and bytes, no GPU was at hand.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.launch import accumulator, require
from ..common.tile import dot
from .neurons import check_parameters, number, series, state

LAUNCH = {"num_warps": 8, "num_stages": 3}
_TILES = {4: (32, 64, 16), 8: (32, 32, 16)}  # rows, neurons and depth, by bytes of an element
_IDENTITY, _RELU, _LEAKY_RELU = range(3)  # 3 is tanh


@triton.jit
def product(
    left_ptr, weight_ptr, m, n, R, N, TURNED: tl.constexpr, ZERO_DIAGONAL: tl.constexpr,
    ACC: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Rows m of left (R, N) times columns n of the weight (N, N), or of the turned weight."""
    acc = tl.zeros((BLOCK_M, BLOCK_N), ACC)
    for start in range(0, N, BLOCK_K):
        k = (start + tl.arange(0, BLOCK_K)).to(tl.int64)
        inside = (m < R)[:, None] & (k < N)[None, :]
        left = tl.load(left_ptr + (m[:, None] * N + k[None, :]), mask=inside, other=0.0)
        used = (k < N)[:, None] & (n < N)[None, :]
        if ZERO_DIAGONAL:
            used = used & (k[:, None] != n[None, :])
        if TURNED:
            at = n[None, :] * N + k[:, None]
        else:
            at = k[:, None] * N + n[None, :]
        weight = tl.load(weight_ptr + at, mask=used, other=0.0)
        acc = dot(left, weight, acc, ACC, False)
    return acc


@triton.jit
def activated(x, SLOPE, SLOPE_LOW, ACTIVATION: tl.constexpr, ACC: tl.constexpr):
    """f(x); tanh to an ulp of 1."""
    if ACTIVATION == 3:
        e = tl.exp(-2 * tl.abs(x))
        y = (1 - e) / (1 + e)
        return tl.where(x < 0, -y, y)
    elif ACTIVATION == 1:
        return tl.where(x < 0, 0.0, x)
    else:
        return tl.where(x > 0, x, number(SLOPE, SLOPE_LOW, ACC) * x)


@triton.jit
def derivative(y, SLOPE, SLOPE_LOW, ACTIVATION: tl.constexpr, ACC: tl.constexpr):
    """f' where f is y."""
    if ACTIVATION == 3:
        return 1 - y * y
    else:
        return tl.where(y > 0, 1.0, number(SLOPE, SLOPE_LOW, ACC))


class Layer:
    """Checked arguments: input or states (T, R, N), and what belongs to neurons.

    Attributes:
        constants: of a kernel.
        slope: below 0, in two float32 halves: a kernel gets no float64.
    """

    def __init__(
        self,
        op: str,
        like: Tensor,
        weight: Tensor,
        h0: Tensor | None,
        rate: Tensor,
        activation: int,
        slope: float,
        inner: bool,
        zero_diagonal: bool,
    ):
        require(0 <= activation <= 3, op, f"activation must be 0 to 3, got {activation}")
        good = slope >= 0 and math.isfinite(slope)
        require(good, op, f"slope must be finite and not negative, got {slope}")
        series(op, "input", like, like)
        _, self.rows, n = like.shape
        self.dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        good = weight.dtype == self.dtype and weight.device == like.device
        require(good, op, f"weight must be {self.dtype} on {like.device}")
        require(weight.shape == (n, n), op, f"weight must have shape {(n, n)}")
        self.weight = weight.contiguous()
        self.h0 = state(op, "h0", h0, like, self.dtype)
        self.rate = self.of_neurons(op, like, rate)
        below = {_IDENTITY: 1.0, _RELU: 0.0, _LEAKY_RELU: slope}.get(activation, 0.0)
        high = float(torch.tensor(below, dtype=torch.float32))
        self.slope = (high, below - high)
        self.constants = constants_of(self.dtype, activation, bool(inner), bool(zero_diagonal))
        blocks = self.constants["BLOCK_M"], self.constants["BLOCK_N"]
        self.grid = triton.cdiv(self.rows, blocks[0]), triton.cdiv(n, blocks[1])

    def of_neurons(self, op: str, like: Tensor, t: Tensor) -> Tensor:
        """(N,), of a number for all, too."""
        check_parameters(op, like, self.dtype, t)
        return t.expand(like.shape[2:]).contiguous()


def constants_of(dtype: torch.dtype, activation: int, inner: bool, zero_diagonal: bool) -> dict:
    """What a kernel is compiled for."""
    rows, neurons, depth = _TILES[dtype.itemsize]
    return {
        "ACTIVATION": activation,
        "INNER": inner,
        "ZERO_DIAGONAL": zero_diagonal,
        "ACC": accumulator(dtype),
        "BLOCK_M": rows,
        "BLOCK_N": neurons,
        "BLOCK_K": depth,
    }
