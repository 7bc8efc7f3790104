"""Attention as classical conditioning: how many associations a fast weight holds.

    python examples/pavlovian_attention.py              # table and capacity.png, seconds
    python examples/pavlovian_attention.py --out x.png

n random pairs, keys in random directions (conditioned stimuli) and values of d signs
(unconditioned ones), are written to a weight one after the other, and all are read back with their
keys. Hebb's rule mixes into each answer all other values, in proportion to the overlap of their
keys: the mean relative error is (n - 1) / d, so what is recalled on average grows with d; all signs
of all n pairs are right only up to n of the order of sqrt(d). The delta rule writes what is not
known yet, and errs less.

Source: Understanding Transformers through the lens of Pavlovian conditioning, arXiv:2508.08289.
"""

import argparse
from typing import NamedTuple

import torch
import torch.nn.functional as F

from synops.hebbian import delta_rule

SIZES = (64, 256)
NUMBERS = (1, 2, 4, 8, 16, 32, 64)


class Recall(NamedTuple):
    """Of n pairs of size d, over trials.

    Attributes:
        error: mean of \\|answer - value\\|^2 / \\|value\\|^2.
        exact: share of trials in which every sign of every value is right.
    """

    error: float
    exact: float


def recall(n, d, rule="hebb", trials=200, generator=None):
    """Writes n pairs and reads them back; a trial is a head.

    Reading is a second sequence with beta 0, from the state that the first one left.
    """
    keys = F.normalize(torch.randn(1, trials, n, d, generator=generator), dim=-1)
    values = 2.0 * torch.randint(2, (1, trials, n, d), generator=generator) - 1
    options = {"rule": rule, "scale": 1.0}
    learned = delta_rule(keys, keys, values, **options).state
    answers = delta_rule(keys, keys, values, 0.0, initial_state=learned, **options).output
    error = (answers - values).square().sum(-1) / d
    right = (answers.sign() == values).all(-1).all(-1)
    return Recall(float(error.mean()), float(right.float().mean()))


def curves(rule, sizes=SIZES, numbers=NUMBERS, trials=200, seed=0):
    """Recall of every number of pairs, for each size."""
    generator = torch.Generator().manual_seed(seed)
    return {d: [recall(n, d, rule, trials, generator) for n in numbers] for d in sizes}


def plot(found, path):
    """Error and exact recall over the number of pairs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), constrained_layout=True)
    colors = dict(zip(SIZES, ("tab:blue", "tab:orange"), strict=True))
    for rule, style in (("hebb", "-"), ("delta", "--")):
        for d, points in found[rule].items():
            style_of = {"linestyle": style, "color": colors[d], "label": f"{rule}, d = {d}"}
            left.plot(NUMBERS, [p.error for p in points], marker=".", **style_of)
            right.plot(NUMBERS, [p.exact for p in points], marker=".", **style_of)
    for d in SIZES:
        left.plot(NUMBERS, [(n - 1) / d for n in NUMBERS], "k:", linewidth=1)
        right.axvline(d**0.5, color=colors[d], linewidth=0.5)
    left.set(xlabel="pairs", ylabel="mean relative error (dots: (n - 1) / d)")
    right.set(xlabel="pairs (lines: sqrt d)", ylabel="all signs right", xscale="log")
    left.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="capacity.png")
    options = parser.parse_args()
    found = {rule: curves(rule) for rule in ("hebb", "delta")}
    print("   d    n  (n-1)/d   hebb  delta  ratio   exact: hebb  delta")
    for d in SIZES:
        for n, h, e in zip(NUMBERS, found["hebb"][d], found["delta"][d], strict=True):
            ratio = e.error / h.error if h.error > 1e-6 else 0
            print(
                f"{d:4} {n:4}  {(n - 1) / d:7.3f}  {h.error:5.3f}  {e.error:5.3f}  {ratio:5.2f}"
                f"          {h.exact:5.2f}  {e.exact:5.2f}"
            )
    plot(found, options.out)
    print(options.out)


if __name__ == "__main__":
    main()
