"""Spiking: layers and reservoirs of spiking neurons, a whole sequence in one call."""

from ._ei_one_step_design import ei_one_step_design
from ._ei_reservoir import EIReservoir, ei_reservoir
from ._esn import ESN, esn
from ._lif import LIF, lif

__all__ = ["ESN", "LIF", "EIReservoir", "ei_one_step_design", "ei_reservoir", "esn", "lif"]
