"""Modern Hopfield networks: entropy over beta, recall under noise, capacity against the classical.

    python examples/modern_hopfield.py                    # seconds
    python examples/modern_hopfield.py --plot memory.png  # needs matplotlib

With 1000 patterns of 64 numbers on the sphere, a small beta retrieves the mean of all of them
(entropy ln N), a large one the nearest (entropy 0), one in between a mixture. With more than one
iteration more of the noise goes. Random patterns of d signs are stored, and wanted back from states
in which a tenth of the signs is flipped: the classical network (Hopfield, 1982) can do it for about
.1 d of them, the modern one for a number that grows exponentially with d.

Source: H. Ramsauer et al., Hopfield Networks is All You Need, arXiv:2008.02217.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from synops.hebbian import hopfield_retrieve

PATTERNS, SIZE, QUERIES = 1000, 64, 200
BETAS = tuple(2.0**k for k in range(-4, 9))
NOISES = (0.0, 0.4, 0.8, 1.2, 1.6, 2.0)
SIZES = (8, 16, 24, 32)
FLIPPED = 0.1
WANTED = 0.95  # of the patterns that must come back
MOST = 2**17


def sphere(seed: int = 0) -> Tensor:
    """Random patterns of length 1."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(PATTERNS, SIZE, generator=generator), dim=-1)


def noisy(patterns: Tensor, noise: float, seed: int = 1) -> Tensor:
    """The first patterns and noise whose length is ``noise``, about."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(QUERIES, patterns.shape[-1], generator=generator)
    return patterns[:QUERIES] + drawn * (noise / patterns.shape[-1] ** 0.5)


def entropies(noise: float = 0.5) -> dict[float, float]:
    """By beta: of the retrieval distribution, the mean over queries; nats."""
    patterns = sphere()
    states = noisy(patterns, noise)
    return {b: float(hopfield_retrieve(states, patterns, beta=b).entropy.mean()) for b in BETAS}


def recalled(beta: float, steps: int) -> dict[float, float]:
    """By noise: part of the queries that end within .1 of their pattern."""
    patterns = sphere()
    found = {}
    for noise in NOISES:
        states = hopfield_retrieve(noisy(patterns, noise), patterns, beta=beta, steps=steps).output
        apart = (states - patterns[:QUERIES]).norm(dim=-1)
        found[noise] = float((apart < 0.1).float().mean())
    return found


def modern(patterns: Tensor, queries: Tensor) -> Tensor:
    """Three iterations at a large beta."""
    return hopfield_retrieve(queries, patterns, beta=4.0, steps=3, stats=()).output.sign()


def classical(patterns: Tensor, queries: Tensor) -> Tensor:
    """The signs of W xi, all at once, up to 20 times; W = X^T X / d without a diagonal."""
    weight = (patterns.mT @ patterns / patterns.shape[1]).fill_diagonal_(0)
    states = queries
    for _ in range(20):
        states = torch.where(states @ weight >= 0, 1.0, -1.0)
    return states


def part_recalled(retrieve, count: int, size: int, seed: int = 0) -> float:
    """Of the queries that come back as the pattern they were made from."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randint(2, (count, size), generator=generator).float() * 2 - 1
    picked = torch.randint(count, (QUERIES,), generator=generator)
    wanted = patterns[picked]
    order = torch.rand(wanted.shape, generator=generator).argsort(-1)
    queries = torch.where(order < round(FLIPPED * size), -wanted, wanted)
    return float((retrieve(patterns, queries) == wanted).all(-1).float().mean())


def capacity(retrieve, size: int, seed: int = 0) -> int:
    """The largest power of two of patterns, up to MOST, of which enough come back."""
    count = 1
    while count < MOST and part_recalled(retrieve, 2 * count, size, seed) >= WANTED:
        count *= 2
    return count


class Found(NamedTuple):
    """What all measurements find; capacities by size."""

    entropies: dict[float, float]
    once: dict[float, float]
    thrice: dict[float, float]
    modern: dict[int, int]
    classical: dict[int, int]


def measure() -> Found:
    """All of it."""
    with torch.no_grad():
        return Found(
            entropies(),
            recalled(16.0, 1),
            recalled(16.0, 3),
            {size: capacity(modern, size) for size in SIZES},
            {size: capacity(classical, size) for size in SIZES},
        )


def plot(found: Found, file: str) -> None:
    """Three panels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.semilogx(list(found.entropies), list(found.entropies.values()), "o-", base=2)
    left.axhline(float(torch.tensor(PATTERNS).log()), ls=":", c="gray")
    left.set(xlabel="beta", ylabel="entropy of the retrieval (nats)", title="from a mean to one")
    for steps, by_noise in ((1, found.once), (3, found.thrice)):
        middle.plot(list(by_noise), list(by_noise.values()), "o-", label=f"{steps} iterations")
    middle.set(xlabel="length of the noise", ylabel="part recalled", title="under noise, beta 16")
    middle.legend()
    right.semilogy(SIZES, list(found.modern.values()), "o-", base=2, label="modern")
    right.semilogy(SIZES, list(found.classical.values()), "o-", base=2, label="classical")
    right.set(xlabel="numbers of a pattern", ylabel="patterns", title="capacity")
    right.legend()
    figure.savefig(file, dpi=130)


def main(argv: list[str] | None = None) -> Found:
    """Prints what it finds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot", metavar="FILE")
    args = parser.parse_args(argv)
    found = measure()
    print(f"{PATTERNS} patterns of {SIZE} numbers")
    print("beta, entropy  ", "  ".join(f"{b:g} {h:.2f}" for b, h in found.entropies.items()))
    for steps, by_noise in ((1, found.once), (3, found.thrice)):
        row = "  ".join(f"{noise:g} {part:.2f}" for noise, part in by_noise.items())
        print(f"noise, recalled in {steps}  {row}")
    for name, capacities in (("modern", found.modern), ("classical", found.classical)):
        row = "  ".join(f"{size} {count}" for size, count in capacities.items())
        print(f"size, capacity {name:9}  {row}")
    if args.plot:
        plot(found, args.plot)
    return found


if __name__ == "__main__":
    main()
