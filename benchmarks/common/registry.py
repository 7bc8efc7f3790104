"""The suites of each family, found in their modules: a new file is all that a new op needs."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

from .suite import ForwardSuite, Suite

_ROOT = __package__.rpartition(".")[0]  # "benchmarks" for asv, "synops.benchmarks" installed


def families() -> list[str]:
    """Names of the families that have benchmarks."""
    found = pkgutil.iter_modules(importlib.import_module(_ROOT).__path__)
    return sorted(m.name for m in found if m.ispkg and m.name != "common")


def modules(family: str) -> Iterator[ModuleType]:
    """Every benchmark module of a family."""
    package = f"{_ROOT}.{family}"
    for found in pkgutil.iter_modules(importlib.import_module(package).__path__):
        yield importlib.import_module(f"{package}.{found.name}")


def suites(family: str) -> Iterator[type[Suite]]:
    """Every benchmark class of a family, as asv sees them."""
    for module in modules(family):
        for _, member in inspect.getmembers(module, inspect.isclass):
            if issubclass(member, Suite) and not inspect.isabstract(member):
                yield member


def pairs(family: str) -> Iterator[type[ForwardSuite]]:
    """The classes whose times ``python -m synops bench`` compares; it sets the threads itself."""
    for suite in suites(family):
        if issubclass(suite, ForwardSuite) and suite.threads == 1:
            yield suite
