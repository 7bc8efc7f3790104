"""Puts new layers into a model: all of them, or none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ..nn import SparseLinear
from ._find import Layer

# nn.TransformerEncoder(Layer) in eval() takes the weights of its layers and calls a fused dense
# kernel. Without these it calls the layers, as it does in training and as long as one has hooks.
_FUSED: tuple[tuple[type[nn.Module], str, Any], ...] = (
    (nn.TransformerEncoderLayer, "activation_relu_or_gelu", 0),
    (nn.TransformerEncoder, "use_nested_tensor", False),
)


def swap(model: nn.Module, new: list[tuple[Layer, nn.Module]], check: Callable[[], object]) -> None:
    """Registers every new module wherever the old one was, then calls ``check``.

    If anything raises, the model is again what it was.
    """
    undo: list[tuple[dict[str, Any], str, Any]] = []

    def put(names: dict[str, Any], key: str, value: Any) -> None:
        undo.append((names, key, names[key]))
        names[key] = value

    try:
        for layer, module in new:
            _keep_attributes(layer.module, module)
            for parent, key in layer.places:
                put(parent._modules, key, module)
        for module in model.modules():
            for kind, name, off in _FUSED:
                if isinstance(module, kind) and vars(module).get(name) and _has_sparse(module):
                    put(vars(module), name, off)
        check()
    except BaseException:
        for names, key, value in reversed(undo):
            names[key] = value
        raise


def _keep_attributes(old: nn.Module, new: nn.Module) -> None:
    """What the user has set on the old module; prune leaves weight and bias there as well."""
    for name, value in vars(old).items():
        if name not in ("weight", "bias"):
            vars(new).setdefault(name, value)


def _has_sparse(module: nn.Module) -> bool:
    return any(isinstance(m, SparseLinear) for m in module.modules())
