"""What stdp and stdp_ check, and their arguments as the op takes them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._check import check_device, check_shape, check_tensor, dtype_name, fail
from ._in_place import check_written
from ._plasticity import (
    ACTIVITIES,
    arithmetic_dtype,
    check_weight,
    factor_of,
    remember,
    remembered,
    settle,
    sign_of,
)
from ._stdp_rule import checked_rule

_TRACES = ("pre", "post", "slow_pre", "slow_post", "eligibility")
_WRITTEN = ("weight", *(f"state.{name}" for name in _TRACES))
_SHAPES = ("([B,] in)", "([B,] out)", "([B,] in)", "([B,] out)", "of weight")
_NO_STATE = (None,) * len(_TRACES)


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
    steps, batch, inputs = pre_spikes.shape
    post_steps, post_batch, outputs = post_spikes.shape
    dim = pre.dim()
    if dim != post.dim() or steps != post_steps or batch != post_batch:
        wanted = f"have as many dimensions, steps and samples as pre {tuple(pre.shape)}"
        fail(ValueError, op, "post", wanted, tuple(post.shape))
    if shape != (outputs, inputs):
        wrong = ("pre", shape[1], "in", inputs)
        if inputs == shape[1]:
            wrong = ("post", shape[0], "out", outputs)
        name, units, axis, found = wrong
        wanted = f"have {units} units, as weight (out, in) = {tuple(shape)}"
        fail(ValueError, op, name, wanted, f"{axis} = {found}")
    index = (None, None) if pattern is None else (pattern.crow, pattern.col)

    given = checked_rule(op, rule, clip)
    if (reward is None) != (rule[10] is None):
        missing = "tau_e" if rule[10] is None else "reward"
        fail(ValueError, op, missing, "be given with the other of reward and tau_e", None)
    lower, upper = given.lower, given.upper
    if given.soft and not (math.isfinite(lower) and math.isfinite(upper)):
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
    batched = dim == 3
    of_pre, of_post = (batch, inputs), (batch, outputs)
    traces = _held(op, state, weight, of_pre, of_post, batched, given.triplets, reward is not None)
    held = (weight, *traces)
    if in_place:
        written = dict(zip(_WRITTEN, held, strict=True))
        for name, t in written.items():
            if t is not None and not t.is_contiguous():
                strides = f"strides {t.stride()}"
                fail(ValueError, op, name, "be contiguous to be written to", strides)
        check_written(op, written, (pre_spikes, post_spikes, rate, by, reward, by_sign))
    fixed = ((*index, factor, rate, by), (by_sign, check_sign, *given.numbers))
    return Arguments(op, held, pre_spikes, post_spikes, reward, fixed, sign, batched)


def _spikes(op: str, name: str, value: Any, axis: str, weight: Tensor) -> Tensor:
    """(T, B, N), in a type that the op takes."""
    check_tensor(op, name, value)
    dtype = value.dtype
    if dtype not in ACTIVITIES:
        rule = "be float32, float64, bfloat16, float16, bool or uint8"
        fail(TypeError, op, name, rule, dtype_name(dtype))
    check_device(op, name, value, weight, "weight")
    dim = value.dim()
    if dim not in (1, 2, 3):
        rule = f"have shape (T, B, {axis}), (T, {axis}) or ({axis},)"
        fail(ValueError, op, name, rule, tuple(value.shape))
    kind = arithmetic_dtype(weight)
    if dtype is not kind and value.is_floating_point() and torch.float64 in (dtype, kind):
        value = value.to(kind)
    return value if dim == 3 else value.unsqueeze(1) if dim == 2 else value[None, None]


def _held(
    op: str,
    state: Any,
    weight: Tensor,
    of_pre: tuple[int, int],
    of_post: tuple[int, int],
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
    held: list[Tensor | None] = []
    for given, name, names, used, shape in zip(
        _NO_STATE if state is None else state,
        _WRITTEN[1:],
        _SHAPES,
        (True, True, triplets, triplets, rewarded),
        (of_pre, of_post, of_pre, of_post, weight.shape),
        strict=True,
    ):
        if given is None:
            zeros = torch.zeros(shape, dtype=kind, device=weight.device) if used else None
            held.append(zeros)
            continue
        if not used:
            why = "a reward" if name == _WRITTEN[5] else "a3_plus or a3_minus"
            fail(ValueError, op, name, f"be None without {why}", tuple(given.shape))
        check_tensor(op, name, given)
        if given.dtype is not kind:
            fail(TypeError, op, name, f"be {dtype_name(kind)}", dtype_name(given.dtype))
        check_device(op, name, given, weight, "weight")
        alone = not batched and name != _WRITTEN[5]
        check_shape(op, name, given, names, shape[1:] if alone else shape)
        held.append(given.unsqueeze(0) if alone else given)
    return held
