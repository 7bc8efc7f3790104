"""Spiking: layers and reservoirs of spiking neurons, a whole sequence in one call."""

from ._lif import LIF, lif
from ._recurrent_lif import RecurrentLIF, RecurrentState, recurrent_lif

__all__ = ["LIF", "RecurrentLIF", "RecurrentState", "lif", "recurrent_lif"]
