"""chain_: sparse layers in a row hand their activations on without transposes in between."""

from __future__ import annotations

from collections import Counter

from torch import nn

from .._check import fail
from ._sparse_linear import SparseLinear

# Modules that work element by element and leave the layout in memory as it is.
_ELEMENTWISE = (
    nn.ReLU,
    nn.GELU,
    nn.Identity,
    nn.Dropout,
    nn.Tanh,
    nn.Sigmoid,
    nn.SiLU,
    nn.ELU,
    nn.LeakyReLU,
    nn.Softplus,
    nn.Hardtanh,
    nn.ReLU6,
    nn.Mish,
)


def chain_(model: nn.Module) -> nn.Module:
    """Makes the sparse layers of every ``nn.Sequential`` in ``model`` work as chains, in place.

    A :class:`SparseLinear` computes feature-major (``(features, batch)`` in memory) and so turns
    its input at the start and its output at the end. Where another one follows, with nothing but
    elementwise modules between, both turns are left out; and a ReLU or GELU right behind a layer
    becomes part of it (its place in the Sequential is taken by an ``nn.Identity``, so that
    state_dict keys stay). Results are the same up to rounding, shapes are the same; only strides
    of what lies between differ.

    Args:
        model: an ``nn.Sequential``, or a module that holds some.

    Returns:
        ``model``.

    Raises:
        TypeError: not an ``nn.Module``.

    Elsewhere than in an ``nn.Sequential``, set ``layer.feature_major = True`` on a layer whose
    result goes to another sparse layer through elementwise functions.

    Speed: four layers 1024 x 1024 of density .01 at 128 rows, without gradients: see
    ``python -m synops bench sparse``.
    """
    if not isinstance(model, nn.Module):
        fail(TypeError, "chain_", "model", "be an nn.Module", type(model).__name__)
    places = Counter(id(m) for _, m in model.named_modules(remove_duplicate=False))
    for module in model.modules():
        # one with a forward of its own may do anything with its layers
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            _chain(module, places)
    return model


def _chain(stack: nn.Sequential, places: Counter[int]) -> None:
    layers = list(stack)
    for i, layer in enumerate(layers):
        if not isinstance(layer, SparseLinear):
            continue
        after = next((m for m in layers[i + 1 :] if not isinstance(m, _ELEMENTWISE)), None)
        if isinstance(after, SparseLinear):
            layer.feature_major = True
        if layer.activation is None and i + 1 < len(layers):
            name = _activation(layers[i + 1])
            if name is not None and places[id(layer)] == 1 and not _hooked(layer):
                layer.activation = name
                stack[i + 1] = nn.Identity()


def _hooked(module: nn.Module) -> bool:
    """Whether somebody looks at what comes out, or changes what goes in."""
    return any(
        (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
        )
    )


def _activation(module: nn.Module) -> str | None:
    """What a layer can take over from the module behind it."""
    if _hooked(module):
        return None
    if type(module) is nn.ReLU:
        return "relu"
    if type(module) is nn.GELU and module.approximate == "none":
        return "gelu"
    return None
