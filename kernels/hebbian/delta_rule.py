"""delta_rule (Triton): a slice of columns of a fast weight a program, in registers at all steps.

The same two scans as on the CPU (csrc/hebbian/delta_rule.h says what they compute), put together in
the same way: columns need nothing of each other, and what would be a sum over columns is a scan of
the turned weight. Vectors are read from L2; a step is 3 multiply-adds an element of the weight.

Not measured: no GPU was at hand. Few heads of long sequences want chunks on tensor cores instead.

Reference: python/synops/_reference/hebbian/delta_rule.py
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.launch import OPTIONS, accumulator, require

__all__ = ["AOT", "delta_rule", "delta_rule_backward"]

LAUNCH = {"num_warps": 4, "num_stages": 1}
_TILE = {4: 4096, 8: 2048}  # elements of a slice, 32 registers of a thread, by bytes of one
_HEBB, _OJA = 1, 2


@triton.jit
def _state_at(head, i, j, ROWS, COLUMNS, TURNED: tl.constexpr):
    """Elements of a weight (heads, rows, columns), or (heads, columns, rows)."""
    first = head.to(tl.int64) * ROWS * COLUMNS
    if TURNED:
        return first + j[None, :] * ROWS + i[:, None]
    else:
        return first + i[:, None] * COLUMNS + j[None, :]


@triton.jit
def _steps_kernel(
    state_ptr, last_ptr,  # (heads, ROWS, COLUMNS), or None: 0, not wanted
    left_ptr, before_ptr, after_ptr,  # (heads, T, ROWS)
    base_ptr, value_ptr,  # (heads, T, COLUMNS); value None: what is written to pre
    gain_ptr, decay_ptr,  # (heads, T), or None: 1
    pre_ptr, post_ptr,  # (heads, T, COLUMNS)
    T, ROWS, COLUMNS,
    TURNED: tl.constexpr, ACC: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK_R)
    j = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (i < ROWS)[:, None] & (j < COLUMNS)[None, :]
    at = _state_at(head, i, j, ROWS, COLUMNS, TURNED)
    if state_ptr is not None:
        w = tl.load(state_ptr + at, mask=inside, other=0.0)
    else:
        w = tl.zeros((BLOCK_R, BLOCK_C), ACC)
    for t in range(T):
        step = head * T + t
        row, column = step * ROWS + i, step * COLUMNS + j
        if decay_ptr is not None:
            w *= tl.load(decay_ptr + step)
        if before_ptr is not None:
            before = tl.load(before_ptr + row, mask=i < ROWS, other=0.0)
            x = tl.load(base_ptr + column, mask=j < COLUMNS, other=0.0)
            x -= tl.sum(w * before[:, None], 0)
            if pre_ptr is not None:
                tl.store(pre_ptr + column, x, mask=j < COLUMNS)
        if value_ptr is not None:
            x = tl.load(value_ptr + column, mask=j < COLUMNS, other=0.0)
        if gain_ptr is not None:
            x *= tl.load(gain_ptr + step)
        left = tl.load(left_ptr + row, mask=i < ROWS, other=0.0)
        w += left[:, None] * x[None, :]
        if after_ptr is not None:
            after = tl.load(after_ptr + row, mask=i < ROWS, other=0.0)
            tl.store(post_ptr + column, tl.sum(w * after[:, None], 0), mask=j < COLUMNS)
    if last_ptr is not None:
        tl.store(last_ptr + at, w, mask=inside)


@triton.jit
def _gradient_kernel(
    state_ptr, first_ptr,  # gradients of the last state and of the first, or None
    left_ptr, source_ptr, read_ptr,  # (heads, T, ROWS); left None: nothing is taken back
    value_ptr, beside_ptr, other_ptr,  # (heads, T, COLUMNS); value None: what is written to out
    gain_ptr, decay_ptr,  # (heads, T)
    out_ptr,  # (heads, T, COLUMNS)
    dot_ptr,  # (blocks of columns, heads, T), where there is an other
    T, ROWS, COLUMNS,
    TURNED: tl.constexpr, ACC: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK_R)
    j = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (i < ROWS)[:, None] & (j < COLUMNS)[None, :]
    at = _state_at(head, i, j, ROWS, COLUMNS, TURNED)
    if state_ptr is not None:
        x = tl.load(state_ptr + at, mask=inside, other=0.0)
    else:
        x = tl.zeros((BLOCK_R, BLOCK_C), ACC)
    for back in range(T):
        step = head * T + (T - 1 - back)
        row, column = step * ROWS + i, step * COLUMNS + j
        if source_ptr is not None:
            source = tl.load(source_ptr + row, mask=i < ROWS, other=0.0)
            beside = tl.load(beside_ptr + column, mask=j < COLUMNS, other=0.0)
            x += source[:, None] * beside[None, :]
        read = tl.load(read_ptr + row, mask=i < ROWS, other=0.0)
        g = tl.sum(x * read[:, None], 0)
        if other_ptr is not None:
            other = tl.load(other_ptr + column, mask=j < COLUMNS, other=0.0)
            of_block = tl.program_id(1).to(tl.int64) * tl.num_programs(0) * T
            tl.store(dot_ptr + of_block + step, tl.sum(g * other, 0))
        if gain_ptr is not None:
            g *= tl.load(gain_ptr + step)
        tl.store(out_ptr + column, g, mask=j < COLUMNS)
        if left_ptr is not None:
            if value_ptr is not None:
                g = tl.load(value_ptr + column, mask=j < COLUMNS, other=0.0)
            left = tl.load(left_ptr + row, mask=i < ROWS, other=0.0)
            x -= left[:, None] * g[None, :]
        if decay_ptr is not None:
            x *= tl.load(decay_ptr + step)
    if first_ptr is not None:
        tl.store(first_ptr + at, x, mask=inside)


class _Call:
    """Checked arguments, contiguous, and launches of the two kernels on them."""

    def __init__(self, op, query, key, value, beta, decay, state, scale, rule):
        self.op, self.rule = op, rule
        require(0 <= rule <= 2, op, f"rule must be 0, 1 or 2, got {rule}")
        require(math.isfinite(scale), op, f"scale must be finite, got {scale}")
        self.like = query
        good = query.dtype in (torch.float32, torch.float64)
        require(good, op, "query must be float32 or float64")
        for name, t in (("query", query), ("key", key), ("value", value)):
            require(t.dim() == 4, op, f"{name} must have 4 dimensions, got {t.dim()}")
        self.numbers = query.shape[:3]
        self.keys, self.values = query.shape[3], value.shape[3]
        self.scale = scale
        self.query = self.series("query", query, self.keys) * scale
        self.key = self.series("key", key, self.keys)
        self.value = self.series("value", value, self.values)
        self.beta, self.decay = self.per_step("beta", beta), self.per_step("decay", decay)
        self.state = self.weight("state", state)

    def _checked(self, name: str, t: Tensor | None, shape) -> Tensor | None:
        if t is None:
            return None
        good = t.dtype == self.like.dtype and t.device == self.like.device
        require(good, self.op, f"{name} must be {self.like.dtype} on {self.like.device}")
        require(t.shape == shape, self.op, f"{name} must have shape {tuple(shape)}")
        return t.contiguous()

    def series(self, name, t, size):
        return self._checked(name, t, (*self.numbers, size))

    def per_step(self, name, t):
        return self._checked(name, t, self.numbers)

    def weight(self, name, t):
        return self._checked(name, t, (*self.numbers[:2], self.keys, self.values))

    def new(self, *size) -> Tensor:
        return self.like.new_empty((*self.numbers, *size))

    def _launch(self, kernel, turned, *args):
        rows, columns = (self.values, self.keys) if turned else (self.keys, self.values)
        constants = constants_of(self.like.dtype, rows, turned)
        blocks = triton.cdiv(columns, constants["BLOCK_C"])
        heads = self.numbers[0] * self.numbers[1]
        if heads * rows * columns:
            size = (self.numbers[2], rows, columns)
            kernel[heads, blocks](*args, *size, **constants, **LAUNCH, **OPTIONS)

    def steps(
        self, turned, last=None, *, left, value=None, base=None, before=None, after=None, pre=None,
        post=None,
    ):  # fmt: skip
        self._launch(
            _steps_kernel, turned, self.state, last, left, before, after, base, value, self.beta,
            self.decay, pre, post,
        )  # fmt: skip

    def gradient(
        self, turned, last, first=None, *, left, source, beside, read, out, value=None, other=None
    ):
        """Blocks of the dot products with ``other``, or None."""
        dots = None
        if other is not None:
            rows, columns = (self.values, self.keys) if turned else (self.keys, self.values)
            block = constants_of(self.like.dtype, rows, turned)["BLOCK_C"]
            dots = self.like.new_zeros((triton.cdiv(columns, block), *self.numbers))
        self._launch(
            _gradient_kernel, turned, last, first, left, source, read, value, beside, other,
            self.beta, self.decay, out, dots,
        )  # fmt: skip
        return dots


def constants_of(dtype: torch.dtype, rows: int, turned: bool) -> dict:
    """What a kernel is compiled for."""
    block = triton.next_power_of_2(max(1, rows))
    return {
        "TURNED": turned,
        "ACC": accumulator(dtype),
        "BLOCK_R": block,
        "BLOCK_C": min(64, max(1, _TILE[dtype.itemsize] // block)),
    }


def delta_rule(query: Tensor, key: Tensor, value: Tensor, *args) -> tuple[Tensor, ...]:
    *rest, save = args  # beta, decay, state, scale, rule
    c = _Call("delta_rule", query, key, value, *rest)
    empty = c.keys * c.values == 0
    output = c.new(c.values).zero_() if empty else c.new(c.values)
    last = query.new_empty((*c.numbers[:2], c.keys, c.values))
    oja, error = c.rule == _OJA, None
    if oja or (save and c.rule != _HEBB):
        error = c.new(c.keys if oja else c.values).zero_()
    if oja:
        c.steps(True, left=c.value, before=c.value, base=c.key, pre=error)
        c.steps(False, last, left=error, value=c.value, after=c.query, post=output)
    elif c.rule == _HEBB:
        c.steps(False, last, left=c.key, value=c.value, after=c.query, post=output)
    else:
        more = {"before": c.key, "base": c.value, "pre": error}
        c.steps(False, last, left=c.key, after=c.query, post=output, **more)
    return output, last, query.new_empty(0) if error is None else error


def delta_rule_backward(
    grad_output: Tensor | None, grad_last: Tensor | None, query: Tensor, key: Tensor,
    value: Tensor, beta: Tensor | None, decay: Tensor | None, state: Tensor | None, last: Tensor,
    error: Tensor, scale: float, rule: int, *needs: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    op = "delta_rule_backward"
    c = _Call(op, query, key, value, beta, decay, state, scale, rule)
    given = None if grad_output is None else c.series("grad_output", grad_output, c.values)
    x, last = c.weight("grad_last", grad_last), c.weight("last", last)
    oja, corrects = rule == _OJA, rule != _HEBB
    left, learned = (c.value, c.key) if oja else (c.key, c.value)
    r = c.series("error", error, learned.shape[3]) if corrects else learned
    require(not needs[3] or beta is not None, op, "beta must be there to have a gradient")
    require(not needs[4] or decay is not None, op, "decay must be there to have a gradient")
    of_query, of_left, of_learned = map(torch.zeros_like, (c.query, left, learned))
    of_state = torch.zeros_like(last) if x is None else x.clone()

    read = (None, None) if given is None else (given, c.query) if oja else (c.query, given)
    dots = c.gradient(
        oja, x, of_state, left=left if corrects else None, source=read[0], beside=read[1],
        read=left, out=of_learned, other=r,
    )  # fmt: skip
    c.gradient(
        not oja, x, left=of_learned if corrects else None, value=left, source=read[1],
        beside=read[0], read=r, out=of_left,
    )  # fmt: skip
    if corrects:
        c.steps(not oja, left=r, value=left, before=of_learned, base=of_left, pre=of_left)
    if given is not None:
        of_query = c.new(c.keys).zero_()
        turned = {"left": left, "value": r} if oja else {"left": r, "value": left}
        c.steps(True, after=given, post=of_query, **turned)
        of_query *= scale
    of_key, of_value = (of_learned, of_left) if oja else (of_left, of_learned)
    none = query.new_empty(0)
    of_beta = of_decay = none
    if needs[3]:
        of_beta = dots.sum(0)
    if needs[4]:  # as csrc/hebbian/delta_rule_backward.cpp explains
        terms = (query * of_query).sum(-1).double() - (learned * of_learned).sum(-1)
        terms = terms.flip(-1).cumsum(-1).flip(-1)
        if x is not None:
            terms = terms + (x.double() * last).sum((-1, -2))[..., None]
        of_decay = (terms / c.decay).to(query.dtype)
    found = (of_query, of_key, of_value, of_beta, of_decay, of_state)
    return tuple(g if need else none.clone() for g, need in zip(found, needs, strict=True))


def _builds(dtype: torch.dtype, rows: int, turned: bool, every: bool) -> list[Build]:
    pointer = "*" + NAMES[dtype]
    sizes = dict.fromkeys(("T", "ROWS", "COLUMNS"), "i32")
    steps = ("state", "last", "left", "before", "after", "base", "value", "gain", "decay", "pre")
    gradient = ("state", "first", "left", "source", "read", "value", "beside", "other", "gain")
    absent = ("state", "last", "first", "value", "gain", "decay", "other", "dot")
    builds = []
    for kernel, names in (
        (_steps_kernel, (*steps, "post")),
        (_gradient_kernel, (*gradient, "decay", "out", "dot")),
    ):
        here = [n for n in names if every or n not in absent]
        builds.append(
            Build(
                kernel,
                {n + "_ptr": pointer for n in here} | sizes,
                {n + "_ptr": None for n in names if n not in here}
                | constants_of(dtype, rows, turned),
                LAUNCH,
            )
        )
    return builds


AOT = [
    *_builds(torch.float32, 64, False, False),
    *_builds(torch.float32, 128, True, True),
    *_builds(torch.float64, 64, False, True),
]
