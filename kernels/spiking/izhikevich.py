"""izhikevich (Triton): two kernels a step, one for the neurons and one for the spikes that arrive.

The first takes a block of neurons of a reservoir through the step and flags those that fired. The
second looks at the flags of a block of neurons and adds the synapses of those that are set to the
currents, by atomic additions; or, where results have to be the same in every run (layout by row),
a program sums what reaches one neuron. Traces, readouts and recordings are torch's, a call each.

Reference: python/synops/_reference/spiking/izhikevich.py
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._reference.spiking.izhikevich import (
    BY_COLUMN,
    BY_ROW,
    DENSE,
    MOST_TARGETS,
    PACKED,
    by_column,
    fired_in,
    range_width,
    words_of,
)
from ..common.aot import NAMES, Build
from ..common.launch import accumulator, require, require_index
from .neurons import number

BLOCK = 256  # neurons of a program, and entries of a row that it adds at a time
_LOOKED_AT = 32  # flags of a program of the second kernel
OPTIONS = {"num_warps": 4, "num_stages": 2, "enable_fp_fusion": True}


@triton.jit
def _neurons_kernel(
    v_ptr,  # (B, N), as all states
    u_ptr,
    current_ptr,
    rise_ptr,  # or None
    a_ptr,  # (N,)
    b_ptr,
    c_ptr,
    d_ptr,
    drive_ptr,  # (B, N) or (N,)
    DRIVE_STRIDE,
    fired_ptr,  # (B, N), uint8
    ring_ptr,  # (D, B, N), uint8, flags of what is due in the step of each; or None
    delays_ptr,  # (N,), or None: D for all
    N,
    STEP,  # modulo D
    D,
    B,
    DT,
    DT_LOW,
    DECAY,
    DECAY_LOW,
    RISE,
    RISE_LOW,
    TRANSFER,
    TRANSFER_LOW,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(1).to(tl.int64)
    inside = n < N
    i = row * N + n
    dt = number(DT, DT_LOW, ACC)
    decay = number(DECAY, DECAY_LOW, ACC)
    v0 = tl.load(v_ptr + i, mask=inside, other=0)
    u0 = tl.load(u_ptr + i, mask=inside, other=0)
    current = tl.load(current_ptr + i, mask=inside, other=0)
    drive = tl.load(drive_ptr + row * DRIVE_STRIDE + n, mask=inside, other=0)
    a = tl.load(a_ptr + n, mask=inside, other=0)
    b = tl.load(b_ptr + n, mask=inside, other=0)
    # 0.04 as two float32, for float64
    square = number(0.03999999910593033, 8.940696716308594e-10, ACC)
    v = v0 + dt * (square * v0 * v0 + 5 * v0 + 140 - u0 + current + drive)
    u = u0 + dt * a * (b * v0 - u0)
    fired = (v >= 30) & inside
    v = tl.where(fired, tl.load(c_ptr + n, mask=inside, other=0), v)
    u = tl.where(fired, u + tl.load(d_ptr + n, mask=inside, other=0), u)
    tl.store(v_ptr + i, v, mask=inside)
    tl.store(u_ptr + i, u, mask=inside)
    current *= decay
    if rise_ptr is not None:
        rise_decay = number(RISE, RISE_LOW, ACC)
        rise = tl.load(rise_ptr + i, mask=inside, other=0)
        current += number(TRANSFER, TRANSFER_LOW, ACC) * rise
        tl.store(rise_ptr + i, rise * rise_decay, mask=inside)
    tl.store(current_ptr + i, current, mask=inside)
    tl.store(fired_ptr + i, fired.to(tl.uint8), mask=inside)
    if ring_ptr is not None:
        late = tl.full((BLOCK,), 0, tl.int32) + D
        if delays_ptr is not None:
            late = tl.load(delays_ptr + n, mask=inside, other=1)
        good = fired & (late >= 1) & (late <= D)
        slot = (STEP + late - 1) % D
        tl.store(ring_ptr + slot.to(tl.int64) * B * N + i, fired.to(tl.uint8), mask=good)


@triton.jit
def _columns_kernel(
    due_ptr,  # (B, N), uint8
    to_ptr,  # (B, N)
    start_ptr,  # (RANGES * N + 1,), or None: rows of N weights
    target_ptr,
    weight_ptr,
    N,
    NNZ,
    WIDTH,  # neurons of a range
    RANGES,
    ACC: tl.constexpr,
    LOOKED_AT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0).to(tl.int64) * LOOKED_AT
    for k in range(LOOKED_AT):
        n = first + k
        due = tl.load(due_ptr + row * N + n, mask=n < N, other=0)
        if due != 0:
            for r in range(RANGES):
                begin = n * N
                end = begin + N
                if start_ptr is not None:
                    first_entry = tl.cast(r, tl.int64) * N + n
                    begin = tl.load(start_ptr + first_entry).to(tl.int64)
                    end = tl.load(start_ptr + first_entry + 1).to(tl.int64)
                    begin = tl.maximum(begin, 0)
                    end = tl.minimum(end, NNZ)
                for at in range(begin, end, BLOCK):
                    j = at + tl.arange(0, BLOCK)
                    here = j < end
                    if start_ptr is not None:
                        target = tl.load(target_ptr + j, mask=here, other=0).to(tl.int32) & 0xFFFF
                        to = target.to(tl.int64) + tl.cast(r, tl.int64) * WIDTH
                    else:
                        to = j - begin
                    w = tl.load(weight_ptr + j, mask=here, other=0).to(ACC)
                    tl.atomic_add(to_ptr + row * N + to, w, mask=here & (to < N))


@triton.jit
def _rows_kernel(
    due_ptr,  # (B, N), uint8
    to_ptr,  # (B, N)
    crow_ptr,
    col_ptr,
    weight_ptr,
    N,
    NNZ,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    n = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1).to(tl.int64)
    begin = tl.maximum(tl.load(crow_ptr + n).to(tl.int64), 0)
    end = tl.minimum(tl.load(crow_ptr + n + 1).to(tl.int64), NNZ)
    total = tl.zeros((BLOCK,), ACC)
    for at in range(begin, end, BLOCK):
        j = at + tl.arange(0, BLOCK)
        here = j < end
        col = tl.load(col_ptr + j, mask=here, other=0)
        here = here & (col >= 0) & (col < N)
        due = tl.load(due_ptr + row * N + col, mask=here, other=0)
        total += tl.load(weight_ptr + j, mask=here & (due != 0), other=0).to(ACC)
    i = row * N + n
    tl.store(to_ptr + i, tl.load(to_ptr + i) + tl.sum(total, 0))


def _halves(number: float) -> tuple[float, float]:
    """As two float32: a kernel gets no float64."""
    high = float(torch.tensor(number, dtype=torch.float32))
    return high, number - high


def _check(
    v: Tensor, states: dict[str, Tensor | None], start: Tensor, target: Tensor, weight: Tensor,
    layout: int,
) -> int:  # fmt: skip
    """Shapes that memory safety needs; how many ranges of targets there are."""
    op, N = "izhikevich", v.shape[1]
    require(v.dtype in (torch.float32, torch.float64), op, "v must be float32 or float64")
    for name, t in states.items():
        good = t is None or (t.dtype == v.dtype and t.device == v.device)
        require(good, op, f"{name} has the wrong dtype or device")
    half = weight.dtype == torch.bfloat16 and v.dtype == torch.float32
    require(weight.dtype == v.dtype or half, op, "weight has the wrong dtype")
    require(weight.is_contiguous() and weight.device == v.device, op, "weight must be contiguous")
    require(layout in (BY_COLUMN, DENSE, BY_ROW), op, f"layout must be 0, 1 or 2, got {layout}")
    if layout == DENSE:
        require(weight.shape == (N, N), op, f"weight must have shape {(N, N)}")
        return 1
    require(target.shape == weight.shape, op, "weight must have a target each")
    if layout == BY_ROW:
        require_index(op, v, start, target)
        require(start.shape == (N + 1,), op, f"start must have {N + 1} elements")
        return 1
    require_index(op, v, start)
    require_index(op, v, target, dtype=torch.int16)
    ranges = (start.shape[0] - 1) // max(1, N)
    good = start.shape[0] == ranges * N + 1 and (ranges >= 1 or N == 0)
    require(good, op, f"start must have a multiple of {N} elements and one more")
    narrow = N == 0 or range_width(N, ranges) <= MOST_TARGETS
    require(narrow, op, "a range must have 65536 neurons at most")
    return ranges


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
    op = "izhikevich"
    require(v.dim() == 2 and steps >= 0, op, "v must have 2 dimensions, steps must be at least 0")
    given = {"u": u, "current": current, "rise": rise, "trace": trace}
    if layout == PACKED:  # of tensors on the CPU, which come here to be interpreted
        start, target, weight = by_column(start, target, weight, v.shape[1])
        layout = BY_COLUMN
    ranges = _check(v, given | {"a": a, "bias": bias}, start, target, weight, layout)
    B, N = v.shape
    for name, t in given.items():
        require(t is None or t.shape == v.shape, op, f"{name} must have shape {(B, N)}")
    for t in (a, b, c, d, bias):
        require(t.shape == (N,) and t.dtype == v.dtype, op, f"parameters must have shape {(N,)}")
    a, b, c, d, bias = (t.contiguous() for t in (a, b, c, d, bias))
    v, u, current, rise, trace, readout = (
        None if t is None else t.clone(memory_format=torch.contiguous_format)
        for t in (v, u, current, rise, trace, readout)
    )
    D, ring = 1, None
    fired = torch.zeros((B, N), dtype=torch.uint8, device=v.device)
    if pending is not None:
        good = pending.dim() == 3 and pending.shape[1:] == (B, -(-N // 64))
        require(good, op, f"pending must have shape (D - 1, {B}, {-(-N // 64)})")
        D = pending.shape[0] + 1
        flags = fired_in(pending, N).to(torch.uint8)
        ring = torch.cat([flags, fired.unsqueeze(0)]).contiguous()
    if delays is not None:
        require_index(op, v, delays)
        require(delays.shape == (N,), op, f"delays must have shape {(N,)}")
    kept = N if neurons is None else neurons.shape[0]
    outputs = 0 if readout is None else readout.shape[1]

    def series(wanted: bool, *shape: int, dtype: torch.dtype = v.dtype) -> Tensor:
        return torch.empty((steps, B, *shape) if wanted else (0,), dtype=dtype, device=v.device)

    counts = series(True, dtype=torch.int32)
    bits = series(record_bits, -(-N // 64), dtype=torch.int64)
    membranes, traces = series(record_v, kept), series(record_traces, kept)
    z = series(readout is not None, outputs)
    chosen = slice(None) if neurons is None else neurons
    halves = (*_halves(dt), *_halves(decay), *_halves(rise_decay), *_halves(transfer))
    arriving = current if rise is None else rise
    for t in range(steps):
        drive = bias
        if input is not None:
            drive = bias + (input[t] if input_weight is None else input[t] @ input_weight)
        if B * N:
            _neurons_kernel[(triton.cdiv(N, BLOCK), B)](
                v, u, current, rise, a, b, c, d,
                drive, N if drive.dim() == 2 else 0, fired, ring, delays,
                N, t % D, D, B, *halves,
                ACC=accumulator(v.dtype), BLOCK=BLOCK, **OPTIONS,
            )  # fmt: skip
            due = fired if ring is None else ring[t % D]
            _arrive(due, arriving, start, target, weight, layout, ranges)
        if ring is not None:
            ring[t % D].zero_()
        counts[t] = fired.sum(1)
        if record_bits:
            bits[t] = words_of(fired.bool())
        if record_v:
            membranes[t] = v[:, chosen]
        if trace is not None:
            trace.mul_(trace_decay).add_(fired)
            if record_traces:
                traces[t] = trace[:, chosen]
        if readout is not None:
            z[t] = (readout @ trace.unsqueeze(-1)).squeeze(-1)
            if targets is not None:
                error = targets[t] - z[t]
                if gates is not None:
                    error = torch.where(gates[t] == 0, 0, gates[t] * error)
                readout += learning_rate * error.unsqueeze(-1) * trace.unsqueeze(1)
    none = v.new_empty((0,))
    left = none.long()
    if ring is not None:
        later = [(steps + k) % D for k in range(D - 1)]
        left = words_of(ring[later].bool())
    rest = (none.clone() if t is None else t for t in (rise, trace))
    read = none.clone() if readout is None else readout
    return v, u, current, *rest, left, counts, bits, membranes, traces, z, read


def _arrive(
    due: Tensor, to: Tensor, start: Tensor, target: Tensor, weight: Tensor, layout: int, ranges: int
) -> None:
    """Adds the weights of the flagged neurons to the states that they reach."""
    B, N = to.shape
    acc = accumulator(to.dtype)
    if layout == BY_ROW:
        _rows_kernel[(N, B)](
            due, to, start, target, weight, N, weight.numel(), ACC=acc, BLOCK=BLOCK, **OPTIONS
        )
        return
    dense = layout == DENSE
    _columns_kernel[(triton.cdiv(N, _LOOKED_AT), B)](
        due,
        to,
        None if dense else start,
        None if dense else target,
        weight,
        N,
        weight.numel(),
        range_width(N, ranges),
        ranges,
        ACC=acc,
        LOOKED_AT=_LOOKED_AT,
        BLOCK=BLOCK,
        **OPTIONS,
    )


def _build_neurons(dtype: torch.dtype, every: bool) -> Build:
    wide = "*" + NAMES[dtype]
    optional = {"rise_ptr": wide, "ring_ptr": "*u8", "delays_ptr": "*i32"}
    states = ("v_ptr", "u_ptr", "current_ptr", "a_ptr", "b_ptr", "c_ptr", "d_ptr", "drive_ptr")
    numbers = ("DT", "DT_LOW", "DECAY", "DECAY_LOW", "RISE", "RISE_LOW", "TRANSFER", "TRANSFER_LOW")
    return Build(
        _neurons_kernel,
        {
            **dict.fromkeys(states, wide),
            "fired_ptr": "*u8",
            **(optional if every else {}),
            **dict.fromkeys(("DRIVE_STRIDE", "N", "STEP", "D", "B"), "i32"),
            **dict.fromkeys(numbers, "fp32"),
        },
        {**({} if every else dict.fromkeys(optional)), "ACC": accumulator(dtype), "BLOCK": BLOCK},
        OPTIONS,
    )


def _build_arrival(dtype: torch.dtype, weight: torch.dtype, layout: int) -> Build:
    pointers = {"due_ptr": "*u8", "to_ptr": "*" + NAMES[dtype], "weight_ptr": "*" + NAMES[weight]}
    constants = {"ACC": accumulator(dtype), "BLOCK": BLOCK}
    if layout == BY_ROW:
        index = dict.fromkeys(("crow_ptr", "col_ptr"), "*i32")
        sizes = dict.fromkeys(("N", "NNZ"), "i32")
        return Build(_rows_kernel, pointers | index | sizes, constants, OPTIONS)
    sizes = dict.fromkeys(("N", "NNZ", "WIDTH", "RANGES"), "i32")
    index = {"start_ptr": "*i32", "target_ptr": "*i16"}
    if layout == DENSE:
        constants |= dict.fromkeys(index)
        index = {}
    constants |= {"LOOKED_AT": _LOOKED_AT}
    return Build(_columns_kernel, pointers | index | sizes, constants, OPTIONS)


AOT = [
    _build_neurons(torch.float32, False),
    _build_neurons(torch.float32, True),
    _build_neurons(torch.float64, True),
    _build_arrival(torch.float32, torch.float32, BY_COLUMN),
    _build_arrival(torch.float32, torch.bfloat16, BY_COLUMN),
    _build_arrival(torch.float64, torch.float64, DENSE),
    _build_arrival(torch.float32, torch.float32, BY_ROW),
    _build_arrival(torch.float64, torch.float64, BY_ROW),
]
