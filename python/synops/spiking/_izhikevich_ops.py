"""The ops behind izhikevich: synapses laid out for spikes, and a run in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._chunks import chunks
from .._library import Op
from .._reference.spiking.izhikevich import BY_COLUMN, BY_ROW, DENSE, MOST_TARGETS

# A row of a dense weight is added a vector at a time, an entry one by one.
DENSE_ABOVE = 0.2
DENSE_NEURONS = 4096  # 64 MB
SHARED_FROM = 16384  # neurons of a reservoir that are worth a barrier a step
_PIECE = 8e6  # bytes recorded in a piece: it is still in the cache when it is copied


class IzhikevichSynapses(NamedTuple):
    """Synapses in the order that spikes read them in, see :func:`izhikevich_synapses`.

    Attributes:
        start, target, weight: which neurons a spike reaches, and by how much.
        layout: how they lie.
    """

    start: Tensor
    target: Tensor
    weight: Tensor
    layout: int


class Recorded(NamedTuple):
    """What the op returns of the steps, 0-size what was not asked for."""

    counts: Tensor
    bits: Tensor
    v: Tensor
    traces: Tensor
    z: Tensor


def _fake_synapses(
    values: Tensor, crow: Tensor, col: Tensor, ranges: int, layout: int
) -> tuple[Tensor, Tensor, Tensor]:
    neurons = crow.shape[0] - 1
    dtype = torch.float32 if values.dtype == torch.float16 else values.dtype
    if layout == BY_ROW:
        return torch.empty_like(crow), torch.empty_like(col), values.new_empty(col.shape)
    if layout == DENSE:
        weight = values.new_empty((neurons, neurons), dtype=dtype)
        return crow.new_empty((0,)), crow.new_empty((0,), dtype=torch.int16), weight
    return (
        crow.new_empty((ranges * neurons + 1,)),
        torch.empty_like(col, dtype=torch.int16),
        values.new_empty(col.shape, dtype=dtype),
    )


def _fake(*args: Any) -> tuple[Tensor, ...]:
    v, u, current, rise, trace, pending = args[:6]
    steps, record_bits, record_v, record_traces = args[18], *args[24:27]
    neurons, readout = args[27:29]
    B, N = v.shape
    kept = N if neurons is None else neurons.shape[0]
    outputs = 0 if readout is None else readout.shape[1]

    def like(t: Tensor | None, dtype: torch.dtype | None = None) -> Tensor:
        return v.new_empty((0,), dtype=dtype) if t is None else torch.empty_like(t)

    def series(wanted: bool, *shape: Any, dtype: torch.dtype | None = None) -> Tensor:
        return v.new_empty((steps, B, *shape) if wanted else (0,), dtype=dtype)

    return (
        *(torch.empty_like(t) for t in (v, u, current)),
        like(rise),
        like(trace),
        like(pending, torch.int64),
        series(True, dtype=torch.int32),
        series(record_bits, (N + 63) // 64, dtype=torch.int64),
        series(record_v, kept),
        series(record_traces, kept),
        series(readout is not None, outputs),
        like(readout),
    )


def _fake_indices(bits: Tensor, neurons: int) -> Tensor:
    return bits.new_empty((torch.library.get_ctx().new_dynamic_size(),), dtype=torch.int32)


_synapses = Op("izhikevich_synapses", fake=_fake_synapses)
_op = Op("izhikevich", fake=_fake)
indices_of = Op("izhikevich_indices", fake=_fake_indices)


def layout_for(crow: Tensor, col: Tensor, rows: int, reads: bool) -> tuple[int, int]:
    """Layout of the synapses, and ranges of post-synaptic neurons.

    Args:
        crow, col: of the Pattern.
        rows: reservoirs that run on these synapses at a time.
        reads: whether there is a readout, which needs all traces in one thread.
    """
    neurons, device = crow.shape[0] - 1, crow.device.type
    least = max(1, -(-neurons // MOST_TARGETS))
    if device != "cpu":
        deterministic = torch.are_deterministic_algorithms_enabled()
        return (BY_ROW, 1) if deterministic else (BY_COLUMN, least)
    if neurons <= DENSE_NEURONS and col.shape[0] >= DENSE_ABOVE * neurons**2:
        return DENSE, 1
    if neurons < SHARED_FROM or reads or torch.compiler.is_compiling():
        return BY_COLUMN, least
    threads = torch.get_num_threads()
    shared = 1 if rows >= threads else min(threads, neurons // SHARED_FROM + 1)
    return BY_COLUMN, max(least, shared)


def synapses_of(
    values: Tensor, crow: Tensor, col: Tensor, layout: tuple[int, int], backend: str | None
) -> IzhikevichSynapses:
    """Weights and their targets in the order that spikes read them in."""
    how, ranges = layout
    start, target, weight = _synapses(values, crow, col, ranges, how, backend=backend)
    return IzhikevichSynapses(start, target, weight, how)


def pieces(
    state: tuple[Tensor | None, ...],
    neuron: tuple[Tensor, ...],
    input: Tensor | None,
    input_weight: Tensor | None,
    synapses: IzhikevichSynapses,
    delays: Tensor | None,
    steps: int,
    numbers: tuple[float, ...],
    record: tuple[bool, ...],
    chosen: Tensor | None,
    readout: Tensor | None,
    targets: Tensor | None,
    gates: Tensor | None,
    learning_rate: float,
    backend: str | None,
) -> Iterator[tuple[tuple[Tensor | None, ...], Tensor | None, Recorded]]:
    """State and readout after each piece of the run, and what was recorded in it."""
    v = state[0]
    assert v is not None
    B, N = v.shape
    kept = N if chosen is None else chosen.shape[0]
    cost = B * (2.0 * N + synapses.weight.numel() / 4)  # as if a quarter of all neurons fired
    if readout is not None:
        cost += B * N * readout.shape[1]
    if not torch.compiler.is_compiling() and steps * cost > 2e8:  # then recordings are copied, once
        cost = max(cost, 2e8 * B * kept * v.element_size() * sum(record[1:]) / _PIECE)

    def part(t: Tensor | None, begin: int, end: int) -> Tensor | None:
        return None if t is None else t[begin:end]

    for begin, end in chunks(steps, cost):
        *after, counts, bits, v_t, traces, z, read = _op(
            *state,
            *neuron,
            part(input, begin, end),
            input_weight,
            *synapses,
            delays,
            end - begin,
            *numbers,
            *record,
            chosen,
            readout,
            part(targets, begin, end),
            part(gates, begin, end),
            learning_rate,
            backend=backend,
        )
        state = tuple(None if old is None else new for old, new in zip(state, after, strict=True))
        readout = None if readout is None else read
        yield state, readout, Recorded(counts, bits, v_t, traces, z)
