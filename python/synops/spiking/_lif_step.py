"""lif_step: one step of leaky integrate-and-fire neurons, for what is interactive."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .._check import check_float, fail
from ._lif import lif


class LIFStep(NamedTuple):
    """What :func:`lif_step` returns.

    Attributes:
        spikes: ``(..., N)``, 0 or 1; or in another form (see :func:`lif`).
        v: ``(..., N)``, the state after the step, float32 (float64 for float64).
    """

    spikes: Tensor
    v: Tensor


def lif_step(input: Tensor, v: Tensor | None = None, *, beta: float | Tensor, **options) -> LIFStep:
    """One step of :func:`lif`, with its numbers: a loop of these gives the bits of one call.

    For input that depends on the spikes before it (an environment, a controller). Where the whole
    sequence is known, lif is faster by the cost of the calls.

    Args:
        input: ``(..., N)``: ``(B, N)``, say.
        v: ``(..., N)``, the state before the step. Default: 0.
        beta, options: keywords of :func:`lif` but ``record``.

    Returns:
        :class:`LIFStep`, with gradients.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`lif`.
    """
    op = "lif_step"
    check_float(op, "input", input)
    if input.dim() < 1:
        fail(ValueError, op, "input", "have shape (..., N)", tuple(input.shape))
    if "record" in options:
        fail(TypeError, op, "record", "be left out: v is the state after the step", "it")
    spikes, v, _ = lif(input.unsqueeze(0), v, beta=beta, **options)
    return LIFStep(spikes.squeeze(0), v)
