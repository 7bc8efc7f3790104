"""The local rules of plasticity in plain torch: what hebb, oja and bcm have in common.

Everything but the weight in the arithmetic type; the new weight is rounded to its own once. Reports
are bits: 1 pre, 2 post, 4 a rate or modulator, 8 another argument not finite, 16 a weight against
its sign: with these nothing changes. 256: a weight is not finite any more.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# keep (out,) and post (B, out) of a rule, from activities times gain (B, out), rates (out,) and
# modulators (B,).
Factors = Callable[[Tensor, Tensor, Tensor], tuple[Tensor | float, Tensor]]


def _bit(tensors: tuple[Tensor | None, ...], bit: int, like: Tensor) -> Tensor:
    """``bit`` where a number of one of them is not finite."""
    bad = torch.zeros((), dtype=torch.bool, device=like.device)
    for t in tensors:
        if t is not None:
            bad = bad | ~t.isfinite().all()
    return bad * bit


def row_of(crow: Tensor) -> Tensor:
    """The row of each entry."""
    return torch.arange(crow.shape[0] - 1, device=crow.device).repeat_interleave(crow.diff())


def local_rule(
    weight: Tensor,
    pre: Tensor,
    post: Tensor | None,
    factors: Factors,
    lr: float,
    rate: Tensor | None,
    decay: float,
    modulator: Tensor | None,
    gain_pre: Tensor | None,
    gain_post: Tensor | None,
    lower: float,
    upper: float,
    sign: Tensor | None,
    check_sign: bool,
    mask: Tensor | None,
    crow: Tensor | None,
    col: Tensor | None,
    mean: bool,
    other: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The new weight, what was computed of post (0-size if it was given), the report, and post
    times its gain. ``other``: one more argument that has to be finite."""
    wide = weight.to(pre.dtype)
    batch = pre.shape[0]
    if crow is not None and col is not None:  # existing synapses only, (nnz,) in CSR order
        row, column = row_of(crow), col.long()
        wide = wide[: col.shape[0]]
        rows = crow.shape[0] - 1
        product = lambda x: x.new_zeros((batch, rows)).index_add(1, row, wide * x[:, column])  # noqa: E731
        per_row, per_column = (lambda v: v[row]), (lambda v: v[column])
        outer = lambda y, x: (y[:, row] * x[:, column]).sum(0)  # noqa: E731
        plastic = torch.ones_like(wide, dtype=torch.bool)
    else:
        rows = weight.shape[0]
        plastic = torch.ones_like(wide, dtype=torch.bool) if mask is None else mask
        product = lambda x: x @ torch.where(plastic, wide, 0).t()  # noqa: E731
        per_row, per_column = (lambda v: v[:, None]), (lambda v: v)
        outer = lambda y, x: y.t() @ x  # noqa: E731

    y = product(pre) if post is None else post
    scaled = y if gain_post is None else y * gain_post
    r = pre.new_full((rows,), lr / (max(1, batch) if mean else 1))
    r = r if rate is None else r * rate
    m = pre.new_ones(batch) if modulator is None else modulator.expand(batch)
    away, by = factors(scaled, r, m)
    x = pre if gain_pre is None else pre * gain_pre
    keep = per_row(pre.new_full((rows,), 1 - decay) - away)
    new = keep * wide + outer(by, x)

    low, high = pre.new_full((pre.shape[1],), lower), pre.new_full((pre.shape[1],), upper)
    against = torch.zeros((), dtype=torch.bool, device=weight.device)
    if sign is not None:
        low = torch.where(sign > 0, low.clamp_min(0), low)
        high = torch.where(sign < 0, high.clamp_max(0), high)
        if check_sign:
            against = (plastic & (wide * per_column(sign) < 0)).any()
    new = torch.minimum(torch.maximum(new, per_column(low)), per_column(high))
    new = torch.where(plastic, new.to(weight.dtype), wide.to(weight.dtype))

    given = () if post is None else (post,)
    report = _bit((pre,), 1, weight) + _bit(given, 2, weight) + _bit((rate, modulator), 4, weight)
    report = report + _bit((gain_pre, gain_post, sign, other), 8, weight) + against * 16
    overflow = _bit((torch.where(plastic, new, 0), None if post is not None else y), 256, weight)
    old = weight[: new.shape[0]] if crow is not None else weight
    out = torch.where(report == 0, new, old)
    if crow is not None:
        out = torch.cat([out, weight[new.shape[0] :]])
    report = torch.where(report == 0, overflow, report)
    return out, y if post is None else y.new_empty(0), report, scaled
