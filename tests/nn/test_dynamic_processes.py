"""DynamicSparsity in a distributed training: two gloo processes, one pattern."""

import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from dynamic_models import batch, layers_of, mlp
from torch import nn

from synops.nn import DynamicSparsity

STEPS = 12
METHODS = ("granet", "hebbian", "set")


def trained(method, wrap, rows):
    """Masks and values after a training; ``rows`` are those of the batch that this process has."""
    model = mlp(torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    sparsity = DynamicSparsity(model, optimizer, method, density=0.2, total_steps=40, interval=3)
    parallel = wrap(model)
    for i in range(STEPS):
        x, y = batch(i, dtype=torch.float64)
        optimizer.zero_grad()
        (parallel(x[rows]) - y[rows]).square().mean().backward()
        optimizer.step()
        sparsity.step()
    return [[layer.pattern.mask(), layer.values.detach()] for layer in layers_of(model)]


def worker(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(rank)  # masks come from the seed of the first
    parallel = nn.parallel.DistributedDataParallel
    results = [trained(method, parallel, slice(rank, None, 2)) for method in METHODS]
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_do_as_one(tmp_path):
    """Halves of each batch, updates from the samples of both: the training of one process."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.spawn(worker, (port, str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    torch.manual_seed(0)
    alone = [trained(method, lambda model: model, slice(None)) for method in METHODS]
    for layers in zip(*ranks, alone, strict=True):
        for first, second, want in zip(*layers, strict=True):
            assert torch.equal(first[0], second[0])
            assert torch.equal(first[1], second[1])
            assert torch.equal(first[0], want[0])
            torch.testing.assert_close(first[1], want[1])
