"""Restarts a command with glibc's allocator kept warm.

glibc returns every large temporary to the system and faults its pages in again at the next call:
large elementwise expressions of eager torch then take 3 to 5 times as long. Whoever compares
kernels should not compare that. The variables that stop it count only before a process starts.
"""

from __future__ import annotations

import os
import platform
import sys

WARM = {
    "MALLOC_MMAP_MAX_": "0",  # no allocation by mmap
    "MALLOC_TRIM_THRESHOLD_": "4294967296",  # keep up to 4 GiB of freed memory
    "MALLOC_TOP_PAD_": "268435456",  # grow the heap by 256 MiB at a time
}


def allocator() -> str:
    """What this process runs under: "warm", or "default"."""
    return "warm" if WARM.items() <= os.environ.items() else "default"


def default_environment() -> dict[str, str]:
    """The environment without the variables, for a process on the default allocator."""
    return {name: value for name, value in os.environ.items() if name not in WARM}


def with_warm_allocator() -> None:
    """Starts this process anew, once, with the allocator kept warm; does nothing without glibc.

    For commands, before they measure: what ran before runs again. The variables are the guard.
    """
    if allocator() == "warm" or platform.libc_ver()[0] != "glibc":
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **WARM})
