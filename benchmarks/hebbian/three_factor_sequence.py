"""three_factor_sequence: 100 steps of a three-factor rule in one call, against loops over steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..common import suite
from ..common.call import Call
from ..common.public import public
from .three_factor import (
    DECAY,
    LIMIT,
    RATE,
    PlasticSize,
    State,
    dense_step,
    lower_upper,
    sparse_step,
    stepping,
)


class SequenceSize(NamedTuple):
    """Steps, and the size of one."""

    steps: int
    step: PlasticSize

    @property
    def work(self) -> int:
        """Multiply-adds."""
        return self.steps * self.step.work


_SIZES: dict[str, SequenceSize] = {
    "100x1x1024x1024": SequenceSize(100, PlasticSize(1, 1024, 1024)),
    "100x1x300x784": SequenceSize(100, PlasticSize(1, 300, 784)),
    "100x32x1024x1024": SequenceSize(100, PlasticSize(32, 1024, 1024)),
    "100x1x1024x1024 d=.1": SequenceSize(100, PlasticSize(1, 1024, 1024, 0.1)),
    "100x1x8x8": SequenceSize(100, PlasticSize(1, 8, 8)),
}
_TABLE = {
    "100x1x4096x4096": SequenceSize(100, PlasticSize(1, 4096, 4096)),
    "100x1x1024x1024 bf16": SequenceSize(100, PlasticSize(1, 1024, 1024, 1.0, torch.bfloat16)),
}


class Run(NamedTuple):
    """What a run takes: the state of a step, and activities and modulators of all."""

    state: State
    pre: Tensor  # (T, B, in)
    post: Tensor
    modulator: Tensor  # (T, out)

    @classmethod
    def draw(cls, size: SequenceSize, dtype: torch.dtype, device: str) -> Run:
        state = State.draw(size.step, dtype, device)
        generator = torch.Generator().manual_seed(1)
        random = lambda *n: torch.rand(size.steps, *n, generator=generator).to(device, dtype)  # noqa: E731
        batch, rows, cols = size.step.batch, size.step.outputs, size.step.inputs
        return cls(state, random(batch, cols), random(batch, rows), random(rows) * 2 - 1)

    def step(self, t: int) -> State:
        return self.state._replace(pre=self.pre[t], post=self.post[t], modulator=self.modulator[t])


def in_place(run: Run) -> Any:
    """As few passes a step as torch's own functions allow, and nothing allocated but for a row."""
    s = run.state
    lower, upper = lower_upper(s)
    sparse, batch = s.pattern is not None, s.pre.shape[0]
    if sparse:
        if batch != 1:
            raise NotImplementedError("of one sample")
        lower, upper = lower[s.col], upper[s.col]
    if s.weight.dtype != s.eligibility.dtype:
        raise NotImplementedError("clamp and addcmul have one dtype")

    def steps(w: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        for pre, post, modulator in zip(run.pre, run.post, run.modulator, strict=True):
            rate = RATE * modulator
            if sparse:
                e.mul_(DECAY).addcmul_(post[0][s.row], pre[0][s.col])
            elif batch == 1:
                e.mul_(DECAY).addr_(post[0], pre[0])
            else:
                e.addmm_(post.t(), pre, beta=DECAY, alpha=1 / batch)
            w.addcmul_(rate[s.row] if sparse else rate.unsqueeze(1), e)
            torch.clamp(w, lower, upper, out=w)
        return w, e

    return steps


def build(impl: str, size: SequenceSize, dtype: torch.dtype, device: str) -> Call:
    """Weight and eligibility after all steps, in place but for ``torch`` and ``compile``, by

    - synops: three_factor_sequence_;
    - steps: three_factor_, a step at a time;
    - torch: as it is written, likewise;
    - in_place: the same by torch's functions that write in place;
    - compile: a step of ``torch``, compiled.
    """
    run = Run.draw(size, dtype, device)
    s = run.state
    options = {
        "lr": RATE,
        "trace_decay": DECAY,
        "clip": (-LIMIT, LIMIT),
        "sign": s.sign,
        "pattern": s.pattern,
    }
    if impl == "synops":
        rule = public("hebbian.three_factor_sequence_")

        def steps(w: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
            return rule(w, e, run.pre, run.post, modulator=run.modulator, **options)
    elif impl == "steps":
        one = public("hebbian.three_factor_")

        def steps(w: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
            for pre, post, m in zip(run.pre, run.post, run.modulator, strict=True):
                one(w, e, pre, post, modulator=m, **options)
            return w, e
    elif impl in ("torch", "compile"):
        written = dense_step if s.pattern is None else sparse_step
        step = written if impl == "torch" else torch.compile(written)

        def steps(w: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
            for t in range(size.steps):
                w, e = step(run.step(t), w, e)
            return w, e
    elif impl == "in_place":
        steps = in_place(run)
    else:
        raise ValueError(impl)
    return stepping(steps, s.weight, s.eligibility)


class ThreeFactorSequence(suite.ForwardSuite):
    """On one thread."""

    op = "hebbian.three_factor_sequence"
    impls = ("synops", "in_place", "steps", "torch", "compile")
    baseline = "in_place"
    cases = _SIZES
    table_cases = _TABLE

    def build(
        self,
        impl: str,
        size: SequenceSize,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> Call:
        return build(impl, size, dtype, device)


class ThreeFactorSequence2Threads(ThreeFactorSequence):
    """On two."""

    threads = 2
