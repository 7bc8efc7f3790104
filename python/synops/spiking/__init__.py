"""Spiking: layers and reservoirs of spiking neurons, a whole sequence in one call."""

from ._leaky_rnn import LeakyRNN, leaky_rnn
from ._lif import LIF, lif

__all__ = ["LIF", "LeakyRNN", "leaky_rnn", "lif"]
