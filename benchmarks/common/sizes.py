"""Sizes and where they come from. Append only: results of older commits are stored by name."""

from __future__ import annotations

from typing import NamedTuple

import torch


class LinearSize(NamedTuple):
    """A linear layer with a sparse weight."""

    batch: int
    in_features: int
    out_features: int
    density: float
    source: str
    structure: str = "unstructured"  # or one of structures.py

    @property
    def work(self) -> int:
        """Multiply-adds of the dense product."""
        return self.batch * self.in_features * self.out_features


class StackSize(NamedTuple):
    """Layers of one size after another; only a square one fits itself."""

    layers: int
    layer: LinearSize

    @property
    def work(self) -> int:
        """Multiply-adds of the dense products."""
        return self.layers * self.layer.work


class TokenSize(NamedTuple):
    """Rows of logits."""

    rows: int
    vocabulary: int
    source: str
    dtype: torch.dtype = torch.float32

    @property
    def work(self) -> int:
        """Logits."""
        return self.rows * self.vocabulary


class SequenceSize(NamedTuple):
    """Neurons over time."""

    steps: int
    batch: int
    neurons: int
    source: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Time first."""
        return self.steps, self.batch, self.neurons

    @property
    def work(self) -> int:
        """Neurons times steps."""
        return self.steps * self.batch * self.neurons


_MLP = (
    "1024-unit layer of the MNIST networks of N. Srivastava et al., Dropout, JMLR 2014, at the "
    "densities of dynamic sparse training (U. Evci et al., RigL, ICML 2020)"
)
_LENET = (
    "first layer and batch of LeNet-300-100 in J. Frankle and M. Carbin, The Lottery Ticket "
    "Hypothesis, ICLR 2019"
)
_FFN = "feed-forward layer of BERT-base and GPT-2 small, 512 tokens"
_ATTENTION = "attention projection of Llama 7B, 8 tokens: a weight of 64 MB when dense"
_TOKEN = "the same layer at one token"
_G2G = "2048 units in 4 groups with sparse links between them (G2GNet, arXiv:2508.14140), batch 64"
_OVERHEAD = "next to no arithmetic: the cost of a call"

LINEAR: dict[str, LinearSize] = {
    "128x1024x1024 d=.1": LinearSize(128, 1024, 1024, 0.1, _MLP),
    "128x1024x1024 d=.2": LinearSize(128, 1024, 1024, 0.2, _MLP),
    "128x1024x1024 d=.05": LinearSize(128, 1024, 1024, 0.05, _MLP),
    "128x1024x1024 d=.01": LinearSize(128, 1024, 1024, 0.01, _MLP),
    "60x784x300 d=.1": LinearSize(60, 784, 300, 0.1, _LENET),
    "512x768x3072 d=.1": LinearSize(512, 768, 3072, 0.1, _FFN),
    "1x8x8 d=.5": LinearSize(1, 8, 8, 0.5, _OVERHEAD),
}
# For the classes on 2 threads: where there is enough work to share.
LINEAR_THREADED: dict[str, LinearSize] = {
    name: LINEAR[name] for name in ("128x1024x1024 d=.1", "512x768x3072 d=.1")
}
LINEAR_MEMORY: dict[str, LinearSize] = {
    "8x4096x4096 d=.01": LinearSize(8, 4096, 4096, 0.01, _ATTENTION),
}
STACKS: dict[str, StackSize] = {
    "4 layers 128x1024x1024 d=.01": StackSize(4, LINEAR["128x1024x1024 d=.01"]),
    "2 layers 1x8x8 d=.5": StackSize(2, LINEAR["1x8x8 d=.5"]),
}

_QWEN = "tokens of a micro-batch on Qwen2.5's vocabulary, as in verl's recipes (arXiv:2505.22617)"
TOKENS: dict[str, TokenSize] = {
    "32x151936": TokenSize(32, 151936, _QWEN),
    "512x151936": TokenSize(512, 151936, _QWEN),
    "2048x32000": TokenSize(2048, 32000, "tokens on Llama 2's vocabulary"),
    "4096x128": TokenSize(4096, 128, "bytes of text"),
    "1000000x10": TokenSize(
        1_000_000, 10, "pixels or test images of ten classes (arXiv:2303.00914)"
    ),
}
TOKENS_THREADED = {name: TOKENS[name] for name in ("32x151936", "512x151936", "2048x32000")}
TOKENS_BFLOAT16 = {
    f"{name} bf16": size._replace(dtype=torch.bfloat16) for name, size in TOKENS_THREADED.items()
}

_TABLES = (
    ((128, 1024, 1024), ".2 .1 .05 .02 .01", "unstructured", _MLP),
    ((60, 784, 300), ".2 .1 .05 .02 .01", "unstructured", _LENET),
    ((512, 768, 3072), ".2 .1 .05 .01", "unstructured", _FFN),
    ((8, 4096, 4096), ".2 .1 .05 .01", "unstructured", _ATTENTION),
    ((1, 4096, 4096), ".2 .1 .05 .01", "unstructured", _TOKEN),
    ((128, 1024, 1024), ".2 .1 .05", "rows 16x1", _MLP),
    ((128, 1024, 1024), ".2 .1 .05", "rows 8x1", _MLP),
    ((128, 1024, 1024), ".1", "bsr 16", _MLP),
    ((128, 1024, 1024), ".1", "bsr 32", _MLP),
    ((128, 1024, 1024), ".1", "bsr 64", _MLP),
    ((64, 2048, 2048), ".256", "groups 4", _G2G),
    ((64, 2048, 2048), ".256", "groups 4 interleaved", _G2G),
)


def case_name(shape: str, density: str, structure: str) -> str:
    """``128x1024x1024 d=.1``, with the structure behind it where there is one."""
    return f"{shape} d={density}" + ("" if structure == "unstructured" else f" {structure}")


# For tables (tables.py) alone: asv does not run them.
LINEAR_TABLES: dict[str, LinearSize] = {
    case_name("x".join(map(str, shape)), density, structure): LinearSize(
        *shape, float(density), source, structure
    )
    for shape, densities, structure, source in _TABLES
    for density in densities.split()
}

_SNN = "hidden layer of the networks in snnTorch's and SpikingJelly's tutorials, 100 steps of MNIST"


class ReservoirSize(NamedTuple):
    """A recurrent network of neurons, each with ``in_degree`` synapses, over time."""

    neurons: int
    in_degree: int
    steps: int
    source: str
    batch: int = 1

    @property
    def work(self) -> int:
        """Neurons times steps."""
        return self.neurons * self.steps * self.batch


_IZHIKEVICH = (
    "80 % excitatory neurons with the parameters of E. Izhikevich, IEEE Trans. Neural Networks 14 "
    "(2003), 100 synapses each, as the benchmarks of Brian2 and GeNN have them; .5 ms a step"
)
RESERVOIRS: dict[str, ReservoirSize] = {
    "1000x2000": ReservoirSize(1000, 100, 2000, _IZHIKEVICH),
    "4000x1000": ReservoirSize(4000, 100, 1000, _IZHIKEVICH),
    "20000x400": ReservoirSize(20_000, 100, 400, _IZHIKEVICH),
    "40x20": ReservoirSize(40, 10, 20, _OVERHEAD),
}
RESERVOIRS_THREADED: dict[str, ReservoirSize] = {
    "20000x400": RESERVOIRS["20000x400"],
    "100000x100": ReservoirSize(100_000, 100, 100, _IZHIKEVICH),
    "32x1000x500": ReservoirSize(1000, 100, 500, "a batch of seeds on the same synapses", 32),
    "40x20": RESERVOIRS["40x20"],
}
SEQUENCES: dict[str, SequenceSize] = {
    "100x32x1024": SequenceSize(100, 32, 1024, _SNN),
    "100x128x1024": SequenceSize(100, 128, 1024, _SNN),
    "100x1x8": SequenceSize(100, 1, 8, _OVERHEAD),
}
SEQUENCES_THREADED = {name: SEQUENCES[name] for name in ("100x32x1024", "100x128x1024", "100x1x8")}

_PARITY = "N-parity networks of S. Khajehabdollahi et al., arXiv:2309.12927"
RATE_NETWORKS: dict[str, SequenceSize] = {
    "20x256x500": SequenceSize(20, 256, 500, f"{_PARITY}: a training step"),
    "400x10x500": SequenceSize(400, 10, 500, f"{_PARITY}: autocorrelations of 10 trials"),
    "20x1x8": SequenceSize(20, 1, 8, _OVERHEAD),
}
RATE_NETWORKS_THREADED = {
    name: RATE_NETWORKS[name] for name in ("20x256x500", "400x10x500", "20x1x8")
}


class RecurrentSize(NamedTuple):
    """Neurons over time that hear one another."""

    steps: int
    batch: int
    neurons: int
    source: str
    surrogate: str = "fast_sigmoid"
    density: float = 1.0  # of the recurrent weight; 1: dense

    @property
    def shape(self) -> tuple[int, int, int]:
        """Time first."""
        return self.steps, self.batch, self.neurons

    @property
    def work(self) -> int:
        """Multiply-adds of the dense products."""
        return self.steps * self.batch * self.neurons**2


_RSNN = "recurrent layer of a spiking network, 100 steps, 3 to 5 % of the neurons firing in each"
RECURRENT: dict[str, RecurrentSize] = {
    "100x32x1024": RecurrentSize(100, 32, 1024, _RSNN),
    "100x128x1024": RecurrentSize(100, 128, 1024, _RSNN),
    "100x32x1024 triangle": RecurrentSize(100, 32, 1024, _RSNN, "triangle"),
    "100x128x1024 triangle": RecurrentSize(100, 128, 1024, _RSNN, "triangle"),
    "100x32x1024 d=.1": RecurrentSize(100, 32, 1024, _RSNN, density=0.1),
    "100x1x8": RecurrentSize(100, 1, 8, _OVERHEAD),
}
RECURRENT_THREADED = {name: RECURRENT[name] for name in ("100x32x1024", "100x128x1024", "100x1x8")}


class FastWeightSize(NamedTuple):
    """Heads of fast weights over time."""

    batch: int
    heads: int
    steps: int
    keys: int
    values: int
    source: str
    gated: bool = False  # with a decay for each step

    @property
    def work(self) -> int:
        """Multiply-adds of a pass over the weights."""
        return self.batch * self.heads * self.steps * self.keys * self.values


_FWP = "linear transformer, arXiv:2102.11174 and 2406.06484"
FAST_WEIGHTS: dict[str, FastWeightSize] = {
    "8x1024x64": FastWeightSize(1, 8, 1024, 64, 64, f"{_FWP}: heads of 64"),
    "8x1024x128": FastWeightSize(1, 8, 1024, 128, 128, f"{_FWP}: heads of 128"),
    "8x1024x64 gated": FastWeightSize(1, 8, 1024, 64, 64, "gated, arXiv:2412.06464", True),
    "1x4096x64": FastWeightSize(1, 1, 4096, 64, 64, "one head, a long sequence"),
    "1x8x4": FastWeightSize(1, 1, 8, 4, 4, _OVERHEAD),
}
