"""An implementation together with its inputs: what a benchmark runs and what is checked of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]


def _alone(output: Any) -> Tensors:
    return (output,)


def _as_they_are(*grads: Tensor) -> Tensors:
    return grads


@dataclass(frozen=True)
class Call:
    """``function(*inputs)``, forward or with the gradients of all inputs.

    Attributes:
        function: the implementation.
        inputs: its arguments, none of which requires a gradient; none for what has no gradient.
        outputs, gradients: bring what comes out into the form that all implementations of an op
            share (a dense gradient to the kept entries, say), for the error column; never timed.
            Where an implementation computes something else (the gradient of another loss), it has
            fewer of them, the first ones.
    """

    function: Callable[..., Any]
    inputs: Tensors
    outputs: Callable[[Any], Tensors] = _alone
    gradients: Callable[..., Tensors] = _as_they_are

    @cached_property
    def _leaves(self) -> Tensors:
        return tuple(t.detach().requires_grad_() for t in self.inputs)

    @cached_property
    def _grad_output(self) -> Tensor:
        output = self.forward()
        grad = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
        return grad.to(output)

    def prepare(self) -> None:
        """Runs both passes where it can, so that what happens once has happened."""
        self.forward()
        if self.inputs and all(t.is_floating_point() for t in self.inputs):
            self.forward_backward()

    def forward(self) -> Any:
        """The function alone: no input requires a gradient."""
        return self.function(*self.inputs)

    def forward_backward(self) -> Tensors:
        """The function and the gradients of every input."""
        output = self.function(*self._leaves)
        return torch.autograd.grad(output, self._leaves, self._grad_output)

    def results(self, mode: str) -> Tensors:
        """What ``mode``, "forward" or "forward_backward", computes, in the shared form."""
        outputs = self.outputs(self.forward())
        if mode == "forward":
            return outputs
        return outputs + self.gradients(*self.forward_backward())


def largest_error(got: Tensors, exact: Tensors) -> float:
    """Largest absolute difference of any tensor, relative to the largest entry of that tensor."""
    worst = 0.0
    for g, e in zip(got, exact, strict=True):
        if e.numel():
            scale = float(e.abs().max()) or 1.0
            worst = max(worst, float((g.to(e.dtype) - e).abs().max()) / scale)
    return worst
