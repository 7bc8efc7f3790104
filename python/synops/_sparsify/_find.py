"""Which layers of a model can take another form, and why the others cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize, prune

from .._check import FLOATS, dtype_name
from ..nn import SparseLinear
from ..nn._pruned import Masked, masked

Skip = Callable[[list[str], nn.Module], bool]  # of all names that a module has

_HOOKS = (
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"),
    *("_state_dict_hooks", "_state_dict_pre_hooks"),
    *("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"),
)
# What prune and parametrize leave on a linear layer, on top of weight and bias.
_OWN = (
    "weight",
    "bias",
    "weight_orig",
    "bias_orig",
    "weight_mask",
    "bias_mask",
    "parametrizations",
)


@dataclass
class Layer:
    """A module that is called linear, or that is pruned.

    Attributes:
        names: all that it has in ``named_modules``.
        places: every (parent, key) where it is registered.
        obstacle: why it stays as it is; "" for a layer that can take another form.
        pruned: weight and mask, if there is a mask rather than zeros in the weight.
        density: kept fraction of the weight, where known.
    """

    names: list[str]
    module: nn.Module
    places: list[tuple[nn.Module, str]]
    obstacle: str = ""
    pruned: Masked | None = None
    density: float | None = None

    @property
    def linear(self) -> nn.Linear:
        """The module of a layer without an obstacle."""
        assert isinstance(self.module, nn.Linear)
        return self.module

    @property
    def weight(self) -> Tensor:
        """The Parameter that is trained."""
        weight = self.module.weight if self.pruned is None else self.pruned.original
        assert isinstance(weight, Tensor)
        return weight

    @property
    def shape(self) -> tuple[int, int] | None:
        """(out, in), where known."""
        out, into = (getattr(self.module, f"{side}_features", None) for side in ("out", "in"))
        return (out, into) if isinstance(out, int) and isinstance(into, int) else None


def find(model: nn.Module, skip: Skip, training: bool) -> list[Layer]:
    """Every linear or pruned layer of the model, in the order of ``named_modules``."""
    places: dict[nn.Module, list[tuple[nn.Module, str]]] = {}
    for parent in model.modules():
        for key, child in parent._modules.items():
            if child is not None:
                places.setdefault(child, []).append((parent, key))
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    owners = _owners(model)
    layers = []
    for module in model.modules():
        called_linear = isinstance(module, nn.Linear) or type(module).__name__.endswith("Linear")
        if not (called_linear or _is_pruned(module)):
            continue
        layer = Layer(names[module], module, places.get(module, []), _unreadable(module))
        if isinstance(module, SparseLinear):
            layer.density = module.pattern.density
        elif not layer.obstacle:
            layer.pruned = masked(module, "weight")
            kept = layer.weight != 0 if layer.pruned is None else layer.pruned.mask
            layer.density = int(kept.count_nonzero()) / max(1, kept.numel())
            skipped = skip(layer.names, module)
            layer.obstacle = "skipped" if skipped else _obstacle(layer, owners, training)
        layers.append(layer)
    return layers


def _is_pruned(module: nn.Module) -> bool:
    """Any of its tensors."""
    if parametrize.is_parametrized(module):
        names = module.parametrizations.keys()  # type: ignore[union-attr, operator]
        return any(masked(module, name) is not None for name in names)
    hooks = module._forward_pre_hooks.values()
    return any(isinstance(hook, prune.BasePruningMethod) for hook in hooks)


def _unreadable(module: nn.Module) -> str:
    """Why the weight cannot be looked at, or "".

    A parametrized weight is not computed here unless by a mask: spectral_norm changes at each look.
    """
    if isinstance(module, SparseLinear):
        return "already sparse"
    if isinstance(module._parameters.get("weight"), UninitializedParameter):
        return "lazy: run the model once first"
    for name in ("weight", "bias"):
        if parametrize.is_parametrized(module, name) and masked(module, name) is None:
            chain = module.parametrizations[name]  # type: ignore[index]
            return f"its {name} is parametrized by {', '.join(_kind(m) for m in chain)}"
    found = masked(module, "weight")
    weight = getattr(module, "weight", None) if found is None else found.original
    if not isinstance(weight, Tensor):
        return f"{_kind(module)}, not nn.Linear"
    if type(weight) not in (Tensor, nn.Parameter):
        return f"its weight is a {type(weight).__name__}, not a plain tensor"
    if weight.is_meta:
        return "on the meta device"
    if weight.layout is not torch.strided:
        return f"its weight has the layout {weight.layout}"
    if weight.dtype not in FLOATS:
        return f"its weight is {dtype_name(weight.dtype)}"
    return ""


def _obstacle(layer: Layer, owners: dict[int, list[tuple[nn.Module, str]]], training: bool) -> str:
    """Why a layer that another would stand in for must stay, or ""."""
    module = layer.module
    kind = parametrize.type_before_parametrizations(module)
    if not isinstance(module, nn.Linear):
        return f"{_kind(module)}, not nn.Linear"
    if kind is not nn.Linear:  # nn.MultiheadAttention reads the weight of its own, for one
        return f"{kind.__name__}, which may do more than nn.Linear"
    if "forward" in vars(module) or getattr(module, "_compiled_call_impl", None) is not None:
        return "its forward was replaced or compiled"
    if any(type(parent).__name__ == "OptimizedModule" for parent, _ in layer.places):
        return "compiled by itself: convert it first"
    hooks = _hooks(module)
    if hooks:
        return f"has a hook ({hooks[0]}), which a new layer would lose"
    more = [n for n in (*module._parameters, *module._buffers, *module._modules) if n not in _OWN]
    if more:
        return f"has more than a weight and a bias ({more[0]})"
    if layer.weight.numel() == 0:
        return "empty"
    if training and masked(module, "bias") is not None:
        return "its bias is pruned, too, and would grow again in training"
    return _tie(layer, owners)


def _hooks(module: nn.Module) -> list[str]:
    """Names of the hooks that are not prune's, on the module and on its parameters."""
    hooks = [hook for kind in _HOOKS for hook in getattr(module, kind, {}).values()]
    for parameter in module.parameters():
        for kind in ("_backward_hooks", "_post_accumulate_grad_hooks"):
            hooks += (getattr(parameter, kind, None) or {}).values()
    hooks = [getattr(h, "hook", h) for h in hooks if not isinstance(h, prune.BasePruningMethod)]
    return [getattr(hook, "__name__", type(hook).__name__) for hook in hooks]


def _identity(tensor: Tensor) -> int:
    """Equal for tensors that begin at the same memory."""
    plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided
    return (tensor.data_ptr() if plain else 0) or id(tensor)


def _owners(model: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """Which modules hold a parameter, and under what name."""
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    for prefix, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                full = f"{prefix}.{name}" if prefix else name
                owners.setdefault(_identity(parameter), []).append((module, full))
    return owners


def _tie(layer: Layer, owners: dict[int, list[tuple[nn.Module, str]]]) -> str:
    """A copy of a tied parameter would be trained by itself, and memory would be lost, not won."""
    own = set(layer.module.modules())
    for parameter in layer.module.parameters():
        for module, name in owners[_identity(parameter)]:
            if module not in own:
                return f"tied with {name}"
    return ""


def _kind(module: nn.Module) -> str:
    """The name of its class; in full where it is called Linear and is not torch's."""
    kind = parametrize.type_before_parametrizations(module)
    return f"{kind.__module__}.Linear" if kind.__name__ == "Linear" else kind.__name__
