"""raster: who fired when, with the rate of all beneath."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .._check import fail

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME = "raster"
_MOST = 200_000  # dots; more are thinned out


def raster(
    spikes: Any,
    counts: Tensor | None = None,
    *,
    neurons: int | None = None,
    dt: float = 0.5,
    window: float = 5.0,
    ax: Axes | None = None,
    colors: Any = "black",
    title: str | None = None,
) -> Axes:
    """Draws a dot for each spike, and the mean rate of the neurons over time beneath.

    Args:
        spikes: one of

            - ``(T, N)``, not 0 where a neuron fired, as ``lif`` and ``record="raster"`` give them;
            - the ``indices`` of :func:`synops.spiking.izhikevich`, with its ``counts``;
            - a result of it, with either of the two.
        counts: ``(T,)``, spikes of each step, with indices.
        neurons: N, of indices; default the highest index and 1.
        dt: ms of a step.
        window: ms over which the rate is averaged, at least a step.
        ax: to draw on; the rate takes its lower quarter. Default: of a new pyplot figure.
        colors: of the dots: one, or ``(N,)`` colors of the neurons.
        title: of the axes.

    Returns:
        The axes of the dots; those of the rate are ``ax.child_axes[0]``. Of more than 200,000
        spikes every k-th dot is drawn; the rate is of all.

    Raises:
        TypeError, ValueError: ``spikes`` is none of the above, or a number is not positive.
        ImportError: matplotlib is missing.
    """
    for name, value in (("dt", dt), ("window", window)):
        if not value > 0:
            fail(ValueError, _NAME, name, "be positive", value)
    step, neuron, steps, total = _events(spikes, counts, neurons)
    try:
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise ImportError(f'{_NAME} needs matplotlib: pip install "synops[viz]"') from error
    if ax is None:
        from matplotlib import pyplot

        _, ax = pyplot.subplots(figsize=(9, 5), layout="constrained")
    thin = -(-len(step) // _MOST) or 1
    shown = slice(None, None, thin)
    size = min(8.0, max(1.0, 4e4 / max(1, len(step))))
    c = colors if isinstance(colors, str) else np.asarray(colors)[neuron[shown]]
    ax.scatter(step[shown] * dt, neuron[shown], s=size, c=c, marker=".", linewidths=0)
    # the axes of the rate are as wide and lie below, inside of the room of the first
    ax.set(xlim=(0, max(steps, 1) * dt), ylim=(-total / 2.5 - 1, max(total, 1) - 0.5))
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.set_yticks([t for t in ax.get_yticks() if 0 <= t < total])
    ax.set(ylabel="neuron", xlabel="time, ms")
    rate = ax.inset_axes((0, 0, 1, 0.25), sharex=ax)
    width = max(1, round(window / dt))
    of_step = np.bincount(step, minlength=max(steps, 1)) / max(total, 1) / dt * 1e3
    rate.plot(np.arange(len(of_step)) * dt, _smooth(of_step, width), color="tab:blue", lw=0.8)
    rate.set_ylim(bottom=0)
    rate.set_ylabel("rate, Hz")
    if title is not None:
        ax.set_title(title)
    return ax


def _events(spikes: Any, counts: Any, neurons: Any) -> tuple[Any, Any, int, int]:
    """Step and neuron of each spike; how many of both there are."""
    if hasattr(spikes, "counts") and hasattr(spikes, "indices"):  # what izhikevich returns
        found = spikes
        spikes = found.raster if found.indices is None else found.indices
        counts = None if found.indices is None else found.counts
        if spikes is None:
            rule = "have indices or a raster (record=)"
            fail(ValueError, _NAME, "spikes", rule, type(found).__name__)
        if found.state.v.dim() == 1 and neurons is None:
            neurons = found.state.v.shape[0]
    rule = "be (T, N), indices with counts (T,), or what izhikevich returns"
    if not isinstance(spikes, Tensor | np.ndarray):
        fail(TypeError, _NAME, "spikes", rule, type(spikes).__name__)
    array = torch.as_tensor(spikes).detach().cpu()
    if counts is None:
        if array.dim() != 2:
            fail(ValueError, _NAME, "spikes", rule, tuple(array.shape))
        step, neuron = array.nonzero().numpy().T
        return step, neuron, array.shape[0], array.shape[1]
    counts = torch.as_tensor(counts).detach().cpu()
    if array.dim() != 1 or counts.dim() != 1:
        got = (tuple(array.shape), tuple(counts.shape))
        fail(ValueError, _NAME, "spikes", f"{rule}, of one reservoir", got)
    if int(counts.sum()) != len(array):
        rule = f"add up to the {len(array)} spikes"
        fail(ValueError, _NAME, "counts", rule, int(counts.sum()))
    step = np.repeat(np.arange(len(counts)), counts.numpy())
    highest = int(array.max()) + 1 if len(array) else 0
    if neurons is not None and neurons < highest:
        fail(ValueError, _NAME, "neurons", f"be at least {highest}", neurons)
    return step, array.numpy(), len(counts), highest if neurons is None else neurons


def _smooth(values: Any, width: int) -> Any:
    """Means over ``width`` steps around each, of those that there are."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    first = np.maximum(at - width // 2, 0)
    last = np.minimum(first + width, len(values))
    return (sums[last] - sums[first]) / np.maximum(last - first, 1)
