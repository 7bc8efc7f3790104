"""The bandit of examples/entropy_bandit.py, for the tests of the papers that it follows."""

import torch
from example import load

SEEDS = (0, 1, 2)


def train(*methods):
    """{method: a Course of 200 steps a seed}, 0.4 s each, on one thread."""
    example, before = load("entropy_bandit"), torch.get_num_threads()
    torch.set_num_threads(1)
    found = {method: [example.train(method, seed) for seed in SEEDS] for method in methods}
    torch.set_num_threads(before)
    return found
