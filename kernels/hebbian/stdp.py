"""stdp (Triton): a launch for the traces of each side, and one for the weight through all steps.

A program has some neurons, then a tile of the weight or the entries of a compressed row, in its
registers for all time steps. All steps of all sides lie in memory between the launches.

Reference: python/synops/_reference/hebbian/stdp.py
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.launch import OPTIONS, accumulator, require, require_index

__all__ = ["AOT", "stdp", "stdp_"]

SIDE = {"BLOCK_N": 128}
TILE = {"BLOCK_O": 8, "BLOCK_I": 64}
ENTRIES = {"BLOCK_E": 128}
PRE, POST, RATE, OTHER, SIGN, OVERFLOW = 1, 2, 4, 8, 16, 256  # bits of the report


@triton.jit
def _side_kernel(
    spikes_ptr,  # (T, B, N)
    trace_ptr,  # (B, N), moved on
    slow_ptr,  # the same, or None
    scale_ptr,  # (B,)
    report_ptr,  # not 0: nothing is done
    seen_ptr,  # (T, B, N)
    drive_ptr,
    T,
    B,
    N,
    DECAY: tl.constexpr,
    SLOW_DECAY: tl.constexpr,
    PAIR: tl.constexpr,
    TRIPLE: tl.constexpr,
    NEAREST: tl.constexpr,
    INCLUDED: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    b = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (n < N) & (tl.load(report_ptr) == 0)
    trace = tl.load(trace_ptr + b * N + n, mask=inside, other=0)
    scale = tl.load(scale_ptr + b)
    slow = tl.zeros((BLOCK_N,), ACC)
    if slow_ptr is not None:
        slow = tl.load(slow_ptr + b * N + n, mask=inside, other=0)
    for t in range(T):
        at = (t * B + b) * N + n
        s = tl.load(spikes_ptr + at, mask=inside, other=0).to(ACC)
        faded = trace * DECAY
        trace = tl.where(s != 0, s, faded) if NEAREST else faded + s
        amplitude = tl.zeros((BLOCK_N,), ACC) + PAIR
        if slow_ptr is not None:
            before = slow * SLOW_DECAY
            amplitude += TRIPLE * before
            slow = tl.where(s != 0, s, before) if NEAREST else before + s
        tl.store(seen_ptr + at, trace if INCLUDED else faded, mask=inside)
        tl.store(drive_ptr + at, s * amplitude * scale, mask=inside)
    tl.store(trace_ptr + b * N + n, trace, mask=inside)
    if slow_ptr is not None:
        tl.store(slow_ptr + b * N + n, slow, mask=inside)


@triton.jit
def _after_step(
    w,
    e,
    up,
    down,
    touched,
    lr,
    reward,
    lower,
    upper,
    DECAY: tl.constexpr,
    SOFT: tl.constexpr,
    KEPT: tl.constexpr,
):
    """The weight and the eligibility (KEPT: there is one) of some entries after a step."""
    if SOFT:
        change = up * (upper - w) - down * (w - lower)
    else:
        change = up - down
    if KEPT:
        e = e * DECAY + change
        moved = w + lr * reward * e
    else:
        moved = w + lr * change
    # not by minimum and maximum, which drop a NaN
    moved = tl.where(moved < lower, lower, moved)
    moved = tl.where(moved > upper, upper, moved)
    return tl.where(touched, moved, w), e


@triton.jit
def _dense_kernel(
    weight_ptr,  # (OUT, IN)
    eligibility_ptr,  # or None
    up_ptr,  # (T, B, OUT): drive of the rows
    trace_o_ptr,
    trace_i_ptr,  # (T, B, IN)
    down_ptr,
    lr_ptr,  # (OUT,)
    reward_ptr,  # (T,), or None
    lower_ptr,  # (IN,)
    upper_ptr,
    report_ptr,
    T,
    B,
    OUT,
    IN,
    DECAY: tl.constexpr,
    SOFT: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    o = tl.program_id(0).to(tl.int64) * BLOCK_O + tl.arange(0, BLOCK_O)
    i = tl.program_id(1) * BLOCK_I + tl.arange(0, BLOCK_I)
    good = tl.load(report_ptr) % 256 == 0
    in_o, in_i = (o < OUT) & good, i < IN
    inside = in_o[:, None] & in_i[None, :]
    place = o[:, None] * IN + i[None, :]
    w = tl.load(weight_ptr + place, mask=inside, other=0)
    lr = tl.load(lr_ptr + o, mask=in_o, other=0)[:, None]
    lower = tl.load(lower_ptr + i, mask=in_i, other=0)[None, :]
    upper = tl.load(upper_ptr + i, mask=in_i, other=0)[None, :]
    e = tl.zeros((BLOCK_O, BLOCK_I), ACC)
    if eligibility_ptr is not None:
        e = tl.load(eligibility_ptr + place, mask=inside, other=0)
    overflow = tl.zeros((BLOCK_O, BLOCK_I), tl.int1)
    for t in range(T):
        up = tl.zeros((BLOCK_O, BLOCK_I), ACC)
        down = tl.zeros((BLOCK_O, BLOCK_I), ACC)
        of_row = tl.zeros((BLOCK_O,), tl.int1)
        of_column = tl.zeros((BLOCK_I,), tl.int1)
        for b in range(B):
            at_o = (t * B + b).to(tl.int64) * OUT + o
            at_i = (t * B + b).to(tl.int64) * IN + i
            p = tl.load(up_ptr + at_o, mask=in_o, other=0)
            q = tl.load(down_ptr + at_i, mask=in_i, other=0)
            up += p[:, None] * tl.load(trace_i_ptr + at_i, mask=in_i, other=0)[None, :]
            down += tl.load(trace_o_ptr + at_o, mask=in_o, other=0)[:, None] * q[None, :]
            of_row = of_row | (p != 0)
            of_column = of_column | (q != 0)
        touched = of_row[:, None] | of_column[None, :]
        reward = tl.full((), 0, ACC)
        if eligibility_ptr is not None:
            reward = tl.load(reward_ptr + t)
            touched = touched | True
        moved, e = _after_step(
            w.to(ACC), e, up, down, touched, lr, reward, lower, upper, DECAY, SOFT,
            eligibility_ptr is not None,
        )  # fmt: skip
        w = moved.to(w.dtype)
        far = ~(tl.abs(w.to(ACC)) < float("inf"))
        overflow = overflow | (touched & inside & far)
    tl.store(weight_ptr + place, w, mask=inside)
    if eligibility_ptr is not None:
        tl.store(eligibility_ptr + place, e, mask=inside)
    if tl.max(overflow.to(tl.int32).reshape(BLOCK_O * BLOCK_I), axis=0) > 0:
        tl.atomic_or(report_ptr, 256)


@triton.jit
def _entries_kernel(
    weight_ptr,  # (nnz,)
    eligibility_ptr,  # or None
    crow_ptr,
    col_ptr,
    up_ptr,  # (T, B, OUT)
    trace_o_ptr,
    trace_i_ptr,  # (T, B, IN)
    down_ptr,
    lr_ptr,
    reward_ptr,  # or None
    lower_ptr,
    upper_ptr,
    report_ptr,
    T,
    B,
    OUT,
    IN,
    NNZ,
    DECAY: tl.constexpr,
    SOFT: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    o = tl.program_id(0).to(tl.int64)
    begin = tl.maximum(tl.load(crow_ptr + o), 0)
    end = tl.minimum(tl.load(crow_ptr + o + 1), NNZ)
    good = tl.load(report_ptr) % 256 == 0
    lr = tl.load(lr_ptr + o)
    for first in range(begin, end, BLOCK_E):
        place = first + tl.arange(0, BLOCK_E)
        i = tl.load(col_ptr + place, mask=place < end, other=-1)
        inside = (i >= 0) & (i < IN) & good
        w = tl.load(weight_ptr + place, mask=inside, other=0)
        lower = tl.load(lower_ptr + i, mask=inside, other=0)
        upper = tl.load(upper_ptr + i, mask=inside, other=0)
        e = tl.zeros((BLOCK_E,), ACC)
        if eligibility_ptr is not None:
            e = tl.load(eligibility_ptr + place, mask=inside, other=0)
        overflow = tl.zeros((BLOCK_E,), tl.int1)
        for t in range(T):
            up = tl.zeros((BLOCK_E,), ACC)
            down = tl.zeros((BLOCK_E,), ACC)
            hit = tl.zeros((BLOCK_E,), ACC)
            for b in range(B):
                at_o = (t * B + b).to(tl.int64) * OUT + o
                at_i = (t * B + b).to(tl.int64) * IN + i
                p = tl.load(up_ptr + at_o)
                q = tl.load(down_ptr + at_i, mask=inside, other=0)
                up += p * tl.load(trace_i_ptr + at_i, mask=inside, other=0)
                down += tl.load(trace_o_ptr + at_o) * q
                hit = tl.maximum(hit, tl.maximum(tl.abs(q), tl.abs(p)))
            touched = hit != 0
            reward = tl.full((), 0, ACC)
            if eligibility_ptr is not None:
                reward = tl.load(reward_ptr + t)
                touched = touched | True
            moved, e = _after_step(
                w.to(ACC), e, up, down, touched, lr, reward, lower, upper, DECAY, SOFT,
                eligibility_ptr is not None,
            )  # fmt: skip
            w = moved.to(w.dtype)
            far = ~(tl.abs(w.to(ACC)) < float("inf"))
            overflow = overflow | (touched & inside & far)
        tl.store(weight_ptr + place, w, mask=inside)
        if eligibility_ptr is not None:
            tl.store(eligibility_ptr + place, e, mask=inside)
        if tl.max(overflow.to(tl.int32), axis=0) > 0:
            tl.atomic_or(report_ptr, 256)


def _checked(name: str, t: Tensor | None, shape: tuple[int, ...], like: Tensor) -> None:
    if t is None:
        return
    kind = torch.float64 if like.dtype == torch.float64 else torch.float32
    good = tuple(t.shape) == shape and t.dtype == kind and t.device == like.device
    require(good, "stdp", f"{name} must be {kind} of shape {shape} on {like.device}")


def _spikes(name: str, t: Tensor, like: Tensor) -> Tensor:
    good = t.dim() == 3 and t.device == like.device and not t.is_complex()
    require(good, "stdp", f"{name} must have 3 dimensions on {like.device}")
    return t.to(torch.float64 if like.dtype == torch.float64 else torch.float32).contiguous()


def stdp_(
    weight: Tensor,
    trace_pre: Tensor,
    trace_post: Tensor,
    slow_pre: Tensor | None,
    slow_post: Tensor | None,
    eligibility: Tensor | None,
    pre: Tensor,
    post: Tensor,
    crow: Tensor | None,
    col: Tensor | None,
    lr: float,
    rate: Tensor | None,
    modulator: Tensor | None,
    reward: Tensor | None,
    sign: Tensor | None,
    check_sign: bool,
    decay_plus: float,
    decay_minus: float,
    decay_x: float,
    decay_y: float,
    decay_e: float,
    a_plus: float,
    a_minus: float,
    a3_plus: float,
    a3_minus: float,
    lower: float,
    upper: float,
    nearest: bool,
    coincident: int,
    soft: bool,
    mean: bool,
) -> Tensor:
    op = "stdp"
    require(
        weight.dtype in NAMES and weight.is_contiguous(), op, "weight must be contiguous floats"
    )
    pre, post = _spikes("pre", pre, weight), _spikes("post", post, weight)
    T, B, IN = pre.shape
    OUT = post.shape[2]
    require(post.shape[:2] == pre.shape[:2], op, "pre and post must have as many steps and samples")
    compressed = crow is not None and col is not None
    require((crow is None) == (col is None), op, "crow and col must be given together")
    if compressed:
        require_index(op, weight, crow, col)
        good = crow.dim() == 1 and crow.shape[0] == OUT + 1 and col.dim() == 1 and weight.dim() == 1
        require(
            good and weight.shape[0] >= col.shape[0], op, f"crow must have {OUT} rows in weight"
        )
    else:
        require(tuple(weight.shape) == (OUT, IN), op, f"weight must have shape {(OUT, IN)}")
    pairs = ((slow_pre, slow_post, "slow traces"), (eligibility, reward, "eligibility and reward"))
    for one, other, names in pairs:
        require((one is None) == (other is None), op, f"{names} must be given together")
    shapes = {
        "trace_pre": (trace_pre, (B, IN)),
        "trace_post": (trace_post, (B, OUT)),
        "slow_pre": (slow_pre, (B, IN)),
        "slow_post": (slow_post, (B, OUT)),
        "eligibility": (eligibility, tuple(weight.shape)),
        "rate": (rate, (OUT,) if rate is None or rate.dim() else ()),
        "modulator": (modulator, (B,)),
        "reward": (reward, (T,)),
        "sign": (sign, (IN,)),
    }
    for name, (t, shape) in shapes.items():
        _checked(name, t, shape, weight)
        written = name in ("trace_pre", "trace_post", "slow_pre", "slow_post", "eligibility")
        require(t is None or not written or t.is_contiguous(), op, f"{name} must be contiguous")
    states = (trace_pre, trace_post, slow_pre, slow_post, sign)
    report = _report(pre, post, (rate, modulator, reward), states)
    if sign is not None and check_sign:
        broken = weight * sign if col is None else weight[: len(col)] * sign[col]
        report = torch.where(report == 0, SIGN * (broken < 0).any(), report)
    if not T * B * weight.numel():
        return report
    fresh: dict[str, Any] = {"dtype": trace_pre.dtype, "device": weight.device}
    scale = torch.ones(B, **fresh) if modulator is None else modulator
    scale = (scale / B if mean else scale).contiguous()
    low, high = torch.full((IN,), lower, **fresh), torch.full((IN,), upper, **fresh)
    if sign is not None:
        low = torch.where(sign > 0, low.clamp_min(0), low)
        high = torch.where(sign < 0, high.clamp_max(0), high)
    sides = []
    # Numbers are constants of the kernels: as arguments they would be float32.
    names = ("DECAY", "SLOW_DECAY", "PAIR", "TRIPLE")
    for spikes, trace, slow, values, included in (
        (pre, trace_pre, slow_pre, (decay_plus, decay_x, a_minus, a3_minus), coincident & 1),
        (post, trace_post, slow_post, (decay_minus, decay_y, a_plus, a3_plus), coincident & 2),
    ):
        numbers = dict(zip(names, values, strict=True))
        seen, drive = torch.empty_like(spikes), torch.empty_like(spikes)
        n = spikes.shape[2]
        _side_kernel[(triton.cdiv(n, SIDE["BLOCK_N"]), B)](
            spikes, trace, slow, scale, report, seen, drive, T, B, n, **numbers,
            NEAREST=nearest, INCLUDED=bool(included), ACC=accumulator(spikes.dtype), **SIDE,
            **OPTIONS,
        )  # fmt: skip
        sides.append((seen, drive))
    (trace_i, down), (trace_o, up) = sides
    rates = (lr * (torch.ones((), **fresh) if rate is None else rate)).expand(OUT).contiguous()
    reward = None if reward is None else reward.contiguous()
    options = {"DECAY": decay_e, "SOFT": soft, "ACC": accumulator(weight.dtype), **OPTIONS}
    driven = (up, trace_o, trace_i, down, rates, reward, low, high, report, T, B, OUT, IN)
    if compressed:
        _entries_kernel[(OUT,)](
            weight, eligibility, crow, col, *driven, col.shape[0], **ENTRIES, **options
        )
    else:
        grid = (triton.cdiv(OUT, TILE["BLOCK_O"]), triton.cdiv(IN, TILE["BLOCK_I"]))
        _dense_kernel[grid](weight, eligibility, *driven, **TILE, **options)
    return report


def _report(pre: Tensor, post: Tensor, rates: Any, states: Any) -> Tensor:
    report = torch.zeros((), dtype=torch.int64, device=pre.device)
    for bit, tensors in ((PRE, (pre,)), (POST, (post,)), (RATE, rates), (OTHER, states)):
        for t in tensors:
            if t is not None:
                report |= bit * (~t.isfinite().all()).to(torch.int64)
    return report


def stdp(weight: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    held = [None if t is None else t.clone(memory_format=torch.contiguous_format)
            for t in (weight, *rest[:5])]  # fmt: skip
    report = stdp_(*held, *rest[5:])
    return (*(weight.new_empty(0) if t is None else t for t in held), report)


def _builds(dtype: torch.dtype, every: bool) -> list[Build]:
    acc = "*fp64" if dtype == torch.float64 else "*fp32"
    numbers = dict.fromkeys(("DECAY", "SLOW_DECAY", "PAIR", "TRIPLE"), 0.95)
    sizes = dict.fromkeys(("T", "B", "OUT", "IN"), "i32")
    sums = {
        **dict.fromkeys(("up_ptr", "trace_o_ptr", "trace_i_ptr", "down_ptr"), acc),
        **dict.fromkeys(("lr_ptr", "lower_ptr", "upper_ptr"), acc),
        "report_ptr": "*i64",
        **sizes,
    }
    kept = dict.fromkeys(("eligibility_ptr", "reward_ptr"), acc)
    weight = {"weight_ptr": "*" + NAMES[dtype], **sums, **(kept if every else {})}
    options = {**({} if every else dict.fromkeys(kept)), "SOFT": every, "DECAY": 0.95}
    options["ACC"] = accumulator(dtype)
    side = {
        **dict.fromkeys(("spikes_ptr", "trace_ptr", "scale_ptr", "seen_ptr", "drive_ptr"), acc),
        "report_ptr": "*i64",
        **dict.fromkeys(("T", "B", "N"), "i32"),
        **({"slow_ptr": acc} if every else {}),
    }
    of_side = {**({} if every else {"slow_ptr": None}), "NEAREST": every}
    of_side |= {"INCLUDED": not every, **numbers}
    index = {"crow_ptr": "*i32", "col_ptr": "*i32", "NNZ": "i32"}
    return [
        Build(_side_kernel, side, {**of_side, "ACC": accumulator(dtype), **SIDE}, OPTIONS),
        Build(_dense_kernel, weight, {**options, **TILE}, OPTIONS),
        Build(_entries_kernel, {**weight, **index}, {**options, **ENTRIES}, OPTIONS),
    ]


AOT = [
    *_builds(torch.float32, True),
    *_builds(torch.float32, False),
    *_builds(torch.float64, True),
    *_builds(torch.bfloat16, False),
]
