"""What every test runs under: poisoned memory, a fixed seed, every instruction set."""

import ctypes
import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

import synops
from machine import GLIBC, ISAS

# Tests outside a family use its helpers, too; pytest adds a folder when it comes to its own tests.
for _family in ("sparse", "entropy", "spiking", "hebbian"):
    sys.path.append(str(Path(__file__).with_name(_family)))

# Examples are drawn from a fixed seed, so that a red run is red for its own change;
# HYPOTHESIS_PROFILE= explore draws fresh ones, and more.
_COMMON = {
    "deadline": None,  # a shared machine is late for no fault of a test
    "database": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],  # isa holds for all examples
}
settings.register_profile("default", derandomize=True, max_examples=60, **_COMMON)
settings.register_profile("explore", max_examples=1000, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

_M_PERTURB = -6  # malloc.h


def pytest_collection_modifyitems(config, items):
    """``full`` is left out unless it is asked for by name: -m full (make full)."""
    if "full" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


@pytest.fixture(autouse=True, scope="session")
def poisoned_memory():
    """Fresh memory is NaN (bytes of 0xff), so a result that is not written shows.

    Deterministic mode fills torch.empty, but not what C++ takes from aoti_torch_empty_strided
    (test_poison.py shows it) nor its scratch memory. glibc's M_PERTURB reaches every malloc: the
    low byte of 0x100 is xor-ed with 0xff for fresh memory and written as it is into freed memory.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    if GLIBC:
        ctypes.CDLL(None).mallopt(_M_PERTURB, 0x100)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def seed():
    """The same random numbers in every test, whatever ran before."""
    torch.manual_seed(0)


@pytest.fixture(params=ISAS)
def isa(request):
    """Runs the test once for every instruction set of this machine."""
    synops.set_cpu_capability(request.param)
    yield request.param
    synops.set_cpu_capability(ISAS[0])


@pytest.fixture
def threads():
    """torch.set_num_threads, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
