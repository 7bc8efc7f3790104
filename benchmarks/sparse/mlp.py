"""Sparse layers one after another with ReLU between them: what is saved by keeping a layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, relu

from ..common import suite
from ..common.call import Call, Tensors
from ..common.linear import sparse_layer
from ..common.public import public
from ..common.sizes import STACKS, StackSize

Product = Callable[[Tensor, Tensor], Tensor]


def in_a_row(products: Sequence[Product]) -> Callable[..., Tensor]:
    """``function(x, *weights)``: layer by layer."""

    def forward(x: Tensor, *weights: Tensor) -> Tensor:
        for product, weight in zip(products, weights, strict=True):
            x = product(x, weight)
        return x

    return forward


def sparse_product(pattern: Any, **options: Any) -> Product:
    """One sparse layer, its values still to come."""
    sparse_linear = public("sparse.sparse_linear")
    return lambda x, values: sparse_linear(x, values, pattern, **options)


def then_relu(product: Product) -> Product:
    """A layer and the activation behind it."""
    return lambda x, weight: relu(product(x, weight))


def build(impl: str, size: StackSize, dtype: torch.dtype, device: str) -> Call:
    """One of

    - synops: a chain (``nn.chain_``): feature-major between the layers, relu part of them;
    - synops_unchained: sparse_linear and relu, each by itself;
    - torch: F.linear on the finished dense weights, and relu.
    """
    layers = [sparse_layer(size.layer, dtype, device, seed=i) for i in range(size.layers)]
    x = layers[0].input
    keep_size = (2 / size.layer.density) ** 0.5  # of activations, layer by layer

    def kept(grad_input: Tensor, *grads: Tensor) -> Tensors:
        pairs = zip(layers, grads, strict=True)
        return grad_input, *(layer.kept(grad_input, grad)[1] for layer, grad in pairs)

    if impl == "torch":
        weights = [keep_size * layer.weight() for layer in layers]
        dense = [*[then_relu(linear)] * (size.layers - 1), linear]
        return Call(in_a_row(dense), (x, *weights), gradients=kept)
    values = [keep_size * layer.values for layer in layers]
    *patterns, last = (layer.pattern() for layer in layers)
    if impl == "synops":
        chained = {"activation": "relu", "feature_major": True}
        products = [sparse_product(pattern, **chained) for pattern in patterns]
        return Call(in_a_row([*products, sparse_product(last)]), (x, *values), gradients=kept)
    if impl == "synops_unchained":
        products = [then_relu(sparse_product(pattern)) for pattern in patterns]
        return Call(in_a_row([*products, sparse_product(last)]), (x, *values), gradients=kept)
    raise ValueError(impl)


class MLP(suite.TrainingSuite):
    """On one thread."""

    op = "sparse.mlp"
    impls = ("synops", "torch", "synops_unchained")
    cases = STACKS

    def build(
        self, impl: str, size: StackSize, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        return build(impl, size, dtype, device)
