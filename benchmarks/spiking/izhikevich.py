"""izhikevich: a reservoir over a run, against the loops that people write.

Brian2's C++ standalone is a process of its own and reports its own time, so it is not here;
tests/peers/test_brian2.py compares its traces, FACTS.md has its times.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..common import suite
from ..common.call import Call
from ..common.public import public
from ..common.sizes import RESERVOIRS, RESERVOIRS_THREADED, ReservoirSize

DT, TAU = 0.5, 5.0
DECAY = math.exp(-DT / TAU)
_DENSE = 4000  # neurons up to which people hold the matrix


@lru_cache(maxsize=2)
def reservoir(size: ReservoirSize) -> Any:
    """The network, and the states of its seeds after 150 ms, when it is past its first volley."""
    module = public("nn.IzhikevichReservoir").random(
        size.neurons, size.in_degree, generator=torch.Generator().manual_seed(0)
    )
    state = public("spiking.IzhikevichState")
    start = state(torch.rand(size.batch, size.neurons, generator=torch.Generator().manual_seed(1)))
    return module, module(state=start._replace(v=start.v * 20 - 65), steps=300).state


def columns(module: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The synapses of each pre-synaptic neuron: start, targets, weights."""
    order = module.col.argsort(stable=True)
    rows = torch.repeat_interleave(torch.arange(module.neurons), module.crow.diff().long())
    start = torch.zeros(module.neurons + 1, dtype=torch.long)
    start[1:] = torch.bincount(module.col, minlength=module.neurons).cumsum(0)
    return start, rows[order], module.values[order]


def matrix(module: Any) -> Tensor:
    """(pre, post)."""
    start, target, weight = columns(module)
    source = torch.repeat_interleave(torch.arange(module.neurons), start.diff())
    dense = weight.new_zeros((module.neurons, module.neurons))
    return dense.index_put((source, target), weight)


def torch_loop(module: Any, state: Any, steps: int) -> Callable[[], Tensor]:
    """Spikes of a run, a step at a time: rows of the neurons that fired."""
    a, b, c, d, bias = module.a, module.b, module.c, module.d, module.bias
    dense = matrix(module) if module.neurons <= _DENSE else None
    start, target, weight = columns(module)

    @torch.no_grad()
    def run() -> Tensor:
        total = 0
        for row in zip(state.v, state.u, state.current, strict=True):
            v, u, current = (t.clone() for t in row)
            for _ in range(steps):
                dv = (0.04 * v + 5).mul_(v).add_(140).sub_(u).add_(current).add_(bias)
                u += (b * v).sub_(u).mul_(a).mul_(DT)
                v.add_(dv, alpha=DT)
                fired = (v >= 30).nonzero().flatten()
                v[fired] = c[fired]
                u[fired] += d[fired]
                current *= DECAY
                if len(fired):
                    if dense is not None:
                        current += dense[fired].sum(0)
                    else:
                        rows = zip(start[fired].tolist(), start[fired + 1].tolist(), strict=True)
                        entries = torch.cat([torch.arange(i, j) for i, j in rows])
                        current.index_add_(0, target[entries], weight[entries])
                total += len(fired)
        return torch.tensor(total)

    return run


def numpy_loop(module: Any, state: Any, steps: int) -> Callable[[], Tensor]:
    """The same with numpy."""
    neuron = (module.a, module.b, module.c, module.d, module.bias)
    a, b, c, d, bias = (t.numpy() for t in neuron)
    dense = matrix(module).numpy() if module.neurons <= _DENSE else None
    start, target, weight = (t.numpy() for t in columns(module))
    rule = [np.asarray(x, dtype=a.dtype) for x in (0.04, 5, 140, DT, DECAY)]
    square, linear, constant, dt, decay = rule

    def run() -> Tensor:
        total = 0
        for row in zip(state.v, state.u, state.current, strict=True):
            v, u, current = (t.numpy().copy() for t in row)
            for _ in range(steps):
                dv = (square * v + linear) * v + constant - u + current + bias
                u += dt * a * (b * v - u)
                v += dt * dv
                fired = np.flatnonzero(v >= 30)
                v[fired] = c[fired]
                u[fired] += d[fired]
                current *= decay
                if len(fired):
                    if dense is not None:
                        current += dense[fired].sum(0)
                    else:
                        runs = [np.arange(start[i], start[i + 1]) for i in fired]
                        entries = np.concatenate(runs)
                        current += np.bincount(target[entries], weight[entries], len(v))
                total += len(fired)
        return torch.tensor(total)

    return run


def numba_loop(module: Any, state: Any, steps: int) -> Callable[[], Tensor]:
    """The loop over neurons and synapses, compiled."""
    try:
        numba = importlib.import_module("numba")
    except ImportError as missing:
        raise NotImplementedError(f"numba is not installed: {missing}") from None
    square, linear, constant, dt, decay = map(
        module.a.numpy().dtype.type, (0.04, 5, 140, DT, DECAY)
    )

    @numba.njit(fastmath=True, cache=False)
    def simulate(v, u, current, a, b, c, d, bias, start, target, weight, steps):
        neurons, total = len(v), 0
        fired = np.empty(neurons, np.int32)
        for _ in range(steps):
            for i in range(neurons):
                x = v[i]
                push = constant - u[i] + current[i] + bias[i]
                v[i] = x + dt * ((square * x + linear) * x + push)
                u[i] += dt * a[i] * (b[i] * x - u[i])
                current[i] *= decay
            count = 0
            for i in range(neurons):
                if v[i] >= 30:
                    fired[count] = i
                    count += 1
                    v[i] = c[i]
                    u[i] += d[i]
            for k in range(count):
                for j in range(start[fired[k]], start[fired[k] + 1]):
                    current[target[j]] += weight[j]
            total += count
        return total

    neuron = [t.numpy() for t in (module.a, module.b, module.c, module.d, module.bias)]
    start, target, weight = columns(module)
    synapses = [start.int().numpy(), target.int().numpy(), weight.numpy()]

    def run() -> Tensor:
        total = 0
        for row in zip(state.v, state.u, state.current, strict=True):
            total += simulate(*(t.numpy().copy() for t in row), *neuron, *synapses, steps)
        return torch.tensor(total)

    run()  # compiles
    return run


def build(impl: str, size: ReservoirSize, dtype: torch.dtype, device: str) -> Call:
    """The number of spikes of a run of random networks, by

    - synops: nn.IzhikevichReservoir;
    - torch: a loop over steps; the spikes' rows of a dense matrix, of the lists of synapses above
      4000 neurons;
    - numpy: the same;
    - numba: loops over neurons and synapses, compiled.
    """
    module, state = reservoir(size)
    if dtype == torch.float64:
        module = type(module)(
            module.values.double(),
            public("sparse.Pattern").from_csr(module.crow, module.col, (size.neurons,) * 2),
            **{name: getattr(module, name).double() for name in ("a", "b", "c", "d", "bias")},
        )
        state = type(state)(*(None if t is None else t.double() for t in state))
    if impl == "synops":

        def run() -> Tensor:
            return module(state=state, steps=size.steps, record=None).counts.sum()

        return Call(run, ())
    if impl == "torch":
        return Call(torch_loop(module, state, size.steps), ())
    if impl == "numpy":
        return Call(numpy_loop(module, state, size.steps), ())
    if impl == "numba":
        return Call(numba_loop(module, state, size.steps), ())
    raise ValueError(impl)


class Izhikevich(suite.ForwardSuite):
    """On one thread."""

    op = "spiking.izhikevich"
    impls = ("synops", "torch", "numpy", "numba")
    cases = RESERVOIRS

    def build(
        self,
        impl: str,
        size: ReservoirSize,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> Call:
        return build(impl, size, dtype, device)


class Izhikevich2Threads(Izhikevich):
    """Shared by ranges of neurons, or by reservoirs of a batch."""

    cases = RESERVOIRS_THREADED
    threads = 2
