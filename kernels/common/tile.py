"""What kernels share: tiles, and products and functions of them."""

import triton
import triton.language as tl


@triton.jit
def dot(a, b, acc, ACC: tl.constexpr, WIDEN: tl.constexpr):
    """acc + a @ b. WIDEN: the interpreter's numpy has no bfloat16 and would multiply its bits."""
    if WIDEN:
        a = a.to(ACC)
        b = b.to(ACC)
    return tl.dot(a, b, acc, input_precision="ieee", out_dtype=ACC)


@triton.jit
def activated(y, ACTIVATION: tl.constexpr):
    """0: y, 1: relu, 2: the exact gelu. A NaN stays one."""
    if ACTIVATION == 1:
        y = tl.where(y < 0, 0.0, y)
    elif ACTIVATION == 2:
        y = 0.5 * y * (1 + tl.erf(y * 0.7071067811865476))  # 1 / sqrt(2)
    return y


@triton.jit
def first_of_tile(M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr):
    """First row and column, int64, of the program's tile: in groups of GROUP tiles along M."""
    pid = tl.program_id(0)
    per_group = GROUP * tl.cdiv(N, BLOCK_N)
    first = pid // per_group * GROUP
    height = tl.minimum(tl.cdiv(M, BLOCK_M) - first, GROUP)
    m = first + pid % per_group % height
    n = pid % per_group // height
    return m.to(tl.int64) * BLOCK_M, n.to(tl.int64) * BLOCK_N


@triton.jit
def lower_bound(index_ptr, low, high, value, steps):
    """First places in [low, high) of ascending indices that are not below ``value``."""
    for _ in range(steps):
        middle = (low + high) // 2
        searched = low < high
        before = tl.load(index_ptr + middle, mask=searched, other=0) < value
        low = tl.where(searched & before, middle + 1, low)
        high = tl.where(before, high, middle)
    return low
