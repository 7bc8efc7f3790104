"""What a SparseLinear makes of a state_dict: its own, or one of a dense or pruned layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .._check import check_shape
from ..sparse import Pattern
from ._dense import padded

if TYPE_CHECKING:
    from ._sparse_linear import SparseLinear

# A dense weight under the names that nn.Linear, nn.utils.prune and parametrize save it by, and the
# mask that goes with it.
_DENSE_KEYS = (
    ("weight", None),
    ("weight_orig", "weight_mask"),
    ("parametrizations.weight.original", "parametrizations.weight.0.mask"),
)


def loaded_pattern(layer: SparseLinear, state: dict[str, Any], prefix: str) -> Pattern | None:
    """The pattern a state_dict asks for; a dense weight in it becomes values, crow and col."""
    shape = (layer.out_features, layer.in_features)
    bias = state.get(prefix + "bias")
    if bias is not None and layer.bias is not None:
        check_shape("load_state_dict", "bias", bias, "(out,)", (layer.out_features,))
    for weight_key, mask_key in _DENSE_KEYS:
        weight = state.pop(prefix + weight_key, None)
        if weight is None:
            continue
        check_shape("load_state_dict", weight_key, weight, "(out, in)", shape)
        if mask_key is not None:
            mask = state.pop(prefix + mask_key, None)
            if mask is None:
                raise ValueError(
                    f"{weight_key} without {mask_key} is not of a pruned layer "
                    "(torch.ao.pruning saves no masks: squash_mask first)"
                )
            weight = weight.masked_fill(mask == 0, 0)
        pattern = layer.pattern.to(weight.device)
        if layer.infer:
            pattern = Pattern.from_mask(weight != 0)
        outside = int((weight.masked_fill(pattern.mask(), 0) != 0).sum())
        if outside:
            raise ValueError(
                f"{weight_key} has {outside} non-zeros outside the pattern; make the layer "
                "with pattern='infer' to take the pattern of what is loaded"
            )
        state[prefix + "values"] = padded(pattern, pattern.gather(weight))
        state[prefix + "crow"], state[prefix + "col"] = pattern.crow, pattern.col
        return pattern
    values = state.get(prefix + "values")
    crow, col = state.get(prefix + "crow"), state.get(prefix + "col")
    if crow is None or col is None or values is None:
        # Reported as missing; half a pattern must not be copied over the indices in use.
        state.pop(prefix + "crow", None)
        state.pop(prefix + "col", None)
        return None
    if not layer.infer and values.shape != layer.values.shape:
        got, want = tuple(values.shape), tuple(layer.values.shape)
        raise ValueError(f"values have shape {got} in the state_dict and {want} in the layer")
    pattern = Pattern.from_csr(crow, col, shape, capacity=values.shape[0])
    # The entries in use: what is known of their structure beyond crow and col is kept.
    if not layer.col.is_meta and pattern.capacity == layer._capacity:
        used = layer.pattern.to(pattern.device)
        if torch.equal(pattern.crow, used.crow) and torch.equal(pattern.col, used.col):
            return used
    return pattern
