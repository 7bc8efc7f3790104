"""Reservoirs at the edges of the kernels, and what float64 says of them."""

from typing import NamedTuple

import torch
from torch import Tensor

from close import assert_close
from synops.sparse import Pattern
from synops.spiking import ESN, esn


class Sample(NamedTuple):
    input: Tensor
    values: Tensor
    pattern: Pattern
    state: Tensor | None
    rest: dict  # input_weight, bias, leak, and keywords that are no tensors

    def to(self, dtype: torch.dtype) -> "Sample":
        """The input in ``dtype``, the rest in the dtype of the state."""
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        rest = {k: v.to(wide) if isinstance(v, Tensor) else v for k, v in self.rest.items()}
        state = None if self.state is None else self.state.to(wide)
        return self._replace(
            input=self.input.to(dtype), values=self.values.to(wide), state=state, rest=rest
        )


# Where kernels change: places in groups of 8, tiles of 256 columns at this density, blocks of rows
# with equal columns (next to one another and apart), more places than 16 bits count.
PATTERNS = {
    "one unit": lambda: Pattern.from_mask(torch.ones(1, 1, dtype=torch.bool)),
    "less than a group": lambda: Pattern.from_mask(torch.rand(7, 7) < 0.5),
    "groups and a rest": lambda: Pattern.from_mask(torch.rand(45, 45) < 0.3),
    "equal lengths": lambda: Pattern.from_mask(torch.rand(40, 40).argsort(1) < 9),
    "empty rows": lambda: Pattern.from_mask((torch.rand(33, 33) < 0.2) & (torch.rand(33, 1) < 0.5)),
    "no entries": lambda: Pattern.from_mask(torch.zeros(9, 9, dtype=torch.bool)),
    "tiles": lambda: Pattern.from_mask(torch.rand(300, 300) < 0.15),
    "blocks of 16": lambda: Pattern.from_blocks(torch.rand(5, 80) < 0.2, (16, 1)),
    "blocks of 32": lambda: Pattern.from_blocks(torch.rand(2, 64) < 0.2, (32, 1)),
    "blocks apart": lambda: Pattern.from_groups((64, 64), 2, interleaved=True),
    "wide": lambda: wide(70_000),
}


def wide(rows: int) -> Pattern:
    """Two entries in every hundredth row, at the first and the last column."""
    lengths = torch.zeros(rows, dtype=torch.int64)
    lengths[::100] = 2
    crow = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    col = torch.tensor([0, rows - 1]).repeat(int(crow[-1]) // 2)
    return Pattern.from_csr(crow, col, (rows, rows))


def sample(
    pattern: Pattern, steps: int, batch: int | None, inputs: int, dtype: torch.dtype, **options
) -> Sample:
    """States of the size of 1 which do not blow up; the numbers are of ``dtype``. batch None: one
    sequence without that dimension."""
    n = pattern.shape[0]
    many = () if batch is None else (batch,)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    rounded = lambda t: t.to(wide).double()  # noqa: E731
    row = max(1.0, pattern.nnz / max(1, n))
    rest = {
        "input_weight": rounded(torch.randn(n, inputs)),
        "bias": rounded(torch.randn(n) * 0.3),
        "leak": rounded(torch.rand(n)),
    }
    return Sample(
        torch.randn(steps, *many, inputs).to(dtype).double(),
        rounded(torch.randn(pattern.nnz) * 0.7 / row**0.5),
        pattern,
        rounded(torch.randn(*many, n)),
        rest | options,
    )


def run(s: Sample, **options) -> ESN:
    return esn(s.input, s.values, s.pattern, s.state, **(s.rest | options))


def check(s: Sample, dtype: torch.dtype, **options) -> None:
    """Results in ``dtype`` against those of the reference in float64."""
    got, want = run(s.to(dtype), **options), run(s, backend="reference")
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    n, k = s.rest["input_weight"].shape
    length = int(s.pattern.crow.diff().max()) + k + s.input.shape[0] if n else 1
    for one, other in zip(got, want, strict=True):
        assert_close(one, other, kind, length, torch.ones_like(other))
