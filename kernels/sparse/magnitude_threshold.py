"""magnitude_threshold (Triton): the k-th largest magnitude by radix; the host does not wait.

Split: a program has a block of one tensor. A pass counts the keys that share the prefix found so
far by their next digit, with atomics on integers: the same result on every run. The host chooses
the digit with device tensors alone.

A key is the bits of the magnitude, plus 1, so that a NaN, below every number, is 0.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.aot import Build
from ..common.launch import OPTIONS, require, require_floats

_BLOCK = 2048
# (integer type, bits of infinity, widths of the digits of a key from the highest on)
_KEYS = {
    torch.float32: (torch.int32, 0x7F800000, (11, 10, 10)),
    torch.float64: (torch.int64, 0x7FF0000000000000, (11, 11, 11, 10, 10, 10)),
    torch.bfloat16: (torch.int16, 0x7F80, (8, 8)),
    torch.float16: (torch.int16, 0x7C00, (8, 8)),
}


@triton.jit
def _histogram_kernel(
    bits_ptr,  # (N,), integers of the size of the numbers
    prefix_ptr,  # (), int64: what the digits above this one are
    histogram_ptr,  # (2^BITS,), int32
    N,
    INFINITY: tl.constexpr,
    SHIFT: tl.constexpr,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < N
    # The largest integer of the type is all but the sign.
    LAST: tl.constexpr = 2 ** (bits_ptr.dtype.element_ty.primitive_bitwidth - 1) - 1
    bits = (tl.load(bits_ptr + i, mask=inside, other=0) & LAST).to(tl.int64)
    key = tl.where(bits > INFINITY, 0, bits + 1)
    counted = inside & ((key >> (SHIFT + BITS)) == tl.load(prefix_ptr))
    digit = (key >> SHIFT) & ((1 << BITS) - 1)
    tl.atomic_add(histogram_ptr + digit, 1, mask=counted, sem="relaxed")


def magnitude_threshold(tensors: list[Tensor], keep: int, strict: bool) -> Tensor:
    op = "magnitude_threshold"
    require(len(tensors) > 0, op, "tensors must not be empty")
    require_floats(op, *tensors)
    size = sum(t.numel() for t in tensors)
    require(0 <= keep <= size, op, f"keep must lie in [0, {size}], got {keep}")
    first = tensors[0]
    if keep == (size if strict else 0):
        return first.new_full((), -torch.inf if strict else torch.inf)
    integer, infinity, digits = _KEYS[first.dtype]
    bits = [t.contiguous().view(-1).view(integer) for t in tensors if t.numel()]
    prefix = torch.zeros((), dtype=torch.int64, device=first.device)
    # how many keys are larger than the one looked for, among those that share the prefix
    rest = torch.full_like(prefix, keep if strict else keep - 1)
    shift = sum(digits)
    for width in digits:
        shift -= width
        histogram = torch.zeros(1 << width, dtype=torch.int32, device=first.device)
        for b in bits:
            _histogram_kernel[(triton.cdiv(b.numel(), _BLOCK),)](
                b,
                prefix,
                histogram,
                b.numel(),
                INFINITY=infinity,
                SHIFT=shift,
                BITS=width,
                BLOCK=_BLOCK,
                num_warps=4,
                **OPTIONS,
            )
        from_above = histogram.flip(0).cumsum(0)
        place = torch.searchsorted(from_above, rest + 1)  # of the digit, counted from above
        digit = (1 << width) - 1 - place
        rest = rest - (from_above[place] - histogram[digit])
        prefix = (prefix << width) | digit
    number = (prefix - 1).clamp_min(0).to(integer).view(first.dtype)
    return torch.where(prefix == 0, -torch.inf, number)


def _build(dtype: torch.dtype, digit: int) -> Build:
    integer, infinity, digits = _KEYS[dtype]
    return Build(
        _histogram_kernel,
        {
            "bits_ptr": f"*i{integer.itemsize * 8}",
            "prefix_ptr": "*i64",
            "histogram_ptr": "*i32",
            "N": "i32",
        },
        {
            "INFINITY": infinity,
            "SHIFT": sum(digits[digit + 1 :]),
            "BITS": digits[digit],
            "BLOCK": _BLOCK,
        },
        {"num_warps": 4},
    )


AOT = [_build(dtype, digit) for dtype in _KEYS for digit in (0, 1)]
