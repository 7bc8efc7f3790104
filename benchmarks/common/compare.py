"""The implementations of an op side by side: times, ratio, error against float64."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from statistics import median

import torch

from .call import Call, largest_error
from .disturbance import QUIET, disturbance_for
from .interleave import MIN_ROUNDS, MIN_SAMPLE, interleave, ratio, timer_for
from .suite import COMPILE, SYNOPS, ForwardSuite

ONE_THREAD = "synops_1_thread"  # synops beside itself, wherever a row has more threads


@dataclass(frozen=True)
class Row:
    """One op, case and mode at a number of threads.

    Attributes:
        times: median seconds by implementation.
        ratios: time of synops over that of each other one, as asv tracks it (smaller is better).
            That over ONE_THREAD tells what the other threads bring.
        errors: largest error against float64, relative to scale, by implementation.
        waited: at more than one thread, the share of the time that was waited for a processor in
            the rounds that counted; None where it is not known.
    """

    op: str
    case: str
    mode: str
    threads: int
    baseline: str
    times: dict[str, float]
    ratios: dict[str, float]
    errors: dict[str, float]
    waited: float | None = None

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What makes the row the same in two runs."""
        return self.op, self.case, self.mode, self.threads

    @property
    def disturbed(self) -> bool:
        """Whether other processes had the processors too much for the times to be believed."""
        return self.waited is not None and self.waited > QUIET

    @property
    def best_other(self) -> str | None:
        """The fastest of the implementations that are neither ours nor the baseline."""
        names = [n for n in self.times if not n.startswith(SYNOPS) and n != self.baseline]
        return min(names, key=self.times.__getitem__, default=None)


@lru_cache(maxsize=8)  # what the rows of one case share
def _call(kind: type[ForwardSuite], case: str, impl: str, dtype: torch.dtype, device: str) -> Call:
    return kind().build(impl, kind.size(case), dtype, device)


def _calls(
    kind: type[ForwardSuite], case: str, impls: Iterable[str], device: str
) -> dict[str, Call]:
    calls = {}
    for impl in impls:
        try:
            calls[impl] = _call(kind, case, impl, torch.float32, device)
        except NotImplementedError:
            continue
    return calls


def compare(
    kind: type[ForwardSuite],
    case: str,
    mode: str,
    threads: int = 1,
    device: str = "cpu",
    *,
    impls: Iterable[str] | None = None,
    seconds: float = 2.0,
    min_sample: float = MIN_SAMPLE,
) -> Row:
    """Measures one row. Leaves torch at ``threads`` threads.

    ``impls`` are synops, the baseline and others; by default those of ``kind`` that need no
    compiling, which takes seconds and is no faster than the baseline (asv has it).
    """
    if impls is None:
        impls = [impl for impl in kind.impls if impl != COMPILE]
    torch.set_num_threads(threads)
    calls = _calls(kind, case, impls, device)
    counts = dict.fromkeys(calls, threads)
    if threads > 1:
        calls[ONE_THREAD] = calls[SYNOPS]
        counts[ONE_THREAD] = 1
    exact = _call(kind, case, kind.baseline, torch.float64, device).results(mode)
    errors = {}
    for name, call in calls.items():
        torch.set_num_threads(counts[name])
        results = call.results(mode)
        ours = name.startswith(SYNOPS)  # which has them all
        errors[name] = largest_error(results, exact if ours else exact[: len(results)])
    disturbance = disturbance_for(threads, device)
    samples = interleave(
        [getattr(call, mode) for call in calls.values()],
        timer_for(threads, device),
        seconds=seconds,
        min_sample=min_sample,
        threads=list(counts.values()),
        disturbance=disturbance,
    )
    torch.set_num_threads(threads)
    times = dict(zip(calls, samples, strict=True))
    return Row(
        op=kind.op,
        case=case,
        mode=mode,
        threads=threads,
        baseline=kind.baseline,
        times={name: median(taken) for name, taken in times.items()},
        ratios={n: ratio(times[SYNOPS], taken) for n, taken in times.items() if n != SYNOPS},
        errors=errors,
        waited=None if disturbance is None else disturbance.share(MIN_ROUNDS),
    )
