"""soft_hebb (Triton): a program a sample for the competition, a tile of the weight for the update.

u is torch's product. The update's sums over samples stay in registers; with normalize="amax" they
are made twice, first for the largest change. A report that says that something is not finite is
read in the update, so nothing waits for it and nothing changes.

Products are float32 (float64 for float64), not TF32. Not measured: no GPU was at hand.

Reference: python/synops/_reference/hebbian/soft_hebb.py
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.launch import OPTIONS, accumulator, require
from ..common.tile import dot

__all__ = ["AOT", "soft_hebb", "soft_hebb_"]

_SOFT, _SIGNED, _HARD = range(3)
_BLOCK = 1024
_TILE = {4: (64, 64, 32), 8: (32, 32, 16)}  # rows, inputs and samples, by bytes of a sum
_LAUNCH = {"num_warps": 8, "num_stages": 3}


@triton.jit
def _compete_kernel(
    u_ptr,  # (B, O)
    y_ptr,  # (B, O)
    scale_ptr,  # 1 / temperature
    modulator_ptr,  # (B,) or None
    gain_ptr,  # (O,) or None
    O,  # noqa: E741
    VARIANT: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * O
    lanes = tl.arange(0, BLOCK)
    best = tl.full((BLOCK,), float("-inf"), ACC)
    at = tl.full((BLOCK,), 0, tl.int32)
    for start in range(0, O, BLOCK):
        i = start + lanes
        v = tl.load(u_ptr + row + i, mask=i < O, other=float("-inf"))
        at = tl.where(v > best, i, at)
        best = tl.where(v > best, v, best)
    most = tl.max(best, 0)
    winner = tl.min(tl.where(best == most, at, O), 0)
    scale = tl.load(scale_ptr)
    factor = tl.full((), 1.0, ACC)
    if modulator_ptr is not None:
        factor = tl.load(modulator_ptr + tl.program_id(0))
    if VARIANT != 2:
        total = tl.zeros((BLOCK,), ACC)
        for start in range(0, O, BLOCK):
            i = start + lanes
            v = tl.load(u_ptr + row + i, mask=i < O, other=float("-inf"))
            total += tl.exp((v - most) * scale)
        factor = factor / tl.sum(total, 0)
    for start in range(0, O, BLOCK):
        i = start + lanes
        if VARIANT == 2:
            y = tl.where(i == winner, factor, 0.0)
        else:
            v = tl.load(u_ptr + row + i, mask=i < O, other=float("-inf"))
            y = tl.exp((v - most) * scale) * factor
            if VARIANT == 1:
                y = tl.where(i == winner, y, -y)
        if gain_ptr is not None:
            y *= tl.load(gain_ptr + i, mask=i < O, other=0.0)
        tl.store(y_ptr + row + i, y, mask=i < O)


@triton.jit
def _update_kernel(
    from_ptr,  # (O, K)
    to_ptr,  # likewise, may be from_ptr
    y_ptr,  # (B, O)
    x_ptr,  # (B, K)
    keep_ptr,  # (O,)
    rate_ptr,  # (O,)
    low_ptr,  # (K,) or None
    high_ptr,  # likewise
    mask_ptr,  # (O, K) or None
    report_ptr,  # 0, or the weight stays as it is
    found_ptr,  # one a program: the largest change, or whether a weight is not finite
    B,
    O,  # noqa: E741
    K,
    LARGEST: tl.constexpr,  # only look for the largest of keep w + rate sum
    ACC: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    acc = tl.zeros((BLOCK_M, BLOCK_N), ACC)
    for start in range(0, B, BLOCK_K):
        k = (start + tl.arange(0, BLOCK_K)).to(tl.int64)
        used = (k < B)[None, :] & (m < O)[:, None]
        y = tl.load(y_ptr + (k[None, :] * O + m[:, None]), mask=used, other=0.0)
        used = (k < B)[:, None] & (n < K)[None, :]
        x = tl.load(x_ptr + (k[:, None] * K + n[None, :]), mask=used, other=0.0)
        acc = dot(y, x, acc, ACC, False)
    inside = (m < O)[:, None] & (n < K)[None, :]
    at = m[:, None] * K + n[None, :]
    learns = inside
    if mask_ptr is not None:
        learns = inside & (tl.load(mask_ptr + at, mask=inside, other=0) != 0)
    before = tl.load(from_ptr + at, mask=inside, other=0.0)
    keep = tl.load(keep_ptr + m, mask=m < O, other=0.0)[:, None]
    rate = tl.load(rate_ptr + m, mask=m < O, other=0.0)[:, None]
    now = keep * before.to(ACC) + rate * acc
    program = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    if LARGEST:
        found = tl.max(tl.max(tl.where(learns, tl.abs(now), 0.0), 1), 0)
        tl.store(found_ptr + program, found)
    else:
        if low_ptr is not None:
            now = tl.maximum(now, tl.load(low_ptr + n, mask=n < K, other=0.0)[None, :])
            now = tl.minimum(now, tl.load(high_ptr + n, mask=n < K, other=0.0)[None, :])
        narrow = now.to(to_ptr.dtype.element_ty)
        off = tl.where(learns, tl.where(tl.abs(narrow.to(ACC)) < float("inf"), 0, 1), 0)
        tl.store(found_ptr + program, tl.max(tl.max(off, 1), 0))
        good = tl.load(report_ptr) == 0
        tl.store(to_ptr + at, tl.where(learns & good, narrow, before), mask=inside)


def _bit(value: int, *tensors: Tensor | None) -> Tensor | int:
    """``value`` where one of these is not finite, without waiting."""
    bits: Tensor | int = 0
    for t in tensors:
        if t is not None:
            bits = bits | (~t.isfinite().all()).long() * value
    return bits


def _bounds(lower: float, upper: float, sign: Tensor | None, like: Tensor, inputs: int):
    """(in,) each, or None."""
    if sign is None and lower == -math.inf and upper == math.inf:
        return None, None
    low = like.new_full((inputs,), lower)
    high = like.new_full((inputs,), upper)
    if sign is not None:
        low = torch.where(sign > 0, low.clamp(min=0), low)
        high = torch.where(sign < 0, high.clamp(max=0), high)
    return low, high


def _run(op: str, weight: Tensor, to: Tensor, pre: Tensor, u: Tensor | None, *rest):
    (temperature, variant, power, amax, lr, rate, decay, modulator, gain_pre, gain_post, lower,
     upper, sign, check_sign, mask, mean) = rest  # fmt: skip
    wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
    out, inputs = weight.shape
    samples = pre.shape[0]
    require(weight.dtype in NAMES, op, f"no kernel for {weight.dtype}")
    require(pre.dim() == 2 and pre.shape[1] == inputs, op, f"pre must have shape (B, {inputs})")
    require(0 <= variant <= 2, op, f"variant must be 0, 1 or 2, got {variant}")
    require(temperature > 0, op, f"temperature must be positive, got {temperature}")
    shapes = ((u, (samples, out)), (modulator, (samples,)), (gain_pre, (inputs,)),
              (gain_post, (out,)), (sign, (inputs,)))  # fmt: skip
    given = [(pre, tuple(pre.shape)), *((t, s) for t, s in shapes if t is not None)]
    if rate is not None:
        given.append((rate, (out,) if rate.dim() else ()))
    for t, shape in given:
        good = t.dtype == wide and t.device == weight.device and t.shape == shape
        require(good, op, f"expected {wide} of shape {shape} on {weight.device}")
    if mask is not None:
        good = mask.dtype == torch.bool and mask.shape == weight.shape
        require(good and mask.device == weight.device, op, "mask must be bool, as the weight")
        mask = mask.contiguous()

    known = weight.to(wide) if mask is None else torch.where(mask, weight.to(wide), 0)
    made = pre.new_empty(0)
    if u is None:
        u = pre @ known.t()
        # as on every device: units outermost
        made = torch.empty((out, samples), dtype=wide, device=u.device).t().copy_(u)
    u = u.contiguous()
    report = _bit(1, pre) | _bit(4, modulator, rate) | _bit(8, gain_pre, gain_post, sign)
    if sign is not None and check_sign:
        report = report | (known * sign < 0).any().long() * 16
    report = torch.where(report > 0, report, _bit(2, u))
    u, pre = (torch.where(report > 0, 0, t) for t in (u, pre))  # nothing will be written
    y = torch.empty_like(u)
    if u.numel():
        modulator = None if modulator is None else modulator.contiguous()
        gain_post = None if gain_post is None else gain_post.contiguous()
        _compete_kernel[(samples,)](
            u, y, u.new_tensor(1 / temperature), modulator, gain_post, out,
            VARIANT=variant, ACC=accumulator(wide), BLOCK=_BLOCK, num_warps=4, **OPTIONS,
        )  # fmt: skip
    overlap = (y * u).sum(0)
    rates = known.new_full((out,), lr) if rate is None else (lr * rate).expand(out)
    if power >= 0:
        norm = torch.linalg.vector_norm(known, dim=1)
        rates = rates * ((norm - 1).abs() + 1e-10) ** power
    x = (pre if gain_pre is None else pre * gain_pre).contiguous()
    low, high = _bounds(lower, upper, sign, pre, inputs)

    def launch(keep: Tensor, by: Tensor, largest: bool) -> Tensor:
        rows, columns, depth = _TILE[wide.itemsize]
        grid = triton.cdiv(out, rows), triton.cdiv(inputs, columns)
        found = weight.new_zeros(grid[0] * grid[1], dtype=wide if largest else torch.int32)
        if found.numel():
            _update_kernel[grid](
                weight, to, y, x, keep.contiguous(), by.contiguous(), low, high, mask, report,
                found, samples, out, inputs, LARGEST=largest, ACC=accumulator(wide), BLOCK_M=rows,
                BLOCK_N=columns, BLOCK_K=depth, **_LAUNCH, **OPTIONS,
            )  # fmt: skip
        return found

    if amax and out * inputs:
        most = launch(-overlap, torch.ones_like(rates), True).amax()
        rates = rates / (most + 1e-30)
    elif mean and not amax:
        rates = rates / max(1, samples)
    over = launch(1 - decay - rates * overlap, rates, False)
    report = torch.where(report > 0, report, (over > 0).any().long() * 256)
    return made, report


def soft_hebb(weight: Tensor, pre: Tensor, u: Tensor | None, *rest):
    weight = weight.contiguous()
    to = torch.empty_like(weight)
    made, report = _run("soft_hebb", weight, to, pre, u, *rest)
    return to, made, report


def soft_hebb_(weight: Tensor, pre: Tensor, u: Tensor | None, *rest):
    require(weight.is_contiguous(), "soft_hebb_", "weight must be contiguous")
    return _run("soft_hebb_", weight, weight, pre, u, *rest)


def _competition(dtype: torch.dtype, variant: int, every: bool) -> Build:
    pointers = ["u_ptr", "y_ptr", "scale_ptr", *(("modulator_ptr", "gain_ptr") if every else ())]
    return Build(
        _compete_kernel,
        {**dict.fromkeys(pointers, "*" + NAMES[dtype]), "O": "i32"},
        {
            **({} if every else dict.fromkeys(("modulator_ptr", "gain_ptr"))),
            "VARIANT": variant,
            "ACC": accumulator(dtype),
            "BLOCK": _BLOCK,
        },
        {"num_warps": 4},
    )


def _update(dtype: torch.dtype, largest: bool, every: bool) -> Build:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    of_wide = [
        "y_ptr",
        "x_ptr",
        "keep_ptr",
        "rate_ptr",
        *(("low_ptr", "high_ptr") if every else ()),
    ]
    rows, columns, depth = _TILE[wide.itemsize]
    return Build(
        _update_kernel,
        {
            **dict.fromkeys(("from_ptr", "to_ptr"), "*" + NAMES[dtype]),
            **dict.fromkeys(of_wide, "*" + NAMES[wide]),
            **({"mask_ptr": "*i1"} if every else {}),
            "report_ptr": "*i64",
            "found_ptr": "*" + NAMES[wide] if largest else "*i32",
            **dict.fromkeys(("B", "O", "K"), "i32"),
        },
        {
            **({} if every else dict.fromkeys(("low_ptr", "high_ptr", "mask_ptr"))),
            "LARGEST": largest,
            "ACC": accumulator(wide),
            "BLOCK_M": rows,
            "BLOCK_N": columns,
            "BLOCK_K": depth,
        },
        _LAUNCH,
    )


AOT = [
    _competition(torch.float32, _SIGNED, False),
    _competition(torch.float64, _SOFT, True),
    _competition(torch.float32, _HARD, True),
    _update(torch.float32, False, False),
    _update(torch.float32, True, False),
    _update(torch.bfloat16, False, True),
    _update(torch.bfloat16, True, True),
    _update(torch.float64, False, True),
]
