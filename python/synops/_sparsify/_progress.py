"""A progress bar for those who wait at a terminal."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

_PATIENCE = 2.0  # seconds without a bar


def progress(items: Sequence[T], label: str) -> Iterator[T]:
    """The items; a bar on stderr once it takes long, if that is a terminal and rich is there."""
    start = time.monotonic()
    bar: Any = None
    try:
        for done, item in enumerate(items):
            if bar is None and time.monotonic() - start > _PATIENCE:
                bar = _bar()
                task = bar and bar.add_task(label, total=len(items))
            if bar:
                bar.update(task, completed=done)
            yield item
    finally:
        if bar:
            bar.stop()


def _bar() -> Any:
    if not sys.stderr.isatty() or importlib.util.find_spec("rich") is None:
        return False
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True), transient=True)
    bar.start()
    return bar
