"""hebb, oja and bcm as ops, and a call of one: in place or not, with post given or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._library import Op, refused_gradient, traced
from ._plasticity import (
    activity_of,
    check_batch,
    check_in_place,
    check_weight,
    local_of,
    remember,
    settle,
)


class Learned(NamedTuple):
    """What a rule returns that has computed the activities itself (``post=None``).

    Attributes:
        weight: the new weight; the one that came in, if in place.
        post: ``([B,] out)``, weight @ pre of the weight that came in, float32 (float64 for a
            float64 weight).
    """

    weight: Tensor
    post: Tensor


class LocalOp:
    """A rule's two ops. ``states``: tensors (out,) that it changes besides the weight."""

    def __init__(self, name: str, states: int = 0):
        self.name = name
        self._other = "a gain, sign or theta" if states else "a gain or sign"

        def post_of(args: Sequence[Any]) -> Tensor:
            weight, pre, post = args[0], args[1 + states], args[2 + states]
            if post is not None:
                return pre.new_empty(0)
            crow = args[-3]
            return pre.new_empty(
                pre.shape[0], weight.shape[0] if crow is None else crow.shape[0] - 1
            )

        def report(args: Sequence[Any]) -> Tensor:
            return args[0].new_empty((), dtype=torch.int64)

        def fake(*args: Any) -> tuple[Tensor, ...]:
            changed = (
                torch.empty_like(t, memory_format=torch.contiguous_format)
                for t in args[: 1 + states]
            )
            return (*changed, post_of(args), report(args))

        leading = 3 + states  # the weight, states, pre and post
        self._new = Op(name, fake=fake, **refused_gradient(name, "a gradient"), leading=leading)
        self._in_place = Op(f"{name}_", fake=lambda *args: (post_of(args), report(args)))

    def __call__(
        self,
        weight: Tensor,
        states: Sequence[Tensor],
        pre: Tensor,
        post: Tensor | None,
        numbers: Sequence[float],
        *,
        in_place: bool,
        backend: str | None,
        **options: Any,
    ) -> tuple[Tensor, ...]:
        """The new weight, the new states, and post: computed, or as it was given."""
        op = f"{self.name}_" if in_place else self.name
        sign = options["sign"]
        shape = check_weight(op, weight, options["pattern"])
        x = activity_of(op, "pre", pre, shape[1], "in", weight)
        y = None if post is None else activity_of(op, "post", post, shape[0], "out", weight)
        check_batch(op, x, y)
        local = local_of(op, weight, shape, x.shape[0], **options)
        changed: Sequence[Tensor]
        if in_place:
            read = (x, y, local.rate, local.modulator, local.gain_pre, local.gain_post)
            given = [t for t in (*read, local.sign, local.mask) if t is not None]
            check_in_place(op, weight, *states, *given)
            for state in states:
                check_in_place(op, state, *given, name="theta")
            computed, report = self._run_in_place(weight, states, (x, y, *numbers, *local), backend)
            changed = (weight, *states)
        else:
            args = (weight, *states, x, y, *numbers, *local)
            *changed, computed, report = self._new(*args, backend=backend)
        settle(op, report, other=self._other)
        remember(changed[0], sign)
        if post is None:
            post = computed if pre.dim() == 2 else computed.squeeze(0)
        return (*changed, post)

    def _run_in_place(
        self, weight: Tensor, states: Sequence[Tensor], rest: Sequence[Any], backend: str | None
    ) -> tuple[Tensor, Tensor]:
        written = weight.is_contiguous() or (
            weight.dim() == 2 and weight.stride(1) == 1 and weight.stride(0) >= weight.shape[1]
        )
        target = weight if written else weight.detach().contiguous()
        computed, report = self._in_place(target, *states, *rest, backend=backend)
        if not written:  # another layout, transposed say
            weight.copy_(target)
        if not traced(weight):
            torch.autograd.graph.increment_version([weight, *states])
        return computed, report
