"""Keywords that a module hands on to its function."""

from __future__ import annotations

from collections.abc import Collection


def check_options(module: str, given: Collection[str], known: Collection[str]) -> None:
    """Raises a TypeError that names the first of ``given`` that is not known."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise TypeError(f"{module}: no option {unknown[0]!r}; there are {', '.join(sorted(known))}")
