"""hebb in place: against addmm_, and on a Pattern against a sampled product."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ..common import suite
from ..common.call import Call
from ..common.public import public

LR = 1e-4


class UpdateSize(NamedTuple):
    """A weight (rows, cols), dense or on a random Pattern, and samples."""

    batch: int
    rows: int
    cols: int
    density: float = 1.0
    forward: bool = False  # activities are computed in the call

    @property
    def work(self) -> int:
        """Multiply-adds."""
        return int(self.batch * self.rows * self.cols * self.density)


class Inputs(NamedTuple):
    """What an update reads; ``weight`` is its own for each implementation."""

    weight: Tensor
    pre: Tensor
    post: Tensor

    @classmethod
    def draw(cls, size: UpdateSize, dtype: torch.dtype, device: str) -> Inputs:
        generator = torch.Generator().manual_seed(0)
        random = lambda *shape: torch.randn(shape, generator=generator).to(device, dtype)  # noqa: E731
        weight = random(size.rows, size.cols) * size.cols**-0.5
        return cls(weight, random(size.batch, size.cols), random(size.batch, size.rows))

    def pattern(self, density: float) -> Any:
        """A random one of the weight's shape."""
        kept = torch.rand(self.weight.shape, generator=torch.Generator().manual_seed(1)) < density
        return public("sparse.Pattern").from_mask(kept)


def in_place(update: Any, weight: Tensor, *rest: Any) -> Call:
    """``update(weight, *rest)`` time and again; compared is what one call makes of the weight."""
    start = weight.clone()

    def once(_: Any) -> tuple[Tensor, ...]:
        again = start.clone()
        update(again, *rest)
        return (again,)

    return Call(lambda: update(weight, *rest), (), outputs=once)


def _addmm(weight: Tensor, pre: Tensor, post: Tensor) -> Tensor:
    return weight.addmm_(post.t(), pre, alpha=LR / len(pre))


def _as_written(weight: Tensor, pre: Tensor, post: Tensor) -> Tensor:
    weight += LR * (post.t() @ pre) / len(pre)
    return weight


def _sampled(pattern: Any) -> Any:
    """Values of a CSR tensor, which has to be made around them."""

    def update(values: Tensor, pre: Tensor, post: Tensor) -> Tensor:
        with warnings.catch_warnings():  # of sparse CSR being in beta
            warnings.simplefilter("ignore")
            csr = torch.sparse_csr_tensor(pattern.crow, pattern.col, values, pattern.shape)
            new = torch.sparse.sampled_addmm(csr, post.t(), pre, alpha=LR / len(pre))
        return values.copy_(new.values())

    return update


class Hebb(suite.ForwardSuite):
    """On one thread. add is W.add_(number): a pass over the weight and nothing else."""

    op = "hebbian.hebb"
    impls = ("synops", "torch", "as_written", "compile", "add")
    cases: ClassVar[dict[str, UpdateSize]] = {
        "1x4096x4096": UpdateSize(1, 4096, 4096),
        "1x1024x1024": UpdateSize(1, 1024, 1024),
        "1x300x784": UpdateSize(1, 300, 784),
        "32x1024x1024": UpdateSize(32, 1024, 1024),
        "32x4096x4096": UpdateSize(32, 4096, 4096),
        "256x1024x1024": UpdateSize(256, 1024, 1024),
        "256x4096x4096": UpdateSize(256, 4096, 4096),
        "32x4096x4096 d=.1": UpdateSize(32, 4096, 4096, 0.1),
        "32x1024x1024 d=.1": UpdateSize(32, 1024, 1024, 0.1),
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
        - torch: addmm_; on a Pattern torch.sparse.sampled_addmm;
        - as_written: W += lr * (post.T @ pre) / B; compile: torch.compile of it;
        - add: W.add_(number).
        """
        given = Inputs.draw(size, dtype, device)
        if impl == "add":
            return Call(lambda: given.weight.add_(0.0), (), outputs=lambda _: ())
        if size.density < 1:
            pattern = given.pattern(size.density)
            values = pattern.gather(given.weight)
            if impl == "synops":
                hebb_ = public("hebbian.hebb_")
                update = lambda w, x, y: hebb_(w, x, y, lr=LR, pattern=pattern)  # noqa: E731
                return in_place(update, values, *given[1:])
            if impl == "torch":
                return in_place(_sampled(pattern), values, *given[1:])
            raise NotImplementedError("on a dense weight only")
        if impl == "synops":
            hebb_ = public("hebbian.hebb_")
            return in_place(lambda w, x, y: hebb_(w, x, y, lr=LR), *given)
        if impl == "torch":
            return in_place(_addmm, *given)
        if impl == "as_written":
            return in_place(_as_written, *given)
        if impl == "compile":
            return in_place(torch.compile(_as_written), *given)
        raise ValueError(impl)


class Hebb2Threads(Hebb):
    """On two."""

    threads = 2
