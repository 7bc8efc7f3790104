"""Modules: layers with the constructors and state_dicts of torch.nn, on synops' ops."""

from ._alif import ALIF
from ._chain import chain_
from ._cuba_lif import CubaLIF
from ._ei_reservoir import EIReservoir
from ._esn import ESN
from ._fan_in import rescale_fan_in_
from ._hebbian_linear import HebbianLinear
from ._izhikevich import IzhikevichReservoir
from ._lif import LIF
from ._recurrent_lif import RecurrentLIF
from ._sparse_linear import SparseLinear
from ._stdp_linear import STDPLinear

# They are made of the layers.
from .._dynamic import DynamicSparsity  # isort: skip

__all__ = [
    "ALIF",
    "ESN",
    "LIF",
    "CubaLIF",
    "DynamicSparsity",
    "EIReservoir",
    "HebbianLinear",
    "IzhikevichReservoir",
    "RecurrentLIF",
    "STDPLinear",
    "SparseLinear",
    "chain_",
    "rescale_fan_in_",
]
