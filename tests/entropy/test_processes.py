"""Choices and moments over all processes: two of them, with tensors of different shapes."""

import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from no_sync import NoSync

from synops.entropy import bnpo_advantage, covariance_select, policy_loss

ROWS = [3, 5]  # of each process
KINDS = ["clip_cov", "kl_cov", "steer", "steer_exact"]
DRAWS = 30
CLIP = {"ratio": 0.05, "lower": 0.1}


def tokens(dtype=torch.float64):
    """Of all processes. The last row has the log-probabilities of the first, so there are ties."""
    g = torch.Generator().manual_seed(0)
    shape = sum(ROWS), 20
    logprob = -torch.rand(shape, generator=g, dtype=torch.float64).to(dtype)
    advantages = torch.randn(shape, generator=g, dtype=torch.float64).to(dtype)
    logprob[-1], advantages[-1] = logprob[0], advantages[0]
    mask = torch.rand(shape, generator=g) < 0.8
    mask[-1] = mask[0] = True
    old = logprob + 0.3 * torch.randn(shape, generator=g, dtype=torch.float64).to(dtype)
    entropy = torch.rand(shape, generator=g, dtype=torch.float64).to(dtype)
    stats = {"entropy": entropy, "collision": entropy / 2, "plogp2": -entropy / 3}
    return logprob, old, advantages, mask, stats


def part(rank, *tensors):
    return [t.split(ROWS)[rank] for t in tensors]


def rewards():
    g = torch.Generator().manual_seed(1)
    return (torch.rand(8, 4, generator=g) < torch.rand(8, 1, generator=g)).double()


def select(rank, dtype, group, **options):
    logprob, _, advantages, mask, _ = tokens(dtype)
    args = logprob, advantages, mask
    if rank is not None:
        args = part(rank, *args)
    return covariance_select(*args, group=group, **options)


def losses(rank, kind, group):
    *args, stats = tokens()
    if rank is not None:
        args = part(rank, *args)
        stats = dict(zip(stats, part(rank, *stats.values()), strict=True))
    # every candidate, so that the choice does not depend on random keys
    options = {**CLIP, "ratio": 1, "kl_percent": 10, **stats}
    return policy_loss(*args, kind=kind, group=group, **options)


def cases(rank, group):
    """{name: result}, of one process (rank None) or a part of all."""
    found = {}
    for dtype in (torch.float64, torch.float32):
        for percent in (0.2, 10, 60, 100):
            options = {"mode": "kl", "percent": percent}
            found[f"kl {percent} {dtype}"] = select(rank, dtype, group, **options)
    found["all candidates"] = select(rank, torch.float64, group, ratio=1, lower=0.1)
    found["no candidates"] = select(rank, torch.float64, group, ratio=1, lower=50, upper=60)
    for kind in KINDS:
        found[kind] = losses(rank, kind, group)[0]
    own = slice(None) if rank is None else slice(0, 3) if rank == 0 else slice(3, 8)
    scores = rewards()[own].flatten()
    groups = torch.arange(len(scores)) // 4
    found["bnpo"] = bnpo_advantage(scores, groups, group=group)
    return found


def draws(rank, group):
    """Random choices with the same seed in every process."""
    g = torch.Generator().manual_seed(3)
    return [select(rank, torch.float64, group, **CLIP, generator=g) for _ in range(DRAWS)]


def worker(rank, port, folder):
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found = cases(rank, True)
    found["given group"] = select(rank, torch.float64, dist.group.WORLD, mode="kl", percent=10)
    found["alone"] = select(rank, torch.float64, None, mode="kl", percent=10)
    other = dist.new_group([1 - rank], use_local_synchronization=True) if rank == 0 else None
    if other is not None:
        with pytest.raises((TypeError, ValueError), match="covariance_select: group must"):
            select(rank, torch.float64, other, mode="kl")
    with NoSync():
        select(rank, torch.float64, True, **CLIP)
    found["draws"] = torch.stack(draws(rank, True))
    empty = rank == 0  # nothing here, 5 rows there
    *args, _ = tokens()
    args = [t[:0] if empty else t for t in part(rank, args[0], *args[2:])]
    found["empty"] = covariance_select(*args, mode="kl", percent=10, group=True)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.spawn(worker, (port, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def test_choices_are_those_of_one_process(ranks):
    """Also of equal covariances, which are in both processes: the lower rank comes first."""
    for name, want in cases(None, None).items():
        if name in KINDS:
            continue
        got = torch.cat([found[name] for found in ranks])
        if name == "bnpo":
            torch.testing.assert_close(got, want)
        else:
            assert torch.equal(got, want), name
    want = cases(None, None)["kl 10 torch.float64"]
    assert torch.equal(torch.cat([found["given group"] for found in ranks]), want)


def test_losses_are_those_of_one_process(ranks):
    """The mean over all tokens is that of both means, weighted with their tokens."""
    mask = tokens()[3]
    sizes = [m.sum() for m in mask.split(ROWS)]
    for kind in KINDS:
        got = sum(n * found[kind] for n, found in zip(sizes, ranks, strict=True)) / mask.sum()
        torch.testing.assert_close(got, losses(None, kind, None)[0])


def test_alone_is_alone(ranks):
    for rank, found in enumerate(ranks):
        want = select(rank, torch.float64, None, mode="kl", percent=10)
        assert torch.equal(found["alone"], want)


def test_random_choices_have_the_right_number_and_differ(ranks):
    """With equal seeds in both; each candidate is drawn about as often."""
    logprob, _, advantages, mask, _ = tokens()
    count = int(0.05 * int(mask.sum()))
    candidates = covariance_select(logprob, advantages, mask, ratio=1, lower=0.1)
    drawn = torch.cat([found["draws"] for found in ranks], 1)
    assert (drawn.flatten(1).sum(1) == count).all()
    assert not (drawn & ~candidates).any()
    share = count / int(candidates.sum())
    often = drawn.sum(0)[candidates]
    assert (often - DRAWS * share).abs().max() < 5 * (DRAWS * share * (1 - share)) ** 0.5
    own = [d.flatten(1).sum(1).double() for d in drawn.split(ROWS, 1)]
    assert own[0].std() > 0.5  # not always the same share of each


def test_a_process_without_tokens(ranks):
    *args, _ = tokens()
    args = part(1, args[0], *args[2:])
    want = covariance_select(*args, mode="kl", percent=10)
    assert torch.equal(ranks[1]["empty"], want)
    assert ranks[0]["empty"].shape == (0, 20)
