"""Inputs of the sparse layers, their float64 answers, and the shapes worth trying."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from close import assert_close, assert_grad_close
from synops import _library

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]

# Batch rows, around each change of kernel (csrc/sparse/sparse_linear.cpp). A vector has 16 (AVX-512
# float32), 8 (AVX2, portable; AVX-512 float64) or 4 lanes (AVX2 float64), so every set of
# instructions meets its own edges in this list.
BATCHES = [
    0,  # nothing to do, but gradients of weights are zeros that must be written
    1,  # row dots: up to 3 rows (kFewRows)
    3,
    4,  # slabs from here on; one vector of 4 float64
    5,
    7,  # one vector of 8, less and more
    8,
    9,
    15,  # one vector of 16, two of 8, four of 4
    16,
    17,
    31,  # two of 16
    32,
    33,  # more than the widest slab without tiles: a second batch block
    65,  # with tiles, more than the widest slab of four vectors
    130,  # several blocks with a remainder
]

# (in, out): both sides of the vector widths that rows are written and columns packed by.
FEATURES = [
    (0, 5),  # no inputs: the bias
    (5, 0),  # no outputs
    (0, 0),
    (1, 1),
    (15, 17),
    (16, 16),
    (17, 15),
    (37, 1),  # one long row
    (1, 37),  # rows of one entry
    (50, 33),
]

DENSITIES = [0.0, 0.02, 0.5, 1.0]


class Tiling(NamedTuple):
    """A shape around the tile of 192 columns, and the density that decides whether it is tiled."""

    in_features: int
    out_features: int
    density: float
    row_tiles: int  # of the forward
    col_tiles: int  # of the input gradient


TILINGS = [
    Tiling(191, 40, 0.5, 1, 1),  # below one tile
    Tiling(192, 40, 0.5, 1, 1),  # exactly one
    Tiling(193, 40, 0.5, 2, 1),  # a second tile of one column
    Tiling(193, 40, 0.1, 1, 1),  # the same, but 9 entries a row and tile: below kTileEntries = 15
    Tiling(40, 193, 0.5, 1, 2),  # only the transpose is tiled
    Tiling(384, 200, 0.2, 2, 2),  # two full tiles: 38 entries a row and tile
    Tiling(385, 60, 0.2, 3, 1),
    Tiling(
        1000, 20, 0.12, 6, 1
    ),  # several steps of tiles (four a step at one vector), and a remainder
]


@dataclass
class Sample:
    """One call of a linear layer with a masked weight, and a gradient that comes back."""

    input: Tensor  # (..., in)
    weight: Tensor  # (out, in), NaN where the mask is False
    mask: Tensor  # (out, in), bool
    bias: Tensor | None  # (out,)
    grad: Tensor  # (..., out)

    @property
    def values(self) -> Tensor:
        """(nnz,): the weight at the kept entries, in CSR order."""
        return self.weight[self.mask]


def random_mask(out_features: int, in_features: int, density: float) -> Tensor:
    """Random; with room for them, an empty row, an empty column and a row otherwise full."""
    mask = torch.rand(out_features, in_features) < density
    if 0 < density < 1 and out_features > 4 and in_features > 4:
        mask[3] = True
        mask[1] = False
        mask[:, 2] = False
    return mask


def sample(
    batch: int | tuple[int, ...],
    in_features: int,
    out_features: int,
    density: float,
    dtype: torch.dtype = torch.float32,
    *,
    bias: bool = True,
) -> Sample:
    """A random call; ``batch`` is the leading dimensions."""
    lead = (batch,) if isinstance(batch, int) else batch
    mask = random_mask(out_features, in_features, density)
    weight = torch.randn(out_features, in_features).masked_fill(~mask, torch.nan)
    return Sample(
        torch.randn(*lead, in_features).to(dtype),
        weight.to(dtype),
        mask,
        torch.randn(out_features).to(dtype) if bias else None,
        torch.randn(*lead, out_features).to(dtype),
    )


class Answer(NamedTuple):
    """The output and the gradients of input, weight and bias."""

    output: Tensor
    input: Tensor
    weight: Tensor
    bias: Tensor | None


def run(layer, s: Sample, weight: Tensor) -> Answer:
    """``layer(input, weight, bias)`` and the gradients for ``s.grad``."""
    args = [t if t is None else t.detach().requires_grad_() for t in (s.input, weight, s.bias)]
    output = layer(*args)
    wanted = [t for t in args if t is not None]
    grads = torch.autograd.grad(output, wanted, s.grad)
    return Answer(output.detach(), *grads, *[None] * (3 - len(grads)))


def _exact(s: Sample, of) -> Answer:
    tensors = (t if t is None or t is s.mask else of(t.double()) for t in vars(s).values())
    exact = Sample(*tensors)
    reference = _library.reference("masked_linear")

    def layer(input, weight, bias):
        rows = input.reshape(input.shape[:-1].numel(), input.shape[-1])
        return reference(rows, weight, bias, s.mask).view(s.grad.shape)

    return run(layer, exact, exact.weight)


def answer(s: Sample) -> Answer:
    """The reference, by torch's own autograd, in float64 of the same rounded numbers."""
    return _exact(s, lambda t: t)


def check(got: Answer, s: Sample, *, values: bool) -> None:
    """``got`` is right; ``values``: its weight gradient is that of the kept entries."""
    dtype = s.input.dtype
    want = answer(s)
    # Output and gradients are sums of products: of squares, they are the squared size of partial
    # sums.
    scale = Answer(*(t if t is None else t.sqrt() for t in _exact(s, torch.square)))
    batch = s.input.shape[:-1].numel()
    per_row, per_col = (int(s.mask.sum(d).max()) if s.mask.numel() else 0 for d in (1, 0))
    assert_close(got.output, want.output, dtype, per_row + 1, scale.output)
    assert_grad_close(got.input, want.input, dtype, per_col, scale.input)
    kept = got.weight if values else got.weight[s.mask]
    assert_grad_close(kept, want.weight[s.mask], dtype, batch, scale.weight[s.mask])
    if not values:
        assert got.weight.shape == s.weight.shape
        assert not got.weight[~s.mask].any(), "a masked-out weight has gradient exactly 0"
    if s.bias is not None:
        assert_grad_close(got.bias, want.bias, dtype, batch, scale.bias)
