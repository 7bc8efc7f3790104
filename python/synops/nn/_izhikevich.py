"""IzhikevichReservoir: a recurrent network of Izhikevich neurons as a module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .._check import fail
from ..sparse import Pattern
from ..spiking import (
    Izhikevich,
    IzhikevichState,
    IzhikevichSynapses,
    izhikevich,
    izhikevich_synapses,
)
from ._options import check_options

_NEURON = ("a", "b", "c", "d", "bias")
_OPTIONS = {"dt": 0.5, "tau": 5.0, "tau_rise": None, "tau_trace": 20.0}


class IzhikevichReservoir(nn.Module):
    """:func:`synops.spiking.izhikevich` with synapses and neurons of its own.

    The synapses are laid out for spikes once and again when ``values`` change, so that short calls
    are short (the function does it in each call). State goes in and comes out.

    Args:
        values, pattern: as of the function; ``values`` becomes a buffer, ``crow`` and ``col`` of
            the pattern, too.
        a, b, c, d, bias: numbers or ``(N,)``.
        input_weight: ``(N, N_in)``.
        delay: int, or ``(N,)``.
        sign: ``(N,)``: checked once, here.
        options: dt, tau, tau_rise, tau_trace.

    Shape:
        input ``(T, N_in)``, ``(T, B, N_in)`` or None; returns
        :class:`synops.spiking.Izhikevich`.

    Example:
        >>> reservoir = IzhikevichReservoir.random(1000)
        >>> first = reservoir(steps=2000)
        >>> second = reservoir(state=first.state, steps=2000, record=("raster", "v"))
    """

    values: Tensor
    crow: Tensor
    col: Tensor
    input_weight: Tensor | None
    delays: Tensor

    def __init__(
        self,
        values: Tensor,
        pattern: Pattern,
        *,
        a: float | Tensor,
        b: float | Tensor,
        c: float | Tensor,
        d: float | Tensor,
        bias: float | Tensor = 0.0,
        input_weight: Tensor | None = None,
        delay: int | Tensor = 1,
        sign: Tensor | None = None,
        **options: Any,
    ):
        super().__init__()
        check_options("IzhikevichReservoir", options, _OPTIONS)
        if not isinstance(pattern, Pattern):
            got = type(pattern).__name__
            fail(TypeError, "izhikevich", "pattern", "be a synops.sparse.Pattern", got)
        self.options = _OPTIONS | options
        self.register_buffer("values", values.detach()[: pattern.nnz].clone())
        self.register_buffer("crow", pattern.crow)
        self.register_buffer("col", pattern.col)
        wide = torch.float64 if values.dtype == torch.float64 else torch.float32
        for name, value in zip(_NEURON, (a, b, c, d, bias), strict=True):
            t = torch.as_tensor(value, dtype=wide, device=values.device)
            self.register_buffer(name, t.detach().clone())
        weight = None if input_weight is None else input_weight.detach().clone()
        self.register_buffer("input_weight", weight)
        self.delay: int | None = None
        if isinstance(delay, Tensor):
            self.register_buffer("delays", delay.clone())
        else:
            self.delay = delay
        self._kept: dict[str, tuple[Any, Any]] = {}  # what is derived from buffers, and from which
        self._kept["pattern"] = _identity(self.crow, self.col), pattern
        x = None if weight is None else values.new_zeros((0, *weight.shape[1:]))
        with torch.no_grad():
            self._run(x, None, sign=sign, steps=0)  # raises what it refuses

    @classmethod
    def random(
        cls,
        neurons: int,
        in_degree: int = 100,
        *,
        inputs: int = 0,
        excitatory: float = 0.8,
        strength: tuple[float, float] = (0.1, 0.4),
        bias: tuple[float, float] = (2.0, 7.0),
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> IzhikevichReservoir:
        """Excitatory neurons from regular spiking to chattering, and fast spiking to low-threshold
        inhibitory ones, with the parameters of Izhikevich (2003); each hears ``in_degree`` others.

        With the defaults it fires irregularly at about 12 Hz, and none of its rhythms grows with
        its size.

        Args:
            neurons: N.
            in_degree: synapses of each neuron.
            inputs: N_in, with input weights in [0, 1).
            excitatory: fraction of the neurons; they come first.
            strength: the largest weight of excitatory and inhibitory synapses, uniform from 0.
            bias: from and to; uniform.
            generator: of the random numbers, on the CPU.
            options: of the constructor: delay, dt, tau, tau_rise, tau_trace.
        """
        if not 0 <= in_degree <= neurons:
            fail(
                ValueError, "IzhikevichReservoir", "in_degree", f"lie in [0, {neurons}]", in_degree
            )

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator)

        excites = torch.arange(neurons) < round(excitatory * neurons)
        r = uniform(neurons)
        col = _targets(neurons, in_degree, generator)
        crow = torch.arange(neurons + 1) * in_degree
        pattern = Pattern.from_csr(crow, col.flatten(), (neurons, neurons))
        sign = torch.where(excites, 1.0, -1.0)
        largest = torch.where(excites, *(torch.tensor(s) for s in strength)) * sign
        return cls(
            uniform(pattern.nnz) * largest[pattern.col.long()],
            pattern,
            a=torch.where(excites, 0.02, 0.02 + 0.08 * r),
            b=torch.where(excites, 0.2, 0.25 - 0.05 * r),
            c=torch.where(excites, -65 + 15 * r**2, -65.0),
            d=torch.where(excites, 8 - 6 * r**2, 2.0),
            bias=bias[0] + (bias[1] - bias[0]) * uniform(neurons),
            input_weight=uniform(neurons, inputs) if inputs else None,
            **options,
        )

    @property
    def neurons(self) -> int:
        """N."""
        return self.crow.shape[0] - 1

    def forward(
        self,
        input: Tensor | None = None,
        state: IzhikevichState | None = None,
        *,
        steps: int | None = None,
        record: Any = "indices",
        neurons: Any = None,
        readout: Tensor | None = None,
        targets: Tensor | None = None,
        gates: Tensor | None = None,
        learning_rate: float | None = None,
        backend: str | None = None,
    ) -> Izhikevich:
        rows = 1
        for t, last in ((input, 3), (None if state is None else state[0], 2)):
            if isinstance(t, Tensor) and t.dim() == last:
                rows = t.shape[-2]
        options = {"steps": steps, "record": record, "neurons": neurons, "backend": backend}
        options |= {"targets": targets, "gates": gates, "learning_rate": learning_rate}
        return self._run(
            input, state, synapses=self._synapses(rows, backend), readout=readout, **options
        )

    def _run(self, input: Tensor | None, state: IzhikevichState | None, **options: Any) -> Any:
        neuron = {name: getattr(self, name) for name in _NEURON}
        delay = self.delays if self.delay is None else self.delay
        weight = {"input_weight": None if input is None else self.input_weight}
        options = neuron | self.options | weight | {"delay": delay} | options
        return izhikevich(input, self.values, self.pattern, state, **options)

    @property
    def pattern(self) -> Pattern:
        """Of the synapses."""

        def make() -> Pattern:
            return Pattern.from_csr(self.crow, self.col, (self.neurons, self.neurons))

        return self._derived("pattern", _identity(self.crow, self.col), make)

    def _synapses(self, rows: int, backend: str | None) -> IzhikevichSynapses:
        """Those of the last call, unless values, threads or reservoirs are others."""

        def make() -> IzhikevichSynapses:
            return izhikevich_synapses(self.values, self.pattern, reservoirs=rows, backend=backend)

        if torch.compiler.is_compiling():
            return make()  # in the graph, which sees values that change
        identity = _identity(self.values, self.crow, self.col)
        return self._derived("synapses", (identity, rows, torch.get_num_threads()), make)

    def _derived(self, name: str, identity: Any, make: Callable[[], Any]) -> Any:
        if torch.compiler.is_compiling() and name in self._kept:
            return self._kept[name][1]  # nothing of an identity can be looked at
        if name not in self._kept or self._kept[name][0] != identity:
            self._kept[name] = identity, make()
        return self._kept[name][1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}}

    def extra_repr(self) -> str:
        shown = [f"neurons={self.neurons}", f"synapses={self.col.shape[0]}"]
        if self.input_weight is not None:
            shown.append(f"inputs={self.input_weight.shape[1]}")
        shown.append(f"delay={'(N,)' if self.delay is None else self.delay}")
        return ", ".join([*shown, *(f"{k}={v!r}" for k, v in self.options.items())])


def _targets(neurons: int, degree: int, generator: torch.Generator | None) -> Tensor:
    """``degree`` different neurons, ascending, for each of all: ``(neurons, degree)``."""
    if 4 * degree > neurons:
        order = torch.rand(neurons, neurons, generator=generator).argsort(1)
        return order[:, :degree].sort(1).values
    col = torch.randint(neurons, (neurons, degree), generator=generator).sort(1).values
    while bool((same := col[:, 1:] == col[:, :-1]).any()):
        again = torch.randint(neurons, (int(same.count_nonzero()),), generator=generator)
        col[:, 1:][same] = again
        col = col.sort(1).values
    return col


def _identity(*tensors: Tensor) -> tuple[Any, ...]:
    """What changes when one of them is another, or is changed in place."""
    return tuple((t.data_ptr(), t._version, t.dtype, t.device) for t in tensors)
