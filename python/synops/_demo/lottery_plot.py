"""The figure of the lottery ticket experiment: accuracy and training time against density."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from .lottery_ticket import Level
from .timing import Times

# Okabe and Ito's colours, told apart by all; the markers and dashes tell them apart in grey.
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    {"color": "#009E73", "marker": "^", "linestyle": ":"},
)
_CURVES = {
    "ticket": "ticket",
    "re-init": "same mask, re-initialised",
    "random": "random mask, same init",
}


def save(
    out: Path,
    levels: Sequence[Level],
    densities: Sequence[float],
    times: Sequence[Times],
    today: str,
) -> Path:
    """Draws both panels and returns the file.

    Args:
        levels: a round of pruning each; their accuracies make the left panel.
        densities, times: the densities that were timed, and the time of an epoch at each.
        today: name in ``times`` of what people write today.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    accuracy, time = figure.subplots(1, 2)
    shown = [level.density for level in levels if "re-init" in level.found]
    _draw_accuracy(accuracy, levels)
    _density_axis(accuracy, [1.0, *shown])
    _draw_time(time, densities, times, today)
    _density_axis(time, densities)
    file = out / "lottery_ticket.png"
    figure.savefig(file, dpi=150)
    return file


def _draw_accuracy(axes: Axes, levels: Sequence[Level]) -> None:
    whole = levels[0].final("ticket")
    axes.axhline(100 * whole, color="0.5", linewidth=1, label=f"whole network, {whole:.1%}")
    for style, (curve, label) in zip(_STYLES, _CURVES.items(), strict=True):
        found = [level for level in levels if curve in level.found]
        densities = [level.density for level in found]
        seeds = [[100 * a.final for a in level.found[curve]] for level in found]
        axes.plot(densities, [100 * level.final(curve) for level in found], label=label, **style)
        lowest, highest = [min(s) for s in seeds], [max(s) for s in seeds]
        axes.fill_between(densities, lowest, highest, color=style["color"], alpha=0.2, linewidth=0)
    axes.set(ylim=(0, 100), ylabel="test accuracy, %", title="Lottery tickets in LeNet-300-100")
    axes.legend(loc="lower left", title="bands: lowest to highest seed")


def _draw_time(axes: Axes, densities: Sequence[float], times: Sequence[Times], today: str) -> None:
    names = ["synops", *[name for name in times[0].cpu if name != "synops"]]
    for style, name in zip(_STYLES, names, strict=True):
        label = "synops.nn.SparseLinear" if name == "synops" else name
        axes.plot(densities, [1e3 * t.cpu[name] for t in times], label=label, **style)
    for density, t in zip(densities, times, strict=True):
        axes.annotate(
            f"{t.speedup(today):.1f}x",
            (density, 1e3 * t.cpu["synops"]),
            xytext=(0, -16 if t.speedup(today) > 1 else 8),  # on the side away from today's
            textcoords="offset points",
            ha="center",
            color=_STYLES[0]["color"],
        )
    top = 1e3 * max(max(t.cpu.values()) for t in times)
    axes.set(
        ylim=(0, 1.5 * top),  # room for the legend
        ylabel="CPU time of an epoch (4000 digits), ms",
        title="Training time on one thread",
    )
    axes.legend(loc="upper right", title=f"numbers: speed-up over {today}")


def _density_axis(axes: Axes, ticks: Sequence[float]) -> None:
    """Logarithmic, from all weights on the left to few on the right, as the paper has it."""
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_xticks(ticks, [f"{100 * t:.{int(t < 0.1)}f}" for t in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("density: weights that remain, %")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
