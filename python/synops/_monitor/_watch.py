"""Hooks that record what the layers of a model do in a forward."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from .._check import FLOATS, dtype_name, fail
from ..sparse import unit_stats
from ._record import Features, Record, Seen

_is_compiling = torch.compiler.is_compiling
_SAME_SIGN = (nn.ReLU, nn.ReLU6)  # above 0 exactly where their input is


class Hook:
    """A hook that stays with its model: that of a copy, or of one that was saved, does nothing.

    What it is pickled as needs no synops to load.
    """

    def __init__(self, function: Any = None):
        self.function = function

    def __call__(self, *args: Any) -> None:
        self.function(*args)

    def __reduce__(self) -> Any:
        return getattr, (nullcontext(), "__exit__")


class LayerHook(Hook):
    """Records the calls of one layer.

    Between products that have the caches to themselves every line of this is a few cache misses: a
    branch that a layer does not need is decided when it is made.
    """

    def __init__(self, watch: Watch, name: str, module: nn.Module):
        super().__init__()
        self.watch, self.name = watch, name
        self.keeps, self.counts = name in watch.kept, name in watch.counted
        self.same_sign = type(module) in _SAME_SIGN and name not in watch.full

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        watch = self.watch
        if watch.passes or (
            watch.training_only and not (module.training and torch.is_grad_enabled())
        ):
            return
        if "_is_replica" in module.__dict__:
            raise RuntimeError("Monitor: DataParallel is not supported; DistributedDataParallel is")
        if not isinstance(output, Tensor) or output.dtype not in FLOATS or not output.dim():
            self._refuse(output)
        compiling = _is_compiling()
        record = watch.now
        if record is None:
            if not compiling and torch._C._current_graph_task_id() != -1:
                return  # a backward that computes a forward again
            record = watch.latest
            record.calls.pop(self.name, None)
            record.features.pop(self.name, None)
        version = None if compiling or output.is_inference() else output._version
        if self.keeps:
            kept = Features(output.detach(), version)
            record.features.setdefault(self.name, []).append(kept)
        if not self.counts:
            return
        seen = self._seen_before(module, args) if self.same_sign and not compiling else None
        if seen is None:
            seen = Seen(unit_stats(output), output.shape[:-1].numel())
        record.calls.setdefault(self.name, []).append(seen)
        if version is not None and watch.now is not None:
            watch.before = output, version, seen

    def _seen_before(self, module: nn.Module, args: Any) -> Seen | None:
        """What is known of the input of a ReLU, where that is what the layer before returned."""
        if self.watch.before is None or not args or args[0] is not self.watch.before[0]:
            return None
        output, version, seen = self.watch.before
        changed = output._version - version - module.inplace  # type: ignore[operator]
        return None if changed else seen

    def _refuse(self, output: Any) -> None:
        got = dtype_name(output.dtype) if isinstance(output, Tensor) else type(output).__name__
        rule = "return a floating point tensor (..., units)"
        fail(TypeError, "Monitor", f"layer {self.name!r}", rule, got)


class Watch:
    """Records the latest forward of a model.

    Args:
        model: whose forwards are records; a layer that is called outside of one replaces what the
            record has of it.
        full: layers whose statistics are wanted; of ``positive`` how often outputs are above 0 is
            enough, which a ReLU behind a layer of either kind has in common with it; of ``kept``
            the outputs. All by name.
        every, training_only: as in :class:`synops.Monitor`.
    """

    def __init__(
        self,
        model: nn.Module,
        full: Mapping[str, nn.Module],
        positive: Mapping[str, nn.Module],
        kept: Mapping[str, nn.Module],
        every: int,
        training_only: bool,
    ):
        self.model, self.full, self.kept = model, full, kept
        self.counted = {**positive, **full}
        self.every, self.training_only = every, training_only
        self.latest = Record()
        self._handles: list[Any] = []
        self._closed = True
        self._forget()

    def _forget(self) -> None:
        """No forward runs."""
        self.now: Record | None = None  # of the forward that runs
        self.passes = self._closed  # that forward is not one to be recorded
        self.before: tuple[Tensor, int, Seen] | None = None  # what the layer before returned
        self._left = 0  # forwards that pass before the next that is recorded

    def attach(self) -> None:
        if self._handles:
            return
        self._closed = False
        self._forget()
        self._handles.append(self.model.register_forward_pre_hook(Hook(self._begin), prepend=True))
        for name, module in {**self.kept, **self.counted}.items():
            self._handles.append(module.register_forward_hook(LayerHook(self, name, module)))
        end = self.model.register_forward_hook(Hook(self._end), always_call=True)
        self._handles.append(end)

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._closed = True  # to what was compiled while hooks were there, too
        self._forget()

    def _begin(self, module: nn.Module, args: Any) -> None:
        self.now, self.before = Record(), None
        trains = module.training and torch.is_grad_enabled()
        if self.every > 1 and (trains or not self.training_only):
            self.passes = self._closed or self._left > 0
            self._left = (self._left or self.every) - 1

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        now = self.now  # without an output the forward raised
        if now is not None and output is not None and (now.calls or now.features):
            self.latest = now
        self.now = self.before = None
        self.passes = self._closed
