"""leaky_rnn: leaky rate neurons with a trainable time constant each, over a whole sequence."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._check import check_device, check_float, check_shape, fail
from .._chunks import chunks
from .._library import Op, refused_gradient, traced
from ._neurons import (
    HALF,
    Layout,
    check_choice,
    check_positive,
    parameter_of,
    state_dtype,
    state_of,
    wants_gradient,
)

ACTIVATIONS = {"identity": 0, "relu": 1, "leaky_relu": 2, "tanh": 3}
NONLINEARITIES = {"outer": 0, "inner": 1}


class LeakyRNN(NamedTuple):
    """What :func:`leaky_rnn` returns, float32 (float64 for float64).

    Attributes:
        states: ``(T, ..., N)``, after every step.
        h: ``(..., N)``, the last of them. A readout of the end takes this one: the gradient of
            ``states[-1]`` would be as large as all states.
    """

    states: Tensor
    h: Tensor


def _fake(input: Tensor, *args: Any) -> tuple[Tensor, ...]:
    dtype = state_dtype(input)
    return (
        input.new_empty(input.shape, dtype=dtype),
        input.new_empty(input.shape[1:], dtype=dtype),
        input.new_empty(input.shape if args[-1] else (0,), dtype=dtype),
    )


def _fake_in_place(states: Tensor, *args: Any) -> Tensor:
    return states.new_empty(states.shape[1:])


def _fake_backward(*args: Any) -> tuple[Tensor, ...]:
    states, _, weight, _, rate = args[2:7]
    half, *needs = args[-6:]
    dtype = (states.dtype, torch.bfloat16, torch.float16)[half]
    shapes = (states.shape, weight.shape, weight.shape[:1], states.shape[1:], rate.shape)
    return tuple(
        states.new_empty(shape if need else (0,), dtype=states.dtype if i else dtype)
        for i, (shape, need) in enumerate(zip(shapes, needs, strict=True))
    )


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    input, weight, _, h0, rate, *ctx.rule, ctx.saved = inputs
    states, _, drive = output
    ctx.half = HALF.get(input.dtype, 0)
    ctx.save_for_backward(states, drive, weight, h0, rate)
    # The drive is not marked as without gradient: then nothing would refuse a second gradient.
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    of_states, of_h, of_drive = grads
    if of_drive is not None and of_drive.numel() and not traced(of_drive):
        raise RuntimeError("leaky_rnn: the saved drive has no gradient; the states have")
    needs = ctx.needs_input_grad[:5]
    inner = ctx.rule[2]
    if not ctx.saved and (inner or needs[4]):
        raise RuntimeError("leaky_rnn: the drive was not saved for a backward (save=False)")
    if not any(needs) or (of_states is None and of_h is None):
        return (None,) * 10
    found = _op_backward(
        of_states, of_h, *ctx.saved_tensors, *ctx.rule, ctx.half, *needs, backend=ctx.backend
    )
    wanted = (g if need else None for g, need in zip(found, needs, strict=True))
    return (*wanted, *(None,) * 5)


_op_backward = Op(
    "leaky_rnn_backward", fake=_fake_backward, **refused_gradient("leaky_rnn"), leading=7
)
_op_in_place = Op("leaky_rnn_", fake=_fake_in_place)
_op = Op("leaky_rnn", fake=_fake, setup_context=_setup, backward=_backward, leading=5)


def leaky_rnn(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    h0: Tensor | None = None,
    *,
    tau: float | Tensor,
    activation: str = "leaky_relu",
    negative_slope: float = 0.01,
    nonlinearity: str = "outer",
    zero_diagonal: bool = True,
    backend: str | None = None,
) -> LeakyRNN:
    r"""A recurrent layer of leaky neurons, all time steps in one call.

    .. math::
        h_t = f((1 - \tfrac 1 \tau) h_{t-1} + \tfrac 1 \tau z_t) \;\text{ (outer), }\;
        (1 - \tfrac 1 \tau) h_{t-1} + \tfrac 1 \tau f(z_t) \;\text{ (inner), }\;
        z_t = W h_{t-1} + b + x_t

    As the loop

        tau, h, states = tau.clamp(min=1), h0, []
        weight = weight * (1 - torch.eye(N))  # zero_diagonal
        for x in input.unbind(0):
            z = F.linear(h, weight, bias) + x
            h = F.leaky_relu((1 - 1 / tau) * h + z / tau, negative_slope)
            states.append(h)
        states = torch.stack(states)

    The weight is brought into the order in which it is read once a call, and leak and activation
    are done on tiles of the product. The backward is the same back in time; the gradient of the
    weight is one product over all steps. Two calls, the second with the ``h`` of the first, give
    the numbers of one.

    Args:
        input: ``(T, ..., N)``, time first: what each neuron gets in each step, projected already;
            or ``(T, ..., 1)``, the same for all neurons. float32, float64, bfloat16 or float16.
            All else is taken in the dtype of the state, float32 (float64 for float64).
        weight: ``(N, N)``, row i to neuron i, as that of ``nn.Linear``.
        bias: ``(N,)``.
        h0: ``(..., N)``, the state before the first step. Default: 0.
        tau: time constant in steps, a number, or a tensor ``()`` or ``(N,)``. Below 1 it counts
            as 1, and has no gradient.
        activation: f: "leaky_relu", "relu", "tanh" or "identity".
        negative_slope: of "leaky_relu", positive.
        nonlinearity: where f is, "outer" or "inner".
        zero_diagonal: no neuron drives itself: the diagonal of the weight counts as 0, whatever is
            there, and its gradient is 0.
        backend: ``"auto"``, ``"cpp"``, ``"triton"`` or ``"reference"``; default as chosen by
            :func:`synops.backend`.

    Returns:
        :class:`LeakyRNN`, with gradients to input, weight, bias, h0 and tau, once.

    Raises:
        TypeError: not tensors or numbers, or of a dtype that is not taken.
        ValueError: a shape, device, number or name is wrong. (The values of tensors are not
            looked at.)
        RuntimeError: ``backend`` cannot run here.

    Source: R. Khajehabdollahi et al., Emergent mechanisms for long timescales depend on training
    curriculum and affect performance in memory tasks, arXiv:2309.12927; "outer" is the RNN of its
    code (LevinaLab/rnn_timescale_public), "inner" the modified one.
    """
    op = "leaky_rnn"
    check_float(op, "input", input)
    if input.dim() < 2:
        fail(ValueError, op, "input", "have shape (T, ..., N)", tuple(input.shape))
    check_float(op, "weight", weight)
    check_device(op, "weight", weight, input)
    if weight.dim() != 2 or weight.shape[0] != weight.shape[1]:
        fail(ValueError, op, "weight", "have shape (N, N)", tuple(weight.shape))
    n = weight.shape[0]
    if input.shape[-1] != n:
        if input.shape[-1] != 1:
            rule = f"have shape (T, ..., {n}) or (T, ..., 1), for weight (N, N) = ({n}, {n})"
            fail(ValueError, op, "input", rule, tuple(input.shape))
        input = input.expand(*input.shape[:-1], n)
    dtype = state_dtype(input)
    if bias is not None:
        check_float(op, "bias", bias)
        check_device(op, "bias", bias, input)
        check_shape(op, "bias", bias, "(N,)", (n,))
        bias = bias.to(dtype)
    check_positive(op, "negative_slope", negative_slope)
    inner = bool(check_choice(op, "nonlinearity", nonlinearity, NONLINEARITIES))
    number = check_choice(op, "activation", activation, ACTIVATIONS)
    layout = Layout(input.shape[1:], None)
    x, weight = layout.steps(input), weight.to(dtype)
    rate = _rate(op, tau, input)
    h = None if h0 is None else layout.state(state_of(op, "h0", h0, input))
    options = (float(negative_slope), inner, bool(zero_diagonal))

    # Nanoseconds of a step: a product at 100 GF/s, or the weight read from L2 and beyond.
    rows = x.shape[1]
    pieces = list(chunks(x.shape[0], n * n * (0.02 * rows + 0.1) + rows * n))
    wanted = wants_gradient(x, weight, bias, h, rate)
    save = wanted and (inner or wants_gradient(rate))
    if len(pieces) == 1 or wanted or traced(x):
        parts = []
        for begin, end in pieces:
            part = x if len(pieces) == 1 else x[begin:end]
            states, h, _ = _op(part, weight, bias, h, rate, number, *options, save, backend=backend)
            parts.append(states)
        states = parts[0] if len(parts) == 1 else torch.cat(parts)
    else:  # where nothing has a gradient, pieces need not be copied: 8 % of 10 rows of 500 neurons
        states = x.new_empty(x.shape, dtype=dtype)
        for begin, end in pieces:
            args = (x[begin:end], weight, bias, h, rate, number, *options)
            h = _op_in_place(states[begin:end], *args, backend=backend)
    assert h is not None  # there is at least one piece
    return LeakyRNN(layout.back(states), layout.back_state(h))


def _rate(op: str, tau: float | Tensor, input: Tensor) -> Tensor:
    """1 / tau, () or (N,)."""
    if not isinstance(tau, Tensor):
        check_positive(op, "tau", tau)
    return parameter_of(op, "tau", tau, input).clamp(min=1).reciprocal()
