"""Operands and logits of linear_token_stats (Triton), forward and backward.

A program makes a tile of logits in registers, float32 (float64 for float64) and not TF32.

Not measured: tile sizes are from registers and bytes, no GPU was at hand.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES
from ..common.interpreter import INTERPRETED
from ..common.launch import accumulator, require, require_floats
from ..common.tile import dot

# Tokens, rows of the weight and features of a tile, by bytes of an element. Where rows are not of
# whole 16 elements, single ones are addressed, which takes registers.
_TILES = {2: (64, 64, 64), 4: (64, 64, 16), 8: (32, 64, 16)}
_RAGGED = {2: (64, 64, 32), 4: (64, 32, 16), 8: (32, 32, 16)}
LAUNCH = {"num_warps": 8, "num_stages": 3}


@triton.jit
def logits_of(
    hidden_ptr,
    weight_ptr,
    bias_ptr,
    m,  # (BLOCK_M,), int64
    v,  # (BLOCK_V,), int64
    N,
    D,
    V,
    H_LD,
    W_LD,
    ACC: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Of a tile; -inf behind the vocabulary."""
    acc = tl.zeros((BLOCK_M, BLOCK_V), ACC)
    for start in range(0, D, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        inside = k < D
        h_mask, w_mask = (m < N)[:, None] & inside[None, :], (v < V)[None, :] & inside[:, None]
        h = tl.load(hidden_ptr + (m[:, None] * H_LD + k[None, :]), mask=h_mask, other=0.0)
        w = tl.load(weight_ptr + (v[None, :] * W_LD + k[:, None]), mask=w_mask, other=0.0)
        acc = dot(h, w, acc, ACC, WIDEN)
    if bias_ptr is not None:
        acc += tl.load(bias_ptr + v, mask=v < V, other=0.0).to(ACC)[None, :]
    return tl.where((v < V)[None, :], acc, float("-inf"))


def wide(t: Tensor) -> torch.dtype:
    """Of sums and statistics."""
    return torch.float64 if t.dtype == torch.float64 else torch.float32


def constants_of(dtype: torch.dtype, ragged: bool) -> dict:
    """What a kernel is compiled for."""
    tokens, rows, features = (_RAGGED if ragged else _TILES)[dtype.itemsize]
    tile = {"BLOCK_M": tokens, "BLOCK_V": rows, "BLOCK_K": features}
    return {"ACC": accumulator(dtype), "WIDEN": INTERPRETED, **tile}


def _scale(hidden: Tensor, temperature: float) -> Tensor:
    most = torch.finfo(wide(hidden)).max
    return hidden.new_full((1,), min(math.log2(math.e) / temperature, most), dtype=wide(hidden))


def _rows(t: Tensor) -> Tensor:
    return t if t.stride(1) == 1 or t.shape[1] <= 1 else t.contiguous()


class Head:
    """Checked arguments."""

    def __init__(
        self,
        op: str,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor | None,
        bias: Tensor | None,
        temperature: float,
    ):
        require_floats(op, hidden, weight, *(() if bias is None else (bias,)))
        require(hidden.dim() == 2 and weight.dim() == 2, op, "hidden and weight must be matrices")
        require(hidden.shape[1] == weight.shape[1], op, "hidden and weight must be as wide")
        self.tokens, self.features = hidden.shape
        self.vocabulary = weight.shape[0]
        require(
            bias is None or bias.shape == (self.vocabulary,), op, "bias must be of the vocabulary"
        )
        require(
            labels is None
            or (
                labels.dtype == torch.int64
                and labels.shape == (self.tokens,)
                and labels.device == hidden.device
            ),
            op,
            "labels must be an int64 for each token",
        )
        require(math.isfinite(temperature) and temperature > 0, op, "temperature must be above 0")
        self.hidden, self.weight = _rows(hidden), _rows(weight)
        self.labels = None if labels is None else labels.contiguous()
        self.bias = None if bias is None else bias.contiguous()
        self.scale = _scale(hidden, temperature)
        strides = self.hidden.stride(0), self.weight.stride(0)
        self.sizes = self.tokens, self.features, self.vocabulary, *strides
        ragged = any(size % 16 for size in (self.features, *strides))
        self.constants = constants_of(hidden.dtype, ragged)

    @property
    def tensors(self) -> tuple:
        return self.hidden, self.weight, self.bias, self.labels, self.scale


def signature_of(dtype: torch.dtype, ragged: bool) -> dict[str, str]:
    """Of a head's tensors and sizes, for compilation without a GPU."""
    p, sums = "*" + NAMES[dtype], "*fp64" if dtype == torch.float64 else "*fp32"
    head = {"hidden_ptr": p, "weight_ptr": p, "bias_ptr": p, "labels_ptr": "*i64"}
    sizes = dict.fromkeys(("D", "H_LD", "W_LD"), "i32" if ragged else "i32:16")
    return head | {"scale_ptr": sums, "N": "i32", "V": "i32"} | sizes
