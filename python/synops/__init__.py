"""synops: fast kernels for sparse, spiking, plastic and entropy-controlled networks in PyTorch."""

__version__ = "0.1.0"

from . import entropy, hebbian, nn, sparse, spiking
from ._backend import backend
from ._config import set_cpu_capability, show_config, which
from ._monitor import Monitor
from ._sparsify import sparsify_

__all__ = [
    "Monitor",
    "backend",
    "entropy",
    "hebbian",
    "nn",
    "set_cpu_capability",
    "show_config",
    "sparse",
    "sparsify_",
    "spiking",
    "which",
]
