"""Masks that are more than scattered entries: blocks, and groups of units with links between them.

A structure is written as

- ``rows 16x1``: blocks of 16 output rows and one column (``8x1``: of 8);
- ``bsr 32``: square blocks of 32 x 32, as in torch's BSR tensors;
- ``groups 4``: units in 4 groups, every unit linked with all of its group, and what is left of the
  density at random places between the groups. The groups lie one behind the other;
- ``groups 4 interleaved``: unit i belongs to group i % 4, so that nothing is contiguous.
"""

from __future__ import annotations

import torch
from torch import Tensor


def structured_mask(
    structure: str, shape: tuple[int, int], density: float, generator: torch.Generator
) -> Tensor:
    """A bool mask ``(out, in)`` whose number of entries is that of ``density``, to the block.

    Raises:
        ValueError: no such structure, or it does not fit the shape or the density.
    """
    kind, size, *rest = structure.split()
    if kind == "groups":
        return _groups(int(size), rest == ["interleaved"], shape, density, generator)
    if kind == "bsr":
        return _blocks((int(size), int(size)), shape, density, generator)
    if kind == "rows":
        height, width = map(int, size.split("x"))
        return _blocks((height, width), shape, density, generator)
    raise ValueError(f"structure {structure!r} is not known")


def _blocks(
    block: tuple[int, int], shape: tuple[int, int], density: float, generator: torch.Generator
) -> Tensor:
    if shape[0] % block[0] or shape[1] % block[1]:
        raise ValueError(f"blocks of {block} do not fill {shape}")
    grid = (shape[0] // block[0], shape[1] // block[1])
    kept = _scattered(torch.ones(grid, dtype=torch.bool), density * grid[0] * grid[1], generator)
    return kept.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)


def _groups(
    groups: int,
    interleaved: bool,
    shape: tuple[int, int],
    density: float,
    generator: torch.Generator,
) -> Tensor:
    units = [torch.arange(side) for side in shape]
    if interleaved:
        of = [unit % groups for unit in units]
    else:
        of = [unit * groups // side for unit, side in zip(units, shape, strict=True)]
    inside = of[0][:, None] == of[1]
    links = density * inside.numel() - int(inside.sum())
    if links < 0:
        raise ValueError(f"{groups} groups are denser than {density}")
    return inside | _scattered(~inside, links, generator)


def _scattered(allowed: Tensor, count: float, generator: torch.Generator) -> Tensor:
    """``count`` of the allowed places, drawn uniformly."""
    places = allowed.flatten().nonzero()[:, 0]
    drawn = places[torch.randperm(len(places), generator=generator)[: round(count)]]
    return (
        torch.zeros(allowed.numel(), dtype=torch.bool).index_fill_(0, drawn, True).view_as(allowed)
    )
