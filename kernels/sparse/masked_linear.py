"""masked_linear (Triton): dense products with a weight that is masked on its way to the arithmetic.

    y[b, o]  = sum_i x[b, i] * W[o, i] + bias[o]      W = weight where mask, else 0
    gx[b, i] = sum_o g[b, o] * W[o, i]
    gw[o, i] = sum_b g[b, o] * x[b, i] where mask, else 0

    input, grad   (B, IN), (B, OUT)  rows of any stride
    weight, mask  (OUT, IN)          row-major; mask is bool

Split: a program has one tile of the result; tiles are visited in groups of _GROUP rows, so that
what runs at one time rereads its operands from L2. y and gx are one kernel, which reads the weight
along one axis or the other. The weight is the left operand: its tile is masked in registers, from
where the tensor cores take a left operand (a right one has to go back to shared memory), and a
small batch becomes a narrow right operand instead of a padded left one.
Weight tiles are loaded whole and selected by the mask, since a load under the mask itself would be
one element wide. A NaN at a masked-out place is dropped by the selection.
gw is written once, zeros included; a tile without a kept entry does no arithmetic, so that block
structured masks are cheaper there.

Bytes and operations: those of the dense product, and 1 byte of mask with each element of weight.
The masked weight, 9 bytes an element to make in float32 and then read again, does not exist (but
for float64, see _product). Density is not exploited; a Pattern as mask goes to sparse_linear.

Sums are in float32 (float64 for float64), over BLOCK_K of the operands at a time. BLOCK_K is one
number for all tiles that the tuner may choose from, so that its choice does not change the order of
a sum. float32 is multiplied as float32 (no TF32). No atomics.

Not measured: tile sizes are from registers and bytes, no GPU was at hand.

Reference: python/synops/_reference/sparse/masked_linear.py
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.interpreter import INTERPRETED
from ..common.launch import OPTIONS, accumulator, require, require_floats
from ..common.tile import dot, first_of_tile

_GROUP = 8  # tiles
# Elements between rows: offsets inside a tile of at most 128 rows are int32.
_MAX_STRIDE = 2**31 // 128 - 1


def _config(block_n: int, block_k: int, warps: int, stages: int) -> triton.Config:
    tile = {"BLOCK_N": block_n, "BLOCK_K": block_k}
    return triton.Config(tile, num_warps=warps, num_stages=stages)


# Tiles to try, by bytes of an element: limited by registers without tensor cores (float32), by
# shared memory with them. A thread reads 16 bytes at once where features are multiples of 16;
# elsewhere it reads, and addresses, single elements, and tiles larger than the ragged ones spill.
_CONFIGS = {
    2: [_config(128, 64, 8, 3), _config(64, 64, 8, 4), _config(64, 64, 4, 4)],
    4: [_config(64, 16, 8, 3), _config(128, 16, 8, 3)],
    8: [_config(64, 16, 8, 3)],
}
_RAGGED = {2: _config(64, 32, 8, 2), 4: _config(32, 16, 4, 2), 8: _config(64, 16, 8, 3)}


def _candidates(itemsize: int, ragged: bool, block_b: int) -> list[triton.Config]:
    if ragged:
        return [_RAGGED[itemsize]]
    # 16-bit tiles of that many sums a thread spill on sm_80
    wide = itemsize == 2 and block_b == 128
    return [c for c in _CONFIGS[itemsize] if c.num_warps == 8 or not wide]


def _tuned(features: tuple[str, str], *more: str):
    """Times the candidates once for each dtype, ``features`` and ``more``; not for each batch."""

    def prune(configs, arguments, **kwargs):
        ragged = any(arguments[name] % 16 for name in features)
        return _candidates(arguments["x_ptr"].element_size(), ragged, kwargs.get("BLOCK_B", 0))

    every = [config for configs in _CONFIGS.values() for config in configs]
    return triton.autotune(
        # a single config is not timed: the interpreter has nothing to time with
        every[:1] if INTERPRETED else every,
        key=[*features, *more],
        prune_configs_by={"early_config_prune": prune},
    )


@_tuned(("N", "K"), "BLOCK_B")
@triton.jit
def _masked_linear_kernel(
    x_ptr,  # (B, K), rows x_stride apart
    w_ptr,  # (N, K), by the strides below
    mask_ptr,  # as w_ptr, bool, or None
    bias_ptr,  # (N,) or None
    y_ptr,  # (B, N)
    B,
    N,
    K,
    x_stride,
    w_stride_n,
    w_stride_k,
    ACC: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):
    n0, b0 = first_of_tile(N, B, BLOCK_N, BLOCK_B, GROUP)
    n, b, k = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_B), tl.arange(0, BLOCK_K)
    # int64 up to the tile, int32 inside it: see _MAX_STRIDE
    w_ptr += n0 * w_stride_n
    if mask_ptr is not None:
        mask_ptr += n0 * w_stride_n
    x_ptr += b0 * x_stride
    w_at = n[:, None] * w_stride_n + k[None, :] * w_stride_k
    x_at = b[None, :] * x_stride + k[:, None]
    n_inside, b_inside = n < N - n0, b < B - b0
    acc = tl.zeros((BLOCK_N, BLOCK_B), ACC)
    for start in range(0, K, BLOCK_K):
        k_inside = k < K - start
        inside = n_inside[:, None] & k_inside[None, :]
        w = tl.load(w_ptr + w_at, mask=inside, other=0.0)
        if mask_ptr is not None:
            kept = tl.load(mask_ptr + w_at, mask=inside, other=0)
            w = tl.where(kept, w, tl.zeros_like(w))
            mask_ptr += BLOCK_K * w_stride_k
        x = tl.load(x_ptr + x_at, mask=k_inside[:, None] & b_inside[None, :], other=0.0)
        acc = dot(w, x, acc, ACC, WIDEN)
        w_ptr += BLOCK_K * w_stride_k
        x_ptr += BLOCK_K
    if bias_ptr is not None:
        acc += tl.load(bias_ptr + n0 + n, mask=n_inside, other=0.0).to(ACC)[:, None]
    y_ptr += b0 * N + n0
    y_inside = n_inside[:, None] & b_inside[None, :]
    tl.store(y_ptr + b[None, :] * N + n[:, None], acc.to(y_ptr.dtype.element_ty), mask=y_inside)


@_tuned(("OUT", "IN"))
@triton.jit
def _masked_linear_backward_kernel(
    g_ptr,  # (B, OUT), rows g_stride apart
    x_ptr,  # (B, IN), rows x_stride apart
    mask_ptr,  # (OUT, IN), bool
    gw_ptr,  # (OUT, IN)
    B,
    OUT,
    IN,
    g_stride,
    x_stride,
    ACC: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):
    o0, i0 = first_of_tile(OUT, IN, BLOCK_O, BLOCK_N, GROUP)
    o, i, k = tl.arange(0, BLOCK_O), tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    o_inside, i_inside = o < OUT - o0, i < IN - i0
    inside = o_inside[:, None] & i_inside[None, :]
    mask_ptr += o0 * IN + i0
    at = o[:, None] * IN + i[None, :]
    kept = tl.load(mask_ptr + at, mask=inside, other=0)
    rows = tl.where(tl.max(kept.to(tl.int32)) > 0, B, 0)
    g_ptr += o0
    x_ptr += i0
    g_at = k[None, :] * g_stride + o[:, None]
    x_at = k[:, None] * x_stride + i[None, :]
    acc = tl.zeros((BLOCK_O, BLOCK_N), ACC)
    for start in range(0, rows, BLOCK_K):
        k_inside = k < B - start
        g = tl.load(g_ptr + g_at, mask=k_inside[None, :] & o_inside[:, None], other=0.0)
        x = tl.load(x_ptr + x_at, mask=k_inside[:, None] & i_inside[None, :], other=0.0)
        acc = dot(g, x, acc, ACC, WIDEN)
        g_ptr += BLOCK_K * g_stride
        x_ptr += BLOCK_K * x_stride
    # read again: cheaper than registers held over the loop
    kept = tl.load(mask_ptr + at, mask=inside, other=0)
    gw = tl.where(kept, acc, tl.zeros_like(acc))
    tl.store(gw_ptr + o0 * IN + i0 + at, gw.to(gw_ptr.dtype.element_ty), mask=inside)


def _block_b(batch: int) -> int:
    """Batch rows of a tile. Three sizes, as each is tuned and compiled for itself."""
    return 16 if batch <= 16 else 64 if batch <= 1024 else 128


def _block_o(dtype: torch.dtype) -> int:
    """Rows of a tile of gw."""
    return 128 if dtype.itemsize == 2 else 64


def _aligned_rows(t: Tensor) -> Tensor:
    """``t`` with rows to be read 16 bytes at a time, where their number of columns allows it."""
    aligned = t.shape[1] % 16 != 0 or (t.stride(0) % 16 == 0 and t.data_ptr() % 16 == 0)
    return t if t.stride(1) == 1 and aligned and t.stride(0) <= _MAX_STRIDE else t.contiguous()


def _product(
    x: Tensor,  # (B, K)
    weight: Tensor,  # (N, K), any strides
    mask: Tensor,  # strides of weight
    bias: Tensor | None,  # (N,)
) -> Tensor:
    """(B, N)"""
    x = _aligned_rows(x)
    if x.dtype == torch.float64:
        # triton 3.6 cannot compile a float64 tensor core operand that also depends on single bytes
        weight, mask = weight.masked_fill(~mask, 0), None
    batch, n = x.shape[0], weight.shape[0]
    y = x.new_empty(batch, n)
    block_b = _block_b(batch)
    _masked_linear_kernel[lambda c: (triton.cdiv(n, c["BLOCK_N"]) * triton.cdiv(batch, block_b),)](
        x,
        weight,
        mask,
        bias,
        y,
        batch,
        n,
        x.shape[1],
        x.stride(0),
        *weight.stride(),
        ACC=accumulator(x.dtype),
        WIDEN=INTERPRETED,
        BLOCK_B=block_b,
        GROUP=_GROUP,
        **OPTIONS,
    )
    return y


def _outer(grad: Tensor, input: Tensor, mask: Tensor) -> Tensor:
    """(OUT, IN)"""
    grad, input = _aligned_rows(grad), _aligned_rows(input)
    (out, cols), block_o = mask.shape, _block_o(grad.dtype)
    grad_weight = grad.new_empty(out, cols)
    tiles = triton.cdiv(out, block_o)
    _masked_linear_backward_kernel[lambda c: (tiles * triton.cdiv(cols, c["BLOCK_N"]),)](
        grad,
        input,
        mask,
        grad_weight,
        grad.shape[0],
        out,
        cols,
        grad.stride(0),
        input.stride(0),
        ACC=accumulator(grad.dtype),
        WIDEN=INTERPRETED,
        BLOCK_O=block_o,
        GROUP=_GROUP,
        **OPTIONS,
    )
    return grad_weight


def _check(op: str, dense: Tensor, axis: int, weight: Tensor, mask: Tensor) -> None:
    require(
        mask.dim() == 2 and mask.dtype == torch.bool,
        op,
        "mask must be a bool matrix",
    )
    require(max(mask.shape) <= _MAX_STRIDE, op, f"more than {_MAX_STRIDE} features")
    require(
        weight.shape == mask.shape and mask.device == dense.device,
        op,
        f"weight must have the shape and device of mask, got {tuple(weight.shape)}",
    )
    require(
        dense.dim() == 2 and dense.shape[1] == mask.shape[axis],
        op,
        f"the weight needs a matrix of {mask.shape[axis]} columns, got {tuple(dense.shape)}",
    )


def masked_linear(
    input: Tensor,  # (B, IN)
    weight: Tensor,  # (OUT, IN)
    bias: Tensor | None,  # (OUT,)
    mask: Tensor,  # (OUT, IN)
) -> Tensor:
    """(B, OUT)"""
    op = "masked_linear"
    _check(op, input, 1, weight, mask)
    require_floats(op, input, weight, *(() if bias is None else (bias,)))
    batch, out = input.shape[0], weight.shape[0]
    require(bias is None or bias.shape == (out,), op, f"bias must have shape ({out},)")
    if batch == 0 or weight.numel() == 0:
        zeros = input.new_zeros(batch, out)
        return zeros if bias is None else zeros + bias
    with torch.cuda.device_of(input):
        bias = None if bias is None else bias.contiguous()
        return _product(input, weight.contiguous(), mask.contiguous(), bias)


def masked_linear_backward(
    grad: Tensor,  # (B, OUT)
    input: Tensor,  # (B, IN)
    weight: Tensor,  # (OUT, IN)
    mask: Tensor,  # (OUT, IN)
    need_input: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(B, IN), (OUT, IN), (OUT,); empty where not needed"""
    op = "masked_linear_backward"
    mask = mask.contiguous()
    _check(op, grad, 0, weight, mask)
    _check(op, input, 1, weight, mask)
    require_floats(op, grad, input, weight)
    require(grad.shape[0] == input.shape[0], op, "grad and input must have one batch size")
    grad_input, grad_weight = grad.new_empty(0, 0), grad.new_empty(0, 0)
    grad_bias = grad.sum(0) if need_bias else grad.new_empty(0)
    if grad.shape[0] == 0 or weight.numel() == 0:
        if need_input:
            grad_input = grad.new_zeros(input.shape)
        if need_weight:
            grad_weight = grad.new_zeros(weight.shape)
        return grad_input, grad_weight, grad_bias
    with torch.cuda.device_of(grad):
        if need_input:
            grad_input = _product(grad, weight.contiguous().t(), mask.t(), None)
        if need_weight:
            grad_weight = _outer(grad, input, mask)
    return grad_input, grad_weight, grad_bias


def _forward_builds(dtype: torch.dtype, ragged: bool, block_b: int) -> list[Build]:
    """Output and gradient of input: the weight along rows, and along columns."""
    p, size = "*" + NAMES[dtype], "i32" if ragged else "i32:16"
    signature = {"x_ptr": p, "w_ptr": p, "bias_ptr": p, "y_ptr": p, "B": "i32"}
    signature |= dict.fromkeys(("N", "K", "x_stride"), size)
    constants = {"BLOCK_B": block_b}
    if dtype == torch.float64:
        constants["mask_ptr"] = None
    else:
        signature["mask_ptr"] = "*i1"
    return [
        _build(_masked_linear_kernel, config, dtype, signature | {far: size}, constants | {near: 1})
        for config in _candidates(dtype.itemsize, ragged, block_b)
        for far, near in (("w_stride_n", "w_stride_k"), ("w_stride_k", "w_stride_n"))
    ]


def _backward_builds(dtype: torch.dtype, ragged: bool) -> list[Build]:
    p, size = "*" + NAMES[dtype], "i32" if ragged else "i32:16"
    signature = {"g_ptr": p, "x_ptr": p, "mask_ptr": "*i1", "gw_ptr": p, "B": "i32"}
    signature |= dict.fromkeys(("OUT", "IN", "g_stride", "x_stride"), size)
    constants = {"BLOCK_O": _block_o(dtype)}
    return [
        _build(_masked_linear_backward_kernel, config, dtype, signature, constants)
        for config in _candidates(dtype.itemsize, ragged, 0)
    ]


def _build(kernel, config, dtype, signature, constants) -> Build:
    constants = constants | config.kwargs
    constants |= {"ACC": accumulator(dtype), "WIDEN": False, "GROUP": _GROUP}
    options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    return Build(kernel, signature, constants, options)


# With ragged features the largest batch tile needs the most registers. float16 is as bfloat16.
AOT = [
    build
    for dtype in (torch.float32, torch.bfloat16, torch.float64)
    for builds in (
        *(_forward_builds(dtype, False, _block_b(batch)) for batch in (1, 128, 2048)),
        _forward_builds(dtype, True, _block_b(2048)),
        _backward_builds(dtype, False),
        _backward_builds(dtype, True),
    )
    for build in builds
] + _forward_builds(torch.float16, False, _block_b(2048))[:1]
