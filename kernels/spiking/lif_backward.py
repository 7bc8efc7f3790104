"""lif_backward (Triton), and the kernel of alif and cuba_lif: neurons back over all time steps.

Spikes and states are made again from what was saved. Gradients of the parameters are added up
over time here, over neurons in torch.

Reference: python/synops/_reference/spiking/neurons.py
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.launch import accumulator, require
from .neurons import (
    BLOCK,
    OPTIONS,
    check_parameters,
    check_rule,
    curve,
    fires,
    number,
    offsets,
    parameter,
    series,
    state,
    surrogate_at,
)


@triton.jit
def _back(
    u, d, fired, w, of_spike, of_v, ahead, ahead_w, beta, threshold, decay, strength,
    of_beta, of_threshold, of_decay, of_strength, SLOPE, HEIGHT,
    NEURON: tl.constexpr, RESET: tl.constexpr, DELAYED: tl.constexpr, ATTACHED: tl.constexpr,
    SURROGATE: tl.constexpr,
):  # fmt: skip
    """The gradient of the membranes u, that of the adaptations, and the sums with their terms."""
    leaked = beta * ahead
    through = leaked + of_v
    kept = u
    if NEURON == 1:
        of_spike += ahead_w
    if RESET == 0:
        of_reset = ahead if DELAYED else through
        if ATTACHED:
            of_spike -= threshold * of_reset
        if not DELAYED:
            kept = u - tl.where(fired, threshold, 0.0)
        of_threshold -= tl.where(fired, of_reset, 0.0)
    if RESET == 1:
        of_reset = leaked if DELAYED else through
        if ATTACHED:
            of_spike -= u * of_reset
        kept = tl.where(fired, 0.0, u)
        through = tl.where(fired, 0.0, of_reset)
        if DELAYED:
            through += of_v
    of_step = of_spike * surrogate_at(d, SLOPE, HEIGHT, SURROGATE)
    if NEURON == 1:
        of_strength -= of_step * w
        of_decay += ahead_w * w
        ahead_w = decay * ahead_w - strength * of_step
    of_beta += ahead * kept
    of_threshold -= of_step
    return of_step + through, ahead_w, of_beta, of_threshold, of_decay, of_strength


@triton.jit
def _backward_kernel(
    grad_spikes_ptr,  # or None, as every gradient
    grad_trajectory_ptr,
    grad_v_ptr,
    grad_w_ptr,
    membrane_ptr,
    second_ptr,  # or None
    v0_ptr,
    w0_ptr,
    beta_ptr,
    threshold_ptr,
    decay_ptr,  # or None
    strength_ptr,  # or None
    grad_input_ptr,
    grad_v0_ptr,
    grad_w0_ptr,
    grad_beta_ptr,  # (COUNT,), as the next
    grad_threshold_ptr,
    grad_decay_ptr,
    grad_strength_ptr,
    T,
    COUNT,
    P,
    SPIKES_T,
    SPIKES_R,
    TRAJECTORY_T,
    TRAJECTORY_R,
    MEMBRANE_T,
    MEMBRANE_R,
    SECOND_T,
    SECOND_R,
    SLOPE,
    SLOPE_LOW,
    HEIGHT,
    HEIGHT_LOW,
    NEURON: tl.constexpr,
    DISTANCES: tl.constexpr,  # the membrane is its distance from the threshold
    RESET: tl.constexpr,
    DELAYED: tl.constexpr,
    INCLUSIVE: tl.constexpr,
    ATTACHED: tl.constexpr,
    SURROGATE: tl.constexpr,
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
    decay = beta
    strength = beta
    if NEURON > 0:
        decay = parameter(decay_ptr, i, P, inside, ONE_DECAY)
    if NEURON == 1:
        strength = parameter(strength_ptr, i, P, inside, ONE_STRENGTH)
    slope = number(SLOPE, SLOPE_LOW, ACC)
    height = number(HEIGHT, HEIGHT_LOW, ACC)
    zero = tl.zeros((BLOCK,), ACC)
    row = i // P
    place = i % P
    of_v = zero
    if grad_v_ptr is not None:
        of_v = tl.load(grad_v_ptr + i, mask=inside, other=0)
    of_last = of_v
    of_w = zero
    if grad_w_ptr is not None:
        of_w = tl.load(grad_w_ptr + i, mask=inside, other=0)
    of_last_w = of_w
    ahead = zero
    ahead_w = zero
    if NEURON == 1 and not DELAYED:
        ahead_w = of_w  # the adaptation that comes out is the next one
        of_w = zero
    of_beta = zero
    of_threshold = zero
    of_decay = zero
    of_strength = zero
    for back in range(T):
        t = (T - 1 - back).to(tl.int64)
        u = tl.load(membrane_ptr + t * MEMBRANE_T + row * MEMBRANE_R + place, mask=inside, other=0)
        u = u.to(ACC)
        w = zero
        if second_ptr is not None:
            w = tl.load(second_ptr + t * SECOND_T + row * SECOND_R + place, mask=inside, other=0)
        bar = threshold
        if NEURON == 1:
            bar = threshold + strength * w
        if DISTANCES:
            d = u
            u = d + bar
            fired = fires(d, zero, INCLUSIVE)
        else:
            d = u - bar
            fired = fires(u, bar, INCLUSIVE)
        of_spike = zero
        if grad_spikes_ptr is not None:
            at = t * SPIKES_T + row * SPIKES_R + place
            of_spike = tl.load(grad_spikes_ptr + at, mask=inside, other=0).to(ACC)
        if grad_trajectory_ptr is not None:
            at = t * TRAJECTORY_T + row * TRAJECTORY_R + place
            of_v += tl.load(grad_trajectory_ptr + at, mask=inside, other=0)
        ahead, ahead_w, of_beta, of_threshold, of_decay, of_strength = _back(
            u, d, fired, w, of_spike, of_v, ahead, ahead_w, beta, threshold, decay, strength,
            of_beta, of_threshold, of_decay, of_strength, slope, height,
            NEURON, RESET, DELAYED, ATTACHED, SURROGATE,
        )  # fmt: skip
        of_v = zero
        of_input = ahead
        if NEURON == 2:
            of_decay += ahead_w * w
            ahead_w = ahead + decay * ahead_w + of_w
            of_input = ahead_w
        if NEURON == 1:
            ahead_w += of_w
        of_w = zero
        if grad_input_ptr is not None:
            to = grad_input_ptr + t * COUNT + i
            tl.store(to, of_input.to(grad_input_ptr.dtype.element_ty), mask=inside)
    v0 = zero
    if v0_ptr is not None:
        v0 = tl.load(v0_ptr + i, mask=inside, other=0)
    w0 = zero
    if w0_ptr is not None:
        w0 = tl.load(w0_ptr + i, mask=inside, other=0)
    if NEURON == 2:
        of_decay += ahead_w * w0
        ahead_w = decay * ahead_w
    if DELAYED:
        bar = threshold
        if NEURON == 1:
            bar = threshold + strength * w0
        of_v0, ahead_w, of_beta, of_threshold, of_decay, of_strength = _back(
            v0, v0 - bar, fires(v0, bar, INCLUSIVE), w0, zero, zero, ahead, ahead_w, beta,
            threshold, decay, strength, of_beta, of_threshold, of_decay, of_strength, slope,
            height, NEURON, RESET, DELAYED, ATTACHED, SURROGATE,
        )  # fmt: skip
    else:
        of_v0 = beta * ahead
        of_beta += ahead * v0
    if T == 0:
        of_v0 = of_last
        ahead_w = of_last_w
        of_decay = zero
        of_beta = zero
        of_threshold = zero
        of_strength = zero
    if grad_v0_ptr is not None:
        tl.store(grad_v0_ptr + i, of_v0, mask=inside)
    if grad_w0_ptr is not None:
        tl.store(grad_w0_ptr + i, ahead_w, mask=inside)
    if grad_beta_ptr is not None:
        tl.store(grad_beta_ptr + i, of_beta, mask=inside)
    if grad_threshold_ptr is not None:
        tl.store(grad_threshold_ptr + i, of_threshold, mask=inside)
    if grad_decay_ptr is not None:
        tl.store(grad_decay_ptr + i, of_decay, mask=inside)
    if grad_strength_ptr is not None:
        tl.store(grad_strength_ptr + i, of_strength, mask=inside)


def launch_backward(
    op: str,
    neuron: int,
    incoming: list[Tensor | None],
    saved: list[Tensor | None],
    starts: list[Tensor | None],
    parameters: list[Tensor],
    rule: tuple,
    half: int,
    needs: tuple[bool, ...],
) -> tuple[Tensor, ...]:
    """Gradients of input, states and parameters; incoming: of spikes, v, w and trajectory."""
    reset, delayed, inclusive, detach_reset, surrogate, slope = rule
    check_rule(op, reset, surrogate, slope)
    require(0 <= half <= 2, op, f"half must be 0, 1 or 2, got {half}")
    wide = parameters[0].dtype
    require(wide in (torch.float32, torch.float64), op, "beta must be float32 or float64")
    membrane, second = saved
    distances = membrane.dtype == torch.float16 and wide == torch.float32
    u = series(op, "membrane", membrane, membrane, torch.float16 if distances else wide)
    dtype = (wide, torch.bfloat16, torch.float16)[half]
    T, R, P = u.shape
    grad_spikes, grad_v, grad_w, grad_trajectory = incoming
    spikes, trajectory, second = (
        None if t is None else series(op, name, t, u, kind)
        for name, t, kind in (
            ("grad_spikes", grad_spikes, dtype),
            ("grad_trajectory", grad_trajectory, wide),
            ("second", second, wide),
        )
    )
    need_input, *of_states = needs[: 2 + (neuron > 0)]
    of_parameters = needs[1 + len(of_states) :]
    reads = neuron == 1 and (
        of_parameters[0] or any(of_parameters[2:]) or (reset == 1 and not detach_reset)
    )
    reads = reads or (neuron == 2 and of_parameters[2])
    require(second is not None or not reads, op, "the second state was not saved")
    grad_v, grad_w, v0, w0 = (
        state(op, name, t, u, wide)
        for name, t in zip(("grad_v", "grad_w", "v0", "w0"), (grad_v, grad_w, *starts), strict=True)
    )
    given = check_parameters(op, u, wide, *parameters)
    decay, strength = (*given[2:], None, None)[:2]

    def room(needed: bool, shape: tuple[int, ...], dtype: torch.dtype = wide) -> Tensor:
        return torch.empty(shape if needed else (0,), dtype=dtype, device=u.device)

    of_input = room(need_input, (T, R, P), dtype)
    found = [room(n, (R, P)) for n in needs[1:]]
    given_to = [t if n else None for t, n in zip(found, needs[1:], strict=True)]
    if neuron == 0:
        given_to.insert(1, None)
    given_to += [None] * (6 - len(given_to))
    if R * P:
        _backward_kernel[(triton.cdiv(R * P, BLOCK),)](
            spikes,
            trajectory,
            grad_v,
            grad_w,
            u,
            second,
            v0,
            w0,
            given[0],
            given[1],
            decay,
            strength,
            of_input if need_input else None,
            *given_to,
            T,
            R * P,
            P,
            *(0, 0) if spikes is None else offsets(spikes),
            *(0, 0) if trajectory is None else offsets(trajectory),
            *offsets(u),
            *(0, 0) if second is None else offsets(second),
            *curve(surrogate, slope),
            NEURON=neuron,
            DISTANCES=distances or neuron == 1,
            RESET=reset,
            DELAYED=bool(delayed) and reset != 2,
            INCLUSIVE=bool(inclusive),
            ATTACHED=not detach_reset,
            SURROGATE=surrogate,
            ONE_BETA=given[0].dim() == 0,
            ONE_THRESHOLD=given[1].dim() == 0,
            ONE_DECAY=decay is None or decay.dim() == 0,
            ONE_STRENGTH=strength is None or strength.dim() == 0,
            ACC=accumulator(wide),
            BLOCK=BLOCK,
            **OPTIONS,
        )
    states = len(of_states)
    for i, (needed, like) in enumerate(zip(of_parameters, given, strict=True), states):
        if needed:
            found[i] = found[i].double().sum((0, 1) if like.dim() == 0 else 0).to(wide)
    return (of_input, *found)


def lif_backward(
    grad_spikes: Tensor | None,
    grad_v: Tensor | None,
    grad_trajectory: Tensor | None,
    membrane: Tensor,
    v0: Tensor | None,
    beta: Tensor,
    threshold: Tensor,
    reset: int,
    delayed: bool,
    inclusive: bool,
    detach_reset: bool,
    surrogate: int,
    slope: float,
    half: int,
    *needs: bool,
) -> tuple[Tensor, ...]:
    rule = (reset, delayed, inclusive, detach_reset, surrogate, slope)
    return launch_backward(
        "lif_backward", 0, [grad_spikes, grad_v, None, grad_trajectory], [membrane, None],
        [v0, None], [beta, threshold], rule, half, needs,
    )  # fmt: skip


def build(
    neuron: int,
    dtype: torch.dtype,
    reset: int,
    delayed: bool,
    surrogate: int,
    every: bool,
    half: bool = False,
) -> Build:
    """``every``: with all that is optional, and parameters of neurons."""
    wide = "*fp64" if dtype == torch.float64 else "*fp32"
    optional = ["grad_trajectory_ptr", "grad_v_ptr", "v0_ptr", "grad_v0_ptr", "grad_beta_ptr"]
    optional += ["grad_threshold_ptr"]
    of_second = ["grad_w_ptr", "second_ptr", "w0_ptr", "grad_w0_ptr", "grad_decay_ptr"]
    of_adaptation = ["grad_strength_ptr", "strength_ptr"]
    all_optional = {*optional, *of_second, *of_adaptation, "decay_ptr"}
    optional += of_second if neuron else []
    optional += of_adaptation[:1] if neuron == 1 else []
    own = ["decay_ptr"] if neuron else []
    own += ["strength_ptr"] if neuron == 1 else []
    sizes = (
        "T", "COUNT", "P", "SPIKES_T", "SPIKES_R", "TRAJECTORY_T", "TRAJECTORY_R", "MEMBRANE_T",
        "MEMBRANE_R", "SECOND_T", "SECOND_R",
    )  # fmt: skip
    types = {
        **dict.fromkeys(("grad_spikes_ptr", "grad_input_ptr"), "*" + NAMES[dtype]),
        **dict.fromkeys(("membrane_ptr", "beta_ptr", "threshold_ptr", *own), wide),
        **(dict.fromkeys(optional, wide) if every else {}),
        **dict.fromkeys(sizes, "i32"),
        **dict.fromkeys(("SLOPE", "SLOPE_LOW", "HEIGHT", "HEIGHT_LOW"), "fp32"),
    }
    if half:
        types["membrane_ptr"] = "*fp16"
    return Build(
        _backward_kernel,
        types,
        {
            **dict.fromkeys(sorted(all_optional - types.keys())),
            "NEURON": neuron,
            "DISTANCES": half or neuron == 1,
            "RESET": reset,
            "DELAYED": delayed,
            "INCLUSIVE": every,
            "ATTACHED": every,
            "SURROGATE": surrogate,
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
    build(0, torch.float32, 0, False, 0, False),
    build(0, torch.float32, 0, True, 1, True, half=True),
    build(0, torch.bfloat16, 1, True, 2, True),
    build(0, torch.float64, 1, False, 4, True),
    build(0, torch.float16, 2, False, 6, True),
]
