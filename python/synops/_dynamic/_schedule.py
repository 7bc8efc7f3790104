"""What each method of dynamic sparse training does, and when: rates and densities by step."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """Defaults of a method, from the paper's own code.

    Attributes:
        score: what new edges are chosen by (as in grow_topk); None: nothing grows.
        prune_rate: share of a layer's edges that gives way to new ones at an update.
        cosine: whether the rate falls to ``least_rate`` by a cosine; else it is constant.
        initial_density: where the fall of the density begins; None: it does not fall.
        end: share of all steps after which edges stay where they are.
        up: whether the number of edges that move is rounded up, not down.
    """

    score: str | None = None
    prune_rate: float = 0.0
    cosine: bool = False
    least_rate: float = 0.0
    initial_density: float | None = None
    end: float = 1.0
    up: bool = False


METHODS = {
    "static": Method(),
    "set": Method("random", 0.3),
    "rigl": Method("grad", 0.3, cosine=True, end=0.75),
    "granet": Method("grad", 0.5, cosine=True, least_rate=0.005, initial_density=0.5, up=True),
    "gmp": Method(initial_density=1.0),
    "hebbian": Method("cosine", 0.1),
}
# Share of all steps at which GraNet's density is reached: epoch 110 of 160.
RAMP = 110 / 160


@dataclass(frozen=True)
class Schedule:
    """Steps are counted from 1, the first one that the optimizer takes.

    Attributes:
        interval: steps between updates.
        begin, end: first and last step of updates.
        ramp_end: step at which ``density`` is reached.
        density, initial_density: over all layers; None where the density does not change.
    """

    method: Method
    interval: int
    begin: int
    end: int
    ramp_end: int
    prune_rate: float
    density: float | None
    initial_density: float | None

    def due(self, step: int) -> bool:
        """Whether there is an update behind this step."""
        moves = self.method.score is not None or self.initial_density is not None
        return moves and step % self.interval == 0 and self.begin <= step <= self.end and step > 0

    def rate(self, step: int) -> float:
        """Share of edges that move at this step."""
        if not self.method.cosine:
            return self.prune_rate
        least = min(self.prune_rate, self.method.least_rate)
        passed = (step - self.begin) / max(1, self.end - self.begin)
        return least + (self.prune_rate - least) * (1 + math.cos(math.pi * passed)) / 2

    def moving(self, step: int, edges: int) -> int:
        """How many of a layer's edges that is."""
        count = self.rate(step) * edges
        return math.ceil(count) if self.method.up else int(count)

    def target(self, step: int) -> float | None:
        """Density over all layers after this step: a cubic fall, as in gradual pruning."""
        if self.initial_density is None or self.density is None:
            return None
        if step >= self.ramp_end:
            return self.density
        passed = (step - self.begin) / max(1, self.ramp_end - self.begin)
        rest = (1 - max(0.0, passed)) ** 3
        return self.density + (self.initial_density - self.density) * rest
