"""The weight of recurrent_lif (Triton): its products with spikes and with gradients.

    forward   out[r, i] = x[r, i] + sum_j s[r, j] * W[i, j]
    backward  out[r, j] = sum_i d[r, i] * W[i, j]
    outer     out[i, j] = sum_q d[q, i] * s[q, j], of a Pattern at its entries

Dense: a tiled product, float32 multiplied as float32; float64 and outer by torch's product. Of a
Pattern: a program a sum, over its rows forward, over its columns backward (sorted out when first
asked for), and outer a program for 64 entries. A step is bound by its launches and by the weight's
way from L2, 4 MB of 1024 x 1024 float32. Not measured: no GPU was at hand.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.launch import OPTIONS, accumulator, require, require_index
from ..common.tile import dot

_TILE = {"BLOCK_M": 16, "BLOCK_N": 64, "BLOCK_K": 32}
_DENSE = {"num_warps": 4, "num_stages": 3}
_ENTRIES = {"num_warps": 1, "num_stages": 2}
_BLOCK = 64  # entries at a time


@triton.jit
def _recurrent_product_kernel(
    a_ptr,  # (R, P), dense
    w_ptr,
    x_ptr,  # (R, P), dense, or None
    out_ptr,
    R,
    P,
    STEP_K,  # of the weight, along the sum
    STEP_N,  # and along the result
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K).to(tl.int64)
    inside = (m < R)[:, None] & (n < P)[None, :]
    at = m[:, None] * P + n[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    if x_ptr is not None:
        acc = tl.load(x_ptr + at, mask=inside, other=0)
    for first in range(0, P, BLOCK_K):
        here = first + k
        a = tl.load(
            a_ptr + m[:, None] * P + here[None, :],
            mask=(m < R)[:, None] & (here < P)[None, :],
            other=0,
        )
        w = tl.load(
            w_ptr + here[:, None] * STEP_K + n[None, :] * STEP_N,
            mask=(here < P)[:, None] & (n < P)[None, :],
            other=0,
        )
        acc = dot(a, w, acc, tl.float32, False)
    tl.store(out_ptr + at, acc, mask=inside)


@triton.jit
def _recurrent_entries_kernel(
    a_ptr,  # (R, P), dense
    ptr_ptr,  # (P + 1,): the entries of each sum
    index_ptr,
    value_ptr,
    x_ptr,  # (R, P), dense, or None
    out_ptr,
    P,
    NNZ,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1).to(tl.int64) * P
    begin = tl.maximum(tl.load(ptr_ptr + i), 0)
    end = tl.minimum(tl.load(ptr_ptr + i + 1), NNZ)
    sums = tl.zeros((BLOCK,), ACC)
    for first in range(begin, end, BLOCK):
        k = first + tl.arange(0, BLOCK)
        index = tl.load(index_ptr + k, mask=k < end, other=-1)
        there = (index >= 0) & (index < P)
        value = tl.load(value_ptr + k, mask=there, other=0)
        sums += value * tl.load(a_ptr + row + index, mask=there, other=0)
    total = tl.sum(sums)
    if x_ptr is not None:
        total += tl.load(x_ptr + row + i)
    tl.store(out_ptr + row + i, total)


@triton.jit
def _recurrent_outer_kernel(
    d_ptr,  # (Q, P), dense, as s
    s_ptr,
    i_ptr,  # of each entry
    j_ptr,
    out_ptr,
    Q,
    P,
    NNZ,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    k = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    i = tl.load(i_ptr + k, mask=k < NNZ, other=-1)
    j = tl.load(j_ptr + k, mask=k < NNZ, other=-1)
    there = (i >= 0) & (i < P) & (j >= 0) & (j < P)
    acc = tl.zeros((BLOCK,), ACC)
    d_at = d_ptr + i
    s_at = s_ptr + j
    for _ in range(Q):
        acc += tl.load(d_at, mask=there, other=0) * tl.load(s_at, mask=there, other=0)
        d_at += P
        s_at += P
    tl.store(out_ptr + k, acc, mask=k < NNZ)


class Weight:
    """(P, P), or the values of a Pattern; checked against ``like``, (T, R, P)."""

    def __init__(
        self,
        op: str,
        weight: Tensor,
        crow: Tensor | None,
        col: Tensor | None,
        like: Tensor,
        dtype: torch.dtype,
    ):
        self.neurons = n = like.shape[2]
        good = weight.dtype == dtype and weight.device == like.device
        require(good, op, f"weight must be {dtype} on {like.device}")
        require((crow is None) == (col is None), op, "crow and col come together")
        self.weight, self.crow, self.col = weight, crow, col
        if crow is None or col is None:
            require(weight.shape == (n, n), op, f"weight must have shape {(n, n)}")
            return
        require_index(op, like, crow, col)
        require(crow.shape == (n + 1,) and col.dim() == 1, op, "crow and col do not fit")
        require(weight.shape == col.shape, op, f"weight must have shape {tuple(col.shape)}")
        self.weight = weight.contiguous()
        ends = torch.arange(col.shape[0], dtype=torch.int32, device=col.device)
        self.row = torch.searchsorted(crow, ends, right=True, out_int32=True) - 1
        self.columns: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, spikes: Tensor, x: Tensor) -> Tensor:
        x = x.contiguous()
        if self.crow is None:
            return self._product(spikes, x, *self.weight.stride()[::-1])
        return self._entries(spikes, self.crow, self.col, self.weight, x)

    def backward(self, grad: Tensor) -> Tensor:
        if self.crow is None:
            return self._product(grad, None, *self.weight.stride())
        if self.columns is None:
            order = torch.argsort(self.col, stable=True)
            ends = torch.arange(self.neurons + 1, dtype=torch.int32, device=self.col.device)
            ptr = torch.searchsorted(self.col[order].contiguous(), ends, out_int32=True)
            self.columns = ptr, self.row[order], self.weight[order]
        return self._entries(grad, *self.columns, None)

    def outer(self, grad: Tensor, spikes: Tensor) -> Tensor:
        if self.crow is None:
            return grad.T @ spikes
        out = torch.empty_like(self.weight)
        nnz = out.shape[0]
        if nnz:
            _recurrent_outer_kernel[(triton.cdiv(nnz, _BLOCK),)](
                grad.contiguous(), spikes.contiguous(), self.row, self.col, out,
                grad.shape[0], self.neurons, nnz, ACC=accumulator(out.dtype), BLOCK=_BLOCK,
                **OPTIONS, **_ENTRIES,
            )  # fmt: skip
        return out

    def _product(self, a: Tensor, x: Tensor | None, step_k: int, step_n: int) -> Tensor:
        rows, n = a.shape
        if a.dtype == torch.float64:
            matrix = self.weight if step_k == self.weight.stride(0) else self.weight.T
            return a @ matrix if x is None else torch.addmm(x, a, matrix)
        out = torch.empty_like(a)
        if out.numel():
            grid = (triton.cdiv(rows, _TILE["BLOCK_M"]), triton.cdiv(n, _TILE["BLOCK_N"]))
            _recurrent_product_kernel[grid](
                a, self.weight, x, out, rows, n, step_k, step_n, **_TILE, **OPTIONS, **_DENSE
            )
        return out

    def _entries(
        self, a: Tensor, ptr: Tensor, index: Tensor, value: Tensor, x: Tensor | None
    ) -> Tensor:
        rows, n = a.shape
        out = torch.empty_like(a)
        if out.numel():
            _recurrent_entries_kernel[(n, rows)](
                a, ptr, index, value, x, out, n, index.shape[0],
                ACC=accumulator(a.dtype), BLOCK=_BLOCK, **OPTIONS, **_ENTRIES,
            )  # fmt: skip
        return out


def _dense_build(backward: bool) -> Build:
    return Build(
        _recurrent_product_kernel,
        {
            **dict.fromkeys(("a_ptr", "w_ptr", "out_ptr"), "*fp32"),
            **({} if backward else {"x_ptr": "*fp32"}),
            **dict.fromkeys(("R", "P"), "i32"),
            ("STEP_K" if backward else "STEP_N"): "i32",
        },
        {
            **({"x_ptr": None} if backward else {}),
            ("STEP_N" if backward else "STEP_K"): 1,
            **_TILE,
        },
        _DENSE,
    )


def _entries_builds(dtype: torch.dtype, backward: bool) -> list[Build]:
    floats, numbers = "*" + NAMES[dtype], {"ACC": accumulator(dtype), "BLOCK": _BLOCK}
    sums = ("a_ptr", "value_ptr", "out_ptr", *(() if backward else ("x_ptr",)))
    return [
        Build(
            _recurrent_entries_kernel,
            {
                **dict.fromkeys(sums, floats),
                **dict.fromkeys(("ptr_ptr", "index_ptr"), "*i32"),
                **dict.fromkeys(("P", "NNZ"), "i32"),
            },
            {**({"x_ptr": None} if backward else {}), **numbers},
            _ENTRIES,
        ),
        Build(
            _recurrent_outer_kernel,
            {
                **dict.fromkeys(("d_ptr", "s_ptr", "out_ptr"), floats),
                **dict.fromkeys(("i_ptr", "j_ptr"), "*i32"),
                **dict.fromkeys(("Q", "P", "NNZ"), "i32"),
            },
            numbers,
            _ENTRIES,
        ),
    ]


AOT = [
    _dense_build(False),
    _dense_build(True),
    *_entries_builds(torch.float32, False),
    *_entries_builds(torch.float64, True),
]
