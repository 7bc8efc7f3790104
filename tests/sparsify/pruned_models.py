"""A small network, and every way in which people prune it."""

import torch
from torch import nn
from torch.ao.pruning import WeightNormSparsifier
from torch.nn.utils import parametrize, prune

from synops.nn import SparseLinear


def mlp(**options):
    return nn.Sequential(
        nn.Linear(20, 32, **options), nn.ReLU(), nn.Linear(32, 8, **options), nn.ReLU()
    )


def linears(model):
    return [m for m in model.modules() if isinstance(m, nn.Linear)]


class Masked(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight):
        return weight * self.mask


class Scaled(Masked):
    """A mask, and more."""

    def forward(self, weight):
        return 2 * weight * self.mask


def by_prune(model, amount=0.9):
    for layer in linears(model):
        prune.l1_unstructured(layer, "weight", amount=amount)
    return model


def by_global_prune(model):
    parameters = [(layer, "weight") for layer in linears(model)]
    prune.global_unstructured(parameters, prune.L1Unstructured, amount=0.9)
    return model


def pruned_twice(model):
    return by_prune(by_prune(model, 0.5), 0.8)


def by_rows(model):
    for layer in linears(model):
        prune.ln_structured(layer, "weight", amount=0.5, n=2, dim=0)
    return model


def removed(model):
    for layer in linears(by_prune(model)):
        prune.remove(layer, "weight")
    return model


def by_ao(model):
    sparsifier = WeightNormSparsifier(sparsity_level=0.8, sparse_block_shape=(1, 4))
    names = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    sparsifier.prepare(model, [{"tensor_fqn": f"{name}.weight"} for name in names])
    sparsifier.step()
    model.sparsifier = sparsifier
    return model


def squashed(model):
    by_ao(model).sparsifier.squash_mask()
    return model


def by_parametrize(model):
    for layer in linears(model):
        mask = torch.rand_like(layer.weight) < 0.1
        parametrize.register_parametrization(layer, "weight", Masked(mask))
    return model


PRUNINGS = [
    *(by_prune, by_global_prune, pruned_twice, by_rows, removed),
    *(by_ao, squashed, by_parametrize),
]
MASKS = [p for p in PRUNINGS if p not in (removed, squashed)]


def weights(model):
    """The dense weight of each layer in use."""
    return [
        m.pattern.scatter(m.values) if isinstance(m, SparseLinear) else m.weight
        for m in model.modules()
        if isinstance(m, (SparseLinear, nn.Linear))
    ]
