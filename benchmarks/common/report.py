"""The table of ``python -m synops bench``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .compare import ONE_THREAD, Row
from .suite import SYNOPS

MODES = {"forward": "fwd", "forward_backward": "fwd + bwd"}
DISTURBED = "~"
DISTURBED_MEANS = f"{DISTURBED} other processes had the processors: not to be believed"
_WIDEST = 400  # where the output is not a terminal
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def format_time(seconds: float) -> str:
    """Three digits and a unit."""
    scale, unit = next((s for s in _UNITS if seconds >= s[0]), _UNITS[-1])
    return f"{seconds / scale:.3g} {unit}"


def format_speedup(ratio: float) -> str:
    """``4x`` for a quarter of the time: how many times faster synops is."""
    return f"{1 / ratio:.3g}x"


def format_threads(row: Row) -> str:
    """The number, with a mark where the times are not to be believed."""
    return f"{row.threads} {DISTURBED}" if row.disturbed else str(row.threads)


def print_table(rows: Sequence[Row], beside: Sequence[Row], allocator: str) -> None:
    """Prints the rows; ``beside`` are the same ones under the default allocator, if measured."""
    from rich.box import SIMPLE  # here: asv imports every module, in an environment without it
    from rich.table import Table

    default = {row.key: row for row in beside}
    table = Table(
        caption=_caption(rows, allocator, bool(default)), caption_justify="left", box=SIMPLE
    )
    for name in ("op", "case", "pass"):
        table.add_column(name, no_wrap=True)
    columns = ["threads", "today", "synops", "speed-up", "other best", "error (today)"]
    scaling = any(ONE_THREAD in row.ratios for row in rows)
    if scaling:
        columns.insert(4, "x 1 thread")
    if default:
        columns.insert(4, "(default)")
    for name in columns:
        table.add_column(name, justify="right")
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        cells = [
            format_threads(row),
            format_time(row.times[row.baseline]),
            format_time(row.times[SYNOPS]),
            format_speedup(row.ratios[row.baseline]),
            _other(row),
            f"{row.errors[SYNOPS]:.0e} ({row.errors[row.baseline]:.0e})",
        ]
        if scaling:
            cells.insert(4, _scaling(row))
        if default:
            cells.insert(4, format_speedup(default[row.key].ratios[row.baseline]))
        last = after is None or after.op != row.op
        table.add_row(row.op, row.case, MODES[row.mode], *cells, end_section=last)
    print_wide(table)


def print_wide(table: Any) -> None:
    """Prints a table of rich, as wide as it needs to be where the output is not a terminal."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        needed = console.measure(table, options=console.options.update_width(_WIDEST)).maximum
        console.width = max(console.width, needed)
    console.print(table)


def _scaling(row: Row) -> str:
    return format_speedup(row.ratios[ONE_THREAD]) if ONE_THREAD in row.ratios else "-"


def _other(row: Row) -> str:
    other = row.best_other
    return "-" if other is None else f"{other} {format_speedup(row.ratios[other])}"


def _caption(rows: Sequence[Row], allocator: str, beside: bool) -> str:
    today = "; ".join(dict.fromkeys(f"{row.op}: {row.baseline}" for row in rows))
    lines = [
        f"today: {today} (explained in benchmarks/); other best: the fastest of the others",
        "speed-up: today / synops. Medians; CPU time at 1 thread, wall time at more",
        "error: the largest against float64, relative to scale, of synops and (today)",
        f"allocator: {allocator}",
    ]
    if any(ONE_THREAD in row.ratios for row in rows):
        lines.insert(2, "x 1 thread: synops on one thread / synops on so many, wall time of both")
    if any(row.disturbed for row in rows):
        lines.insert(2, DISTURBED_MEANS)
    if beside:
        lines[-1] += "; (default): the speed-up under the settings that glibc starts with"
    return "\n".join(lines)
