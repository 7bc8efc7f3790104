"""Weights, eligibilities, activities and options of three_factor."""

import torch

from synops.sparse import Pattern


def sample(shape, batch, dtype, *, kind="dense", per_sample=False, seed=0):
    """(weight, eligibility, pre, post) and options, all set."""
    rows, cols = shape
    g = torch.Generator().manual_seed(seed)
    random = lambda *n: torch.randn(n, generator=g)  # noqa: E731
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    many = () if batch is None else (batch,)
    sign = random(cols).sign()
    sign[::3] = 0
    weight = random(rows, cols)
    weight = torch.where(sign == 0, weight, weight.abs() * sign)
    kept = torch.rand(shape, generator=g) < 0.6
    options = {
        "lr": torch.rand(rows, generator=g).to(acc),
        "trace_decay": 0.9,
        "decay": 0.05,
        "modulator": random(*((max(1, batch or 1), rows) if per_sample else (rows,))).to(acc),
        "gain_pre": random(cols).to(acc),
        "gain_post": random(rows).to(acc),
        "clip": (-1.25, 0.75),
        "sign": sign.to(acc),
    }
    if kind == "pattern":
        options["pattern"] = Pattern.from_mask(kept)
        weight = options["pattern"].gather(weight)
    if kind == "mask":
        options["mask"] = kept
    of_trace = ((batch or 1),) if per_sample else ()
    trace = random(*of_trace, *weight.shape).to(acc)
    tensors = (
        weight.to(dtype),
        trace,
        random(*many, cols).to(dtype),
        random(*many, rows).to(dtype),
    )
    return tensors, options


def wide(value):
    """In float64, with the same rounding behind it."""
    floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.double() if floating else value
