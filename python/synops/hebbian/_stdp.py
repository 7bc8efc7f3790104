"""stdp: spike-timing dependent plasticity over a sequence of spikes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._chunks import chunks
from .._library import Op, refused_gradient, traced
from ..sparse import Pattern
from ._stdp_arguments import Arguments, STDPState, arguments_of


class STDP(NamedTuple):
    """What :func:`stdp` returns.

    Attributes:
        weight: as it was given, after the last step.
        state: of the traces, for the steps that follow.
    """

    weight: Tensor
    state: STDPState


def _fake(*args: Any) -> tuple[Tensor, ...]:
    weight = args[0]
    held = [torch.empty_like(t) if t is not None else weight.new_empty(0) for t in args[:6]]
    return (*held, weight.new_empty((), dtype=torch.int64))


def _fake_in_place(*args: Any) -> Tensor:
    return args[0].new_empty((), dtype=torch.int64)


_op = Op("stdp", fake=_fake, **refused_gradient("stdp", "a gradient"), leading=8)
_op_ = Op("stdp_", fake=_fake_in_place)


def stdp(
    weight: Tensor,
    pre: Tensor,
    post: Tensor,
    state: STDPState | None = None,
    *,
    lr: float | Tensor = 1e-2,
    modulator: float | Tensor | None = None,
    a_plus: float = 1.0,
    a_minus: float = 1.0,
    tau_plus: float = 20.0,
    tau_minus: float = 20.0,
    a3_plus: float = 0.0,
    a3_minus: float = 0.0,
    tau_x: float = 101.0,
    tau_y: float = 125.0,
    dt: float = 1.0,
    leak: str = "exponential",
    pairing: str = "all",
    coincident: str = "both",
    reward: float | Tensor | None = None,
    tau_e: float | None = None,
    bounds: str = "hard",
    clip: tuple[float, float] | None = None,
    sign: Tensor | None = None,
    pattern: Pattern | None = None,
    reduction: str = "mean",
    backend: str | None = None,
) -> STDP:
    r"""Spike-timing dependent plasticity, all time steps in one call.

    With r and o the traces of the units before and after the synapse, s and S their spikes, a step
    is

    .. math::
        r_j &\leftarrow e^{-dt / \tau_+} r_j + s_j, \quad
        o_i \leftarrow e^{-dt / \tau_-} o_i + S_i \\
        w_{ij} &\leftarrow clip(w_{ij} + \eta\, (A_+ S_i r_j - A_- o_i s_j))

    Same weights as

        for s, S in zip(pre, post):  # (B, in), (B, out)
            r = r * math.exp(-dt / tau_plus) + s
            o = o * math.exp(-dt / tau_minus) + S
            weight += lr * (a_plus * S.t() @ r - a_minus * o.t() @ s) / len(s)
            weight.clamp_(*clip)

    so that a spike at 0 before one at t adds lr a_plus exp(-t / tau_plus), and one behind it takes
    lr a_minus exp(-t / tau_minus). The order of a step: traces decay and take in its spikes; both
    changes are computed from the weight as it is and added together; entries are clamped. An entry
    is clamped in the steps in which a unit on either side fires (with an eligibility, in all), so
    a weight that lies in its range stays there, and what no spike touches is as it was.

    The weight is read and written once for many steps, and in a step only what spikes touch:
    a call with T steps is many times as fast as T calls. Two calls, the second with the state of
    the first, give the bits of one. Nothing depends on the number of threads.

    Args:
        weight: ``(out, in)``, or with ``pattern`` ``(nnz,)``. float32, float64, bfloat16 or
            float16; arithmetic in float32 (float64 for float64), rounded after every step.
        pre: spikes ``(T, B, in)``, ``(T, in)`` of one sequence, or ``(in,)`` of one step. Any float
            type (a spike may have a size), bool or uint8.
        post: ``(T, B, out)``, ``(T, out)`` or ``(out,)``.
        state: the traces before the first step, as a call before returned them. Default: 0.
        lr: rate, a number or a tensor ``()`` or ``(out,)``.
        modulator: factor of the changes: a number, ``()``, or ``(B,)`` of each sequence.
        a_plus, a_minus: amplitudes of potentiation and depression by pairs.
        tau_plus, tau_minus: time constants of the traces before and after, in the units of ``dt``.
        a3_plus, a3_minus: amplitudes of triplets. Where one of them is not 0, A_+ above becomes
            a_plus + a3_plus o2 and A_- a_minus + a3_minus r2, with slow traces o2 and r2 from
            before this step.
        tau_x, tau_y: time constants of r2 and o2.
        dt: length of a step.
        leak: "exponential" traces decay by exp(-dt / tau), "euler" ones by 1 - dt / tau.
        pairing: "all" adds a spike to its trace; "nearest" sets the trace to it, so that pairs
            are made with the nearest spike only.
        coincident: what spikes of the same step on both sides do: "both" changes, "potentiate",
            "depress", or "none": whether traces hold the spikes of the step that they are read in.
        reward: r, a number, a tensor ``()`` or ``(T,)``. With it changes go into an eligibility
            trace, e <- exp(-dt / tau_e) e + change, and w <- clip(w + lr r e).
        tau_e: time constant of the eligibility, with ``reward``.
        bounds: "hard" only clamps; "soft" multiplies potentiation by (upper - w) and depression by
            (w - lower).
        clip: (lower, upper) of the weight.
        sign: ``(in,)``, Dale's law: weights of units with +1 stay at or above 0, with -1 at or
            below, with 0 they are free.
        pattern: of shape (out, in): the synapses that exist; ``weight`` has their values.
        reduction: over the batch, "mean" or "sum".
        backend: ``"auto"``, ``"cpp"``, ``"triton"`` or ``"reference"``; default as chosen by
            :func:`synops.backend`.

    Returns:
        :class:`STDP`. Nothing that was given is changed; :func:`stdp_` works in place. A gradient
        is refused (NotImplementedError in the backward), but for ``backend="reference"``.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape, dtype, device or value; spikes,
            rates or traces that are not finite. Nothing has been changed then.
        OverflowError: a weight became inf or NaN.
        RuntimeError: ``backend`` cannot run here.

    Peers: SpikingJelly's ``stdp_linear_step`` is ``leak="euler", reduction="sum"``. BindsNET's
    ``PostPre`` is ``reduction="sum"``, with ``pairing="nearest"`` unless its nodes have
    ``traces_additive``, ``nu = (lr a_minus, lr a_plus)`` and a weight (in, out);
    ``WeightDependentPostPre`` adds ``bounds="soft"``; ``MSTDPET`` with ``zero_lag=True`` is
    ``reward=``, and lr its nu / tau_e.

    Source: G. Bi and M. Poo, J. Neurosci. 18, 1998; J.-P. Pfister and W. Gerstner, Triplets of
    spikes in a model of spike timing-dependent plasticity, J. Neurosci. 26, 2006, equations 2 to 4;
    R. Florian, Reinforcement learning through modulation of STDP, Neural Computation 19, 2007.
    """
    rule = (
        a_plus, a_minus, tau_plus, tau_minus, a3_plus, a3_minus, tau_x, tau_y, dt, leak, tau_e,
        pairing, coincident, bounds, reduction,
    )  # fmt: skip
    a = arguments_of(
        "stdp", weight, pre, post, state, rule, lr=lr, modulator=modulator, reward=reward,
        clip=clip, sign=sign, pattern=pattern, in_place=False,
    )  # fmt: skip
    first, *rest = _pieces(a)
    *held, report = _op(*a.held, *a.piece(*first), backend=backend)
    a.settle(report)
    held = [None if old is None else new for old, new in zip(a.held, held, strict=True)]
    for part in rest:
        a.settle(_op_(*held, *a.piece(*part), backend=backend))
    a.learned(held[0])
    return STDP(held[0], a.state_of(held))


def stdp_(
    weight: Tensor,
    pre: Tensor,
    post: Tensor,
    state: STDPState | None = None,
    *,
    lr: float | Tensor = 1e-2,
    modulator: float | Tensor | None = None,
    a_plus: float = 1.0,
    a_minus: float = 1.0,
    tau_plus: float = 20.0,
    tau_minus: float = 20.0,
    a3_plus: float = 0.0,
    a3_minus: float = 0.0,
    tau_x: float = 101.0,
    tau_y: float = 125.0,
    dt: float = 1.0,
    leak: str = "exponential",
    pairing: str = "all",
    coincident: str = "both",
    reward: float | Tensor | None = None,
    tau_e: float | None = None,
    bounds: str = "hard",
    clip: tuple[float, float] | None = None,
    sign: Tensor | None = None,
    pattern: Pattern | None = None,
    reduction: str = "mean",
    backend: str | None = None,
) -> STDP:
    """:func:`stdp` in place: the weight and every tensor of the state are written to.

    Arguments and results as there, but the tensors that come back are those that were given (a
    state that was not given is new). A long call may be stopped between steps; weight and state are
    then those of the same step.

    Raises:
        ValueError: also where in-place writing cannot be right: a weight or state that is not
            contiguous, that shares memory with another argument, or that requires grad while grad
            mode is on (``torch.no_grad()`` allows it, as for torch's own in-place functions).
    """
    rule = (
        a_plus, a_minus, tau_plus, tau_minus, a3_plus, a3_minus, tau_x, tau_y, dt, leak, tau_e,
        pairing, coincident, bounds, reduction,
    )  # fmt: skip
    a = arguments_of(
        "stdp_", weight, pre, post, state, rule, lr=lr, modulator=modulator, reward=reward,
        clip=clip, sign=sign, pattern=pattern, in_place=True,
    )  # fmt: skip
    for part in _pieces(a):
        a.settle(_op_(*a.held, *a.piece(*part), backend=backend))
    a.learned(weight)
    return STDP(weight, a.state_of(a.held))


def _pieces(a: Arguments) -> list[tuple[int, int]]:
    """Of a long run, that Ctrl-C is to stop within a second."""
    steps, batch = a.pre.shape[:2]
    if steps < 2 or traced(a.pre):
        return [(0, steps)]
    entries = a.pre.shape[2] * a.post.shape[2]
    parts = list(chunks(steps, 0.1 * batch * entries))
    if len(parts) > 1:
        a.check_finite()  # before the first is written
    return parts
