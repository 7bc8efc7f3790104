"""Spiking: layers and reservoirs of spiking neurons, a whole sequence in one call."""

from ._alif import ALIF, alif
from ._cuba_lif import CubaLIF, cuba_lif
from ._ei_one_step_design import ei_one_step_design
from ._ei_reservoir import EIReservoir, ei_reservoir
from ._esn import ESN, esn
from ._izhikevich import Izhikevich, IzhikevichState, izhikevich, izhikevich_synapses
from ._izhikevich_ops import IzhikevichSynapses
from ._leaky_rnn import LeakyRNN, leaky_rnn
from ._lif import LIF, lif
from ._lif_step import LIFStep, lif_step
from ._recurrent_lif import RecurrentLIF, RecurrentState, recurrent_lif
from ._unpack_spikes import unpack_spikes

__all__ = [
    "ALIF",
    "ESN",
    "LIF",
    "CubaLIF",
    "EIReservoir",
    "Izhikevich",
    "IzhikevichState",
    "IzhikevichSynapses",
    "LIFStep",
    "LeakyRNN",
    "RecurrentLIF",
    "RecurrentState",
    "alif",
    "cuba_lif",
    "ei_one_step_design",
    "ei_reservoir",
    "esn",
    "izhikevich",
    "izhikevich_synapses",
    "leaky_rnn",
    "lif",
    "lif_step",
    "recurrent_lif",
    "unpack_spikes",
]
