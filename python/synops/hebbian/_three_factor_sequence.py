"""three_factor_sequence: all time steps of a three-factor rule in one call."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._check import check_device, check_float, fail
from .._chunks import chunks
from .._library import Op, refused_gradient, traced
from ..sparse import Pattern
from ._in_place import as_it_is, check_written
from ._plasticity import (
    Local,
    activity_of,
    arithmetic_dtype,
    check_weight,
    local_of,
    remember,
)
from ._three_factor import (
    ThreeFactor,
    check_eligibility,
    check_trace_decay,
    fake,
    fake_,
    settle_three_factor,
)

_NAME = "three_factor_sequence"
_op = Op(_NAME, fake=fake, **refused_gradient(_NAME, "a gradient"), leading=4)
_op_ = Op("three_factor_sequence_", fake=fake_)


def three_factor_sequence(
    weight: Tensor,
    eligibility: Tensor,
    pre: Tensor,
    post: Tensor,
    *,
    lr: float | Tensor,
    trace_decay: float,
    decay: float = 0.0,
    modulator: float | Tensor | None = None,
    gain_pre: Tensor | None = None,
    gain_post: Tensor | None = None,
    clip: tuple[float, float] | None = None,
    sign: Tensor | None = None,
    mask: Tensor | None = None,
    pattern: Pattern | None = None,
    reduction: str = "mean",
    backend: str | None = None,
) -> ThreeFactor:
    r"""All steps of a three-factor rule in one call: :func:`three_factor`, T times.

    Same weights and eligibilities as

        for t in range(T):
            weight, eligibility = three_factor(
                weight, eligibility, pre[t], post[t], modulator=modulator[t], ...
            )

    On the CPU to the last bit, for any number of threads. A synapse depends on its own row and
    column only, so it goes through all steps while it is in registers: both matrices are read and
    written once a call. :func:`three_factor_sequence_` does it in place.

    Args:
        weight, eligibility: as in :func:`three_factor`: ``(out, in)`` or ``(nnz,)``, and an
            eligibility for each sample, ``(B, out, in)``, where factors differ by sample.
        pre, post: ``(T, B, in)`` or ``(T, in)``, ``(T, B, out)`` or ``(T, out)``, the time first.
        modulator: the third factor. Of all steps: a number, ``()`` or ``(out,)``. With two
            dimensions or more the first are the steps: ``(T, 1)``, ``(T, out)``, or one for each
            sample, ``(T, B, 1)`` or ``(T, B, out)``. Default: 1. A step and row where it is 0
            leaves the weights alone, as there.
        lr, trace_decay, decay, gain_pre, gain_post, clip, sign, mask, pattern, reduction, backend:
            as in :func:`three_factor`, the same in all steps.

    Returns:
        :class:`ThreeFactor`, after the last step; what was given if there is none. A gradient is
        refused.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: a shape, device or number is wrong; a number of any step is not finite; a weight
            breaks ``sign``. Nothing has been written.
        OverflowError: a weight or an eligibility is not finite any more, after the last step (of
            about .2 s, after which a long run may be stopped by Ctrl-C).
        RuntimeError: ``backend`` cannot run here.

    Source: as :func:`three_factor`.
    """
    options = (lr, decay, gain_pre, gain_post, clip, sign, mask, pattern, reduction)
    given = _given(_NAME, weight, eligibility, pre, post, trace_decay, modulator, options)
    first, *rest = _pieces(_NAME, weight, given)
    w, e, report = _op(weight, eligibility, *given.piece(*first), backend=backend)
    settle_three_factor(_NAME, report)
    for part in rest:
        settle_three_factor(_NAME, _op_(w, e, *given.piece(*part), backend=backend))
    if given.pre.shape[0]:
        remember(w, sign)
    return ThreeFactor(w, e)


def three_factor_sequence_(
    weight: Tensor,
    eligibility: Tensor,
    pre: Tensor,
    post: Tensor,
    *,
    lr: float | Tensor,
    trace_decay: float,
    decay: float = 0.0,
    modulator: float | Tensor | None = None,
    gain_pre: Tensor | None = None,
    gain_post: Tensor | None = None,
    clip: tuple[float, float] | None = None,
    sign: Tensor | None = None,
    mask: Tensor | None = None,
    pattern: Pattern | None = None,
    reduction: str = "mean",
    backend: str | None = None,
) -> ThreeFactor:
    """:func:`three_factor_sequence` in place: writes ``weight`` and ``eligibility``, returns them.

    A long call may be stopped by Ctrl-C between steps; weight and eligibility are then those of the
    same step.

    Raises:
        ValueError: besides, if ``weight`` requires a gradient (outside of ``torch.no_grad()``), if
            what is written overlaps itself or another argument.
    """
    op = "three_factor_sequence_"
    options = (lr, decay, gain_pre, gain_post, clip, sign, mask, pattern, reduction)
    given = _given(op, weight, eligibility, pre, post, trace_decay, modulator, options)
    read = [t for t in (given.pre, given.post, *given.local) if isinstance(t, Tensor)]
    check_written(op, {"weight": weight, "eligibility": eligibility}, read)
    w = weight if as_it_is(weight) else weight.detach().contiguous()
    e = eligibility if eligibility.is_contiguous() else eligibility.detach().contiguous()
    try:
        for part in _pieces(op, weight, given):
            report = _op_(w, e, *given.piece(*part), backend=backend)
            settle_three_factor(op, report)
    finally:  # what was written stays written
        if w is not weight:
            weight.copy_(w)
        if e is not eligibility:
            eligibility.copy_(e)
        if not traced(weight):
            torch.autograd.graph.increment_version([weight, eligibility])
    if given.pre.shape[0]:
        remember(weight, sign)
    return ThreeFactor(weight, eligibility)


class _Given(NamedTuple):
    """The ops' arguments behind weight and eligibility, of all steps."""

    pre: Tensor
    post: Tensor
    trace_decay: float
    local: Local

    def piece(self, begin: int, end: int) -> tuple[Any, ...]:
        """Those of some steps; signs are checked before the first."""
        if (begin, end) == (0, self.pre.shape[0]):
            return (self.pre, self.post, self.trace_decay, *self.local)
        factor = self.local.modulator
        if factor is not None and factor.dim() > 1:
            factor = factor[begin:end]
        check_sign = self.local.check_sign and begin == 0
        local = self.local._replace(modulator=factor, check_sign=check_sign)
        return (self.pre[begin:end], self.post[begin:end], self.trace_decay, *local)

    def check_finite(self, op: str) -> None:
        """As the ops do, of all steps."""
        factor = torch.as_tensor(self.local.lr, dtype=self.pre.dtype)
        for by in (self.local.rate, self.local.modulator):
            factor = factor if by is None else factor.to(by.device) * by
        for name, t in (("pre", self.pre), ("post", self.post), ("lr or modulator", factor)):
            if not t.isfinite().all():
                fail(ValueError, op, name, "be finite", "inf or NaN")


def _pieces(op: str, weight: Tensor, given: _Given) -> list[tuple[int, int]]:
    """Of a long run, that Ctrl-C is to stop within a second."""
    steps, batch, cols = given.pre.shape
    if steps < 2 or traced(weight):
        return [(0, steps)]
    cost = 0.1 * batch * (weight.numel() + cols + given.post.shape[2])
    parts = list(chunks(steps, cost))
    if len(parts) > 1:
        given.check_finite(op)  # before the first is written
    return parts


def _given(
    op: str,
    weight: Tensor,
    eligibility: Tensor,
    pre: Tensor,
    post: Tensor,
    trace_decay: float,
    modulator: float | Tensor | None,
    options: tuple[Any, ...],
) -> _Given:
    """All that is given, checked."""
    lr, decay, gain_pre, gain_post, clip, sign, mask, pattern, reduction = options
    rows, cols = check_weight(op, weight, pattern)
    x = activity_of(op, "pre", pre, cols, "in", weight, steps=True)
    y = activity_of(op, "post", post, rows, "out", weight, steps=True)
    if y.shape[:2] != x.shape[:2]:
        rule = f"have as many steps and samples as pre {tuple(x.shape[:2])}"
        fail(ValueError, op, "post", rule, tuple(y.shape[:2]))
    steps, batch = x.shape[:2]
    per_sample = check_eligibility(op, eligibility, weight, batch)
    trace_decay = check_trace_decay(op, trace_decay)
    factor = None
    if isinstance(modulator, Tensor) and modulator.dim():
        factor = _modulator_of(op, modulator, (steps, batch, rows), per_sample, weight)
        modulator = None
    local = local_of(
        op,
        weight,
        (rows, cols),
        batch,
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
    )
    if factor is not None:
        local = local._replace(modulator=factor)
    return _Given(x, y, trace_decay, local)


def _modulator_of(
    op: str, modulator: Tensor, sizes: tuple[int, int, int], per_sample: bool, weight: Tensor
) -> Tensor:
    """(out,), (T, out), (T, 1), (T, B, out) or (T, B, 1) in the arithmetic type."""
    check_float(op, "modulator", modulator)
    check_device(op, "modulator", modulator, weight, "weight")
    steps, batch, rows = sizes
    shape = tuple(modulator.shape)
    leading = ((), (steps,), (steps, batch))[len(shape) - 1] if len(shape) <= 3 else None
    if shape[:-1] != leading or shape[-1] not in ((rows, 1) if leading else (rows,)):
        rule = (
            f"have shape () or (out,) = ({rows},) for all steps, (T, out) or (T, 1) with T = "
            f"{steps}, or (T, B, out) or (T, B, 1) with B = {batch}"
        )
        fail(ValueError, op, "modulator", rule, shape)
    if len(shape) == 3 and batch > 1 and not per_sample:
        rule = "have no samples where they share an eligibility (one for each: (B, out, in))"
        fail(ValueError, op, "modulator", rule, shape)
    return modulator.to(arithmetic_dtype(weight))
