"""Networks that remember: N-parity by a curriculum, on synops.spiking.leaky_rnn.

    pip install "synops[demo]"
    python examples/parity.py

500 leaky neurons with trainable time constants read a sequence of bits of any length and say
whether the last N of them had an odd sum. They start with N = 2 and get a head for N + 1 when all
heads so far are right in more than 98 % of the sequences (the cumulative curriculum; --single: one
head at a time). Prints accuracy and time constants for each N; minutes up to N = 5.

Source: S. Khajehabdollahi et al., arXiv:2309.12927, with the settings of its code
(LevinaLab/rnn_timescale_public): lengths, initial values, SGD with momentum, gradients clipped,
600 steps an epoch, 50 batches to test on.
"""

import argparse
import math
import time
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from synops.spiking import leaky_rnn

BATCH, STEPS, TESTS, GOAL = 256, 600, 50, 0.98


class Network(nn.Module):
    """Leaky neurons with a head of two classes for each N; the states of a run start at random."""

    def __init__(self, neurons=500, most=10, recurrent=leaky_rnn):
        super().__init__()
        self.project = nn.Linear(1, neurons)
        self.recurrent = nn.Linear(neurons, neurons)
        self.tau = nn.Parameter(1 + torch.rand(neurons))
        self.heads = nn.ModuleList(nn.Linear(neurons, 2) for _ in range(most - 1))
        self.run = recurrent

    def forward(self, bits, which, h0=None):
        """Scores (heads, B, 2) of the parities of the last n bits, n in ``which``; bits (T, B)."""
        if h0 is None:
            h0 = 0.1 * torch.rand(bits.shape[1], self.tau.numel())
        x = self.project(bits[..., None])
        weight, bias = self.recurrent.weight, self.recurrent.bias
        h = self.run(x, weight, bias, h0, tau=self.tau).h
        return torch.stack([self.heads[n - 2](h) for n in which])


class Stage(NamedTuple):
    """When a curriculum left its largest N."""

    n: int
    accuracy: list[float]  # of each head in use
    tau: float  # mean over neurons, as it counts
    steps: int
    seconds: float


def sequences(n, batch=BATCH):
    """Bits (T, B), with a length for all, from n + 2 to 4 n + 1."""
    length = int(torch.randint(n + 2, 4 * n + 2, ()))
    return torch.randint(2, (length, batch)).float()


def parities(bits, which):
    """(heads, B)"""
    return torch.stack([bits[-n:].sum(0).long() % 2 for n in which])


def loss_of(network, bits, which):
    """Mean cross entropy of the heads."""
    scores = network(bits, which)
    return F.cross_entropy(scores.flatten(0, 1), parities(bits, which).flatten())


def optimizer_of(network):
    return torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.1, nesterov=True)


def train_step(network, optimizer, n, which):
    """One batch of sequences for n; returns the loss."""
    loss = loss_of(network, sequences(n), which)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 2.0)
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def accuracy(network, n, which, tests=TESTS):
    """Of each head, over batches of sequences for n."""
    right = []
    for _ in range(tests):
        bits = sequences(n)
        right.append((network(bits, which).argmax(-1) == parities(bits, which)).float().mean(1))
    return torch.stack(right).mean(0).tolist()


def curriculum(
    network, most=5, *, single=False, steps=STEPS, tests=TESTS, epochs=50, after=lambda *args: None
):
    """A Stage for each N up to ``most`` that was learned in ``epochs`` of ``steps``."""
    optimizer, stages = optimizer_of(network), []
    for n in range(2, most + 1):
        which = [n] if single else list(range(2, n + 1))
        start = time.perf_counter()
        for epoch in range(1, epochs + 1):
            losses = [train_step(network, optimizer, n, which) for _ in range(steps)]
            found = accuracy(network, n, which, tests)
            after(n, epoch, float(losses[-1]) if losses else math.nan, found)
            if min(sum(found) / len(found), found[-1]) > GOAL:
                break
        else:
            return stages
        tau = float(network.tau.detach().clamp(min=1).mean())
        stages.append(Stage(n, found, tau, epoch * steps, time.perf_counter() - start))
    return stages


def main(argv=None):
    """Returns the Stages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=5, help="the largest N (default: 5)")
    parser.add_argument("--neurons", type=int, default=500, help="(default: 500)")
    parser.add_argument("--steps", type=int, default=STEPS, help="of an epoch (default: 600)")
    parser.add_argument("--single", action="store_true", help="one head at a time")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)

    from rich.console import Console
    from rich.table import Table

    torch.manual_seed(args.seed)
    console = Console()

    def show(n, epoch, loss, found):
        shown = " ".join(f"{a:.3f}" for a in found)
        console.print(f"N = {n}, epoch {epoch}: loss {loss:.3f}, accuracy of the heads {shown}")

    network = Network(args.neurons, max(2, args.most))
    stages = curriculum(network, args.most, single=args.single, steps=args.steps, after=show)
    table = Table(title="learned" if len(stages) == args.most - 1 else "learned before it stopped")
    for name in ("N", "accuracy", "least of the heads", "mean tau", "steps", "seconds"):
        table.add_column(name, justify="right")
    for s in stages:
        mean = sum(s.accuracy) / len(s.accuracy)
        table.add_row(
            str(s.n), f"{mean:.4f}", f"{min(s.accuracy):.4f}", f"{s.tau:.3f}",
            str(s.steps), f"{s.seconds:.1f}",
        )  # fmt: skip
    console.print(table)
    return stages


if __name__ == "__main__":
    main()
