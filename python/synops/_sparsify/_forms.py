"""The forms a pruned layer can take, and the time of each here and now."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..nn import SparseLinear
from ..nn._pruned import masked
from ..sparse import Pattern
from ._find import Layer

# The sparse product breaks even with the dense one at density .5 to .6 (batches of 60 to 512, see
# FACTS.md): above this it is not tried.
SPARSE_BELOW = 0.8
# Of a group of layers. Three rounds of three forms that take 10 ms are .15 s with the warm-up.
_SECONDS = 0.1
_MIN_ROUNDS = 3
_MIN_SAMPLE = 1e-3


class Form(NamedTuple):
    """Another form of a layer.

    Attributes:
        build: makes it, and leaves the layer alone.
        fits: whether it may stand in for the layer, in training or not.
    """

    build: Callable[[Layer], nn.Module]
    fits: Callable[[Layer, bool], bool]


def _dense(layer: Layer) -> nn.Module:
    """nn.Linear on the finished weight."""
    assert layer.pruned is not None
    old = layer.linear
    pruned_bias = masked(old, "bias")
    bias = old.bias if pruned_bias is None else pruned_bias.finished
    new = nn.Linear(old.in_features, old.out_features, bias=bias is not None, device="meta")
    new.weight = nn.Parameter(layer.pruned.finished, layer.weight.requires_grad)
    if bias is not None:
        trains = (
            old.bias.requires_grad if pruned_bias is None else pruned_bias.original.requires_grad
        )
        new.bias = nn.Parameter(bias.detach().clone(), trains)
    return new.train(old.training)


def _sparse(layer: Layer) -> nn.Module:
    return SparseLinear.from_linear(layer.linear)


# In training a mask that is multiplied in is a mask that is lost: its weights would grow again. So
# there the dense form of a masked layer is the masked layer, and stays.
FORMS = {
    "dense": Form(_dense, lambda layer, training: layer.pruned is not None and not training),
    "sparse": Form(_sparse, lambda layer, training: (layer.density or 0) <= SPARSE_BELOW),
}


class Measured(NamedTuple):
    """Of a layer as it is and of the forms that fit it.

    Attributes:
        times: median seconds a call, the layer as it is first.
        speedups: median over the rounds of the time as it is over that of the form.
        source: the layer that was measured in the place of this one; "" if this one was.
    """

    times: dict[str, float]
    speedups: dict[str, float]
    source: str = ""


def fitting(layer: Layer, training: bool) -> list[str]:
    """What the layer may become."""
    return [name for name, form in FORMS.items() if form.fits(layer, training)]


def group(layer: Layer, rows: int) -> tuple[object, ...]:
    """Equal for layers that share a measurement: alike, of one structure, and densities within
    10 %."""
    density = math.log(max(layer.density or 0, 1e-6)) // math.log(1.1)
    kept = layer.weight != 0 if layer.pruned is None else layer.pruned.mask
    pattern = Pattern.from_mask(kept)
    structure = pattern.block, pattern.parts is None
    way = layer.pruned is None, parametrize.is_parametrized(layer.linear)
    trained = tuple(p.requires_grad for p in layer.linear.parameters())
    where = layer.weight.dtype, layer.weight.device
    return (rows, layer.shape, *where, way, trained, density, structure)


def measure(layer: Layer, forms: list[str], rows: int, training: bool) -> Measured:
    """Takes the forms in turns on random input, under the threads and the autocast in force."""
    from ..benchmarks.common.interleave import interleave, ratio, timer_for

    weight = layer.weight
    x = torch.randn(
        *(rows, layer.linear.in_features),
        generator=torch.Generator(weight.device).manual_seed(0),
        dtype=weight.dtype,
        device=weight.device,
    )
    held = "dense" if layer.pruned is None else "masked"
    modules = {held: layer.module} | {name: FORMS[name].build(layer) for name in forms}
    work = _training_step if training else _forward
    samples = interleave(
        [work(module, x) for module in modules.values()],
        timer_for(torch.get_num_threads(), weight.device.type),
        seconds=_SECONDS,
        min_rounds=_MIN_ROUNDS,
        min_sample=_MIN_SAMPLE,
    )
    times = {name: median(taken) for name, taken in zip(modules, samples, strict=True)}
    speedups = {
        name: ratio(samples[0], taken) for name, taken in zip(forms, samples[1:], strict=True)
    }
    return Measured(times, speedups)


def _forward(module: nn.Module, x: Tensor) -> Callable[[], object]:
    def call() -> None:
        with torch.no_grad():
            module(x)

    return call


def _training_step(module: nn.Module, x: Tensor) -> Callable[[], object]:
    """Forward and the gradients of the input and of every parameter that is trained."""
    leaves = (x.detach().requires_grad_(), *(p for p in module.parameters() if p.requires_grad))
    with torch.no_grad():
        grad_output = torch.ones_like(module(x))

    def call() -> None:
        with torch.enable_grad():
            torch.autograd.grad(module(leaves[0]), leaves, grad_output)

    return call
