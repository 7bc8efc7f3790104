"""hebb, oja and bcm (Triton): factors in torch, O(B units), and one pass over the weight.

Reference: python/synops/_reference/hebbian/plasticity.py
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..common.launch import require, require_floats, require_index
from .outer_update import update_dense, update_sampled

# away (out,) and post (B, out) from activities times gain, rates and modulators
Factors = Callable[[Tensor, Tensor, Tensor], tuple[Tensor | float, Tensor]]


def _not_finite(bit: int, *tensors: Tensor | None) -> Tensor | int:
    bad = [~t.isfinite().all() for t in tensors if t is not None]
    return torch.stack(bad).any() * bit if bad else 0


def launch(
    op: str,
    weight: Tensor,
    to: Tensor,
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
) -> tuple[Tensor, Tensor, Tensor]:
    """post, or (0,) where it was given; the report; post times its gain."""
    wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
    require_floats(op, weight)
    require(pre.dim() == 2 and pre.dtype == wide, op, f"pre must be (B, in) of {wide}")
    batch, cols = pre.shape
    if crow is not None and col is not None:
        require_index(op, weight, crow, col)
        rows = crow.shape[0] - 1
        require(weight.dim() == 1 and weight.shape[0] >= col.shape[0], op, "weight is too short")
        require(mask is None, op, "mask must be absent with crow")
        require(to.is_contiguous(), op, "weight must be contiguous")
        weight = weight.contiguous()
        row, column = torch.arange(rows, device=weight.device), col.long()
        row = row.repeat_interleave(crow.diff(), output_size=col.shape[0])
        held = weight[: col.shape[0]].to(wide)
        per_column = lambda v: v[column]  # noqa: E731
    else:
        require(weight.dim() == 2 and weight.shape[1] == cols, op, "pre must fit the weight")
        rows = weight.shape[0]
        require(to.stride(1) == 1 or cols <= 1, op, "weight must have rows of contiguous elements")
        weight = weight if weight.stride(1) == 1 else weight.contiguous()
        held = weight
        per_column = lambda v: v  # noqa: E731
    for name, t, shape in (
        ("post", post, (batch, rows)),
        ("gain_pre", gain_pre, (cols,)),
        ("gain_post", gain_post, (rows,)),
        ("sign", sign, (cols,)),
        ("mask", mask, (rows, cols)),
    ):
        require(t is None or t.shape == shape, op, f"{name} must have shape {shape}")
    plastic = held if mask is None else torch.where(mask, held, 0)

    report = torch.zeros((), dtype=torch.int64, device=weight.device)
    report = report + _not_finite(1, pre) + _not_finite(2, post) + _not_finite(4, rate, modulator)
    report = report + _not_finite(8, gain_pre, gain_post, sign, other)
    if sign is not None and check_sign:
        report = report + (plastic * per_column(sign) < 0).any() * 16
    if post is None and crow is not None:
        y = pre.new_zeros((batch, rows)).index_add(1, row, held * pre[:, column])
    else:
        y = pre @ plastic.to(wide).t() if post is None else post
    scaled = y if gain_post is None else y * gain_post
    rates = pre.new_full((rows,), lr / (max(1, batch) if mean else 1))
    rates = rates if rate is None else rates * rate
    away, by = factors(scaled, rates, pre.new_ones(batch) if modulator is None else modulator)
    keep = pre.new_full((rows,), 1 - decay) - away
    x = (pre if gain_pre is None else pre * gain_pre).contiguous()
    bounds: tuple[Tensor | None, Tensor | None] = (None, None)
    if sign is not None or lower > -torch.inf or upper < torch.inf:
        low, high = pre.new_full((cols,), lower), pre.new_full((cols,), upper)
        if sign is not None:
            low = torch.where(sign > 0, low.clamp_min(0), low)
            high = torch.where(sign < 0, high.clamp_max(0), high)
        bounds = (low, high)
    overflow = torch.zeros(1, dtype=torch.int32, device=weight.device)
    rest = (x, by.contiguous(), keep, bounds)
    if crow is not None and col is not None:
        if to.data_ptr() != weight.data_ptr():
            to[col.shape[0] :] = weight[col.shape[0] :]
        update_sampled(weight, to, *rest, crow, col, report, overflow)
    else:
        flags = None if mask is None else mask.contiguous()
        update_dense(weight, to, *rest, flags, report, overflow)
    computed = y if post is None else y.new_empty(0)
    bad = overflow[0] if post is not None else overflow[0] | ~y.isfinite().all()
    return computed, torch.where(report == 0, bad * 256, report), scaled
