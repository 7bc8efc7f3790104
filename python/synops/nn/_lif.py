"""LIF: a layer of leaky integrate-and-fire neurons as a module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..spiking import LIF as Output
from ..spiking import lif

_OPTIONS = frozenset(
    ("reset", "detach_reset", "surrogate", "slope", "delayed_reset", "inclusive", "record")
)


class LIF(nn.Module):
    """Neurons over a sequence, :func:`synops.spiking.lif`, with parameters of their own.

    The state is not kept: it goes in and comes out, so sequences of any batch follow one another,
    and a run goes on where another stopped.

    Args:
        beta, threshold: a number, or a tensor ``(N,)``, one for each neuron.
        learn_beta, learn_threshold: whether it is a Parameter, or a buffer. A beta that leaves
            [0, 1] counts as the end it left by, with no gradient, as in snnTorch.
        options: keywords of :func:`synops.spiking.lif`: reset, detach_reset, surrogate, slope,
            delayed_reset, inclusive, record.

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
        super().__init__()
        unknown = sorted(options.keys() - _OPTIONS)
        if unknown:
            raise TypeError(
                f"LIF: no option {unknown[0]!r}; there are {', '.join(sorted(_OPTIONS))}"
            )
        tensors = [t for t in (beta, threshold) if isinstance(t, Tensor) and t.dim()]
        step = tensors[0].new_zeros(1, tensors[0].shape[-1]) if tensors else torch.zeros(1, 1)
        lif(step.float(), beta=beta, threshold=threshold, **options)  # raises what it refuses
        self.options = options
        self._own("beta", beta, learn_beta)
        self._own("threshold", threshold, learn_threshold)

    def _own(self, name: str, value: float | Tensor, learn: bool) -> None:
        t = torch.as_tensor(value, dtype=None if isinstance(value, Tensor) else torch.float32)
        t = t.detach().clone()
        if learn:
            self.register_parameter(name, nn.Parameter(t))
        else:
            self.register_buffer(name, t)

    def forward(self, input: Tensor, v0: Tensor | None = None) -> Output:
        return lif(input, v0, beta=self.beta.clamp(0, 1), threshold=self.threshold, **self.options)

    def extra_repr(self) -> str:
        shown = []
        for name in ("beta", "threshold"):
            t = getattr(self, name)
            value = f"{t.item():.4g}" if t.dim() == 0 else tuple(t.shape)
            learned = ", learned" if isinstance(t, nn.Parameter) else ""
            shown.append(f"{name}={value}{learned}")
        return ", ".join([*shown, *(f"{k}={v!r}" for k, v in self.options.items())])
