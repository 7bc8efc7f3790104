"""token_stats (Triton): sums over rows of logits in one read, their gradient in one read and write.

Split: a program has some rows and passes over their columns block by block, with sums centred at
the running maximum; of long rows it has one, of short rows as many as fill a block, so that nothing
is read in between. The gradient is elementwise: a program has one block of it.

Numbers are in units of log2 (y = (x - max) * log2(e) / temperature), as in the C++ kernels. A sum
depends on V and the dtype alone: the same bits on every run. No atomics.

Not measured: blocks are from registers and bytes, no GPU was at hand.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.launch import OPTIONS, accumulator, require, require_floats

_LOGPROB, _ENTROPY, _VARENTROPY, _COLLISION, _PLOGP2 = 1, 2, 4, 32, 64
_BLOCKS = {2: 4096, 4: 4096, 8: 1024}  # elements of a program's block, by bytes of one
_LAUNCH = {"num_warps": 8, "num_stages": 2}


@triton.jit
def _unit(SCALE, SCALE_LOW, ACC: tl.constexpr):
    """1 / temperature in the type of sums, of its two float32 halves."""
    return tl.full((), SCALE, ACC) + tl.full((), SCALE_LOW, ACC)


@triton.jit
def _powers(x, centre, unit):
    """2^y and y of logits; both 0 where a logit is -inf."""
    none = x == float("-inf")
    y = tl.where(none, 0.0, (x - centre) * unit)
    return tl.where(none, 0.0, tl.exp2(y)), y


@triton.jit
def _forward_kernel(
    logits_ptr,  # rows of V; row b * INNER + t begins at b * STRIDE_B + t * STRIDE_T
    labels_ptr,  # (COUNT,), or None
    logprob_ptr,  # (COUNT,) each, or None
    entropy_ptr,
    varentropy_ptr,
    lse_ptr,
    max_prob_ptr,
    collision_ptr,
    plogp2_ptr,
    max_logit_ptr,
    COUNT,
    INNER,
    STRIDE_B,
    STRIDE_T,
    V,
    SCALE,
    SCALE_LOW,
    IGNORED,
    ALL: tl.constexpr,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < COUNT
    begin = row // INNER * STRIDE_B + row % INNER * STRIDE_T
    scale = _unit(SCALE, SCALE_LOW, ACC)
    unit = scale * 1.4426950408889634
    ln2 = tl.full((), 0.6931471805599453, ACC)
    most = tl.full((ROWS,), float("-inf"), ACC)
    p = tl.zeros((ROWS,), ACC)
    py = tl.zeros((ROWS,), ACC)
    pyy = tl.zeros((ROWS,), ACC)
    pp = tl.zeros((ROWS,), ACC)
    ppy = tl.zeros((ROWS,), ACC)
    for start in range(0, V, BLOCK):
        k = start + tl.arange(0, BLOCK)
        kept = inside[:, None] & (k < V)[None, :]
        at = begin[:, None] + k[None, :]
        x = tl.load(logits_ptr + at, mask=kept, other=float("-inf")).to(ACC)
        now = tl.maximum(most, tl.max(x, 1))
        # While there is nothing, nothing is moved, and the centre is 0.
        shift = tl.where(most == float("-inf"), 0.0, (most - now) * unit)
        f = tl.exp2(shift)
        ppy = f * f * (ppy + shift * pp)
        pp = f * f * pp
        pyy = f * (pyy + 2 * shift * py + shift * shift * p)
        py = f * (py + shift * p)
        p = f * p
        most = now
        powers, y = _powers(x, tl.where(most == float("-inf"), 0.0, most)[:, None], unit)
        p += tl.sum(powers, 1)
        py += tl.sum(powers * y, 1)
        if ALL:
            pyy += tl.sum(powers * y * y, 1)
            pp += tl.sum(powers * powers, 1)
            ppy += tl.sum(powers * powers * y, 1)
    empty = p == 0
    sums = tl.where(empty, 1.0, p)
    log_sum = tl.log(sums)
    mean = py / sums * ln2
    tl.store(lse_ptr + row, most * scale + log_sum, mask=inside)
    tl.store(max_prob_ptr + row, tl.where(empty, 0.0, 1 / sums), mask=inside)
    tl.store(max_logit_ptr + row, most, mask=inside)
    if entropy_ptr is not None:
        entropy = log_sum - mean
        tl.store(entropy_ptr + row, tl.where(entropy < 0, 0.0, entropy), mask=inside)
    if varentropy_ptr is not None:
        v = pyy / sums * ln2 * ln2 - mean * mean
        tl.store(varentropy_ptr + row, tl.where(v < 0, 0.0, v), mask=inside)
    if collision_ptr is not None:
        tl.store(collision_ptr + row, pp / sums / sums, mask=inside)
    if plogp2_ptr is not None:
        tl.store(plogp2_ptr + row, (ppy * ln2 - log_sum * pp) / sums / sums, mask=inside)
    if logprob_ptr is not None:
        label = tl.load(labels_ptr + row, mask=inside, other=0)
        known = (label >= 0) & (label < V)
        x = tl.load(logits_ptr + begin + label, mask=inside & known, other=0.0).to(ACC)
        logprob = tl.where(x == float("-inf"), x, (x - most) * scale - log_sum)
        logprob = tl.where(known, logprob, float("nan"))
        tl.store(logprob_ptr + row, tl.where(label == IGNORED, 0.0, logprob), mask=inside)


@triton.jit
def _column(ptr, row, inside, ACC: tl.constexpr):
    """A number a row, a column; 0 for None."""
    if ptr is None:
        return tl.zeros_like(row).to(ACC)[:, None]
    else:
        return tl.load(ptr + row, mask=inside, other=0.0).to(ACC)[:, None]


@triton.jit
def _backward_kernel(
    logits_ptr,
    labels_ptr,
    grad_ptr,
    max_logit_ptr,  # (COUNT,) each, or None
    max_prob_ptr,
    entropy_ptr,
    varentropy_ptr,
    collision_ptr,
    of_logprob_ptr,
    of_entropy_ptr,
    of_varentropy_ptr,
    of_lse_ptr,
    of_collision_ptr,
    COUNT,
    INNER,
    STRIDE_B,
    STRIDE_T,
    GRAD_B,
    GRAD_T,
    V,
    SCALE,
    SCALE_LOW,
    IGNORED,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < COUNT
    scale = _unit(SCALE, SCALE_LOW, ACC)
    ln2 = tl.full((), 0.6931471805599453, ACC)
    begin = row // INNER * STRIDE_B + row % INNER * STRIDE_T
    k = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    kept = inside[:, None] & (k < V)[None, :]
    x = tl.load(logits_ptr + begin[:, None] + k[None, :], mask=kept, other=float("-inf")).to(ACC)
    most = _column(max_logit_ptr, row, inside, ACC)
    max_prob = _column(max_prob_ptr, row, inside, ACC)
    empty = max_prob == 0
    log_p = tl.log2(tl.where(empty, 1.0, max_prob))
    y = (x - tl.where(empty, 0.0, most)) * (scale * 1.4426950408889634) + log_p
    none = (x == float("-inf")) | empty
    y = tl.where(none, 0.0, y)
    p = tl.where(none, 0.0, tl.exp2(y))
    h = _column(entropy_ptr, row, inside, ACC)
    u = y * ln2 + h
    slope = _column(of_lse_ptr, row, inside, ACC) - u * _column(of_entropy_ptr, row, inside, ACC)
    if of_varentropy_ptr is not None:
        v = _column(varentropy_ptr, row, inside, ACC)
        slope += _column(of_varentropy_ptr, row, inside, ACC) * (u * u + 2 * u - v)
    if of_collision_ptr is not None:
        c = _column(collision_ptr, row, inside, ACC)
        slope += _column(of_collision_ptr, row, inside, ACC) * 2 * (p - c)
    grad = p * slope
    if of_logprob_ptr is not None:
        label = tl.load(labels_ptr + row, mask=inside, other=0)
        known = inside & (label >= 0) & (label < V) & (label != IGNORED)
        own = tl.load(logits_ptr + begin + label, mask=known, other=float("-inf"))
        # Of a label that has no probability there is no gradient.
        known = known & (own != float("-inf"))
        g = tl.where(known[:, None], _column(of_logprob_ptr, row, inside, ACC), 0.0)
        grad += g * (tl.where(k[None, :] == label[:, None], 1.0, 0.0) - p)
    at = (row // INNER * GRAD_B + row % INNER * GRAD_T)[:, None] + k[None, :]
    grad = tl.where(empty, 0.0, grad * scale)
    tl.store(grad_ptr + at, grad.to(grad_ptr.dtype.element_ty), mask=kept)


def _sizes(dtype: torch.dtype, V: int) -> tuple[int, int]:
    """Rows and columns of a block."""
    elements = _BLOCKS[dtype.itemsize]
    columns = min(elements, max(16, triton.next_power_of_2(V)))
    return elements // columns, columns


def _halves(temperature: float) -> tuple[float, float]:
    """1 / temperature as two float32: what is passed to a kernel is rounded to one."""
    high = float(torch.tensor(1 / temperature, dtype=torch.float32))
    return high, 1 / temperature - high


def _check(op: str, logits: Tensor, labels: Tensor | None, temperature: float, *columns: Tensor):
    """Contiguous rows and labels of them."""
    require_floats(op, logits)
    require(logits.dim() == 3, op, "logits must have 3 dimensions")
    require(temperature > 0, op, f"temperature must be positive, got {temperature}")
    stats = torch.float64 if logits.dtype == torch.float64 else torch.float32
    for t in columns:
        require(
            t.shape == logits.shape[:2] and t.dtype == stats and t.device == logits.device,
            op,
            f"a column must be {stats} of shape {tuple(logits.shape[:2])} on {logits.device}, "
            f"got {t.dtype} {tuple(t.shape)} on {t.device}",
        )
    if labels is None:
        return None
    good = labels.dtype == torch.int64 and labels.shape == logits.shape[:2]
    require(good and labels.device == logits.device, op, "labels must be int64, one a row")
    return labels.contiguous()


def token_stats(
    logits: Tensor, labels: Tensor | None, temperature: float, ignore_index: int, stats: int
) -> tuple[Tensor, ...]:
    labels = _check("token_stats", logits, labels, temperature)
    if logits.stride(-1) != 1:
        logits = logits.contiguous()
    B, T, V = logits.shape
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    bits = (_LOGPROB * (labels is not None), _ENTROPY, _VARENTROPY, -1, -1, _COLLISION, _PLOGP2, -1)
    out = [logits.new_empty((B, T) if stats & bit else (0, 0), dtype=dtype) for bit in bits]
    if not B * T:
        return tuple(out)
    rows, block = _sizes(logits.dtype, V)
    _forward_kernel[(triton.cdiv(B * T, rows),)](
        logits,
        labels,
        *(t if t.numel() else None for t in out),
        B * T,
        T,
        logits.stride(0),
        logits.stride(1),
        V,
        *_halves(temperature),
        ignore_index,
        ALL=bool(stats & (_VARENTROPY | _COLLISION | _PLOGP2)),
        ACC=accumulator(logits.dtype),
        ROWS=rows,
        BLOCK=block,
        **_LAUNCH,
        **OPTIONS,
    )
    return tuple(out)


def _backward(op: str, logits: Tensor, grad: Tensor, labels: Tensor | None, *args) -> None:
    temperature, ignore_index, *columns = args
    labels = _check(op, logits, labels, temperature, *(t for t in columns if t is not None))
    _, _, entropy, varentropy, collision, of_logprob, of_entropy, of_varentropy, _, of_c = columns
    require(of_logprob is None or labels is not None, op, "grad_logprob needs labels")
    require((of_entropy is None and of_varentropy is None) or entropy is not None, op, "entropy")
    require(of_varentropy is None or varentropy is not None, op, "varentropy is missing")
    require(of_c is None or collision is not None, op, "collision is missing")
    B, T, V = logits.shape
    if not logits.numel():
        return
    rows, block = _sizes(logits.dtype, V)
    _backward_kernel[(triton.cdiv(B * T, rows), triton.cdiv(V, block))](
        logits,
        labels,
        grad,
        *(t if t is None else t.contiguous() for t in columns),
        B * T,
        T,
        logits.stride(0),
        logits.stride(1),
        grad.stride(0),
        grad.stride(1),
        V,
        *_halves(temperature),
        ignore_index,
        ACC=accumulator(logits.dtype),
        ROWS=rows,
        BLOCK=block,
        **_LAUNCH,
        **OPTIONS,
    )


def token_stats_backward(logits: Tensor, labels: Tensor | None, *args) -> Tensor:
    if logits.stride(-1) != 1:
        logits = logits.contiguous()
    grad = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    _backward("token_stats_backward", logits, grad, labels, *args)
    return grad


def _forward_build(dtype: torch.dtype, V: int, every: bool) -> Build:
    rows, block = _sizes(dtype, V)
    stats = "*fp64" if dtype == torch.float64 else "*fp32"
    outputs = ("logprob_ptr", "entropy_ptr", "lse_ptr", "max_prob_ptr", "max_logit_ptr")
    more = ("varentropy_ptr", "collision_ptr", "plogp2_ptr")
    return Build(
        _forward_kernel,
        {
            "logits_ptr": "*" + NAMES[dtype],
            "labels_ptr": "*i64",
            **dict.fromkeys((*outputs, *(more if every else ())), stats),
            **dict.fromkeys(("COUNT", "INNER", "STRIDE_B", "STRIDE_T", "V", "IGNORED"), "i32"),
            **dict.fromkeys(("SCALE", "SCALE_LOW"), "fp32"),
        },
        {
            **({} if every else dict.fromkeys(more)),
            "ALL": every,
            "ACC": accumulator(dtype),
            "ROWS": rows,
            "BLOCK": block,
        },
        _LAUNCH,
    )


def _backward_build(dtype: torch.dtype, V: int, every: bool) -> Build:
    rows, block = _sizes(dtype, V)
    stats = "*fp64" if dtype == torch.float64 else "*fp32"
    columns = (
        "max_logit_ptr", "max_prob_ptr", "entropy_ptr", "of_logprob_ptr", "of_entropy_ptr",
    )  # fmt: skip
    more = (
        "varentropy_ptr",
        "collision_ptr",
        "of_varentropy_ptr",
        "of_lse_ptr",
        "of_collision_ptr",
    )
    sizes = ("COUNT", "INNER", "STRIDE_B", "STRIDE_T", "GRAD_B", "GRAD_T", "V", "IGNORED")
    return Build(
        _backward_kernel,
        {
            "labels_ptr": "*i64",
            **dict.fromkeys(("logits_ptr", "grad_ptr"), "*" + NAMES[dtype]),
            **dict.fromkeys((*columns, *(more if every else ())), stats),
            **dict.fromkeys(sizes, "i32"),
            **dict.fromkeys(("SCALE", "SCALE_LOW"), "fp32"),
        },
        {
            **({} if every else dict.fromkeys(more)),
            "ACC": accumulator(dtype),
            "ROWS": rows,
            "BLOCK": block,
        },
        _LAUNCH,
    )


AOT = [
    build(dtype, V, every)
    for build in (_forward_build, _backward_build)
    for dtype in (torch.float32, torch.bfloat16, torch.float64)
    for V, every in ((151936, False), (151936, True), (10, True))
]
