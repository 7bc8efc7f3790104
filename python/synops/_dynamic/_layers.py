"""The layers of a model whose edges move, and what an optimizer knows of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .._check import fail
from .._sparsify import WRAPPERS
from .._sparsify._find import Layer, find
from .._sparsify._swap import swap
from ..nn import SparseLinear
from ..sparse import Pattern, Rewired, grow_topk

Optimizer = torch.optim.Optimizer


class Slot:
    """One sparse layer and its state in the optimizer."""

    def __init__(self, name: str, layer: SparseLinear, optimizer: Optimizer):
        self.name, self.layer, self._optimizer = name, layer, optimizer

    @property
    def size(self) -> int:
        """Entries of the dense weight."""
        return self.layer.out_features * self.layer.in_features

    @property
    def values(self) -> Tensor:
        """Those of edges, without the room behind them."""
        return self.layer.values.detach()[: self.layer.col.shape[0]]

    def state(self) -> dict[str, Tensor]:
        """What the optimizer keeps for each value: momentum, moments."""
        state = self._optimizer.state.get(self.layer.values, {})
        return {key: v for key, v in state.items() if _like(v, self.layer.values)}

    def rewire(self, new: Rewired) -> None:
        """Takes over a result of prune_and_grow whose state came in the order of ``state``.

        The gradient is of the edges that were, so it goes.
        """
        for own, carried in zip(self.state().values(), new.state, strict=True):
            own.copy_(carried)
        self.layer.rewire_(new)

    def compact(self) -> None:
        """Gives up the room behind the edges."""
        count = self.values.shape[0]
        state = self._optimizer.state.get(self.layer.values, {})
        state.update({k: v[:count].clone() for k, v in self.state().items()})
        self.layer.compact_()


def sparse_layers(
    op: str,
    model: nn.Module,
    optimizer: Optimizer,
    names: Iterable[str] | None,
    densities: Callable[[dict[str, tuple[int, int]]], dict[str, float]],
    generator: torch.Generator,
) -> tuple[list[Slot], dict[str, str]]:
    """The layers to take part, made sparse where they are dense; and why others do not."""
    if not isinstance(model, nn.Module):
        fail(TypeError, op, "model", "be an nn.Module", type(model).__name__)
    if not isinstance(optimizer, Optimizer):
        fail(TypeError, op, "optimizer", "be a torch optimizer", type(optimizer).__name__)
    chosen, skipped = _choose(op, model, names)
    if not chosen:
        fail(ValueError, op, "model", "have a linear layer that can be sparse", skipped or "none")
    _check_known(op, chosen, optimizer)
    dense = [layer for layer in chosen if not isinstance(layer.module, SparseLinear)]
    if dense and type(model).__name__ in WRAPPERS:
        rule = "be given before it is wrapped, for its Parameters change"
        fail(ValueError, op, "model", rule, type(model).__name__)
    shapes = {layer.names[0]: (layer.weight.shape[0], layer.weight.shape[1]) for layer in dense}
    new: list[tuple[Layer, nn.Module]] = []
    for layer, density in zip(dense, densities(shapes).values(), strict=True):
        mask = _random_mask(shapes[layer.names[0]], density, generator)
        sparse = SparseLinear.from_linear(layer.linear, mask.to(layer.weight.device))
        sparse.bias = layer.linear.bias  # the very Parameter
        new.append((layer, sparse))
    swap(model, new, lambda: _tell(optimizer, new))
    modules: dict[str, Any] = dict(model.named_modules())
    return [Slot(layer.names[0], modules[layer.names[0]], optimizer) for layer in chosen], skipped


def _choose(
    op: str, model: nn.Module, names: Iterable[str] | None
) -> tuple[list[Layer], dict[str, str]]:
    """Those of ``names``, or all that can; and why others cannot."""
    found = {layer.names[0]: layer for layer in find(model, lambda names, module: False, True)}
    keys = {name: key for key, layer in found.items() for name in layer.names}
    for name, layer in found.items():
        if isinstance(layer.module, SparseLinear):
            layer.obstacle = ""
        elif not layer.obstacle and layer.pruned is not None:
            layer.obstacle = "pruned: sparsify_ it first"
        if name == "" and not isinstance(layer.module, SparseLinear):
            fail(ValueError, op, "model", "hold its layers", "a layer (put it in an nn.Sequential)")
    if names is None:
        chosen = [layer for layer in found.values() if not layer.obstacle]
        return chosen, {name: layer.obstacle for name, layer in found.items() if layer.obstacle}
    if isinstance(names, str):
        fail(TypeError, op, "layers", "be several names", repr(names))
    wanted = list(names)
    for name in wanted:
        if name not in keys:
            fail(ValueError, op, "layers", "be names of linear layers of the model", repr(name))
        if found[keys[name]].obstacle:
            rule = f"be layers that can be sparse ({name}: {found[keys[name]].obstacle})"
            fail(ValueError, op, "layers", rule, wanted)
    return [found[key] for key in dict.fromkeys(keys[name] for name in wanted)], {}


def _check_known(op: str, layers: Iterable[Layer], optimizer: Optimizer) -> None:
    """The optimizer trains the weight of every layer."""
    known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for layer in layers:
        module = layer.module
        weight = module.values if isinstance(module, SparseLinear) else module.weight
        if id(weight) not in known:
            rule = f"train the weight of {layer.names[0]!r}"
            fail(ValueError, op, "optimizer", rule, "one that does not know it")


def _random_mask(shape: tuple[int, int], density: float, generator: torch.Generator) -> Tensor:
    """``round(density * out * in)`` True entries, drawn uniformly."""
    mask = torch.zeros(shape, dtype=torch.bool, device="cpu")
    count = round(density * mask.numel())
    none = Pattern.from_mask(mask)
    edges = grow_topk(None, None, none, count, "random", generator=generator).edges
    mask.view(-1)[edges] = True
    return mask


def _tell(optimizer: Optimizer, new: list[tuple[Layer, Any]]) -> None:
    """Gives the optimizer the new Parameters, with the state of the old ones."""
    by_id = {id(layer.weight): (layer.weight, sparse) for layer, sparse in new}
    for group in optimizer.param_groups:
        # in place: others hold the list
        group["params"][:] = [
            by_id[id(p)][1].values if id(p) in by_id else p for p in group["params"]
        ]
    for weight, sparse in by_id.values():
        if weight in optimizer.state:
            optimizer.state[sparse.values] = {
                key: sparse.pattern.gather(v) if _like(v, weight) else v
                for key, v in optimizer.state.pop(weight).items()
            }


def _like(value: Any, weight: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == weight.shape
