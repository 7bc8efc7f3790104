"""The lottery ticket experiment: prune, go back to the start, train again.

A network starts at theta0 and is trained. The smallest of its remaining weights are dropped, layer
by layer; the others go back to theta0 and are trained again: a ticket, if it learns as well as the
whole network. Its controls have the same number of weights in every layer: the same mask with
weights drawn anew, and a random mask with the weights of theta0.

Source: J. Frankle and M. Carbin, "The Lottery Ticket Hypothesis", ICLR 2019, arXiv:1803.03635.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .digits import Digits
from .lenet import Masks

DROP = (0.2, 0.2, 0.1)  # of the remaining weights of each layer, a round
LEARNING_RATE = 0.1
BATCH = 60

Batches = list[tuple[Tensor, Tensor]]


class Accuracies(NamedTuple):
    """Fraction of the test digits."""

    early: float  # after 2 epochs
    final: float  # mean of the last 3 epochs


@dataclass
class Level:
    """What was found after a number of rounds of pruning.

    Attributes:
        masks: of the first seed; the density is the same for all of them.
        found: by "ticket", "re-init" or "random", an entry a seed.
    """

    masks: Masks
    found: dict[str, list[Accuracies]] = field(default_factory=dict)

    @property
    def density(self) -> float:
        """Remaining fraction of the weights of the network."""
        return sum(int(m.count_nonzero()) for m in self.masks) / sum(m.numel() for m in self.masks)

    def final(self, curve: str) -> float:
        """Mean accuracy at the end of training."""
        return mean(a.final for a in self.found[curve])

    def early(self, curve: str) -> float:
        """Mean accuracy after 2 epochs."""
        return mean(a.early for a in self.found[curve])


def prune(kept: list[Tensor], masks: Masks, drop: Sequence[float] = DROP) -> Masks:
    """The masks without the smallest ``drop`` of the remaining weights of each layer."""
    smaller = []
    for values, mask, fraction in zip(kept, masks, drop, strict=True):
        keep = torch.ones_like(values, dtype=torch.bool)
        keep[values.abs().argsort()[: round(fraction * len(values))]] = False
        smaller.append(mask.masked_scatter(mask, keep))
    return smaller


def random_masks(masks: Masks, seed: int) -> Masks:
    """Masks with as many weights in every layer, anywhere."""
    generator = torch.Generator().manual_seed(seed)
    return [
        mask.flatten()[torch.randperm(mask.numel(), generator=generator)].view_as(mask)
        for mask in masks
    ]


def batches(digits: Digits, seed: int, epoch: int) -> Batches:
    """An epoch in batches of 60, in an order fixed by seed and epoch."""
    generator = torch.Generator().manual_seed(1000 * seed + epoch)
    order = torch.randperm(len(digits.train_y), generator=generator)
    x, y = digits.train_x[order], digits.train_y[order]
    return list(zip(x.split(BATCH), y.split(BATCH), strict=True))


def train_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: Batches,
    after_step: Callable[[], None] | None = None,
) -> None:
    """One pass over the batches."""
    for x, y in epoch:
        cross_entropy(network(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        if after_step is not None:
            after_step()


def sgd(network: nn.Module) -> torch.optim.SGD:
    """The optimizer of the experiment."""
    return torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)


@torch.no_grad()
def accuracy(network: nn.Module, digits: Digits) -> float:
    """Fraction of the test digits that are recognised."""
    return float((network(digits.test_x).argmax(1) == digits.test_y).float().mean())


def train(network: nn.Module, digits: Digits, seed: int, epochs: int) -> Iterator[float]:
    """Trains, and yields the accuracy after epoch 2 and after the last 3; nan after the others."""
    optimizer = sgd(network)
    for epoch in range(epochs):
        train_epoch(network, optimizer, batches(digits, seed, epoch))
        wanted = epoch == 1 or epoch >= epochs - 3
        yield accuracy(network, digits) if wanted else float("nan")


def summary(history: Sequence[float]) -> Accuracies:
    """Of what :func:`train` yielded."""
    last = history[-3:]
    return Accuracies(history[1], sum(last) / len(last))
