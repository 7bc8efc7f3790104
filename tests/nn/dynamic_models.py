"""A small model, its optimizer and its DynamicSparsity, as the tests of it need them."""

import copy

import torch
from torch import nn

from synops.nn import DynamicSparsity, SparseLinear

METHODS = ("static", "set", "rigl", "granet", "gmp", "hebbian")
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.9, nesterov=True, weight_decay=1e-4),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
}


def mlp(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(),
                         nn.Linear(30, 4)).to(dtype)  # fmt: skip


def batch(i, rows=16, dtype=torch.float32):
    x = torch.randn(rows, 24, generator=torch.Generator().manual_seed(i)).to(dtype)
    return x, x[:, :4].sin()


def train(model, optimizer, sparsity, steps):
    """Returns the losses."""
    losses = []
    for i in steps:
        x, y = batch(i)
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        if sparsity is not None:
            sparsity.step()
        losses.append(float(loss.detach()))
    return losses


def started(method="rigl", optimizer="adam", **options):
    """A model, its optimizer and its DynamicSparsity."""
    model = mlp()
    options = {"density": 0.2, "total_steps": 60, "interval": 5} | options
    if method == "static":
        options.pop("interval")
    optimizer = OPTIMIZERS[optimizer](model.parameters())
    torch.manual_seed(1)
    return model, optimizer, DynamicSparsity(model, optimizer, method, **options)


def layers_of(model):
    return [m for m in model.modules() if isinstance(m, SparseLinear)]


def snapshot(model, optimizer):
    """Everything that an update changes."""
    everything = [model.state_dict(), optimizer.state_dict()["state"]]
    return copy.deepcopy(everything) + [layer.pattern.mask() for layer in layers_of(model)]


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b
