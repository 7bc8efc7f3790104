"""linear_token_stats: a language-model head and the statistics of its tokens, without logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._bilinear import autocast, autocast_enabled
from .._check import (
    check_device,
    check_float,
    check_like,
    check_shape,
    check_tensor,
    dtype_name,
    fail,
)
from .._library import Op, refused_gradient
from ._stats import BIT, NAMES, Stats, asked_for, check_labels, check_temperature

_OP = "linear_token_stats"
KNOWN = NAMES[:7]  # all but "received", which is of attention
# Those with a gradient, in the order the backward takes them in.
_DIFFERENTIABLE = ("logprob", "entropy", "varentropy", "lse", "collision")
_AT = tuple(KNOWN.index(name) for name in _DIFFERENTIABLE)


def _fake(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor | None,
    bias: Tensor | None,
    temperature: float,
    ignore_index: int,
    stats: int,
) -> tuple[Tensor, ...]:
    dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    n = hidden.shape[0]
    sizes = [(n if stats >> i & 1 else 0,) for i in range(len(KNOWN))]
    return tuple(hidden.new_empty(size, dtype=dtype) for size in (*sizes, (6, n)))


def _setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    hidden, weight, labels, bias, ctx.temperature, _, ctx.stats = inputs
    ctx.save_for_backward(hidden, weight, labels, bias, output[-1])
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[4], output[6], output[7])


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    hidden, weight, labels, bias, saved = ctx.saved_tensors
    needs = [ctx.needs_input_grad[i] for i in (0, 1, 3)]
    # The gradient of a statistic that was not asked for is 0-size, where it is not None.
    asked = [grads[i] if ctx.stats >> i & 1 else None for i in _AT]
    if not any(needs) or all(g is None for g in asked):
        return (None,) * 7
    to_hidden, to_weight, to_bias = _backward_op(
        hidden, weight, labels, bias, saved, *asked, ctx.temperature, *needs, backend=ctx.backend
    )
    return (
        to_hidden if needs[0] else None,
        to_weight if needs[1] else None,
        None,
        to_bias if needs[2] else None,
        None,
        None,
        None,
    )


def _fake_backward(hidden: Tensor, weight: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    need_hidden, need_weight, need_bias = args[-3:]
    return (
        hidden.new_empty(hidden.shape if need_hidden else (0, 0)),
        hidden.new_empty(weight.shape if need_weight else (0, 0)),
        hidden.new_empty(weight.shape[:1] if need_bias else (0,)),
    )


_op = Op(_OP, fake=_fake, setup_context=_setup_context, backward=_backward, leading=4)
_backward_op = Op(f"{_OP}_backward", fake=_fake_backward, leading=10, **refused_gradient(_OP))


def linear_token_stats(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    temperature: float = 1.0,
    ignore_index: int = -100,
    stats: Sequence[str] | str | None = None,
    backend: str | None = None,
) -> Stats:
    r"""Log-probability, entropy and more of ``softmax((hidden @ weight.T + bias) / temperature)``.

    The head of a language model and the statistics of its tokens in one: the logits,
    tokens x vocabulary, are never in memory. The same as ::

        logp = F.log_softmax(F.linear(hidden, weight, bias).float() / temperature, -1)
        logprob = logp.gather(-1, labels[..., None])[..., 0]
        entropy = -(logp.exp() * logp).sum(-1)

    with sums centred at the largest logit, so that an entropy is never negative and does not
    suffer from large logits, and with logits that are not rounded to bfloat16.

    Args:
        hidden: ``(..., D)``, float32, float64, bfloat16 or float16.
        weight: ``(V, D)``, dtype of ``hidden``: as of ``nn.Linear``.
        labels: ``(...)``, int64, below V; needed for ``logprob`` alone.
        bias: ``(V,)``, dtype of ``hidden``, optional. An entry of -inf takes a token out.
        temperature: finite and above 0.
        ignore_index: a label whose log-probability is 0, with no gradient.
        stats: names out of ``logprob``, ``entropy``, ``varentropy``, ``lse``, ``max_prob``,
            ``collision``, ``plogp2`` (see :class:`Stats`). Default: logprob and entropy with
            labels, entropy without. All have gradients but ``max_prob`` and ``plogp2``.
        backend: ``"auto"``, ``"cpp"``, ``"triton"`` or ``"reference"``; default as chosen by
            :func:`synops.backend`.

    Returns:
        :class:`Stats` of shape ``(...)``, in nats, float32 (float64 for float64); None for what
        was not asked for. A label on a logit of -inf has log-probability -inf and no gradient. A
        row of nothing but -inf has lse -inf and zeros.

    Raises:
        TypeError: not tensors, or dtypes that differ.
        ValueError: a shape or device does not match, a statistic is not known, logprob without
            labels, a temperature that is not finite and above 0.
        IndexError: a label is out of range (CPU; not while tracing).
        RuntimeError: ``backend`` cannot run here.

    Speed: the time of the product alone, in a hundredth of the memory (CPU); of up to 16 tokens,
    as in a step of decoding, that of reading ``weight`` once and some. The backward makes the
    logits again, three products in place of two, and multiplies bfloat16 in float32, since
    gradients of logits that were rounded to it would be seen in the result: where the processor
    has AVX512_BF16, forward and backward take 1.7x of torch's time. The gradient of ``weight`` is
    summed in float32 and rounded once. Differentiable once; forward-mode AD is refused.

    Source: entropy regularisation and log-probabilities of reinforcement learning with verifiable
    rewards, as in G. Cui et al., "The Entropy Mechanism of Reinforcement Learning for Reasoning
    Language Models", arXiv:2505.22617; the fused head of verl and Liger (arXiv:2410.10989).
    """
    if autocast_enabled():
        hidden, weight, bias = autocast(hidden, weight, bias)  # type: ignore[assignment]
    mask = asked_for(_OP, labels, stats, KNOWN)
    _check_args(hidden, weight, labels, bias, temperature)
    if labels is not None:
        check_labels(_OP, labels, weight.shape[0], ignore_index)
    rows = hidden if hidden.dim() == 2 else hidden.reshape(-1, hidden.shape[-1])
    flat = labels if labels is None or labels.dim() == 1 else labels.reshape(-1)
    result = _op(
        rows, weight, flat, bias, float(temperature), int(ignore_index), mask, backend=backend
    )
    shape = hidden.shape[:-1]
    asked = (
        None if not mask & BIT[name] else t if len(shape) == 1 else t.view(shape)
        for name, t in zip(KNOWN, result, strict=False)
    )
    return Stats(*asked)


def _check_args(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor | None,
    bias: Tensor | None,
    temperature: float,
) -> None:
    check_float(_OP, "hidden", hidden)
    check_like(_OP, "weight", weight, hidden, "hidden")
    if weight.dim() != 2:
        fail(ValueError, _OP, "weight", "have 2 dimensions (V, D)", tuple(weight.shape))
    if not hidden.dim() or hidden.shape[-1] != weight.shape[1]:
        rule = f"have shape (..., D) = (..., {weight.shape[1]})"
        fail(ValueError, _OP, "hidden", rule, tuple(hidden.shape))
    if bias is not None:
        check_like(_OP, "bias", bias, hidden, "hidden")
        check_shape(_OP, "bias", bias, "(V,)", (weight.shape[0],))
    if labels is not None:
        check_tensor(_OP, "labels", labels)
        if labels.dtype != torch.int64:
            fail(TypeError, _OP, "labels", "be int64", dtype_name(labels.dtype))
        check_shape(_OP, "labels", labels, "(...)", tuple(hidden.shape[:-1]))
        check_device(_OP, "labels", labels, hidden, "hidden")
    check_temperature(_OP, temperature)
