"""token_stats_backward (Triton): the gradient of logits, one read and one write of them.

Elementwise: a program has one block of some rows and columns. Units as in token_stats.py.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.launch import OPTIONS, accumulator, require
from .rows import block_of, check_rows, column, halves, launch_options, scale_of


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
    scale = scale_of(SCALE, SCALE_LOW, ACC)
    ln2 = tl.full((), 0.6931471805599453, ACC)
    begin = row // INNER * STRIDE_B + row % INNER * STRIDE_T
    k = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    kept = inside[:, None] & (k < V)[None, :]
    x = tl.load(logits_ptr + begin[:, None] + k[None, :], mask=kept, other=float("-inf")).to(ACC)
    most = column(max_logit_ptr, row, inside, ACC)
    max_prob = column(max_prob_ptr, row, inside, ACC)
    empty = max_prob == 0
    log_p = tl.log2(tl.where(empty, 1.0, max_prob))
    y = (x - tl.where(empty, 0.0, most)) * (scale * 1.4426950408889634) + log_p
    none = (x == float("-inf")) | empty
    y = tl.where(none, 0.0, y)
    p = tl.where(none, 0.0, tl.exp2(y))
    h = column(entropy_ptr, row, inside, ACC)
    u = y * ln2 + h
    slope = column(of_lse_ptr, row, inside, ACC) - u * column(of_entropy_ptr, row, inside, ACC)
    if of_varentropy_ptr is not None:
        v = column(varentropy_ptr, row, inside, ACC)
        slope += column(of_varentropy_ptr, row, inside, ACC) * (u * u + 2 * u - v)
    if of_collision_ptr is not None:
        c = column(collision_ptr, row, inside, ACC)
        slope += column(of_collision_ptr, row, inside, ACC) * 2 * (p - c)
    grad = p * slope
    if of_logprob_ptr is not None:
        label = tl.load(labels_ptr + row, mask=inside, other=0)
        known = inside & (label >= 0) & (label < V) & (label != IGNORED)
        own = tl.load(logits_ptr + begin + label, mask=known, other=float("-inf"))
        # Of a label that has no probability there is no gradient.
        known = known & (own != float("-inf"))
        g = tl.where(known[:, None], column(of_logprob_ptr, row, inside, ACC), 0.0)
        grad += g * (tl.where(k[None, :] == label[:, None], 1.0, 0.0) - p)
    at = (row // INNER * GRAD_B + row % INNER * GRAD_T)[:, None] + k[None, :]
    grad = tl.where(empty, 0.0, grad * scale)
    tl.store(grad_ptr + at, grad.to(grad_ptr.dtype.element_ty), mask=kept)


def write_gradient(op: str, logits: Tensor, grad: Tensor, labels: Tensor | None, *args) -> None:
    temperature, ignore_index, *columns = args
    labels = check_rows(op, logits, labels, temperature, *(t for t in columns if t is not None))
    _, _, entropy, varentropy, collision, of_logprob, of_entropy, of_varentropy, _, of_c = columns
    require(of_logprob is None or labels is not None, op, "grad_logprob needs labels")
    require((of_entropy is None and of_varentropy is None) or entropy is not None, op, "entropy")
    require(of_varentropy is None or varentropy is not None, op, "varentropy is missing")
    require(of_c is None or collision is not None, op, "collision is missing")
    B, T, V = logits.shape
    if not logits.numel():
        return
    rows, block = block_of(logits.dtype, V)
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
        *halves(temperature),
        ignore_index,
        ACC=accumulator(logits.dtype),
        ROWS=rows,
        BLOCK=block,
        **launch_options(logits.dtype),
        **OPTIONS,
    )


def _backward_build(dtype: torch.dtype, V: int, every: bool) -> Build:
    rows, block = block_of(dtype, V)
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
        launch_options(dtype),
    )


AOT = [
    _backward_build(dtype, V, every)
    for dtype in (torch.float32, torch.bfloat16, torch.float64)
    for V, every in ((151936, False), (151936, True), (10, True))
]
