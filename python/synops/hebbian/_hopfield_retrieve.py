"""hopfield_retrieve: associative memory, softmax retrieval that is repeated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._bilinear import autocast, autocast_enabled
from .._check import check_device, check_float, check_like, fail
from .._library import Op, refused_gradient, traced

_NAME = "hopfield_retrieve"
_STATS = ("entropy", "energy")
_functorch_active = torch._C._are_functorch_transforms_active


class HopfieldRetrieval(NamedTuple):
    """What :func:`hopfield_retrieve` returns.

    Attributes:
        output: ``(..., M, D)``, the state after the last step, or ``(..., M, Dv)`` with values.
        iterations: ``(..., M)``, int64, the steps that each query made.
        entropy: ``(steps, ..., M)``, of the retrieval distribution in each step, in nats; None if
            not asked for, as the next.
        energy: ``(steps, ..., M)``, of the state before each step.
    """

    output: Tensor
    iterations: Tensor
    entropy: Tensor | None
    energy: Tensor | None


def _accumulator(t: Tensor) -> torch.dtype:
    return torch.float64 if t.dtype == torch.float64 else torch.float32


def _fake(
    state: Tensor, patterns: Tensor, values: Tensor | None, beta: Tensor, steps: int, *rest: Any
) -> tuple[Tensor, ...]:
    _, entropy, save = rest
    dtype, rows = _accumulator(state), state.shape[:3]
    return (
        state.new_empty((*rows, state.shape[3] if values is None else values.shape[3])),
        state.new_empty((steps, *rows), dtype=dtype),
        state.new_empty((steps, *rows) if entropy else (0,), dtype=dtype),
        state.new_empty((steps, *rows), dtype=dtype),
        state.new_empty(rows, dtype=torch.int64),
        state.new_empty((steps - 1, *state.shape) if save else (0,)),
    )


def _fake_backward(*args: Any) -> tuple[Tensor, ...]:
    tensors, needs = args[4:8], args[-4:]
    state, *_, beta = tensors
    kinds = (state, state, state, beta)
    return tuple(
        kind.new_empty(t.shape if need else (0,))
        for kind, t, need in zip(kinds, tensors, needs, strict=True)
    )


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    state, patterns, values, beta, *_, ctx.saved = inputs
    out, lse, entropy, _, iterations, states = output
    ctx.valued = values is not None
    ctx.mark_non_differentiable(iterations, states)
    ctx.set_materialize_grads(False)
    given = (state, patterns, *((values,) if ctx.valued else ()), beta)
    ctx.save_for_backward(*given, out, lse, entropy, iterations, states)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    if all(grad is None for grad in grads[:4]):
        return (None,) * 8
    if not ctx.saved:
        raise RuntimeError(f"{_NAME}: the states were not saved for a backward (save=False)")
    state, patterns, *rest = ctx.saved_tensors
    values = rest.pop(0) if ctx.valued else None
    needs = ctx.needs_input_grad[:4]
    found = _op_backward(*grads[:4], state, patterns, values, *rest, *needs, backend=ctx.backend)
    return *(g if need else None for g, need in zip(found, needs, strict=True)), *(None,) * 4


_op = Op(_NAME, fake=_fake, setup_context=_setup, backward=_backward, leading=4)
_op_backward = Op(f"{_NAME}_backward", fake=_fake_backward, leading=8, **refused_gradient(_NAME))


def hopfield_retrieve(
    state: Tensor,
    patterns: Tensor,
    values: Tensor | None = None,
    *,
    beta: float | Tensor,
    steps: int = 1,
    tolerance: float | None = None,
    stats: Sequence[str] | str = ("entropy",),
    backend: str | None = None,
) -> HopfieldRetrieval:
    r"""Retrieves from a modern Hopfield network: a softmax over stored patterns, repeated.

    .. math:: \xi \leftarrow \operatorname{softmax}(\beta\, \xi X^T)\, X

    As the loop

        for _ in range(steps):
            p = (beta * state @ patterns.mT).softmax(-1)
            entropy.append(-(p * p.log()).sum(-1))
            state = p @ patterns  # in the last step p @ values, if there are any

    but p, queries times patterns, is never in memory, and a block of queries makes all its steps
    while patterns stream past it. What the backward needs is the state and a number for each query
    and step; it goes back through all steps.

    The energy that a step never raises is

    .. math:: E = -\tfrac 1 \beta \ln \textstyle\sum_i e^{\beta x_i \cdot \xi}
        + \tfrac 1 2 \xi \cdot \xi + \tfrac 1 \beta \ln N + \tfrac 1 2 \max_i |x_i|^2

    With ``tolerance`` a query stops by itself: after a step that moved it by no more (Euclidean
    norm) it stays where the step brought it, and its statistics keep their last value. (In
    hopfield-layers all queries of a head stop together, by the change of their softmaxes.)

    Args:
        state: ``(..., M, D)`` or ``(D,)``, the queries; float32, float64, bfloat16 or float16.
        patterns: ``(N, D)``, shared by all queries, or ``(..., N, D)`` with at most two leading
            dimensions, which are broadcast with those of ``state``; dtype of ``state``. N, D >= 1.
        values: ``(..., N, Dv)``, as ``patterns``: the last step retrieves from these instead.
        beta: inverse temperature, positive: a number, a tensor ``()``, or one for each head,
            ``(H,)``, for ``state`` ``(..., H, M, D)``.
        steps: of retrieval, at least 1, the one to ``values`` among them. One step with values is
            attention, with beta for its scale.
        tolerance: at least 0; None makes all steps. With ``values``, of the steps before the last.
        stats: any of ``"entropy"`` (nats; ln N of a uniform mixture, 0 of a single pattern) and
            ``"energy"``.
        backend: ``"auto"``, ``"cpp"``, ``"triton"`` or ``"reference"``; default as chosen by
            :func:`synops.backend`.

    Returns:
        :class:`HopfieldRetrieval`: the output in the dtype of ``state``, in which the state is
        rounded after each step, statistics in float32 (float64 for float64). Output, entropy and
        energy have gradients to state, patterns, values and beta; double backward and forward-mode
        AD are refused. A query with a NaN gives NaN, and touches no other.

    Raises:
        TypeError: not tensors or numbers, or dtypes that do not fit.
        ValueError: a shape, device, number or statistic that does not fit. (A beta on the CPU is
            looked at, on other devices not.)
        RuntimeError: ``backend`` cannot run here.

    Source: H. Ramsauer et al., Hopfield Networks is All You Need, arXiv:2008.02217, equations 2, 3.
    """
    if autocast_enabled():
        state, patterns, values = autocast(state, patterns, values)  # type: ignore[assignment]
    _check_args(state, patterns, values)
    asked = _check_stats(stats)
    _check_int("steps", steps)
    limit = _tolerance_of(tolerance)
    beta = _beta_of(beta, state)
    shape = state.shape
    rows: tuple[int, ...] = shape[:-1]
    if patterns.dim() == 2 and beta.shape[0] == 1 and (values is None or values.dim() == 2):
        # Queries of one memory are rows of one call: the more, the better they share its patterns.
        queries, memory = state.reshape(1, 1, -1, shape[-1]), patterns[None, None]
        stored = None if values is None else values[None, None]
    else:
        state = state[None] if state.dim() == 1 else state
        lead = _lead_of(state, patterns, values, beta)
        rows = rows if len(shape) == 1 else (*lead, shape[-2])
        heads = (math.prod(lead[:-1]), lead[-1] if lead else 1, *state.shape[-2:])
        queries = state.expand(*lead, *state.shape[-2:]).reshape(heads)
        memory, stored = _stored(patterns, values)

    save = _wants_gradient(queries, memory, stored, beta)
    output, lse, entropy, half_norm, iterations, _ = _op(
        queries, memory, stored, beta, steps, limit, "entropy" in asked, save, backend=backend
    )
    return HopfieldRetrieval(
        output.reshape(*rows, output.shape[-1]),
        iterations.reshape(rows),
        entropy.reshape(steps, *rows) if "entropy" in asked else None,
        _energy(lse, half_norm, memory, beta).reshape(steps, *rows) if "energy" in asked else None,
    )


def _stored(patterns: Tensor, values: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """With 4 dimensions, the first two of both alike."""
    memory = patterns[(None,) * (4 - patterns.dim())]
    if values is None:
        return memory, None
    values = values[(None,) * (4 - values.dim())]
    lead = torch.broadcast_shapes(memory.shape[:2], values.shape[:2])
    return memory.expand(*lead, *memory.shape[2:]), values.expand(*lead, *values.shape[2:])


def _energy(lse: Tensor, half_norm: Tensor, patterns: Tensor, beta: Tensor) -> Tensor:
    largest = torch.linalg.vector_norm(patterns, dim=-1, dtype=lse.dtype).amax(-1)
    rest = math.log(patterns.shape[2]) / beta + largest.square() / 2  # (B or 1, H or 1)
    return half_norm - lse / beta[:, None] + rest[..., None]


def _wants_gradient(*tensors: Tensor | None) -> bool:
    if not torch.is_grad_enabled():
        return False
    if not torch.compiler.is_compiling() and _functorch_active():
        return True  # a transform outside hides that it wants one
    return any(t is not None and t.requires_grad for t in tensors)


def _check_args(state: Tensor, patterns: Tensor, values: Tensor | None) -> None:
    check_float(_NAME, "state", state)
    check_like(_NAME, "patterns", patterns, state, "state")
    if state.dim() < 1:
        fail(ValueError, _NAME, "state", "have shape (..., M, D) or (D,)", tuple(state.shape))
    size, given = state.shape[-1], tuple(patterns.shape)
    if not 2 <= len(given) <= 4 or given[-1] != size or size < 1 or given[-2] < 1:
        rule = f"have shape (..., N, D) = (..., N, {size}), at most 4 dimensions, N and D above 0"
        fail(ValueError, _NAME, "patterns", rule, given)
    if values is None:
        return
    check_like(_NAME, "values", values, state, "state")
    got = tuple(values.shape)
    if not 2 <= len(got) <= 4 or got[-2] != given[-2] or got[-1] < 1:
        rule = f"have shape (..., N, Dv) = (..., {given[-2]}, Dv), at most 4 dimensions"
        fail(ValueError, _NAME, "values", rule, got)


def _check_stats(stats: Sequence[str] | str) -> tuple[str, ...]:
    asked = (stats,) if isinstance(stats, str) else tuple(stats)
    for name in asked:
        if name not in _STATS:
            fail(ValueError, _NAME, "stats", f"be of {', '.join(_STATS)}", repr(name))
    return asked


def _check_int(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)):
        fail(TypeError, _NAME, name, "be an int", type(value).__name__)
    if value < 1:
        fail(ValueError, _NAME, name, "be at least 1", value)


def _tolerance_of(tolerance: float | None) -> float:
    """-1 for none."""
    if tolerance is None:
        return -1.0
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)):
        fail(TypeError, _NAME, "tolerance", "be a number", type(tolerance).__name__)
    if not 0 <= tolerance < math.inf:
        fail(ValueError, _NAME, "tolerance", "be finite and at least 0", tolerance)
    return float(tolerance)


def _beta_of(beta: float | Tensor, state: Tensor) -> Tensor:
    """(H,) or (1,), in the type of sums."""
    dtype = _accumulator(state)
    if not isinstance(beta, Tensor):
        if isinstance(beta, bool) or not isinstance(beta, (int, float)):
            fail(TypeError, _NAME, "beta", "be a number or a tensor", type(beta).__name__)
        if not 0 < beta < math.inf:
            fail(ValueError, _NAME, "beta", "be finite and above 0", beta)
        return state.new_full((1,), float(beta), dtype=dtype)
    check_float(_NAME, "beta", beta)
    check_device(_NAME, "beta", beta, state, "state")
    heads = state.shape[-3] if state.dim() > 2 else 1
    if beta.dim() > 1 or beta.numel() not in (1, heads):
        rule = f"have shape () or (H,) = ({heads},), for state (..., H, M, D)"
        fail(ValueError, _NAME, "beta", rule, tuple(beta.shape))
    if beta.is_cpu and not traced(beta) and not bool(((beta > 0) & beta.isfinite()).all()):
        fail(ValueError, _NAME, "beta", "be finite and above 0", beta.tolist())
    return beta.to(dtype).reshape(-1)


def _lead_of(
    state: Tensor, patterns: Tensor, values: Tensor | None, beta: Tensor
) -> tuple[int, ...]:
    """Leading dimensions of the result."""
    given = [t.shape[:-2] for t in (state, patterns, values) if t is not None]
    try:
        lead = tuple(torch.broadcast_shapes(*given))
    except RuntimeError:
        lead = ()
        shapes = " and ".join(str(tuple(shape)) for shape in given[1:])
        rule = f"have leading dimensions that broadcast with those of memory, {shapes}"
        fail(ValueError, _NAME, "state", rule, tuple(state.shape))
    if len(lead) > 2 and max(map(len, given[1:])) > 0:
        rule = "have at most 4 dimensions where patterns or values have more than 2"
        fail(ValueError, _NAME, "state", rule, tuple(state.shape))
    if beta.shape[0] > 1 and lead[-1] != beta.shape[0]:
        rule = f"have shape () or (H,) = ({lead[-1]},), for state (..., H, M, D)"
        fail(ValueError, _NAME, "beta", rule, tuple(beta.shape))
    return lead
