"""SparseLinear under DistributedDataParallel: two gloo processes, one gradient."""

import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from synops.nn import SparseLinear


def model():
    mask = torch.rand(16, 8, generator=torch.Generator().manual_seed(0)) < 0.4
    torch.manual_seed(1)
    return nn.Sequential(SparseLinear(8, 16, pattern=mask), nn.Tanh(), nn.Linear(16, 1))


def data():
    return torch.randn(12, 8, generator=torch.Generator().manual_seed(2))


def worker(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    parallel = nn.parallel.DistributedDataParallel(model())
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
    parallel(data()[rank::2]).square().mean().backward()
    optimizer.step()
    torch.save(parallel.module.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_take_the_step_of_one(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.spawn(worker, (port, str(tmp_path)), nprocs=2)
    alone = model()
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.1)
    alone(data()).square().mean().backward()
    optimizer.step()
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for key, want in alone.state_dict().items():
        assert torch.equal(ranks[0][key], ranks[1][key]), key
        torch.testing.assert_close(ranks[0][key], want)
