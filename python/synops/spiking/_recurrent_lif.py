"""recurrent_lif: a layer of leaky integrate-and-fire neurons with connections among themselves."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._check import check_device, check_float, check_shape, fail
from .._chunks import chunks
from .._library import Op, refused_gradient, traced
from ..sparse import Pattern
from ._neurons import (
    HALF,
    RESETS,
    SURROGATES,
    Layout,
    check_choice,
    check_fraction,
    check_positive,
    parameter_of,
    state_dtype,
    state_of,
    wants_gradient,
)

_NEEDED = 6  # leading arguments of the op that may need a gradient
# Of a weight, a row and a step with all neurons firing, dense and of a Pattern; a step back takes
# no longer.
_NANOSECONDS = (0.02, 0.2)


class RecurrentState(NamedTuple):
    """What goes on from one step to the next.

    Attributes:
        spikes: ``(..., N)``, those of the last step.
        v: ``(..., N)``, the membranes after it.
    """

    spikes: Tensor
    v: Tensor


class RecurrentLIF(NamedTuple):
    """What :func:`recurrent_lif` returns.

    Attributes:
        spikes: ``(T, ..., N)``, 0 or 1, in the dtype of the input.
        state: after the last step; ``v`` in float32 (float64 for float64).
        trajectory: ``(T, ..., N)``, ``v`` after every step; None unless recorded.
    """

    spikes: Tensor
    state: RecurrentState
    trajectory: Tensor | None = None


def _fake(input: Tensor, *args: Any) -> tuple[Tensor, ...]:
    dtype = state_dtype(input)
    *_, save, record = args
    return (
        input.new_empty(input.shape),
        input.new_empty(input.shape[1:], dtype=dtype),
        input.new_empty(input.shape if save else (0,), dtype=dtype),
        input.new_empty(input.shape if record else (0,), dtype=dtype),
    )


def _fake_backward(*args: Any) -> tuple[Tensor, ...]:
    membrane, weight, _, _, beta, threshold = args[3:9]
    half, *needs = args[-1 - _NEEDED :]
    dtype = (membrane.dtype, torch.bfloat16, torch.float16)[half]
    row = membrane.shape[1:]
    shapes = (membrane.shape, weight.shape, row, row, beta.shape, threshold.shape)
    return tuple(
        membrane.new_empty(shape if need else (0,), dtype=membrane.dtype if i else dtype)
        for i, (shape, need) in enumerate(zip(shapes, needs, strict=True))
    )


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    input, *kept, reset, delayed, inclusive, detach, surrogate, slope, save, record = inputs
    _, _, membrane, trajectory = output
    if not save and record and (delayed or reset == RESETS["none"]):
        membrane, save = trajectory, True  # the same numbers
    ctx.saved, ctx.half = save, HALF.get(input.dtype, 0)
    ctx.rule = (reset, delayed, inclusive, detach, surrogate, slope)
    ctx.save_for_backward(membrane, *kept)
    # The membrane is not marked as without gradient: then nothing would refuse a second gradient.
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    of_spikes, of_v, of_membrane, of_trajectory = grads
    if of_membrane is not None and of_membrane.numel() and not traced(of_membrane):
        raise RuntimeError("recurrent_lif: the saved membrane has no gradient; record a trajectory")
    if not ctx.saved:
        raise RuntimeError("recurrent_lif: the membrane was not saved for a backward (save=False)")
    needs = ctx.needs_input_grad[:_NEEDED]
    membrane, *kept = ctx.saved_tensors
    if of_trajectory is not None and of_trajectory.shape != membrane.shape:
        of_trajectory = None  # of what was not recorded
    if not any(needs) or (of_spikes is None and of_v is None and of_trajectory is None):
        return (None,) * 16
    found = _op_backward(
        of_spikes, of_v, of_trajectory, membrane, *kept, *ctx.rule, ctx.half, *needs,
        backend=ctx.backend,
    )  # fmt: skip
    wanted = (g if need else None for g, need in zip(found, needs, strict=True))
    return (*wanted, *(None,) * 10)


_op_backward = Op(
    "recurrent_lif_backward",
    fake=_fake_backward,
    **refused_gradient("recurrent_lif"),
    leading=9,
)
_op = Op("recurrent_lif", fake=_fake, setup_context=_setup, backward=_backward, leading=_NEEDED)


def recurrent_lif(
    input: Tensor,
    weight: Tensor,
    state: tuple[Tensor, Tensor] | None = None,
    *,
    pattern: Pattern | None = None,
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
) -> RecurrentLIF:
    r"""Leaky integrate-and-fire neurons that hear their own spikes of the step before.

    .. math::
        u_t = \beta v_{t-1} + (x_t + W s_{t-1}), \qquad s_t = [u_t > \theta], \qquad
        v_t = \text{what the reset leaves of } u_t

    Everything else is as in :func:`synops.spiking.lif`, which this is with a weight of 0. Same as

        spikes = []
        for x in input.unbind(0):
            u = beta * v + torch.addmm(x, s, weight.T)
            s = spike(u - threshold)  # a step forward, the surrogate backward
            v = u - s.detach() * threshold
            spikes.append(s)
        spikes = torch.stack(spikes)

    The forward adds up the weights of those neurons that spiked, in ascending order, so a result
    depends neither on the threads nor on the rest of the batch. Gradients do not depend on the
    threads; with a surrogate that is 0 away from the threshold, lists or whole rows are chosen by
    how much of a row is not 0 and, of a Pattern, by the size of the batch. Two calls,
    the second with the ``state`` of the first, give the bits of one. A run that may take long goes
    in pieces, between which Ctrl-C stops it.

    Args:
        input: ``(T, ..., N)``, time first: float32, float64, bfloat16 or float16.
        weight: ``(N, N)``, any of these dtypes, used in the dtype of the state: ``weight[i, j]`` is
            what a spike of neuron j adds to neuron i, as in ``nn.Linear``. With a ``pattern`` its
            values ``(nnz,)``. Its entries are to be finite: an infinite one counts where its
            neuron spikes, and in no product with 0.
        state: (spikes, v), each ``(..., N)``, before the first step. Default: 0. Spikes are 0 or 1;
            another number counts as so many.
        pattern: :class:`synops.sparse.Pattern` of shape (N, N): which connections there are.
        beta, threshold, reset, detach_reset, surrogate, slope, delayed_reset, inclusive, record,
            backend: as in :func:`synops.spiking.lif`. A spike goes on to other neurons with its
            gradient, whatever ``detach_reset`` says.

    Returns:
        :class:`RecurrentLIF`, with gradients to input, weight (dense, or ``(nnz,)``), state, beta
        and threshold, once.

    Raises:
        TypeError: not tensors or numbers, or of a dtype that is not taken.
        ValueError: a shape, device, number or name is wrong. (The values of tensors are not
            looked at.)
        RuntimeError: ``backend`` cannot run here.

    Speed: forward the time follows the number of spikes. Backward it is that of a product with the
    weight in each step; with a surrogate that is 0 away from the threshold ("boxcar", "triangle",
    "qgate"), no gradient on ``v`` and one ``beta`` for all neurons it follows the number of
    membranes near the threshold: for :math:`\delta_t` the gradient of :math:`u_t`, the difference
    :math:`\delta_t - \beta \delta_{t+1}` is 0 elsewhere, and so the product with it is added to
    :math:`\beta` times the product of the step after.

    What others compute:

    ================================================ ===============================================
    snnTorch ``RLeaky(beta)``                        ``weight = layer.recurrent.weight``, its bias
                                                     added to the input, ``delayed_reset=True,
                                                     surrogate="atan", slope=2`` ("subtract" and
                                                     "none": its "zero" drops what comes in, too)
    SpikingJelly ``LinearRecurrentContainer(node)``  the input times the first columns of its
                                                     ``rc.weight``, plus its bias; ``weight`` the
                                                     others; both as :func:`synops.spiking.lif` says
                                                     for the node (over tau with ``decay_input``)
    ================================================ ===============================================

    (norse's ``LIFRecurrentCell`` filters its currents by a second state.)

    Source: event-driven backward by the active neurons: Perez-Nieves & Goodman, Sparse spiking
    gradient descent, NeurIPS 2021, arXiv:2105.08810.
    """
    op = "recurrent_lif"
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
    weight, index = _weight_of(op, weight, pattern, input)
    layout = Layout(tuple(input.shape[1:]), None)
    s, v0 = (None if t is None else layout.state(t) for t in _state_of(op, state, input))
    save = wants_gradient(input, weight, s, v0, beta, threshold)
    if recorded and (delayed_reset or reset == "none"):
        save = False  # the trajectory is the membrane
    flags = (bool(delayed_reset), bool(inclusive), bool(detach_reset))
    rule = (reset_code, *flags, surrogate_code, float(slope), save, recorded)

    x, cost = layout.steps(input), _NANOSECONDS[pattern is not None]
    pieces = list(chunks(x.shape[0], cost * x.shape[1] * weight.numel()))
    parts = [x] if len(pieces) == 1 else x.split([end - begin for begin, end in pieces])
    found: list[tuple[Tensor, ...]] = []
    for part in parts:  # split: the gradient of a slice would be as large as the input
        v0 = found[-1][1] if found else v0
        args = (part, weight, s, v0, beta, threshold, *index, *rule)
        found.append(_op(*args, backend=backend))
        if part.shape[0]:
            s = found[-1][0][-1].to(weight.dtype)
    spikes, v, _, trajectory = found[-1]
    if len(found) > 1:
        spikes, trajectory = (torch.cat([f[i] for f in found]) for i in (0, 3))
    last = torch.zeros_like(v) if s is None else s
    return RecurrentLIF(
        layout.back(spikes),
        RecurrentState(layout.back_state(last.to(input.dtype)), layout.back_state(v)),
        layout.back(trajectory) if recorded else None,
    )


def _weight_of(
    op: str, weight: Any, pattern: Pattern | None, input: Tensor
) -> tuple[Tensor, tuple[Tensor | None, Tensor | None]]:
    """The weight or values in the dtype of the state, and the CSR indices of a Pattern."""
    n = input.shape[-1]
    check_float(op, "weight", weight)
    check_device(op, "weight", weight, input)
    if pattern is None:
        check_shape(op, "weight", weight, "(N, N)", (n, n))
        return weight.to(state_dtype(input)), (None, None)
    if not isinstance(pattern, Pattern):
        fail(TypeError, op, "pattern", "be a Pattern", type(pattern).__name__)
    if pattern.shape != (n, n):
        fail(ValueError, op, "pattern", f"have shape (N, N) = {(n, n)}", pattern.shape)
    check_device(op, "pattern", pattern.col, input)
    if weight.shape != (pattern.nnz,):
        check_shape(op, "weight", weight, "(capacity,)", (pattern.capacity,))
        weight = weight[: pattern.nnz]
    return weight.to(state_dtype(input)), (pattern.crow, pattern.col)


def _state_of(op: str, state: Any, input: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """spikes and v in the dtype of the state."""
    if state is None:
        return None, None
    if not isinstance(state, tuple | list) or len(state) != 2:
        fail(TypeError, op, "state", "be a pair (spikes, v)", type(state).__name__)
    spikes, v = state
    return state_of(op, "state spikes", spikes, input), state_of(op, "state v", v, input)
