"""Spiking: layers and reservoirs of spiking neurons, a whole sequence in one call."""

from ._lif import LIF, lif

__all__ = ["LIF", "lif"]
