"""ei_reservoir: an adaptive excitatory-inhibitory reservoir, against loops over time."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..common import suite
from ..common.call import Call
from ..common.public import public

GAIN, TARGET, DELTA = 10.0, 0.35, 1e-3


class NetworkSize(NamedTuple):
    """Units, and connections of each from either kind."""

    steps: int
    units: int
    excitatory: int  # units
    from_excitatory: int  # connections
    from_inhibitory: int
    adapts: bool
    source: str

    @property
    def work(self) -> int:
        """Multiply-adds."""
        return self.steps * self.units * (self.from_excitatory + self.from_inhibitory)


_PAPER = "the reservoirs of K. Srinivasan et al., arXiv:2504.12480: degree 50, a fifth inhibitory"
_SIZES: dict[str, NetworkSize] = {
    "400x500 adapting": NetworkSize(400, 500, 400, 40, 10, True, _PAPER),
    "400x500": NetworkSize(400, 500, 400, 40, 10, False, "the same, fixed"),
    "100x2000 adapting": NetworkSize(100, 2000, 1600, 80, 20, True, "a larger one"),
    "4x20 adapting": NetworkSize(4, 20, 16, 4, 2, True, "the cost of a call"),
}


class Network(NamedTuple):
    """Weights, and a sequence (T, 1)."""

    patterns: list[Any]  # excitatory, inhibitory
    values: list[Tensor]
    input_weight: Tensor
    input: Tensor

    @classmethod
    def draw(cls, size: NetworkSize, dtype: torch.dtype, device: str) -> Network:
        pattern_type = public("sparse.Pattern")
        generator = torch.Generator().manual_seed(0)
        n = size.units
        random = lambda *shape: torch.rand(shape, generator=generator).to(device, dtype)  # noqa: E731
        kinds = (size.excitatory, size.from_excitatory), (n - size.excitatory, size.from_inhibitory)
        patterns = [
            pattern_type.from_mask(random(n, units).argsort(1) < k).to(device) for units, k in kinds
        ]
        # sums of 1 from either kind, where all units have the same rate
        values = [
            (0.8 + 0.4 * random(p.nnz)) / k for p, (_, k) in zip(patterns, kinds, strict=True)
        ]
        weight = random(n, 1) * 0.1 * (random(n, 1) < 0.3)
        return cls(patterns, values, weight, random(size.steps, 1) * 2 - 1)


def scipy_csr(w: Network, adapts: bool) -> Any:
    """Two products with CSR weights a step, the inhibition moved in place."""
    try:
        import numpy as np
        from scipy.sparse import csr_matrix
    except ImportError:
        raise NotImplementedError("scipy is not installed") from None
    matrices = [
        csr_matrix((v.numpy().copy(), p.col.numpy(), p.crow.numpy()), p.shape)
        for p, v in zip(w.patterns, w.values, strict=True)
    ]
    excites, inhibits = matrices
    units = excites.shape[1]
    row = np.repeat(np.arange(excites.shape[0]), np.diff(inhibits.indptr))
    kind = w.input.numpy().dtype.type
    gain, target, delta = (kind(number) for number in (GAIN, TARGET, DELTA))
    start = inhibits.data.copy()

    def run() -> tuple[Tensor, Tensor]:
        inhibits.data[:] = start
        drive = (w.input @ w.input_weight.t()).numpy()
        rates, r = np.empty_like(drive), np.zeros_like(drive[0])
        for u, out in zip(drive, rates, strict=True):
            v = excites @ r[:units]
            v -= inhibits @ r[units:]
            v += u
            v *= -gain
            np.exp(v, out=v)
            v += 1
            r = np.reciprocal(v, out=out)
            if adapts:
                inhibits.data += (delta * (r - target))[row]
                np.maximum(inhibits.data, 0, out=inhibits.data)
        return torch.from_numpy(rates), torch.from_numpy(inhibits.data.copy())

    return run


def torch_csr(w: Network, adapts: bool) -> Any:
    """The same with torch, whose CSR weight shares its values with the tensor that is moved."""
    (e, i), (e_values, i_values) = w.patterns, w.values
    units = e.shape[1]
    row = torch.arange(e.shape[0]).repeat_interleave(i.crow.diff().long())
    moved = i_values.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch: CSR is in beta state
        excites = torch.sparse_csr_tensor(e.crow, e.col, e_values, e.shape)
        inhibits = torch.sparse_csr_tensor(i.crow, i.col, moved, i.shape)

    @torch.no_grad()
    def run() -> tuple[Tensor, Tensor]:
        values = inhibits.values()
        values.copy_(i_values)
        drive = w.input @ w.input_weight.t()
        rates, r = torch.empty_like(drive), torch.zeros_like(drive[0])
        for u, out in zip(drive.unbind(0), rates.unbind(0), strict=True):
            v = torch.mv(excites, r[:units]).sub_(torch.mv(inhibits, r[units:])).add_(u)
            r = torch.sigmoid(v.mul_(GAIN), out=out)
            if adapts:
                values.add_((r - TARGET).mul_(DELTA)[row]).clamp_(min=0)
        return rates, values.clone()

    return run


def torch_coo(w: Network, adapts: bool) -> Any:
    """COO weights made anew in each step, as in a public code for the paper."""
    (e, i), (e_values, i_values) = w.patterns, w.values
    units = e.shape[1]

    def index(p: Any) -> Tensor:
        row = torch.arange(p.shape[0]).repeat_interleave(p.crow.diff().long())
        return torch.stack([row, p.col.long()])

    e_index, i_index = index(e), index(i)

    def run() -> tuple[Tensor, Tensor]:
        values = i_values
        drive = w.input @ w.input_weight.t()
        rates, r = [], torch.zeros_like(drive[0])
        for u in drive:
            excites = torch.sparse_coo_tensor(e_index, e_values, e.shape).coalesce()
            inhibits = torch.sparse_coo_tensor(i_index, values, i.shape).coalesce()
            v = torch.sparse.mm(excites, r[:units, None]) - torch.sparse.mm(
                inhibits, r[units:, None]
            )
            r = torch.sigmoid(GAIN * (v[:, 0] + u))
            if adapts:
                values = (values + (DELTA * (r - TARGET))[i_index[0]]).clamp(min=0)
            rates.append(r)
        return torch.stack(rates), values

    return run


def build(impl: str, size: NetworkSize, dtype: torch.dtype, device: str) -> Call:
    """Rates of every step and the inhibition in the end, by

    - synops;
    - torch: a loop with CSR weights;
    - scipy: the same with scipy and numpy, where it is installed;
    - coo: torch with COO weights made in each step.
    """
    w = Network.draw(size, dtype, device)
    if impl == "synops":
        run = public("spiking.ei_reservoir")
        (e, i), (e_values, i_values) = w.patterns, w.values
        rule = {"target": TARGET, "delta": DELTA} if size.adapts else {}
        options = {"input_weight": w.input_weight, "gain": GAIN, **rule}
        return Call(
            lambda: run(w.input, e_values, e, i_values, i, **options),
            (),
            outputs=lambda o: (o.rates, o.inhibitory if size.adapts else i_values),
        )
    others = {"torch": torch_csr, "scipy": scipy_csr, "coo": torch_coo}
    return Call(others[impl](w, size.adapts), (), outputs=tuple)


class EIReservoir(suite.ForwardSuite):
    """On one thread."""

    op = "spiking.ei_reservoir"
    impls = ("synops", "torch", "scipy", "coo")
    cases = _SIZES

    def build(
        self,
        impl: str,
        size: NetworkSize,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> Call:
        return build(impl, size, dtype, device)
