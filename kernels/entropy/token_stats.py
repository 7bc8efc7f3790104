"""token_stats (Triton): sums over rows of logits in one read of them.

Split: a program has some rows and passes over their columns block by block, with sums centred at
the running maximum; of long rows it has one, of short rows as many as fill a block.

Numbers are in units of log2 (y = (x - max) * log2(e) / temperature), as in the C++ kernels. A sum
depends on V and the dtype alone: the same bits on every run. No atomics.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.launch import OPTIONS, accumulator, require
from .rows import block_of, check_rows, halves, launch_options, scale_of
from .token_stats_backward import write_gradient

_LOGPROB, _ENTROPY, _VARENTROPY, _COLLISION, _PLOGP2 = 1, 2, 4, 32, 64


@triton.jit
def _powers(x, centre, unit):
    """2^y and y of logits; both 0 where a logit is -inf."""
    none = x == float("-inf")
    y = (tl.where(none, centre, x) - centre) * unit
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
    scale = scale_of(SCALE, SCALE_LOW, ACC)
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
        centre = tl.where(now == float("-inf"), 0.0, now)
        shift = (tl.where(most == float("-inf"), centre, most) - centre) * unit
        f = tl.exp2(shift)
        ppy = f * f * (ppy + shift * pp)
        pp = f * f * pp
        pyy = f * (pyy + 2 * shift * py + shift * shift * p)
        py = f * (py + shift * p)
        p = f * p
        most = now
        powers, y = _powers(x, centre[:, None], unit)
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
        none = x == float("-inf")  # as are all, where most is
        centre = tl.where(most == float("-inf"), 0.0, most)
        logprob = (tl.where(none, centre, x) - centre) * scale - log_sum
        logprob = tl.where(none, x, logprob)
        logprob = tl.where(known, logprob, float("nan"))
        tl.store(logprob_ptr + row, tl.where(label == IGNORED, 0.0, logprob), mask=inside)


def token_stats(
    logits: Tensor, labels: Tensor | None, temperature: float, ignore_index: int, stats: int
) -> tuple[Tensor, ...]:
    labels = check_rows("token_stats", logits, labels, temperature)
    if logits.stride(-1) != 1:
        logits = logits.contiguous()
    B, T, V = logits.shape
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    bits = (_LOGPROB * (labels is not None), _ENTROPY, _VARENTROPY, -1, -1, _COLLISION, _PLOGP2, -1)
    out = [logits.new_empty((B, T) if stats & bit else (0, 0), dtype=dtype) for bit in bits]
    if not B * T:
        return tuple(out)
    rows, block = block_of(logits.dtype, V)
    _forward_kernel[(triton.cdiv(B * T, rows),)](
        logits,
        labels,
        *(t if t.numel() else None for t in out),
        B * T,
        T,
        logits.stride(0),
        logits.stride(1),
        V,
        *halves(temperature),
        ignore_index,
        ALL=bool(stats & (_VARENTROPY | _COLLISION | _PLOGP2)),
        ACC=accumulator(logits.dtype),
        ROWS=rows,
        BLOCK=block,
        **launch_options(logits.dtype),
        **OPTIONS,
    )
    return tuple(out)


def token_stats_backward(logits: Tensor, labels: Tensor | None, *args) -> Tensor:
    if logits.stride(-1) != 1:
        logits = logits.contiguous()
    grad = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    write_gradient("token_stats_backward", logits, grad, labels, *args)
    return grad


def token_stats_backward_(logits: Tensor, labels: Tensor | None, *args) -> None:
    require(logits.stride(-1) == 1, "token_stats_backward_", "rows of logits must be contiguous")
    write_gradient("token_stats_backward_", logits, logits, labels, *args)


def _forward_build(dtype: torch.dtype, V: int, every: bool) -> Build:
    rows, block = block_of(dtype, V)
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
        launch_options(dtype),
    )


AOT = [
    _forward_build(dtype, V, every)
    for dtype in (torch.float32, torch.bfloat16, torch.float64)
    for V, every in ((151936, False), (151936, True), (10, True))
]
