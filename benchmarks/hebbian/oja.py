"""oja in place: the update alone, and forward and update in one."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..common import suite
from ..common.call import Call
from ..common.public import public
from .hebb import LR, Inputs, UpdateSize, in_place


def _in_place(weight: Tensor, pre: Tensor, post: Tensor) -> Tensor:
    lost = 1 - LR * post.square().mean(0)
    return weight.mul_(lost[:, None]).addmm_(post.t(), pre, alpha=LR / len(pre))


def _as_written(weight: Tensor, pre: Tensor, post: Tensor) -> Tensor:
    weight += LR * (post.t() @ pre - post.square().sum(0)[:, None] * weight) / len(pre)
    return weight


def _with_forward(update: Any) -> Any:
    return lambda weight, pre, post: update(weight, pre, pre @ weight.t())


class Oja(suite.ForwardSuite):
    """On one thread. Cases with "forward" compute the activities, too."""

    op = "hebbian.oja"
    impls = ("synops", "torch", "as_written", "compile", "add", "forward")
    cases: ClassVar[dict[str, UpdateSize]] = {
        "1x4096x4096": UpdateSize(1, 4096, 4096),
        "1x1024x1024": UpdateSize(1, 1024, 1024),
        "1x300x784": UpdateSize(1, 300, 784),
        "32x1024x1024": UpdateSize(32, 1024, 1024),
        "32x4096x4096": UpdateSize(32, 4096, 4096),
        "256x1024x1024": UpdateSize(256, 1024, 1024),
        "256x4096x4096": UpdateSize(256, 4096, 4096),
        "1x4096x4096 forward": UpdateSize(1, 4096, 4096, forward=True),
        "1x1024x1024 forward": UpdateSize(1, 1024, 1024, forward=True),
        "1x8x16": UpdateSize(1, 8, 16),
    }

    def build(
        self,
        impl: str,
        size: UpdateSize,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> Call:
        """The update in place, by

        - synops;
        - torch: mul_ and addmm_;
        - as_written: W += lr * (post.T @ pre - (post**2).sum(0) * W) / B; compile: of it;
        - add: W.add_(number), a pass over the weight and nothing else;
        - forward: pre @ W.T alone.
        """
        given = Inputs.draw(size, dtype, device)
        if impl == "add":
            return Call(lambda: given.weight.add_(0.0), (), outputs=lambda _: ())
        if impl == "forward":
            return Call(lambda: given.pre @ given.weight.t(), (), outputs=lambda _: ())
        if impl == "synops":
            oja_ = public("hebbian.oja_")
            if size.forward:
                return in_place(lambda w, x, y: oja_(w, x, lr=LR), *given)
            return in_place(lambda w, x, y: oja_(w, x, y, lr=LR), *given)
        update: Any = {
            "torch": lambda: _in_place,
            "as_written": lambda: _as_written,
            "compile": lambda: torch.compile(_as_written),
        }[impl]()
        return in_place(_with_forward(update) if size.forward else update, *given)


class Oja2Threads(Oja):
    """On two."""

    threads = 2
