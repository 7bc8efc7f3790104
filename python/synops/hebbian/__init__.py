"""Hebbian: local plasticity, fast weights and associative memory."""

from ._bcm import BCM, bcm, bcm_
from ._hebb import hebb, hebb_
from ._local_op import Learned
from ._oja import oja, oja_
from ._stdp import STDP, STDPState, stdp, stdp_

__all__ = [
    "BCM",
    "STDP",
    "Learned",
    "STDPState",
    "bcm",
    "bcm_",
    "hebb",
    "hebb_",
    "oja",
    "oja_",
    "stdp",
    "stdp_",
]
