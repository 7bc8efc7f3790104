"""Where a pruned module keeps a tensor and its mask: prune, torch.ao.pruning, parametrize."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Masked(NamedTuple):
    """A tensor behind a mask.

    Attributes:
        original: the Parameter that is trained, with what the mask hides.
        mask: bool, True where the tensor is kept.
    """

    original: Tensor
    mask: Tensor

    @property
    def finished(self) -> Tensor:
        """The tensor as the module uses it; what the mask hides is 0, a NaN there as well."""
        return torch.where(self.mask, self.original.detach(), 0)


def masked(module: nn.Module, name: str) -> Masked | None:
    """``module.<name>`` if it is pruned, else None.

    It is read from the original: the attribute that prune leaves on the module is computed before
    a forward, so after an optimizer step it is a step behind.
    """
    original, mask = (getattr(module, f"{name}_{kind}", None) for kind in ("orig", "mask"))
    if isinstance(original, Tensor) and isinstance(mask, Tensor):
        return Masked(original, mask != 0)
    if not parametrize.is_parametrized(module, name):
        return None
    chain = module.parametrizations[name]  # type: ignore[index]
    original = getattr(chain, "original", None)
    if not isinstance(original, Tensor):
        return None
    masks = [getattr(step, "mask", None) for step in chain]  # two sparsifiers leave two
    kept = [m != 0 for m in masks if isinstance(m, Tensor) and m.shape == original.shape]
    if len(kept) < len(masks):
        return None
    found = Masked(original, torch.stack(kept).all(0))
    if original.is_meta:
        return found
    with torch.no_grad():  # a parametrization with a mask may do something else with it
        multiplies = (getattr(module, name) == found.finished) | ~original.isfinite()
    return found if bool(multiplies.all()) else None
