"""Times of functions taken in turns in one process, the only kind whose ratio means something.

On a shared machine the clock of one run says little about the next, but what disturbs one function
disturbs its neighbours in the same second. So: one sample of each, in turns, many rounds, and the
median of the ratio inside each round. A sample repeats its function until it lasts some
milliseconds, so each runs with its own data in the caches, as in a loop, not with the other's.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch

from .disturbance import Disturbance

Function = Callable[[], object]
Timer = Callable[[], float]

MIN_SAMPLE = 20e-3  # seconds; in 5 ms a call of 3 ms runs on the caches of the other side
MIN_ROUNDS = 5
_PATIENCE = 3  # times as long as asked, until rounds are quiet


def timer_for(threads: int, device: str = "cpu") -> Timer:
    """The clock to use: CPU time of this thread when it works alone, else wall time.

    CPU time leaves out what other processes took. With more threads it would add theirs up.
    """
    if torch.device(device).type == "cuda":

        def synchronized() -> float:
            torch.cuda.synchronize()
            return time.perf_counter()

        return synchronized
    return time.thread_time if threads == 1 else time.perf_counter


def sample(function: Function, repeats: int, timer: Timer) -> float:
    """Seconds a call, over ``repeats`` calls."""
    start = timer()
    for _ in range(repeats):
        function()
    return (timer() - start) / repeats


def repeats_for(function: Function, timer: Timer, min_sample: float = MIN_SAMPLE) -> int:
    """How many calls last at least ``min_sample`` seconds."""
    repeats = 1
    while (took := repeats * sample(function, repeats, timer)) < min_sample:
        repeats = max(repeats + 1, int(repeats * min(10.0, 1.2 * min_sample / max(took, 1e-9))))
    return repeats


def interleave(
    functions: Sequence[Function],
    timer: Timer,
    *,
    seconds: float = 1.0,
    min_rounds: int = MIN_ROUNDS,
    min_sample: float = MIN_SAMPLE,
    threads: Sequence[int] | None = None,
    disturbance: Disturbance | None = None,
) -> list[list[float]]:
    """Seconds a call of every function, one entry a round.

    Args:
        functions: called without arguments; each is called before anything is timed.
        timer: see :func:`timer_for`.
        seconds: rounds go on for this long (wall time).
        min_rounds: but there are at least so many.
        min_sample: seconds that a sample must last.
        threads: of torch, for each function; default as they are. Setting them is not timed, and
            they stay at those of the function that comes last.
        disturbance: takes note of the rounds. Only those that nothing disturbed are returned, and
            it goes on for up to three times as long until there are enough.
    """

    def turn(i: int) -> Function:
        if threads is not None:
            torch.set_num_threads(threads[i])
        return functions[i]

    for i in range(len(functions)):
        turn(i)()
    repeats = [repeats_for(turn(i), timer, min_sample) for i in range(len(functions))]
    times: list[list[float]] = [[] for _ in functions]
    order = list(range(len(functions)))
    collecting = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()

        def enough() -> bool:
            took = time.perf_counter() - start
            if len(times[0]) < min_rounds or took < seconds:
                return False
            quiet = disturbance is None or len(disturbance.quiet()) >= min_rounds
            return quiet or took > _PATIENCE * seconds

        while not enough():
            if disturbance:
                disturbance.begin()
            for i in order:
                times[i].append(sample(turn(i), repeats[i], timer))
            order.reverse()  # none is always the one that comes after the same other
            if disturbance:
                disturbance.end()
    finally:
        if collecting:
            gc.enable()
    if disturbance:
        return [[taken[i] for i in disturbance.best(min_rounds)] for taken in times]
    return times


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """Median over the rounds of the first time over the second."""
    return median(a / b for a, b in zip(first, second, strict=True))
