"""esn: an echo state network over a whole sequence."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._check import fail
from .._library import Op, refused_gradient
from ..sparse import Pattern
from ._neurons import check_choice, check_fraction, parameter_of
from ._reservoir import (
    check_input,
    check_pattern,
    check_washout,
    in_pieces,
    values_of,
    weight_of,
)

ACTIVATIONS = {"tanh": 0, "relu": 1, "identity": 2}


class ESN(NamedTuple):
    """What :func:`esn` returns.

    Attributes:
        states: ``(T - washout, [B,] N)``, the state after every recorded step, float32 (float64
            for float64 input).
        state: ``([B,] N)``, the state after the last step.
    """

    states: Tensor
    state: Tensor


def _fake(input: Tensor, state: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    crow, washout = rest[4], rest[-1]
    steps, batch = input.shape[:2]
    rows = crow.shape[0] - 1
    recorded = torch.sym_max(0, steps - washout)
    return input.new_empty((recorded, batch, rows)), input.new_empty((batch, rows))


_op = Op("esn", fake=_fake, **refused_gradient("esn", "a gradient"), leading=6)
_op_ = Op("esn_", fake=lambda *args: None)


def esn(
    input: Tensor,
    values: Tensor,
    pattern: Pattern,
    state: Tensor | None = None,
    *,
    input_weight: Tensor,
    bias: Tensor | None = None,
    leak: float | Tensor = 0.3,
    activation: str = "tanh",
    record: str = "states",
    washout: int = 0,
    backend: str | None = None,
) -> ESN:
    r"""An echo state network (leaky reservoir), all time steps in one call.

    .. math:: x_{t+1} = (1 - a)\, x_t + a\, f(W x_t + W_{in} u_{t+1} + b)

    Same states as

        weight = torch.sparse_csr_tensor(pattern.crow, pattern.col, values, pattern.shape)
        states = []
        for u in input:
            x = (1 - leak) * x + leak * torch.tanh(weight @ x + input_weight @ u + bias)
            states.append(x)
        states = torch.stack(states)

    Two calls, the second with the ``state`` of the first, give the bits of one. One sequence costs
    .27 ns an entry and step on one core, a batch .04 ns an entry, step and sequence; rows in blocks
    of 16 with equal columns (``Pattern.from_blocks(blocks, (16, 1))``) make one sequence five times
    as fast. The weight is rearranged in each call, which takes as long as 8 steps of one sequence:
    step by step, a call a step, it does not pay.

    Args:
        input: ``(T, K)``, or ``(T, B, K)`` for B sequences at once; time first. float32, float64,
            bfloat16 or float16.
        values: ``(nnz,)``, the recurrent weights W in the order of the pattern.
        pattern: of shape ``(N, N)``, a row for each unit that receives.
        state: ``([B,] N)``, the state before the first step. Default: 0.
        input_weight: ``(N, K)``.
        bias: ``(N,)``. Default: 0.
        leak: a, the leaking rate (dt / tau): a number in [0, 1] or a tensor ``()`` or ``(N,)``, one
            for each unit. 1: no leak.
        activation: f, "tanh", "relu" or "identity".
        record: "states" returns the state after every step, "last" only that of the last.
        washout: so many of the first steps are not recorded.
        backend: ``"auto"``, ``"cpp"``, ``"triton"`` or ``"reference"``; default as chosen by
            :func:`synops.backend`.

    Returns:
        :class:`ESN`. The weights are fixed: a gradient is refused (NotImplementedError in the
        backward), but for ``backend="reference"``. NaN goes where the formula takes it.

    Raises:
        TypeError: not tensors, numbers or a Pattern, or of a dtype that is not taken.
        ValueError: a shape, device, number or name is wrong. (The values of tensors are not
            looked at.)
        RuntimeError: ``backend`` cannot run here.

    reservoirpy's ``Reservoir(lr=leak)`` with the same ``W``, ``Win`` and ``bias`` has these states.

    Source: H. Jaeger, GMD Report 148, 2001; H. Jaeger et al., Optimization and applications of echo
    state networks with leaky-integrator neurons, Neural Networks 20, 2007.
    """
    op = "esn"
    u = check_input(op, input)
    check_pattern(op, "pattern", pattern, u)
    rows = pattern.shape[0]
    if pattern.shape[1] != rows:
        fail(ValueError, op, "pattern", "have shape (N, N)", pattern.shape)
    values = values_of(op, "values", values, pattern, u)
    shape = (rows, u.shape[2])
    input_weight = weight_of(op, "input_weight", input_weight, shape, "(N, K)", u)
    if bias is not None:
        bias = weight_of(op, "bias", bias, (rows,), "(N,)", u)
    check_fraction(op, "leak", leak)
    leak = parameter_of(op, "leak", leak, u.new_empty((0, rows))).expand(rows)
    code = check_choice(op, "activation", activation, ACTIVATIONS)
    alone = input.dim() == 2
    if state is not None:
        names, wanted = ("(N,)", (rows,)) if alone else ("(B, N)", (u.shape[1], rows))
        state = weight_of(op, "state", state, wanted, names, u)
        state = state.unsqueeze(0) if alone else state
    skipped = check_washout(op, record, washout, u.shape[0])
    index = (pattern.crow, pattern.col, pattern.row_ptr, pattern.tile_col, *pattern.block)
    fixed = (input_weight, bias, leak, values, *index, code)

    def cost() -> float:  # of a step
        entries, batch = pattern.nnz + rows * u.shape[2], u.shape[1]
        return batch * (entries * (0.3 if batch < 3 else 0.08) + 3 * rows)

    given = (u, state, input_weight, bias, leak, values)
    run = in_pieces(u, state, rows, skipped, cost, given)
    if run is None:
        states, last = _op(u, state, *fixed, skipped, backend=backend)
    else:
        states, last, parts = run
        for part in parts:
            piece = u[part.begin : part.end]
            _op_(part.out, last, piece, *fixed, part.washout, backend=backend)
    return ESN(states.squeeze(1), last.squeeze(0)) if alone else ESN(states, last)
