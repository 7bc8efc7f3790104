"""hopfield_retrieve (Triton): a step of retrieval is one pass over the patterns.

    l = sum e^x, a = sum e^x x, x = s - running maximum; lse = m + log l, entropy = log l - a / l

Split: a program has BLOCK_N rows of a head and passes over its patterns, which are keys and, but in
a step to values, values. A step is a launch; rows at rest are carried over, and a program of such
rows does nothing else, so no step waits for the host. The backward is attention's, step by step,
in the type of sums.

Sums are in float32 (float64 for float64); for 16 bits, p is rounded to the element type before it
multiplies, as in FlashAttention. Patterns or values of more than 256 numbers do not fit a program:
they take the reference's products, which hold queries x patterns. Not measured: no GPU was at hand.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._reference.hebbian import hopfield_retrieve as reference
from ..common.aot import NAMES, Build
from ..common.launch import OPTIONS, accumulator, require
from ..common.tile import dot
from ..entropy import attention_tile as tile
from ..entropy.attention_backward import attention_with_stats_backward
from ..entropy.attention_tile import INTERPRETED, LN2, LOG2E, MOST_SIZE, rows_at

_LOG2E = tl.constexpr(LOG2E)
_LN2 = tl.constexpr(LN2)


@triton.jit
def _retrieve_kernel(
    state_ptr,  # (B, H, M, D), contiguous
    patterns_ptr,
    values_ptr,  # the patterns, or those of a step to values
    beta_ptr,  # (H,) or (1,)
    after_ptr,  # (B, H, M, DV), contiguous
    lse_ptr,  # (B, H, M), as the next two, of this step
    entropy_ptr,  # or None
    norm_ptr,
    iterations_ptr,  # (B, H, M)
    moving_ptr,  # (B, H, M)
    before,  # to the step before in lse, entropy and norm
    tolerance,  # below 0: none
    H,
    BETAS,
    M,
    N,
    D,
    DV,
    p_b,
    p_h,
    p_n,
    v_b,
    v_h,
    v_n,
    PROJECT: tl.constexpr,
    ACC: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    blocks = tl.cdiv(M, BLOCK_N)
    head = (tl.program_id(0) // blocks).to(tl.int64)
    b = head // H
    h = head % H
    i = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = i < M
    at = head * M + i
    q = rows_at(state_ptr + head * M * D, i, D, inside, D, BLOCK_D)
    moving = inside
    if not PROJECT:
        moving = tl.load(moving_ptr + at, mask=inside, other=0) != 0
    beta = tl.load(beta_ptr + h % BETAS)
    patterns_ptr += b * p_b + h * p_h
    values_ptr += b * v_b + h * v_h
    top = tl.full((BLOCK_N,), float("-inf"), ACC)
    first = tl.zeros((BLOCK_N,), ACC)
    total = tl.zeros((BLOCK_N,), ACC)
    acc = tl.zeros((BLOCK_N, BLOCK_V), ACC)
    end = tl.where(tl.max(moving.to(tl.int32), 0) != 0, N, 0)
    for start in range(0, end, BLOCK_M):
        j = start + tl.arange(0, BLOCK_M)
        x = rows_at(patterns_ptr, j, p_n, j < N, D, BLOCK_D)
        s = dot(q, tl.trans(x), tl.zeros((BLOCK_N, BLOCK_M), ACC), ACC, WIDEN) * beta
        s = tl.where((j < N)[None, :], s, float("-inf"))
        risen = tl.maximum(top, tl.max(s, 1))
        y = tl.where((j < N)[None, :], (s - risen[:, None]) * _LOG2E, 0.0)
        p = tl.where((j < N)[None, :], tl.exp2(y), 0.0)
        delta = tl.where(top == float("-inf"), 0.0, (top - risen) * _LOG2E)
        factor = tl.where(top == float("-inf"), 0.0, tl.exp2(delta))
        if entropy_ptr is not None:
            first = factor * (first + delta * total) + tl.sum(p * y, 1)
        total = factor * total + tl.sum(p, 1)
        top = risen
        v = rows_at(values_ptr, j, v_n, j < N, DV, BLOCK_V)
        if not WIDEN:
            p = p.to(v.dtype)
        acc = dot(p, v, acc * factor[:, None], ACC, WIDEN)
    total = tl.where(moving, total, 1.0)
    lse = top + tl.log(total)
    wide = q.to(ACC)
    norm = tl.sum(wide * wide, 1) / 2
    entropy = tl.log(total) - first / total * _LN2
    entropy = tl.where(entropy < 0, 0.0, entropy)
    d = tl.arange(0, BLOCK_V)
    made = (acc / total[:, None]).to(after_ptr.dtype.element_ty)
    if not PROJECT:
        # BLOCK_V is BLOCK_D: a row at rest keeps its state and its statistics.
        apart = made.to(ACC) - wide
        change = tl.sum(apart * apart, 1)
        made = tl.where(moving[:, None], made, q)
        resting = inside & (moving == 0)
        lse = tl.where(resting, tl.load(lse_ptr + at - before, mask=resting, other=0.0), lse)
        norm = tl.where(resting, tl.load(norm_ptr + at - before, mask=resting, other=0.0), norm)
        if entropy_ptr is not None:
            last = tl.load(entropy_ptr + at - before, mask=resting, other=0.0)
            entropy = tl.where(resting, last, entropy)
        on = moving & ((tl.sqrt(change) <= tolerance) == 0)
        tl.store(moving_ptr + at, on.to(tl.int8), mask=inside)
    made_steps = tl.load(iterations_ptr + at, mask=inside, other=0) + moving.to(tl.int64)
    tl.store(iterations_ptr + at, made_steps, mask=inside)
    tl.store(lse_ptr + at, lse, mask=inside)
    tl.store(norm_ptr + at, norm, mask=inside)
    if entropy_ptr is not None:
        tl.store(entropy_ptr + at, entropy, mask=inside)
    kept = inside[:, None] & (d < DV)[None, :]
    tl.store(after_ptr + at[:, None] * DV + d[None, :], made, mask=kept)


def _check(
    op: str, state: Tensor, patterns: Tensor, values: Tensor | None, beta: Tensor, steps: int
) -> None:
    """Raises RuntimeError on what the kernel would read outside of."""
    given = (state, patterns) if values is None else (state, patterns, values)
    require(all(t.dim() == 4 for t in given), op, "tensors must have 4 dimensions")
    require(state.dtype in NAMES, op, f"no kernel for {state.dtype}")
    same = all(t.dtype == state.dtype and t.device == state.device for t in given)
    require(same and beta.device == state.device, op, "tensors must have one dtype and device")
    (b, h, m, d), (pb, ph, n) = state.shape, patterns.shape[:3]
    require(pb in (1, b) and ph in (1, h), op, "patterns must broadcast with state")
    require(patterns.shape[3] == d and n >= 1 and d >= 1, op, "shapes do not fit")
    if values is not None:
        require(values.shape[:3] == patterns.shape[:3], op, "values must fit patterns")
        require(values.shape[3] >= 1, op, "values must hold a number")
    require(beta.dim() == 1 and beta.shape[0] in (1, h), op, "beta must have 1 number or H")
    wide = torch.float64 if state.dtype == torch.float64 else torch.float32
    require(beta.dtype == wide, op, f"beta must be {wide}")
    require(steps >= 1, op, "steps must be at least 1")
    require(max(m, n) < 2**30, op, "at most 2^30 rows and patterns")


def hopfield_retrieve(
    state: Tensor,
    patterns: Tensor,
    values: Tensor | None,
    beta: Tensor,
    steps: int,
    tolerance: float,
    entropy: bool,
    save: bool,
) -> tuple[Tensor, ...]:
    """The launcher; see the reference."""
    _check("hopfield_retrieve", state, patterns, values, beta, steps)
    out = state.shape[3] if values is None else values.shape[3]
    if max(state.shape[3], out) > MOST_SIZE:
        return reference.hopfield_retrieve(
            state, patterns, values, beta, steps, tolerance, entropy, save
        )
    state, patterns, beta = state.contiguous(), tile.unit_rows(patterns), beta.contiguous()
    rows = state.shape[:3]

    def stat(asked: bool) -> Tensor:
        return beta.new_empty((steps, *rows) if asked else (0,))

    lse, found, norm = stat(True), stat(entropy), stat(True)
    iterations = torch.zeros(rows, dtype=torch.int64, device=state.device)
    moving = torch.ones(rows, dtype=torch.int8, device=state.device)
    saved = state.new_empty((steps - 1, *state.shape) if save else (0,))
    result = state.new_empty((*rows, out))
    if result.numel() == 0:
        return result, lse, found, norm, iterations, saved
    spare = [state.new_empty(state.shape) for _ in range(0 if save else min(2, steps - 1))]
    for t in range(steps):
        project = values is not None and t == steps - 1
        v = tile.unit_rows(values) if project and values is not None else patterns
        after = result if t == steps - 1 else saved[t] if save else spare[t % 2]
        sizes = {"BLOCK_D": tile.block_of(state.shape[3]), "BLOCK_V": tile.block_of(v.shape[3])}
        blocks, options = _launch(state.dtype, max(sizes.values()))
        grid = (rows[0] * rows[1] * triton.cdiv(rows[2], blocks["BLOCK_N"]),)
        _retrieve_kernel[grid](
            *(state, patterns, v, beta, after, lse[t], found[t] if entropy else None, norm[t]),
            *(iterations, moving, iterations.numel() if t else 0),
            tolerance,
            *(rows[1], beta.shape[0], rows[2], patterns.shape[2], state.shape[3], v.shape[3]),
            *_strides(patterns),
            *_strides(v),
            PROJECT=project,
            ACC=accumulator(state.dtype),
            WIDEN=INTERPRETED,
            **(blocks | sizes | options | OPTIONS),
        )
        state = after
    return result, lse, found, norm, iterations, saved


def _launch(dtype: torch.dtype, size: int) -> tuple[dict, dict]:
    """As attention's, but for 16 bits of size 256: the state stays in registers for its change."""
    blocks, options = tile.launch(dtype, size, False)
    if dtype.itemsize == 2 and size > 128:
        blocks = blocks | {"BLOCK_M": 32}
    return blocks, options


def _strides(t: Tensor) -> tuple[int, ...]:
    """Of (batch, heads, patterns), 0 where broadcast."""
    return tuple(
        0 if d < 2 and size == 1 else stride
        for d, (size, stride) in enumerate(zip(t.shape[:3], t.stride()[:3], strict=True))
    )


def hopfield_retrieve_backward(
    grad_output: Tensor | None,
    grad_lse: Tensor | None,
    grad_entropy: Tensor | None,
    grad_half_norm: Tensor | None,
    state: Tensor,
    patterns: Tensor,
    values: Tensor | None,
    beta: Tensor,
    output: Tensor,
    lse: Tensor,
    entropy: Tensor,
    iterations: Tensor,
    states: Tensor,
    *needs: bool,
) -> tuple[Tensor, ...]:
    """The launcher; see the reference."""
    op = "hopfield_retrieve_backward"
    require(lse.dim() == 4 and lse.shape[0] >= 1, op, "lse must be (steps, B, H, M)")
    steps = lse.shape[0]
    _check(op, state, patterns, values, beta, steps)
    require(states.shape == (steps - 1, *state.shape), op, "states must be (steps - 1, B, H, M, D)")
    sizes = [t.shape[3] for t in (state, values) if t is not None]
    if max(sizes) > MOST_SIZE or state.numel() == 0:
        return reference.hopfield_retrieve_backward(
            *(grad_output, grad_lse, grad_entropy, grad_half_norm, state, patterns, values, beta),
            *(output, lse, entropy, iterations, states, *needs),
        )
    updates = steps if values is None else steps - 1
    # The kernels are compiled for a scale, and one that is learned changes: so it is 1, and of the
    # state times beta; in the type of sums, for that product would be rounded.
    b, h = state.shape[:2]
    scale, wide = beta.reshape(-1, 1, 1), beta.dtype
    keys = patterns.expand(b, h, *patterns.shape[2:]).to(wide)
    g = torch.zeros_like(output, dtype=wide) if grad_output is None else grad_output.to(wide)
    to_patterns, to_beta = torch.zeros_like(keys), beta.new_zeros(b, h)
    to_values = None
    carried: list[Tensor | None] = [None, None, None]
    for t in reversed(range(steps)):
        project = t == updates
        now = (state if t == 0 else states[t - 1]).to(wide)
        after = (output if t == steps - 1 else states[t]).to(wide)
        made = None if project else iterations - (steps - updates) > t
        of: list[Tensor | None] = []
        for k, whole in enumerate((grad_lse, grad_entropy, grad_half_norm)):
            one, rest = None if whole is None else whole[t], carried[k]
            if one is not None and made is not None:
                one = one if rest is None else one + rest
                carried[k] = torch.where(made, 0, one)
                one = torch.where(made, one, 0)
            of.append(one)
        v = keys if not project or values is None else values.expand(b, h, *values.shape[2:])
        to_scaled, to_key, to_v = attention_with_stats_backward(
            g if made is None else torch.where(made[..., None], g, 0),
            *of[:2],
            None,
            *(scale * now, keys, v.to(wide), None, after, lse[t]),
            *(entropy[t] if entropy.numel() else entropy, entropy.new_empty(0)),
            *(False, -1, 1.0, True, True, True),
        )
        to_patterns += to_key
        if project:
            to_values = to_v
        else:
            to_patterns += to_v
        to_beta += (to_scaled * now).sum((-1, -2))
        to_now = scale * to_scaled
        if of[2] is not None:
            to_now = to_now + of[2][..., None] * now
        g = to_now if made is None else torch.where(made[..., None], to_now, g)
    none = state.new_empty(0)
    valued = needs[2] and to_values is not None and values is not None
    return (
        g.to(state.dtype) if needs[0] else none,
        to_patterns.sum_to_size(patterns.shape).to(state.dtype) if needs[1] else none,
        to_values.sum_to_size(values.shape).to(state.dtype) if valued else none,
        to_beta.sum(0).sum_to_size(beta.shape) if needs[3] else beta.new_empty(0),
    )


def _build(dtype: torch.dtype, size: int, project: bool, entropy: bool) -> Build:
    blocks, options = _launch(dtype, size)
    name, wide = "*" + NAMES[dtype], "*fp64" if dtype == torch.float64 else "*fp32"
    signature = dict.fromkeys(("state_ptr", "patterns_ptr", "values_ptr", "after_ptr"), name)
    signature |= dict.fromkeys(("beta_ptr", "lse_ptr", "norm_ptr"), wide)
    signature |= {"entropy_ptr": wide} if entropy else {}
    signature |= {"iterations_ptr": "*i64", "moving_ptr": "*i8", "before": "i64"}
    signature |= {"tolerance": "fp32"} | dict.fromkeys(("H", "BETAS", "M", "N", "D", "DV"), "i32")
    signature |= dict.fromkeys([f"{t}_{axis}" for t in "pv" for axis in "bhn"], "i64:16")
    constants = {
        **({} if entropy else {"entropy_ptr": None}),
        "PROJECT": project,
        "ACC": accumulator(dtype),
        "WIDEN": False,
        **blocks,
        "BLOCK_D": size,
        "BLOCK_V": size,
    }
    return Build(_retrieve_kernel, signature, constants, options)


AOT = [
    _build(torch.float32, 64, False, True),
    _build(torch.float32, 256, True, False),
    _build(torch.bfloat16, 64, False, True),
    _build(torch.bfloat16, 256, False, True),
    _build(torch.float64, 64, False, False),
]
