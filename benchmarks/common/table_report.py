"""Prints tables (tables.py): a line a case, pass and number of threads, a column an alternative."""

from __future__ import annotations

from collections.abc import Sequence

from .compare import Row
from .report import DISTURBED_MEANS, MODES, format_threads, format_time, print_wide
from .suite import SYNOPS
from .tables import SECONDS, Outcome

_PRECISION = 3  # digits


def format_outcome(outcome: Outcome) -> str:
    """Measured, and the goal in parentheses: green where it is met, red where it is not."""
    if outcome.measured is None:
        return "n/a"
    seconds = outcome.against == SECONDS
    show = format_time if seconds else lambda value: f"{value:.{_PRECISION}g}x"
    if outcome.goal is None:
        return show(outcome.measured)
    colour = "green" if outcome.met else "red"
    return f"[{colour}]{show(outcome.measured)}[/] ({show(outcome.goal)})"


def print_tables(rows: Sequence[Row], outcomes: Sequence[Outcome], allocator: str) -> None:
    """Prints the rows with the outcomes that belong to them."""
    from rich.box import SIMPLE  # here: asv imports every module, in an environment without it
    from rich.table import Table

    columns = list(dict.fromkeys(outcome.against for outcome in outcomes))
    table = Table(caption=_caption(outcomes, allocator), caption_justify="left", box=SIMPLE)
    for name in ("op", "case", "pass"):
        table.add_column(name, no_wrap=True)
    for name in ("threads", SYNOPS, *columns, "error (others)"):
        table.add_column(name, justify="right", no_wrap=True)
    by_row: dict[tuple[object, ...], dict[str, Outcome]] = {}
    for outcome in outcomes:
        by_row.setdefault(outcome[:4], {})[outcome.against] = outcome
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        mine = by_row[row.key]
        others = [error for name, error in row.errors.items() if not name.startswith(SYNOPS)]
        table.add_row(
            row.op,
            row.case,
            MODES[row.mode],
            format_threads(row),
            format_time(row.times[SYNOPS]),
            *(format_outcome(mine[name]) if name in mine else "" for name in columns),
            f"{row.errors[SYNOPS]:.0e} ({max(others):.0e})",
            end_section=after is None or (after.op, after.case) != (row.op, row.case),
        )
    print_wide(table)


def _caption(outcomes: Sequence[Outcome], allocator: str) -> str:
    wanted = [outcome for outcome in outcomes if outcome.goal is not None]
    counts = []
    for threads in sorted({outcome.threads for outcome in wanted}):
        there = [o for o in wanted if o.threads == threads and not o.disturbed]
        met = sum(outcome.met for outcome in there)
        counts.append(f"{met} of {len(there)} at {threads} thread{'s' if threads > 1 else ''}")
    lines = [
        f"goals met: {', '.join(counts) or 'there are none'}",
        "4x (5x): synops takes a quarter of the time of that implementation, the goal is a fifth. "
        "Explained in benchmarks/",
        "medians; CPU time at 1 thread, wall time at more",
        "error: the largest against float64, relative to scale, of synops and (of any other)",
        f"allocator: {allocator}",
    ]
    if any(outcome.disturbed for outcome in outcomes):
        lines.insert(1, DISTURBED_MEANS + " or counted")
    return "\n".join(lines)
