"""The bandit of examples/entropy_bandit.py, for the tests of the papers that it follows."""

import importlib.util
from pathlib import Path

import torch

EXAMPLE = Path(__file__).parents[2] / "examples" / "entropy_bandit.py"
SEEDS = (0, 1, 2)


def load():
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("entropy_bandit_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(*methods):
    """{method: a Course of 200 steps a seed}, 0.4 s each, on one thread."""
    example, before = load(), torch.get_num_threads()
    torch.set_num_threads(1)
    found = {method: [example.train(method, seed) for seed in SEEDS] for method in methods}
    torch.set_num_threads(before)
    return found
