"""The experiment of GraNet, on digits: dense, and a tenth of the edges by three methods.

Source: S. Liu et al., "Sparse Training via Boosting Pruning Plasticity with Neuroregeneration",
NeurIPS 2021, arXiv:2106.10404; RigL: U. Evci et al., arXiv:1911.11134.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import mean

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..nn import DynamicSparsity, SparseLinear
from . import lenet
from .digits import Digits
from .lottery_ticket import accuracy

METHODS = ("dense", "granet", "rigl", "static")
DENSITY = 0.1
BATCH = 100
INTERVAL = 40  # steps: edges move once an epoch


@dataclass
class Course:
    """What was found of one training.

    Attributes:
        accuracies: fraction of the test digits, after each epoch.
        before, after: ``(28, 28)``, edges of the first layer by pixel; None where it is dense.
    """

    accuracies: list[float] = field(default_factory=list)
    before: Tensor | None = None
    after: Tensor | None = None

    @property
    def final(self) -> float:
        """Mean accuracy after the last three epochs."""
        return mean(self.accuracies[-3:])


def initial(seed: int) -> nn.Sequential:
    """784-300-100-10, as nn.Linear initialises it."""
    torch.manual_seed(seed)
    return lenet.chain([nn.Linear(*shape) for shape in pairwise(lenet.WIDTHS)])


def sgd(network: nn.Module) -> torch.optim.SGD:
    """The optimizer of the experiment."""
    return torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True)


def batches(digits: Digits, seed: int, epoch: int) -> list[tuple[Tensor, Tensor]]:
    """An epoch, in an order fixed by seed and epoch."""
    generator = torch.Generator().manual_seed(1000 * seed + epoch)
    order = torch.randperm(len(digits.train_y), generator=generator)
    x, y = digits.train_x[order], digits.train_y[order]
    return list(zip(x.split(BATCH), y.split(BATCH), strict=True))


def train_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: list[tuple[Tensor, Tensor]],
    after_step: Callable[[], object] | None,
) -> None:
    """One pass over the batches; gradients are there until the next step."""
    for x, y in epoch:
        optimizer.zero_grad()
        cross_entropy(network(x), y).backward()
        optimizer.step()
        if after_step is not None:
            after_step()


def edges_by_pixel(network: nn.Sequential) -> Tensor | None:
    """``(28, 28)``: how many edges leave each input of the first layer."""
    first = network[0]
    return first.pattern.mask().sum(0).view(28, 28) if isinstance(first, SparseLinear) else None


def train(
    network: nn.Sequential, method: str, digits: Digits, seed: int, epochs: int, course: Course
) -> Iterator[None]:
    """Trains, in place, and writes down the course; yields after each epoch."""
    optimizer, sparsity = sgd(network), None
    if method != "dense":
        steps = epochs * INTERVAL
        sparsity = DynamicSparsity(
            network, optimizer, method, density=DENSITY, total_steps=steps, interval=INTERVAL
        )
    course.before = edges_by_pixel(network)
    for epoch in range(epochs):
        after_step = None if sparsity is None else sparsity.step
        train_epoch(network, optimizer, batches(digits, seed, epoch), after_step)
        if sparsity is not None:
            sparsity.compact_()  # GraNet's edges have become fewer
        course.accuracies.append(accuracy(network, digits))
        yield
    course.after = edges_by_pixel(network)
