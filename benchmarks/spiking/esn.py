"""esn: a leaky reservoir over a sequence, against loops over time with a compressed weight."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..common import suite
from ..common.call import Call
from ..common.public import public

LEAK = 0.3


class ReservoirSize(NamedTuple):
    """Units of a reservoir, and sequences through it."""

    steps: int
    batch: int
    units: int
    density: float
    source: str
    rows: int = 1  # with equal columns, side by side

    @property
    def work(self) -> int:
        """Multiply-adds."""
        return int(self.steps * self.batch * self.units**2 * self.density)


_RESERVOIR = "1000 units at density .1, as in reservoirpy's examples"
_SPARSE = "ten connections a unit, as H. Jaeger advises for large reservoirs"
_SIZES: dict[str, ReservoirSize] = {
    "200x1x1000 d=.1": ReservoirSize(200, 1, 1000, 0.1, _RESERVOIR),
    "50x32x1000 d=.1": ReservoirSize(50, 32, 1000, 0.1, _RESERVOIR),
    "500x1x1000 d=.01": ReservoirSize(500, 1, 1000, 0.01, _SPARSE),
    "50x32x1000 d=.01": ReservoirSize(50, 32, 1000, 0.01, _SPARSE),
    "100x1x5000 d=.01": ReservoirSize(100, 1, 5000, 0.01, "a large one"),
    "20x32x5000 d=.01": ReservoirSize(20, 32, 5000, 0.01, "a large one"),
    "500x1x1008 d=.1 rows 16x1": ReservoirSize(500, 1, 1008, 0.1, _RESERVOIR, 16),
    "5x1x16 d=.5": ReservoirSize(5, 1, 16, 0.5, "the cost of a call"),
}
_THREADED = {name: _SIZES[name] for name in ("50x32x1000 d=.1", "20x32x5000 d=.01", "5x1x16 d=.5")}


class Weights(NamedTuple):
    """A reservoir with one input and its sequences, (T, B, 1)."""

    pattern: Any
    values: Tensor
    input_weight: Tensor
    bias: Tensor
    input: Tensor

    @classmethod
    def draw(cls, size: ReservoirSize, dtype: torch.dtype, device: str) -> Weights:
        pattern_type = public("sparse.Pattern")
        generator = torch.Generator().manual_seed(0)
        random = lambda *shape: torch.randn(shape, generator=generator).to(device, dtype)  # noqa: E731
        kept = torch.rand(size.units // size.rows, size.units, generator=generator) < size.density
        pattern = pattern_type.from_blocks(kept, (size.rows, 1)).to(device)
        return cls(
            pattern,
            random(pattern.nnz) * 0.9 * (size.units * size.density) ** -0.5,  # spectral radius .9
            random(size.units, 1),
            random(size.units) * 0.1,
            random(size.steps, size.batch, 1),
        )


def torch_csr(w: Weights) -> Any:
    """A product with a CSR weight a step (MKL), the rest in place."""
    n = w.pattern.shape[0]
    with warnings.catch_warnings():  # of sparse CSR being in beta
        warnings.simplefilter("ignore")
        weight = torch.sparse_csr_tensor(w.pattern.crow, w.pattern.col, w.values, (n, n))

    def run() -> Tensor:
        drive = w.input @ w.input_weight.t() + w.bias
        if w.input.shape[1] == 1:
            drive = drive[:, 0]
        else:
            drive = drive.transpose(1, 2).contiguous()  # units first, as the product has them
        states, x = torch.empty_like(drive), torch.zeros_like(drive[0])
        for u, out in zip(drive.unbind(0), states.unbind(0), strict=True):
            y = (weight @ x).add_(u).tanh_()
            x = torch.lerp(x, y, LEAK, out=out)
        return states.unsqueeze(1) if states.dim() == 2 else states.transpose(1, 2)

    return run


def scipy_csr(w: Weights) -> Any:
    """The same with scipy and numpy."""
    try:
        import numpy as np
        from scipy.sparse import csr_matrix
    except ImportError:
        raise NotImplementedError("scipy is not installed") from None
    n = w.pattern.shape[0]
    weight = csr_matrix((w.values.numpy(), w.pattern.col.numpy(), w.pattern.crow.numpy()), (n, n))

    def run() -> Tensor:
        drive = (w.input @ w.input_weight.t() + w.bias).transpose(1, 2).contiguous().numpy()
        drive = drive[..., 0] if w.input.shape[1] == 1 else drive
        states, x = np.empty_like(drive), np.zeros_like(drive[0])
        leak = drive.dtype.type(LEAK)
        for u, out in zip(drive, states, strict=True):
            y = weight @ x
            y += u
            np.tanh(y, out=y)
            y -= x
            y *= leak
            x = np.add(x, y, out=out)
        found = torch.from_numpy(states)
        return found.unsqueeze(1) if found.dim() == 2 else found.transpose(1, 2)

    return run


def reservoirpy(w: Weights) -> Any:
    """reservoirpy's node, one sequence after another: it has no batch."""
    try:
        from reservoirpy.nodes import Reservoir
        from scipy.sparse import csr_matrix
    except ImportError:
        raise NotImplementedError("reservoirpy is not installed") from None
    n = w.pattern.shape[0]
    weight = csr_matrix((w.values.numpy(), w.pattern.col.numpy(), w.pattern.crow.numpy()), (n, n))
    inner = {"W": weight, "Win": w.input_weight.numpy(), "bias": w.bias.numpy()}
    node = Reservoir(lr=LEAK, dtype=w.values.numpy().dtype.type, **inner)
    sequences = [u.numpy() for u in w.input.unbind(1)]

    def run() -> Tensor:
        found = []
        for u in sequences:
            if node.initialized:
                node.reset()
            found.append(torch.from_numpy(node.run(u)))
        return torch.stack(found, 1)

    return run


def build(impl: str, size: ReservoirSize, dtype: torch.dtype, device: str) -> Call:
    """States of every step, by

    - synops;
    - torch: a loop with a CSR weight;
    - scipy: the same with scipy and numpy, where it is installed;
    - reservoirpy: its Reservoir with the same weights, where it is installed.
    """
    w = Weights.draw(size, dtype, device)
    if impl == "synops":
        esn = public("spiking.esn")
        options = {"input_weight": w.input_weight, "bias": w.bias, "leak": LEAK}
        u = w.input[:, 0] if size.batch == 1 else w.input
        return Call(
            lambda: esn(u, w.values, w.pattern, **options).states,
            (),
            outputs=lambda s: (s.reshape(size.steps, size.batch, size.units),),
        )
    if impl == "torch":
        return Call(torch_csr(w), ())
    if impl == "scipy":
        return Call(scipy_csr(w), ())
    if impl == "reservoirpy":
        return Call(reservoirpy(w), ())
    raise ValueError(impl)


class ESN(suite.ForwardSuite):
    """On one thread."""

    op = "spiking.esn"
    impls = ("synops", "torch", "scipy", "reservoirpy")
    cases = _SIZES

    def build(
        self,
        impl: str,
        size: ReservoirSize,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> Call:
        return build(impl, size, dtype, device)


class ESN2Threads(ESN):
    """Where there is enough work to share."""

    cases = _THREADED
    threads = 2
