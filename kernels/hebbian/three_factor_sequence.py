"""three_factor_sequence (Triton): a program a row and a block of its synapses, through all steps.

Weights stay in registers, and so does a trace that samples share; those of each sample lie in
memory, where a program finds what it wrote a step before.

Reference: python/synops/_reference/hebbian/three_factor_sequence.py
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.launch import OPTIONS, accumulator
from .three_factor_call import OVERFLOW, call_of

__all__ = ["AOT", "three_factor_sequence", "three_factor_sequence_"]

_BLOCK = 512  # synapses of a program: many programs, each of which waits for its own steps


@triton.jit
def _three_factor_sequence_kernel(
    weight_ptr,
    trace_ptr,
    pre_ptr,  # (STEPS, samples, COLS)
    post_ptr,  # (STEPS, samples, ROWS)
    gate_ptr,  # (STEPS, TRACES, ROWS), or of one step
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
    STEPS,
    TRACES,
    TERMS,
    GATES,  # between steps
    EACH: tl.constexpr,  # a trace for each sample
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64)
    decay = tl.load(factors_ptr)
    keep = tl.load(factors_ptr + 1)
    allowed = tl.load(refused_ptr) == 0
    if crow_ptr is None:
        begin = i * 0
        end = begin + COLS
    else:
        begin = tl.maximum(tl.load(crow_ptr + i), 0).to(tl.int64)
        end = tl.minimum(tl.load(crow_ptr + i + 1).to(tl.int64), SIZE)
    over = 0
    first = begin + tl.program_id(1).to(tl.int64) * BLOCK
    for start in range(first, end, BLOCK * tl.num_programs(1)):
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
        if lower_ptr is not None:
            low = tl.load(lower_ptr + j, mask=inside, other=0)
            high = tl.load(upper_ptr + j, mask=inside, other=0)
        w = tl.load(weight_ptr + at_weight, mask=inside, other=0).to(ACC)
        if not EACH:
            e = tl.load(trace_ptr + at, mask=inside, other=0)
        touched = 0
        for t in range(STEPS):
            change = tl.zeros([BLOCK], dtype=ACC)
            live = tl.where(keep != 1, 1, 0)
            k = (i * 0 + t) * TRACES * TERMS  # the first sample of the step
            g_ptr = gate_ptr + (i * 0 + t) * GATES + i
            if EACH:
                for s in range(TRACES):
                    x = tl.load(pre_ptr + (k + s) * COLS + j, mask=inside, other=0)
                    e_ptr = trace_ptr + (i * 0 + s) * SIZE + at
                    e = decay * tl.load(e_ptr, mask=inside, other=0)
                    e += tl.load(post_ptr + (k + s) * ROWS + i) * x
                    tl.store(e_ptr, e, mask=inside)
                    g = tl.load(g_ptr + s * ROWS)
                    change += g * e
                    live = tl.maximum(live, tl.where(g != 0, 1, 0))
            else:
                term = tl.zeros([BLOCK], dtype=ACC)
                for s in range(TERMS):
                    x = tl.load(pre_ptr + (k + s) * COLS + j, mask=inside, other=0)
                    term += tl.load(post_ptr + (k + s) * ROWS + i) * x
                e = decay * e + term
                g = tl.load(g_ptr)
                change = g * e
                live = tl.maximum(live, tl.where(g != 0, 1, 0))
            now = keep * w + change
            if lower_ptr is not None:
                now = tl.where(now < low, low, tl.where(now > high, high, now))  # a NaN stays one
            w = tl.where(live != 0, now.to(weight_ptr.dtype.element_ty).to(ACC), w)
            touched = tl.maximum(touched, live)
        # what is not finite once is not finite in the end
        if EACH:
            for s in range(TRACES):
                e = tl.load(trace_ptr + (i * 0 + s) * SIZE + at, mask=inside, other=0)
                bad = tl.where(inside, tl.where(tl.abs(e) < float("inf"), 0, 1), 0)
                over = tl.maximum(over, tl.max(bad, 0))
        else:
            tl.store(trace_ptr + at, e, mask=inside)
            bad = tl.where(inside, tl.where(tl.abs(e) < float("inf"), 0, 1), 0)
            over = tl.maximum(over, tl.max(bad, 0))
        written = inside & (touched != 0)
        bad = tl.where(written, tl.where(tl.abs(w) < float("inf"), 0, 1), 0)
        over = tl.maximum(over, tl.max(bad, 0))
        tl.store(weight_ptr + at_weight, w.to(weight_ptr.dtype.element_ty), mask=written)
    tl.atomic_max(over_ptr, over)


def three_factor_sequence_(weight: Tensor, eligibility: Tensor, *rest: object) -> Tensor:
    c = call_of("three_factor_sequence", True, weight, eligibility, *rest)
    steps = c.x.shape[0]
    if steps == 0:
        return torch.zeros_like(c.refused)
    if c.rows * c.entries:
        *_, crow, col, _ = rest
        _three_factor_sequence_kernel[(c.rows, triton.cdiv(c.cols, _BLOCK))](
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
            steps,
            c.traces,
            c.terms,
            0 if c.gate.shape[0] == 1 else c.traces * c.rows,
            EACH=c.terms == 1 and eligibility.dim() > weight.dim(),
            ACC=accumulator(c.dtype),
            BLOCK=_BLOCK,
            **OPTIONS,
        )
    return c.refused + OVERFLOW * c.over


def three_factor_sequence(weight: Tensor, eligibility: Tensor, *rest: object) -> tuple[Tensor, ...]:
    w, e = weight.clone(memory_format=torch.contiguous_format), eligibility.contiguous().clone()
    return w, e, three_factor_sequence_(w, e, *rest)


def _build(dtype: torch.dtype, sparse: bool, every: bool, each: bool) -> Build:
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    floats = ("trace_ptr", "pre_ptr", "post_ptr", "gate_ptr", "factors_ptr")
    bounds = ("lower_ptr", "upper_ptr")
    signature = {"weight_ptr": "*" + NAMES[dtype], "refused_ptr": "*i64", "over_ptr": "*i32"}
    signature |= dict.fromkeys(floats, "*" + NAMES[acc])
    constants: dict = {"ACC": accumulator(dtype), "BLOCK": _BLOCK, "EACH": each}
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
    sizes = ("ROWS", "COLS", "STRIDE", "SIZE", "STEPS", "TRACES", "TERMS", "GATES")
    signature |= dict.fromkeys(sizes, "i32")
    return Build(_three_factor_sequence_kernel, signature, constants, OPTIONS)


AOT = [
    _build(torch.float32, False, True, False),
    _build(torch.bfloat16, False, False, False),
    _build(torch.float64, True, True, False),
    _build(torch.float32, True, False, True),
    _build(torch.float64, False, True, True),
]
