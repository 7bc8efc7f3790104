"""Which implementation runs: ``auto``, ``cpp``, ``triton`` or ``reference``.

``auto`` takes C++ on the CPU, Triton on CUDA and the reference elsewhere or where a part is
missing. A backend that was asked for by name and cannot run raises; it is never replaced silently.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

BACKENDS = ("auto", "cpp", "triton", "reference")

try:
    from . import _C  # type: ignore[attr-defined]

    native_error: str | None = None
except ImportError as error:
    _C = None
    native_error = (
        f"synops' C++ part cannot be loaded ({error}). It is missing or was built for another "
        f"Python or torch (this one is torch {torch.__version__}); build it with "
        "`pip install --no-build-isolation .` in the source tree"
    )

_asked_for = os.environ.get("SYNOPS_CPU_CAPABILITY")
if _C is not None and _asked_for and _asked_for != _C.cpu_capability():
    raise ValueError(
        "SYNOPS_CPU_CAPABILITY: must be AVX512, AVX2 or DEFAULT and available on this processor, "
        f"got {_asked_for!r}"
    )

HAS_TRITON = importlib.util.find_spec("triton") is not None


def _valid(name: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"backend: must be one of {', '.join(BACKENDS)}, got {name!r}")
    return name


_requested = _valid(os.environ.get("SYNOPS_BACKEND", "auto"))


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Chooses the backend of every call inside a ``with`` block (of the whole process, not a
    thread).

    Args:
        name: ``"auto"``, ``"cpp"``, ``"triton"`` or ``"reference"``.

    Raises:
        ValueError: no such backend.
    """
    global _requested
    before, _requested = _requested, _valid(name)
    try:
        yield
    finally:
        _requested = before


def requested(name: str | None) -> str:
    """The backend a call asks for: its own ``backend=``, or the surrounding one."""
    return _requested if name is None else _valid(name)


def interpreting() -> bool:
    """Whether Triton kernels run in its interpreter, on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def resolve(op: str, name: str, device: torch.device) -> tuple[str, str]:
    """The backend that runs for a device, and why.

    Raises:
        RuntimeError: the backend was asked for by name and cannot run there.
    """

    def refuse(why: str) -> None:
        if name != "auto":
            raise RuntimeError(f"{op}: backend {name!r} cannot run here: {why}")

    if name == "reference":
        return "reference", "asked for"
    if name == "cpp" or (name == "auto" and device.type == "cpu"):
        if device.type != "cpu":
            refuse(f"its tensors must be on the CPU, got {device}")
        elif _C is None:
            refuse(native_error or "")
            return "reference", native_error or ""
        return "cpp", f"C++ kernels, {_C.cpu_capability()}, {torch.get_num_threads()} threads"
    if name == "triton" or device.type == "cuda":
        if not HAS_TRITON:
            refuse("triton is not installed")
            return "reference", "triton is not installed"
        if device.type == "cuda":
            return "triton", "Triton kernels, compiled for this GPU"
        if device.type == "cpu" and interpreting():
            return "triton", "Triton kernels, interpreted (TRITON_INTERPRET=1)"
        refuse(f"on {device.type} tensors it needs a GPU, or TRITON_INTERPRET=1")
    return "reference", f"no kernels for device {device.type}"
