"""A run of izhikevich on synapses that are laid out: arguments, shapes, and what comes back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._check import check_device, check_float, check_shape, check_tensor, dtype_name, fail
from .._reference.spiking.izhikevich import fired_in
from . import _izhikevich_arguments as arguments
from ._izhikevich_ops import IzhikevichSynapses, Recorded, indices_of, pieces

_OP = arguments.OP
_REST = -65.0  # mV, where a run without a state begins


class IzhikevichState(NamedTuple):
    """What goes from one call to the next; with (B, N) in place of (N,) in a batch.

    Attributes:
        v: ``(N,)``, membranes, mV.
        u: ``(N,)``, recovery variables. None at the start: b v.
        current: ``(N,)``, of the synapses. None: 0.
        rise: ``(N,)``, what is still to become current, with ``tau_rise``. None: 0.
        trace: ``(N,)``, filtered spikes, where they are followed. None: 0.
        pending: ``(D - 1, ceil(N / 64))``, int64: spikes in flight with delays of up to D > 1
            steps, a bit each; those that arrive first come first. None: none.
    """

    v: Tensor
    u: Tensor | None = None
    current: Tensor | None = None
    rise: Tensor | None = None
    trace: Tensor | None = None
    pending: Tensor | None = None


class Izhikevich(NamedTuple):
    """What :func:`izhikevich` returns: the state after the last step, and what was recorded.

    Attributes:
        state: :class:`IzhikevichState`, to go on with.
        counts: ``(T,)`` or ``(T, B)``, int32, spikes of each step.
        indices: ``(spikes,)``, int32: which neurons fired; those of a step (and of a reservoir of
            the batch) together and ascending, so ``indices.split(counts.flatten().tolist())``.
        bits: ``(T, [B,] ceil(N / 64))``, int64: bit n % 64 of word n // 64 is neuron n.
        raster: ``(T, [B,] N)``, uint8, 0 or 1.
        v: ``(T, [B,] K)``, membranes of the chosen neurons after each step.
        traces: ``(T, [B,] K)``, their filtered spikes.
        z: ``(T, [B,] K)``, what the readout says.
        readout: the readout weights after the last step, with B in front in a batch.
    """

    state: IzhikevichState
    counts: Tensor
    indices: Tensor | None = None
    bits: Tensor | None = None
    raster: Tensor | None = None
    v: Tensor | None = None
    traces: Tensor | None = None
    z: Tensor | None = None
    readout: Tensor | None = None


def decays(dt: float, tau: Any, tau_rise: Any, tau_trace: Any) -> tuple[float, ...]:
    """What a step leaves of current and rise, what it moves from rise to current, and what it
    leaves of a trace."""
    slow, trace = arguments.positive("tau", tau), arguments.positive("tau_trace", tau_trace)
    decay, trace_decay = math.exp(-dt / slow), math.exp(-dt / trace)
    if tau_rise is None:
        return decay, 0.0, 0.0, trace_decay
    fast = arguments.positive("tau_rise", tau_rise)
    if fast > 0.99 * slow:  # what is normalised is their difference
        fail(ValueError, _OP, "tau_rise", f"be at most .99 of tau = {tau}", tau_rise)
    time = slow * fast / (slow - fast) * math.log(slow / fast)  # of the peak
    peak = math.exp(-time / slow) - math.exp(-time / fast)
    rise_decay = math.exp(-dt / fast)
    return decay, rise_decay, (decay - rise_decay) / peak, trace_decay


def batch_of(input: Any, state: Any) -> int | None:
    """How many reservoirs there are; None: one, whose tensors have no dimension for it."""
    if isinstance(input, Tensor) and input.dim() == 3:
        return input.shape[1]
    v = state[0] if isinstance(state, IzhikevichState) else None
    return v.shape[0] if isinstance(v, Tensor) and v.dim() == 2 else None


def run_on(
    synapses: IzhikevichSynapses,
    N: int,
    input: Tensor | None,
    state: IzhikevichState | None,
    *,
    a: float | Tensor,
    b: float | Tensor,
    c: float | Tensor,
    d: float | Tensor,
    dt: float,
    tau: float,
    tau_rise: float | None,
    bias: float | Tensor,
    input_weight: Tensor | None,
    steps: int | None,
    delay: int | Tensor,
    record: str | Sequence[str] | None,
    neurons: Tensor | Sequence[int] | None,
    tau_trace: float,
    readout: Tensor | None,
    targets: Tensor | None,
    gates: Tensor | None,
    learning_rate: float | None,
    backend: str | None,
) -> Izhikevich:
    """The rest of :func:`synops.spiking.izhikevich`, whose arguments these are."""
    if state is not None and not isinstance(state, IzhikevichState):
        fail(TypeError, _OP, "state", "be an IzhikevichState", type(state).__name__)
    wide = torch.float64 if synapses.weight.dtype == torch.float64 else torch.float32
    like = synapses.weight.new_empty((), dtype=wide)
    named: dict[str, Any] = {"input": input, "input_weight": input_weight, "readout": readout}
    named |= {"targets": targets, "gates": gates, "bias": bias, "a": a, "b": b, "c": c, "d": d}
    refuse_gradients(named if state is None else named | state._asdict())
    batch = batch_of(input, state)
    B, rows = 1 if batch is None else batch, () if batch is None else (batch,)
    axes = "" if batch is None else "B, "

    def series(name: str, t: Any, width: int, last: str) -> Tensor:
        """(T, B, width), the same for all reservoirs where there is no B."""
        check_float(_OP, name, t)
        check_device(_OP, name, t, like, "values")
        shape = (T, *(rows if t.dim() == 3 else ()), width)
        check_shape(_OP, name, t, f"(T, {axes if t.dim() == 3 else ''}{last})", shape)
        t = t.to(wide)
        return t if t.dim() == 3 else t.unsqueeze(1).expand(T, B, width)

    if input is not None:
        check_tensor(_OP, "input", input)
        if input.dim() not in (2, 3):
            fail(ValueError, _OP, "input", "have shape (T, [B,] N_in)", tuple(input.shape))
    T = arguments.steps_of(steps, input)
    inputs = N
    if input_weight is not None:
        if input is None:
            rule = "be None where there is no input"
            fail(ValueError, _OP, "input_weight", rule, type(input_weight).__name__)
        inputs = input.shape[-1]
        shape = (N, inputs)
        checked = arguments.array("input_weight", input_weight, like, "(N, N_in)", shape)
        input_weight = checked.t().contiguous()
    if input is not None:
        input = series("input", input, inputs, "N_in" if input_weight is not None else "N")

    step = arguments.positive("dt", dt)
    neuron = tuple(
        arguments.parameter(name, value, like, N)
        for name, value in (("a", a), ("b", b), ("c", c), ("d", d), ("bias", bias))
    )
    given = IzhikevichState(like.new_full((*rows, N), _REST)) if state is None else state
    longest, delays = arguments.delay_of(delay, like, N, given.pending)
    wanted = arguments.records_of(record)
    chosen = arguments.chosen_of(neurons, like, N)
    follows = "traces" in wanted or readout is not None or given.trace is not None
    before = states_of(given, like, rows, N, neuron[1], tau_rise is not None, follows, longest)

    rate = 0.0
    if readout is not None:
        check_float(_OP, "readout", readout)
        check_device(_OP, "readout", readout, like, "values")
        outputs = readout.shape[-2] if readout.dim() > 1 else 0
        shape = (*(rows if readout.dim() == 3 else ()), outputs, N)
        check_shape(_OP, "readout", readout, f"({axes if readout.dim() == 3 else ''}K, N)", shape)
        readout = readout.to(wide)
        readout = readout if readout.dim() == 3 else readout.expand(B, outputs, N)
        if targets is not None:
            targets = series("targets", targets, outputs, "K")
            rate = learning_rate_of(learning_rate)
        if gates is not None:
            gates = series("gates", gates, outputs, "K")
    for name, t, needs, other in (
        ("targets", targets, "readout", readout),
        ("gates", gates, "targets", targets),
    ):
        if t is not None and other is None:
            fail(ValueError, _OP, name, f"be None without {needs}", type(t).__name__)

    found: dict[str, list[Tensor]] = {}
    for after, read, recorded in pieces(  # noqa: B007
        before,
        neuron,
        input,
        input_weight,
        synapses,
        delays,
        T,
        (step, *decays(step, tau, tau_rise, tau_trace)),
        (bool(wanted & {"indices", "bits", "raster"}), "v" in wanted, "traces" in wanted),
        chosen,
        readout,
        targets,
        gates,
        rate,
        backend,
    ):
        for name, part in results_of(recorded, wanted, N, backend).items():
            found.setdefault(name, []).append(part)
        if read is not None:
            found.setdefault("z", []).append(recorded.z)

    def whole(name: str, parts: list[Tensor]) -> Tensor:
        t = parts[0] if len(parts) == 1 else torch.cat(parts)
        return t if batch is not None or name == "indices" else t.squeeze(1)

    if batch is None:
        after = tuple(None if t is None else t.squeeze(-2) for t in after)
        read = None if read is None else read.squeeze(0)
    results = {name: whole(name, parts) for name, parts in found.items()}
    return Izhikevich(IzhikevichState(*after), readout=read, **results)  # type: ignore[arg-type]


def results_of(
    recorded: Recorded, wanted: frozenset[str], neurons: int, backend: str | None
) -> dict[str, Tensor]:
    """What was asked for of a piece, by its name."""
    found = {"counts": recorded.counts}
    if "indices" in wanted:
        found["indices"] = indices_of(recorded.bits, neurons, backend=backend)
    if "bits" in wanted:
        found["bits"] = recorded.bits
    if "raster" in wanted:
        found["raster"] = fired_in(recorded.bits, neurons).to(torch.uint8)
    if "v" in wanted:
        found["v"] = recorded.v
    if "traces" in wanted:
        found["traces"] = recorded.traces
    return found


def states_of(
    given: IzhikevichState,
    like: Tensor,
    rows: tuple[int, ...],
    N: int,
    b: Tensor,
    rises: bool,
    follows: bool,
    longest: int,
) -> tuple[Tensor | None, ...]:
    """All of a state as (B, N), with zeros for what is not given."""
    names, shape = ("(N,)", (N,)) if not rows else ("(B, N)", (*rows, N))
    full = (*(rows or (1,)), N)

    def checked(name: str, t: Any) -> Tensor:
        if t is None:
            return like.new_zeros(full)
        return arguments.array(f"state.{name}", t, like, names, shape).reshape(full)

    v = checked("v", given.v)
    u = b * v if given.u is None else checked("u", given.u)
    if given.rise is not None and not rises:
        fail(ValueError, _OP, "state.rise", "be None without tau_rise", tuple(given.rise.shape))
    pending = given.pending
    if longest == 1:
        if pending is not None:
            rule = "be None where no delay is more than 1"
            fail(ValueError, _OP, "state.pending", rule, tuple(pending.shape))
    else:
        shape_of = (longest - 1, *rows, -(-N // 64))
        if pending is None:
            pending = like.new_zeros(shape_of, dtype=torch.int64)
        check_tensor(_OP, "state.pending", pending)
        if pending.dtype != torch.int64:
            fail(TypeError, _OP, "state.pending", "be int64", dtype_name(pending.dtype))
        check_device(_OP, "state.pending", pending, like, "values")
        axes = "(D - 1, ceil(N / 64))" if not rows else "(D - 1, B, ceil(N / 64))"
        check_shape(_OP, "state.pending", pending, axes, shape_of)
        pending = pending.reshape(longest - 1, *(rows or (1,)), -(-N // 64))
    return (
        v,
        u,
        checked("current", given.current),
        checked("rise", given.rise) if rises else None,
        checked("trace", given.trace) if follows else None,
        pending,
    )


def learning_rate_of(value: Any) -> float:
    """A finite number, needed where there are targets."""
    if value is None:
        fail(TypeError, _OP, "learning_rate", "be given with targets", None)
    return arguments.finite("learning_rate", value)


def refuse_gradients(tensors: dict[str, Any]) -> None:
    """There are none: a result without a graph would be missing from a sum without a word."""
    if not torch.is_grad_enabled():
        return
    for name, t in tensors.items():
        if isinstance(t, Tensor) and t.requires_grad:
            rule = "not require a gradient, since there is none (detach it, or use torch.no_grad())"
            fail(ValueError, _OP, name, rule, "requires_grad=True")
