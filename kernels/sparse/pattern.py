"""pattern (Triton): compressed rows of a mask, and values to and from the dense weight.

    values[j] = weight[row of j, col[j]]                                  pattern_gather
    weight[row of j, col[j]] = values[j], 0 elsewhere                     pattern_scatter
    crow, col = where a mask is True, row by row                          pattern_from_mask

    weight, mask  (out, in)         row-major
    crow          (out + 1,)        int32; where rows begin and end
    col           (nnz,)            int32, ascending inside a row
    values        (nnz or more,)    in that order; what lies behind nnz is not read

Split: a program has every CHUNKS-th block of entries of one row (from_mask: a whole row); no two
write one place, so there are no atomics. Gather and scatter read indices and values as they lie, 8
bytes an entry in float32, and touch one 32-byte sector of the weight for each entry, all of it from
density .1 on. A scatter also fills the weight with zeros once, at the speed of a memset.

pattern_plan has no kernel: it is stable sorts and binary searches, once a pattern, which torch has
on the GPU; the reference is what runs.

Memory safety: bounds from crow are clamped to nnz and columns outside the weight are skipped.

Reference: python/synops/_reference/sparse/pattern.py
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import Build
from ..common.launch import OPTIONS, require, require_index

BLOCK = 256  # entries of one step; two a thread
_MASK_BLOCK = 1024  # columns of one step of from_mask: 8 bytes of mask a thread; 2048 spills


@triton.jit
def _pattern_gather_kernel(
    weight_ptr,  # (OUT, IN)
    crow_ptr,  # (OUT + 1,)
    col_ptr,  # (NNZ,)
    values_ptr,  # (NNZ,)
    IN,
    NNZ,
    CHUNKS,
    BLOCK: tl.constexpr,
):
    r = (tl.program_id(0) // CHUNKS).to(tl.int64)
    # int64: the last step may look up to CHUNKS * BLOCK past nnz, which may be 2^31 - 1
    begin = tl.maximum(tl.load(crow_ptr + r), 0).to(tl.int64)
    end = tl.minimum(tl.load(crow_ptr + r + 1), NNZ).to(tl.int64)
    for start in range(begin + tl.program_id(0) % CHUNKS * BLOCK, end, CHUNKS * BLOCK):
        j = start + tl.arange(0, BLOCK)
        k = tl.load(col_ptr + j, mask=j < end, other=-1)
        value = tl.load(weight_ptr + r * IN + k, mask=(k >= 0) & (k < IN), other=0.0)
        tl.store(values_ptr + j, value, mask=j < end)


@triton.jit
def _pattern_scatter_kernel(
    values_ptr,  # (NNZ or more,)
    crow_ptr,  # (OUT + 1,)
    col_ptr,  # (NNZ,)
    weight_ptr,  # (OUT, IN), zeros
    IN,
    NNZ,
    CHUNKS,
    BLOCK: tl.constexpr,
):
    r = (tl.program_id(0) // CHUNKS).to(tl.int64)
    # int64: the last step may look up to CHUNKS * BLOCK past nnz, which may be 2^31 - 1
    begin = tl.maximum(tl.load(crow_ptr + r), 0).to(tl.int64)
    end = tl.minimum(tl.load(crow_ptr + r + 1), NNZ).to(tl.int64)
    for start in range(begin + tl.program_id(0) % CHUNKS * BLOCK, end, CHUNKS * BLOCK):
        j = start + tl.arange(0, BLOCK)
        k = tl.load(col_ptr + j, mask=j < end, other=-1)
        value = tl.load(values_ptr + j, mask=j < end, other=0.0)
        tl.store(weight_ptr + r * IN + k, value, mask=(k >= 0) & (k < IN))


@triton.jit
def _pattern_from_mask_kernel(
    mask_ptr,  # (OUT, IN), bool
    crow_ptr,  # (OUT + 1,)
    col_ptr,  # (NNZ,)
    IN,
    BLOCK: tl.constexpr,
):
    r = tl.program_id(0).to(tl.int64)
    at = tl.load(crow_ptr + r)
    for start in range(0, IN, BLOCK):
        i = start + tl.arange(0, BLOCK)
        kept = tl.load(mask_ptr + r * IN + i, mask=i < IN, other=0).to(tl.int32)
        tl.store(col_ptr + at + tl.cumsum(kept, 0) - kept, i, mask=kept != 0)
        at += tl.sum(kept, 0)


def chunks_of(nnz: int, rows: int, block: int) -> int:
    """Programs for a row: as many as a row of mean length has blocks."""
    return max(1, triton.cdiv(nnz, rows * block))


def rows_of(op: str, like: Tensor, crow: Tensor, col: Tensor) -> int:
    """Checks compressed rows; how many they are."""
    require_index(op, like, crow, col)
    require(crow.dim() == 1 and crow.shape[0] > 0, op, "crow must be (out + 1,)")
    require(col.dim() == 1, op, "col must have 1 dimension")
    return crow.shape[0] - 1


def pattern_gather(weight: Tensor, crow: Tensor, col: Tensor) -> Tensor:
    """(out, in), (out + 1,), (nnz,) -> (nnz,)"""
    rows = rows_of("pattern_gather", weight, crow, col)
    require(
        weight.dim() == 2 and weight.shape[0] == rows,
        "pattern_gather",
        f"weight must have {rows} rows, got {tuple(weight.shape)}",
    )
    weight = weight.contiguous()
    cols, nnz = weight.shape[1], col.shape[0]
    values = weight.new_empty(nnz)
    if rows and nnz:
        chunks = chunks_of(nnz, rows, BLOCK)
        with torch.cuda.device_of(weight):
            _pattern_gather_kernel[(rows * chunks,)](
                weight, crow, col, values, cols, nnz, chunks, BLOCK=BLOCK, **OPTIONS
            )
    return values


def pattern_scatter(values: Tensor, crow: Tensor, col: Tensor, in_features: int) -> Tensor:
    """(nnz or more,), (out + 1,), (nnz,) -> (out, in)"""
    rows, nnz = rows_of("pattern_scatter", values, crow, col), col.shape[0]
    require(
        values.dim() == 1 and values.shape[0] >= nnz,
        "pattern_scatter",
        f"values must hold at least {nnz} elements, got {tuple(values.shape)}",
    )
    values = values.contiguous()
    weight = values.new_zeros(rows, in_features)
    if rows and nnz:
        chunks = chunks_of(nnz, rows, BLOCK)
        with torch.cuda.device_of(values):
            _pattern_scatter_kernel[(rows * chunks,)](
                values, crow, col, weight, in_features, nnz, chunks, BLOCK=BLOCK, **OPTIONS
            )
    return weight


def pattern_from_mask(mask: Tensor) -> tuple[Tensor, Tensor]:
    """(out, in) -> crow (out + 1,), col (nnz,)"""
    is_mask = mask.dim() == 2 and mask.dtype == torch.bool
    require(is_mask, "pattern_from_mask", "mask must be a bool matrix")
    mask = mask.contiguous()
    rows, cols = mask.shape
    ends = mask.sum(1).cumsum(0)
    # the one synchronisation: the size of a result depends on it
    nnz = int(ends[-1]) if rows else 0
    require(nnz < 2**31, "pattern_from_mask", "more than 2^31 - 1 True entries")
    crow = torch.zeros(rows + 1, dtype=torch.int32, device=mask.device)
    crow[1:] = ends
    col = torch.empty(nnz, dtype=torch.int32, device=mask.device)
    if nnz:
        with torch.cuda.device_of(mask):
            _pattern_from_mask_kernel[(rows,)](mask, crow, col, cols, BLOCK=_MASK_BLOCK, **OPTIONS)
    return crow, col


_SIZES = {"IN": "i32", "NNZ": "i32", "CHUNKS": "i32"}
_INDEX = {"crow_ptr": "*i32", "col_ptr": "*i32"}
AOT = [
    Build(kernel, {"weight_ptr": p, "values_ptr": p, **_INDEX, **_SIZES}, {"BLOCK": BLOCK}, {})
    for kernel in (_pattern_gather_kernel, _pattern_scatter_kernel)
    for p in ("*fp32", "*bf16", "*fp64")
] + [
    Build(
        _pattern_from_mask_kernel,
        {"mask_ptr": "*i1", "crow_ptr": "*i32", "col_ptr": "*i32", "IN": "i32"},
        {"BLOCK": _MASK_BLOCK},
        {},
    )
]
