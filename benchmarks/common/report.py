"""The table of ``python -m synops bench``."""

from __future__ import annotations

from collections.abc import Sequence

from .compare import Row
from .suite import SYNOPS

_MODES = {"forward": "fwd", "forward_backward": "fwd + bwd"}
_WIDTH = 150  # where the output is not a terminal
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def format_time(seconds: float) -> str:
    """Three digits and a unit."""
    scale, unit = next((s for s in _UNITS if seconds >= s[0]), _UNITS[-1])
    return f"{seconds / scale:.3g} {unit}"


def format_speedup(ratio: float) -> str:
    """``4x`` for a quarter of the time: how many times faster synops is."""
    return f"{1 / ratio:.3g}x"


def print_table(rows: Sequence[Row], beside: Sequence[Row], allocator: str) -> None:
    """Prints the rows; ``beside`` are the same ones under the default allocator, if measured."""
    from rich.box import SIMPLE  # here: asv imports every module, in an environment without it
    from rich.console import Console
    from rich.table import Table

    default = {row.key: row for row in beside}
    table = Table(
        caption=_caption(rows, allocator, bool(default)), caption_justify="left", box=SIMPLE
    )
    for name in ("op", "case", "pass"):
        table.add_column(name, no_wrap=True)
    columns = ["threads", "today", "synops", "speed-up", "other best", "error (today)"]
    if default:
        columns.insert(4, "(default)")
    for name in columns:
        table.add_column(name, justify="right")
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        cells = [
            str(row.threads),
            format_time(row.times[row.baseline]),
            format_time(row.times[SYNOPS]),
            format_speedup(row.ratios[row.baseline]),
            _other(row),
            f"{row.errors[SYNOPS]:.0e} ({row.errors[row.baseline]:.0e})",
        ]
        if default:
            cells.insert(4, format_speedup(default[row.key].ratios[row.baseline]))
        last = after is None or after.op != row.op
        table.add_row(row.op, row.case, _MODES[row.mode], *cells, end_section=last)
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    console.print(table)


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
    if beside:
        lines[-1] += "; (default): the speed-up under the settings that glibc starts with"
    return "\n".join(lines)
