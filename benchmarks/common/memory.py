"""How much memory a call takes on top of what is there, C++ scratch memory included."""

from __future__ import annotations

import ctypes
import platform
import re
from collections.abc import Callable
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
MB = 1e6


def _resident(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    assert found is not None, name
    return 1024 * int(found[1])


def peak_growth(function: Callable[[], object]) -> int:
    """Bytes by which the resident memory of the process rises, at most, while ``function`` runs.

    torch's profiler sees what torch allocates; this sees every page. Free pages are given back to
    the system first, so that memory from before is not used again unnoticed. Call ``function`` on
    something small beforehand: its first call loads code.

    Raises:
        NotImplementedError: not Linux with glibc.
    """
    if platform.libc_ver()[0] != "glibc" or not _CLEAR.exists():
        raise NotImplementedError("peak_growth: needs Linux and glibc")
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR.write_text("5")  # VmHWM, the peak, starts anew at VmRSS
    before = _resident("VmRSS")
    function()
    return _resident("VmHWM") - before
