"""three_factor: eligibility traces that a third factor turns into changes of the weight."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._check import check_device, check_float, check_shape, fail
from .._library import Op, refused_gradient, traced
from ..sparse import Pattern
from ._in_place import as_it_is, check_written
from ._plasticity import (
    activity_of,
    arithmetic_dtype,
    check_batch,
    check_number,
    check_weight,
    local_of,
    remember,
    settle,
)


class ThreeFactor(NamedTuple):
    """What :func:`three_factor` returns.

    Attributes:
        weight: the next weight, of the shape and dtype of the one before.
        eligibility: the next eligibility, likewise; float32 (float64 for a float64 weight).
    """

    weight: Tensor
    eligibility: Tensor


def fake(weight: Tensor, eligibility: Tensor, pre: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    report = weight.new_empty((), dtype=torch.int64)
    return weight.new_empty(weight.shape), eligibility.new_empty(eligibility.shape), report


def fake_(weight: Tensor, *rest: Any) -> Tensor:
    return weight.new_empty((), dtype=torch.int64)


_op = Op("three_factor", fake=fake, **refused_gradient("three_factor", "a gradient"), leading=4)
_op_ = Op("three_factor_", fake=fake_)


def three_factor(
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
    r"""One step of a three-factor rule: trace, gate, update and bounds in one pass.

    :func:`three_factor_sequence` takes all steps of a sequence in one call.

    .. math:: e_{ij} \leftarrow \lambda\, e_{ij} + \langle y_i x_j \rangle, \qquad
              w_{ij} \leftarrow \mathrm{clamp}\bigl((1 - d)\, w_{ij} + \eta\, M_i\, e_{ij}\bigr)

    What pre- and postsynaptic activity have in common is kept in an eligibility trace; the third
    factor M, a reward, an error or a learning signal, decides when and how it changes the weight.
    Of one sample it equals, in one read and one write of both matrices,

        eligibility = trace_decay * eligibility + torch.outer(post, pre) * mask
        weight = weight + lr * modulator.unsqueeze(1) * eligibility
        weight = weight.clamp(*clip)

    :func:`three_factor_` does it in place. Both are exact about zeros: a row whose ``lr`` times
    ``modulator`` is 0 (of every sample) decays and fills its eligibility, while its weights,
    without ``decay``, are neither read nor written (nor clamped).

    **Batches.** An eligibility of the shape of the weight is one for all samples and adds up their
    mean (or sum), so that one factor gates it, ``()`` or ``(out,)``. A factor for each sample needs
    an eligibility for each, ``(B, out, in)``: then the mean over samples is of :math:`M_{bi}
    e_{bij}`, as in e-prop.

    Args:
        weight: ``(out, in)``, or with ``pattern`` its values ``(nnz,)``. float32, bfloat16, float16
            or float64; arithmetic is float32 (float64 for float64).
        eligibility: of the shape of the weight, or with ``(B,)`` in front; float32 (float64 for a
            float64 weight). Begin with zeros.
        pre, post: ``(B, in)`` or ``(in,)``, ``(B, out)`` or ``(out,)``: activities, traces or
            pseudo-derivatives; any float type, bool or uint8.
        lr: the learning rate, a number or a tensor ``()`` or ``(out,)``.
        trace_decay: lambda, in [0, 1]: exp(-dt / tau).
        decay: d, of the weight, in [0, 1].
        modulator: the third factor: a number, ``()``, ``(out,)``, or one for each sample, ``(B,
            out)`` or ``(B, 1)``. Default: 1. 0 where learning is off.
        gain_pre, gain_post: ``(in,)``, ``(out,)``: factors of the activities.
        clip: ``(lower, upper)`` of the weight.
        sign: ``(in,)``: above 0, a presynaptic unit is excitatory, its weights are at least 0;
            below 0 inhibitory, at most 0.
        mask: bool ``(out, in)``: where False, weight and eligibility are left alone.
        pattern: the :class:`~synops.sparse.Pattern` of existing synapses.
        reduction: "mean" or "sum" over the samples.
        backend: ``"auto"``, ``"cpp"``, ``"triton"`` or ``"reference"``.

    Returns:
        :class:`ThreeFactor`. A gradient is refused.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: a shape, device or number is wrong or not finite; a weight breaks ``sign``.
            Nothing has been written.
        OverflowError: a weight or an eligibility is not finite any more.
        RuntimeError: ``backend`` cannot run here.

    Source: W. Gerstner et al., Eligibility traces and plasticity on behavioral time scales, Front.
    Neural Circuits 12:53, 2018. Reward-modulated STDP: E. Izhikevich, Cerebral Cortex 17, 2007
    (post x pre is then the STDP of a step). e-prop: G. Bellec et al., Nat. Commun. 11:3625, 2020,
    eq. 1 (M the learning signal, post the pseudo-derivative, pre the filtered spikes).
    Attention-gated, error-modulated readouts: what / when reservoirs, arXiv:2510.14382.
    """
    given = _given(
        "three_factor",
        weight,
        eligibility,
        pre,
        post,
        trace_decay,
        modulator,
        pattern,
        {
            "lr": lr,
            "decay": decay,
            "gain_pre": gain_pre,
            "gain_post": gain_post,
            "clip": clip,
            "sign": sign,
            "mask": mask,
            "reduction": reduction,
        },
    )
    w, e, report = _op(weight, eligibility, *given, backend=backend)
    settle_three_factor("three_factor", report)
    remember(w, sign)
    return ThreeFactor(w, e)


def three_factor_(
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
    """:func:`three_factor` in place: writes ``weight`` and ``eligibility``, and returns them.

    Raises:
        ValueError: besides, if ``weight`` requires a gradient (outside of ``torch.no_grad()``), if
            what is written overlaps itself or another argument.
    """
    op = "three_factor_"
    given = _given(
        op,
        weight,
        eligibility,
        pre,
        post,
        trace_decay,
        modulator,
        pattern,
        {
            "lr": lr,
            "decay": decay,
            "gain_pre": gain_pre,
            "gain_post": gain_post,
            "clip": clip,
            "sign": sign,
            "mask": mask,
            "reduction": reduction,
        },
    )
    read = [t for t in given if isinstance(t, Tensor)]
    check_written(op, {"weight": weight, "eligibility": eligibility}, read)
    w = weight if as_it_is(weight) else weight.detach().contiguous()
    e = eligibility if eligibility.is_contiguous() else eligibility.detach().contiguous()
    report = _op_(w, e, *given, backend=backend)
    if w is not weight:
        weight.copy_(w)
    if e is not eligibility:
        eligibility.copy_(e)
    if not traced(weight):
        torch.autograd.graph.increment_version([weight, eligibility])
    settle_three_factor(op, report)
    remember(weight, sign)
    return ThreeFactor(weight, eligibility)


def settle_three_factor(op: str, report: Tensor) -> None:
    settle(op, report, "lr or modulator", "gain_pre or gain_post")


def _given(
    op: str,
    weight: Tensor,
    eligibility: Tensor,
    pre: Tensor,
    post: Tensor,
    trace_decay: float,
    modulator: float | Tensor | None,
    pattern: Pattern | None,
    rest: dict[str, Any],
) -> tuple[Any, ...]:
    """The op's arguments behind weight and eligibility, checked."""
    rows, cols = check_weight(op, weight, pattern)
    x = activity_of(op, "pre", pre, cols, "in", weight)
    y = activity_of(op, "post", post, rows, "out", weight)
    check_batch(op, x, y)
    batch = x.shape[0]
    per_sample = check_eligibility(op, eligibility, weight, batch)
    trace_decay = check_trace_decay(op, trace_decay)
    if isinstance(modulator, Tensor) and modulator.dim():
        factor = _modulator_of(op, modulator, rows, batch, per_sample, weight)
        local = local_of(op, weight, (rows, cols), batch, pattern=pattern, **rest)
        local = local._replace(modulator=factor)
    else:
        local = local_of(
            op, weight, (rows, cols), batch, pattern=pattern, modulator=modulator, **rest
        )
    return (x, y, trace_decay, *local)


def check_trace_decay(op: str, trace_decay: Any) -> float:
    """In [0, 1]."""
    trace_decay = check_number(op, "trace_decay", trace_decay)
    if not 0 <= trace_decay <= 1:
        fail(ValueError, op, "trace_decay", "lie in [0, 1]", trace_decay)
    return trace_decay


def check_eligibility(op: str, eligibility: Any, weight: Tensor, batch: int) -> bool:
    """Whether there is one for each sample."""
    check_float(op, "eligibility", eligibility)
    dtype = arithmetic_dtype(weight)
    if eligibility.dtype != dtype:
        name = str(dtype).removeprefix("torch.")
        got = str(eligibility.dtype).removeprefix("torch.")
        fail(TypeError, op, "eligibility", f"be {name} with this weight", got)
    check_device(op, "eligibility", eligibility, weight, "weight")
    shape = tuple(weight.shape)
    per_sample = eligibility.dim() == len(shape) + 1
    names = "of the weight" if not per_sample else "(B,) and that of the weight"
    check_shape(op, "eligibility", eligibility, names, (batch, *shape) if per_sample else shape)
    return per_sample


def _modulator_of(
    op: str, modulator: Tensor, rows: int, batch: int, per_sample: bool, weight: Tensor
) -> Tensor:
    """(out,), (B, out) or (B, 1) in the arithmetic type."""
    check_float(op, "modulator", modulator)
    check_device(op, "modulator", modulator, weight, "weight")
    shape = tuple(modulator.shape)
    if shape != (rows,) and shape not in ((batch, rows), (batch, 1)):
        rule = f"have shape (), (out,) = ({rows},), or (B, out) or (B, 1) with B = {batch}"
        fail(ValueError, op, "modulator", rule, shape)
    if len(shape) == 2 and batch > 1 and not per_sample:
        rule = "be () or (out,) where samples share an eligibility (one for each: (B, out, in))"
        fail(ValueError, op, "modulator", rule, shape)
    return modulator.to(arithmetic_dtype(weight))
