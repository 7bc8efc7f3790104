"""What lif, alif and cuba_lif share: their ops, and a call of one from checked arguments.

A neuron has a membrane v and perhaps a second state w (an adaptation, a current). The ops take
input, the states before the first step, the parameters, how neurons fire and reset, and what is to
come out; they return spikes, states, what is saved for the backward, and a trajectory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._check import check_float, fail
from .._chunks import chunks
from .._library import Op, refused_gradient, traced
from ._neurons import (
    HALF,
    RESETS,
    SPIKES,
    SURROGATES,
    Layout,
    check_choice,
    check_fraction,
    check_positive,
    in_memory_order,
    parameter_of,
    state_dtype,
    state_of,
    wants_gradient,
)

RULE = 6  # arguments: reset, delayed, inclusive, detach_reset, surrogate, slope
SAVE = {"full": 1, "half": 2}
_NANOSECONDS = 0.5  # of a neuron and step, forward, on one thread


class Result(NamedTuple):
    """What comes out, in the layout of the input."""

    spikes: Tensor
    states: list[Tensor]
    trajectory: Tensor | None


class NeuronOp:
    """The ops ``name`` and ``name_backward``.

    Args:
        name: of the op.
        starts: names of the states before the first step, v0 first.
        parameters: names, beta and threshold first.
        fractions: those of them that lie in [0, 1].
        adaptive: the second state is part of the threshold: what is saved of the membrane is then
            its distance from it.
    """

    def __init__(
        self,
        name: str,
        starts: tuple[str, ...],
        parameters: tuple[str, ...],
        fractions: tuple[str, ...],
        adaptive: bool = False,
    ):
        self.name, self.starts, self.parameters = name, starts, parameters
        self.fractions, self.adaptive = fractions, adaptive
        self.states = len(starts)
        self.leading = 1 + self.states + len(parameters)
        two = self.states - 1
        self.backward = Op(
            f"{name}_backward",
            fake=self._fake_backward,
            **refused_gradient(name),
            leading=3 + 2 * two + self.states + 1 + len(parameters),
        )
        self.op = Op(
            name,
            fake=self._fake,
            setup_context=self._setup,
            backward=self._backward,
            leading=self.leading,
        )

    def _fake(self, input: Tensor, *args: Any) -> tuple[Tensor, ...]:
        spikes, save, *save_second, record = args[self.leading - 1 + RULE :]
        dtype, shape = state_dtype(input), input.shape

        def series(wanted: bool, dtype: torch.dtype = dtype) -> Tensor:
            return input.new_empty(shape if wanted else (0,), dtype=dtype)

        fired = series(True, input.dtype if spikes == 0 else torch.uint8)
        if spikes == SPIKES["bits"]:
            fired = fired.new_empty((*shape[:2], (shape[2] + 7) // 8))
        return (
            fired,
            *(input.new_empty(shape[1:], dtype=dtype) for _ in self.starts),
            series(save > 0, torch.float16 if save == SAVE["half"] else dtype),
            *(series(wanted) for wanted in save_second),
            series(record),
        )

    def _fake_backward(self, *args: Any) -> tuple[Tensor, ...]:
        two = self.states - 1
        membrane, *rest = args[3 + two :]
        half, *needs = args[-1 - self.leading :]
        parameters = rest[two + self.states :][: len(self.parameters)]
        wide = parameters[0].dtype
        dtype = (wide, torch.bfloat16, torch.float16)[half]
        shapes = [membrane.shape, *[membrane.shape[1:]] * self.states]
        shapes += [p.shape for p in parameters]
        return tuple(
            membrane.new_empty(shape if need else (0,), dtype=wide if i else dtype)
            for i, (shape, need) in enumerate(zip(shapes, needs, strict=True))
        )

    def _setup(self, ctx: Any, inputs: Any, output: Any) -> None:
        tensors, rest = inputs[: self.leading], inputs[self.leading :]
        ctx.rule, save, record = rest[:RULE], rest[RULE + 1], rest[-1]
        membrane, *second = output[1 + self.states : -1]
        reset, delayed, *_ = ctx.rule
        ctx.saved = save > 0
        if not save and record and not self.adaptive and _is_membrane(reset, delayed):
            membrane = output[-1]  # the trajectory has the same numbers
            ctx.saved = True
        second = [w if w.dim() == 3 else None for w in second]
        ctx.half = HALF.get(inputs[0].dtype, 0)
        ctx.save_for_backward(membrane, *second, *tensors[1:])
        # What is saved is not marked as without gradient: nothing would refuse a second one.
        ctx.set_materialize_grads(False)

    def _backward(self, ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        of_spikes, *of_states = grads[: 1 + self.states]
        *of_saved, of_trajectory = grads[1 + self.states :]
        for g in of_saved:
            if g is not None and g.numel() and not traced(g):
                raise RuntimeError(
                    f"{self.name}: the saved membrane has no gradient; record a trajectory"
                )
        needs = ctx.needs_input_grad[: self.leading]
        if not ctx.saved:
            raise RuntimeError(f"{self.name}: the membrane was not saved for a backward (save=0)")
        membrane, *rest = ctx.saved_tensors
        nothing = (None,) * (RULE + 2 + self.states)  # spikes, save, save_second, record
        if of_trajectory is not None and of_trajectory.shape != membrane.shape:
            of_trajectory = None  # of what was not recorded
        incoming = (of_spikes, *of_states, of_trajectory)
        if not any(needs) or all(g is None for g in incoming):
            return (*[None] * self.leading, *nothing)
        found = self.backward(
            *incoming, membrane, *rest, *ctx.rule, ctx.half, *needs, backend=ctx.backend
        )
        return (*(g if need else None for g, need in zip(found, needs, strict=True)), *nothing)

    def __call__(
        self,
        input: Tensor,
        starts: tuple[Tensor | None, ...],
        parameters: tuple[float | Tensor, ...],
        *,
        reset: str,
        detach_reset: bool,
        surrogate: str,
        slope: float,
        delayed_reset: bool,
        inclusive: bool,
        spikes: str,
        save: str,
        record: str | None,
        backend: str | None,
    ) -> Result:
        """Checks, and the op on the layout of the input; long runs in pieces."""
        op = self.name
        check_float(op, "input", input)
        if input.dim() < 2:
            fail(ValueError, op, "input", "have shape (T, ..., N)", tuple(input.shape))
        reset_code = check_choice(op, "reset", reset, RESETS)
        surrogate_code = check_choice(op, "surrogate", surrogate, SURROGATES)
        form = check_choice(op, "spikes", spikes, SPIKES)
        save_code = check_choice(op, "save", save, SAVE)
        recorded = record is not None and bool(check_choice(op, "record", record, {"v": 1}))
        check_positive(op, "slope", slope)
        if save_code == SAVE["half"] and input.dtype == torch.float64:
            fail(ValueError, op, "save", "be 'full' for float64 input", repr(save))
        given = []
        for name, value in zip(self.parameters, parameters, strict=True):
            if name in self.fractions:
                check_fraction(op, name, value)
            given.append(parameter_of(op, name, value, input))
        # bits are packed along the last dimension: what lies otherwise is copied
        bits = form == SPIKES["bits"]
        layout = Layout(input.shape[1:], None) if bits else in_memory_order(input)
        states: list[Any] = [
            None if v is None else layout.state(state_of(op, name, v, input))
            for name, v in zip(self.starts, starts, strict=True)
        ]
        wanted = wants_gradient(input, *states, *given)
        if form and wanted and _requires_grad(input, *states, *given):
            fail(ValueError, op, "spikes", "be 'float' where a gradient is needed", repr(spikes))
        if recorded and not self.adaptive and _is_membrane(reset_code, delayed_reset):
            save_code = 0
        tail: list[Any] = [form, save_code if wanted else 0]
        if self.states > 1:
            tail.append(wanted and self._reads_second(given, reset, detach_reset))
        steps = layout.steps(input)
        values = [layout.parameter(p) for p in given]
        rule = (
            reset_code, bool(delayed_reset), bool(inclusive), bool(detach_reset), surrogate_code,
            float(slope),
        )  # fmt: skip
        fired, trajectory = [], []
        for begin, end in chunks(steps.shape[0], _NANOSECONDS * steps.shape[1] * steps.shape[2]):
            piece = steps if end - begin == steps.shape[0] else steps[begin:end]
            s, *rest = self.op(piece, *states, *values, *rule, *tail, recorded, backend=backend)
            states = rest[: self.states]
            fired.append(s)
            trajectory.append(rest[-1])
        one = len(fired) == 1
        all_fired = fired[0] if one else torch.cat(fired)
        if bits:
            all_fired = all_fired.reshape(*input.shape[:-1], all_fired.shape[-1])
        else:
            all_fired = layout.back(all_fired)
        shown = None
        if recorded:
            shown = layout.back(trajectory[0] if one else torch.cat(trajectory))
        return Result(all_fired, [layout.back_state(v) for v in states], shown)

    def _reads_second(self, parameters: list[Tensor], reset: str, detach_reset: bool) -> bool:
        """Whether the backward needs the second states."""
        if not self.adaptive:
            return wants_gradient(*parameters[2:])
        beta, _, *rest = parameters
        return wants_gradient(beta, *rest) or (reset == "zero" and not detach_reset)


def _requires_grad(*tensors: Tensor | None) -> bool:
    return any(t is not None and t.requires_grad for t in tensors)


def _is_membrane(reset: int, delayed: bool) -> bool:
    """Whether the trajectory is that of the membrane before a reset."""
    return bool(delayed) or reset == RESETS["none"]
