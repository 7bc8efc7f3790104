"""What a section of the demo found out, and how it is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..benchmarks.common.report import format_time
from .timing import Times

_MIN_WIDTH = 120  # where the output is not a terminal


@dataclass(frozen=True)
class Row:
    """One system or op: today's code against synops.

    Attributes:
        times: of synops and of the others.
        today: name in ``times`` of what people write today.
        error: largest error of synops against float64, relative to the largest entry.
    """

    system: str
    case: str
    times: Times
    today: str
    error: float


@dataclass(frozen=True)
class Results:
    """A table of the section's own."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Claim:
    """A statement of a paper, and whether the run bears it out."""

    text: str
    holds: bool
    found: str


@dataclass
class Report:
    """Everything a section hands back."""

    rows: list[Row] = field(default_factory=list)
    results: list[Results] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


def print_reports(reports: Sequence[Report]) -> None:
    """One table of times for all sections, then the results of each, its claims and its files."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _MIN_WIDTH)
    rows = [row for report in reports for row in report.rows]
    console.print(_times_table(rows))
    console.print(_legend(rows), soft_wrap=True)
    for report in reports:
        for results in report.results:
            console.print(f"\n{results.title}")
            console.print(_results_table(results))
        for claim in report.claims:
            verdict = "[green]holds" if claim.holds else "[red]does not hold"
            console.print(f"{verdict}[/]: {claim.text} ({claim.found})", soft_wrap=True)
        for file in report.files:
            console.print(f"plot: {file}", soft_wrap=True)


def _times_table(rows: Sequence[Row]) -> Table:
    table = Table()
    table.add_column("system", no_wrap=True)
    for name in ("case", "today", "synops", "speed-up", "wall", "other", "error"):
        table.add_column(name, justify="right")
    for row in rows:
        other = row.times.best_other(row.today)
        over_other = "-" if other is None else f"{row.times.speedup(other):.2f}x"
        table.add_row(
            row.system,
            row.case,
            format_time(row.times.cpu[row.today]),
            format_time(row.times.cpu["synops"]),
            f"{row.times.speedup(row.today):.2f}x",
            f"{row.times.wall_speedup(row.today):.2f}x",
            over_other,
            f"{row.error:.1e}",
        )
    return table


def _legend(rows: Sequence[Row]) -> str:
    systems = {
        f"{row.system}: today {row.today}; other {row.times.best_other(row.today) or '-'}": None
        for row in rows
    }
    return "\n".join(
        [
            "CPU time of one thread, medians of runs in turns; speed-up: today / synops",
            "wall: the speed-up in wall time; other: the speed-up over the fastest other form",
            "error: the largest of synops against float64, relative to the largest entry",
            *systems,
        ]
    )


def _results_table(results: Results) -> Table:
    table = Table()
    for name in results.columns:
        table.add_column(name, justify="right")
    for cells in results.rows:
        table.add_row(*cells)
    return table
