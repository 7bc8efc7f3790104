"""Spikes, weights and rules of stdp, and the loop that people write, in float64."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from close import assert_close
from synops.hebbian import STDP, stdp
from synops.sparse import Pattern

# Every option with those that it goes with. Signs and values of tensors are made by ``sample``.
RULES = {
    "pairs": {},
    "no bounds": {"clip": None, "reduction": "sum"},
    "nearest": {"pairing": "nearest", "coincident": "none"},
    "potentiate": {"coincident": "potentiate", "leak": "euler"},
    "depress": {"coincident": "depress", "modulator": 0.7},
    "triplets": {"a3_plus": 0.6, "a3_minus": 0.3, "tau_x": 30.0, "tau_y": 40.0},
    "nearest triplets": {"a3_plus": 0.6, "pairing": "nearest", "lr": "rows"},
    "soft": {"bounds": "soft", "modulator": "samples"},
    "signs": {"clip": (-1.0, 1.0), "sign": "columns"},
    "reward": {"reward": "steps", "tau_e": 10.0},
    "soft reward": {"reward": 0.5, "tau_e": 5.0, "bounds": "soft"},
}


class Sample(NamedTuple):
    weight: Tensor
    pre: Tensor
    post: Tensor
    rule: dict

    def to(self, dtype: torch.dtype) -> "Sample":
        """The weight in ``dtype``, everything else in its arithmetic type."""
        kind = torch.float64 if dtype == torch.float64 else torch.float32
        rule = {k: v.to(kind) if isinstance(v, Tensor) else v for k, v in self.rule.items()}
        return self._replace(weight=self.weight.to(dtype), rule=rule)


def sample(
    steps: int,
    batch: int | None,
    inputs: int,
    outputs: int,
    rate: float,
    rule: str = "pairs",
    density: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> Sample:
    """Numbers of ``dtype`` in float64; spikes as bools. batch None: without that dimension."""
    many = () if batch is None else (batch,)
    pre = torch.rand(steps, *many, inputs) < rate
    post = torch.rand(steps, *many, outputs) < rate
    options = {"lr": 0.05, "clip": (0.0, 1.0), "tau_plus": 15.0, "tau_minus": 25.0, "a_minus": 0.8}
    options |= RULES[rule]
    sign = torch.tensor([-1.0, 0.0, 1.0])[torch.randint(3, (inputs,))]
    made = {"rows": torch.rand(outputs), "samples": torch.randn(batch or 1), "columns": sign}
    made["steps"] = torch.randn(steps)
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    options = {
        k: made[v].to(kind).double() if isinstance(v, str) and v in made else v
        for k, v in options.items()
    }
    weight = torch.rand(outputs, inputs)
    if rule == "signs":
        weight = torch.where(sign == 0, weight - 0.5, weight * sign)
    if density is not None:
        options["pattern"] = Pattern.from_mask(torch.rand(outputs, inputs) < density)
        weight = options["pattern"].gather(weight)
    return Sample(weight.to(dtype).double(), pre, post, options)


def run(s: Sample, **options) -> STDP:
    return stdp(s.weight, s.pre, s.post, **(s.rule | options))


def check(s: Sample, dtype: torch.dtype, **options) -> None:
    """Results in ``dtype`` against those of the reference in float64.

    A weight in half precision is rounded after every step, which the reference does not do: one
    step of it is compared.
    """
    got, want = run(s.to(dtype), **options), run(s, backend="reference")
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    samples = s.pre.shape[1] if s.pre.dim() == 3 else 1
    length = 2 * s.pre.shape[0] * samples + 8  # sums of traces, and their product
    ones = torch.ones_like(want.weight)
    size = 1 + float(max(t.abs().max() for t in want.state if t is not None and t.numel()))
    assert_close(got.weight, want.weight, dtype, length, ones)
    for one, other in zip(got.state, want.state, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert_close(one, other, kind, length, size * torch.ones_like(other))


def loop(s: Sample) -> Tensor:
    """The weight by the rule's formulas over single synapses' sums, dense and unbatched options."""
    r = {"clip": None, "a3_plus": 0.0, "a3_minus": 0.0, "tau_x": 101.0, "tau_y": 125.0} | s.rule
    keep = lambda tau: math.exp(-1 / tau)  # noqa: E731
    w, pre, post = s.weight.clone(), s.pre.double(), s.post.double()
    r1, r2 = torch.zeros_like(pre[0]), torch.zeros_like(pre[0])
    o1, o2 = torch.zeros_like(post[0]), torch.zeros_like(post[0])
    for x, y in zip(pre, post, strict=True):
        r1, o1 = r1 * keep(r["tau_plus"]) + x, o1 * keep(r["tau_minus"]) + y
        r2, o2 = r2 * keep(r["tau_x"]), o2 * keep(r["tau_y"])
        up = torch.einsum("bo,bi->oi", y * (1.0 + r["a3_plus"] * o2), r1)
        down = torch.einsum("bo,bi->oi", o1, x * (r["a_minus"] + r["a3_minus"] * r2))
        w = w + r["lr"] * (up - down) / len(x)
        w = w if r["clip"] is None else w.clamp(*r["clip"])
        r2, o2 = r2 + x, o2 + y
    return w
