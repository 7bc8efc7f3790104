"""Which rounds of a measurement by the wall clock other processes disturbed.

Two threads that meet at a barrier take as long as the slower one, and where another process has its
processor that is a time slice of some milliseconds, not a share of the time: a median of such
samples is of the other process. Linux tells for how long a thread was ready and did not run.
"""

from __future__ import annotations

import time
from pathlib import Path

_TASKS = Path("/proc/self/task")
QUIET = 0.02  # of the time, so much may be waited


def waited() -> float:
    """Seconds that the threads of this process have waited for a processor.

    Raises:
        OSError: the system does not tell.
    """
    total = 0
    for task in _TASKS.iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            if not task.exists():  # a thread that ended meanwhile
                continue
            raise
    return total / 1e9


class Disturbance:
    """Collects, round by round, the share of the time that was waited.

    Attributes:
        shares: of each round. Waits of several threads add up, so it may be above 1.
    """

    def __init__(self) -> None:
        self.shares: list[float] = []
        self._start = (0.0, 0.0)

    def begin(self) -> None:
        """A round begins."""
        self._start = (waited(), time.perf_counter())

    def end(self) -> None:
        """It ends."""
        before, start = self._start
        self.shares.append((waited() - before) / (time.perf_counter() - start))

    def quiet(self) -> list[int]:
        """The rounds in which next to nothing was waited."""
        return [i for i, share in enumerate(self.shares) if share <= QUIET]

    def best(self, least: int) -> list[int]:
        """The quiet rounds; where there are fewer than ``least``, the least disturbed ones."""
        quiet = self.quiet()
        if len(quiet) >= least:
            return quiet
        return sorted(sorted(range(len(self.shares)), key=self.shares.__getitem__)[:least])

    def share(self, least: int) -> float:
        """The largest of those of the :meth:`best` rounds."""
        return max(self.shares[i] for i in self.best(least))


def disturbance_for(threads: int, device: str = "cpu") -> Disturbance | None:
    """None where it does not matter, at one thread (CPU time leaves it out), or is not known."""
    if threads == 1 or device != "cpu":
        return None
    try:
        waited()
    except OSError:
        return None
    return Disturbance()
