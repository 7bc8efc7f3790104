"""unpack_spikes: spikes as numbers from spikes as bits."""

from __future__ import annotations

import torch
from torch import Tensor

from .._check import check_tensor, dtype_name, fail


def unpack_spikes(bits: Tensor, neurons: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Spikes, 0 or 1, from those that ``spikes="bits"`` of :func:`lif` packs.

    Equals ``numpy.unpackbits(bits, axis=-1, count=neurons, bitorder="little")``.

    Args:
        bits: ``(..., ceil(neurons / 8))``, uint8.
        neurons: of a row, N.
        dtype: of the result.

    Returns:
        ``(..., N)``.

    Raises:
        TypeError: bits is not a uint8 tensor.
        ValueError: neurons does not go with its shape.
    """
    op = "unpack_spikes"
    check_tensor(op, "bits", bits)
    if bits.dtype != torch.uint8:
        fail(TypeError, op, "bits", "be uint8", dtype_name(bits.dtype))
    if bits.dim() < 1:
        fail(ValueError, op, "bits", "have shape (..., ceil(neurons / 8))", tuple(bits.shape))
    if isinstance(neurons, bool) or not isinstance(neurons, int):
        fail(TypeError, op, "neurons", "be an int", type(neurons).__name__)
    if not 0 <= neurons <= 8 * bits.shape[-1] or (neurons + 7) // 8 != bits.shape[-1]:
        rule = f"fit {bits.shape[-1]} bytes a row"
        fail(ValueError, op, "neurons", rule, neurons)
    byte, bit = torch.arange(256, device=bits.device), torch.arange(8, device=bits.device)
    table = ((byte[:, None] >> bit) & 1).to(dtype)  # eight numbers at a time: one look-up a byte
    return table[bits.int()].flatten(-2)[..., :neurons]
