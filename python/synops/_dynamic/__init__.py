"""DynamicSparsity: sparse training in which the edges move, from a dense model to a sparse one.

``_schedule`` has the methods and their rates by step, ``_density`` shares a density among layers,
``_layers`` puts sparse layers in place, ``_samples`` keeps what growth needs, and ``_update`` is
one update.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from .._check import fail
from ..nn import rescale_fan_in_
from ._arguments import scheduled, seeded
from ._density import shared
from ._layers import Optimizer, sparse_layers
from ._samples import Samples
from ._update import update

_OP = "DynamicSparsity"


class DynamicSparsity:
    """Trains a model with sparse weights whose edges move: SET, RigL, GraNet, and others.

    Linear layers become :class:`SparseLinear` when this is made, with the initial weights that they
    have, and the optimizer gets their values in the place of the dense weights. From then on
    memory, gradients and the optimizer's state are those of the edges alone. ``step()`` moves edges
    when it is time::

        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        sparsity = synops.nn.DynamicSparsity(
            model, optimizer, "rigl", density=0.1, total_steps=10_000
        )
        for x, y in batches:
            optimizer.zero_grad()
            loss_of(model(x), y).backward()
            optimizer.step()
            sparsity.step()

    - "static": edges stay where they are drawn.
    - "set": the smallest weights of a layer go, random edges come; 30 % an update
      (arXiv:1707.04780).
    - "rigl": the smallest go, those with the largest dense gradient come; 30 %, falling to 0 by a
      cosine (arXiv:1911.11134).
    - "granet": as "rigl", 50 % falling to .5 %, while the smallest weights of all layers go and
      the density falls by a cubic (arXiv:2106.10404).
    - "gmp": that fall alone, from a dense model: gradual magnitude pruning (arXiv:1710.01878).
    - "hebbian": the smallest go, edges between units with the most similar activity (cosine over
      the step's samples) come; 10 % (G2GNet, arXiv:2508.14140).

    An update looks at the last step's samples: inputs of the layers and gradients of their outputs
    are kept on the step before it, and only then; the dense gradient itself never exists. An edge
    that goes and comes back in the same update keeps its weight and its optimizer state, a new one
    starts at 0 with none, as in the codes of RigL and GraNet.

    Args:
        model: dense, or with :class:`SparseLinear` layers already, which keep their patterns. What
            wraps it (DDP, ``torch.compile``) comes after this.
        optimizer: any that keeps its state per parameter; it trains the layers' weights.
        method: as above.
        density: share of edges that is kept of the layers together; or a dict of layer names and
            densities. Of "granet" and "gmp": at the end. May be None where all layers are sparse.
        total_steps: of the training; where schedules end.
        distribution: "erk" (small layers are denser) or "uniform".
        initial_density: of "granet" (default .5) and "gmp" (1).
        interval: steps between updates.
        prune_rate: share of a layer's edges that moves at an update (at the first one, where it
            falls). Default: as above.
        begin, end: first and last step of updates. Default: 0, and ``total_steps`` ("rigl": three
            quarters of it).
        ramp_end: step at which "granet" and "gmp" reach ``density``, at the latest at their last
            update. Default: 110 / 160 of ``total_steps``, as in GraNet's code.
        layers: names of the layers to take part. Default: every linear layer that can;
            ``skipped`` has the others.
        rescale: whether weights are rescaled for the number of entries in their row
            (:func:`rescale_fan_in_`).
        generator: of masks and random growth, on the CPU. Default: one of its own, seeded from
            torch's. In a distributed training all processes take the seed of the first.

    Attributes:
        steps: how often ``step()`` was called.
        skipped: ``{name: reason}`` of linear layers that stay as they are.

    With ``torch.distributed`` initialised, an update is made from the samples of all processes, so
    all have the same pattern. Values have room for the edges of the beginning: where the density
    falls, :meth:`compact_` gives up what is no longer needed.

    Raises:
        TypeError, ValueError: an argument is wrong, the optimizer does not know a layer, a density
            leaves a layer without entries, or the model has no layer to take part. Nothing is
            changed then.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        method: str = "rigl",
        *,
        density: float | Mapping[str, float] | None = None,
        total_steps: int,
        distribution: str = "erk",
        initial_density: float | None = None,
        interval: int = 100,
        prune_rate: float | None = None,
        begin: int = 0,
        end: int | None = None,
        ramp_end: int | None = None,
        layers: Iterable[str] | None = None,
        rescale: bool = False,
        generator: torch.Generator | None = None,
    ):
        self.method = method
        self.schedule = scheduled(
            _OP,
            method,
            density,
            initial_density,
            total_steps,
            interval,
            prune_rate,
            begin,
            end,
            ramp_end,
        )
        self._generator = seeded(_OP, generator)
        start = self.schedule.initial_density
        self._slots, self.skipped = sparse_layers(
            _OP,
            model,
            optimizer,
            layers,
            lambda shapes: shared(_OP, shapes, density if start is None else start, distribution),
            self._generator,
        )
        if rescale:
            for slot in self._slots:
                rescale_fan_in_(slot.layer)
        self.steps = 0
        self._samples = Samples(slot.layer for slot in self._slots)
        self._look_ahead()

    def step(self) -> bool:
        """Counts a step of the optimizer, and moves edges if it is time; call it behind that step.

        Returns:
            Whether edges moved. Gradients of layers whose edges did are None then.

        Raises:
            RuntimeError: it is time, and growth needs samples, but no layer has seen a backward
                since the last call. Nothing is changed then, and the step is not counted.
        """
        step = self.steps + 1
        due = self.schedule.due(step)
        if due:
            update(self._slots, self.schedule, step, self._samples, self._generator)
        self.steps = step
        self._look_ahead()
        return due

    def _look_ahead(self) -> None:
        """Samples are kept on a step with an update behind it."""
        score = self.schedule.method.score
        wanted = self.schedule.due(self.steps + 1) and score in ("grad", "cosine")
        self._samples.clear()
        self._samples.wanted = score if wanted and score is not None else ""

    @property
    def density(self) -> float:
        """Share of the entries of all its layers that exist."""
        return sum(s.layer.pattern.nnz for s in self._slots) / sum(s.size for s in self._slots)

    @property
    def densities(self) -> dict[str, float]:
        """That of each layer, by its name."""
        return {slot.name: slot.layer.pattern.density for slot in self._slots}

    def compact_(self) -> None:
        """Shortens values and optimizer state to the edges that there are.

        Values have room for the edges of the beginning, so that they stay the same tensors while
        the density falls ("granet", "gmp"); an optimizer steps through the room as well. Parameters
        stay the same objects; DDP and ``torch.compile`` see tensors of another length.
        """
        for slot in self._slots:
            slot.compact()

    def close(self) -> None:
        """Takes its hooks off the layers, whose edges stay where they are from then on."""
        self._samples.close()

    def state_dict(self) -> dict[str, Any]:
        """Steps, random numbers and lengths. (Patterns are in the model's, moments in the
        optimizer's state_dict.)"""
        return {
            "method": self.method,
            "steps": self.steps,
            "generator": self._generator.get_state(),
            "capacities": {slot.name: slot.layer.values.shape[0] for slot in self._slots},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on where another was: load this first, then the model's, then the optimizer's.

        Raises:
            ValueError: of another method or other layers.
        """
        op = f"{_OP}.load_state_dict"
        if state_dict["method"] != self.method:
            fail(ValueError, op, "method", f"be {self.method!r}", repr(state_dict["method"]))
        capacities = state_dict["capacities"]
        names = [slot.name for slot in self._slots]
        if sorted(capacities) != sorted(names):
            fail(ValueError, op, "layers", f"be {names}", list(capacities))
        for slot in self._slots:
            # One that was compacted takes the length of what is loaded, with its pattern.
            slot.layer.infer |= slot.layer.values.shape[0] != capacities[slot.name]
        self.steps = state_dict["steps"]
        self._generator.set_state(state_dict["generator"])
        self._look_ahead()

    def __repr__(self) -> str:
        head = f"DynamicSparsity({self.method}, step {self.steps}, density {self.density:.4g})"
        lines = [
            f"  {slot.name}: {slot.layer.pattern.shape}, density {slot.layer.pattern.density:.4g}"
            for slot in self._slots
        ]
        return "\n".join([head, *lines])
