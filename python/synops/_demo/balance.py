"""Section ``balance``: memory of networks whose inhibition is balanced unit by unit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from ..benchmarks.common.call import largest_error
from ..benchmarks.spiking import ei_reservoir, esn
from . import memory
from .context import Context
from .memory import BALANCES, DELAYS, Memory
from .report import Claim, Report, Results, Row
from .timing import Times, in_turns

# (system, case, benchmark, size, today's form)
TIMED: tuple[tuple[str, str, Any, str, str], ...] = (
    ("E/I reservoir, 400 steps", "500 units, adapting", ei_reservoir, "400x500 adapting", "torch"),
    ("ESN, 200 steps", "1000 units, .1", esn, "200x1x1000 d=.1", "torch"),
    ("ESN, 50 steps", "32 sequences", esn, "50x32x1000 d=.1", "torch"),
)
NAMES = {
    "synops": "synops",
    "torch": "a loop with torch's CSR product",
    "scipy": "a loop with scipy and numpy",
    "coo": "a loop with COO weights made in each step",
}
# Okabe and Ito's colours, told apart by all; the dashes tell them apart in grey.
_STYLES: dict[str, dict[str, Any]] = {
    "designed": {"color": "#0072B2", "linestyle": "--"},
    "adapted": {"color": "#D55E00", "linestyle": "-"},
}


def run(context: Context) -> Report:
    """Measures memory by seed, times the loops, and judges the paper's claims."""
    seeds = (0,) if context.quick else (0, 1, 2)
    context.start("balance", len(seeds) + len(TIMED))
    found = []
    for seed in seeds:
        found.append(memory.measure(seed))
        context.advance(f"memory, network {seed}")
    report = Report(results=[_capacities(found)], claims=_claims(found))
    for system, case, benchmark, size, today in TIMED:
        times, error = _measured(benchmark, size, 0.0 if context.quick else 1.5)
        report.rows.append(Row(system, case, times, NAMES[today], error))
        context.advance(f"timing, {system}")
    report.files.append(_plot(context.out, found))
    return report


def _measured(benchmark: Any, size: str, seconds: float) -> tuple[Times, float]:
    """Times of every form that is installed, and the error of synops."""
    suite = benchmark.EIReservoir if benchmark is ei_reservoir else benchmark.ESN
    calls = {}
    for impl in suite.impls:
        try:
            if impl in NAMES:
                calls[impl] = suite().build(impl, suite.cases[size])
        except NotImplementedError:  # a package is missing
            continue
    works: dict[str, Callable[[], None]] = {
        NAMES[impl]: call.forward for impl, call in calls.items()
    }
    exact = suite().build("torch", suite.cases[size], torch.float64).results("forward")
    error = largest_error(calls["synops"].results("forward"), exact)
    return in_turns(works, seconds=seconds, min_rounds=2), error


def _mean(capacities: list[torch.Tensor]) -> float:
    """Of the sums over delays, one a network."""
    return sum(float(c.sum()) for c in capacities) / len(capacities)


def _capacities(found: list[Memory]) -> Results:
    columns = ["network", *(f"balance {b:g}" for b in BALANCES), "one-step design", "adapted"]
    rows = []
    for seed, m in enumerate(found):
        capacities = [*m.by_balance.values(), m.designed, m.adapted]
        rows.append([str(seed), *(f"{float(c.sum()):.1f}" for c in capacities)])
    return Results(
        "memory capacity of 500 units: inhibition set for all at once (its sum is 1 - balance), or "
        f"for each unit to have the rate {memory.TARGET:g}",
        columns,
        rows,
    )


def _claims(found: list[Memory]) -> list[Claim]:
    best = _mean([m.by_balance[m.best] for m in found])
    excited, balanced = (_mean([m.by_balance[b] for m in found]) for b in (0.2, 0.0))
    claims = [
        Claim(
            "a balanced network remembers more than one in which excitation outweighs",
            balanced > excited,
            f"{balanced:.1f} against {excited:.1f}",
        )
    ]
    designed, adapted = _mean([m.designed for m in found]), _mean([m.adapted for m in found])
    for text, value in (("one-step design", designed), ("adaptation", adapted)):
        claims.append(
            Claim(
                f"{text} remembers at least a tenth more than the best balance for all",
                value >= 1.1 * best,
                f"{value:.1f} against {best:.1f}",
            )
        )
    return claims


def _plot(out: Path, found: list[Memory]) -> Path:
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    means = [_mean([m.by_balance[b] for m in found]) for b in BALANCES]
    left.plot(BALANCES, means, "o-", color="0.3", label="one balance for all")
    first = found[0]
    delays = range(1, DELAYS + 1)
    label = f"balance {first.best:g}, the best for all"
    right.plot(delays, first.by_balance[first.best], color="0.3", label=label)
    for name, style in _STYLES.items():
        label = "one-step design" if name == "designed" else "adapted while it ran"
        left.axhline(_mean([getattr(m, name) for m in found]), label=label, **style)
        right.plot(delays, getattr(first, name), label=label, **style)
    left.set(xlabel="balance (inhibition sums to 1 - balance)", ylabel="memory capacity", ylim=0)
    right.set(xlabel="steps ago", ylabel="squared correlation with the input", xlim=(1, 45))
    for axes in (left, right):
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    file = out / "balance.png"
    figure.savefig(file, dpi=150)
    return file
