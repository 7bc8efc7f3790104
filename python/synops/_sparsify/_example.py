"""Runs of the model on the example input."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def run(model: nn.Module, example_input: Any) -> None:
    """One call in eval mode without gradients; nothing without an example."""
    if example_input is None:
        return
    named = example_input if isinstance(example_input, dict) else {}
    several = isinstance(example_input, tuple)
    arguments = () if named else example_input if several else (example_input,)
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            model.eval()(*arguments, **named)
    finally:
        for module, mode in modes:
            module.training = mode


def rows_seen(
    model: nn.Module, modules: Iterable[nn.Module], example_input: Any
) -> dict[nn.Module, int]:
    """How many rows each module gets from the example, in its largest call; only those reached."""
    seen: dict[nn.Module, int] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = next(iter((*args, *kwargs.values())), None)
        if isinstance(x, Tensor) and x.dim() > 0:
            seen[module] = max(seen.get(module, 1), x.numel() // max(1, x.shape[-1]))

    hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module in modules]
    try:
        run(model, example_input)
    finally:
        for hook in hooks:
            hook.remove()
    return seen
