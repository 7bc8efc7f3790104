"""The figure of GraNet: where the edges of the first layer are, and accuracy by epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from .granet import Course

# Okabe and Ito's colours, told apart by all; the dashes tell them apart in grey.
_STYLES: dict[str, dict[str, Any]] = {
    "dense": {"color": "0.5", "linestyle": "-"},
    "granet": {"color": "#0072B2", "linestyle": "-"},
    "rigl": {"color": "#D55E00", "linestyle": "--"},
    "static": {"color": "#009E73", "linestyle": ":"},
}


def save(out: Path, courses: dict[str, list[Course]]) -> Path:
    """Draws the first seed's edges before and after training, and all courses; the file."""
    figure = Figure(figsize=(14, 4.2), layout="constrained")
    before, after, accuracy = figure.subplots(1, 3, width_ratios=(1, 1, 1.4))
    first = courses["granet"][0]
    for axes, edges, when in ((before, first.before, "before"), (after, first.after, "after")):
        assert edges is not None
        total = int(edges.sum())
        title = f"first layer {when}:\n{total:,} edges, {total / (784 * 300):.1%}"
        image = _draw_edges(axes, edges, title)
        figure.colorbar(image, ax=axes, shrink=0.8, label="edges of the pixel, of 300")
    _draw_accuracy(accuracy, courses)
    file = out / "granet.png"
    figure.savefig(file, dpi=150)
    return file


def _draw_edges(axes: Axes, edges: Tensor, title: str) -> AxesImage:
    image = axes.imshow(edges.numpy(), cmap="viridis", vmin=0)
    axes.set(title=title, xticks=[], yticks=[])
    return image


def _draw_accuracy(axes: Axes, courses: dict[str, list[Course]]) -> None:
    for method, style in _STYLES.items():
        seeds = 100 * torch.tensor([course.accuracies for course in courses[method]])
        epochs = range(1, seeds.shape[1] + 1)
        axes.plot(epochs, seeds.mean(0), label=method, **style)
        low, high = seeds.amin(0), seeds.amax(0)
        axes.fill_between(epochs, low, high, color=style["color"], alpha=0.2, linewidth=0)
    lowest = min(min(course.accuracies[1:]) for course in courses["static"])
    axes.set(
        ylim=(100 * lowest - 1, None),
        xlabel="epoch",
        ylabel="test accuracy, %",
        title="784-300-100-10 at a tenth of its weights",
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower right", title="bands: lowest to highest seed")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
