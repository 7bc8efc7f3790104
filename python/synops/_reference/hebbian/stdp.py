"""stdp in plain torch: its definition, and what runs where nothing faster does.

Spikes pre (T, B, in) and post (T, B, out), traces (B, in) and (B, out), a weight (out, in), or the
values of one with compressed rows crow and col. A step: traces decay and take in the spikes of the
step, then depression and potentiation are computed from the weight as it is, added together, and
what they may have touched is clamped.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

PRE, POST, RATE, OTHER, SIGN, OVERFLOW = 1, 2, 4, 8, 16, 256  # bits of the report


class _Side(NamedTuple):
    trace: Tensor  # after the step
    slow: Tensor | None
    seen: Tensor  # the trace as the spikes of the other side see it
    drive: Tensor  # spikes times their amplitude


def _side(
    spikes: Tensor,
    trace: Tensor,
    slow: Tensor | None,
    decay: float,
    slow_decay: float,
    pair: float,
    triple: float,
    scale: Tensor,
    nearest: bool,
    included: bool,
) -> _Side:
    def after(faded: Tensor) -> Tensor:
        return torch.where(spikes != 0, spikes, faded) if nearest else faded + spikes

    faded = trace * decay
    amplitude = torch.full_like(spikes, pair)
    if slow is not None:  # the third spike is one before this step
        before = slow * slow_decay
        amplitude, slow = pair + triple * before, after(before)
    now = after(faded)
    return _Side(now, slow, now if included else faded, spikes * amplitude * scale[:, None])


def stdp(
    weight: Tensor,
    trace_pre: Tensor,
    trace_post: Tensor,
    slow_pre: Tensor | None,
    slow_post: Tensor | None,
    eligibility: Tensor | None,
    pre: Tensor,
    post: Tensor,
    crow: Tensor | None,
    col: Tensor | None,
    lr: float,
    rate: Tensor | None,
    modulator: Tensor | None,
    reward: Tensor | None,
    sign: Tensor | None,
    check_sign: bool,
    decay_plus: float,
    decay_minus: float,
    decay_x: float,
    decay_y: float,
    decay_e: float,
    a_plus: float,
    a_minus: float,
    a3_plus: float,
    a3_minus: float,
    lower: float,
    upper: float,
    nearest: bool,
    coincident: int,
    soft: bool,
    mean: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The weight and the states after all steps, 0-size where there are none, and the report."""
    kind = torch.float64 if weight.dtype == torch.float64 else torch.float32
    pre, post = pre.to(kind), post.to(kind)
    samples, inputs = pre.shape[1:]
    others = (trace_pre, trace_post, slow_pre, slow_post, sign)
    report = _report(pre, post, (rate, modulator, reward), others)
    held = (weight, trace_pre, trace_post, slow_pre, slow_post, eligibility)

    scale = pre.new_ones(samples) if modulator is None else modulator
    scale = scale / samples if mean and samples else scale
    low, high = pre.new_full((inputs,), lower), pre.new_full((inputs,), upper)
    if sign is not None:
        low = torch.where(sign > 0, low.clamp_min(0), low)
        high = torch.where(sign < 0, high.clamp_max(0), high)
    rate = lr * (pre.new_ones(()) if rate is None else rate).expand(post.shape[2])
    row, at = None, None
    if crow is not None and col is not None:
        row = torch.repeat_interleave(
            torch.arange(crow.shape[0] - 1, device=col.device), crow.diff(), output_size=len(col)
        )
        at, low, high, rate = col.long(), low[col], high[col], rate[row]
    else:
        rate = rate[:, None]
    entries = weight.shape if at is None else at.shape
    if sign is not None and check_sign:
        broken = (weight * sign if at is None else weight[: len(at)] * sign[at]) < 0
        report = torch.where(report == 0, SIGN * broken.any(), report)

    def over_entries(of_rows: Tensor, of_columns: Tensor) -> Tensor:
        if at is None:
            return of_rows.t() @ of_columns
        return (of_rows[:, row] * of_columns[:, at]).sum(0)

    w = weight if at is None else weight[: len(at)]
    e = eligibility if eligibility is None or at is None else eligibility[: len(at)]
    overflow = torch.zeros((), dtype=torch.bool, device=weight.device)
    for t, (s_pre, s_post) in enumerate(zip(pre.unbind(0), post.unbind(0), strict=True)):
        ins = _side(
            s_pre, trace_pre, slow_pre, decay_plus, decay_x, a_minus, a3_minus, scale, nearest,
            bool(coincident & 1),
        )  # fmt: skip
        outs = _side(
            s_post, trace_post, slow_post, decay_minus, decay_y, a_plus, a3_plus, scale, nearest,
            bool(coincident & 2),
        )  # fmt: skip
        trace_pre, slow_pre, trace_post, slow_post = ins.trace, ins.slow, outs.trace, outs.slow
        old = w.to(kind)
        up, down = over_entries(outs.drive, ins.seen), over_entries(outs.seen, ins.drive)
        if soft:
            up, down = up * (high - old), down * (old - low)
        if e is None or reward is None:
            of_row, of_column = (outs.drive != 0).any(0), (ins.drive != 0).any(0)
            if at is None:
                touched = of_row[:, None] | of_column
            else:
                touched = of_row[row] | of_column[at]
            new = torch.where(touched, torch.clamp(old + rate * (up - down), low, high), old)
        else:
            e = e * decay_e + (up - down)
            touched = torch.ones(entries, dtype=torch.bool, device=weight.device)
            new = torch.clamp(old + rate * reward[t] * e, low, high)
        w = new.to(weight.dtype)
        overflow = overflow | (touched & ~w.isfinite()).any()
    if at is not None:
        w = torch.cat([w, weight[len(at) :]])
        e = None if e is None or eligibility is None else torch.cat([e, eligibility[len(at) :]])
    good = report == 0
    report = torch.where(good, overflow * OVERFLOW, report)
    results = [
        pre.new_empty(0) if was is None or now is None else torch.where(good, now, was)
        for was, now in zip(held, (w, trace_pre, trace_post, slow_pre, slow_post, e), strict=True)
    ]
    return (*results, report)  # type: ignore[return-value]


def _report(
    pre: Tensor,
    post: Tensor,
    rates: tuple[Tensor | None, ...],
    others: tuple[Tensor | None, ...],
) -> Tensor:
    report = torch.zeros((), dtype=torch.int64, device=pre.device)
    for bit, tensors in ((PRE, (pre,)), (POST, (post,)), (RATE, rates), (OTHER, others)):
        bad = [~t.isfinite().all() for t in tensors if t is not None]
        if bad:
            report = report + bit * torch.stack(bad).any()
    return report


def stdp_(
    weight: Tensor,
    trace_pre: Tensor,
    trace_post: Tensor,
    slow_pre: Tensor | None,
    slow_post: Tensor | None,
    eligibility: Tensor | None,
    *rest: object,
) -> Tensor:
    """The same in place."""
    held = (weight, trace_pre, trace_post, slow_pre, slow_post, eligibility)
    *results, report = stdp(*held, *rest)  # type: ignore[arg-type]
    for old, new in zip(held, results, strict=True):
        if old is not None:
            old.copy_(new)
    return report
