"""LeNet-300-100, whole and pruned: the pruned network in the three forms that are compared."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ..nn import SparseLinear

WIDTHS = (784, 300, 100, 10)

Layers = Sequence[nn.Linear]
Masks = list[Tensor]  # bool (out, in), a layer each


class MaskedLinear(nn.Linear):
    """The experiment's layer as it is written today: a dense weight times a mask of 0 and 1."""

    mask: Tensor

    def __init__(self, layer: nn.Linear, mask: Tensor):
        super().__init__(layer.in_features, layer.out_features)
        self.load_state_dict(layer.state_dict())
        self.register_buffer("mask", mask.to(self.weight.dtype))

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight * self.mask, self.bias)


def initial(seed: int) -> Layers:
    """theta0: Gaussian weights after Glorot, biases of 0, as in the paper."""
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for shape in pairwise(WIDTHS):
        layer = nn.utils.skip_init(nn.Linear, *shape)
        nn.init.xavier_normal_(layer.weight, generator=generator)
        nn.init.zeros_(layer.bias)
        layers.append(layer)
    return layers


def chain(layers: Sequence[nn.Module]) -> nn.Sequential:
    """The network: a ReLU between each layer and the next."""
    return nn.Sequential(*[m for layer in layers for m in (layer, nn.ReLU())][:-1])


def _layers(network: nn.Sequential) -> list[Any]:
    return list(network)[::2]


def dense(theta: Layers) -> nn.Sequential:
    """The whole network, on copies of the layers."""
    return chain([copy.deepcopy(layer) for layer in theta])


def masked(theta: Layers, masks: Masks) -> nn.Sequential:
    """Dense weights, multiplied by the masks at every step."""
    return chain([MaskedLinear(layer, mask) for layer, mask in zip(theta, masks, strict=True)])


def projected(theta: Layers, masks: Masks) -> nn.Sequential:
    """Dense weights, masked once; :func:`project` after each step keeps them so."""
    network = dense(theta)
    project(network, masks)
    return network


@torch.no_grad()
def project(network: nn.Sequential, masks: Masks) -> None:
    """Writes 0 where a mask (bool, or 0 and 1 in float) is 0."""
    for layer, mask in zip(_layers(network), masks, strict=True):
        layer.weight.mul_(mask)


def sparse(theta: Layers, masks: Masks) -> nn.Sequential:
    """Weights that exist under the masks only."""
    pairs = zip(theta, masks, strict=True)
    return chain([SparseLinear.from_linear(layer, mask) for layer, mask in pairs])


def kept_weights(network: nn.Sequential, masks: Masks) -> list[Tensor]:
    """The remaining weights of each layer, (nnz,), in the order of ``weight[mask]``."""
    return [
        (layer.values if isinstance(layer, SparseLinear) else layer.weight[mask]).detach()
        for layer, mask in zip(_layers(network), masks, strict=True)
    ]
