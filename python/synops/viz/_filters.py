"""filters: the rows of a weight as pictures, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._check import check_tensor, fail

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME = "filters"


def filters(
    weight: Tensor,
    shape: tuple[int, int] | None = None,
    *,
    columns: int | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draws what each unit of a layer looks for.

    Args:
        weight: ``(O, C, kh, kw)``, where C is 1, or 3 for red, green and blue; or ``(O, in)``.
        shape: (height, width) of a row, for a weight ``(O, in)``. Default: a square.
        columns: how many side by side. Default: about as many as rows.
        ax: to draw on. Default: of a new pyplot figure.
        title: of the axes.

    Returns:
        The axes. Each filter has a scale of its own, symmetric about 0: gray is 0.

    Raises:
        TypeError, ValueError: not such a weight, or a number is wrong.
        ImportError: matplotlib is missing.
    """
    check_tensor(_NAME, "weight", weight)
    w = weight.detach().float().cpu()
    if w.dim() == 2:
        side = round(w.shape[1] ** 0.5)
        height, width = shape or (side, side)
        if height * width != w.shape[1]:
            fail(ValueError, _NAME, "shape", f"multiply to in = {w.shape[1]}", (height, width))
        w = w.view(-1, 1, height, width)
    if w.dim() != 4 or w.shape[1] not in (1, 3) or not w.numel():
        rule = "have shape (O, C, kh, kw) with C of 1 or 3, or (O, in), and not be empty"
        fail(ValueError, _NAME, "weight", rule, tuple(weight.shape))
    count, channels, height, width = w.shape
    across = round(count**0.5 + 0.4) if columns is None else columns
    if isinstance(across, bool) or not isinstance(across, int) or across < 1:
        fail(ValueError, _NAME, "columns", "be a positive integer", columns)
    if ax is None:
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise ImportError(f'{_NAME} needs matplotlib: pip install "synops[viz]"') from error
        _, ax = pyplot.subplots(figsize=(7, 7), layout="constrained")
    down = -(-count // across)
    w = 0.5 + 0.5 * w / w.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-30)
    canvas = torch.ones(down * (height + 1) - 1, across * (width + 1) - 1, channels)
    for i in range(count):
        y, x = i // across * (height + 1), i % across * (width + 1)
        canvas[y : y + height, x : x + width] = w[i].permute(1, 2, 0)
    picture = canvas[..., 0] if channels == 1 else canvas
    ax.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_axis_off()
    if title is not None:
        ax.set_title(title)
    return ax
