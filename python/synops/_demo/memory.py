"""The memory of reservoirs whose inhibition is set for all units at once, or for each."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..nn import EIReservoir

WASHOUT, TRAIN, DELAYS = 200, 1500, 60
BALANCES = (-1.0, -0.5, -0.2, 0.0, 0.2, 0.5)  # inhibition sums to 1 - balance, excitation to 1
TARGET, DELTA, ADAPTING = 0.5, 1e-3, 4000


class Memory(NamedTuple):
    """Squared correlations of inputs with their readouts, by delay from 1 on."""

    by_balance: dict[float, Tensor]
    designed: Tensor
    adapted: Tensor

    @property
    def best(self) -> float:
        """The balance with the largest capacity."""
        return max(self.by_balance, key=lambda b: float(self.by_balance[b].sum()))


def sequence(seed: int, steps: int) -> Tensor:
    """Uniform in [-1, 1], (T, 1)."""
    return torch.rand(steps, 1, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def recalled(network: EIReservoir, u: Tensor) -> Tensor:
    """(delays,): how much of the input so many steps ago a ridge readout gives back."""
    rates = network(u).rates
    x = torch.cat([rates, rates.new_ones(len(rates), 1)], 1).double()
    delays = range(1, DELAYS + 1)
    y = torch.stack([u.roll(d, 0)[WASHOUT:, 0] for d in delays], 1).double()
    gram = x[:TRAIN].T @ x[:TRAIN]
    gram.diagonal()[:-1] += 1e-6
    readout = torch.linalg.solve(gram, x[:TRAIN].T @ y[:TRAIN])
    got, want = x[TRAIN:] @ readout, y[TRAIN:]
    got, want = got - got.mean(0), want - want.mean(0)
    norm = got.square().sum(0) * want.square().sum(0)
    return (got * want).sum(0).square() / norm.clamp_min(1e-30)


def measure(seed: int) -> Memory:
    """Of one network, by every way to set its inhibition."""
    u = sequence(1000 + seed, WASHOUT + TRAIN + 800)

    def network(balance: float = 0.0) -> EIReservoir:
        return EIReservoir(1, 500, balance=balance, generator=seed, washout=WASHOUT)

    designed, adapted = network(), network()
    designed.design_(target=TARGET)
    adapted.adapt_(sequence(1500 + seed, ADAPTING), target=TARGET, delta=DELTA)
    return Memory(
        {b: recalled(network(b), u) for b in BALANCES},
        recalled(designed, u),
        recalled(adapted, u),
    )
