"""Spiking: layers and reservoirs of spiking neurons, a whole sequence in one call."""

from ._esn import ESN, esn
from ._leaky_rnn import LeakyRNN, leaky_rnn
from ._lif import LIF, lif
from ._recurrent_lif import RecurrentLIF, RecurrentState, recurrent_lif

__all__ = [
    "ESN",
    "LIF",
    "LeakyRNN",
    "RecurrentLIF",
    "RecurrentState",
    "esn",
    "leaky_rnn",
    "lif",
    "recurrent_lif",
]
