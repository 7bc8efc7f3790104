"""izhikevich: a recurrent reservoir of Izhikevich neurons over a whole run."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .._check import fail
from ..sparse import Pattern
from ._izhikevich_arguments import OP, check_sign, check_synapses
from ._izhikevich_ops import IzhikevichSynapses, layout_for, synapses_of
from ._izhikevich_run import (
    Izhikevich,
    IzhikevichState,
    batch_of,
    refuse_gradients,
    run_on,
)


def izhikevich(
    input: Tensor | None,
    values: Tensor,
    pattern: Pattern,
    state: IzhikevichState | None = None,
    *,
    a: float | Tensor,
    b: float | Tensor,
    c: float | Tensor,
    d: float | Tensor,
    dt: float = 0.5,
    tau: float = 5.0,
    tau_rise: float | None = None,
    bias: float | Tensor = 0.0,
    input_weight: Tensor | None = None,
    steps: int | None = None,
    delay: int | Tensor = 1,
    sign: Tensor | None = None,
    record: str | Sequence[str] | None = "indices",
    neurons: Tensor | Sequence[int] | None = None,
    tau_trace: float = 20.0,
    readout: Tensor | None = None,
    targets: Tensor | None = None,
    gates: Tensor | None = None,
    learning_rate: float | None = None,
    synapses: IzhikevichSynapses | None = None,
    backend: str | None = None,
) -> Izhikevich:
    r"""Izhikevich neurons with recurrent synapses, all time steps in one call.

    .. math::
        \dot v = 0.04 v^2 + 5 v + 140 - u + I, \qquad \dot u = a (b v - u), \qquad
        v \ge 30 : \; v \leftarrow c, \; u \leftarrow u + d

    in ms and mV, by forward Euler; I is bias, input and synapses. Step t is, in this order (with a
    weight matrix W of ``values``, rows post-synaptic):

        I = current + bias + input[t] @ input_weight.T
        v, u = v + dt * (0.04 * v**2 + 5 * v + 140 - u + I), u + dt * a * (b * v - u)
        fired = v >= 30
        v, u = where(fired, c, v), where(fired, u + d, u)
        current = exp(-dt / tau) * current + W @ fired  # of delay - 1 steps before

    so the current of a spike is first seen in the step after it, or ``delay`` steps after. With
    ``tau_rise`` the current of a spike is w (exp(-t / tau) - exp(-t / tau_rise)) / p, with p such
    that its peak is w:

        current = exp(-dt / tau) * current + (exp(-dt / tau) - exp(-dt / tau_rise)) / p * rise
        rise = exp(-dt / tau_rise) * rise + W @ fired

    Only synapses of neurons that fired are read. Two calls, the second with the state of the
    first, give the bits of one. Nothing depends on the number of threads.

    Args:
        input: ``(T, N_in)``, or ``(T, B, N_in)`` for B reservoirs with the same synapses; or None.
        values: ``(nnz,)``, the weights, in the order of the pattern: float32, float64, float16 or
            bfloat16 (synapses of 4 bytes instead of 6). All else is in float32, in float64 for
            float64.
        pattern: :class:`synops.sparse.Pattern` of shape ``(N, N)``, rows post-synaptic.
        state: :class:`IzhikevichState` with ``(N,)``, or ``(B, N)``: of another run, or with v
            alone. Default: v = -65, no current.
        a, b, c, d: numbers or ``(N,)``, such as .02, .2, -65, 8 (regular spiking); a in 1 / ms.
        dt: ms of a step.
        tau: ms in which a current falls to 1 / e.
        tau_rise: ms, at most .99 ``tau``.
        bias: number or ``(N,)``, a constant current.
        input_weight: ``(N, N_in)``; default: input goes to the neurons one by one, N_in = N. Inputs
            of 0 cost nothing.
        steps: T, where there is no input.
        delay: steps from a spike to its current, at least 1: an int, or int32 or int64 ``(N,)``,
            one for each pre-synaptic neuron (axonal).
        sign: ``(N,)``, 1 or -1: checks that the weights of each pre-synaptic neuron have its sign
            (Dale's law). Not looked at while compiled.
        record: names of what to return: any of "indices", "bits", "raster", "v", "traces".
        neurons: indices ``(K,)`` of the neurons of "v" and "traces"; default all.
        tau_trace: ms of the filtered spikes: trace = exp(-dt / tau_trace) trace + fired, whose
            mean is 1e-3 tau_trace times the rate in Hz (nearly).
        readout: ``(K, N)``, or ``(B, K, N)``: z[t] = readout @ trace, after the spikes of step t.
        targets: ``(T, K)`` or ``(T, B, K)``: the readout learns by the three-factor rule
            readout[k] += learning_rate * gates[t, k] * (targets[t, k] - z[t, k]) * trace, in each
            step, after z.
        gates: likewise; default 1. Steps with 0 cost nothing.
        learning_rate: of that.
        synapses: what :func:`izhikevich_synapses` made of values and pattern; default: it is made
            in each call, which takes as long as some hundred steps.
        backend: ``"auto"``, ``"cpp"``, ``"triton"`` or ``"reference"``; default as chosen by
            :func:`synops.backend`.

    Returns:
        :class:`Izhikevich`. No gradients. A membrane of NaN does not spike and stays NaN.

    Raises:
        TypeError: not tensors or numbers, or of a dtype that is not taken.
        ValueError: a shape, device, number or name is wrong, a tensor requires a gradient, a weight
            breaks ``sign``. (The values of other tensors are not looked at.)
        RuntimeError: ``backend`` cannot run here.

    Source: E. M. Izhikevich, Simple model of spiking neurons, IEEE Trans. Neural Networks 14
    (2003). Brian2's ``exponential_euler`` of the synapses and ``euler`` of the neurons, thresholds
    before synapses, is the same scheme.
    """
    check_synapses(values, pattern)
    refuse_gradients({"values": values})
    if sign is not None:
        check_sign(sign, values, pattern)
    if synapses is None:
        reads = readout is not None
        synapses = _laid_out(values, pattern, batch_of(input, state) or 1, reads, backend)
    elif not isinstance(synapses, IzhikevichSynapses):
        fail(TypeError, OP, "synapses", "be IzhikevichSynapses", type(synapses).__name__)
    return run_on(
        synapses,
        pattern.shape[0],
        input,
        state,
        a=a,
        b=b,
        c=c,
        d=d,
        dt=dt,
        tau=tau,
        tau_rise=tau_rise,
        bias=bias,
        input_weight=input_weight,
        steps=steps,
        delay=delay,
        record=record,
        neurons=neurons,
        tau_trace=tau_trace,
        readout=readout,
        targets=targets,
        gates=gates,
        learning_rate=learning_rate,
        backend=backend,
    )


def izhikevich_synapses(
    values: Tensor, pattern: Pattern, *, reservoirs: int = 1, backend: str | None = None
) -> IzhikevichSynapses:
    """The synapses of :func:`izhikevich` in the order that spikes read them in, for many calls.

    Args:
        values, pattern: as there, and to be given there, too.
        reservoirs: how many run on them at a time; a single large one is shared by the threads
            that there are now. Results do not depend on it.
        backend: as there.
    """
    check_synapses(values, pattern)
    refuse_gradients({"values": values})
    return _laid_out(values, pattern, reservoirs, False, backend)


def _laid_out(
    values: Tensor, pattern: Pattern, rows: int, reads: bool, backend: str | None
) -> IzhikevichSynapses:
    layout = layout_for(pattern.crow, pattern.col, rows, reads)
    return synapses_of(values, pattern.crow, pattern.col, layout, backend)
