"""A small Pattern for every layout that the kernels have, and calls in both layouts of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from sparse_samples import Sample, random_mask
from torch import Tensor

from synops.sparse import Pattern


def row_blocks(rows: int, blocks: int, cols: int, density: float) -> Tensor:
    """(rows * blocks, cols), bool: equal rows, ``rows`` at a time; the first block is empty."""
    kept = torch.rand(blocks, cols) < density
    kept[0] = False
    return kept.repeat_interleave(rows, 0)


def few(rows: int, cols: int) -> Tensor:
    """Entries beside blocks: some rows have none."""
    return torch.rand(rows, cols) < 0.03


class Layout(NamedTuple):
    """How to make it, and the properties that make it what it is."""

    make: Callable[[], Pattern]
    row_tiles: int = 1
    col_tiles: int = 1
    block: tuple[int, int] = (1, 1)
    parts: bool = False
    bits: bool = False
    long: bool = False  # a side of it: what does not look for that leaves it out


def _random(rows: int, cols: int, density: float, **options) -> Callable[[], Pattern]:
    return lambda: Pattern.from_mask(random_mask(rows, cols, density), **options)


def _far(rows: int, cols: int) -> Callable[[], Pattern]:
    """Few entries, the last ones of the longer side among them."""

    def make() -> Pattern:
        mask = torch.rand(rows, cols) < 0.002
        mask[-1, -1] = mask[0, 0] = True
        return Pattern.from_mask(mask)

    return make


def _blocks(rows: int, **options) -> Callable[[], Pattern]:
    # three blocks: never a multiple of the next larger block, nor all in one group of panels
    return lambda: Pattern.from_mask(row_blocks(rows, 3, 37, 0.4), **options)


def _parts() -> Pattern:
    mask = row_blocks(16, 3, 37, 0.5)
    return Pattern.from_mask(mask | few(*mask.shape))


def _groups(rows: int, groups: int, extra: bool = False, **options) -> Callable[[], Pattern]:
    def make() -> Pattern:
        shape = (rows * groups, 7 * groups)
        more = few(*shape) if extra else None
        return Pattern.from_groups(shape, groups, extra=more, **options)

    return make


LAYOUTS = {
    "one tile": Layout(_random(20, 37, 0.3)),
    "no entries": Layout(_random(9, 5, 0.0)),
    "capacity": Layout(_random(20, 37, 0.3, capacity=500)),
    "bits": Layout(_random(20, 150, 0.6), row_tiles=2, bits=True),  # 150: the third word is cut
    "bits, one tile": Layout(_random(20, 64, 0.6), bits=True),
    "full": Layout(_random(5, 70, 1.0), bits=True),
    "tiles of 128": Layout(_random(20, 300, 0.25), row_tiles=3),
    "tiles of 256": Layout(_random(40, 600, 0.1), row_tiles=3),
    "tiles of 128 of the transpose": Layout(_random(300, 20, 0.25), col_tiles=3),
    "tiles of 256 of the transpose": Layout(_random(600, 20, 0.1), col_tiles=3),
    "tiles both ways, capacity": Layout(_random(140, 300, 0.25, capacity=12000), 3, 2),
    # 16-bit columns are unsigned
    "columns above 2^15": Layout(_far(3, 40000), long=True),
    "columns above 2^16": Layout(_far(3, 70000), row_tiles=2, long=True),
    "rows above 2^16": Layout(_far(70000, 3), col_tiles=2, long=True),
    "blocks of 8": Layout(_blocks(8), block=(8, 1)),
    "blocks of 16": Layout(_blocks(16), block=(16, 1)),
    "blocks of 16, capacity": Layout(_blocks(16, capacity=1000), block=(16, 1)),
    "blocks of 32": Layout(_blocks(32), block=(32, 1)),
    "blocks of 64": Layout(_blocks(64), col_tiles=2, block=(64, 1)),
    "blocks of 128": Layout(_blocks(128), col_tiles=3, block=(128, 1)),
    "squares of 16": Layout(
        lambda: Pattern.from_blocks(torch.eye(4, 6, dtype=torch.bool), (16, 16)), block=(16, 1)
    ),
    "groups": Layout(_groups(48, 3), col_tiles=2, block=(16, 1)),
    "groups, interleaved": Layout(_groups(16, 3, interleaved=True), block=(16, 3)),
    "groups of 8, interleaved": Layout(_groups(8, 5, interleaved=True), block=(8, 5)),
    "groups of 64, interleaved": Layout(_groups(64, 2, interleaved=True), block=(64, 2), bits=True),
    "parts": Layout(_parts, parts=True),
    "groups and more": Layout(_groups(48, 3, extra=True), col_tiles=2, parts=True),
    "groups and more, interleaved, capacity": Layout(
        _groups(16, 3, extra=True, interleaved=True, capacity=900), parts=True
    ),
}


def tiles(pattern: Pattern) -> tuple[int, int]:
    """Of the rows and of the columns."""
    rows, cols = pattern.shape
    return (len(pattern.row_ptr) - 1) // rows, (len(pattern.col_ptr) - 1) // cols


def sample_of(pattern: Pattern, batch: int, dtype: torch.dtype) -> Sample:
    """A random call with the weight at the entries of ``pattern``."""
    rows, cols = pattern.shape
    mask = pattern.mask()
    weight = torch.randn(rows, cols).masked_fill(~mask, torch.nan)
    return Sample(
        torch.randn(batch, cols).to(dtype),
        weight.to(dtype),
        mask,
        torch.randn(rows).to(dtype),
        torch.randn(batch, rows).to(dtype),
    )


def padded(pattern: Pattern, values: Tensor) -> Tensor:
    """As long as the capacity: what lies behind nnz is NaN."""
    tail = values.new_full((pattern.capacity - pattern.nnz,), torch.nan)
    return torch.cat([values, tail])


def feature_major(t: Tensor, gap: int = 0) -> Tensor:
    """The same matrix whose memory is (features, batch); NaN in ``gap`` places behind each."""
    memory = t.new_full((t.shape[1], t.shape[0] + gap), torch.nan)
    memory[:, : t.shape[0]] = t.t()
    return memory[:, : t.shape[0]].t()


class Memory(NamedTuple):
    """Which of a call's matrices are feature-major, and by how much their rows are apart."""

    input: bool
    output: bool
    grad: bool
    gap: int = 0

    def lay_out(self, s: Sample) -> Sample:
        """The same numbers."""
        input = feature_major(s.input, self.gap) if self.input else s.input
        grad = feature_major(s.grad, self.gap) if self.grad else s.grad
        return Sample(input, s.weight, s.mask, s.bias, grad)


# Every pair of two of the three: the forward reads input and writes the output, the gradients read
# input and grad. All three together is what a chain has; apart by an odd number, they are packed.
MEMORIES = [
    Memory(False, False, False),
    Memory(False, True, True),
    Memory(True, False, True),
    Memory(True, True, False),
    Memory(True, True, True),
    Memory(True, True, True, gap=3),
]

SHORT = [name for name in LAYOUTS if not LAYOUTS[name].long]
