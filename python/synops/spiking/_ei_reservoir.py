"""ei_reservoir: excitatory and inhibitory rate units with plastic inhibition, over a sequence."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._check import check_device, check_float, fail
from .._library import Op, refused_gradient, traced
from ..sparse import Pattern
from ._neurons import check_fraction, parameter_of
from ._reservoir import (
    check_input,
    check_pattern,
    check_washout,
    in_pieces,
    values_of,
    weight_of,
)


class EIReservoir(NamedTuple):
    """What :func:`ei_reservoir` returns.

    Attributes:
        rates: ``(T - washout, [B,] N)``, the rate after every recorded step, float32 (float64 for
            float64 input).
        state: ``([B,] N)``, the rates after the last step.
        inhibitory: ``([B,] nnz)``, the inhibitory weights after the last step, None where they
            stay.
    """

    rates: Tensor
    state: Tensor
    inhibitory: Tensor | None = None


def _fake(input: Tensor, state: Tensor | None, i_values: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    target, e_crow, washout = rest[5], rest[7], rest[-1]
    steps, batch = input.shape[:2]
    rows = e_crow.shape[0] - 1
    return (
        input.new_empty((torch.sym_max(0, steps - washout), batch, rows)),
        input.new_empty((batch, rows)),
        input.new_empty((0,) if target is None else (batch, i_values.shape[1])),
    )


_op = Op("ei_reservoir", fake=_fake, **refused_gradient("ei_reservoir", "a gradient"), leading=10)
_op_ = Op("ei_reservoir_", fake=lambda *args: None)


def check_networks(op: str, excitatory: Any, inhibitory: Any, like: Tensor) -> None:
    """Patterns of one network: a row for each unit, columns for its own kind's units."""
    check_pattern(op, "excitatory_pattern", excitatory, like)
    check_pattern(op, "inhibitory_pattern", inhibitory, like)
    rows, units = excitatory.shape
    if units > rows:
        rule = f"have shape (N, E) with E <= N = {rows}"
        fail(ValueError, op, "excitatory_pattern", rule, excitatory.shape)
    if inhibitory.shape != (rows, rows - units):
        rule = f"have shape (N, N - E) = ({rows}, {rows - units})"
        fail(ValueError, op, "inhibitory_pattern", rule, inhibitory.shape)


def check_dale(op: str, argument: str, values: Tensor) -> None:
    """No weight below 0: a unit excites or inhibits."""
    if not traced(values) and bool((values < 0).any()):
        fail(ValueError, op, argument, "not be negative (Dale's law)", float(values.min()))


def ei_reservoir(
    input: Tensor,
    excitatory: Tensor,
    excitatory_pattern: Pattern,
    inhibitory: Tensor,
    inhibitory_pattern: Pattern,
    state: Tensor | None = None,
    *,
    input_weight: Tensor,
    gain: float | Tensor = 10.0,
    threshold: float | Tensor = 0.0,
    leak: float | Tensor = 1.0,
    target: float | Tensor | None = None,
    delta: float | Tensor = 1e-3,
    record: str = "rates",
    washout: int = 0,
    backend: str | None = None,
) -> EIReservoir:
    r"""A reservoir that obeys Dale's law, all time steps in one call; inhibition may adapt in it.

    .. math::
        V_{t+1} = A^E r_t - A^I r_t + W_{in} u_{t+1}, \qquad
        r_{t+1} = (1 - a)\, r_t + a\, \sigma(c (V_{t+1} - \theta))

    and, where a target rate is given, after each step on every existing inhibitory weight

    .. math:: A^I_{ij} \leftarrow \max(0,\; A^I_{ij} + \delta_t (r_{t+1, i} - \rho_i))

    Same rates as a loop over

        V = A_E @ r[:E] - A_I @ r[E:] + input_weight @ u
        r = (1 - leak) * r + leak * torch.sigmoid(gain * (V - threshold))
        A_I.values().add_(delta * (r - target)[row]).clamp_(min=0)

    The first E units excite, the others inhibit: the sign of a weight is that of its column, and
    weights are not negative. Two calls, the second with ``state`` and ``inhibitory`` of the first,
    give the bits of one. The caller's tensors are never changed. An entry and step costs .3 ns on
    one core, .35 where it adapts.

    Args:
        input: ``(T, K)``, or ``(T, B, K)`` for B sequences at once; time first. float32, float64,
            bfloat16 or float16.
        excitatory, excitatory_pattern: weights ``(nnz,)`` and their Pattern ``(N, E)``, a row for
            each unit that receives and a column for each of the first E.
        inhibitory, inhibitory_pattern: the same of the other units, ``(N, N - E)``; weights
            ``(nnz,)``, or ``(B, nnz)`` for each sequence its own.
        state: ``([B,] N)``, the rates before the first step. Default: 0.
        input_weight: ``(N, K)``.
        gain, threshold: c and theta, a finite number or a tensor ``()`` or ``(N,)``.
        leak: a, likewise, in [0, 1]. 1: no leak.
        target: rho, target rates in [0, 1], likewise. None: inhibition stays.
        delta: learning rate of the inhibition, a number of at least 0 or a schedule ``(T,)``.
        record: "rates" returns the rates after every step, "last" only those of the last.
        washout: so many of the first steps are not recorded.
        backend: ``"auto"``, ``"cpp"``, ``"triton"`` or ``"reference"``; default as chosen by
            :func:`synops.backend`.

    Returns:
        :class:`EIReservoir`. A gradient is refused (NotImplementedError in the backward), but for
        ``backend="reference"``. NaN goes where the formulas take it.

    Raises:
        TypeError: not tensors, numbers or Patterns, or of a dtype that is not taken.
        ValueError: a shape, device, number or name is wrong, or a weight is negative. (Weights are
            not looked at in a compiled graph.)
        RuntimeError: ``backend`` cannot run here.

    Source: K. Srinivasan, D. Plenz, M. Girvan, Boosting reservoir computing with adaptive
    excitatory-inhibitory balance, arXiv:2504.12480.
    """
    op = "ei_reservoir"
    u = check_input(op, input)
    check_networks(op, excitatory_pattern, inhibitory_pattern, u)
    rows, units = excitatory_pattern.shape
    steps, batch = u.shape[:2]
    alone = input.dim() == 2
    excitatory = values_of(op, "excitatory", excitatory, excitatory_pattern, u)
    inhibitory = _inhibitory(op, inhibitory, inhibitory_pattern, u, alone)
    check_dale(op, "excitatory", excitatory[: excitatory_pattern.nnz])
    check_dale(op, "inhibitory", inhibitory)
    input_weight = weight_of(op, "input_weight", input_weight, (rows, u.shape[2]), "(N, K)", u)
    like = u.new_empty((0, rows))
    check_fraction(op, "leak", leak)
    each = {"gain": gain, "threshold": threshold, "leak": leak}
    parameters = [parameter_of(op, k, v, like).expand(rows) for k, v in each.items()]
    if state is not None:
        names, wanted = ("(N,)", (rows,)) if alone else ("(B, N)", (batch, rows))
        state = weight_of(op, "state", state, wanted, names, u)
        state = state.unsqueeze(0) if alone else state
    if target is not None:
        check_fraction(op, "target", target)
        target = parameter_of(op, "target", target, like).expand(rows)
    schedule = None if target is None else _schedule(op, delta, u)
    skipped = check_washout(op, record, washout, steps, "rates")
    networks = (excitatory_pattern, inhibitory_pattern)
    index = (*(t for p in networks for t in (p.crow, p.col)), units)
    fixed = (input_weight, excitatory, *parameters, target)

    def cost() -> float:  # of a step
        entries = excitatory_pattern.nnz + inhibitory_pattern.nnz + rows * u.shape[2]
        return batch * (0.3 * entries + 3 * rows)

    given = (u, state, excitatory, inhibitory, input_weight, *parameters, target, schedule)
    run = in_pieces(u, state, rows, skipped, cost, given)
    if run is None:
        args = (u, state, inhibitory, *fixed, schedule, *index, skipped)
        rates, last, moved = _op(*args, backend=backend)
    else:
        rates, last, parts = run
        moved = inhibitory if target is None else inhibitory.expand(batch, -1).clone()
        for part in parts:
            steps_of = slice(part.begin, part.end)
            now = None if schedule is None else schedule[steps_of]
            args = (part.out, last, moved, u[steps_of], *fixed, now, *index, part.washout)
            _op_(*args, backend=backend)
    changed = None if target is None else moved
    if alone:
        changed = None if changed is None else changed.squeeze(0)
        return EIReservoir(rates.squeeze(1), last.squeeze(0), changed)
    return EIReservoir(rates, last, changed)


def _inhibitory(op: str, value: Any, pattern: Pattern, u: Tensor, alone: bool) -> Tensor:
    """(nnz,) or (B, nnz) as (1 or B, nnz), without what lies behind the entries."""
    if isinstance(value, Tensor) and value.dim() == 2 and not alone:
        check_float(op, "inhibitory", value)
        check_device(op, "inhibitory", value, u)
        if value.shape != (u.shape[1], pattern.nnz):
            rule = f"have shape (nnz,) or (B, nnz) = {(u.shape[1], pattern.nnz)}"
            fail(ValueError, op, "inhibitory", rule, tuple(value.shape))
        return value.to(u.dtype)
    return values_of(op, "inhibitory", value, pattern, u)[: pattern.nnz].unsqueeze(0)


def _schedule(op: str, delta: Any, u: Tensor) -> Tensor:
    """delta as (T,)."""
    if isinstance(delta, Tensor) and delta.dim():
        return weight_of(op, "delta", delta, (u.shape[0],), "(T,)", u)
    if isinstance(delta, bool) or not isinstance(delta, int | float | Tensor):
        fail(TypeError, op, "delta", "be a number or a tensor (T,)", type(delta).__name__)
    if not isinstance(delta, Tensor) and not (delta >= 0 and math.isfinite(delta)):
        fail(ValueError, op, "delta", "be finite and not negative", delta)
    if isinstance(delta, Tensor):
        return weight_of(op, "delta", delta, (), "()", u).expand(u.shape[0])
    return u.new_full((u.shape[0],), float(delta))
