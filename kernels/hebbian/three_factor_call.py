"""What the launchers of three_factor and three_factor_sequence check and compute beforehand."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..common.aot import NAMES
from ..common.launch import require, require_index

__all__ = ["OVERFLOW", "Call", "call_of"]

PRE, POST, FACTOR, ARGUMENT, SIGN, OVERFLOW = 1, 2, 4, 8, 16, 256


class Call(NamedTuple):
    """Arguments of the kernels; x and y of ``[T,] B`` samples, gains and shares multiplied in."""

    dtype: torch.dtype  # of the arithmetic
    x: Tensor
    y: Tensor
    gate: Tensor  # ([T or 1,] traces, rows)
    factors: Tensor  # decay of the trace, 1 - that of the weight
    low: Tensor | None  # by column
    high: Tensor | None
    mask: Tensor | None
    refused: Tensor  # a report, 0 if all is well
    over: Tensor  # what the kernel adds to it
    rows: int
    cols: int
    entries: int
    traces: int
    terms: int


def call_of(
    op: str,
    steps: bool,
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
) -> Call:
    """Of a step, or with ``steps`` of a sequence, whose pre and post have the time in front."""
    require(weight.dtype in NAMES, op, f"no kernel for {weight.dtype}")
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    dim = 2 if crow is None else 1
    good = weight.dim() == dim and pre.dim() == 2 + steps and post.dim() == 2 + steps
    require(good, op, "wrong dimensions")
    *time, batch, cols = pre.shape
    rows = post.shape[-1]
    floats = (pre, post, rate, modulator, gain_pre, gain_post, sign, eligibility)
    for t in floats:
        good = t is None or (t.dtype == dtype and t.device == weight.device)
        require(good, op, f"all but the weight must be {dtype} on {weight.device}")
    require(post.shape[:-1] == pre.shape[:-1], op, "pre and post must have the same batch")
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
    by_sample = modulator is not None and modulator.dim() == 2 + steps
    require(not by_sample or per_sample or batch <= 1, op, "modulator needs a trace a sample")

    traces, terms = (batch, 1) if per_sample else (1, batch)
    share = 1 / max(1, batch) if mean else 1.0
    gate = torch.full((traces, rows), lr, dtype=dtype, device=weight.device)
    gate = gate if rate is None else gate * rate
    if steps:
        gate = gate[None]
        if modulator is not None and modulator.dim() == 2:
            modulator = modulator[:, None]
    gate = gate if modulator is None else gate * modulator
    good = gate.shape[-2:] == (traces, rows) and gate.shape[:-2] in ((), (1,), tuple(time))
    require(good and gate.dim() == 2 + steps, op, "rate and modulator must fit pre and post")
    bits = [(PRE, pre), (POST, post), (FACTOR, gate), (ARGUMENT, gain_pre)]
    refused = torch.zeros((), dtype=torch.int64, device=weight.device)
    for bit, t in (*bits, (ARGUMENT, gain_post)):
        if t is not None:
            refused = refused | bit * (~t.isfinite().all())
    if sign is not None and check_sign:
        by = sign if crow is None else sign[col.clamp(0, max(0, cols - 1)).long()]
        broken = (weight if crow is None else weight[:nnz]).to(dtype) * by < 0
        broken = broken if mask is None else broken & mask
        refused = torch.where(refused == 0, SIGN * broken.any(), refused)
    x = (pre if gain_pre is None else pre * gain_pre).contiguous()
    y = (post if gain_post is None else post * gain_post).contiguous()
    low = high = None
    if sign is not None or math.isfinite(lower) or math.isfinite(upper):
        low, high = x.new_full((cols,), lower), x.new_full((cols,), upper)
        if sign is not None:
            low = torch.where(sign > 0, low.clamp_min(0), low)
            high = torch.where(sign < 0, high.clamp_max(0), high)
    factors = x.new_empty(2)
    factors[0], factors[1] = trace_decay, 1 - decay
    return Call(
        dtype,
        x,
        y if per_sample else y * share,
        (gate * share if per_sample else gate).contiguous(),
        factors,
        low,
        high,
        None if mask is None else mask.contiguous().view(torch.uint8),
        refused,
        torch.zeros((), dtype=torch.int32, device=weight.device),
        rows,
        cols,
        nnz,
        traces,
        terms,
    )
