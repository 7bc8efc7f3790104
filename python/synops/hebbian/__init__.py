"""Hebbian: local plasticity, fast weights and associative memory."""

from ._bcm import BCM, bcm, bcm_
from ._delta_rule import FastWeights, delta_rule
from ._hebb import hebb, hebb_
from ._hopfield_retrieve import HopfieldRetrieval, hopfield_retrieve
from ._linear_attention import linear_attention
from ._local_op import Learned
from ._oja import oja, oja_
from ._soft_hebb import SoftHebb, soft_hebb, soft_hebb_
from ._soft_hebb_conv2d import soft_hebb_conv2d, soft_hebb_conv2d_
from ._stdp import STDP, STDPState, stdp, stdp_
from ._three_factor import ThreeFactor, three_factor, three_factor_
from ._three_factor_sequence import three_factor_sequence, three_factor_sequence_

__all__ = [
    "BCM",
    "STDP",
    "FastWeights",
    "HopfieldRetrieval",
    "Learned",
    "STDPState",
    "SoftHebb",
    "ThreeFactor",
    "bcm",
    "bcm_",
    "delta_rule",
    "hebb",
    "hebb_",
    "hopfield_retrieve",
    "linear_attention",
    "oja",
    "oja_",
    "soft_hebb",
    "soft_hebb_",
    "soft_hebb_conv2d",
    "soft_hebb_conv2d_",
    "stdp",
    "stdp_",
    "three_factor",
    "three_factor_",
    "three_factor_sequence",
    "three_factor_sequence_",
]
