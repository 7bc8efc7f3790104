"""What stdp and stdp_ check, and their arguments as the op takes them."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._check import (
    check_device,
    check_float,
    check_shape,
    check_tensor,
    dtype_name,
    fail,
)
from .._library import traced
from ..sparse import Pattern

LEAKS = ("exponential", "euler")
PAIRINGS = ("all", "nearest")
# bit 1: traces of the columns hold the spikes of the step that they are read in, 2: of the rows
COINCIDENT = {"none": 0, "potentiate": 1, "depress": 2, "both": 3}
BOUNDS = ("hard", "soft")
REDUCTIONS = ("mean", "sum")
_SPIKES = frozenset(
    (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.bool, torch.uint8)
)


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
        fixed: (crow, col, lr, modulator), (sign, and the numbers).
        batched: whether the caller's spikes have the dimension B.
    """

    op: str
    held: tuple[Tensor | None, ...]
    pre: Tensor
    post: Tensor
    reward: Tensor | None
    fixed: tuple[tuple[Any, ...], tuple[Any, ...]]
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
        """Raises what the op found; on a GPU and in a graph, when the device comes to it."""
        if traced(report) or report.is_cuda:
            message = f"{self.op}: an argument is not finite, or a weight overflowed"
            torch._assert_async(report == 0, message)
            return
        found = int(report)
        if found == 0:
            return
        if found == 256:
            raise OverflowError(
                f"{self.op}: weight overflowed: lower lr (what was computed has been written)"
            )
        names = {1: "pre", 2: "post", 4: "lr, modulator and reward", 8: "state"}
        name = next(text for bit, text in names.items() if found & bit)
        fail(ValueError, self.op, name, "be finite", "inf or NaN")


def arguments_of(
    op: str,
    weight: Any,
    pre: Any,
    post: Any,
    state: Any,
    lr: Any,
    modulator: Any,
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
    pairing: Any,
    coincident: Any,
    reward: Any,
    tau_e: Any,
    bounds: Any,
    clip: Any,
    sign: Any,
    pattern: Any,
    reduction: Any,
    *,
    in_place: bool,
) -> Arguments:
    """Everything that a call was given, checked."""
    check_float(op, "weight", weight)
    if in_place and torch.is_grad_enabled() and weight.requires_grad:
        rule = "not require grad outside of torch.no_grad()"
        fail(ValueError, op, "weight", rule, "requires_grad=True")
    kind = torch.float64 if weight.dtype is torch.float64 else torch.float32
    pre_spikes = _spikes(op, "pre", pre, "in", weight, kind)
    post_spikes = _spikes(op, "post", post, "out", weight, kind)
    if pre.dim() != post.dim() or pre_spikes.shape[:2] != post_spikes.shape[:2]:
        rule = "have the dimensions of pre, T and B as many"
        fail(ValueError, op, "post", rule, f"{tuple(post.shape)} beside {tuple(pre.shape)}")
    steps, batch, inputs = pre_spikes.shape
    outputs = post_spikes.shape[2]
    index = _weight(op, weight, pattern, (outputs, inputs), in_place)

    numbers = {"a_plus": a_plus, "a_minus": a_minus, "a3_plus": a3_plus, "a3_minus": a3_minus}
    for name, value in numbers.items():
        _number(op, name, value)
    _positive(op, "dt", dt)
    for name, value, known in (
        ("leak", leak, LEAKS),
        ("pairing", pairing, PAIRINGS),
        ("coincident", coincident, tuple(COINCIDENT)),
        ("bounds", bounds, BOUNDS),
        ("reduction", reduction, REDUCTIONS),
    ):
        if not isinstance(value, str) or value not in known:
            fail(ValueError, op, name, f"be one of {', '.join(known)}", repr(value))
    triplets = a3_plus != 0 or a3_minus != 0
    taus = {"tau_plus": tau_plus, "tau_minus": tau_minus}
    taus |= {"tau_x": tau_x, "tau_y": tau_y} if triplets else {}
    decays = [_decay(op, name, value, dt, leak) for name, value in taus.items()]
    decays += [1.0] * (4 - len(decays))
    if (reward is None) != (tau_e is None):
        name, got = ("tau_e", tau_e) if tau_e is None else ("reward", reward)
        fail(ValueError, op, name, "be given with the other of reward and tau_e", got)
    decay_e = 1.0 if tau_e is None else _decay(op, "tau_e", tau_e, dt, leak)
    lower, upper = _clip(op, clip, bounds)
    sign = _sign(op, sign, inputs, lower, upper, weight, kind)

    rate = _values(op, "lr", lr, "() or (out,)", outputs, weight, kind)
    factor = _values(op, "modulator", modulator, "() or (B,)", batch, weight, kind)
    factor = None if factor is None else factor.expand(batch)
    reward = _values(op, "reward", reward, "() or (T,)", steps, weight, kind)
    reward = None if reward is None else reward.expand(steps)
    batched = pre.dim() == 3
    rewarded = reward is not None
    held = _held(op, state, weight, pre_spikes, post_spikes, batched, triplets, rewarded, in_place)
    fixed = (*index, rate, factor)
    options = (
        sign, *decays, decay_e, *numbers.values(), lower, upper, pairing == "nearest",
        COINCIDENT[coincident], bounds == "soft", reduction == "mean",
    )  # fmt: skip
    _check_sign(op, weight, sign, index)
    return Arguments(op, (weight, *held), pre_spikes, post_spikes, reward, (fixed, options), batched)


def check_not_shared(op: str, a: Arguments) -> None:
    """No tensor that is written shares memory with another argument."""
    names = ("weight", "state.pre", "state.post", "state.slow_pre", "state.slow_post")
    written = dict(zip((*names, "state.eligibility"), a.held, strict=True))
    spans = {name: _span(t) for name, t in written.items() if t is not None}
    read = {"pre": a.pre, "post": a.post, "lr": a.fixed[0][2], "modulator": a.fixed[0][3]}
    read |= {"reward": a.reward, "sign": a.fixed[1][0]}
    others = {name: _span(t) for name, t in read.items() if t is not None}
    for i, (name, mine) in enumerate(spans.items()):
        for other, theirs in [*list(spans.items())[i + 1 :], *others.items()]:
            if mine[0] < theirs[1] and theirs[0] < mine[1]:
                fail(ValueError, op, name, f"not share memory with {other}", "the same memory")


def _span(t: Tensor) -> tuple[int, int]:
    if traced(t) or t.numel() == 0:
        return 0, 0
    last = sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True))
    return t.data_ptr(), t.data_ptr() + (last + 1) * t.element_size()


def _number(op: str, name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        fail(TypeError, op, name, "be a number", type(value).__name__)
    if not math.isfinite(value):
        fail(ValueError, op, name, "be finite", value)


def _positive(op: str, name: str, value: Any) -> None:
    _number(op, name, value)
    if not value > 0:
        fail(ValueError, op, name, "be positive", value)


def _decay(op: str, name: str, tau: Any, dt: float, leak: str) -> float:
    _positive(op, name, tau)
    if leak == "exponential":
        return math.exp(-dt / tau)
    if tau < dt:
        fail(ValueError, op, name, f"be at least dt = {dt} with leak='euler'", tau)
    return 1 - dt / tau


def _spikes(
    op: str, name: str, value: Any, axis: str, weight: Tensor, kind: torch.dtype
) -> Tensor:
    """(T, B, N), in a type that the op takes."""
    check_tensor(op, name, value)
    if value.dtype not in _SPIKES:
        rule = "be float32, float64, bfloat16, float16, bool or uint8"
        fail(TypeError, op, name, rule, dtype_name(value.dtype))
    check_device(op, name, value, weight, "weight")
    dim = value.dim()
    if dim not in (1, 2, 3):
        rule = f"have shape (T, B, {axis}), (T, {axis}) or ({axis},)"
        fail(ValueError, op, name, rule, tuple(value.shape))
    if value.is_floating_point() and (value.dtype is torch.float64) != (kind is torch.float64):
        value = value.to(kind)
    return value if dim == 3 else value.unsqueeze(1) if dim == 2 else value[None, None]


def _weight(
    op: str, weight: Tensor, pattern: Any, shape: tuple[int, int], in_place: bool
) -> tuple[Tensor | None, Tensor | None]:
    """crow and col."""
    if in_place and not weight.is_contiguous():
        fail(ValueError, op, "weight", "be contiguous to be written to", weight.stride())
    if pattern is None:
        check_shape(op, "weight", weight, "(out, in)", shape)
        return None, None
    if not isinstance(pattern, Pattern):
        fail(TypeError, op, "pattern", "be a synops.sparse.Pattern", type(pattern).__name__)
    check_device(op, "pattern", pattern.col, weight, "weight")
    if pattern.shape != shape:
        fail(ValueError, op, "pattern", f"have shape (out, in) = {shape}", pattern.shape)
    if weight.dim() != 1 or weight.shape[0] not in (pattern.nnz, pattern.capacity):
        rule = f"have shape (nnz,) = ({pattern.nnz},)"
        fail(ValueError, op, "weight", rule, tuple(weight.shape))
    return pattern.crow, pattern.col


def _clip(op: str, clip: Any, bounds: str) -> tuple[float, float]:
    if clip is None:
        if bounds == "soft":
            fail(ValueError, op, "clip", "be given with bounds='soft'", None)
        return -math.inf, math.inf
    if not isinstance(clip, tuple | list) or len(clip) != 2:
        fail(TypeError, op, "clip", "be (lower, upper)", clip)
    for value in clip:
        if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(value):
            fail(ValueError, op, "clip", "be two numbers", clip)
    lower, upper = clip
    if lower > upper:
        fail(ValueError, op, "clip", "have lower <= upper", clip)
    if bounds == "soft" and not (math.isfinite(lower) and math.isfinite(upper)):
        fail(ValueError, op, "clip", "be finite with bounds='soft'", clip)
    return float(lower), float(upper)


def _sign(
    op: str, sign: Any, inputs: int, lower: float, upper: float, weight: Tensor, kind: torch.dtype
) -> Tensor | None:
    if sign is None:
        return None
    check_tensor(op, "sign", sign)
    check_device(op, "sign", sign, weight, "weight")
    check_shape(op, "sign", sign, "(in,)", (inputs,))
    if not traced(sign) and not ((sign == 0) | (sign.abs() == 1)).all():
        fail(ValueError, op, "sign", "be -1, 0 or 1", "something else")
    if upper < 0 or lower > 0:
        rule = "hold 0 where a sign is given"
        fail(ValueError, op, "clip", rule, (lower, upper))
    return sign.to(kind)


def _check_sign(
    op: str, weight: Tensor, sign: Tensor | None, index: tuple[Tensor | None, Tensor | None]
) -> None:
    if sign is None or traced(weight) or weight.is_cuda:
        return
    col = index[1]
    if col is None:
        broken = (weight * sign < 0).any()
    else:
        broken = (weight[: len(col)] * sign[col] < 0).any()
    if broken:
        fail(ValueError, op, "weight", "have the signs of sign", "a weight of the other sign")


def _values(
    op: str, name: str, value: Any, names: str, size: int, weight: Tensor, kind: torch.dtype
) -> Tensor | None:
    """A number, () or (size,), in the arithmetic type."""
    if value is None and name != "lr":
        return None
    if not isinstance(value, Tensor):
        _number(op, name, value)
        return torch.full((), value, dtype=kind, device=weight.device)
    check_float(op, name, value)
    check_device(op, name, value, weight, "weight")
    if value.dim() > 0:
        check_shape(op, name, value, names, (size,))
    return value.to(kind)


def _held(
    op: str,
    state: Any,
    weight: Tensor,
    pre: Tensor,
    post: Tensor,
    batched: bool,
    triplets: bool,
    rewarded: bool,
    in_place: bool,
) -> list[Tensor | None]:
    """The tensors of the state as (B, N) and of the weight's shape, new ones where there are none.

    Traces that these options do not use must not be given: they would not decay.
    """
    if state is not None and not isinstance(state, STDPState):
        fail(TypeError, op, "state", "be an STDPState", type(state).__name__)
    kind = torch.float64 if weight.dtype is torch.float64 else torch.float32
    wanted = (
        ("pre", "([B,] in)", pre.shape[1:], True),
        ("post", "([B,] out)", post.shape[1:], True),
        ("slow_pre", "([B,] in)", pre.shape[1:], triplets),
        ("slow_post", "([B,] out)", post.shape[1:], triplets),
        ("eligibility", "of the weight", weight.shape, rewarded),
    )
    held: list[Tensor | None] = []
    for (name, names, shape, used), given in zip(wanted, state or (None,) * 5, strict=True):
        argument = f"state.{name}"
        if given is None:
            zeros = torch.zeros(shape, dtype=kind, device=weight.device) if used else None
            held.append(zeros)
            continue
        if not used:
            why = "a3_plus or a3_minus" if name.startswith("slow") else "a reward"
            fail(ValueError, op, argument, f"be None without {why}", tuple(given.shape))
        check_tensor(op, argument, given)
        if given.dtype is not kind:
            fail(TypeError, op, argument, f"be {dtype_name(kind)}", dtype_name(given.dtype))
        check_device(op, argument, given, weight, "weight")
        alone = not batched and name != "eligibility"
        check_shape(op, argument, given, names, tuple(shape[1:] if alone else shape))
        if in_place and not given.is_contiguous():
            fail(ValueError, op, argument, "be contiguous to be written to", given.stride())
        if in_place and torch.is_grad_enabled() and given.requires_grad:
            rule = "not require grad outside of torch.no_grad()"
            fail(ValueError, op, argument, rule, "requires_grad=True")
        held.append(given.unsqueeze(0) if alone else given)
    return held
