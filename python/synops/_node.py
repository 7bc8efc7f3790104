"""Calls of ops through C++, with a C++ node in the autograd graph where a gradient is needed.

The module ``_autograd`` is not in torch's stable ABI, so it fits the torch that it was built with
and no other. Where it cannot be loaded, ``_library.py`` does the same from Python, more slowly.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

error: str | None = None  # why Python does it
try:
    _autograd: Any = importlib.import_module("synops._autograd")
    if _autograd.torch_version != torch.__version__:
        error = f"the C++ node was built with torch {_autograd.torch_version}"
except ImportError as _error:
    error = str(_error)


class Gradient(NamedTuple):
    """A gradient that is one call of another op.

    Attributes:
        op: ``op(grad, *kept, *rest, *needs)`` returns a gradient for each of the leading
            arguments; ``kept`` are the first of these, ``rest`` the arguments behind them,
            ``needs`` a bool for each, and a gradient whose bool is False is not looked at.
        read_by: for each of ``kept``, the leading arguments whose gradients its values are read
            for. When none of them is needed, the node keeps its shape alone.
        forward_only: how many arguments, the last ones, are not part of ``rest``.
    """

    op: str
    read_by: tuple[tuple[int, ...], ...]
    forward_only: int = 0


def bind(name: str, leading: int, gradient: Gradient | None) -> Callable[..., Any] | None:
    """What calls the op ``name`` through C++; None where that cannot be loaded.

    It returns NotImplemented for a call that must be decided in Python: under modes and
    transforms, with subclasses of Tensor or arguments that do not fit the schema, and for a
    gradient of one of the first ``leading`` arguments when there is no ``gradient``.
    """
    if error is not None:
        return None
    if gradient is None:
        return _autograd.bind(f"synops::{name}", leading)
    return _autograd.bind(
        f"synops::{name}",
        leading,
        node_name=name.title().replace("_", "") + "Backward",
        backward=f"synops::{gradient.op}",
        read_by=[sum(1 << i for i in reads) for reads in gradient.read_by],
        forward_only=gradient.forward_only,
    )
