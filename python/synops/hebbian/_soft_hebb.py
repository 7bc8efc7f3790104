"""soft_hebb and soft_hebb_: units compete for an input, and learn it by how much they won."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._check import fail
from .._library import Op, refused_gradient, traced
from ._in_place import check_written
from ._plasticity import (
    activity_of,
    check_number,
    check_weight,
    local_of,
    remember,
    settle,
)

VARIANTS = {"soft": 0, "signed": 1, "hard": 2}


class SoftHebb(NamedTuple):
    """What :func:`soft_hebb` returns that has computed the pre-activations itself (``u=None``).

    Attributes:
        weight: ``(out, in)``, the new one; of :func:`soft_hebb_` the one that was given.
        u: ``([B,] out)``, weight @ pre of the weight that came in, float32 (float64 for a float64
            weight).
    """

    weight: Tensor
    u: Tensor


def _fake(weight: Tensor, pre: Tensor, u: Tensor | None, *rest: Any) -> tuple[Tensor, ...]:
    made = pre.new_empty(0) if u is not None else pre.new_empty(weight.shape[0], pre.shape[0]).t()
    new = weight.new_empty(weight.shape)
    return new, made, pre.new_empty((), dtype=torch.int64)


_op = Op("soft_hebb", fake=_fake, **refused_gradient("soft_hebb", "a gradient"), leading=3)
_op_ = Op("soft_hebb_", fake=lambda *args: _fake(*args)[1:])


def soft_hebb(
    weight: Tensor,
    pre: Tensor,
    u: Tensor | None = None,
    *,
    lr: float | Tensor,
    temperature: float = 1.0,
    variant: str = "signed",
    power: float | None = 0.5,
    normalize: str | None = None,
    decay: float = 0.0,
    modulator: float | Tensor | None = None,
    gain_pre: Tensor | None = None,
    gain_post: Tensor | None = None,
    clip: tuple[float, float] | None = None,
    sign: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "mean",
    backend: str | None = None,
) -> Any:
    r"""A step of SoftHebb: Hebbian learning in a soft winner-take-all layer.

    .. math::

        u = W x, \quad y = \mathrm{softmax}(u / T), \quad
        \Delta w_{ij} = \eta_i \langle y_i (x_j - u_i w_{ij}) \rangle, \quad
        \eta_i = \eta\, (|\,\|w_i\| - 1| + 10^{-10})^p

    Same as

        u = pre @ weight.t()
        y = torch.softmax(u / temperature, 1)
        winner = torch.zeros_like(y).scatter_(1, u.argmax(1, keepdim=True), 1)
        y = y * (2 * winner - 1)                       # variant="signed"
        delta = (y.t() @ pre - (y * u).sum(0)[:, None] * weight) / len(pre)
        rate = lr * ((weight.norm(dim=1) - 1).abs() + 1e-10) ** power
        weight = weight + rate[:, None] * delta

    One sample reads the weight once for u and the norms, and once more to change it; torch's
    operators pass over it six times or more. A batch is two products, whose results are not written
    anywhere but into u and the weight.

    Args:
        weight: ``(out, in)``, a row for each unit, as in ``nn.Linear``. float32, float64, bfloat16
            or float16; arithmetic is float32 (float64 for float64).
        pre: x, ``(in,)`` or ``(B, in)``: of a floating point type, or spikes as bool or uint8.
        u: ``([B,] out)``, pre-activations that are known already (a forward made them); they are
            not computed then. Default: ``pre @ weight.t()``.
        lr: the learning rate :math:`\eta`, a number or a tensor ``()`` or ``(out,)``.
        temperature: T, positive (the official code's ``t_invert`` is 1 / T).
        variant: y is "soft", the softmax; "signed", negated but for the winner, so that losers turn
            away from the input; "hard", 1 for the winner and 0 for the others. Of equal u the first
            unit wins.
        power: p of the adaptive rate, by which rows of norm 1 rest. None: the rate is ``lr``.
        normalize: "amax" divides the change, before the rate, by its largest magnitude over all
            weights (+ 1e-30), as the official code does. The largest must be known before the first
            weight changes: one pass more. None: not.
        decay: in [0, 1], :math:`w \leftarrow (1 - \text{decay})\, w + \Delta w`.
        modulator: a number or ``()`` scales lr; ``(B,)`` scales y, sample by sample.
        gain_pre: ``(in,)`` scales x where it is learned, not in u.
        gain_post: ``(out,)`` scales y.
        clip: (lower, upper) of the new weights.
        sign: ``(in,)``, -1, 0 or 1: the sign that weights of an input keep (Dale's law); 0: any.
        mask: ``(out, in)``, bool: weights where it is False count as 0 and stay as they are.
        reduction: of the change over samples, "mean" or "sum" (of no effect with "amax").
        backend: ``"auto"``, ``"cpp"``, ``"triton"`` or ``"reference"``; default as chosen by
            :func:`synops.backend`.

    Returns:
        :class:`SoftHebb`; the new weight alone where ``u`` was given. A gradient is refused
        (NotImplementedError in the backward), but for ``backend="reference"``.

    Raises:
        TypeError: not tensors or numbers, or of a dtype that is not taken.
        ValueError: a shape, device, number or name is wrong; ``pre``, ``u`` or a factor is not
            finite, or a weight breaks ``sign`` (then nothing has changed).
        OverflowError: a new weight is inf or NaN: the rate is too high.
        RuntimeError: ``backend`` cannot run here.

    Source: T. Moraitis et al., SoftHebb: Bayesian inference in unsupervised Hebbian soft
    winner-take-all networks, arXiv:2107.05747; A. Journé et al., Hebbian deep learning without
    feedback, arXiv:2209.11883, whose code has "signed", p = .5 and "amax".
    """
    op = "soft_hebb"
    args, one = _checked(
        op, weight, pre, u, lr, temperature, variant, power, normalize, decay, modulator, gain_pre,
        gain_post, clip, sign, mask, reduction,
    )  # fmt: skip
    new, made, report = _op(weight, *args, backend=backend)
    settle(op, report, post="u")
    remember(new, sign)
    return new if u is not None else SoftHebb(new, made[0] if one else made)


def soft_hebb_(
    weight: Tensor,
    pre: Tensor,
    u: Tensor | None = None,
    *,
    lr: float | Tensor,
    temperature: float = 1.0,
    variant: str = "signed",
    power: float | None = 0.5,
    normalize: str | None = None,
    decay: float = 0.0,
    modulator: float | Tensor | None = None,
    gain_pre: Tensor | None = None,
    gain_post: Tensor | None = None,
    clip: tuple[float, float] | None = None,
    sign: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "mean",
    backend: str | None = None,
) -> Any:
    """:func:`soft_hebb` in place: ``weight`` itself changes, and is what is returned.

    Raises, beside what that raises:
        ValueError: ``weight`` requires a gradient (outside of ``torch.no_grad()``), overlaps
            itself, or shares memory with another argument. Then, as always but for an
            OverflowError, it is as it was.
    """
    op = "soft_hebb_"
    args, one = _checked(
        op, weight, pre, u, lr, temperature, variant, power, normalize, decay, modulator, gain_pre,
        gain_post, clip, sign, mask, reduction,
    )  # fmt: skip
    check_written(op, {"weight": weight}, [t for t in args if isinstance(t, Tensor)])
    with torch.no_grad():
        held = weight.detach().contiguous()  # the weight itself, as a rule
        made, report = _op_(held, *args, backend=backend)
        if not weight.is_contiguous():
            weight.copy_(held)
        elif not traced(weight):
            torch.autograd.graph.increment_version(weight)
    settle(op, report, post="u")
    remember(weight, sign)
    return weight if u is not None else SoftHebb(weight, made[0] if one else made)


def _checked(
    op: str,
    weight: Any,
    pre: Any,
    u: Any,
    lr: Any,
    temperature: Any,
    variant: Any,
    power: Any,
    normalize: Any,
    decay: Any,
    modulator: Any,
    gain_pre: Any,
    gain_post: Any,
    clip: Any,
    sign: Any,
    mask: Any,
    reduction: Any,
) -> tuple[tuple[Any, ...], bool]:
    """What the op takes after the weight; whether pre is one sample, (in,)."""
    out, inputs = shape = check_weight(op, weight, None)
    x = activity_of(op, "pre", pre, inputs, "in", weight)
    if u is not None:
        u = activity_of(op, "u", u, out, "out", weight)
        if u.shape[0] != x.shape[0]:
            rule = f"have as many samples as pre ({x.shape[0]})"
            fail(ValueError, op, "u", rule, u.shape[0])
    temperature = check_number(op, "temperature", temperature)
    if not temperature > 0:
        fail(ValueError, op, "temperature", "be positive", temperature)
    if not isinstance(variant, str) or variant not in VARIANTS:
        fail(ValueError, op, "variant", f"be one of {', '.join(VARIANTS)}", repr(variant))
    if power is not None and not check_number(op, "power", power) >= 0:
        fail(ValueError, op, "power", "be None or at least 0", power)
    if normalize is not None and normalize != "amax":
        fail(ValueError, op, "normalize", 'be None or "amax"', repr(normalize))
    local = local_of(
        op, weight, shape, x.shape[0], lr=lr, decay=decay, modulator=modulator, gain_pre=gain_pre,
        gain_post=gain_post, clip=clip, sign=sign, mask=mask, reduction=reduction,
    )  # fmt: skip
    rate, by_sample = local.rate, local.modulator
    if by_sample is not None and by_sample.dim() == 0:  # one number for all samples
        rate, by_sample = by_sample if rate is None else rate * by_sample, None
    competition = (temperature, VARIANTS[variant], -1.0 if power is None else float(power))
    scaled = (local.decay, by_sample, local.gain_pre, local.gain_post)
    bounds = (local.lower, local.upper, local.sign, local.check_sign, local.mask)
    how = (normalize == "amax", local.lr, rate)
    return (x, u, *competition, *how, *scaled, *bounds, local.mean), pre.dim() == 1
