"""three_factor in plain torch: its definition, and what runs where nothing faster does.

weight (out, in) or values (nnz,) of compressed rows; pre (B, in) and post (B, out) in the
arithmetic type; eligibility of the shape of the weight, or one for each sample in front.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .plasticity import row_of

PRE, POST, FACTOR, ARGUMENT, SIGN, OVERFLOW = 1, 2, 4, 8, 16, 256


def _finite(*tensors: Tensor | None) -> Tensor:
    """A scalar: whether all numbers of all of them are."""
    given = [t for t in tensors if t is not None]
    good = [t.isfinite().all() for t in given]
    return torch.stack(good).all() if good else torch.tensor(True)


def three_factor(
    weight: Tensor,
    eligibility: Tensor,
    pre: Tensor,
    post: Tensor,
    trace_decay: float,
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
) -> tuple[Tensor, Tensor, Tensor]:
    """The next weight and eligibility, and the report."""
    batch = max(1, pre.shape[0])
    per_sample = eligibility.dim() > weight.dim()
    x = pre if gain_pre is None else pre * gain_pre
    y = post if gain_post is None else post * gain_post
    if crow is not None and col is not None:
        row, column, nnz = row_of(crow), col.long(), col.shape[0]
    else:
        rows, cols = weight.shape
        row = torch.arange(rows, device=weight.device).repeat_interleave(cols)
        column, nnz = torch.arange(cols, device=weight.device).repeat(rows), rows * cols
    w = weight.flatten()[:nnz].to(pre.dtype)
    e = eligibility.reshape(-1, weight.numel())[:, :nnz]  # (traces, entries)

    new = y[:, row] * x[:, column]
    if not per_sample:
        new = new.sum(0, keepdim=True) / (batch if mean else 1)
    e_next = trace_decay * e + new

    gate = torch.full((1, post.shape[1]), lr, dtype=pre.dtype, device=pre.device)
    if rate is not None:
        gate = gate * rate
    if modulator is not None:
        gate = gate * modulator
    gate = gate.expand(e.shape[0], -1)
    change = (gate[:, row] * e_next).sum(0)
    if per_sample and mean:
        change = change / batch
    w_next = (1 - decay) * w + change
    low, high = w.new_full((x.shape[1],), lower), w.new_full((x.shape[1],), upper)
    if sign is not None:
        low = torch.where(sign > 0, low.clamp_min(0), low)
        high = torch.where(sign < 0, high.clamp_max(0), high)
    w_next = torch.maximum(torch.minimum(w_next, high[column]), low[column])
    if decay == 0:  # a gate that is shut leaves the weight alone
        w_next = torch.where((gate != 0).any(0)[row], w_next, w)
    w_next = w_next.to(weight.dtype)
    if mask is not None:
        w_next = torch.where(mask.flatten(), w_next, weight.flatten())
        e_next = torch.where(mask.flatten(), e_next, e)

    bits = PRE * ~_finite(pre) + POST * ~_finite(post) + FACTOR * ~_finite(gate)
    bits = bits + ARGUMENT * ~_finite(gain_pre, gain_post)
    if sign is not None and check_sign:
        broken = w * sign[column] < 0
        broken = broken if mask is None else broken & mask.flatten()
        bits = bits + torch.where(bits == 0, SIGN * broken.any(), 0)
    kept = w_next if mask is None else w_next[mask.flatten()]
    traces = e_next if mask is None else e_next[:, mask.flatten()]
    over = OVERFLOW * ~_finite(kept, traces)
    refused = bits != 0
    report = torch.where(refused, bits, over)

    w_all, e_all = weight.flatten().clone(), eligibility.reshape(-1, weight.numel()).clone()
    w_all[:nnz] = torch.where(refused, w_all[:nnz], w_next)
    e_all[:, :nnz] = torch.where(refused, e, e_next)
    return w_all.view(weight.shape), e_all.view(eligibility.shape), report


def three_factor_(weight: Tensor, eligibility: Tensor, *rest: object) -> Tensor:
    """The same into ``weight`` and ``eligibility``."""
    w, e, report = three_factor(weight, eligibility, *rest)  # type: ignore[arg-type]
    weight.copy_(w)
    eligibility.copy_(e)
    return report
