"""CubaLIF: a layer of neurons with synaptic currents as a module."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..spiking import CubaLIF as Output
from ..spiking import cuba_lif
from ._neurons import Neurons


class CubaLIF(Neurons):
    """Neurons over a sequence, :func:`synops.spiking.cuba_lif`, with parameters of their own.

    States are not kept: they go in and come out, as those of :class:`LIF`.

    Args:
        alpha, beta, threshold: a number, or a tensor ``(N,)``, one for each neuron.
        learn_alpha, learn_beta, learn_threshold: whether it is a Parameter, or a buffer. An alpha
            or beta that leaves [0, 1] counts as the end it left by.
        options: keywords of :func:`synops.spiking.cuba_lif`, as of :class:`LIF`.

    Shape:
        input ``(T, ..., N)``, v0 and i0 ``(..., N)``; returns ``(spikes, v, i, trajectory)``.

    Example:
        >>> layer = CubaLIF(0.5, 0.9, learn_alpha=True)
        >>> first = layer(torch.randn(10, 4, 100))
        >>> second = layer(torch.randn(10, 4, 100), first.v, first.i)
    """

    alpha: Tensor
    beta: Tensor
    threshold: Tensor

    def __init__(
        self,
        alpha: float | Tensor,
        beta: float | Tensor,
        threshold: float | Tensor = 1.0,
        *,
        learn_alpha: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        **options: Any,
    ):
        super().__init__(
            cuba_lif,
            {"alpha": alpha, "beta": beta, "threshold": threshold},
            {"alpha": learn_alpha, "beta": learn_beta, "threshold": learn_threshold},
            ("alpha", "beta"),
            options,
        )

    def forward(self, input: Tensor, v0: Tensor | None = None, i0: Tensor | None = None) -> Output:
        return cuba_lif(input, v0, i0, **self.keywords())
