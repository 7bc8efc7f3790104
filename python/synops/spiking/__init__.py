"""Spiking: layers and reservoirs of spiking neurons, a whole sequence in one call."""

from ._alif import ALIF, alif
from ._cuba_lif import CubaLIF, cuba_lif
from ._lif import LIF, lif
from ._lif_step import LIFStep, lif_step
from ._unpack_spikes import unpack_spikes

__all__ = [
    "ALIF",
    "LIF",
    "CubaLIF",
    "LIFStep",
    "alif",
    "cuba_lif",
    "lif",
    "lif_step",
    "unpack_spikes",
]
