"""Plots of what networks do; each function draws on matplotlib axes and returns them.

matplotlib is imported by the first call, not with this module.
"""

from ._entropy_map import entropy_map
from ._filters import filters
from ._raster import raster

__all__ = ["entropy_map", "filters", "raster"]
