"""Hebbian: local plasticity, fast weights and associative memory."""

from ._bcm import BCM, bcm, bcm_
from ._hebb import hebb, hebb_
from ._local_op import Learned
from ._oja import oja, oja_

__all__ = [
    "BCM",
    "Learned",
    "bcm",
    "bcm_",
    "hebb",
    "hebb_",
    "oja",
    "oja_",
]
