"""izhikevich in plain torch: its definition, and what runs where nothing faster does.

States (B, N); input (T, B, N_in); synapses as izhikevich_synapses lays them out; spikes of a step
as bits, 64 neurons an int64. A step is in this order: current and membrane, spikes and resets,
decay of the currents and arrival of the spikes that are due.
"""

from __future__ import annotations

import torch
from torch import Tensor

BY_COLUMN, DENSE, BY_ROW, PACKED = 0, 1, 2, 3  # layouts
MOST_TARGETS = 1 << 16  # of a range: a target is an unsigned int16
THRESHOLD = 30.0


def range_width(neurons: int, ranges: int) -> int:
    """Neurons of a range but the last: whole words of bits."""
    return max(1, -(-neurons // (64 * ranges))) * 64


def izhikevich_synapses(
    values: Tensor, crow: Tensor, col: Tensor, ranges: int, layout: int
) -> tuple[Tensor, Tensor, Tensor]:
    """start, target, weight: what a spike of a neuron reaches.

    By column (pre-synaptic neuron), in ``ranges`` of post-synaptic neurons: start
    (ranges * N + 1,), target (nnz,) counted from the first of its range, weight (nnz,). Dense:
    weight (N, N), a row a pre-synaptic neuron. By row: crow, col and weight as they are. Packed:
    by column, the ranges of a neuron one after the other; all of it in target, in each range first
    the weights, aligned, then the targets.
    """
    neurons = crow.shape[0] - 1
    weight = values[: col.shape[0]]
    if weight.dtype == torch.float16:
        weight = weight.float()
    none = col.new_empty((0,), dtype=torch.int16)
    if layout == BY_ROW:
        return crow.clone(), col.clone(), weight.clone()
    row = torch.repeat_interleave(torch.arange(neurons, device=col.device), crow.diff().long())
    if layout == DENSE:
        dense = weight.new_zeros((neurons, neurons))
        return crow.new_empty((0,)), none, dense.index_put((col.long(), row), weight)
    width = range_width(neurons, ranges)
    key = col * ranges + row // width if layout == PACKED else row // width * neurons + col
    order = key.argsort(stable=True)
    start = crow.new_zeros((ranges * neurons + 1,))
    start[1:] = torch.bincount(key, minlength=ranges * neurons).cumsum(0)
    target, weight = (row % width)[order].to(torch.int16), weight[order]
    if layout == PACKED:
        of_target, of_weight = _packed_at(start, weight)
        words = packed_words(len(row), len(start) - 1, weight.element_size() // 2)
        packed = target.new_zeros((words,))
        packed[of_target] = target
        packed[of_weight] = weight.view(torch.int16)
        return start, packed, weight[:0]
    return start, target, weight


def packed_words(synapses: int, runs: int, words: int) -> int:
    """16-bit words of packed synapses, for weights of so many."""
    return synapses * (words + 1) + runs * (words - 1)


def _packed_at(start: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Where the targets of packed synapses are, and the 16-bit words of their weights."""
    words = like.element_size() // 2
    count = start.diff().long()
    runs = torch.arange(len(count), device=start.device)
    run = torch.repeat_interleave(runs, count)
    at = (start[:-1].long() * (words + 1) + runs * (words - 1) + words - 1) // words * words
    entry = torch.arange(len(run), device=start.device) - start[run]
    weight = at[run] + entry * words
    target = at[run] + count[run] * words + entry
    return target, (weight.unsqueeze(1) + torch.arange(words, device=start.device)).flatten()


def by_column(
    start: Tensor, packed: Tensor, weight: Tensor, neurons: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Packed synapses in the layout by column."""
    of_target, of_weight = _packed_at(start, weight)
    ranges = (len(start) - 1) // max(1, neurons)
    count = start.diff().reshape(neurons, ranges).t().flatten()
    runs = torch.arange(len(start) - 1, device=start.device)
    run = torch.repeat_interleave(runs, start.diff().long())
    order = (run % max(1, ranges)).argsort(stable=True)
    moved = torch.cat([start[:1], count.cumsum(0).to(start.dtype)])
    return moved, packed[of_target][order], packed[of_weight].view(weight.dtype)[order]


def pairs_of(start: Tensor, target: Tensor, weight: Tensor, neurons: int, layout: int) -> Tensor:
    """The weights as a dense matrix (pre, post)."""
    if layout == DENSE:
        return weight
    if layout == PACKED:
        start, target, weight = by_column(start, target, weight, neurons)
    dense = weight.new_zeros((neurons, neurons))
    runs = torch.arange(start.shape[0] - 1, device=start.device)
    run = torch.repeat_interleave(runs, start.diff().long())
    if layout == BY_ROW:
        return dense.index_put((target.long(), run), weight)
    ranges = len(runs) // max(1, neurons)
    width = range_width(neurons, ranges) if ranges else 1
    post = run // max(1, neurons) * width + target.long() % MOST_TARGETS
    return dense.index_put((run % max(1, neurons), post), weight)


def words_of(fired: Tensor) -> Tensor:
    """(..., N) of bool as (..., ceil(N / 64)) of int64, the first neuron in the lowest bit."""
    words = -(-fired.shape[-1] // 64)
    padded = fired.new_zeros((*fired.shape[:-1], 64 * words))
    padded[..., : fired.shape[-1]] = fired
    shift = torch.arange(64, device=fired.device)
    return (padded.unflatten(-1, (words, 64)).long() << shift).sum(-1)


def fired_in(words: Tensor, neurons: int) -> Tensor:
    """The inverse of words_of."""
    shift = torch.arange(64, device=words.device)
    return ((words.unsqueeze(-1) >> shift) & 1).flatten(-2)[..., :neurons].bool()


def izhikevich(
    v: Tensor,
    u: Tensor,
    current: Tensor,
    rise: Tensor | None,
    trace: Tensor | None,
    pending: Tensor | None,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    bias: Tensor,
    input: Tensor | None,
    input_weight: Tensor | None,
    start: Tensor,
    target: Tensor,
    weight: Tensor,
    layout: int,
    delays: Tensor | None,
    steps: int,
    dt: float,
    decay: float,
    rise_decay: float,
    transfer: float,
    trace_decay: float,
    record_bits: bool,
    record_v: bool,
    record_traces: bool,
    neurons: Tensor | None,
    readout: Tensor | None,
    targets: Tensor | None,
    gates: Tensor | None,
    learning_rate: float,
) -> tuple[Tensor, ...]:
    """States after the last step, and what was recorded of each; 0-size what was not."""
    N = v.shape[1]
    synapses = pairs_of(start, target, weight, N, layout).to(v.dtype)
    v, u, current = v.clone(), u.clone(), current.clone()
    # due[k]: spikes that arrive at the end of the k-th step from here
    most = 1 if pending is None else pending.shape[0] + 1
    due = [torch.zeros_like(v, dtype=torch.bool) for _ in range(most)]
    if pending is not None:
        due[:-1] = list(fired_in(pending, N).unbind(0))
    late = torch.full((N,), most, device=v.device) if delays is None else delays
    counts, bits, membranes, traces, z = [], [], [], [], []
    chosen = slice(None) if neurons is None else neurons
    for t in range(steps):
        drive = bias
        if input is not None:
            x = input[t]
            drive = bias + (x if input_weight is None else x @ input_weight)
        after = v + dt * (0.04 * v * v + 5 * v + 140 - u + current + drive)
        u = u + dt * a * (b * v - u)
        fired = after >= THRESHOLD
        v = torch.where(fired, c, after)
        u = torch.where(fired, u + d, u)
        for k in range(most):
            due[k] = due[k] | (fired & (late == k + 1))
        # rows of those that fired alone: a weight of NaN elsewhere does not count
        arriving = torch.zeros_like(v)
        for to, spikes in zip(arriving, due.pop(0), strict=True):
            to += synapses[spikes].sum(0)
        due.append(torch.zeros_like(fired))
        if rise is None:
            current = decay * current + arriving
        else:
            current = decay * current + transfer * rise
            rise = rise_decay * rise + arriving
        counts.append(fired.sum(1).int())
        bits.append(words_of(fired))
        membranes.append(v[:, chosen])
        if trace is not None:
            trace = trace_decay * trace + fired.to(v.dtype)
            traces.append(trace[:, chosen])
            if readout is not None:
                z_t = (readout @ trace.unsqueeze(-1)).squeeze(-1)
                z.append(z_t)
                if targets is not None:
                    error = targets[t] - z_t
                    if gates is not None:
                        error = torch.where(gates[t] == 0, 0, gates[t] * error)
                    readout = readout + learning_rate * error.unsqueeze(-1) * trace.unsqueeze(1)

    def stacked(parts: list[Tensor], wanted: bool, *shape: int, dtype: torch.dtype) -> Tensor:
        if not wanted:
            return v.new_empty((0,), dtype=dtype)
        return torch.stack(parts) if parts else v.new_empty((0, *shape), dtype=dtype)

    def state(t: Tensor | None) -> Tensor:
        return v.new_empty((0,)) if t is None else t.clone()

    B, K = v.shape[0], N if neurons is None else neurons.shape[0]
    outputs = 0 if readout is None else readout.shape[1]
    none = v.new_empty((0,), dtype=torch.int64)
    return (
        v,
        u,
        current,
        state(rise),
        state(trace),
        none if pending is None else words_of(torch.stack(due[:-1])),
        stacked(counts, True, B, dtype=torch.int32),
        stacked(bits, record_bits, B, -(-N // 64), dtype=torch.int64),
        stacked(membranes, record_v, B, K, dtype=v.dtype),
        stacked(traces, record_traces, B, K, dtype=v.dtype),
        stacked(z, readout is not None, B, outputs, dtype=v.dtype),
        state(readout),
    )


def izhikevich_indices(bits: Tensor, neurons: int) -> Tensor:
    """The neurons of all set bits, in the order of the words."""
    return fired_in(bits, neurons).nonzero()[:, -1].int()
