"""lif: a layer of leaky integrate-and-fire neurons over a whole sequence."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._check import check_float, fail
from .._library import Op, refused_gradient, traced
from ._neurons import (
    HALF,
    RESETS,
    SURROGATES,
    check_choice,
    check_fraction,
    check_positive,
    in_memory_order,
    parameter_of,
    state_dtype,
    state_of,
    wants_gradient,
)


class LIF(NamedTuple):
    """What :func:`lif` returns.

    Attributes:
        spikes: ``(T, ..., N)``, 0 or 1, in the dtype of the input.
        v: ``(..., N)``, the state after the last step, float32 (float64 for float64).
        trajectory: ``(T, ..., N)``, the state after every step; None unless recorded.
    """

    spikes: Tensor
    v: Tensor
    trajectory: Tensor | None = None


def _fake(input: Tensor, v0: Tensor | None, *args: Any) -> tuple[Tensor, ...]:
    dtype = state_dtype(input)
    *_, save, record = args
    return (
        input.new_empty(input.shape),
        input.new_empty(input.shape[1:], dtype=dtype),
        input.new_empty(input.shape if save else (0,), dtype=dtype),
        input.new_empty(input.shape if record else (0,), dtype=dtype),
    )


def _fake_backward(*args: Any) -> tuple[Tensor, ...]:
    membrane, _, beta, threshold = args[3:7]
    half, *needs = args[-5:]
    dtype = (membrane.dtype, torch.bfloat16, torch.float16)[half]
    shapes = (membrane.shape, membrane.shape[1:], beta.shape, threshold.shape)
    return tuple(
        membrane.new_empty(shape if need else (0,), dtype=membrane.dtype if i else dtype)
        for i, (shape, need) in enumerate(zip(shapes, needs, strict=True))
    )


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    input, v0, beta, threshold, *ctx.rule, save, record = inputs
    _, _, membrane, trajectory = output
    reset, delayed, *_ = ctx.rule
    if not save and record and (delayed or reset == RESETS["none"]):
        membrane = trajectory  # the same numbers
        save = True
    ctx.saved, ctx.half = save, HALF.get(input.dtype, 0)
    ctx.save_for_backward(membrane, v0, beta, threshold)
    # The membrane is not marked as without gradient: then nothing would refuse a second gradient.
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    of_spikes, of_v, of_membrane, of_trajectory = grads
    if of_membrane is not None and of_membrane.numel() and not traced(of_membrane):
        raise RuntimeError("lif: the saved membrane has no gradient; record a trajectory")
    needs = ctx.needs_input_grad[:4]
    if not ctx.saved:
        raise RuntimeError("lif: the membrane was not saved for a backward (save=False)")
    membrane, v0, beta, threshold = ctx.saved_tensors
    if of_trajectory is not None and of_trajectory.shape != membrane.shape:
        of_trajectory = None  # of what was not recorded
    if not any(needs) or (of_spikes is None and of_v is None and of_trajectory is None):
        return (None,) * 12
    found = _op_backward(
        of_spikes, of_v, of_trajectory, membrane, v0, beta, threshold,
        *ctx.rule, ctx.half, *needs, backend=ctx.backend,
    )  # fmt: skip
    wanted = (g if need else None for g, need in zip(found, needs, strict=True))
    return (*wanted, *(None,) * 8)


_op_backward = Op("lif_backward", fake=_fake_backward, **refused_gradient("lif"), leading=7)
_op = Op("lif", fake=_fake, setup_context=_setup, backward=_backward, leading=4)


def lif(
    input: Tensor,
    v0: Tensor | None = None,
    *,
    beta: float | Tensor,
    threshold: float | Tensor = 1.0,
    reset: str = "subtract",
    detach_reset: bool = True,
    surrogate: str = "fast_sigmoid",
    slope: float = 25.0,
    delayed_reset: bool = False,
    inclusive: bool = False,
    record: str | None = None,
    backend: str | None = None,
) -> LIF:
    r"""Leaky integrate-and-fire neurons, all time steps in one pass.

    .. math::
        u_t = \beta v_{t-1} + x_t, \qquad s_t = [u_t > \theta], \qquad
        v_t = u_t - \theta s_t \;\text{ (subtract), }\; (1 - s_t) u_t \;\text{ (zero), }\;
        u_t \;\text{ (none)}

    Same spikes, bit for bit in float32 and float64, as

        v, spikes = v0, []
        for x in input.unbind(0):
            u = beta * v + x
            s = spike(u - threshold)  # a step forward, the surrogate backward
            v = u - s.detach() * threshold
            spikes.append(s)
        spikes = torch.stack(spikes)

    The forward reads the input and writes the spikes, once each; where a gradient is needed it
    saves u, and the backward is one pass back in time over u and the gradient of the spikes.
    Two calls, the second with the ``v`` of the first, give the numbers of one.

    Args:
        input: ``(T, ..., N)``, time first: float32, float64, bfloat16 or float16. Its steps may lie
            in any dense layout (channels-last images keep theirs), or be rows of ``(..., T, N)``.
        v0: ``(..., N)``, the state before the first step. Default: 0.
        beta: what a step leaves of the membrane, ``exp(-dt / tau)`` of a time constant: a number
            in [0, 1], or a tensor ``()`` or ``(N,)``, one for each neuron, which may need a
            gradient.
        threshold: likewise, any finite number.
        reset: what a spike does to the membrane: "subtract" the threshold, set it to "zero", or
            "none".
        detach_reset: no gradient flows through the spike in the reset. (To a threshold that is
            subtracted one does.)
        surrogate: what stands for the derivative of the step at d = u - threshold, k = slope:

            ============== ================================ =======================================
            "fast_sigmoid" 1 / (1 + k \|d\|)^2              Zenke & Ganguli, arXiv:1705.11146
            "superspike"   the same                         its name there and in norse
            "atan"         k/2 / (1 + (pi/2 k d)^2)         Fang et al., arXiv:2007.05785
            "sigmoid"      k e / (1 + e)^2, e = exp(-k d)   Neftci et al., arXiv:1901.09948
            "boxcar"       k where \|d\| < 1 / (2 k)        Wu et al., arXiv:1706.02609
            "triangle"     max(0, 1 - k \|d\|)              Bellec et al., arXiv:1803.09574
            "qgate"        k max(0, 1 - k \|d\|)            quadratic gate of BrainCog
            ============== ================================ =======================================

        slope: k, positive.
        delayed_reset: a spike resets the membrane in the next step and not at once:
            u_t = beta u_{t-1} + x_t - theta s_{t-1} ("zero": beta (1 - s_{t-1}) u_{t-1} + x_t).
            The state ``v`` is then the membrane u itself.
        inclusive: spike where u >= threshold.
        record: "v" returns the state after every step, which may have a gradient, too.
        backend: ``"auto"``, ``"cpp"``, ``"triton"`` or ``"reference"``; default as chosen by
            :func:`synops.backend`.

    Returns:
        :class:`LIF`, with gradients to input, v0, beta and threshold, once. A membrane of NaN
        does not spike and stays NaN, with all gradients of its neuron before.

    Raises:
        TypeError: not tensors or numbers, or of a dtype that is not taken.
        ValueError: a shape, device, number or name is wrong. (The values of tensors are not
            looked at.)
        RuntimeError: ``backend`` cannot run here.

    What others compute, with the same spikes and gradients:

    ===================================== ==========================================================
    snnTorch ``Leaky(beta)``              ``delayed_reset=True, surrogate="atan", slope=2``
    SpikingJelly ``LIFNode(tau)``         ``lif(input / tau, beta=1 - 1 / tau, reset="zero",
                                          inclusive=True, detach_reset=False, surrogate="sigmoid",
                                          slope=4)``; ``decay_input=False``: input as it is;
                                          ``v_reset=None``: ``reset="subtract"``
    norse ``lif_box_feed_forward_step``   ``lif(input * a, beta=1 - a, reset="zero",
                                          detach_reset=False, surrogate="superspike", slope=100)``
                                          with a = dt * tau_mem_inv
    ===================================== ==========================================================

    (SpikingJelly's and norse's products are rounded in another order, which moves a spike where
    the membrane is within a rounding of the threshold. snnTorch's ``reset_delay=False`` is the
    default here with ``detach_reset=False``, but it resets once more where the membrane is above
    the threshold after a reset, too.) SpikingJelly's ``SuperSpike(alpha)`` is
    "fast_sigmoid" of slope 1, alpha times; its ``ATan``, ``Sigmoid``, ``Rect`` and
    ``PiecewiseQuadratic`` are "atan", "sigmoid", "boxcar" and "qgate" of slope alpha.
    """
    op = "lif"
    check_float(op, "input", input)
    if input.dim() < 2:
        fail(ValueError, op, "input", "have shape (T, ..., N)", tuple(input.shape))
    reset_code = check_choice(op, "reset", reset, RESETS)
    surrogate_code = check_choice(op, "surrogate", surrogate, SURROGATES)
    recorded = record is not None and bool(check_choice(op, "record", record, {"v": 1}))
    check_positive(op, "slope", slope)
    check_fraction(op, "beta", beta)
    beta = parameter_of(op, "beta", beta, input)
    threshold = parameter_of(op, "threshold", threshold, input)
    layout = in_memory_order(input)
    v0 = None if v0 is None else layout.state(state_of(op, "v0", v0, input))
    save = wants_gradient(input, v0, beta, threshold)
    if recorded and (delayed_reset or reset == "none"):
        save = False  # the trajectory is the membrane
    spikes, v, _, trajectory = _op(
        layout.steps(input),
        v0,
        layout.parameter(beta),
        layout.parameter(threshold),
        reset_code,
        bool(delayed_reset),
        bool(inclusive),
        bool(detach_reset),
        surrogate_code,
        float(slope),
        save,
        recorded,
        backend=backend,
    )
    return LIF(
        layout.back(spikes),
        layout.back_state(v),
        layout.back(trajectory) if recorded else None,
    )
