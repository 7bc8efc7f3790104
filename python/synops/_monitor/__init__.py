"""Monitor: dormant units, active units and effective rank, from the forwards that train anyway."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import nn

from .._check import fail
from ..nn import SparseLinear
from ..sparse import UnitStats
from . import _record
from ._watch import Watch

_RECTIFIERS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU,
    nn.SiLU, nn.Mish, nn.Hardswish,
)  # fmt: skip


class LayerReading(NamedTuple):
    """What one layer did in the forward that is read.

    Attributes:
        units: of the layer, times its calls in the forward.
        dormant: how many of them are; None for what is watched for its active units only.
        active: fraction of its outputs above 0; None for what is watched for dormant units only.
    """

    units: int
    dormant: int | None
    active: float | None


class Monitor:
    r"""Watches a model for loss of plasticity in its training forwards, at next to no cost.

    .. math:: \text{dormant ratio} = \frac{\#\{j : a_j < \tau\, \overline a\}}{\#\text{units}},
              \quad a_j = \tfrac 1 B \sum_b |y_{bj}|, \qquad
              \text{FAU} = \frac{\#\{h > 0\}}{\#\text{outputs}}

    with y the outputs of linear layers (pre-activations, the last layer's too), the mean of a taken
    over each layer, and h the outputs of activations. Hooks on the layers take
    :func:`synops.sparse.unit_stats` of each output in the forward; nothing waits for the device,
    and no graph or activation is kept. Replaces a second forward (DrM's ``cal_dormant_ratio``) and
    an ``.item()`` a layer (Adaptive RR).

    A reading is of the latest forward of ``model`` that was recorded: those are forwards with
    gradients, in training mode, so that neither acting nor targets get in between
    (``training_only=False`` records all). A layer that is called several times in a forward counts
    once for each call; a shared one has the first of its names. Where a part of the model is called
    by itself (``model.critic(x)``), the latest call of each of its layers counts. A forward that
    raises is dropped; what a backward recomputes (checkpointing) is not seen, and a reentrant
    checkpoint, which runs without gradients, only with ``training_only=False``.

    Copies of the model, and what ``torch.save`` makes of it, are not monitored. In
    DistributedDataParallel each process has the figures of its own batch; DataParallel raises. A
    model to be compiled has to be monitored before its first call, by torch's own rule for hooks.

    Args:
        model: any module.
        layers: names (as in ``model.named_modules()``) of those that count as to dormant units;
            default every ``nn.Linear`` and ``synops.nn.SparseLinear``. Units are the last dimension
            of an output. By Sokar et al. they are counted behind the activation: name these.
        activations: names of those that count as to active units; default every ReLU and its
            relatives that are modules. A ReLU that is called as a function is seen by naming the
            layer before it: what is above 0 there is above 0 behind it.
        every: record one in so many forwards of ``model``.
        effective_rank: True, or names: keep the outputs of all ``activations``, or of these layers,
            for :meth:`effective_rank`; they stay in memory until the next forward that is recorded.
        training_only: as above.

    Raises:
        TypeError, ValueError: an argument is none of these, or a layer has no units in its last
            dimension (convolutions).
        TypeError: in a forward, a layer's output is no floating point tensor.
        RuntimeError: in a forward, by DataParallel; on reading, nothing was recorded.

    Source: G. Xu et al., arXiv:2310.19668 (DrM); G. Ma et al., arXiv:2310.07418 (Adaptive RR); G.
    Sokar et al., arXiv:2302.12902 (dormant neurons); A. Kumar et al., arXiv:2010.14498 (srank).

    Example:
        >>> with synops.Monitor(agent) as monitor:
        ...     loss(agent(batch)).backward()
        ...     ratio = monitor.dormant_ratio()
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        layers: Iterable[str] | None = None,
        activations: Iterable[str] | None = None,
        every: int = 1,
        effective_rank: bool | Iterable[str] = False,
        training_only: bool = True,
    ):
        if not isinstance(model, nn.Module):
            fail(TypeError, "Monitor", "model", "be a module", type(model).__name__)
        if isinstance(every, bool) or not isinstance(every, int):
            fail(TypeError, "Monitor", "every", "be an int", type(every).__name__)
        if every < 1:
            fail(ValueError, "Monitor", "every", "be at least 1", every)
        model = getattr(model, "_orig_mod", model)  # of torch.compile
        if layers is None:
            layers = _names(model, lambda m: isinstance(m, nn.Linear | SparseLinear))
        if activations is None:
            activations = _names(model, _rectifies)
        self._layers = _chosen("layers", model, layers)
        self._activations = _chosen("activations", model, activations)
        ranked: Any = effective_rank
        if isinstance(effective_rank, bool):
            ranked = list(self._activations) if effective_rank else []
        self._ranked = _chosen("effective_rank", model, ranked)
        self._watch = Watch(
            model, self._layers, self._activations, self._ranked, every, bool(training_only)
        )
        self.attach()

    def attach(self) -> None:
        """Watches again, after :meth:`close`; a new Monitor does already."""
        self._watch.attach()

    def close(self) -> None:
        """Leaves the model as it was; what was recorded can still be read."""
        self._watch.detach()

    def reset(self) -> None:
        """Forgets what was recorded."""
        self._watch.latest = _record.Record()

    def __enter__(self) -> Monitor:
        self.attach()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def dormant_ratio(self, tau: float = 0.025) -> float:
        """Fraction of all units of ``layers`` whose mean magnitude is below tau times that of the
        mean unit of their layer. Waits for the device, as all that follow."""
        readings = [r for r in self.per_layer(tau).values() if r.dormant is not None]
        units = sum(r.units for r in readings)
        return sum(r.dormant or 0 for r in readings) / units if units else 0.0

    def fau(self) -> float:
        """Fraction of active units: of all outputs of ``activations``, those above 0."""
        calls = [seen for name in self._activations for seen in self._calls().get(name, [])]
        outputs = sum(seen.rows * len(seen.stats.positive) for seen in calls)
        if not outputs:
            raise RuntimeError("Monitor: no layer among `activations` was recorded")
        return sum(_record.read([_record.active(seen) for seen in calls])) / outputs

    def per_layer(self, tau: float = 0.025) -> dict[str, LayerReading]:
        """A :class:`LayerReading` of each layer that was called, by name."""
        calls = self._calls()
        names = (name for name, _ in self._watch.model.named_modules(remove_duplicate=False))
        watched = {**self._layers, **self._activations}
        of_layer = {name: calls[name] for name in names if name in watched and name in calls}
        counts = [
            function(seen)
            for seen_of in of_layer.values()
            for seen in seen_of
            for function in (lambda seen: _record.dormant(seen, tau), _record.active)
        ]
        numbers = iter(_record.read(counts))
        readings = {}
        for name, seen_of in of_layer.items():
            units = sum(len(seen.stats.positive) for seen in seen_of)
            outputs = sum(len(seen.stats.positive) * seen.rows for seen in seen_of)
            pairs = [(next(numbers), next(numbers)) for _ in seen_of]
            sleeps = int(sum(pair[0] for pair in pairs)) if name in self._layers else None
            above = sum(pair[1] for pair in pairs) / max(1, outputs)
            readings[name] = LayerReading(
                units, sleeps, above if name in self._activations else None
            )
        return readings

    def stats(self) -> dict[str, UnitStats]:
        """Of each of ``layers`` the statistics of its units in its last call, on its device."""
        calls = self._calls()
        return {name: calls[name][-1].stats for name in self._layers if name in calls}

    def effective_rank(self, delta: float = 0.01) -> dict[str, int]:
        """srank of the outputs of each layer that they are kept of, in its last call: how many of
        the largest singular values make up ``1 - delta`` of their sum.

        Raises:
            RuntimeError: what was kept was changed in place by what came behind it (a ReLU with
                ``inplace=True``, whose own output can be named instead).
        """
        if not self._ranked:
            raise RuntimeError("Monitor: effective_rank=True, or names, must be asked for first")
        if not 0 <= delta < 1:
            fail(ValueError, "Monitor", "delta", "lie in [0, 1)", delta)
        self._calls()
        ranks = {}
        for name, kept in self._watch.latest.features.items():
            output, version = kept[-1]
            if version is not None and output._version != version:
                what = "was changed in place after the layer; name what changed it instead"
                raise RuntimeError(f"Monitor: the output of layer {name!r} {what}")
            ranks[name] = _record.effective_rank(output, delta)
        return ranks

    def _calls(self) -> dict[str, list[_record.Seen]]:
        if not (self._watch.latest.calls or self._watch.latest.features):
            raise RuntimeError(
                "Monitor: nothing was recorded: no forward in training mode with gradients since "
                "(training_only=False takes others, too), or one that was compiled before"
            )
        return self._watch.latest.calls


def _rectifies(module: nn.Module) -> bool:
    return isinstance(module, _RECTIFIERS) or (
        bool(getattr(module, "activation", None)) and (isinstance(module, SparseLinear))
    )


def _names(model: nn.Module, fits: Any) -> list[str]:
    return [name for name, module in model.named_modules() if fits(module)]


def _chosen(argument: str, model: nn.Module, names: Any) -> dict[str, nn.Module]:
    """The modules of these names, each once."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        fail(TypeError, "Monitor", argument, "be names of layers", repr(names))
    every = dict(model.named_modules(remove_duplicate=False))
    chosen: dict[str, nn.Module] = {}
    for name in names:
        if name not in every:
            rule = "be names as in model.named_modules()"
            fail(ValueError, "Monitor", argument, rule, repr(name))
        module = every[name]
        if argument == "layers" and isinstance(module, nn.modules.conv._ConvNd):
            rule = f"have units in their last dimension, unlike {type(module).__name__}"
            fail(ValueError, "Monitor", argument, rule, repr(name))
        if not any(module is other for other in chosen.values()):
            chosen[name] = module
    return chosen
