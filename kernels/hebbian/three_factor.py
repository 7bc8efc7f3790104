"""three_factor (Triton): a program a row, which passes over its synapses once.

Written in place; three_factor itself works on copies. Samples are added up one after the other, so
a large batch with one trace is bound by that and not by the memory.

Reference: python/synops/_reference/hebbian/three_factor.py
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.launch import OPTIONS, accumulator, require, require_index

__all__ = ["AOT", "three_factor", "three_factor_"]

# Synapses of a turn: what registers hold without spills.
_BLOCK = {torch.float32: 1024, torch.float64: 512}
_PRE, _POST, _FACTOR, _ARGUMENT, _SIGN, _OVERFLOW = 1, 2, 4, 8, 16, 256


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


def three_factor_(
    weight: Tensor,
    eligibility: Tensor,
    pre: Tensor,
    post: Tensor,
    trace_decay: float,
    lr: float,
    rate: Tensor | None,
    decay: float,
    modulator: Tensor | None,
    gain_pre: Tensor | None,
    gain_post: Tensor | None,
    lower: float,
    upper: float,
    sign: Tensor | None,
    check_sign: bool,
    mask: Tensor | None,
    crow: Tensor | None,
    col: Tensor | None,
    mean: bool,
) -> Tensor:
    op = "three_factor"
    require(weight.dtype in NAMES, op, f"no kernel for {weight.dtype}")
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    dim = 2 if crow is None else 1
    require(weight.dim() == dim and pre.dim() == 2 and post.dim() == 2, op, "wrong dimensions")
    batch, cols, rows = pre.shape[0], pre.shape[1], post.shape[1]
    floats = (pre, post, rate, modulator, gain_pre, gain_post, sign, eligibility)
    for t in floats:
        good = t is None or (t.dtype == dtype and t.device == weight.device)
        require(good, op, f"all but the weight must be {dtype} on {weight.device}")
    require(post.shape[0] == batch, op, "pre and post must have the same batch")
    per_sample = eligibility.dim() == dim + 1
    shape = (batch, *weight.shape) if per_sample else tuple(weight.shape)
    require(tuple(eligibility.shape) == shape, op, f"eligibility must have shape {shape}")
    require(eligibility.is_contiguous(), op, "eligibility must be contiguous")
    if crow is None:
        require(tuple(weight.shape) == (rows, cols), op, "weight must have shape (out, in)")
        good = weight.stride(1) == 1 or cols <= 1
        require(good, op, "weight must have rows of contiguous elements")
        nnz = rows * cols
    else:
        require(col is not None and mask is None, op, "crow needs col, and no mask")
        require_index(op, weight, crow, col)
        require(crow.shape == (rows + 1,), op, "crow must have size out + 1")
        nnz = col.shape[0]
        require(weight.shape[0] >= nnz and weight.is_contiguous(), op, "weight must hold nnz")
    for name, t, size in (
        ("gain_pre", gain_pre, cols),
        ("gain_post", gain_post, rows),
        ("sign", sign, cols),
    ):
        require(t is None or t.shape == (size,), op, f"{name} must have shape ({size},)")
    require(mask is None or mask.shape == (rows, cols), op, "mask must have shape (out, in)")
    require(0 <= trace_decay <= 1 and 0 <= decay <= 1, op, "decays must lie in [0, 1]")
    good = modulator is None or modulator.dim() < 2 or per_sample or batch <= 1
    require(good, op, "modulator (B, out) needs a trace for each sample")

    traces, terms = (batch, 1) if per_sample else (1, batch)
    share = 1 / max(1, batch) if mean else 1.0
    gate = torch.full((traces, rows), lr, dtype=dtype, device=weight.device)
    gate = gate if rate is None else gate * rate
    gate = gate if modulator is None else gate * modulator
    require(gate.shape == (traces, rows), op, f"rate and modulator must fit {(traces, rows)}")
    x = (pre if gain_pre is None else pre * gain_pre).contiguous()
    y = (post if gain_post is None else post * gain_post).contiguous()
    bits = [(_PRE, pre), (_POST, post), (_FACTOR, gate), (_ARGUMENT, gain_pre)]
    refused = torch.zeros((), dtype=torch.int64, device=weight.device)
    for bit, t in (*bits, (_ARGUMENT, gain_post)):
        if t is not None:
            refused = refused | bit * (~t.isfinite().all())
    if sign is not None and check_sign:
        by = sign if crow is None else sign[col.clamp(0, max(0, cols - 1)).long()]
        broken = (weight if crow is None else weight[:nnz]).to(dtype) * by < 0
        broken = broken if mask is None else broken & mask
        refused = torch.where(refused == 0, _SIGN * broken.any(), refused)
    low = high = None
    if sign is not None or math.isfinite(lower) or math.isfinite(upper):
        low, high = x.new_full((cols,), lower), x.new_full((cols,), upper)
        if sign is not None:
            low = torch.where(sign > 0, low.clamp_min(0), low)
            high = torch.where(sign < 0, high.clamp_max(0), high)
    over = torch.zeros((), dtype=torch.int32, device=weight.device)
    factors = x.new_empty(2)
    factors[0], factors[1] = trace_decay, 1 - decay
    if rows * nnz:
        _three_factor_kernel[(rows,)](
            weight,
            eligibility,
            x,
            y if per_sample else y * share,
            (gate * share if per_sample else gate).contiguous(),
            factors,
            low,
            high,
            None if mask is None else mask.contiguous().view(torch.uint8),
            crow,
            col,
            refused,
            over,
            rows,
            cols,
            weight.stride(0),
            weight.numel(),
            traces,
            terms,
            ACC=accumulator(dtype),
            BLOCK=_BLOCK[dtype],
            **OPTIONS,
        )
    return refused + _OVERFLOW * over


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
