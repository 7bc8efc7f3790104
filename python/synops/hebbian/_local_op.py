"""hebb, oja and bcm as ops, and a call of one: in place or not, with post given or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _backend
from .._library import Op, refused_gradient, traced
from ._in_place import PLAIN, as_it_is, check_written
from ._plasticity import (
    activity_of,
    check_batch,
    check_weight,
    local_of,
    remember,
    settle,
)

_WIDE = (torch.float32, torch.float64)
# From modulator on, in the order of the schema: no bounds and no factors, the mean over samples.
_NOTHING_ELSE = (None, None, None, -math.inf, math.inf, None, False, None, None, None, True)


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
        if in_place and not states and backend is None:
            known = self._at_once(weight, pre, post, **options)
            if known is not None:
                return weight, known
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
            written = {"weight": weight, "theta": states[0] if states else None}
            check_written(op, written, (*read, local.sign, local.mask))
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

    def _at_once(
        self,
        weight: Tensor,
        pre: Tensor,
        post: Tensor | None,
        *,
        lr: Any,
        decay: Any,
        modulator: Any,
        gain_pre: Any,
        gain_post: Any,
        clip: Any,
        sign: Any,
        mask: Any,
        pattern: Any,
        reduction: Any,
    ) -> Tensor | None:
        """post, after the plainest of calls: numbers, and tensors that C++ takes as they are.

        None: everything else, which is for ``__call__`` to convert or to refuse. 8.6 us a call
        where that takes 14; C++ checks that the weight shares no memory with what it reads.
        """
        native = self._in_place.native
        if torch.compiler.is_compiling() or native is None or _backend._requested != "auto":
            return None
        if not (modulator is gain_pre is gain_post is clip is sign is mask is pattern is None):
            return None
        if type(lr) is not float or type(decay) is not float or not math.isfinite(lr):
            return None
        if not (0 <= decay <= 1 and reduction == "mean"):
            return None
        if not (type(weight) in PLAIN and type(pre) in PLAIN and weight.is_cpu and pre.is_cpu):
            return None
        dtype, shape = weight.dtype, weight.shape
        if dtype not in _WIDE or len(shape) != 2 or not weight.is_contiguous():
            return None
        if pre.dtype is not dtype or (weight.requires_grad and torch.is_grad_enabled()):
            return None
        x = pre if pre.dim() == 2 else pre.unsqueeze(0) if pre.dim() == 1 else None
        if x is None or x.shape[1] != shape[1]:
            return None
        y = post
        if post is not None:
            if type(post) not in PLAIN or post.dtype is not dtype or not post.is_cpu:
                return None
            y = post if post.dim() == 2 else post.unsqueeze(0) if post.dim() == 1 else None
            if y is None or y.shape[1] != shape[0] or y.shape[0] != x.shape[0]:
                return None
        output = native(weight, x, y, lr, None, decay, *_NOTHING_ELSE)
        if output is NotImplemented:  # a mode, a transform
            return None
        computed, report = output
        torch.autograd.graph.increment_version(weight)
        settle(f"{self.name}_", report, other=self._other)
        return post if post is not None else computed if pre.dim() == 2 else computed.squeeze(0)

    def _run_in_place(
        self, weight: Tensor, states: Sequence[Tensor], rest: Sequence[Any], backend: str | None
    ) -> tuple[Tensor, Tensor]:
        written = as_it_is(weight)
        target = weight if written else weight.detach().contiguous()
        computed, report = self._in_place(target, *states, *rest, backend=backend)
        if not written:  # another layout, transposed say
            weight.copy_(target)
        if not traced(weight):
            torch.autograd.graph.increment_version([weight, *states])
        return computed, report
