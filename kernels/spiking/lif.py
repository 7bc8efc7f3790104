"""lif (Triton), and the kernel of alif and cuba_lif: a block of neurons over all time steps, its
states in registers.

A step reads the input and writes the spikes once. Products and sums are rounded one by one (no
fused multiply-adds), so that spikes are those of the CPU. Bits are packed from bytes in torch.

Reference: python/synops/_reference/spiking/neurons.py
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.launch import accumulator, require
from .lif_backward import lif_backward
from .neurons import (
    BLOCK,
    OPTIONS,
    check_parameters,
    check_rule,
    fires,
    half_distance,
    offsets,
    parameter,
    series,
    state,
)

__all__ = ["AOT", "build", "launch", "lif", "lif_backward"]


@triton.jit
def _neurons_kernel(
    input_ptr,
    v0_ptr,  # or None
    w0_ptr,  # or None; w is the second state
    beta_ptr,
    threshold_ptr,
    decay_ptr,  # or None
    strength_ptr,  # or None
    spikes_ptr,
    v_ptr,
    w_ptr,  # or None
    membrane_ptr,  # or None
    second_ptr,  # or None
    trajectory_ptr,  # or None
    T,
    COUNT,
    P,
    STRIDE_T,
    STRIDE_R,
    NEURON: tl.constexpr,  # 0 lif, 1 alif, 2 cuba_lif
    HALF: tl.constexpr,  # the membrane is saved as its distance, in float16
    RESET: tl.constexpr,  # 0 subtract, 1 zero, 2 none
    DELAYED: tl.constexpr,
    INCLUSIVE: tl.constexpr,
    ONE_BETA: tl.constexpr,
    ONE_THRESHOLD: tl.constexpr,
    ONE_DECAY: tl.constexpr,
    ONE_STRENGTH: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < COUNT
    beta = parameter(beta_ptr, i, P, inside, ONE_BETA)
    threshold = parameter(threshold_ptr, i, P, inside, ONE_THRESHOLD)
    x_at = input_ptr + i // P * STRIDE_R + i % P
    decay = beta
    strength = beta
    if NEURON > 0:
        decay = parameter(decay_ptr, i, P, inside, ONE_DECAY)
    if NEURON == 1:
        strength = parameter(strength_ptr, i, P, inside, ONE_STRENGTH)
    v = tl.zeros((BLOCK,), ACC)
    w = v
    owed = v
    if v0_ptr is not None:
        v = tl.load(v0_ptr + i, mask=inside, other=0)
    if w0_ptr is not None:
        w = tl.load(w0_ptr + i, mask=inside, other=0)
    shown = v
    shown_w = w
    if DELAYED:
        bar = threshold
        if NEURON == 1:
            bar = threshold + strength * w
        fired = fires(v, bar, INCLUSIVE)
        if NEURON == 1:
            w = decay * w + fired.to(ACC)
        if RESET == 0:
            owed = tl.where(fired, threshold, owed)
        if RESET == 1:
            v = tl.where(fired, 0.0, v)
    at = i
    for _ in range(T):
        drive = tl.load(x_at, mask=inside, other=0).to(ACC)
        if NEURON == 2:
            w = decay * w + drive
            drive = w
        u = beta * v + drive
        if DELAYED and RESET == 0:
            u -= owed
        bar = threshold
        if NEURON == 1:
            bar = threshold + strength * w
        fired = fires(u, bar, INCLUSIVE)
        spikes = fired.to(ACC).to(spikes_ptr.dtype.element_ty)
        tl.store(spikes_ptr + at, spikes, mask=inside)
        if membrane_ptr is not None:
            if HALF:
                saved = half_distance(u - bar, fired, INCLUSIVE)
                tl.store(membrane_ptr + at, saved, mask=inside)
            else:
                if NEURON == 1:
                    tl.store(membrane_ptr + at, u - bar, mask=inside)
                else:
                    tl.store(membrane_ptr + at, u, mask=inside)
        if second_ptr is not None:
            tl.store(second_ptr + at, w, mask=inside)
        v = u
        if RESET == 0:
            owed = tl.where(fired, threshold, 0.0)
            if not DELAYED:
                v = u - owed
        if RESET == 1:
            v = tl.where(fired, 0.0, u)
        shown = u if DELAYED else v
        shown_w = w
        if NEURON == 1:
            w = decay * w + fired.to(ACC)
            if not DELAYED:
                shown_w = w
        if trajectory_ptr is not None:
            tl.store(trajectory_ptr + at, shown, mask=inside)
        x_at += STRIDE_T
        at += COUNT
    tl.store(v_ptr + i, shown, mask=inside)
    if w_ptr is not None:
        tl.store(w_ptr + i, shown_w, mask=inside)


def launch(
    op: str,
    neuron: int,
    input: Tensor,
    starts: list[Tensor | None],
    parameters: list[Tensor],
    rule: tuple,
    spikes: int,
    save: int,
    save_second: bool,
    record: bool,
) -> tuple[Tensor, ...]:
    """spikes, v, w, membrane, second and trajectory; parameters: beta, threshold, those of w."""
    reset, delayed, inclusive, _, surrogate, slope = rule
    check_rule(op, reset, surrogate, slope)
    x = series(op, "input", input, input)
    T, R, P = x.shape
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    require(0 <= spikes <= 2, op, f"spikes must be 0, 1 or 2, got {spikes}")
    good = 0 <= save <= (1 if dtype == torch.float64 else 2)
    require(good, op, f"save must be 0, 1 or, but for float64, 2, got {save}")
    v0, w0 = (state(op, name, t, x, dtype) for name, t in zip("vw", starts, strict=True))
    given = check_parameters(op, x, dtype, *parameters)
    decay, strength = (*given[2:], None, None)[:2]

    def room(wanted: bool, shape: tuple[int, ...], dtype: torch.dtype = dtype) -> Tensor:
        return torch.empty(shape if wanted else (0,), dtype=dtype, device=x.device)

    fired = room(True, (T, R, P), torch.uint8 if spikes else x.dtype)
    v, w = room(True, (R, P)), room(neuron > 0, (R, P))
    membrane = room(save > 0, (T, R, P), torch.float16 if save == 2 else dtype)
    second, trajectory = (room(wanted, (T, R, P)) for wanted in (save_second, record))
    if R * P:
        _neurons_kernel[(triton.cdiv(R * P, BLOCK),)](
            x,
            v0,
            w0,
            given[0],
            given[1],
            decay,
            strength,
            fired,
            v,
            w if neuron else None,
            membrane if save else None,
            second if save_second else None,
            trajectory if record else None,
            T,
            R * P,
            P,
            *offsets(x),
            NEURON=neuron,
            HALF=save == 2,
            RESET=reset,
            DELAYED=bool(delayed) and reset != 2,
            INCLUSIVE=bool(inclusive),
            ONE_BETA=given[0].dim() == 0,
            ONE_THRESHOLD=given[1].dim() == 0,
            ONE_DECAY=decay is None or decay.dim() == 0,
            ONE_STRENGTH=strength is None or strength.dim() == 0,
            ACC=accumulator(x.dtype),
            BLOCK=BLOCK,
            **OPTIONS,
        )
    return pack(fired) if spikes == 2 else fired, v, w, membrane, second, trajectory


def pack(fired: Tensor) -> Tensor:
    """Bits of the last dimension from bytes 0 and 1."""
    fired = torch.nn.functional.pad(fired, (0, -fired.shape[-1] % 8)).unflatten(-1, (-1, 8))
    shifts = torch.arange(8, dtype=torch.uint8, device=fired.device)
    return (fired << shifts).sum(-1, dtype=torch.uint8)


def lif(
    input: Tensor,
    v0: Tensor | None,
    beta: Tensor,
    threshold: Tensor,
    reset: int,
    delayed: bool,
    inclusive: bool,
    detach_reset: bool,
    surrogate: int,
    slope: float,
    spikes: int,
    save: int,
    record: bool,
) -> tuple[Tensor, ...]:
    rule = (reset, delayed, inclusive, detach_reset, surrogate, slope)
    fired, v, _, membrane, _, trajectory = launch(
        "lif", 0, input, [v0, None], [beta, threshold], rule, spikes, save, False, record
    )
    return fired, v, membrane, trajectory


def build(
    neuron: int, dtype: torch.dtype, reset: int, delayed: bool, every: bool, half: bool = False
) -> Build:
    """``every``: with all that is optional, and parameters of neurons."""
    wide = "*fp64" if dtype == torch.float64 else "*fp32"
    optional = ["v0_ptr", "membrane_ptr", "trajectory_ptr"]
    own = ["decay_ptr", "w_ptr"] if neuron else []
    own += ["strength_ptr"] if neuron == 1 else []
    absent = {"decay_ptr", "strength_ptr", "w_ptr", "w0_ptr", "second_ptr"} - set(own)
    if neuron:
        optional += ["w0_ptr", "second_ptr"]
    given = dict.fromkeys(optional, wide) if every else {}
    if half:
        given["membrane_ptr"] = "*fp16"
    types = {
        **dict.fromkeys(("input_ptr", "spikes_ptr"), "*" + NAMES[dtype]),
        **dict.fromkeys(("beta_ptr", "threshold_ptr", "v_ptr", *own), wide),
        **given,
        **dict.fromkeys(("T", "COUNT", "P", "STRIDE_T", "STRIDE_R"), "i32"),
    }
    return Build(
        _neurons_kernel,
        types,
        {
            **dict.fromkeys(sorted({*optional, *absent} - types.keys())),
            "NEURON": neuron,
            "HALF": half,
            "RESET": reset,
            "DELAYED": delayed,
            "INCLUSIVE": every,
            "ONE_BETA": not every,
            "ONE_THRESHOLD": not every,
            "ONE_DECAY": not every,
            "ONE_STRENGTH": not every,
            "ACC": accumulator(dtype),
            "BLOCK": BLOCK,
        },
        OPTIONS,
    )


AOT = [
    build(0, torch.float32, 0, False, False),
    build(0, torch.float32, 0, True, True, half=True),
    build(0, torch.bfloat16, 1, True, True),
    build(0, torch.float64, 1, False, True),
]
