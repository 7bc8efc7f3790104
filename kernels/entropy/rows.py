"""Rows of logits (Triton): how they are cut into blocks, numbers beside them, checks.

Blocks are from registers and bytes; no GPU was at hand.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.launch import require, require_floats

# Elements of a program's block and its launch, by bytes of an element.
_BLOCKS = {2: 4096, 4: 4096, 8: 256}
_WARPS = {2: 8, 4: 8, 8: 4}


@triton.jit
def scale_of(SCALE, SCALE_LOW, ACC: tl.constexpr):
    """1 / temperature in the type of sums, of its two float32 halves."""
    return tl.full((), SCALE, ACC) + tl.full((), SCALE_LOW, ACC)


@triton.jit
def column(ptr, row, inside, ACC: tl.constexpr):
    """A number a row, a column; 0 for None."""
    if ptr is None:
        return tl.zeros_like(row).to(ACC)[:, None]
    else:
        return tl.load(ptr + row, mask=inside, other=0.0).to(ACC)[:, None]


def block_of(dtype: torch.dtype, V: int) -> tuple[int, int]:
    """Rows and columns of a block."""
    elements = _BLOCKS[dtype.itemsize]
    columns = min(elements, max(16, triton.next_power_of_2(V)))
    return elements // columns, columns


def halves(temperature: float) -> tuple[float, float]:
    """1 / temperature as two float32: what is passed to a kernel is rounded to one."""
    high = float(torch.tensor(1 / temperature, dtype=torch.float32))
    return high, 1 / temperature - high


def launch_options(dtype: torch.dtype) -> dict[str, int]:
    """num_warps and num_stages."""
    return {"num_warps": _WARPS[dtype.itemsize], "num_stages": 2}


def check_rows(
    op: str, logits: Tensor, labels: Tensor | None, temperature: float, *columns: Tensor
) -> Tensor | None:
    """Contiguous rows and labels of them."""
    require_floats(op, logits)
    require(logits.dim() == 3, op, "logits must have 3 dimensions")
    require(temperature > 0, op, f"temperature must be positive, got {temperature}")
    stats = torch.float64 if logits.dtype == torch.float64 else torch.float32
    for t in columns:
        require(
            t.shape == logits.shape[:2] and t.dtype == stats and t.device == logits.device,
            op,
            f"a column must be {stats} of shape {tuple(logits.shape[:2])} on {logits.device}, "
            f"got {t.dtype} {tuple(t.shape)} on {t.device}",
        )
    if labels is None:
        return None
    good = labels.dtype == torch.int64 and labels.shape == logits.shape[:2]
    require(good and labels.device == logits.device, op, "labels must be int64, one a row")
    return labels.contiguous()
