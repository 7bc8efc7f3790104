"""Section ``izhikevich``: a recurrent network of Izhikevich neurons, drawn and timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from ..benchmarks.common.call import largest_error
from ..benchmarks.spiking.izhikevich import numpy_loop, torch_loop
from ..nn import IzhikevichReservoir
from ..sparse import Pattern
from ..viz import raster
from .context import Context
from .report import Claim, Report, Results, Row
from .timing import in_turns

TORCH = "torch, a step at a time, index_add_ of the spikes' synapses"
NUMPY = "numpy, a step at a time, bincount of the spikes' synapses"
_DT = 0.5  # ms
_DRAWN = 1000  # steps


@dataclass(frozen=True)
class Protocol:
    """Size of the network; steps that are compared, and steps of the long run."""

    neurons: int
    compared: int
    steps: int


FULL = Protocol(20_000, 200, 10_000)
QUICK = Protocol(4_500, 20, 2_000)


@torch.no_grad()
def run(context: Context) -> Report:
    """Times a stretch by all, then runs and draws a long one."""
    protocol = QUICK if context.quick else FULL
    context.start("network", 4)
    reservoir = IzhikevichReservoir.random(
        protocol.neurons, generator=torch.Generator().manual_seed(0)
    )
    start = reservoir(steps=300, record=None).state  # past its first volley
    context.advance("a stretch by each")
    steps = protocol.compared
    batched = type(start)(*(None if t is None else t.unsqueeze(0) for t in start))
    forms: dict[str, Callable[[], Any]] = {
        TORCH: torch_loop(reservoir, batched, steps),
        NUMPY: numpy_loop(reservoir, batched, steps),
        "synops": lambda: reservoir(state=start, steps=steps),
    }
    report = Report()
    report.rows.append(
        Row(
            system=f"Izhikevich reservoir, {protocol.neurons} neurons",
            case=f"{steps} steps of {_DT} ms",
            times=in_turns(forms, seconds=2, min_rounds=2),
            today=TORCH,
            error=_error(reservoir, start),
        )
    )
    context.advance("a long run")
    began = time.perf_counter()
    whole = reservoir(state=start, steps=protocol.steps)
    taken = time.perf_counter() - began
    half = reservoir(state=start, steps=protocol.steps // 2)
    rest = reservoir(state=half.state, steps=protocol.steps - protocol.steps // 2)
    context.advance("raster")
    report.files.append(_draw(context.out, reservoir, start))
    context.advance()
    biological = protocol.steps * _DT / 1e3
    rate = int(whole.counts.sum()) / protocol.neurons / biological
    rows = [
        ["neurons, synapses", f"{protocol.neurons}, {len(reservoir.values)}"],
        ["biological time", f"{biological:g} s in {protocol.steps} steps"],
        ["spikes, mean rate", f"{int(whole.counts.sum())}, {rate:.1f} Hz"],
        ["wall time", f"{taken:.2f} s"],
        ["faster than real time by", f"{biological / taken:.1f}"],
    ]
    report.results.append(Results("the long run, one thread", ["", "found"], rows))
    again = torch.cat([half.indices, rest.indices])
    spread = whole.counts.float().std() / whole.counts.float().mean()
    report.claims = [
        Claim("it runs faster than real time", taken < biological, f"{biological / taken:.1f}"),
        Claim(
            "two runs, the second with the state of the first, give the spikes of one",
            torch.equal(again, whole.indices),
            f"{len(again)} spikes",
        ),
        Claim(
            "it fires irregularly: the spread of spikes a step is below half of their mean",
            bool(spread < 0.5),
            f"{spread:.2f}",
        ),
    ]
    return report


def _error(reservoir: Any, start: Any) -> float:
    """Of membranes after ten steps, against float64; in a longer run a rounding moves spikes."""
    wide = IzhikevichReservoir(
        reservoir.values.double(),
        Pattern.from_csr(reservoir.crow, reservoir.col, (reservoir.neurons,) * 2),
        **{name: getattr(reservoir, name).double() for name in ("a", "b", "c", "d", "bias")},
    )
    exact = wide(
        state=type(start)(*(None if t is None else t.double() for t in start)),
        steps=10,
    )
    return largest_error((reservoir(state=start, steps=10).state.v,), (exact.state.v,))


def _draw(out: Path, reservoir: Any, start: Any) -> Path:
    """The first half second of some of the neurons."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    found = reservoir(state=start, steps=_DRAWN, record="raster").raster
    apart = -(-reservoir.neurons // 1000)
    shown = found[:, ::apart]
    excites = round(0.8 * shown.shape[1])
    raster(
        shown,
        dt=_DT,
        ax=figure.subplots(),
        colors=["tab:blue"] * excites + ["tab:red"] * (shown.shape[1] - excites),
        title=f"one in {apart} of {reservoir.neurons} Izhikevich neurons; inhibitory ones in red",
    )
    file = out / "izhikevich.png"
    figure.savefig(file, dpi=130)
    return file
