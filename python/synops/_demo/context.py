"""What a section of the demo is given: where to write, how long to take, and the progress bar."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Context:
    """One run of the demo, to be entered by ``with``.

    Attributes:
        out: folder for the plots.
        quick: whether seconds count more than results.
    """

    def __init__(self, out: Path, quick: bool):
        self.out = out
        self.quick = quick
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )

    def __enter__(self) -> Context:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def start(self, label: str, steps: int) -> None:
        """Begins a bar of so many steps."""
        self._task = self._progress.add_task(label, total=steps)

    def advance(self, label: str | None = None) -> None:
        """One step done; optionally a new label."""
        self._progress.update(self._task, advance=1, description=label)
