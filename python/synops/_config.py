"""What would run, and on what: which, show_config, set_cpu_capability."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import platform
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from . import __version__, _backend, _node
from ._schema import address


class Which(NamedTuple):
    """What a call would run."""

    op: str
    backend: str  # "cpp", "triton", "reference", or "dense": torch's own dense product
    reason: str


def which(
    op: str | Callable[..., Any], *args: Any, backend: str | None = None, **kwargs: Any
) -> Which:
    """What ``op(*args, **kwargs)`` would run, and why, without running it.

    Args:
        op: a public function (``synops.sparse.masked_linear``) or its name.
        args, kwargs: of the call; without a tensor among them, a CPU call is meant.
        backend: as in the call.

    Raises:
        KeyError: no such op.
        RuntimeError: the backend was asked for by name and cannot run there.

    Example:
        >>> synops.which(synops.sparse.sparse_linear, torch.ones(1, 8))
        Which(op='sparse_linear', backend='cpp', reason='C++ kernels, AVX512, 2 threads')
    """
    name = op if isinstance(op, str) else op.__name__
    family, stem = address(name)
    module = importlib.import_module(f"synops.{family}._{stem}")
    tensors = [a for a in pytree.tree_leaves((args, kwargs)) if isinstance(a, Tensor)]
    device = tensors[0].device if tensors else torch.device("cpu")
    run, reason = _backend.resolve(name, _backend.requested(backend), device)
    route = getattr(module, "route", None)
    if route is not None and _complete(route, args, kwargs):
        dense, why = route(*args, backend=backend, **kwargs)
        if dense:
            return Which(name, "dense", why)
        reason = f"{reason}; {why}"
    return Which(name, run, reason)


def _complete(function: Callable[..., Any], args: Any, kwargs: Any) -> bool:
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def set_cpu_capability(name: str) -> None:
    """Chooses the instruction set of the C++ kernels for this process.

    Args:
        name: ``"AVX512"``, ``"AVX2"`` or ``"DEFAULT"`` (portable, slow). The environment variable
            SYNOPS_CPU_CAPABILITY does the same before the import.

    Raises:
        ValueError: this processor or build does not have it.
        RuntimeError: there is no C++ part.
    """
    if _backend._C is None:
        raise RuntimeError(f"set_cpu_capability: {_backend.native_error}")
    if not _backend._C.set_cpu_capability(name):
        raise ValueError(
            "set_cpu_capability: name must be AVX512, AVX2 or DEFAULT and available on this "
            f"processor, got {name!r}"
        )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def show_config() -> str:
    """Versions, instruction set, threads and devices, as text for a bug report."""
    native = _backend._C
    lines = {
        "synops": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "C++ part": f"built with torch {native.torch_version}" if native else _backend.native_error,
        "autograd": f"Python ({_node.error})" if _node.error else "C++ node",
        "instruction set": native.cpu_capability() if native else "-",
        "threads": str(torch.get_num_threads()),
        "backend": _backend.requested(None),
        "machine": f"{platform.system()} {platform.machine()}",
        "devices": ", ".join(
            ["cpu", *(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))]
        ),
    }
    return "\n".join(f"{name:16}{value}" for name, value in lines.items())
