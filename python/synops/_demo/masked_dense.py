"""Dynamic sparse training as it is written today: dense weights, masked after every step.

What the codes of GraNet and RigL compute, in plain torch, for the demo to time and the tests to
compare with: the gradient and the momentum are dense, a mask is multiplied into weights and
momentum behind each step of the optimizer, and an update of the masks sorts whole layers.

Source: S. Liu et al., arXiv:2106.10404 (GraNet); U. Evci et al., arXiv:1911.11134 (RigL).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import nn

from ..nn import SparseLinear


class MaskedDense:
    """A network of dense layers whose weights are 0 outside their masks.

    Attributes:
        network: copies of the given layers; dense.
        masks: 0 and 1, in the dtype of the weights.
        weights: the masked Parameters.
    """

    def __init__(self, network: nn.Sequential):
        """Takes weights and masks from the sparse layers of a network."""
        sparse = [m for m in network if isinstance(m, SparseLinear)]
        self.network = nn.Sequential(
            *[m.to_linear() if isinstance(m, SparseLinear) else copy.deepcopy(m) for m in network]
        )
        dense: list[nn.Linear] = [m for m in self.network if isinstance(m, nn.Linear)]
        self.weights = [layer.weight for layer in dense]
        self.masks = [layer.pattern.mask().to(layer.values.dtype) for layer in sparse]

    @torch.no_grad()
    def project(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Masks the weights and, with an optimizer, its momentum."""
        for weight, mask in zip(self.weights, self.masks, strict=True):
            weight.mul_(mask)
            momentum = optimizer.state[weight].get("momentum_buffer") if optimizer else None
            if momentum is not None:
                momentum.mul_(mask)

    @torch.no_grad()
    def prune(self, keep: int) -> None:
        """The ``keep`` largest weights of all layers together stay."""
        if keep < sum(int(mask.sum()) for mask in self.masks):
            sizes = torch.cat([w.abs().flatten() for w in self.weights])
            below = sizes.sort(descending=True).values[keep]
            self.masks = [(w.abs() > below).to(w.dtype) for w in self.weights]

    @torch.no_grad()
    def regenerate(self, counts: Sequence[int]) -> None:
        """In each layer so many of the smallest weights go, and as many of the absent ones come:
        those with the largest gradients."""
        for i, (weight, count) in enumerate(zip(self.weights, counts, strict=True)):
            flat = self.masks[i].clone().flatten()
            absent = flat.numel() - int(flat.sum())
            flat[weight.abs().flatten().sort().indices[: absent + count]] = 0
            assert weight.grad is not None
            scores = weight.grad.abs().flatten().masked_fill(flat > 0, -1)
            flat[scores.sort(descending=True).indices[:count]] = 1
            self.masks[i] = flat.view_as(weight)


def granet_density(update: int, updates: int, initial: float, final: float) -> float:
    """After ``update`` of as many as the fall takes: a cubic."""
    return final + (initial - final) * (1 - min(1.0, update / updates)) ** 3


def cosine(step: int, steps: int, rate: float, least: float = 0.0) -> float:
    """A rate that falls from the first to the last step."""
    return least + (rate - least) * (1 + math.cos(math.pi * step / steps)) / 2


class GraNet:
    """Updates of a :class:`MaskedDense`, in the order of GraNet's code.

    Three things differ from it, as they do in :class:`synops.nn.DynamicSparsity`: of K weights that
    are to be kept K are kept (there K - 1: the smallest of them is the threshold, and is not above
    itself); the fall of the density ends at the final one (there one update before it); and where
    too few gradients are not 0, edges of gradient 0 grow (there, kept ones are taken for them, and
    the layer loses edges).

    Args:
        updates: of the fall of the density.
        interval: steps between updates.
        steps: of the training.
    """

    def __init__(
        self,
        masked: MaskedDense,
        optimizer: torch.optim.Optimizer,
        *,
        densities: tuple[float, float],
        updates: int,
        interval: int,
        steps: int,
    ):
        self._masked, self._optimizer = masked, optimizer
        self._densities, self._updates, self._interval = densities, updates, interval
        self._all_steps = steps
        self.steps = 0

    def step(self) -> bool:
        """Behind each step of the optimizer."""
        masked = self._masked
        masked.project(self._optimizer)
        self.steps += 1
        if self.steps % self._interval:
            return False
        density = granet_density(self.steps // self._interval, self._updates, *self._densities)
        masked.prune(int(density * sum(w.numel() for w in masked.weights)))
        masked.project(self._optimizer)
        rate = cosine(self.steps, self._all_steps, 0.5, 0.005)
        masked.regenerate([math.ceil(rate * int(mask.sum())) for mask in masked.masks])
        masked.project(self._optimizer)
        return True


class RigL:
    """Updates of a :class:`MaskedDense` as in RigL's code, which keeps no momentum where an edge is
    new: the masked one is 0 there.

    (That code moves edges in the place of a step of the optimizer; here, as in GraNet's and in
    :class:`synops.nn.DynamicSparsity`, behind one.)

    Args:
        interval: steps between updates.
        end: the last step of updates.
    """

    def __init__(
        self, masked: MaskedDense, optimizer: torch.optim.Optimizer, *, interval: int, end: int
    ):
        self._masked, self._optimizer = masked, optimizer
        self._interval, self._end = interval, end
        self.steps = 0

    def step(self) -> bool:
        """Behind each step of the optimizer."""
        masked = self._masked
        masked.project(self._optimizer)
        self.steps += 1
        if self.steps % self._interval or self.steps > self._end:
            return False
        rate = cosine(self.steps, self._end, 0.3)
        masked.regenerate([int(rate * int(mask.sum())) for mask in masked.masks])
        masked.project(self._optimizer)
        return True
