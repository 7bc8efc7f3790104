"""bcm in place: the update alone."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..common import suite
from ..common.call import Call
from ..common.public import public
from .hebb import LR, Inputs, UpdateSize, in_place

TAU = 100.0


def _in_place(weight: Tensor, pre: Tensor, post: Tensor, theta: Tensor) -> Tensor:
    weight.addmm_((post * (post - theta)).t(), pre, alpha=LR / len(pre))
    theta.lerp_(post.square().mean(0), 1 / TAU)
    return weight


class BCM(suite.ForwardSuite):
    """On one thread."""

    op = "hebbian.bcm"
    impls = ("synops", "torch", "compile")
    cases: ClassVar[dict[str, UpdateSize]] = {
        "1x4096x4096": UpdateSize(1, 4096, 4096),
        "1x1024x1024": UpdateSize(1, 1024, 1024),
        "32x1024x1024": UpdateSize(32, 1024, 1024),
        "1x8x16": UpdateSize(1, 8, 16),
    }

    def build(
        self,
        impl: str,
        size: UpdateSize,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> Call:
        """Weight and threshold in place, by synops; torch: addmm_ and lerp_; compile: of that."""
        given = Inputs.draw(size, dtype, device)
        theta = torch.ones(size.rows, device=device, dtype=dtype)

        if impl == "synops":
            bcm_ = public("hebbian.bcm_")
            run = lambda w, x, y: bcm_(w, theta, x, y, tau=TAU, lr=LR)  # noqa: E731
        elif impl in ("torch", "compile"):
            update = torch.compile(_in_place) if impl == "compile" else _in_place
            run = lambda w, x, y: update(w, x, y, theta)  # noqa: E731
        else:
            raise ValueError(impl)
        call, start = in_place(run, *given), theta.clone()

        def once(_: object) -> tuple[Tensor, ...]:
            theta.copy_(start)
            return call.outputs(None)

        return Call(call.function, (), outputs=once)


class BCM2Threads(BCM):
    """On two."""

    threads = 2
