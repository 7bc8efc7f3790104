"""Hebbian: local plasticity, fast weights and associative memory."""

from ._bcm import BCM, bcm, bcm_
from ._hebb import hebb, hebb_
from ._local_op import Learned
from ._oja import oja, oja_
from ._soft_hebb import SoftHebb, soft_hebb, soft_hebb_
from ._soft_hebb_conv2d import soft_hebb_conv2d, soft_hebb_conv2d_

__all__ = [
    "BCM",
    "Learned",
    "SoftHebb",
    "bcm",
    "bcm_",
    "hebb",
    "hebb_",
    "oja",
    "oja_",
    "soft_hebb",
    "soft_hebb_",
    "soft_hebb_conv2d",
    "soft_hebb_conv2d_",
]
