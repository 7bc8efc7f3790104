"""token_stats: log-probability, entropy and more of rows of logits, in one read of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._check import check_device, check_float, dtype_name, fail
from .._library import Op, refused_gradient, traced
from ._stats import BIT, NAMES, Stats, asked_for, check_labels, check_temperature

_KNOWN = NAMES[:7]  # all but "received", which is of attention
_IN_PLACE = 1 << 16  # beside the bits of the statistics: the gradient is written over the logits
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def _fake(logits: Tensor, labels: Tensor | None, *args: Any) -> tuple[Tensor, ...]:
    stats = args[-1]
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    asked = [bool(stats & BIT[name]) for name in _KNOWN] + [True]
    asked[0] = asked[0] and labels is not None
    asked[3] = asked[4] = True
    return tuple(logits.new_empty(logits.shape[:2] if a else (0, 0), dtype=dtype) for a in asked)


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    logits, labels, *ctx.options = inputs
    _, entropy, varentropy, _, max_prob, collision, plogp2, max_logit = output
    ctx.save_for_backward(logits, labels, max_logit, max_prob, entropy, varentropy, collision)
    ctx.mark_non_differentiable(max_prob, plogp2, max_logit)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
    logits, labels, max_logit, max_prob, *saved = ctx.saved_tensors
    temperature, ignore_index, stats = ctx.options
    asked = dict(zip(_KNOWN, grads, strict=False))
    wanted = ("logprob", "entropy", "varentropy", "lse", "collision")
    given = [asked[name] if name == "lse" or stats & BIT[name] else None for name in wanted]
    if labels is None:
        given[0] = None
    rows = [t if t.numel() or not logits.numel() else None for t in saved]
    args = (labels, temperature, ignore_index, max_logit, max_prob, *rows, *given)
    # Under create_graph the gradient has to have a graph, which refuses a second one.
    in_place = stats & _IN_PLACE and not torch.is_grad_enabled() and not traced(logits)
    if in_place and logits.stride(-1) == 1:
        # Who else saved the logits, and this node a second time, gets autograd's own error.
        torch.autograd.graph.increment_version(logits)
        _op_backward_(logits, *args, backend=ctx.backend)
        return logits, None, None, None, None
    return _op_backward(logits, *args, backend=ctx.backend), None, None, None, None


_op_backward = Op(
    "token_stats_backward",
    fake=lambda logits, *args: logits.new_empty(logits.shape),
    **refused_gradient("token_stats"),
)
_op_backward_ = Op("token_stats_backward_", fake=lambda logits, *args: None)
_op = Op("token_stats", fake=_fake, setup_context=_setup, backward=_backward)


def token_stats(
    logits: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: float = 1.0,
    ignore_index: int = -100,
    stats: Sequence[str] | str | None = None,
    inplace_backward: bool = False,
    backend: str | None = None,
) -> Stats:
    r"""Statistics of ``softmax(logits / temperature)``, row by row, in one read of the logits.

    .. math:: H = -\sum_j p_j \log p_j, \qquad \log p_y = z_y / T - \mathrm{lse}

    Same numbers as

        logp = F.log_softmax(logits.float() / temperature, -1)
        logprob = logp.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        entropy = -(logp.exp() * logp).sum(-1)

    without anything of the size of the logits but their gradient: a few numbers a row are saved.
    Moments are centred at the largest logit, so the entropy is right at any offset and never
    negative; -inf logits (a mask, top-k) count nothing, where the lines above give NaN.

    Args:
        logits: ``(..., V)``, float32, float64, bfloat16 or float16. Rows may lie anywhere, as in
            ``logits[:, :-1]``, but should be contiguous themselves.
        labels: ``(...)``, integers in ``[0, V)`` or ``ignore_index``. Not differentiable.
        temperature: positive.
        ignore_index: rows with this label have logprob 0, and no gradient through it.
        stats: of logprob, entropy, varentropy, lse, max_prob, collision, plogp2 (see
            :class:`Stats`). Default: logprob and entropy with labels, entropy without.
        inplace_backward: write the gradient over the logits, which nobody reads any more: a buffer
            of their size less. Who reads them after all gets autograd's error. Not for a leaf.
            Without effect under create_graph and where it is compiled or traced.
        backend: ``"auto"``, ``"cpp"``, ``"triton"`` or ``"reference"``; default as chosen by
            :func:`synops.backend`.

    Returns:
        :class:`Stats`, each ``(...)`` in float32 (float64 for float64) and in nats; None what was
        not asked for. Gradients flow through logprob, entropy, varentropy, lse and collision, once.
        A row of -inf alone has lse and logprob -inf, everything else 0, and gradient 0; a label
        whose logit is -inf has logprob -inf and sends no gradient.

    Raises:
        TypeError: not tensors, or of a dtype that is not taken.
        ValueError: a shape, device, temperature or name of a statistic is wrong; logprob without
            labels.
        IndexError: a label is out of range (on the CPU; elsewhere its logprob is NaN).
        RuntimeError: ``backend`` cannot run here.

    Source: streaming softmax of M. Milakov and N. Gimelshein, arXiv:1805.02867, with the moments of
    log p carried along; what TRL's and verl's ``entropy_from_logits`` compute.
    """
    op = "token_stats"
    if inplace_backward and isinstance(logits, Tensor) and logits.requires_grad and logits.is_leaf:
        fail(ValueError, op, "inplace_backward", "be False for logits that are a leaf", True)
    mask = _check_args(op, logits, labels, temperature, stats)
    shape = logits.shape[:-1]
    rows = _three_dimensional(logits)
    if labels is not None:
        labels = labels.to(torch.int64).reshape(rows.shape[:2])
        check_labels(op, labels, logits.shape[-1], ignore_index)
    # The variance's gradient is centred at the entropy.
    known = mask | BIT["entropy"] if mask & BIT["varentropy"] else mask
    if inplace_backward:
        known |= _IN_PLACE
    found = _op(rows, labels, float(temperature), ignore_index, known, backend=backend)
    return Stats(
        *(found[i].reshape(shape) if mask & BIT[name] else None for i, name in enumerate(_KNOWN))
    )


def _three_dimensional(logits: Tensor) -> Tensor:
    """(B, T, V), a view wherever there is one of that shape."""
    if logits.dim() > 3:
        return logits.flatten(0, -3)
    while logits.dim() < 3:
        logits = logits.unsqueeze(0)
    return logits


def _check_args(
    op: str,
    logits: Tensor,
    labels: Tensor | None,
    temperature: float,
    stats: Sequence[str] | str | None,
) -> int:
    check_float(op, "logits", logits)
    if logits.dim() == 0:
        fail(ValueError, op, "logits", "have shape (..., V)", tuple(logits.shape))
    check_temperature(op, temperature)
    if labels is not None:
        if not isinstance(labels, Tensor) or labels.dtype not in _INTEGERS:
            got = dtype_name(labels.dtype) if isinstance(labels, Tensor) else type(labels).__name__
            fail(TypeError, op, "labels", "be a tensor of integers", got)
        if labels.shape != logits.shape[:-1]:
            rule = f"have shape {tuple(logits.shape[:-1])}, that of logits without the last"
            fail(ValueError, op, "labels", rule, tuple(labels.shape))
        check_device(op, "labels", labels, logits, "logits")
    return asked_for(op, labels, stats, _KNOWN)
