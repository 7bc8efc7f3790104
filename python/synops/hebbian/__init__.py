"""Hebbian: local plasticity, fast weights and associative memory."""

from ._stdp import STDP, STDPState, stdp, stdp_

__all__ = ["STDP", "STDPState", "stdp", "stdp_"]
