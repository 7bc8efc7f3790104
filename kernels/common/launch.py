"""What launchers share: options, the type of sums, and checks that keep the raw ops memory-safe.

The public functions have checked everything already; these are for ``torch.ops.synops.*`` called
directly, cost no synchronisation and raise RuntimeError. Indices are compared inside the kernels.
"""

import torch
import triton.language as tl
from torch import Tensor

from .aot import NAMES

# Of every launch. Multiply-adds are fused: half the instructions and one rounding. Triton 3.9 warns
# that 3.10 will not do it unasked.
OPTIONS = {"enable_fp_fusion": True}


def accumulator(dtype: torch.dtype) -> tl.dtype:
    """Element type of sums over elements of ``dtype``."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def require(holds: bool, op: str, rule: str) -> None:
    """Raises RuntimeError unless ``holds``."""
    if not holds:
        raise RuntimeError(f"{op}: {rule}")


def require_floats(op: str, *tensors: Tensor) -> None:
    """Floating point tensors of one dtype on one device."""
    first = tensors[0]
    require(first.dtype in NAMES, op, f"no kernel for {first.dtype}")
    for t in tensors[1:]:
        require(
            t.dtype == first.dtype and t.device == first.device,
            op,
            f"tensors must have one dtype and device, got {first.dtype} on {first.device} and "
            f"{t.dtype} on {t.device}",
        )


def require_index(
    op: str, like: Tensor, *tensors: Tensor, dtype: torch.dtype = torch.int32
) -> None:
    """Contiguous tensors of integers on the device of ``like``."""
    for t in tensors:
        require(
            t.dtype == dtype and t.is_contiguous() and t.device == like.device,
            op,
            f"indices must be contiguous {dtype} on {like.device}, got {t.dtype} on {t.device}",
        )
