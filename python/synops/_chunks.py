"""Long runs in pieces: a kernel does not return before its last step, and Ctrl-C waits for it."""

from __future__ import annotations

from collections.abc import Iterator

import torch

_NANOSECONDS = 2e8  # of a piece: a run stops well within a second, and a call costs 1e-4 of a piece


def chunks(steps: int, cost: float) -> Iterator[tuple[int, int]]:
    """First and last + 1 of the steps of each piece; one piece (also of 0 steps) if it is short.

    Args:
        steps: of the run.
        cost: of a step on one thread, in nanoseconds; an estimate will do.
    """
    if torch.compiler.is_compiling():  # a number of pieces would be a number of graphs
        yield 0, steps
        return
    size = max(1, int(_NANOSECONDS / max(cost, 1e-3)))
    for begin in range(0, max(steps, 1), size):
        yield begin, min(begin + size, steps)
