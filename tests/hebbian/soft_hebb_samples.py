"""Inputs of soft_hebb, its answer in float64, and the loop that people write."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from synops._library import reference

FORM = {
    "lr": 0.3,
    "power": 0.5,
    "temperature": 1.0,
    "variant": "signed",
    "normalize": None,
    "decay": 0.0,
    "modulator": None,
    "gain_pre": None,
    "gain_post": None,
    "clip": None,
    "sign": None,
    "mask": None,
    "reduction": "mean",
}
VARIANTS = ("soft", "signed", "hard")


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Normal, float64, whose values bfloat16 holds."""
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return made.bfloat16().double()


def layer(out: int, inputs: int, batch: int) -> tuple[Tensor, Tensor]:
    """Weight with rows of norm about 2, and input."""
    return numbers(out, inputs) * 2 ** round(math.log2(2 / inputs**0.5)), numbers(
        batch, inputs, seed=1
    )


def every_option(out: int, inputs: int, batch: int) -> dict:
    """All that a call may ask for beside the rule itself."""
    mask = torch.rand(out, inputs, generator=torch.Generator().manual_seed(2)) < 0.7
    return {
        "lr": numbers(out, seed=3).abs(),
        "decay": 0.25,
        "modulator": numbers(batch, seed=4),
        "gain_pre": numbers(inputs, seed=5),
        "gain_post": numbers(out, seed=6),
        "clip": (-1.5, 2.0),
        "mask": mask,
        "reduction": "sum",
    }


def answer(weight: Tensor, pre: Tensor, u: Tensor | None = None, **options) -> tuple[Tensor, ...]:
    """The new weight and u by the reference, in float64."""
    form = FORM | options
    lower, upper = form["clip"] or (-math.inf, math.inf)

    def wide(t):
        return t.double() if isinstance(t, Tensor) and t.dtype != torch.bool else t

    rate = form["lr"] if isinstance(form["lr"], Tensor) else None
    new, made, report = reference("soft_hebb")(
        weight.double(),
        pre.double(),
        wide(u),
        form["temperature"],
        VARIANTS.index(form["variant"]),
        -1.0 if form["power"] is None else form["power"],
        form["normalize"] == "amax",
        1.0 if rate is not None else form["lr"],
        wide(rate),
        form["decay"],
        wide(form["modulator"]),
        wide(form["gain_pre"]),
        wide(form["gain_post"]),
        lower,
        upper,
        wide(form["sign"]),
        True,
        form["mask"],
        form["reduction"] == "mean",
    )
    assert int(report) == 0
    return new, made


def loop(weight: Tensor, pre: Tensor, lr: float, temperature: float, power: float) -> Tensor:
    """A sample, a unit at a time, as the equations have it: signed, mean over samples."""
    delta = torch.zeros_like(weight)
    for x in pre.unbind(0):
        u = weight @ x
        p = ((u - u.max()) / temperature).exp()
        p = p / p.sum()
        for k in range(weight.shape[0]):
            y = p[k] if k == int(u.argmax()) else -p[k]
            delta[k] += y * (x - u[k] * weight[k])
    delta /= pre.shape[0]
    rate = lr * ((weight.norm(dim=1) - 1).abs() + 1e-10) ** power
    return weight + rate[:, None] * delta
