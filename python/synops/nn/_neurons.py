"""What the modules of neurons share: parameters that are learned or not, and options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ._options import check_options


class Neurons(nn.Module):
    """A function of neurons with parameters of its own.

    Args:
        function: as :func:`synops.spiking.lif`.
        parameters: values by name: a number, or a tensor ``(N,)``.
        learned: names of those that are Parameters; the others are buffers.
        fractions: names of those that count as 0 or 1 beyond these.
        options: keywords of the function, of those in ``OPTIONS``.
    """

    OPTIONS: ClassVar[frozenset[str]] = frozenset(
        (
            "reset",
            "detach_reset",
            "surrogate",
            "slope",
            "delayed_reset",
            "inclusive",
            "spikes",
            "save",
            "record",
        )
    )

    def __init__(
        self,
        function: Callable[..., Any],
        parameters: dict[str, float | Tensor],
        learned: dict[str, bool],
        fractions: tuple[str, ...],
        options: dict[str, Any],
    ):
        super().__init__()
        check_options(type(self).__name__, options, self.OPTIONS)
        tensors = [t for t in parameters.values() if isinstance(t, Tensor) and t.dim()]
        step = tensors[0].new_zeros(1, tensors[0].shape[-1]) if tensors else torch.zeros(1, 1)
        function(step.float(), **parameters, **options)  # raises what it refuses
        self.options = options
        self._names, self._fractions = tuple(parameters), fractions
        for name, value in parameters.items():
            kind = None if isinstance(value, Tensor) else torch.float32
            t = torch.as_tensor(value, dtype=kind).detach().clone()
            if learned.get(name):
                self.register_parameter(name, nn.Parameter(t))
            else:
                self.register_buffer(name, t)

    def keywords(self) -> dict[str, Any]:
        """Parameters and options, as the function takes them."""
        values = {name: getattr(self, name) for name in self._names}
        values |= {name: values[name].clamp(0, 1) for name in self._fractions}
        return values | self.options

    def extra_repr(self) -> str:
        shown = []
        for name in self._names:
            t = getattr(self, name)
            value = f"{t.item():.4g}" if t.dim() == 0 else tuple(t.shape)
            learned = ", learned" if isinstance(t, nn.Parameter) else ""
            shown.append(f"{name}={value}{learned}")
        return ", ".join([*shown, *(f"{k}={v!r}" for k, v in self.options.items())])
