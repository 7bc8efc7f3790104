"""oja: Oja's rule, in place or not."""

from __future__ import annotations

from typing import Any, overload

from torch import Tensor

from ..sparse import Pattern
from ._local_op import Learned, LocalOp

_op = LocalOp("oja")


@overload
def oja(weight: Tensor, pre: Tensor, post: Tensor, **options: Any) -> Tensor: ...
@overload
def oja(weight: Tensor, pre: Tensor, post: None = None, **options: Any) -> Learned: ...
def oja(
    weight: Tensor,
    pre: Tensor,
    post: Tensor | None = None,
    *,
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
) -> Tensor | Learned:
    r"""Oja's rule: Hebb's, with a decay that keeps the weights of a unit at length 1.

    .. math:: W \leftarrow (1 - d)\, W + \eta\, \langle m\, y\, (x - y\, W)^T \rangle

    where the mean is over samples, d is ``decay`` and m the modulator. Same values as

        s = (modulator[:, None] * post**2).mean(0)
        weight = (1 - decay - lr * s)[:, None] * weight
        weight += lr * (modulator[:, None] * post).T @ pre / len(pre)

    Each unit has its own y W (not the sum over units before it, which is Sanger's rule).

    Args:
        weight: ``(out, in)``, or ``(nnz,)`` with a pattern; float32, float64, bfloat16 or
            float16. Arithmetic is float32 (float64 for float64).
        pre: ``([B,] in)``, any float type, bool or uint8.
        post: ``([B,] out)``, likewise. None: ``weight @ pre`` is computed in the same pass, which
            at a batch of 1 takes no longer than that product alone.
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
        The new weight, in the type of ``weight``; :class:`Learned` if ``post`` is None.

    Raises:
        TypeError: not tensors or numbers, or of a dtype that is not taken.
        ValueError: a shape, device or number is wrong; ``pre``, ``post`` or a factor is not finite;
            the weight is against ``sign`` as it comes. Nothing has been changed.
        OverflowError: a weight is infinite or NaN after the update.
        RuntimeError: ``backend`` cannot run here.

    On a GPU, and in compiled graphs, what is wrong with values is an asynchronous assertion. A
    gradient is refused, but for ``backend="reference"``.

    Source: E. Oja, A simplified neuron model as a principal component analyzer, Journal of
    Mathematical Biology 15, 1982, equation 3.
    """
    new, y = _op(
        weight,
        (),
        pre,
        post,
        (),
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
    return new if post is not None else Learned(new, y)


@overload
def oja_(weight: Tensor, pre: Tensor, post: Tensor, **options: Any) -> Tensor: ...
@overload
def oja_(weight: Tensor, pre: Tensor, post: None = None, **options: Any) -> Learned: ...
def oja_(
    weight: Tensor,
    pre: Tensor,
    post: Tensor | None = None,
    *,
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
) -> Tensor | Learned:
    """:func:`oja` in place.

    In place: ``weight`` is changed and returned; with ``post=None``, :class:`Learned`. What the
    call reads is taken as a constant: gradients go through neither ``pre`` nor ``post``. ValueError
    for a weight that requires grad while grad mode is on, that overlaps itself or shares memory
    with an argument. Everything else is as in :func:`oja`.
    """
    _, y = _op(
        weight,
        (),
        pre,
        post,
        (),
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
    return weight if post is not None else Learned(weight, y)
