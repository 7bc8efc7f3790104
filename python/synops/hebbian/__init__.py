"""Hebbian: local plasticity, fast weights and associative memory."""

from ._bcm import BCM, bcm, bcm_
from ._hebb import hebb, hebb_
from ._local_op import Learned
from ._oja import oja, oja_
from ._three_factor import ThreeFactor, three_factor, three_factor_

__all__ = [
    "BCM",
    "Learned",
    "ThreeFactor",
    "bcm",
    "bcm_",
    "hebb",
    "hebb_",
    "oja",
    "oja_",
    "three_factor",
    "three_factor_",
]
