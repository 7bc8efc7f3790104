"""three_factor: a step of eligibility, gate, update, clip and sign, against torch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..common import suite
from ..common.call import Call
from ..common.public import public

DECAY, RATE, LIMIT = 0.95, 1e-3, 1.0


class PlasticSize(NamedTuple):
    """A weight, samples of a step, and the density of its synapses (1: dense)."""

    batch: int
    outputs: int
    inputs: int
    density: float = 1.0
    dtype: torch.dtype = torch.float32  # of the weight

    @property
    def work(self) -> int:
        """Multiply-adds."""
        return int(self.batch * self.outputs * self.inputs * self.density)


_SIZES: dict[str, PlasticSize] = {
    "1x1024x1024": PlasticSize(1, 1024, 1024),
    "1x4096x4096": PlasticSize(1, 4096, 4096),
    "1x300x784": PlasticSize(1, 300, 784),
    "32x1024x1024": PlasticSize(32, 1024, 1024),
    "1x1024x1024 d=.1": PlasticSize(1, 1024, 1024, 0.1),
    "1x4096x4096 d=.1": PlasticSize(1, 4096, 4096, 0.1),
    "1x8x8": PlasticSize(1, 8, 8),
}
_TABLE = {"1x4096x4096 bf16": PlasticSize(1, 4096, 4096, 1.0, torch.bfloat16)}


class State(NamedTuple):
    """What a step takes: weights of (out, in) or of a Pattern, Dale's sign by column."""

    weight: Tensor
    eligibility: Tensor
    pre: Tensor
    post: Tensor
    modulator: Tensor
    sign: Tensor
    mask: Tensor  # (out, in), which synapses exist
    row: Tensor  # of each
    col: Tensor
    pattern: Any

    @classmethod
    def draw(cls, size: PlasticSize, dtype: torch.dtype, device: str) -> State:
        generator = torch.Generator().manual_seed(0)
        shape = (size.outputs, size.inputs)
        random = lambda *n: torch.rand(n, generator=generator).to(device, dtype)  # noqa: E731
        sign = (random(size.inputs) < 0.8).to(dtype) * 2 - 1
        weight = random(*shape) * sign
        mask = torch.rand(shape, generator=generator).to(device) < size.density
        row, col = mask.nonzero(as_tuple=True)
        pattern = None
        if size.density < 1:
            pattern = public("sparse.Pattern").from_mask(mask)
            weight = pattern.gather(weight)
        if dtype == torch.float32:
            weight = weight.to(size.dtype)
        return cls(
            weight,
            torch.zeros(weight.shape, dtype=dtype, device=device),
            random(size.batch, size.inputs),
            random(size.batch, size.outputs),
            random(size.outputs) * 2 - 1,
            sign,
            mask,
            row,
            col,
            pattern,
        )


def lower_upper(s: State) -> tuple[Tensor, Tensor]:
    """Bounds by column: [0, LIMIT] of excitatory units, [-LIMIT, 0] of inhibitory ones."""
    return (s.sign < 0).to(s.sign) * -LIMIT, (s.sign > 0).to(s.sign) * LIMIT


def dense_step(s: State, w: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """As it is written."""
    lower, upper = lower_upper(s)
    e = DECAY * e + s.post.t() @ s.pre / s.pre.shape[0]
    w = torch.clamp(w + RATE * s.modulator.unsqueeze(1) * e, lower, upper)
    return w.to(s.weight.dtype), e


def sparse_step(s: State, w: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """On values of existing synapses."""
    lower, upper = lower_upper(s)
    e = DECAY * e + (s.post[:, s.row] * s.pre[:, s.col]).mean(0)
    w = torch.clamp(w + RATE * s.modulator[s.row] * e, lower[s.col], upper[s.col])
    return w.to(s.weight.dtype), e


def in_place(s: State) -> Any:
    """As few passes as torch's own functions allow, nothing allocated but what they need."""
    lower, upper = lower_upper(s)
    rate = (RATE * s.modulator).unsqueeze(1)
    sparse = s.pattern is not None
    if sparse:
        rate, lower, upper = rate[s.row, 0], lower[s.col], upper[s.col]

    def run(w: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        if sparse:
            e.mul_(DECAY).addcmul_(s.post[0][s.row], s.pre[0][s.col])
        elif s.pre.shape[0] == 1:
            e.mul_(DECAY).addr_(s.post[0], s.pre[0])
        else:
            e.addmm_(s.post.t(), s.pre, beta=DECAY, alpha=1 / s.pre.shape[0])
        torch.clamp(w.addcmul_(rate.to(w.dtype), e.to(w.dtype)), lower, upper, out=w)
        return w, e

    if sparse and s.pre.shape[0] != 1:
        raise NotImplementedError("of one sample")
    if s.weight.dtype != s.eligibility.dtype:
        raise NotImplementedError("clamp and addcmul have one dtype")
    return run


def build(impl: str, size: PlasticSize, dtype: torch.dtype, device: str) -> Call:
    """The next weight and eligibility, by

    - synops: three_factor_, in place;
    - functional: three_factor;
    - torch: as it is written, on values with their rows and columns where synapses are few;
    - in_place: the same by torch's functions that write in place;
    - compile: ``torch`` compiled;
    - masked: the dense way with a mask, whatever the density.
    """
    s = State.draw(size, dtype, device)
    sparse = s.pattern is not None
    options = {
        "lr": RATE,
        "trace_decay": DECAY,
        "modulator": s.modulator,
        "clip": (-LIMIT, LIMIT),
        "sign": s.sign,
        "pattern": s.pattern,
    }
    if impl in ("synops", "functional"):
        name = "three_factor_" if impl == "synops" else "three_factor"
        rule = public(f"hebbian.{name}")
        run = lambda w, e: rule(w, e, s.pre, s.post, **options)  # noqa: E731
    elif impl == "torch":
        run = lambda w, e: (sparse_step if sparse else dense_step)(s, w, e)  # noqa: E731
    elif impl == "compile":
        step = torch.compile(sparse_step if sparse else dense_step)
        run = lambda w, e: step(s, w, e)  # noqa: E731
    elif impl == "in_place":
        run = in_place(s)
    elif impl == "masked":
        if not sparse:
            raise NotImplementedError("dense")
        return masked(s)
    else:
        raise ValueError(impl)
    return stepping(run, s.weight, s.eligibility)


def stepping(run: Any, weight: Tensor, eligibility: Tensor) -> Call:
    """Steps from where the last one ended, as in a training; results are those of one step."""
    at = [weight.clone(), eligibility.clone()]

    def step() -> tuple[Tensor, Tensor]:
        at[:] = run(*at)
        return at[0], at[1]

    def one(_: Any) -> tuple[Tensor, ...]:
        return tuple(run(weight.clone(), eligibility.clone()))

    return Call(step, (), outputs=one)


def masked(s: State) -> Call:
    """A dense weight with zeros, the mask multiplied in."""
    weight = s.pattern.scatter(s.weight)
    keep = s.mask.to(weight.dtype)
    dense = s._replace(weight=weight, pattern=None)

    def run(w: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        w, e = dense_step(dense, w, e)
        return w * keep, e * keep

    call = stepping(run, weight, torch.zeros_like(weight))
    gather = lambda out: tuple(s.pattern.gather(t) for t in call.outputs(out))  # noqa: E731
    return Call(call.function, (), outputs=gather)


class ThreeFactor(suite.ForwardSuite):
    """On one thread."""

    op = "hebbian.three_factor"
    impls = ("synops", "torch", "in_place", "compile", "functional")
    table_impls = ("masked",)
    cases = _SIZES
    table_cases = _TABLE

    def build(
        self,
        impl: str,
        size: PlasticSize,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> Call:
        return build(impl, size, dtype, device)


class ThreeFactor2Threads(ThreeFactor):
    """On two."""

    threads = 2
