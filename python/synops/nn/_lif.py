"""LIF: a layer of leaky integrate-and-fire neurons as a module."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..spiking import LIF as Output
from ..spiking import lif
from ._neurons import Neurons


class LIF(Neurons):
    """Neurons over a sequence, :func:`synops.spiking.lif`, with parameters of their own.

    The state is not kept: it goes in and comes out, so sequences of any batch follow one another,
    and a run goes on where another stopped.

    Args:
        beta, threshold: a number, or a tensor ``(N,)``, one for each neuron.
        learn_beta, learn_threshold: whether it is a Parameter, or a buffer. A beta that leaves
            [0, 1] counts as the end it left by, with no gradient, as in snnTorch.
        options: keywords of :func:`synops.spiking.lif`: reset, detach_reset, surrogate, slope,
            delayed_reset, inclusive, spikes, save, record.

    Shape:
        input ``(T, ..., N)``, v0 ``(..., N)``; returns ``(spikes, v, trajectory)``.

    Example:
        >>> layer = LIF(0.9, learn_beta=True, surrogate="atan", slope=2.0)
        >>> first = layer(torch.randn(10, 4, 100))
        >>> second = layer(torch.randn(10, 4, 100), first.v)
    """

    beta: Tensor
    threshold: Tensor

    def __init__(
        self,
        beta: float | Tensor,
        threshold: float | Tensor = 1.0,
        *,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        **options: Any,
    ):
        super().__init__(
            lif,
            {"beta": beta, "threshold": threshold},
            {"beta": learn_beta, "threshold": learn_threshold},
            ("beta",),
            options,
        )

    def forward(self, input: Tensor, v0: Tensor | None = None) -> Output:
        return lif(input, v0, **self.keywords())
