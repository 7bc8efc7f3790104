"""Units that fall asleep while a network learns one target after another: synops.Monitor.

    python examples/dormant_units.py

An MLP learns a function, then another, and so on, as the critic of an agent whose policy changes.
Prints after each target the dormant ratio of its hidden activations, the fraction of active units
and the effective rank of its features, as the Monitor took them in the last training step: units
go to sleep and stay so, and the rank falls from 54 to 10. Takes seconds.

Source: G. Sokar et al., arXiv:2302.12902 (dormant neurons grow with changing targets).
"""

import argparse
from typing import NamedTuple

import torch
from torch import nn

import synops

INPUTS, WIDTH, BATCH = 8, 64, 256


class Reading(NamedTuple):
    """At the end of one target."""

    dormant: float
    active: float
    rank: int
    loss: float


def network(generator):
    """Two hidden layers, from the generator alone."""
    model = nn.Sequential(
        nn.Linear(INPUTS, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1)
    )
    with torch.no_grad():
        for layer in model[::2]:
            layer.weight.normal_(0, (2 / layer.in_features) ** 0.5, generator=generator)
            layer.bias.zero_()
    return model


def train(targets=8, steps=150, lr=0.01, seed=0):
    """A Reading a target, each a random network's outputs scaled up."""
    generator = torch.Generator().manual_seed(seed)
    model = network(generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    readings = []
    # behind the ReLUs, where a unit that is dormant is silent
    with synops.Monitor(model, layers=["1", "3"], effective_rank=["3"]) as monitor:
        for _ in range(targets):
            teacher = network(generator)
            for _ in range(steps):
                x = torch.randn(BATCH, INPUTS, generator=generator)
                with torch.no_grad():
                    wanted = 10 * teacher(x)
                loss = (model(x) - wanted).square().mean() / wanted.var()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            rank = monitor.effective_rank()["3"]
            loss = float(loss.detach())
            readings.append(Reading(monitor.dormant_ratio(), monitor.fau(), rank, loss))
    return readings


def main(argv=None):
    """Prints a line a target; returns the readings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", type=int, default=8, help="one after another (default: 8)")
    parser.add_argument("--steps", type=int, default=150, help="on each (default: 150)")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    readings = train(args.targets, args.steps)
    print("target  dormant  active  rank  loss")
    for i, r in enumerate(readings, 1):
        print(f"{i:6}  {r.dormant:7.3f}  {r.active:6.3f}  {r.rank:4}  {r.loss:.3f}")
    return readings


if __name__ == "__main__":
    main()
