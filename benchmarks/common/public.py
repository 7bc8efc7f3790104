"""Access to synops by name: a benchmark outlives the versions that lack what it measures."""

from __future__ import annotations

import importlib
from typing import Any


def public(name: str) -> Any:
    """The public object called ``name``, as in ``"sparse.sparse_linear"``.

    Raises:
        NotImplementedError: this synops does not have it; asv then reports n/a.
    """
    found = importlib.import_module("synops")
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise NotImplementedError(f"this synops has no {name}") from None
    return found
