"""ALIF: a layer of neurons with adaptive thresholds as a module."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..spiking import ALIF as Output
from ..spiking import alif
from ._neurons import Neurons


class ALIF(Neurons):
    """Neurons over a sequence, :func:`synops.spiking.alif`, with parameters of their own.

    States are not kept: they go in and come out, as those of :class:`LIF`.

    Args:
        beta, rho, beta_a, threshold: a number, or a tensor ``(N,)``, one for each neuron.
        learn_beta, learn_rho, learn_beta_a, learn_threshold: whether it is a Parameter, or a
            buffer. A beta or rho that leaves [0, 1] counts as the end it left by.
        options: keywords of :func:`synops.spiking.alif`, as of :class:`LIF`.

    Shape:
        input ``(T, ..., N)``, v0 and a0 ``(..., N)``; returns ``(spikes, v, a, trajectory)``.

    Example:
        >>> layer = ALIF(0.9, rho=0.99, beta_a=0.2, learn_beta_a=True, surrogate="triangle")
        >>> first = layer(torch.randn(10, 4, 100))
        >>> second = layer(torch.randn(10, 4, 100), first.v, first.a)
    """

    beta: Tensor
    rho: Tensor
    beta_a: Tensor
    threshold: Tensor

    def __init__(
        self,
        beta: float | Tensor,
        rho: float | Tensor,
        beta_a: float | Tensor,
        threshold: float | Tensor = 1.0,
        *,
        learn_beta: bool = False,
        learn_rho: bool = False,
        learn_beta_a: bool = False,
        learn_threshold: bool = False,
        **options: Any,
    ):
        super().__init__(
            alif,
            {"beta": beta, "rho": rho, "beta_a": beta_a, "threshold": threshold},
            {
                "beta": learn_beta,
                "rho": learn_rho,
                "beta_a": learn_beta_a,
                "threshold": learn_threshold,
            },
            ("beta", "rho"),
            options,
        )

    def forward(self, input: Tensor, v0: Tensor | None = None, a0: Tensor | None = None) -> Output:
        return alif(input, v0, a0, **self.keywords())
