"""delta_rule: fast weights that are written and read at every step, over a whole sequence."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._check import check_device, check_float, check_like, check_shape, fail
from .._chunks import chunks
from .._library import Op, refused_gradient, traced

RULES = {"delta": 0, "hebb": 1, "oja": 2}
_NEEDS = 6  # the arguments that have gradients


class FastWeights(NamedTuple):
    """What :func:`delta_rule` and :func:`linear_attention` return.

    Attributes:
        output: ``(B, H, T, d_v)``, in the dtype of the query.
        state: ``(B, H, d_k, d_v)``, the fast weight after the last step, float32 (float64 for
            float64).
    """

    output: Tensor
    state: Tensor


def _error_shape(key: Tensor, value: Tensor, rule: int, save: bool) -> Any:
    if rule == RULES["oja"]:
        return key.shape
    return value.shape if save and rule == RULES["delta"] else (0,)


def _fake(query: Tensor, key: Tensor, value: Tensor, *args: Any) -> tuple[Tensor, ...]:
    *_, rule, save = args
    shape = (*key.shape[:2], key.shape[3], value.shape[3])
    error = _error_shape(key, value, rule, save)
    return value.new_empty(value.shape), value.new_empty(shape), value.new_empty(error)


def _fake_backward(*args: Any) -> tuple[Tensor, ...]:
    query, key, value, _, _, _, last = args[2:9]
    numbers = query.shape[:3]
    shapes = (query.shape, key.shape, value.shape, numbers, numbers, last.shape)
    return tuple(
        value.new_empty(shape if need else (0,))
        for shape, need in zip(shapes, args[-_NEEDS:], strict=True)
    )


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.scale, ctx.rule, ctx.saved = inputs
    _, last, error = output
    ctx.save_for_backward(*tensors, last, error)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    of_output, of_state, of_error = grads
    if of_error is not None and of_error.numel() and not traced(of_error):
        raise RuntimeError("delta_rule: the saved error has no gradient; output and state have")
    needs = ctx.needs_input_grad[:_NEEDS]
    if not any(needs) or (of_output is None and of_state is None):
        return (None,) * (_NEEDS + 3)
    if not ctx.saved and ctx.rule == RULES["delta"]:
        raise RuntimeError("delta_rule: the error was not saved for a backward (save=False)")
    found = _op_backward(
        of_output, of_state, *ctx.saved_tensors, ctx.scale, ctx.rule, *needs, backend=ctx.backend
    )
    return (*(g if need else None for g, need in zip(found, needs, strict=True)), *(None,) * 3)


_op_backward = Op(
    "delta_rule_backward", fake=_fake_backward, **refused_gradient("delta_rule"), leading=10
)
_op = Op("delta_rule", fake=_fake, setup_context=_setup, backward=_backward, leading=_NEEDS)


def delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    beta: Tensor | float | None = None,
    *,
    decay: Tensor | float | None = None,
    initial_state: Tensor | None = None,
    scale: float | None = None,
    rule: str = "delta",
    backend: str | None = None,
) -> FastWeights:
    r"""Fast weights: an associative memory written with a key and a value, read with a query.

    .. math::
        S_t = a_t S_{t-1} + \beta_t k_t (v_t - a_t S_{t-1}^T k_t)^T, \quad
        o_t = \mathrm{scale} \; S_t^T q_t

    (with S of shape (d_k, d_v); papers that write S q have it turned). ``rule="hebb"`` writes the
    value itself, :math:`\beta_t k_t v_t^T`; ``"oja"`` corrects the key by what the value brings
    back, :math:`\beta_t (k_t - a_t S_{t-1} v_t) v_t^T`. As the loop

        S, outputs = initial_state, []
        for t in range(T):
            q, k, v = query[:, :, t, :, None], key[:, :, t, :, None], value[:, :, t, None]
            S = decay[:, :, t, None, None] * S
            S = S + beta[:, :, t, None, None] * k * (v - k.mT @ S)  # "hebb": k * v
            outputs.append(scale * q.mT @ S)                        # "oja": (k - S @ v.mT) * v
        output = torch.cat(outputs, 2)

    3 d_k d_v multiply-adds a step ("oja" 4, the gradients three times as many), updates and
    readouts of two steps in one pass over the weight. Nothing of size T d_k d_v is kept for the
    backward, which makes the weights again; it keeps the inputs and the errors. Two calls, the
    second with the ``state`` of the first as ``initial_state``, give on the CPU the bits of one
    if the first has an even number of steps, and otherwise its numbers up to rounding.

    The delta rule forgets nothing of what is orthogonal to the key; with keys of norm 1 it is
    stable for beta in [0, 2]. Nothing is normalized here: ``F.normalize(key, dim=-1)`` does it.

    Args:
        query: ``(B, H, T, d_k)``, as of ``F.scaled_dot_product_attention``; float32, float64,
            bfloat16 or float16, of any strides.
        key: ``(B, H, T, d_k)``, as query.
        value: ``(B, H, T, d_v)``, as query.
        beta: the rate of each step, a number, or a floating point tensor that broadcasts to
            ``(B, H, T)``. Default: 1.
        decay: what is kept of the weight in each step, before it is corrected, a number or a tensor
            as beta, of (0, 1] as a rule: ``g.exp()`` of the g of flash-linear-attention. Default:
            1. The gradient of log decay is as exact as others; that of decay is divided by decay,
            and a decay of 0 has none (NaN or inf).
        initial_state: ``(B, H, d_k, d_v)``, floating point. Default: 0.
        scale: of the output. Default: ``d_k ** -0.5``.
        rule: "delta", "hebb" or "oja".
        backend: ``"auto"``, ``"cpp"``, ``"triton"`` or ``"reference"``; default as chosen by
            :func:`synops.backend`.

    Returns:
        :class:`FastWeights`, with gradients to query, key, value, beta, decay and initial_state,
        once. Sums, weights and errors are float32 (float64 for float64).

    Raises:
        TypeError: not tensors or numbers, or of a dtype that is not taken.
        ValueError: a shape, device, number or name is wrong. (The values of tensors are not looked
            at.)
        RuntimeError: ``backend`` cannot run here.

    Source: B. Widrow and M. Hoff, Adaptive switching circuits, 1960; I. Schlag, K. Irie and J.
    Schmidhuber, Linear transformers are secretly fast weight programmers, arXiv:2102.11174; with a
    decay S. Yang et al., Gated delta networks, arXiv:2412.06464; "oja" K. Irie et al., Neural
    differential equations for learning to program neural nets, arXiv:2206.01649, eq. 24.
    """
    return fast_weights(
        "delta_rule", query, key, value, beta, decay, initial_state, scale, rule, backend
    )


def fast_weights(
    op: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    beta: Tensor | float | None,
    decay: Tensor | float | None,
    initial_state: Tensor | None,
    scale: float | None,
    rule: str,
    backend: str | None,
) -> FastWeights:
    """delta_rule, with errors in the name of ``op``."""
    check_float(op, "query", query)
    if query.dim() != 4:
        fail(ValueError, op, "query", "have shape (B, H, T, d_k)", tuple(query.shape))
    check_like(op, "key", key, query, "query")
    check_shape(op, "key", key, "(B, H, T, d_k)", query.shape)
    check_like(op, "value", value, query, "query")
    if value.dim() != 4 or value.shape[:3] != query.shape[:3]:
        batch, heads, steps, _ = query.shape
        named = f"have shape (B, H, T, d_v) = ({batch}, {heads}, {steps}, d_v)"
        fail(ValueError, op, "value", named, tuple(value.shape))
    if not isinstance(rule, str):
        fail(TypeError, op, "rule", f"be one of {', '.join(RULES)}", type(rule).__name__)
    if rule not in RULES:
        fail(ValueError, op, "rule", f"be one of {', '.join(RULES)}", repr(rule))
    if scale is None:
        scale = max(1, query.shape[3]) ** -0.5
    _check_number(op, "scale", scale)
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    state = initial_state
    if state is not None:
        check_float(op, "initial_state", state)
        check_device(op, "initial_state", state, query, "query")
        shape = (*query.shape[:2], query.shape[3], value.shape[3])
        check_shape(op, "initial_state", state, "(B, H, d_k, d_v)", shape)
        state = state.to(dtype)
    b = _per_step(op, "beta", beta, query, dtype)
    a = _per_step(op, "decay", decay, query, dtype)
    q, k, v = query.to(dtype), key.to(dtype), value.to(dtype)

    tensors = [t for t in (q, k, v, b, a, state) if t is not None]
    save = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    save = save or traced(query) or any(map(traced, tensors))
    batch, heads, steps, size = query.shape
    # A multiply-add takes 0.02 ns; pairs of steps, as the kernel takes them, are not parted.
    cost = 0.06 * batch * heads * size * value.shape[3] + batch * heads
    pieces = list(chunks((steps + 1) // 2, 2 * cost))
    outputs = []
    for begin, end in pieces:
        parts = [q, k, v, b, a]
        if len(pieces) > 1:
            parts = [None if t is None else t[:, :, 2 * begin : 2 * end] for t in parts]
        output, state, _ = _op(*parts, state, float(scale), RULES[rule], save, backend=backend)
        outputs.append(output)
    whole = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 2)
    assert state is not None  # there is at least one piece
    return FastWeights(whole.to(query.dtype), state)


def _check_number(op: str, argument: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        fail(TypeError, op, argument, "be a number", type(value).__name__)
    if not math.isfinite(value):
        fail(ValueError, op, argument, "be finite", value)


def _per_step(
    op: str, argument: str, value: Any, query: Tensor, dtype: torch.dtype
) -> Tensor | None:
    """(B, H, T), perhaps expanded; None for 1."""
    if value is None:
        return None
    shape = query.shape[:3]
    if not isinstance(value, Tensor):
        _check_number(op, argument, value)
        return None if value == 1 else query.new_full((), value, dtype=dtype).expand(shape)
    check_float(op, argument, value)
    check_device(op, argument, value, query, "query")
    fits = value.dim() <= 3 and all(
        size in (1, whole)
        for size, whole in zip(reversed(value.shape), reversed(shape), strict=False)
    )
    if not fits:
        rule = f"broadcast to (B, H, T) = {tuple(shape)}"
        fail(ValueError, op, argument, rule, tuple(value.shape))
    return value.to(dtype).expand(shape)
