"""entropy_map: attention entropies of all heads of a model, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._check import fail

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME = "entropy_map"
_INCHES = 0.22  # a cell
_AROUND = (2.2, 1.2)  # labels and colour bar


def entropy_map(
    entropy: Any,
    *,
    ax: Axes | None = None,
    attention_mask: Tensor | None = None,
    vmax: float | None = None,
    cmap: str = "viridis",
    title: str | None = None,
) -> Axes:
    """Draws the mean attention entropy of each head as a heat map: a row a layer, a column a head.

    Args:
        entropy: in nats, one of

            - ``(layers, heads)``, a tensor or an array: drawn as it is;
            - a sequence of tensors ``(B, H, N)``, a layer each, such as ``outputs.attentions``
              under ``attn_implementation="synops"``: drawn as means over B and N;
            - an ``EntropyMonitor``: its ``mean``.
        ax: to draw on; default those of a new pyplot figure, as large as the map needs.
        attention_mask: ``(B, N)``, 0 where a row is padding and does not count; for a sequence
            only.
        vmax: entropy at the upper end of the colours, whose lower end is 0; default the largest.
            Give the same to maps that are to be compared.
        cmap: name of a matplotlib colour map. NaN is grey.
        title: of the axes.

    Returns:
        The axes; the colour bar is beside them.

    Raises:
        TypeError, ValueError: ``entropy`` or ``attention_mask`` is none of the above.
        ImportError: matplotlib is missing.
    """
    values = _table(entropy, attention_mask)
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(f'{_NAME} needs matplotlib: pip install "synops[viz]"') from error
    layers, heads = values.shape
    if ax is None:
        from matplotlib import pyplot

        size = (_INCHES * heads + _AROUND[0], _INCHES * layers + _AROUND[1])
        _, ax = pyplot.subplots(figsize=size, layout="constrained")
    colours = matplotlib.colormaps[cmap].with_extremes(bad="0.75")
    image = ax.imshow(
        values.numpy(), cmap=colours, vmin=0, vmax=vmax, interpolation="nearest", aspect="auto"
    )
    for axis, count in ((ax.xaxis, heads), (ax.yaxis, layers)):
        axis.set_ticks(range(0, count, 1 + (count - 1) // 16))  # at most 16, always whole
    ax.set(xlabel="head", ylabel="layer")
    if title is not None:
        ax.set_title(title)
    ax.figure.colorbar(image, ax=ax, label="attention entropy, nats")
    return ax


def _table(entropy: Any, attention_mask: Tensor | None) -> Tensor:
    """(layers, heads), float32 on the CPU."""
    if isinstance(entropy, Sequence) and entropy and not isinstance(entropy, str):
        return _means(entropy, attention_mask)
    if attention_mask is not None:
        rule = "be None unless entropy is a sequence of (B, H, N)"
        fail(ValueError, _NAME, "attention_mask", rule, tuple(attention_mask.shape))
    mean = getattr(entropy, "mean", None)
    if isinstance(mean, Tensor):  # of an EntropyMonitor; a tensor's own is a method
        entropy = mean
    rule = "be (layers, heads), a sequence of (B, H, N), or an EntropyMonitor"
    if not hasattr(entropy, "shape"):
        fail(TypeError, _NAME, "entropy", rule, type(entropy).__name__)
    if len(entropy.shape) != 2 or 0 in entropy.shape:
        fail(ValueError, _NAME, "entropy", rule, tuple(entropy.shape))
    return torch.as_tensor(entropy).detach().float().cpu()


def _means(layers: Sequence[Tensor], attention_mask: Tensor | None) -> Tensor:
    for i, layer in enumerate(layers):
        if not isinstance(layer, Tensor) or layer.dim() != 3:
            got = tuple(layer.shape) if isinstance(layer, Tensor) else type(layer).__name__
            rule = "be a tensor (B, H, N); maps (B, H, N, M) are of another attn_implementation"
            fail(TypeError, _NAME, f"entropy[{i}]", rule, got)
        heads = layers[0].shape[1]
        if layer.shape[1] != heads or 0 in layer.shape:
            rule = f"have as many heads as the first ({heads}), and rows"
            fail(ValueError, _NAME, f"entropy[{i}]", rule, tuple(layer.shape))
        if attention_mask is not None and attention_mask.shape != (layer.shape[0], layer.shape[2]):
            rule = f"have the shape (B, N) = {(layer.shape[0], layer.shape[2])} of entropy[{i}]"
            fail(ValueError, _NAME, "attention_mask", rule, tuple(attention_mask.shape))
    means = []
    for layer in layers:
        rows = layer.detach().transpose(1, 2)  # (B, N, H)
        if attention_mask is None:
            kept = rows.flatten(0, 1)
        else:
            kept = rows[attention_mask.bool().to(rows.device)]
        means.append(kept.float().mean(0).cpu())
    return torch.stack(means)
