"""Reservoirs whose inhibition is balanced unit by unit: memory, NARMA-10, the Santa Fe laser.

    python examples/ei_reservoir.py            # memory capacity and NARMA-10, half a minute
    python examples/ei_reservoir.py --laser    # and the laser, from reservoirpy's data set

500 units, four fifths of them excitatory, 50 connections each. One knob for all, the relative
imbalance (inhibition sums to 1 - balance), against inhibition that brings every unit to a target
rate: by one-step design, or by plasticity while the network runs.

Source: K. Srinivasan, D. Plenz, M. Girvan, arXiv:2504.12480. (Its claims are of a reservoir at its
best; here is one size, and a readout by ridge regression.)
"""

import argparse
from typing import NamedTuple

import torch

from synops.nn import EIReservoir

WASHOUT, TRAIN, TEST = 200, 1500, 800
BALANCES = (-1.0, -0.5, -0.2, 0.0, 0.2, 0.5)
DELAYS = 60
TARGET = 0.5
ADAPTING = 4000  # steps of plasticity before the inhibition is kept
DELTA = 1e-3


def network(seed, balance=0.0, input_scaling=0.1):
    """A reservoir from this seed; the same excitation and input at every balance."""
    return EIReservoir(
        1, 500, balance=balance, input_scaling=input_scaling, generator=seed, washout=WASHOUT
    )


def designed(seed, target=TARGET, input_mean=0.0, **options):
    """By one-step design."""
    reservoir = network(seed, **options)
    reservoir.design_(target=target, input_mean=input_mean)
    return reservoir


def adapted(seed, u, target=TARGET, **options):
    """By plasticity over the input u."""
    reservoir = network(seed, **options)
    reservoir.adapt_(u, target=target, delta=DELTA)
    return reservoir


def ridge(x, y, penalty=1e-6):
    """Readout of x (T, N), a constant among its columns, for y (T, outputs), in float64."""
    gram = x.T @ x
    gram.diagonal()[:-1] += penalty
    return torch.linalg.solve(gram, x.T @ y)


def predict(rates, targets, split):
    """What a readout trained on the first ``split`` steps says of the rest; float64."""
    x = torch.cat([rates, rates.new_ones(len(rates), 1)], 1).double()
    return x[split:] @ ridge(x[:split], targets[:split].double())


def memory_capacity(reservoir, u):
    """Sum over delays of the squared correlation of the delayed input with its readout."""
    rates = reservoir(u).rates
    delayed = torch.stack([u.roll(d, 0)[WASHOUT:, 0] for d in range(1, DELAYS + 1)], 1)
    got, want = predict(rates, delayed, TRAIN), delayed[TRAIN:].double()
    got, want = got - got.mean(0), want - want.mean(0)
    norm = got.square().sum(0) * want.square().sum(0)
    return float(((got * want).sum(0).square() / norm.clamp_min(1e-30)).sum())


def error(reservoir, u, y):
    """Normalised root mean squared error of y on the last third; 1 is the mean."""
    rates, y = reservoir(u).rates, y[WASHOUT:].double()
    split = len(y) * 2 // 3
    off = predict(rates, y, split) - y[split:]
    return float((off.square().mean() / y[split:].var()).sqrt())


def uniform(seed, steps=WASHOUT + TRAIN + TEST):
    """Input of the memory task, (T, 1) in [-1, 1]."""
    return torch.rand(steps, 1, generator=torch.Generator().manual_seed(1000 + seed)) * 2 - 1


def narma10(seed, steps=WASHOUT + TRAIN + TEST):
    """Input in [-1, 1] and the series that NARMA-10 makes of it (Atiya and Parlos, 2000)."""
    u = torch.rand(steps, generator=torch.Generator().manual_seed(2000 + seed)) * 0.5
    y = torch.zeros(steps + 1)
    for t in range(9, steps):
        y[t + 1] = 0.3 * y[t] + 0.05 * y[t] * y[t - 9 : t + 1].sum() + 1.5 * u[t - 9] * u[t] + 0.1
    return (u * 4 - 1).unsqueeze(1), y[1:].unsqueeze(1)


def laser():
    """The Santa Fe laser (data set A), in [-1, 1], and the same a step later."""
    from reservoirpy.datasets import santafe_laser

    x = torch.as_tensor(santafe_laser()).float().reshape(-1, 1)[:4000]
    x = x / x.abs().max() * 2 - 1
    return x[:-1], x[1:]


class Comparison(NamedTuple):
    """A figure of merit of each: by balance, of one-step design, of adaptation."""

    by_balance: dict[float, float]
    designed: float
    adapted: float


def compare(measure, seed, u, mean, input_scaling=0.1):
    """``measure(reservoir)`` for every way to set the inhibition."""
    options = {"input_scaling": input_scaling}
    return Comparison(
        {b: measure(network(seed, b, **options)) for b in BALANCES},
        measure(designed(seed, input_mean=mean, **options)),
        measure(adapted(seed, u, **options)),
    )


def memory(seed):
    """Capacities; more is better."""
    u = uniform(seed)
    return compare(lambda r: memory_capacity(r, u), seed, uniform(seed + 500, ADAPTING), 0.0)


def series(seed, u, y):
    """Errors; less is better."""
    long = u.repeat(-(-ADAPTING // len(u)), 1)[:ADAPTING]
    return compare(lambda r: error(r, u, y), seed, long, float(u.mean()))


def main(argv=None):
    """Prints a line a task and seed; returns the comparisons by task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2, help="networks (default: 2)")
    parser.add_argument("--laser", action="store_true", help="needs reservoirpy")
    args = parser.parse_args(argv)
    tasks = {"memory capacity": memory, "NARMA-10 error": lambda s: series(s, *narma10(s))}
    if args.laser:
        tasks["laser error"] = lambda s: series(s, *laser())
    heads = "".join(f"{b:>8g}" for b in BALANCES)
    print(f"{'task':16} seed{heads}  designed  adapted")
    found = {}
    for task, run in tasks.items():
        found[task] = [run(seed) for seed in range(args.seeds)]
        for seed, c in enumerate(found[task]):
            row = "".join(f"{v:8.3f}" for v in c.by_balance.values())
            print(f"{task:16} {seed:4}{row}  {c.designed:8.3f}  {c.adapted:7.3f}")
    return found


if __name__ == "__main__":
    main()
