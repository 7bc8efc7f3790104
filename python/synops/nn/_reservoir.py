"""What the reservoir modules share: random weights, and Patterns that follow their buffers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .._check import fail
from ..sparse import Pattern, spmm

_EXACT = 1500  # rows up to which all eigenvalues are computed, a few seconds
_STEPS = 1000  # of a power iteration above


def check_part(op: str, argument: str, value: Any) -> float:
    """A number in (0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        fail(TypeError, op, argument, "be a number", type(value).__name__)
    if not 0 < value <= 1:
        fail(ValueError, op, argument, "lie in (0, 1]", value)
    return float(value)


def check_count(op: str, argument: str, value: Any) -> int:
    """A positive integer."""
    if isinstance(value, bool) or not isinstance(value, int):
        fail(TypeError, op, argument, "be an integer", type(value).__name__)
    if value < 1:
        fail(ValueError, op, argument, "be positive", value)
    return value


def generator_of(op: str, generator: Any) -> torch.Generator:
    """A generator, one of this seed, or one seeded by torch's own."""
    if isinstance(generator, torch.Generator):
        return generator
    if generator is None:
        return torch.Generator().manual_seed(int(torch.randint(2**62, ())))
    if isinstance(generator, bool) or not isinstance(generator, int):
        rule = "be a torch.Generator or an integer"
        fail(TypeError, op, "generator", rule, type(generator).__name__)
    return torch.Generator().manual_seed(generator)


def spectral_radius(values: Tensor, pattern: Pattern) -> float:
    """Largest magnitude of an eigenvalue of a square weight.

    Exact up to 1500 rows, beyond them by the growth of a vector over 1000 products, within a
    percent for random weights.
    """
    rows = pattern.shape[0]
    if rows <= _EXACT:
        return float(torch.linalg.eigvals(pattern.scatter(values.double())).abs().max())
    x = torch.ones(rows, 1, dtype=torch.float64)
    growth = []
    for _ in range(_STEPS):
        x = spmm(values.double(), pattern, x / x.norm())
        growth.append(x.norm())
    return float(torch.stack(growth[_STEPS // 2 :]).log().mean().exp())


class PatternModule(nn.Module):
    """Weights as buffers ``<name>values``, ``<name>crow``, ``<name>col``, and their Patterns.

    ``state_dict`` has the buffers; a state_dict of other entries replaces the Pattern.
    """

    def __init__(self) -> None:
        super().__init__()
        self._patterns: dict[str, Pattern] = {}

    def _own(self, name: str, values: Tensor, pattern: Pattern) -> None:
        self.register_buffer(f"{name}values", values)
        self.register_buffer(f"{name}crow", pattern.crow)
        self.register_buffer(f"{name}col", pattern.col)
        self._patterns[name] = pattern

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        for name in self._patterns:
            device = self._buffers[f"{name}values"].device  # type: ignore[union-attr]
            if device.type != "meta":
                self._patterns[name] = self._patterns[name].to(device)
        return self

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        found: dict[str, Pattern] = {}
        for name, held in self._patterns.items():
            values, crow, col = (state_dict.get(f"{prefix}{name}{n}") for n in _OF_A_WEIGHT)
            if values is None or crow is None or col is None:
                continue
            try:
                found[name] = Pattern.from_csr(crow, col, held.shape)
                if values.shape != col.shape:
                    rule = f"have shape (nnz,) = {tuple(col.shape)}"
                    fail(ValueError, type(self).__name__, "values", rule, tuple(values.shape))
            except (TypeError, ValueError) as error:
                error_msgs.append(f"{type(self).__name__} {prefix.rstrip('.')!r}: {error}")
                return
        for name, pattern in found.items():
            values = self._buffers[f"{name}values"]
            self._own(name, values.new_empty(pattern.nnz), pattern.to(values.device))  # type: ignore[union-attr]
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


_OF_A_WEIGHT = ("values", "crow", "col")
