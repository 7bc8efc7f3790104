"""bcm: the rule of Bienenstock, Cooper and Munro with a sliding threshold, in place or not."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from .._check import check_device, check_shape, check_tensor, dtype_name, fail
from ..sparse import Pattern
from ._local_op import LocalOp
from ._plasticity import arithmetic_dtype, check_number, check_weight

_op = LocalOp("bcm", states=1)


class BCM(NamedTuple):
    """What :func:`bcm` returns.

    Attributes:
        weight: the new weight; the one that came in, if in place.
        theta: ``(out,)``, the new threshold, likewise.
        post: ``([B,] out)``, as given, or weight @ pre of the weight that came in.
    """

    weight: Tensor
    theta: Tensor
    post: Tensor


def bcm(
    weight: Tensor,
    theta: Tensor,
    pre: Tensor,
    post: Tensor | None = None,
    *,
    tau: float,
    lr: float | Tensor,
    decay: float = 0.0,
    modulator: float | Tensor | None = None,
    gain_pre: Tensor | None = None,
    gain_post: Tensor | None = None,
    clip: tuple[float | None, float | None] | None = None,
    sign: Tensor | None = None,
    mask: Tensor | None = None,
    pattern: Pattern | None = None,
    reduction: str = "mean",
    backend: str | None = None,
) -> BCM:
    r"""BCM: a unit's inputs grow where it is more active than its threshold, which follows its
    activity, and shrink where it is less.

    .. math:: W \leftarrow (1 - d)\, W + \eta\, \langle m\, y\, (y - \theta)\, x^T \rangle, \quad
        \theta \leftarrow (1 - 1/\tau)\, \theta + \langle y^2 \rangle / \tau

    The threshold in the update is the one that came in; the mean of y^2 is over samples, whatever
    ``reduction`` and ``modulator`` are. Same values as

        weight = (1 - decay) * weight + lr * (post * (post - theta)).T @ pre / len(pre)
        theta = (1 - 1 / tau) * theta + (post**2).mean(0) / tau

    Args:
        weight: ``(out, in)``, or ``(nnz,)`` with a pattern; float32, float64, bfloat16 or
            float16. Arithmetic is float32 (float64 for float64).
        theta: ``(out,)``, the threshold, float32 (float64 for a float64 weight).
        pre: ``([B,] in)``, any float type, bool or uint8.
        post: ``([B,] out)``, likewise. None: ``weight @ pre`` is computed in the same pass, which
            at a batch of 1 takes no longer than that product alone.
        tau: time constant of the threshold in calls, at least 1.
        lr: learning rate, a number or a tensor ``()`` or ``(out,)``, one for each unit.
        decay: part of the weight that is lost in a call, in [0, 1].
        modulator: a factor of each sample (a reward, say): a number or a tensor ``()`` or ``(B,)``.
        gain_pre: ``(in,)``, factors of ``pre``: the rule sees ``pre * gain_pre``.
        gain_post: ``(out,)``, of ``post``. With precisions as gains, the precision-weighted form.
        clip: ``(lower, upper)``, None for none: the new weight is clamped to it, last.
        sign: ``(in,)`` of -1, 0 and 1: Dale's principle. Weights from a unit with 1 stay at least
            0, with -1 at most 0; 0 is free.
        mask: bool ``(out, in)``: entries where it is False are neither read nor written.
        pattern: :class:`~synops.sparse.Pattern` of shape ``(out, in)``, whose values ``weight``
            then is: existing synapses only.
        reduction: over the samples, "mean" or "sum". No samples at all: decay only.
        backend: ``"auto"``, ``"cpp"``, ``"triton"`` or ``"reference"``; default as chosen by
            :func:`synops.backend`.

    Returns:
        :class:`BCM`.

    Raises:
        TypeError: not tensors or numbers, or of a dtype that is not taken.
        ValueError: a shape, device or number is wrong; ``pre``, ``post`` or a factor is not finite;
            the weight is against ``sign`` as it comes. Nothing has been changed.
        OverflowError: a weight is infinite or NaN after the update.
        RuntimeError: ``backend`` cannot run here.

    On a GPU, and in compiled graphs, what is wrong with values is an asynchronous assertion. A
    gradient is refused, but for ``backend="reference"``.

    Source: E. Bienenstock, L. Cooper and P. Munro, Theory for the development of neuron
    selectivity, Journal of Neuroscience 2, 1982; in this form, with y (y - theta) and theta the
    running mean of y^2, N. Intrator and L. Cooper, Objective function formulation of the BCM theory
    of visual cortical plasticity, Neural Networks 5, 1992.
    """
    rate = _check(weight, theta, tau, pattern, "bcm")
    new, slid, y = _op(
        weight,
        (theta,),
        pre,
        post,
        (rate,),
        in_place=False,
        lr=lr,
        decay=decay,
        modulator=modulator,
        gain_pre=gain_pre,
        gain_post=gain_post,
        clip=clip,
        sign=sign,
        mask=mask,
        pattern=pattern,
        reduction=reduction,
        backend=backend,
    )
    return BCM(new, slid, y)


def bcm_(
    weight: Tensor,
    theta: Tensor,
    pre: Tensor,
    post: Tensor | None = None,
    *,
    tau: float,
    lr: float | Tensor,
    decay: float = 0.0,
    modulator: float | Tensor | None = None,
    gain_pre: Tensor | None = None,
    gain_post: Tensor | None = None,
    clip: tuple[float | None, float | None] | None = None,
    sign: Tensor | None = None,
    mask: Tensor | None = None,
    pattern: Pattern | None = None,
    reduction: str = "mean",
    backend: str | None = None,
) -> BCM:
    """:func:`bcm` in place: ``weight`` and ``theta`` are changed.

    What the call reads is taken as a constant: gradients go through neither ``pre`` nor ``post``.
    ValueError for a weight or threshold that requires grad while grad mode is on, that overlaps
    itself or shares memory with an argument; ``theta`` has to be contiguous. Everything else is as
    in :func:`bcm`.
    """
    rate = _check(weight, theta, tau, pattern, "bcm_")
    if not theta.is_contiguous():
        fail(ValueError, "bcm_", "theta", "be contiguous", f"strides {theta.stride()}")
    *_, y = _op(
        weight,
        (theta,),
        pre,
        post,
        (rate,),
        in_place=True,
        lr=lr,
        decay=decay,
        modulator=modulator,
        gain_pre=gain_pre,
        gain_post=gain_post,
        clip=clip,
        sign=sign,
        mask=mask,
        pattern=pattern,
        reduction=reduction,
        backend=backend,
    )
    return BCM(weight, theta, y)


def _check(weight: Any, theta: Any, tau: Any, pattern: Any, op: str) -> float:
    """The rate of the threshold."""
    rows, _ = check_weight(op, weight, pattern)
    check_tensor(op, "theta", theta)
    dtype = arithmetic_dtype(weight)
    if theta.dtype != dtype:
        fail(TypeError, op, "theta", f"be {dtype_name(dtype)}", dtype_name(theta.dtype))
    check_device(op, "theta", theta, weight, "weight")
    check_shape(op, "theta", theta, "(out,)", (rows,))
    if not check_number(op, "tau", tau) >= 1:
        fail(ValueError, op, "tau", "be at least 1", tau)
    return 1 / tau
