"""three_factor (Triton): a program a row, which passes over its synapses once.

Written in place; three_factor itself works on copies. Samples are added up one after the other, so
a large batch with one trace is bound by that and not by the memory.

Reference: python/synops/_reference/hebbian/three_factor.py
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.launch import OPTIONS, accumulator
from .three_factor_call import OVERFLOW, call_of

__all__ = ["AOT", "three_factor", "three_factor_"]

# Synapses of a turn: what registers hold without spills.
_BLOCK = {torch.float32: 1024, torch.float64: 512}


@triton.jit
def _three_factor_kernel(
    weight_ptr,
    trace_ptr,
    pre_ptr,
    post_ptr,
    gate_ptr,  # (traces, ROWS)
    factors_ptr,  # decay of the trace, 1 - that of the weight
    lower_ptr,  # by column, or None; and upper
    upper_ptr,
    mask_ptr,  # or None
    crow_ptr,  # or None: dense
    col_ptr,
    refused_ptr,
    over_ptr,
    ROWS,
    COLS,
    STRIDE,  # between rows of the weight
    SIZE,  # of a trace
    TRACES,
    TERMS,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64)
    decay = tl.load(factors_ptr)
    keep = tl.load(factors_ptr + 1)
    allowed = tl.load(refused_ptr) == 0
    live = tl.where(keep != 1, 1, 0)
    for s in range(TRACES):
        live = tl.maximum(live, tl.where(tl.load(gate_ptr + s * ROWS + i) != 0, 1, 0))
    if crow_ptr is None:
        begin = i * 0
        end = begin + COLS
    else:
        begin = tl.maximum(tl.load(crow_ptr + i), 0).to(tl.int64)
        end = tl.minimum(tl.load(crow_ptr + i + 1).to(tl.int64), SIZE)
    over = 0
    for start in range(begin, end, BLOCK):
        p = start + tl.arange(0, BLOCK)
        inside = (p < end) & allowed
        if crow_ptr is None:
            j = p
            at = i * COLS + p
            at_weight = i * STRIDE + p
        else:
            j = tl.load(col_ptr + p, mask=inside, other=0).to(tl.int64)
            inside = inside & (j >= 0) & (j < COLS)
            at = p
            at_weight = p
        if mask_ptr is not None:
            inside = inside & (tl.load(mask_ptr + at, mask=inside, other=0) != 0)
        change = tl.zeros([BLOCK], dtype=ACC)
        for s in range(TRACES):
            term = tl.zeros([BLOCK], dtype=ACC)
            for k in range(s * TERMS, (s + 1) * TERMS):
                x = tl.load(pre_ptr + k * COLS + j, mask=inside, other=0)
                term += tl.load(post_ptr + k * ROWS + i) * x
            e_ptr = trace_ptr + (i * 0 + s) * SIZE + at
            e = decay * tl.load(e_ptr, mask=inside, other=0) + term
            tl.store(e_ptr, e, mask=inside)
            bad = tl.where(inside, tl.where(tl.abs(e) < float("inf"), 0, 1), 0)
            over = tl.maximum(over, tl.max(bad, 0))
            change += tl.load(gate_ptr + s * ROWS + i) * e
        w = keep * tl.load(weight_ptr + at_weight, mask=inside, other=0).to(ACC) + change
        if lower_ptr is not None:
            low = tl.load(lower_ptr + j, mask=inside, other=0)
            high = tl.load(upper_ptr + j, mask=inside, other=0)
            w = tl.where(w < low, low, tl.where(w > high, high, w))  # a NaN stays one
        w = w.to(weight_ptr.dtype.element_ty)
        written = inside & (live != 0)
        bad = tl.where(written, tl.where(tl.abs(w.to(ACC)) < float("inf"), 0, 1), 0)
        over = tl.maximum(over, tl.max(bad, 0))
        tl.store(weight_ptr + at_weight, w, mask=written)
    tl.atomic_max(over_ptr, over)


def three_factor_(weight: Tensor, eligibility: Tensor, *rest: object) -> Tensor:
    c = call_of("three_factor", False, weight, eligibility, *rest)
    if c.rows * c.entries:
        *_, crow, col, _ = rest
        _three_factor_kernel[(c.rows,)](
            weight,
            eligibility,
            c.x,
            c.y,
            c.gate,
            c.factors,
            c.low,
            c.high,
            c.mask,
            crow,
            col,
            c.refused,
            c.over,
            c.rows,
            c.cols,
            weight.stride(0),
            weight.numel(),
            c.traces,
            c.terms,
            ACC=accumulator(c.dtype),
            BLOCK=_BLOCK[c.dtype],
            **OPTIONS,
        )
    return c.refused + OVERFLOW * c.over


def three_factor(weight: Tensor, eligibility: Tensor, *rest: object) -> tuple[Tensor, ...]:
    w, e = weight.clone(memory_format=torch.contiguous_format), eligibility.contiguous().clone()
    return w, e, three_factor_(w, e, *rest)


def _build(dtype: torch.dtype, sparse: bool, every: bool) -> Build:
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    floats = ("trace_ptr", "pre_ptr", "post_ptr", "gate_ptr", "factors_ptr")
    bounds = ("lower_ptr", "upper_ptr")
    signature = {"weight_ptr": "*" + NAMES[dtype], "refused_ptr": "*i64", "over_ptr": "*i32"}
    signature |= dict.fromkeys(floats, "*" + NAMES[acc])
    constants: dict = {"ACC": accumulator(dtype), "BLOCK": _BLOCK[acc]}
    if every:
        signature |= dict.fromkeys(bounds, "*" + NAMES[acc])
    else:
        constants |= dict.fromkeys(bounds)
    if every and not sparse:
        signature |= {"mask_ptr": "*u8"}
    else:
        constants |= {"mask_ptr": None}
    if sparse:
        signature |= {"crow_ptr": "*i32", "col_ptr": "*i32"}
    else:
        constants |= {"crow_ptr": None, "col_ptr": None}
    signature |= dict.fromkeys(("ROWS", "COLS", "STRIDE", "SIZE", "TRACES", "TERMS"), "i32")
    return Build(_three_factor_kernel, signature, constants, OPTIONS)


AOT = [
    _build(torch.float32, False, True),
    _build(torch.bfloat16, False, False),
    _build(torch.float64, True, True),
    _build(torch.float32, True, False),
]
