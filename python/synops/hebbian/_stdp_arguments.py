"""What stdp and stdp_ check, and their arguments as the op takes them."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._check import check_device, check_shape, check_tensor, dtype_name, fail
from .._library import traced
from ._plasticity import (
    ACTIVITIES,
    REDUCTIONS,
    arithmetic_dtype,
    check_clip,
    check_number,
    check_weight,
    factor_of,
    remember,
    remembered,
    settle,
    sign_of,
)

LEAKS = ("exponential", "euler")
PAIRINGS = ("all", "nearest")
# bit 1: traces of the columns hold the spikes of the step that they are read in, 2: of the rows
COINCIDENT = {"none": 0, "potentiate": 1, "depress": 2, "both": 3}
BOUNDS = ("hard", "soft")
_TRACES = ("pre", "post", "slow_pre", "slow_post", "eligibility")
_UNBOUNDED = (-math.inf, math.inf)


class STDPState(NamedTuple):
    """Traces between two calls of :func:`synops.hebbian.stdp`; float32 (float64 for float64).

    Attributes:
        pre: ``([B,] in)``, of the units before the synapse.
        post: ``([B,] out)``, of those behind it.
        slow_pre, slow_post: the slow ones of triplets, of the same shapes, or None.
        eligibility: of the shape of the weight, with a reward, or None.
    """

    pre: Tensor
    post: Tensor
    slow_pre: Tensor | None = None
    slow_post: Tensor | None = None
    eligibility: Tensor | None = None


class Rule(NamedTuple):
    """The numbers and names of a rule, checked."""

    decays: tuple[float, ...]  # plus, minus, x, y, e
    amplitudes: tuple[float, ...]
    triplets: bool
    options: tuple[Any, ...]  # nearest, coincident, soft, mean


class Arguments(NamedTuple):
    """Of one call, checked.

    Attributes:
        op: the name of the function.
        held: weight, traces, slow traces, eligibility: what changes; the last three may be None.
        pre, post: (T, B, N).
        reward: (T,), or None.
        fixed: (crow, col, lr, rate, modulator), (sign, check_sign, and the numbers).
        sign: as it was given.
        batched: whether the caller's spikes have the dimension B.
    """

    op: str
    held: tuple[Tensor | None, ...]
    pre: Tensor
    post: Tensor
    reward: Tensor | None
    fixed: tuple[tuple[Any, ...], tuple[Any, ...]]
    sign: Any
    batched: bool

    def piece(self, begin: int, end: int) -> tuple[Any, ...]:
        """The op's arguments behind ``held``, for steps [begin, end)."""
        pre, post, reward = self.pre, self.post, self.reward
        if end - begin != pre.shape[0]:
            pre, post = pre[begin:end], post[begin:end]
            reward = None if reward is None else reward[begin:end]
        return (pre, post, *self.fixed[0], reward, *self.fixed[1])

    def state_of(self, held: Any) -> STDPState:
        """The traces in the caller's shapes."""
        _, *state = held
        if not self.batched:
            state[:4] = [None if t is None else t.squeeze(0) for t in state[:4]]
        return STDPState(*state)

    def check_finite(self) -> None:
        """What the op looks at in its own piece only."""
        for name in ("pre", "post", "reward"):
            t = getattr(self, name)
            if t is not None and t.is_floating_point() and not t.isfinite().all():
                fail(ValueError, self.op, name, "be finite", "inf or NaN")

    def settle(self, report: Tensor) -> None:
        """Raises what the op reports."""
        settle(self.op, report, "lr, modulator or reward", "a trace or sign")

    def learned(self, weight: Any) -> None:
        """Notes that the weight keeps the signs."""
        remember(weight, self.sign)


def arguments_of(
    op: str,
    weight: Any,
    pre: Any,
    post: Any,
    state: Any,
    rule: tuple[Any, ...],
    *,
    lr: Any,
    modulator: Any,
    reward: Any,
    clip: Any,
    sign: Any,
    pattern: Any,
    in_place: bool,
) -> Arguments:
    """Everything that a call was given, checked; ``rule`` as ``_rule_of`` takes it."""
    shape = check_weight(op, weight, pattern)
    pre_spikes = _spikes(op, "pre", pre, "in", weight)
    post_spikes = _spikes(op, "post", post, "out", weight)
    if pre.dim() != post.dim() or pre_spikes.shape[:2] != post_spikes.shape[:2]:
        wanted = f"have as many dimensions, steps and samples as pre {tuple(pre.shape)}"
        fail(ValueError, op, "post", wanted, tuple(post.shape))
    steps, batch, inputs = pre_spikes.shape
    for name, given, units, axis in (
        ("pre", pre, shape[1], "in"),
        ("post", post, shape[0], "out"),
    ):
        if given.shape[-1] != units:
            wanted = f"have {units} units, as weight (out, in) = {tuple(shape)}"
            fail(ValueError, op, name, wanted, f"{axis} = {given.shape[-1]}")
    index = (None, None) if pattern is None else (pattern.crow, pattern.col)

    given = _checked_rule(op, *rule)
    if (reward is None) != (rule[10] is None):
        name, got = ("tau_e", rule[10]) if rule[10] is None else ("reward", reward)
        fail(ValueError, op, name, "be given with the other of reward and tau_e", got)
    lower, upper = check_clip(op, clip)
    if given.options[2] and not (math.isfinite(lower) and math.isfinite(upper)):
        fail(ValueError, op, "clip", "be finite with bounds='soft'", clip)
    by_sign = None if sign is None else sign_of(op, sign, inputs, lower, upper, weight)
    check_sign = sign is not None and not remembered(weight, sign)

    factor, rate = factor_of(op, "lr", lr, shape[0], "(out,)", weight)
    by = None
    if modulator is not None:
        times, by = factor_of(op, "modulator", modulator, batch, "(B,)", weight)
        factor *= times
        if not math.isfinite(factor):
            fail(ValueError, op, "lr", "be finite once multiplied by modulator", factor)
    if reward is not None:
        times, tensor = factor_of(op, "reward", reward, steps, "(T,)", weight)
        if tensor is None:
            kind = arithmetic_dtype(weight)
            tensor = torch.full((), times, dtype=kind, device=weight.device)
        reward = tensor.expand(steps)
    batched = pre.dim() == 3
    triplets, rewarded = given.triplets, reward is not None
    traces = _held(op, state, weight, pre_spikes, post_spikes, batched, triplets, rewarded)
    held = (weight, *traces)
    if in_place:
        _check_written(op, held, (pre_spikes, post_spikes, rate, by, reward, by_sign))
    amplitudes, options = given.amplitudes, given.options
    numbers = (by_sign, check_sign, *given.decays, *amplitudes, lower, upper, *options)
    fixed = ((*index, factor, rate, by), numbers)
    return Arguments(op, held, pre_spikes, post_spikes, reward, fixed, sign, batched)


def _check_written(op: str, held: tuple[Tensor | None, ...], read: Any) -> None:
    """What stdp_ writes to is contiguous, shares no memory, and wants no gradient."""
    names = ("weight", *(f"state.{name}" for name in _TRACES))
    grad = torch.is_grad_enabled()
    for name, t in zip(names, held, strict=True):
        if t is None:
            continue
        if grad and t.requires_grad:
            rule = "not require grad, or be updated under torch.no_grad()"
            fail(ValueError, op, name, rule, "one that does")
        if not t.is_contiguous():
            fail(ValueError, op, name, "be contiguous to be written to", f"strides {t.stride()}")
    if any(t is not None and traced(t) for t in held):
        return
    spans = [None if t is None else _extent(t) for t in (*held, *read)]
    for i, name in enumerate(names):
        if (mine := spans[i]) is None:
            continue
        for theirs in spans[i + 1 :]:
            if theirs is not None and mine[0] < theirs[1] and theirs[0] < mine[1]:
                fail(ValueError, op, name, "share no memory with another argument", "one that does")


def _extent(t: Tensor) -> tuple[int, int]:
    """Addresses of the first byte and behind the last: once a tensor, since a call has ten."""
    first = t.data_ptr()
    if t.numel() == 0:
        return first, first
    reach = sum((n - 1) * step for n, step in zip(t.shape, t.stride(), strict=True))
    return first, first + (reach + 1) * t.element_size()


def _checked_rule(op: str, *rule: Any) -> Rule:
    if not torch.compiler.is_compiling():
        try:  # 12 us for the checks, .5 for a rule that was seen before
            return _rule_of(op, *rule)
        except TypeError:  # of what cannot be hashed, or raised by a check
            pass
    return _rule_of.__wrapped__(op, *rule)


@functools.lru_cache(maxsize=64)
def _rule_of(
    op: str,
    a_plus: Any,
    a_minus: Any,
    tau_plus: Any,
    tau_minus: Any,
    a3_plus: Any,
    a3_minus: Any,
    tau_x: Any,
    tau_y: Any,
    dt: Any,
    leak: Any,
    tau_e: Any,
    pairing: Any,
    coincident: Any,
    bounds: Any,
    reduction: Any,
) -> Rule:
    amplitudes = (
        check_number(op, "a_plus", a_plus),
        check_number(op, "a_minus", a_minus),
        check_number(op, "a3_plus", a3_plus),
        check_number(op, "a3_minus", a3_minus),
    )
    for name, value, known in (
        ("leak", leak, LEAKS),
        ("pairing", pairing, PAIRINGS),
        ("coincident", coincident, tuple(COINCIDENT)),
        ("bounds", bounds, BOUNDS),
        ("reduction", reduction, REDUCTIONS),
    ):
        if value not in known:
            fail(ValueError, op, name, f"be one of {', '.join(known)}", repr(value))
    _check_positive(op, "dt", dt)
    triplets = a3_plus != 0 or a3_minus != 0
    decays = (
        _decay(op, "tau_plus", tau_plus, dt, leak),
        _decay(op, "tau_minus", tau_minus, dt, leak),
        _decay(op, "tau_x", tau_x, dt, leak) if triplets else 1.0,
        _decay(op, "tau_y", tau_y, dt, leak) if triplets else 1.0,
        1.0 if tau_e is None else _decay(op, "tau_e", tau_e, dt, leak),
    )
    options = (pairing == "nearest", COINCIDENT[coincident], bounds == "soft", reduction == "mean")
    return Rule(decays, amplitudes, triplets, options)


def _check_positive(op: str, name: str, value: Any) -> None:
    if check_number(op, name, value) <= 0:
        fail(ValueError, op, name, "be positive", value)


def _decay(op: str, name: str, tau: Any, dt: float, leak: str) -> float:
    _check_positive(op, name, tau)
    if leak == "exponential":
        return math.exp(-dt / tau)
    if tau < dt:
        fail(ValueError, op, name, f"be at least dt = {dt} with leak='euler'", tau)
    return 1 - dt / tau


def _spikes(op: str, name: str, value: Any, axis: str, weight: Tensor) -> Tensor:
    """(T, B, N), in a type that the op takes."""
    check_tensor(op, name, value)
    if value.dtype not in ACTIVITIES:
        rule = "be float32, float64, bfloat16, float16, bool or uint8"
        fail(TypeError, op, name, rule, dtype_name(value.dtype))
    check_device(op, name, value, weight, "weight")
    dim = value.dim()
    if dim not in (1, 2, 3):
        rule = f"have shape (T, B, {axis}), (T, {axis}) or ({axis},)"
        fail(ValueError, op, name, rule, tuple(value.shape))
    kind = arithmetic_dtype(weight)
    if value.is_floating_point() and (value.dtype is torch.float64) != (kind is torch.float64):
        value = value.to(kind)
    return value if dim == 3 else value.unsqueeze(1) if dim == 2 else value[None, None]


def _held(
    op: str,
    state: Any,
    weight: Tensor,
    pre: Tensor,
    post: Tensor,
    batched: bool,
    triplets: bool,
    rewarded: bool,
) -> list[Tensor | None]:
    """The tensors of the state as (B, N) and of the weight's shape, new ones where there are none.

    Traces that these options do not use must not be given: they would not decay.
    """
    if state is not None and not isinstance(state, STDPState):
        fail(TypeError, op, "state", "be an STDPState", type(state).__name__)
    kind = arithmetic_dtype(weight)
    of_pre, of_post = pre.shape[1:], post.shape[1:]
    shapes = (of_pre, of_post, of_pre, of_post, weight.shape)
    used = (True, True, triplets, triplets, rewarded)
    held: list[Tensor | None] = []
    for i, given in enumerate(state or (None,) * 5):
        if given is None:
            zeros = torch.zeros(shapes[i], dtype=kind, device=weight.device) if used[i] else None
            held.append(zeros)
            continue
        argument = f"state.{_TRACES[i]}"
        if not used[i]:
            why = "a reward" if i == 4 else "a3_plus or a3_minus"
            fail(ValueError, op, argument, f"be None without {why}", tuple(given.shape))
        check_tensor(op, argument, given)
        if given.dtype is not kind:
            fail(TypeError, op, argument, f"be {dtype_name(kind)}", dtype_name(given.dtype))
        check_device(op, argument, given, weight, "weight")
        alone = not batched and i < 4
        names = ("([B,] in)", "([B,] out)")[i % 2] if i < 4 else "of weight"
        check_shape(op, argument, given, names, tuple(shapes[i][1:] if alone else shapes[i]))
        held.append(given.unsqueeze(0) if alone else given)
    return held
