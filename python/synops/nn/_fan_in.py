"""rescale_fan_in_: initial values of sparse layers for the inputs that a row has left."""

from __future__ import annotations

import torch
from torch import nn

from .._check import fail
from ._sparse_linear import SparseLinear

_OP = "rescale_fan_in_"


def rescale_fan_in_(module: nn.Module) -> nn.Module:
    r"""Gives every unit of sparse layers the variance that it has in the dense layer, in place.

    Call it once, on values as they were drawn: right after the construction of the layers, or on
    what ``from_linear`` took from a layer that is not trained.

    Every row of a :class:`SparseLinear` is multiplied by a factor of its own,

    .. math:: W_{ij} \leftarrow W_{ij} \sqrt{\mathit{in\_features} / n_i},

    with :math:`n_i` the entries of row i in the pattern. A dense unit sums ``in_features``
    products, so an input of variance 1 gives it the variance ``in_features`` times that of a
    weight; with n_i of these weights it has n_i / in_features of this. At density .01 that is a
    tenth of the standard deviation, in every layer once more: signals and gradients vanish with
    the depth. The factor undoes it for each unit, however the entries are spread over the rows.
    On the values of a ``SparseLinear``, which are those of ``nn.Linear``, it is the initialisation
    by the fan-in that is left, drawn from the same numbers.

    As a torch expression, with ``mask = layer.pattern.mask()``:
    ``weight * (in_features / mask.sum(1, keepdim=True)).sqrt()``.

    Rows without entries, biases and values behind ``nnz`` stay. The factor is computed in float32
    (float64 for float64) and the product rounded once. A layer, or values, at several places are
    scaled once.

    Args:
        module: a :class:`SparseLinear`, or a module that holds some. Dense layers in it stay.

    Returns:
        ``module``.

    Raises:
        TypeError: not an ``nn.Module``.
        ValueError: no ``SparseLinear`` in it; one on the meta device, with ``pattern="infer"``
            before its first load, with values that are not a Parameter (pruned or parametrized),
            or with the values of another whose rows differ. Nothing is changed then.

    Source: U. Evci, Y. Ioannou, C. Keskin, Y. Dauphin, Gradient Flow in Sparse Neural Networks and
    How Lottery Tickets Win, arXiv:2010.03533 (fan-in of each neuron); the code of G2GNet
    (arXiv:2508.14140) multiplies rows by ``sqrt(fan_in / active)``.

    Example:
        >>> layer = rescale_fan_in_(SparseLinear(1024, 1024, pattern=mask))
    """
    if not isinstance(module, nn.Module):
        fail(TypeError, _OP, "module", "be an nn.Module", type(module).__name__)
    layers = {name: m for name, m in module.named_modules() if isinstance(m, SparseLinear)}
    if not layers:
        fail(ValueError, _OP, "module", "hold a SparseLinear", f"a {type(module).__name__}")
    distinct: dict[nn.Parameter, SparseLinear] = {}
    for name, layer in layers.items():
        values = layer._parameters.get("values")
        if values is None:
            got = f"{name or 'a layer'} whose values are computed"
            fail(ValueError, _OP, "module", "have its values as Parameters", got)
        if values.is_meta:
            fail(ValueError, _OP, "module", "be off the meta device", name or "a layer")
        if layer.infer:
            got = f"{name or 'a layer'} with pattern='infer' before its first state_dict"
            fail(ValueError, _OP, "module", "know its patterns", got)
        first = distinct.setdefault(values, layer)
        alike = first.in_features == layer.in_features and torch.equal(first.crow, layer.crow)
        if not alike:
            got = f"{name or 'a layer'} with the values of a layer whose rows differ"
            fail(ValueError, _OP, "module", "have one factor for each value", got)
    with torch.no_grad():
        for parameter, layer in distinct.items():
            entries = layer.crow.diff()
            exact = torch.promote_types(parameter.dtype, torch.float32)
            factor = (layer.in_features / entries.to(exact)).sqrt()  # inf where nothing uses it
            parameter[: layer.col.shape[0]].mul_(factor.repeat_interleave(entries))
    return module
