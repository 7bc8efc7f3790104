"""Times of whole systems, taken in turns in one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from ..benchmarks.common.interleave import interleave, ratio


@dataclass(frozen=True)
class Times:
    """Of the same work done by ``"synops"`` and by others.

    Attributes:
        cpu, wall: median seconds by name.
        ratios: median of the CPU time of each over that of synops, in the same round.
    """

    cpu: dict[str, float]
    wall: dict[str, float]
    ratios: dict[str, float]

    def speedup(self, other: str) -> float:
        """How many times less CPU time synops takes."""
        return self.ratios[other]

    def wall_speedup(self, other: str) -> float:
        """How many times less wall time synops takes."""
        return self.wall[other] / self.wall["synops"]

    def best_other(self, today: str) -> str | None:
        """The fastest that is neither synops nor today's."""
        names = [name for name in self.cpu if name not in ("synops", today)]
        return min(names, key=self.cpu.__getitem__, default=None)


def in_turns(works: dict[str, Callable[[], None]], *, seconds: float, min_rounds: int) -> Times:
    """Measures each work, ``"synops"`` among them, for so long altogether and so often at least."""
    walls: dict[str, list[float]] = {name: [] for name in works}

    def clocked(name: str) -> Callable[[], None]:
        def work() -> None:
            start = time.perf_counter()
            works[name]()
            walls[name].append(time.perf_counter() - start)

        return work

    samples = interleave(
        [clocked(name) for name in works],
        time.thread_time,
        seconds=seconds,
        min_rounds=min_rounds,
    )
    cpu = dict(zip(works, samples, strict=True))
    return Times(
        cpu={name: median(taken) for name, taken in cpu.items()},
        wall={name: median(taken) for name, taken in walls.items()},
        ratios={name: ratio(taken, cpu["synops"]) for name, taken in cpu.items()},
    )
