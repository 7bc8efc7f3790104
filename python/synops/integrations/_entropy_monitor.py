"""EntropyMonitor: means and minima of attention entropies, taken while a model runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback

from .._check import fail

NAME = "synops"  # the attn_implementation

LogFn = Callable[[dict[str, float], int], object]


@dataclass
class _Rows:
    """What was seen of one attention module, on its device."""

    total: Tensor  # (H,), float64
    count: Tensor  # (), float64
    least: Tensor  # (H,)


class EntropyMonitor(TrainerCallback):
    """Mean and least attention entropy of every layer and head, of all that a model computes.

    Use it as a context manager, or among the ``callbacks`` of a ``Trainer`` (from the beginning of
    training to its end; on every log of the trainer it calls ``log_fn`` and starts anew). The model
    must run with ``attn_implementation="synops"``; its results stay as they are. Padded rows do not
    count: those that are 0 in the ``attention_mask`` ``(B, N)`` of the innermost model around a
    layer (of a decoder, its own). Where that has another shape or length (4 dimensions; wav2vec
    2.0, which shortens its sequence), a row is padding that no row sees as a key.

    Values stay on the device of the layer until they are read. They are those of this process. What
    is recomputed in a backward (gradient checkpointing) counts once; such a backward belongs inside
    the ``with`` too, so that it recomputes what the forward computed. Compiled code is not seen.
    A ``Trainer`` that fails says nothing to its callbacks: ``with monitor: trainer.train()`` ends
    the watching there too.

    Args:
        model: of transformers, or a module that holds one (PEFT, DistributedDataParallel); a part
            that is a model by itself, as ``model.encoder`` of T5, is watched alone.
        log_fn: of a dict of floats and a step, as ``wandb.log``; for the callback, see :meth:`log`.

    Attributes:
        names: of the attention modules that ran, in the model's order. A module that a model
            calls several times (ALBERT) is one.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: on entering, no part of it runs with ``attn_implementation="synops"``.
        RuntimeError: entered twice, or read before anything ran.

    Replaces: ``output_attentions=True`` with eager attention, and a hook that reduces the maps.
    """

    def __init__(self, model: nn.Module, *, log_fn: LogFn | None = None):
        if not isinstance(model, nn.Module):
            fail(TypeError, "EntropyMonitor", "model", "be a module", type(model).__name__)
        self.model = model
        self.log_fn = log_fn
        self._rows: dict[nn.Module, _Rows] = {}
        self._masks: list[Any] = []  # attention_mask of each model that runs, innermost last
        self._hooks: list[Any] = []

    def __enter__(self) -> EntropyMonitor:
        if self._hooks:
            raise RuntimeError("EntropyMonitor: is active already")
        modules = list(self.model.modules())
        models = [module for module in modules if isinstance(module, PreTrainedModel)]
        if NAME not in {model.config._attn_implementation for model in models}:
            rule = f"be or hold a transformers model with attn_implementation={NAME!r}"
            fail(ValueError, "EntropyMonitor", "model", rule, type(self.model).__name__)
        for model in models:
            self._hooks += [
                model.register_forward_pre_hook(self._begin, with_kwargs=True),
                model.register_forward_hook(self._end, always_call=True),
            ]
        for module in modules:
            observers.setdefault(module, []).append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        for hook in self._hooks:
            hook.remove()
        for module in list(observers):
            if self in observers[module]:
                observers[module].remove(self)
            if not observers[module]:
                del observers[module]
        self._hooks.clear()
        self._masks.clear()

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = dict(zip(inspect.signature(module.forward).parameters, args, strict=False)) | kwargs
        self._masks.append(named.get("attention_mask"))

    def _end(self, *_: object) -> None:
        self._masks.pop()

    @torch.no_grad()
    def observe(self, module: nn.Module, entropy: Tensor, mask: Tensor | None) -> None:
        """Adds the entropies ``(B, H, N)`` of one call, made under ``mask`` ``(B or 1, ., N, M)``.

        Called by the attention itself.
        """
        if not self._masks:  # outside of a forward: a backward that recomputes it
            return
        real = _real_rows(entropy, self._masks[-1], mask)
        rows = self._rows.get(module)
        if rows is None:
            total = entropy.new_zeros(entropy.shape[1], dtype=torch.float64)
            least = torch.full_like(total, torch.inf, dtype=entropy.dtype)
            rows = self._rows[module] = _Rows(total, total.new_zeros(()), least)
        kept = entropy if real is None else entropy.where(real, 0)
        candidates = entropy if real is None else entropy.where(real, torch.inf)
        # not in place: they may have been made in inference_mode
        rows.total = rows.total + kept.sum((0, 2), dtype=torch.float64)
        seen = entropy.shape[0] * entropy.shape[2] if real is None else real.sum()
        rows.count = rows.count + seen
        rows.least = torch.minimum(rows.least, candidates.amin((0, 2)))

    @property
    def names(self) -> list[str]:
        """Of the rows of :attr:`mean` and :attr:`min`."""
        return [name for name, module in self.model.named_modules() if module in self._rows]

    @property
    def mean(self) -> Tensor:
        """Mean entropy over all rows so far, ``(layers, heads)``, float32 on the CPU; nats."""
        return self._table(lambda rows: rows.total / rows.count)

    @property
    def min(self) -> Tensor:
        """Entropy of the most focused row so far, ``(layers, heads)``, float32 on the CPU; nats."""
        return self._table(lambda rows: rows.least)

    def _table(self, column: Callable[[_Rows], Tensor]) -> Tensor:
        if not self._rows:
            raise RuntimeError("EntropyMonitor: nothing ran yet")
        seen = [column(self._rows[m]).cpu() for m in self.model.modules() if m in self._rows]
        heads = [len(row) for row in seen]
        if len(set(heads)) > 1:
            rule = "have as many heads in all layers (watch a part, as model.encoder)"
            fail(ValueError, "EntropyMonitor", "model", rule, heads)
        return torch.stack(seen).float()

    def reset(self) -> None:
        """Forgets what was seen."""
        self._rows.clear()

    def log(self, log_fn: LogFn, step: int = 0) -> None:
        """Calls ``log_fn(values, step)`` with three floats a layer.

        ``attention_entropy/<name>/mean`` (over heads), ``.../lowest_head`` (the least of the heads'
        means: a head that collapses shows here) and ``.../min`` (of any row). Reading them waits
        for the device.
        """
        values = {}
        for name, mean, least in zip(self.names, self.mean, self.min, strict=True):
            values[f"attention_entropy/{name}/mean"] = float(mean.mean())
            values[f"attention_entropy/{name}/lowest_head"] = float(mean.min())
            values[f"attention_entropy/{name}/min"] = float(least.min())
        log_fn(values, step)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Event of the Trainer."""
        if not self._hooks:
            self.__enter__()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Event of the Trainer."""
        if self.log_fn is not None and self._rows:
            self.log(self.log_fn, state.global_step)
            self.reset()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Event of the Trainer."""
        self.__exit__()


# Who watches an attention module: looked up at each of its calls, empty when nobody watches.
observers: dict[nn.Module, list[EntropyMonitor]] = {}


def _real_rows(entropy: Tensor, padding: Any, mask: Tensor | None) -> Tensor | None:
    """bool ``(B, 1, N)``: which rows are no padding; None for all."""
    batch, _, rows = entropy.shape
    if padding is None:
        return None
    keys = padding.shape[-1] if mask is None else mask.shape[-1]
    if padding.dim() == 2 and rows <= padding.shape[1] <= max(rows, keys):
        return padding[:, None, -rows:].bool()  # the last: those before are in the cache
    if mask is None:  # transformers makes none where nothing is padded
        return None
    sees = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min
    real = sees.any(-2 if rows == keys else -1)
    return real.any(1, keepdim=True).expand(batch, 1, rows)
