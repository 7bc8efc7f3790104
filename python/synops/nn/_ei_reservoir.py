"""EIReservoir: a random reservoir of excitatory and inhibitory units as a module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._check import fail
from ..sparse import Pattern
from ..spiking import EIReservoir as Output
from ..spiking import ei_one_step_design, ei_reservoir
from ._options import check_options
from ._reservoir import PatternModule, check_count, check_part, generator_of

_OPTIONS = frozenset(("gain", "threshold", "leak", "record", "washout"))


class EIReservoir(PatternModule):
    """A random network that obeys Dale's law, :func:`synops.spiking.ei_reservoir`.

    Each unit gets as many connections from either kind as its share of the degree, normal weights
    with a coefficient of variation of .2, and the sum over either kind is 1 on average: balanced,
    unless ``balance`` says otherwise. :meth:`design_` and :meth:`adapt_` change the inhibition.

    Args:
        inputs, units: sizes K and N.
        excitatory: share of the units that excite, the first ones, in (0, 1).
        degree: connections that a unit gets, from both kinds.
        balance: relative imbalance; inhibition sums to 1 - balance. Below 0 it outweighs
            excitation.
        input_scaling: largest magnitude of the input weights, which are uniform around 0.
        input_density: part of the units that get input, in (0, 1].
        generator: a ``torch.Generator`` or a seed: the same weights from the same. Default:
            torch's own generator.
        options: keywords of :func:`synops.spiking.ei_reservoir`: gain, threshold, leak, record,
            washout.

    Shape:
        input ``(T, [B,] K)``, state ``([B,] N)``; returns ``(rates, state, inhibitory)``.

    Example:
        >>> reservoir = EIReservoir(1, 500, generator=0)
        >>> reservoir.design_(target=0.5)
        >>> rates = reservoir(torch.rand(1000, 1) * 2 - 1).rates

    The defaults are those of a public code for K. Srinivasan et al., arXiv:2504.12480.
    """

    input_weight: Tensor
    excitatory_values: Tensor
    inhibitory_values: Tensor

    def __init__(
        self,
        inputs: int,
        units: int = 500,
        *,
        excitatory: float = 0.8,
        degree: int = 50,
        balance: float = 0.0,
        input_scaling: float = 0.1,
        input_density: float = 0.3,
        generator: torch.Generator | int | None = None,
        **options: Any,
    ):
        super().__init__()
        op = "nn.EIReservoir"
        check_options("EIReservoir", options, _OPTIONS)
        inputs, units = check_count(op, "inputs", inputs), check_count(op, "units", units)
        degree = check_count(op, "degree", degree)
        share, part = check_part(op, "excitatory", excitatory), input_density
        part = check_part(op, "input_density", part)
        count, links = round(share * units), round(share * degree)
        if not (0 < links < degree and links <= count < units and degree - links <= units - count):
            rule = "leave both kinds units, and a unit as many connections as there are of each"
            fail(ValueError, op, "excitatory", rule, excitatory)
        if not balance <= 1:
            fail(ValueError, op, "balance", "be at most 1", balance)
        g = generator_of(op, generator)
        for name, senders, k, total in (
            ("excitatory_", count, links, 1.0),
            ("inhibitory_", units - count, degree - links, 1.0 - balance),
        ):
            chosen = torch.rand(units, senders, generator=g).argsort(1)[:, :k]
            mask = torch.zeros(units, senders, dtype=torch.bool).scatter_(1, chosen, True)
            pattern = Pattern.from_mask(mask)
            weights = 1 + 0.2 * torch.randn(pattern.nnz, generator=g)
            self._own(name, weights.clamp_min(0) * (total / k), pattern)
        weight = (torch.rand(units, inputs, generator=g) * 2 - 1) * input_scaling
        reached = torch.rand(units, 1, generator=g) < part
        self.register_buffer("input_weight", weight * reached)
        self.options = options
        self(torch.zeros(0, inputs))  # raises what it refuses

    @property
    def _networks(self) -> dict[str, Any]:
        return {
            "excitatory": self.excitatory_values,
            "excitatory_pattern": self._patterns["excitatory_"],
            "inhibitory": self.inhibitory_values,
            "inhibitory_pattern": self._patterns["inhibitory_"],
        }

    def forward(
        self,
        input: Tensor,
        state: Tensor | None = None,
        *,
        target: float | Tensor | None = None,
        delta: float | Tensor = 1e-3,
    ) -> Output:
        """A run; with a target the inhibition that comes of it is returned and not kept."""
        rule = {"target": target, "delta": delta, **self.options}
        return ei_reservoir(
            input, state=state, input_weight=self.input_weight, **self._networks, **rule
        )

    def adapt_(
        self,
        input: Tensor,
        state: Tensor | None = None,
        *,
        target: float | Tensor,
        delta: float | Tensor = 1e-3,
    ) -> Output:
        """A run over one sequence ``(T, K)`` that keeps the inhibition it comes to."""
        if input.dim() != 2:
            fail(ValueError, "nn.EIReservoir.adapt_", "input", "have shape (T, K)", input.shape)
        output = self(input, state, target=target, delta=delta)
        self.inhibitory_values.copy_(output.inhibitory)
        return output

    def design_(self, *, target: float | Tensor, input_mean: float | Tensor = 0.0) -> None:
        """Inhibition at which the target rates are a fixed point, for input of this mean:
        :func:`synops.spiking.ei_one_step_design`."""
        shape = self.input_weight.shape[1]
        mean = torch.as_tensor(input_mean, dtype=self.input_weight.dtype).expand(shape)
        kept = ("gain", "threshold")
        rule = {k: v for k, v in self.options.items() if k in kept}
        drive = self.input_weight @ mean.to(self.input_weight.device)
        new = ei_one_step_design(**self._networks, target=target, drive=drive, **rule)
        self.inhibitory_values.copy_(new)

    def extra_repr(self) -> str:
        units, inputs = self.input_weight.shape
        count = self._patterns["excitatory_"].shape[1]
        options = "".join(f", {k}={v!r}" for k, v in self.options.items())
        return f"inputs={inputs}, units={units}, excitatory={count}{options}"
