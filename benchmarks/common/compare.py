"""The implementations of an op side by side: times, ratio, error against float64."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import torch

from .call import Call, largest_error
from .interleave import MIN_SAMPLE, interleave, ratio, timer_for
from .suite import COMPILE, SYNOPS, ForwardSuite


@dataclass(frozen=True)
class Row:
    """One op, case and mode at a number of threads.

    Attributes:
        times: median seconds by implementation.
        ratios: time of synops over that of each other one, as asv tracks it (smaller is better).
        errors: largest error against float64, relative to scale, by implementation.
    """

    op: str
    case: str
    mode: str
    threads: int
    baseline: str
    times: dict[str, float]
    ratios: dict[str, float]
    errors: dict[str, float]

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What makes the row the same in two runs."""
        return self.op, self.case, self.mode, self.threads

    @property
    def best_other(self) -> str | None:
        """The fastest of the implementations that are neither ours nor the baseline."""
        names = [n for n in self.times if not n.startswith(SYNOPS) and n != self.baseline]
        return min(names, key=self.times.__getitem__, default=None)


def _calls(suite: ForwardSuite, case: str, device: str) -> dict[str, Call]:
    calls = {}
    for impl in suite.impls:
        if impl == COMPILE:  # seconds to compile, and no faster than the baseline: asv has it
            continue
        try:
            calls[impl] = suite.build(impl, suite.cases[case], device=device)
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
    seconds: float = 2.0,
    min_sample: float = MIN_SAMPLE,
) -> Row:
    """Measures one row. Leaves torch at ``threads`` threads."""
    torch.set_num_threads(threads)
    suite = kind()
    calls = _calls(suite, case, device)
    exact = suite.build(suite.baseline, suite.cases[case], torch.float64, device).results(mode)
    errors = {name: largest_error(call.results(mode), exact) for name, call in calls.items()}
    samples = interleave(
        [getattr(call, mode) for call in calls.values()],
        timer_for(threads, device),
        seconds=seconds,
        min_sample=min_sample,
    )
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
    )
