"""ESN: a random reservoir as a module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._check import fail
from ..sparse import Pattern
from ..spiking import ESN as Output
from ..spiking import esn
from ._options import check_options
from ._reservoir import PatternModule, check_count, check_part, generator_of, spectral_radius

_OPTIONS = frozenset(("activation", "record", "washout"))


class ESN(PatternModule):
    """A random echo state network, :func:`synops.spiking.esn`, with fixed weights.

    Recurrent weights are normal, scaled to a spectral radius; those of the input and the bias
    uniform in [-1, 1], scaled. The state is not kept: it goes in and comes out. The readout is the
    user's: docs/reservoirs.md has ridge regression.

    Args:
        inputs, units: sizes K and N.
        spectral_radius: of the recurrent weight.
        density: of the recurrent weight, in (0, 1].
        input_scaling, bias_scaling: largest magnitude of these weights.
        input_density: part of the input weights that are not 0, in (0, 1].
        leak: leaking rate, a number in [0, 1] or a tensor ``(N,)``.
        rows: 16 draws blocks of 16 rows with equal columns, which one sequence runs five times as
            fast through; it divides ``units`` then.
        generator: a ``torch.Generator`` or a seed: the same weights from the same. Default:
            torch's own generator.
        options: keywords of :func:`synops.spiking.esn`: activation, record, washout.

    Shape:
        input ``(T, [B,] K)``, state ``([B,] N)``; returns ``(states, state)``.

    Example:
        >>> reservoir = ESN(1, 500, spectral_radius=0.95, generator=0)
        >>> states, state = reservoir(torch.randn(1000, 1))
        >>> states, state = reservoir(torch.randn(1000, 1), state)  # the next 1000 steps
    """

    input_weight: Tensor
    bias: Tensor
    leak: Tensor
    values: Tensor

    def __init__(
        self,
        inputs: int,
        units: int,
        *,
        spectral_radius: float = 0.9,
        density: float = 0.1,
        input_scaling: float = 1.0,
        input_density: float = 1.0,
        bias_scaling: float = 0.0,
        leak: float | Tensor = 0.3,
        rows: int = 1,
        generator: torch.Generator | int | None = None,
        **options: Any,
    ):
        super().__init__()
        op = "nn.ESN"
        check_options("ESN", options, _OPTIONS)
        inputs, units = check_count(op, "inputs", inputs), check_count(op, "units", units)
        density, input_density = (
            check_part(op, name, value)
            for name, value in (("density", density), ("input_density", input_density))
        )
        if check_count(op, "rows", rows) not in (1, 16) or units % rows:
            fail(ValueError, op, "rows", f"be 1, or 16 where that divides units = {units}", rows)
        for name, scale in (
            ("spectral_radius", spectral_radius),
            ("input_scaling", input_scaling),
            ("bias_scaling", bias_scaling),
        ):
            if isinstance(scale, bool) or not isinstance(scale, int | float) or not scale >= 0:
                fail(ValueError, op, name, "be a number of at least 0", scale)
        g = generator_of(op, generator)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=g) * 2 - 1

        kept = torch.rand(units // rows, units, generator=g) < density
        pattern = Pattern.from_blocks(kept, (rows, 1))
        values = torch.randn(pattern.nnz, generator=g)
        self._own("", _scaled(op, values, pattern, spectral_radius), pattern)
        chosen = torch.rand(units, inputs, generator=g) < input_density
        self.register_buffer("input_weight", uniform(units, inputs) * input_scaling * chosen)
        self.register_buffer("bias", uniform(units) * bias_scaling)
        given = torch.as_tensor(leak, dtype=None if isinstance(leak, Tensor) else torch.float32)
        self.register_buffer("leak", given.detach().clone())
        self.options = options
        weights: dict[str, Any] = {"input_weight": self.input_weight, "leak": leak}
        # raises what it refuses
        esn(torch.zeros(0, inputs), self.values, pattern, **weights, **options)

    @property
    def pattern(self) -> Pattern:
        """Of the recurrent weight, whose ``values`` are in its order."""
        return self._patterns[""]

    def forward(self, input: Tensor, state: Tensor | None = None) -> Output:
        return esn(
            input,
            self.values,
            self.pattern,
            state,
            input_weight=self.input_weight,
            bias=self.bias,
            leak=self.leak,
            **self.options,
        )

    def extra_repr(self) -> str:
        units, inputs = self.input_weight.shape
        options = "".join(f", {k}={v!r}" for k, v in self.options.items())
        return f"inputs={inputs}, units={units}, density={self.pattern.density:.3g}{options}"


def _scaled(op: str, values: Tensor, pattern: Pattern, wanted: float) -> Tensor:
    """Values of this spectral radius."""
    if wanted == 0:
        return values * 0
    radius = spectral_radius(values, pattern) if pattern.nnz else 0.0
    if radius < 1e-9:
        rule = "be such that the weight has a cycle (its spectral radius is 0)"
        fail(ValueError, op, "density", rule, pattern.density)
    return values * (wanted / radius)
