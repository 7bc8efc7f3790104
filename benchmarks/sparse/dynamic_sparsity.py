"""A step of sparse training, optimizer included, against dense weights that are masked after it."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from ..common import suite
from ..common.call import Call, Tensors
from ..common.public import public
from ..common.sizes import LinearSize


class Training(NamedTuple):
    """A network whose layers share a density, and so many steps with an update of edges at the
    last; 0: of one step, without an update."""

    batch: int
    widths: tuple[int, ...]
    density: float
    interval: int
    source: str

    @property
    def work(self) -> int:
        """Multiply-adds of the dense products, forward."""
        return self.batch * max(1, self.interval) * sum(a * b for a, b in pairwise(self.widths))


_LENET = (784, 300, 100, 10)
_WIDE = (784, 2048, 2048, 10)
_SOURCE = (
    "LeNet-300-100, and a network with 2048 hidden units, at a tenth of the weights, shared by ERK "
    "(arXiv:1911.11134); SGD with Nesterov's momentum, as in GraNet's code (arXiv:2106.10404)"
)
_SIZES = {
    "128x784-300-100-10 d=.1": Training(128, _LENET, 0.1, 0, _SOURCE),
    "128x784-2048-2048-10 d=.1": Training(128, _WIDE, 0.1, 0, _SOURCE),
    "100 steps 128x784-300-100-10 d=.1 rigl": Training(128, _LENET, 0.1, 100, _SOURCE),
    "100 steps 128x784-2048-2048-10 d=.1 rigl": Training(128, _WIDE, 0.1, 100, _SOURCE),
    "2 steps 8x16-16-4 d=.5 rigl": Training(8, (16, 16, 4), 0.5, 2, "the cost of calls"),
}
_DENSITIES = (".2", ".1", ".05", ".01")
_RATE, _NEVER = 0.3, 10**7


class Masked(nn.Linear):
    """A dense weight times a mask, in every forward."""

    mask: Tensor

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight * self.mask, self.bias)


def _dense(size: Training) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(*shape) for shape in pairwise(size.widths)]
    return nn.Sequential(*[m for layer in layers for m in (layer, nn.ReLU())][:-1])


def _layers(network: nn.Sequential) -> list[Any]:
    return list(network)[::2]


def _sgd(network: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True)


class Sparse:
    """SparseLinear layers, and DynamicSparsity behind each step."""

    def __init__(self, size: Training):
        self.network = _dense(size)
        self.optimizer = _sgd(self.network)
        self._sparsity = public("nn.DynamicSparsity")(
            self.network,
            self.optimizer,
            "rigl" if size.interval else "static",
            density=size.density,
            total_steps=_NEVER,
            interval=max(1, size.interval),
            prune_rate=_RATE,
            generator=torch.Generator().manual_seed(0),
        )

    def to(self, dtype: torch.dtype, device: str) -> None:
        self.network.to(device, dtype)

    def after_step(self) -> None:
        self._sparsity.step()

    def weights(self) -> Tensors:
        return tuple(m.pattern.scatter(m.values.detach()) for m in _layers(self.network))


class MaskedDense:
    """Dense layers under the masks of the sparse network."""

    def __init__(self, impl: str, size: Training):
        self.network = _dense(size)
        self._layers = _layers(self.network)
        self._masks = [m.pattern.mask().float() for m in _layers(Sparse(size).network)]
        self._impl, self._interval, self._steps = impl, size.interval, 0
        for layer, mask in zip(self._layers, self._masks, strict=True):
            layer.weight.data *= mask
            if impl == "masked":
                layer.__class__, layer.mask = Masked, mask
        self.optimizer = _sgd(self.network)

    def to(self, dtype: torch.dtype, device: str) -> None:
        self.network.to(device, dtype)
        self._masks = [mask.to(device, dtype) for mask in self._masks]

    @torch.no_grad()
    def after_step(self) -> None:
        self._steps += 1
        if self._impl == "masked":
            return
        for layer, mask in zip(self._layers, self._masks, strict=True):
            layer.weight.mul_(mask)
            if self._impl == "torch":
                self._momentum(layer).mul_(mask)
        if self._interval and self._steps % self._interval == 0:
            self._update()

    def _momentum(self, layer: nn.Linear) -> Tensor:
        return self.optimizer.state[layer.weight]["momentum_buffer"]

    def _update(self) -> None:
        """RigL's, by topk: in each layer the smallest go, those with the largest gradient come."""
        rate = _RATE * (1 + math.cos(math.pi * self._steps / int(0.75 * _NEVER))) / 2
        for layer, mask in zip(self._layers, self._masks, strict=True):
            edges = int(mask.sum())
            if edges == mask.numel():
                continue
            self._momentum(layer).mul_(mask)  # a new edge begins without
            sizes = layer.weight.abs().masked_fill_(mask == 0, torch.inf).view(-1)
            least = sizes.topk(int(rate * edges), largest=False, sorted=False).indices
            mask.view(-1)[least] = 0
            scores = layer.weight.grad.abs().masked_fill_(mask > 0, -1).view(-1)
            mask.view(-1)[scores.topk(len(least), sorted=False).indices] = 1
            layer.weight.mul_(mask)
            self._momentum(layer).mul_(mask)

    def weights(self) -> Tensors:
        pairs = zip(self._layers, self._masks, strict=True)
        return tuple(layer.weight.detach() * mask for layer, mask in pairs)


def _steps(form: Any, size: Training, dtype: torch.dtype, device: str) -> Callable[[], Tensor]:
    """What takes a step on the one batch that there is, and returns the loss."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(size.batch, size.widths[0], generator=generator).to(device, dtype)
    y = torch.randint(size.widths[-1], (size.batch,), generator=generator).to(device)

    def step() -> Tensor:
        form.optimizer.zero_grad()
        loss = cross_entropy(form.network(x), y)
        loss.backward()
        form.optimizer.step()
        form.after_step()
        return loss.detach()

    return step


def build(impl: str, size: Training, dtype: torch.dtype, device: str) -> Call:
    """One of

    - synops: DynamicSparsity, "static" for a step, "rigl" where edges move;
    - torch: dense layers, weights and momentum masked after each step, as in GraNet's code;
    - projected: the weights alone, the least that keeps the network sparse;
    - masked: ``F.linear(x, w * mask)``, what pruning layers do (edges do not move).

    What is compared are the weights after three steps from the beginning, or after the update where
    that comes sooner.
    """
    if impl not in ("synops", "torch", "projected", "masked"):
        raise ValueError(impl)
    if impl == "masked" and size.interval:
        raise NotImplementedError("its edges do not move")

    def made() -> tuple[Any, Callable[[], Tensor]]:
        form: Any = Sparse(size) if impl == "synops" else MaskedDense(impl, size)
        form.to(dtype, device)
        return form, _steps(form, size, dtype, device)

    def first_weights(_: Any) -> Tensors:
        form, step = made()
        for _ in range(min(3, size.interval or 3)):
            step()
        return form.weights()

    _, step = made()

    def steps() -> Tensor:
        for _ in range(max(1, size.interval) - 1):
            step()
        return step()

    return Call(steps, (), outputs=first_weights)


class DynamicSparsity(suite.ForwardSuite):
    """On one thread."""

    op = "sparse.dynamic_sparsity"
    impls = ("synops", "torch", "projected", "masked")
    cases = _SIZES

    def build(
        self, impl: str, size: Training, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        return build(impl, size, dtype, device)


_STATE = "weights, gradients, both moments of Adam and, of a sparse layer, its indices"
_STATES = {f"8x2048x2048 d={d}": LinearSize(8, 2048, 2048, float(d), _STATE) for d in _DENSITIES}


class SparseTrainingState(suite.StateSuite):
    """Bytes for each edge of one layer, at most, in the first step of Adam.

    - synops: SparseLinear: 16 for value, gradient and moments, 12 for the indices, 8 while Adam
      steps, and some by rows and columns;
    - torch: a dense layer with a mask of floats, multiplied in: 32 / density.
    """

    op = "sparse.training_state"
    impls = ("synops", "torch")
    cases = _STATES
    small = LinearSize(8, 64, 64, 0.1, _STATE)

    def entries(self, size: LinearSize) -> int:
        return round(size.density * size.in_features * size.out_features)

    def build(
        self, impl: str, size: LinearSize, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        generator = torch.Generator().manual_seed(0)
        shape = size.out_features, size.in_features
        at = torch.randperm(shape[0] * shape[1], generator=generator)[: self.entries(size)]
        mask = torch.zeros(shape, dtype=torch.bool).view(-1).index_fill_(0, at, True).view(shape)
        linear = nn.Linear(*shape[::-1], bias=False, device=device, dtype=dtype)
        if impl == "synops":
            layer = public("nn.SparseLinear").from_linear(linear, mask.to(device))
        else:
            layer = Masked(*shape[::-1], bias=False, device=device, dtype=dtype)
            layer.register_buffer("mask", mask.to(device, dtype))
        optimizer = torch.optim.Adam(layer.parameters())
        x = torch.randn(size.batch, shape[1], generator=generator).to(device, dtype)

        def step(*_: Tensor) -> None:
            layer(x).square().mean().backward()
            optimizer.step()

        return Call(step, (*layer.parameters(), *layer.buffers()))
