"""Row blocks (Triton): sparse_linear of rows with equal column lists, on tensor cores.

Block n has R rows, n % STEP + n // STEP * R * STEP and every STEP-th after it, and one list of
columns, that of its first row. L is the length of the list, p a place in it, W the (L, R) panel of
the block's values:

    y[b, rows] = act(x[b, list] @ W + bias[rows])              gradients: row_blocks_backward.py

Dense operands are slabs (slab.py): a feature is a run of the batch, so that gathering the columns
of a list reads whole lines. The rows of a tile are the batch and R is its width: 64 rows or more,
as Hopper's tensor cores take them, with R from 16 on.

pack     the panels, each as it is multiplied: R values of a list place side by side, 16 bytes a
         read. Places of a block begin at crow of the rows before it, so that a panel needs no
         pointer of its own. 2 elements moved an entry; without it, every batch block reads single
         elements, from rows that are not aligned.
forward  a program has one block and BLOCK_B batch rows; a step gathers BLOCK_K columns of x.
         Blocks go first in the grid: those that run at one time share the batch rows of x in L2.
         y is written in runs of R elements, or of BLOCK_B if it is feature-major; of interleaved
         rows (STEP > 1) only the latter: row-major, each element is a write of its own.

Bytes: each place of a list reads B elements of x for R * B multiply-adds. In 16 bits at 5.5 TB/s of
L2 that allows 5.5 * R TFLOP/s: 88 for R = 16, 350 for 64, 700 for 128, of 989 on the data sheet of
an H200. Against a dense product at its peak a weight with R = 16 breaks even near density .09,
R = 64 at .35, R = 128 at .7; float32 (67 TFLOP/s, no TF32) is bound by arithmetic. R = 8 would read
as much as the kernels for single entries do, and goes to those.

Sums are in float32 (float64 for float64), BLOCK_K terms at a time; that is one number for a dtype,
so that what the tuner chooses does not change the order of a sum. No atomics.
Memory safety: that the lists are equal is not checked. Every address comes from a bound clamped to
nnz, a column inside x, or a place inside the pack; a false claim gives wrong numbers.

Not measured: tile sizes are from registers and bytes, no GPU was at hand.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.interpreter import INTERPRETED
from ..common.launch import OPTIONS, accumulator
from ..common.tile import activated, dot
from .pattern import chunks_of
from .slab import Slab

SIZES = (16, 32, 64, 128)
LEAST_BATCH = 16


class RowBlocks(NamedTuple):
    """``count`` blocks of ``rows`` rows, ``step`` apart."""

    rows: int
    step: int
    count: int


def blocks_of(rows: int, step: int, out: int, batch: int) -> RowBlocks | None:
    """The blocks, or None where these kernels are not for them."""
    fits = rows in SIZES and step > 0 and out % (rows * step) == 0 and batch >= LEAST_BATCH
    return RowBlocks(rows, step, out // rows) if fits else None


@triton.jit
def block_list(crow_ptr, n, NNZ, STEP, R: tl.constexpr):
    """First row of block n, begin and end of its list, place of its panel in units of R."""
    first = n.to(tl.int64) // STEP * R * STEP
    row = first + n % STEP
    begin = tl.maximum(tl.load(crow_ptr + row), 0).to(tl.int64)
    end = tl.minimum(tl.load(crow_ptr + row + 1), NNZ).to(tl.int64)
    base = tl.maximum(tl.load(crow_ptr + first), 0).to(tl.int64)
    return row, begin, end, base // R + begin - base


@triton.jit
def _row_blocks_pack_kernel(
    values_ptr,  # (NNZ or more,)
    crow_ptr,  # (OUT + 1,)
    pack_ptr,  # (UNITS, R)
    NNZ,
    UNITS,
    STEP,
    CHUNKS,
    R: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row, begin, end, unit = block_list(crow_ptr, tl.program_id(0) // CHUNKS, NNZ, STEP, R)
    r = tl.arange(0, R)
    crow_ptr += row + r * STEP
    own_begin = tl.maximum(tl.load(crow_ptr), 0).to(tl.int64)
    own_end = tl.minimum(tl.load(crow_ptr + 1), NNZ)
    length = end - begin
    for start in range(tl.program_id(0) % CHUNKS * BLOCK_K, length, CHUNKS * BLOCK_K):
        p = start + tl.arange(0, BLOCK_K)
        j = own_begin[:, None] + p[None, :]
        inside = (p < length)[None, :] & (j < own_end[:, None])
        panel = tl.load(values_ptr + j, mask=inside, other=0.0)
        at = unit + p
        inside = (p < length) & (at >= 0) & (at < UNITS)
        tl.store(pack_ptr + at[:, None] * R + r[None, :], tl.trans(panel), mask=inside[:, None])


def config(warps: int, stages: int) -> triton.Config:
    """Tiles are fixed, see above."""
    return triton.Config({}, num_warps=warps, num_stages=stages)


# To try, by bytes of an element.
_CONFIGS = {
    2: [config(4, 3), config(4, 5), config(8, 3), config(8, 5)],
    4: [config(4, 3), config(8, 3)],
    8: [config(8, 3)],
}


def candidates(itemsize: int, rows: int) -> list[triton.Config]:
    """Four warps have no registers for the sums of 128 rows."""
    return [c for c in _CONFIGS[itemsize] if c.num_warps == 8 or rows < 128]


def _prune(configs: list, arguments: dict, **kwargs: Any) -> list[triton.Config]:
    return candidates(arguments["slab_ptr"].element_size(), kwargs["R"])


# Times the candidates once for each dtype, weight and size of blocks; not for each batch.
_every = [c for configs in _CONFIGS.values() for c in configs]
tuned = triton.autotune(
    # a single config is not timed: the interpreter has nothing to time with
    _every[:1] if INTERPRETED else _every,
    key=["ROWS", "COLS", "R", "BLOCK_B"],
    prune_configs_by={"early_config_prune": _prune},
)


@tuned
@triton.jit
def _row_blocks_kernel(
    slab_ptr,  # (COLS, LD)
    pack_ptr,  # (UNITS, R)
    crow_ptr,  # (ROWS + 1,)
    col_ptr,  # (NNZ,)
    bias_ptr,  # (ROWS,) or None
    y_ptr,  # (B, ROWS), by the strides below
    B,
    ROWS,
    COLS,
    NNZ,
    UNITS,
    STEP,
    LD,
    WIDTH,
    y_stride_b,
    y_stride_r,
    ACTIVATION: tl.constexpr,
    ACC: tl.constexpr,
    WIDEN: tl.constexpr,
    R: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    blocks = ROWS // R
    row, begin, end, unit = block_list(crow_ptr, tl.program_id(0) % blocks, NNZ, STEP, R)
    b = (tl.program_id(0) // blocks).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    r = tl.arange(0, R)
    slab_ptr += b[:, None]
    acc = tl.zeros((BLOCK_B, R), ACC)
    for start in range(0, end - begin, BLOCK_K):
        p = start + tl.arange(0, BLOCK_K)
        inside = begin + p < end
        k = tl.load(col_ptr + begin + p, mask=inside, other=-1)
        kept = (k >= 0) & (k < COLS)
        read = kept[None, :] & (b < WIDTH)[:, None]
        x = tl.load(slab_ptr + k.to(tl.int64)[None, :] * LD, mask=read, other=0.0)
        at = unit + p
        inside = inside & (at >= 0) & (at < UNITS)
        w = tl.load(pack_ptr + at[:, None] * R + r[None, :], mask=inside[:, None], other=0.0)
        acc = dot(x, w, acc, ACC, WIDEN)
    row += r * STEP
    if bias_ptr is not None:
        acc += tl.load(bias_ptr + row).to(ACC)[None, :]
    y = activated(acc, ACTIVATION).to(y_ptr.dtype.element_ty)
    to = y_ptr + b[:, None] * y_stride_b + row[None, :] * y_stride_r
    tl.store(to, y, mask=(b < B)[:, None])


def block_b_of(dtype: torch.dtype, batch: int) -> int:
    """Batch rows of a tile. Two sizes, as each is tuned and compiled for itself."""
    return 128 if dtype.itemsize == 2 and batch > 1024 else 64


def _pack_k(rows: int) -> int:
    """List places of a step of pack: 32 elements a thread at 4 warps, more spill."""
    return min(64, 4096 // rows)


# Terms that are summed at a time, by bytes of an element.
TERMS = {2: 64, 4: 16, 8: 16}


def packed(values: Tensor, crow: Tensor, nnz: int, blocks: RowBlocks) -> Tensor:
    """(units, R): the panels of all blocks."""
    units = nnz // blocks.rows
    pack = values.new_empty(units, blocks.rows)
    block_k = _pack_k(blocks.rows)
    chunks = chunks_of(units, blocks.count, block_k)
    _row_blocks_pack_kernel[(blocks.count * chunks,)](
        values.contiguous(),
        crow,
        pack,
        nnz,
        units,
        blocks.step,
        chunks,
        R=blocks.rows,
        BLOCK_K=block_k,
        **OPTIONS,
    )
    return pack


def forward(
    slab: Slab,
    values: Tensor,
    bias: Tensor | None,
    crow: Tensor,
    col: Tensor,
    blocks: RowBlocks,
    activation: int,
    y: Tensor,  # (B, OUT), either layout
) -> None:
    """Writes ``y``."""
    (batch, rows), nnz = y.shape, col.shape[0]
    pack = packed(values, crow, nnz, blocks)
    block_b = block_b_of(y.dtype, batch)
    _row_blocks_kernel[(blocks.count * triton.cdiv(batch, block_b),)](
        slab.data,
        pack,
        crow,
        col,
        bias,
        y,
        batch,
        rows,
        slab.features,
        nnz,
        pack.shape[0],
        blocks.step,
        slab.ld,
        slab.width,
        *y.stride(),
        ACTIVATION=activation,
        ACC=accumulator(y.dtype),
        WIDEN=INTERPRETED,
        R=blocks.rows,
        BLOCK_B=block_b,
        BLOCK_K=TERMS[y.dtype.itemsize],
        **OPTIONS,
    )


def rank_of(dtype: torch.dtype) -> torch.dtype:
    """triton 3.6 cannot compile a float64 tensor core operand that depends on single bytes."""
    return torch.int32 if dtype == torch.float64 else torch.uint8


_INDEX = dict.fromkeys(("crow_ptr", "col_ptr", "count_ptr", "row_ptr", "unit_ptr"), "*i32")
# Multiples of 16.
_WIDE = ("ROWS", "COLS", "LD", "G_LD", "X_LD", "WIDTH", "y_stride_b", "gx_stride_b")


def build(kernel: Any, dtype: torch.dtype, like: triton.Config, **constants: Any) -> Build:
    """Arguments by their names."""

    def kind(name: str) -> str:
        if name == "rank_ptr":
            return "*u8" if rank_of(dtype) == torch.uint8 else "*i32"
        if name.endswith("_ptr"):
            return _INDEX.get(name, "*" + NAMES[dtype])
        return "i32:16" if name in _WIDE else "i32"

    signature = {name: kind(name) for name in kernel.arg_names if name not in constants}
    options = {"num_warps": like.num_warps, "num_stages": like.num_stages}
    return Build(kernel, signature, constants, options)


def _builds(dtype: torch.dtype, rows: int, batch: int) -> list[Build]:
    """The kernels as they run for adjacent rows and a row-major result."""
    tile = {"R": rows, "BLOCK_B": block_b_of(dtype, batch), "BLOCK_K": TERMS[dtype.itemsize]}
    types = {"ACC": accumulator(dtype), "WIDEN": False, "ACTIVATION": 2}
    pack = {"R": rows, "STEP": 1, "BLOCK_K": _pack_k(rows)}
    return [
        build(_row_blocks_pack_kernel, dtype, config(4, 3), **pack),
        *(
            build(_row_blocks_kernel, dtype, c, STEP=1, y_stride_r=1, **tile, **types)
            for c in candidates(dtype.itemsize, rows)
        ),
    ]


# float16 is as bfloat16; of the others, the ends.
BUILT = {torch.bfloat16: SIZES, torch.float32: (16, 64, 128), torch.float64: (16, 128)}

AOT = [
    b for dtype, sizes in BUILT.items() for rows in sizes for b in _builds(dtype, rows, 2048)
] + _builds(torch.bfloat16, 128, 128)
