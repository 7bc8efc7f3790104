"""prune_and_grow (Triton): every entry that stays, and every edge that comes, finds its own place.

    place of an entry = entries before it that stay + edges below it
    place of an edge  = entries below it that stay + edges before it

    crow, col     (out + 1,), (nnz,)   int32; compressed rows
    before        (nnz + 1,)           int32; how many of the entries in front of each stay
    edges         (E,)                 int64; output * in + input, ascending
    first         (out + 1,)           int64; the first edge of each row, and the end
    new_col       (nnz of new,)        int32
    origin        (nnz of new,)        int32; the old position, or -1

Split: a program has every CHUNKS-th block of entries, then of edges, of one row. The other list is
searched in log2(in) steps, all of them in cache: a row is a few hundred numbers. No two write one
place, so there are no atomics. The host waits twice: for the size of the results, which depends on
data, and to know that no edge was an entry that stays.

Memory safety: bounds from crow are clamped to nnz; both counts of a place are below the sizes of
their lists, whatever these hold. An origin outside the values is a 0.

Reference: python/synops/_reference/sparse/prune_and_grow.py
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import NAMES, Build
from ..common.launch import OPTIONS, require, require_floats, require_index
from ..common.tile import lower_bound
from .pattern import chunks_of, rows_of

_BLOCK = 256  # entries of one step; two a thread
_CARRY_BLOCK = 1024


@triton.jit
def _rewire_kernel(
    crow_ptr,  # (OUT + 1,)
    col_ptr,  # (NNZ,)
    prune_ptr,  # (NNZ,), bool
    before_ptr,  # (NNZ + 1,)
    edges_ptr,  # (E,)
    first_ptr,  # (OUT + 1,)
    new_col_ptr,
    origin_ptr,
    clash_ptr,  # (1,), int32: set when an edge is an entry that stays
    IN,
    NNZ,
    STEPS,  # of a search in a row
    CHUNKS,
    BLOCK: tl.constexpr,
):
    r = (tl.program_id(0) // CHUNKS).to(tl.int64)
    chunk = tl.program_id(0) % CHUNKS
    begin = tl.minimum(tl.maximum(tl.load(crow_ptr + r), 0), NNZ).to(tl.int64)
    end = tl.minimum(tl.maximum(tl.load(crow_ptr + r + 1), 0), NNZ).to(tl.int64)
    first = tl.load(first_ptr + r)
    last = tl.load(first_ptr + r + 1)
    for start in range(begin + chunk * BLOCK, end, CHUNKS * BLOCK):
        j = start + tl.arange(0, BLOCK)
        c = tl.load(col_ptr + j, mask=j < end, other=0)
        low = tl.zeros([BLOCK], tl.int64) + first
        below = lower_bound(edges_ptr, low, tl.zeros([BLOCK], tl.int64) + last, r * IN + c, STEPS)
        place = tl.load(before_ptr + j, mask=j < end, other=0) + below
        stays = (j < end) & (tl.load(prune_ptr + j, mask=j < end, other=1) == 0)
        tl.store(new_col_ptr + place, c, mask=stays)
        tl.store(origin_ptr + place, j.to(tl.int32), mask=stays)
    for start in range(first + chunk * BLOCK, last, CHUNKS * BLOCK):
        i = start + tl.arange(0, BLOCK)
        c = (tl.load(edges_ptr + i, mask=i < last, other=0) - r * IN).to(tl.int32)
        low = tl.zeros([BLOCK], tl.int64) + begin
        at = lower_bound(col_ptr, low, tl.zeros([BLOCK], tl.int64) + end, c, STEPS)
        inside = (i < last) & (at < end)
        found = inside & (tl.load(col_ptr + at, mask=inside, other=-1) == c)
        place = tl.load(before_ptr + at, mask=i < last, other=0) + i
        tl.store(new_col_ptr + place, c, mask=i < last)
        tl.store(origin_ptr + place, tl.where(found, at, -1).to(tl.int32), mask=i < last)
        clash = found & (tl.load(prune_ptr + at, mask=found, other=1) == 0)
        tl.store(clash_ptr + tl.zeros([BLOCK], tl.int32), 1, mask=clash)


@triton.jit
def _carry_kernel(
    values_ptr,  # (SIZE,)
    origin_ptr,  # (NNZ,)
    out_ptr,  # (SIZE,)
    SIZE,
    NNZ,
    BLOCK: tl.constexpr,
):
    j = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    at = tl.load(origin_ptr + j, mask=j < NNZ, other=-1)
    value = tl.load(values_ptr + at, mask=(at >= 0) & (at < SIZE), other=0.0)
    tl.store(out_ptr + j, value, mask=j < SIZE)


def prune_and_grow(
    crow: Tensor, col: Tensor, in_features: int, prune: Tensor, edges: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(out + 1,), (nnz,), bool (nnz,), (E,) -> (out + 1,), (nnz of new,), (nnz of new,)"""
    op = "prune_and_grow"
    rows, nnz = rows_of(op, crow, crow, col), col.shape[0]
    require_index(op, crow, edges, dtype=torch.int64)
    require(edges.dim() == 1, op, "edges must have 1 dimension")
    require(
        prune.dtype == torch.bool and prune.shape == col.shape and prune.device == crow.device,
        op,
        f"prune must be bool of shape {tuple(col.shape)} on {crow.device}",
    )
    require(0 <= in_features < 2**31, op, "in_features must fit in int32")
    prune = prune.contiguous()
    before = torch.zeros(nnz + 1, dtype=torch.int32, device=crow.device)
    torch.cumsum(~prune, 0, dtype=torch.int32, out=before[1:])
    starts = torch.arange(rows + 1, device=crow.device) * in_features
    good = (edges.diff() > 0).all() & ((edges >= 0) & (edges < rows * in_features)).all()
    kept, fine = torch.stack([before[-1], good.to(torch.int32)]).tolist()
    require(fine == 1, op, "edges must ascend strictly and lie in [0, out * in)")
    first = torch.searchsorted(edges, starts)
    new_crow = (before[crow.long().clamp(0, nnz)] + first).to(torch.int32)
    count = kept + edges.shape[0]
    require(count < 2**31 - 1, op, "2^31 - 1 entries or more")
    new_col = torch.empty(count, dtype=torch.int32, device=crow.device)
    origin = torch.empty_like(new_col)
    if rows and count:
        clash = torch.zeros(1, dtype=torch.int32, device=crow.device)
        chunks = chunks_of(max(nnz, edges.shape[0]), rows, _BLOCK)
        with torch.cuda.device_of(crow):
            _rewire_kernel[(rows * chunks,)](
                crow,
                col,
                prune,
                before,
                edges,
                first,
                new_col,
                origin,
                clash,
                in_features,
                nnz,
                in_features.bit_length(),
                chunks,
                BLOCK=_BLOCK,
                **OPTIONS,
            )
        require(not int(clash), op, "edges must be no entries that stay")
    return new_crow, new_col, origin


def prune_and_grow_carry(values: Tensor, origin: Tensor) -> Tensor:
    """(capacity,), (nnz,) -> (capacity,)"""
    op = "prune_and_grow_carry"
    require_floats(op, values)
    require_index(op, values, origin)
    size, nnz = values.numel(), origin.numel()
    require(
        values.dim() == origin.dim() == 1 and nnz <= size,
        op,
        f"values and origin must be (capacity,) and (nnz,), got {tuple(values.shape)} and "
        f"{tuple(origin.shape)}",
    )
    values = values.contiguous()
    out = torch.empty_like(values)
    if size:
        with torch.cuda.device_of(values):
            _carry_kernel[(triton.cdiv(size, _CARRY_BLOCK),)](
                values, origin, out, size, nnz, BLOCK=_CARRY_BLOCK, **OPTIONS
            )
    return out


AOT = [
    Build(
        _rewire_kernel,
        {
            "crow_ptr": "*i32",
            "col_ptr": "*i32",
            "prune_ptr": "*i1",
            "before_ptr": "*i32",
            "edges_ptr": "*i64",
            "first_ptr": "*i64",
            "new_col_ptr": "*i32",
            "origin_ptr": "*i32",
            "clash_ptr": "*i32",
            "IN": "i32",
            "NNZ": "i32",
            "STEPS": "i32",
            "CHUNKS": "i32",
        },
        {"BLOCK": _BLOCK},
        {},
    )
] + [
    Build(
        _carry_kernel,
        {
            "values_ptr": "*" + name,
            "origin_ptr": "*i32",
            "out_ptr": "*" + name,
            "SIZE": "i32",
            "NNZ": "i32",
        },
        {"BLOCK": _CARRY_BLOCK},
        {},
    )
    for name in NAMES.values()
]
