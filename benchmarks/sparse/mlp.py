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
    """``function(x, *weights)``: layer by layer, every activation batch-major in between."""

    def forward(x: Tensor, *weights: Tensor) -> Tensor:
        for product, weight in zip(products[:-1], weights[:-1], strict=True):
            x = relu(product(x, weight))
        return products[-1](x, weights[-1])

    return forward


def sparse_product(pattern: Any) -> Product:
    """One sparse layer, its values still to come."""
    sparse_linear = public("sparse.sparse_linear")
    return lambda x, values: sparse_linear(x, values, pattern)


def build(impl: str, size: StackSize, dtype: torch.dtype, device: str) -> Call:
    """One of

    - synops: the layers as a user would have them fastest;
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
        return Call(in_a_row([linear] * size.layers), (x, *weights), gradients=kept)
    if impl in ("synops", "synops_unchained"):
        # A form that keeps activations feature-major between the layers belongs to "synops", here.
        products = [sparse_product(layer.pattern()) for layer in layers]
        values = [keep_size * layer.values for layer in layers]
        return Call(in_a_row(products), (x, *values), gradients=kept)
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
