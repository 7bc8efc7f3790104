"""Spiking: layers and reservoirs of spiking neurons, a whole sequence in one call."""

from ._izhikevich import Izhikevich, IzhikevichState, izhikevich, izhikevich_synapses
from ._izhikevich_ops import IzhikevichSynapses
from ._lif import LIF, lif

__all__ = [
    "LIF",
    "Izhikevich",
    "IzhikevichState",
    "IzhikevichSynapses",
    "izhikevich",
    "izhikevich_synapses",
    "lif",
]
