"""Spiking: layers and reservoirs of spiking neurons, a whole sequence in one call."""

from ._ei_one_step_design import ei_one_step_design
from ._ei_reservoir import EIReservoir, ei_reservoir
from ._esn import ESN, esn
from ._izhikevich import Izhikevich, IzhikevichState, izhikevich, izhikevich_synapses
from ._izhikevich_ops import IzhikevichSynapses
from ._leaky_rnn import LeakyRNN, leaky_rnn
from ._lif import LIF, lif
from ._recurrent_lif import RecurrentLIF, RecurrentState, recurrent_lif

__all__ = [
    "ESN",
    "LIF",
    "EIReservoir",
    "Izhikevich",
    "IzhikevichState",
    "IzhikevichSynapses",
    "LeakyRNN",
    "RecurrentLIF",
    "RecurrentState",
    "ei_one_step_design",
    "ei_reservoir",
    "esn",
    "izhikevich",
    "izhikevich_synapses",
    "leaky_rnn",
    "lif",
    "recurrent_lif",
]
