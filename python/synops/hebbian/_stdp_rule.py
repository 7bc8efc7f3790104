"""The numbers and names of a rule of stdp, checked, as its op takes them."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch

from .._check import fail
from ._plasticity import REDUCTIONS, check_clip, check_number

LEAKS = ("exponential", "euler")
PAIRINGS = ("all", "nearest")
# bit 1: traces of the columns hold the spikes of the step that they are read in, 2: of the rows
COINCIDENT = {"none": 0, "potentiate": 1, "depress": 2, "both": 3}
BOUNDS = ("hard", "soft")


class Rule(NamedTuple):
    """The numbers and names of a rule, checked."""

    lower: float
    upper: float
    triplets: bool
    soft: bool
    numbers: tuple[Any, ...]  # the op's last arguments, from the decays on


def checked_rule(op: str, rule: tuple[Any, ...], clip: Any) -> Rule:
    """``rule`` as ``_rule_of`` takes it, up to the clip."""
    if not torch.compiler.is_compiling():
        try:  # 14 us for the checks, 1 for a rule that was seen before
            lower, upper = (None, None) if clip is None else clip
            return _rule_of(op, *rule, lower, upper)
        except (TypeError, ValueError):  # of what cannot be hashed, or raised by a check
            pass
    return _rule_of.__wrapped__(op, *rule, *check_clip(op, clip))


@functools.lru_cache(maxsize=64, typed=True)  # True is no number, though it equals 1
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
    lower: Any,
    upper: Any,
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
    soft = bounds == "soft"
    clip = check_clip(op, (lower, upper))
    options = (pairing == "nearest", COINCIDENT[coincident], soft, reduction == "mean")
    return Rule(*clip, triplets, soft, (*decays, *amplitudes, *clip, *options))


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
