"""Spiking: layers and reservoirs of spiking neurons, a whole sequence in one call."""

from ._esn import ESN, esn
from ._lif import LIF, lif

__all__ = ["ESN", "LIF", "esn", "lif"]
