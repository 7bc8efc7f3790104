"""What DynamicSparsity was asked for, checked, and its schedule."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist

from .._check import fail
from ._schedule import METHODS, RAMP, Method, Schedule


def scheduled(
    op: str,
    method: str,
    density: float | Mapping[str, float] | None,
    initial_density: float | None,
    total_steps: int,
    interval: int,
    prune_rate: float | None,
    begin: int,
    end: int | None,
    ramp_end: int | None,
) -> Schedule:
    """The schedule, with the method's defaults for what is None."""
    if method not in METHODS:
        fail(ValueError, op, "method", f"be one of {', '.join(METHODS)}", repr(method))
    kind = METHODS[method]
    total = _steps(op, "total_steps", total_steps, 1)
    first = _steps(op, "begin", begin, 0)
    last = int(kind.end * total) if end is None else _steps(op, "end", end, first)
    every = _steps(op, "interval", interval, 1)
    rate = kind.prune_rate if prune_rate is None else _share(op, "prune_rate", prune_rate)
    final, initial = _ramp(op, method, kind, density, initial_density)
    if ramp_end is not None and initial is None:
        fail(ValueError, op, "ramp_end", f"be None: {method!r} keeps its density", ramp_end)
    final_update = last // every * every
    ramp = min(int(RAMP * total), final_update)
    if ramp_end is not None:
        ramp = _steps(op, "ramp_end", ramp_end, first)
        if ramp > last:
            fail(ValueError, op, "ramp_end", f"be at most end = {last}", ramp)
        ramp = min(ramp, final_update)
    if initial is not None and final_update < max(first, 1):  # the density would never fall
        fail(ValueError, op, "interval", f"leave an update in steps {first} to {last}", every)
    return Schedule(kind, every, first, last, ramp, rate, final, initial)


def _ramp(
    op: str, method: str, kind: Method, density: Any, initial_density: float | None
) -> tuple[float | None, float | None]:
    """Density at the end and at the beginning of its fall, if it falls."""
    if isinstance(density, Mapping):
        for name, share in density.items():
            _share(op, f"density[{name!r}]", share)
    elif density is not None:
        density = _share(op, "density", density)
    if kind.initial_density is None:
        if initial_density is not None:
            rule = f"be None: {method!r} keeps its density"
            fail(ValueError, op, "initial_density", rule, initial_density)
        return None, None
    if not isinstance(density, float):
        fail(TypeError, op, "density", f"be a number: {method!r} prunes to it", density)
    initial = kind.initial_density if initial_density is None else initial_density
    initial = max(density, _share(op, "initial_density", initial))
    if initial_density is not None and initial_density < density:
        fail(ValueError, op, "initial_density", f"be at least density ({density})", initial_density)
    return density, initial


def seeded(op: str, generator: torch.Generator | None) -> torch.Generator:
    """The generator, or a new one; with one seed for all processes of a training."""
    if generator is not None and not isinstance(generator, torch.Generator):
        fail(TypeError, op, "generator", "be a torch.Generator", type(generator).__name__)
    if generator is not None and generator.device.type != "cpu":
        fail(ValueError, op, "generator", "be on the CPU", generator.device)
    own = torch.Generator() if generator is None else generator
    seed = int(torch.randint(2**62, (), generator=generator))
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        seeds = [seed]
        dist.broadcast_object_list(seeds, 0)
        return torch.Generator().manual_seed(seeds[0])
    return own if generator is not None else own.manual_seed(seed)


def _steps(op: str, argument: str, value: Any, least: int) -> int:
    try:
        steps = operator.index(value)
    except TypeError:
        fail(TypeError, op, argument, "be an integer", value)
    if steps < least:
        fail(ValueError, op, argument, f"be at least {least}", steps)
    return steps


def _share(op: str, argument: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        fail(TypeError, op, argument, "be a number", value)
    if not 0 <= value <= 1:
        fail(ValueError, op, argument, "lie in [0, 1]", value)
    return float(value)
