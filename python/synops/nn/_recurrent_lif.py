"""RecurrentLIF: a layer of leaky integrate-and-fire neurons with connections among themselves."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..sparse import Pattern
from ..spiking import RecurrentLIF as Output
from ..spiking import recurrent_lif
from ._lif import LIF
from ._sparse_linear import SparseLinear


class RecurrentLIF(LIF):
    """Neurons over a sequence that hear their own spikes, :func:`synops.spiking.recurrent_lif`.

    The state is not kept: it goes in and comes out, as in :class:`LIF`.

    Args:
        neurons: N.
        beta, threshold, learn_beta, learn_threshold, options: as in :class:`LIF`, without the
            options spikes and save.
        pattern: which connections there are, a :class:`synops.sparse.Pattern` or a bool mask
            ``(N, N)``, row = post-synaptic. Default: all, each neuron's with itself included.

    Attributes:
        recurrent: the weight, as in snnTorch's ``RLeaky``: an ``nn.Linear`` without bias, or a
            :class:`SparseLinear`, with its initial values. (It is read, not called.)

    Shape:
        input ``(T, ..., N)``, state (spikes, v), each ``(..., N)``; returns
        ``(spikes, state, trajectory)``.

    Example:
        >>> layer = RecurrentLIF(100, 0.9, surrogate="triangle", slope=1.0)
        >>> first = layer(torch.randn(10, 4, 100))
        >>> second = layer(torch.randn(10, 4, 100), first.state)
    """

    OPTIONS = LIF.OPTIONS - {"spikes", "save"}
    recurrent: nn.Linear | SparseLinear

    def __init__(
        self,
        neurons: int,
        beta: float | Tensor,
        threshold: float | Tensor = 1.0,
        *,
        pattern: Pattern | Tensor | None = None,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        **options: Any,
    ):
        learn = {"learn_beta": learn_beta, "learn_threshold": learn_threshold}
        super().__init__(beta, threshold, **learn, **options)
        if pattern is None:
            self.recurrent = nn.Linear(neurons, neurons, bias=False)
        else:
            self.recurrent = SparseLinear(neurons, neurons, bias=False, pattern=pattern)
        with_no_step = self.beta.new_zeros(0, neurons).float()
        self(with_no_step)  # raises what it refuses

    def forward(  # type: ignore[override]
        self, input: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> Output:
        layer = self.recurrent
        weight: Tensor = layer.values if isinstance(layer, SparseLinear) else layer.weight
        return recurrent_lif(
            input,
            weight,
            state,
            pattern=layer.pattern if isinstance(layer, SparseLinear) else None,
            beta=self.beta.clamp(0, 1),
            threshold=self.threshold,
            **self.options,
        )
