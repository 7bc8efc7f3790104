"""Weights, activities and options of the local rules, and one face for all of them."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from synops.hebbian import bcm, bcm_, hebb, hebb_, oja, oja_
from synops.sparse import Pattern

RULES = {"hebb": (hebb, hebb_), "oja": (oja, oja_), "bcm": (bcm, bcm_)}
TOLERANCE = {  # of a weight of about 1, after one rounding to its type and float32 sums
    torch.float64: 1e-13,
    torch.float32: 2e-6,
    torch.bfloat16: 2**-8,
    torch.float16: 2**-11,
}


class Sample(NamedTuple):
    weight: Tensor
    theta: Tensor
    pre: Tensor
    post: Tensor | None
    options: dict[str, Any]

    def double(self):
        """The same numbers in float64."""
        wide = lambda t: t.double() if isinstance(t, Tensor) and t.is_floating_point() else t  # noqa: E731
        options = {k: wide(v) for k, v in self.options.items()}
        return Sample(*map(wide, self[:4]), options)

    def clone(self):
        post = None if self.post is None else self.post.clone()
        weight = self.weight.clone()
        return Sample(weight, self.theta.clone(), self.pre.clone(), post, dict(self.options))


def sample(kind, rows, cols, batch, dtype=torch.float32, *, given=True, every=True):
    """``kind``: dense, mask (NaN where it is False) or pattern; ``every`` option, or the least."""
    options: dict[str, Any] = {"lr": 0.1}
    weight = (torch.randn(rows, cols) * 0.5).to(dtype)
    if kind == "mask":
        options["mask"] = torch.rand(rows, cols) < 0.5
        weight = weight.masked_fill(~options["mask"], torch.nan)
    if kind == "pattern":
        options["pattern"] = Pattern.from_mask(torch.rand(rows, cols) < 0.5)
        weight = weight.flatten()[: options["pattern"].nnz].clone()
    if every:
        options |= {
            "lr": torch.rand(rows) * 0.2,
            "decay": 0.01,
            "modulator": torch.randn(batch),
            "gain_pre": torch.rand(cols) + 0.5,
            "gain_post": torch.rand(rows) + 0.5,
            "clip": (-0.4, 0.6),
        }
    theta = torch.rand(rows, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    post = torch.randn(batch, rows) if given else None
    return Sample(weight, theta, torch.randn(batch, cols), post, options)


def run(rule, s, *, in_place=False, **changes):
    """(weight, [theta,] post) of a call, whatever the rule returns."""
    options = s.options | changes
    function = RULES[rule][in_place]
    if rule == "bcm":
        return tuple(function(s.weight, s.theta, s.pre, s.post, tau=10.0, **options))
    out = function(s.weight, s.pre, s.post, **options)
    return (out, s.post) if isinstance(out, Tensor) else tuple(out)


def check(rule, s):
    """A call against the reference in float64, and the same in place, to the bit."""
    want = run(rule, s.double(), backend="reference")
    got = run(rule, s)
    for a, b in zip(got, want, strict=True):
        if a.is_floating_point():
            off = TOLERANCE[a.dtype] * (1 + b.abs().nan_to_num().amax() if b.numel() else 1)
            torch.testing.assert_close(
                a.double(), b.double(), rtol=0, atol=float(off), equal_nan=True
            )
    copy = s.clone()
    for a, b in zip(got, run(rule, copy, in_place=True), strict=True):
        assert torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))
    return got
