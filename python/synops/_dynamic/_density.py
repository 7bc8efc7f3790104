"""How a density over all layers is shared out: Erdos-Renyi kernel (ERK) or uniform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._check import fail

Shapes = Mapping[str, tuple[int, int]]


def shared(op: str, shapes: Shapes, density: Any, distribution: str) -> dict[str, float]:
    """Density of each layer, so that ``density`` of all entries together are kept; or as it says.

    ERK gives an (out, in) layer a density in proportion to (out + in) / (out * in), so small layers
    are denser; those that would need more than 1 are dense, and the others make up for it.
    """
    if distribution not in ("erk", "uniform"):
        fail(ValueError, op, "distribution", "be erk or uniform", repr(distribution))
    if isinstance(density, Mapping):
        if sorted(density) != sorted(shapes):
            fail(ValueError, op, "density", f"name the dense layers {list(shapes)}", list(density))
        result = dict(density)
    elif not shapes:
        return {}
    elif density is None:
        fail(TypeError, op, "density", "be a number or a dict, as layers are dense", None)
    else:
        erk = distribution == "erk"
        result = _erk(shapes, density) if erk else dict.fromkeys(shapes, density)
    for name, (rows, cols) in shapes.items():
        if rows * cols and round(result[name] * rows * cols) == 0:
            rule = f"leave every layer an entry ({name} of shape {(rows, cols)} would have none)"
            fail(ValueError, op, "density", rule, density)
    return result


def _erk(shapes: Shapes, density: float) -> dict[str, float]:
    wanted = density * sum(rows * cols for rows, cols in shapes.values())
    sparse = {name: rows + cols for name, (rows, cols) in shapes.items() if rows * cols}
    result = dict.fromkeys(shapes, 1.0)
    while sparse:
        full = sum(shapes[n][0] * shapes[n][1] for n in shapes if n not in sparse)
        share = (wanted - full) / sum(sparse.values())
        densities = {n: share * side / (shapes[n][0] * shapes[n][1]) for n, side in sparse.items()}
        over = {n for n, d in densities.items() if d > 1}
        if not over:
            return result | densities
        # The densest first: the others then get less, and may stay below 1.
        most = max(densities.values())
        sparse = {n: side for n, side in sparse.items() if densities[n] < most}
    return result
