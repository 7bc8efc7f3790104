"""Inputs of the sparse layers, their float64 answers, and the shapes worth trying."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from close import Bound
from synops import _library

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]

# Batch rows, around each change of kernel (csrc/sparse/product.cpp). A vector has 16 (AVX-512
# float32), 8 (AVX2, portable; AVX-512 float64) or 4 lanes (AVX2 float64), so every set of
# instructions meets its own edges in this list.
BATCHES = [
    0,  # nothing to do, but gradients of weights are zeros that must be written
    1,  # row dots: up to 3 rows (kFewRows)
    3,
    4,  # slabs from here on; one vector of 4 float64
    7,
    8,  # one vector of 8; row blocks from here on (kLeastBatch)
    9,
    15,
    16,  # one vector of 16, two of 8, four of 4; parts from here on
    17,
    31,
    33,  # more than the widest slab without tiles: a second batch block
    64,  # with tiles, the widest slab of four vectors
    65,
    128,  # feature-major, the widest slab that is read where it is
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
    """A shape around tiles of 128 and 256 columns, and the density that decides for them: 20 and 15
    entries a run on average (_reference/sparse/pattern.py)."""

    in_features: int
    out_features: int
    density: float
    row_tiles: int  # of the forward
    col_tiles: int  # of the input gradient


TILINGS = [
    Tiling(128, 40, 0.5, 1, 1),  # as wide as a tile: no second one
    Tiling(129, 40, 0.5, 2, 1),  # two of 80: the last one is cut
    Tiling(129, 40, 0.03, 1, 1),  # the same, with 6 entries a run of 128
    Tiling(256, 40, 0.03, 1, 1),  # too few entries for 128, too narrow for 256
    Tiling(257, 40, 0.1, 2, 1),  # two of 144
    Tiling(40, 300, 0.5, 1, 3),  # only the transpose is tiled
    Tiling(300, 270, 0.25, 3, 3),  # both
    Tiling(1000, 20, 0.2, 8, 1),  # a run of 20 rows, more than the 16 that are written together
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


class Expected:
    """The float64 answer of a call, and how far from it a result may be."""

    def __init__(self, s: Sample):
        self.want = answer(s)
        # Output and gradients are sums of products: of squares, they are the squared size of
        # partial sums.
        self.scale = Answer(*(t if t is None else t.sqrt() for t in _exact(s, torch.square)))
        batch = s.input.shape[:-1].numel()
        self.per_row, per_col = (int(s.mask.sum(d).max()) if s.mask.numel() else 0 for d in (1, 0))
        want = self.want._replace(weight=self.want.weight[s.mask])
        scale = self.scale._replace(weight=self.scale.weight[s.mask])
        lengths = (self.per_row + 1, per_col, batch, batch)
        self.bounds = [
            None if w is None else Bound(w, s.input.dtype, length, size)
            for w, size, length in zip(want, scale, lengths, strict=True)
        ]

    def check(self, got: Answer) -> None:
        """``got.weight`` is that of the kept entries; None is not looked at."""
        for i, (one, bound) in enumerate(zip(got, self.bounds, strict=True)):
            if one is not None and bound is not None:
                bound.check(one, vector=i > 0)


def check(got: Answer, s: Sample, *, values: bool) -> None:
    """``got`` is right; ``values``: its weight gradient is that of the kept entries."""
    if not values:
        assert got.weight.shape == s.weight.shape
        assert not got.weight[~s.mask].any(), "a masked-out weight has gradient exactly 0"
        got = got._replace(weight=got.weight[s.mask])
    assert (got.bias is None) == (s.bias is None)
    Expected(s).check(got)
