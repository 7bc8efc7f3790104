"""One update of the edges of all layers: computed for all, then taken over by all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..sparse import Pattern, Rewired, grow_topk, magnitude_threshold, prune_and_grow
from ..sparse._prune_and_grow import _smallest
from ._layers import Slot
from ._samples import Samples
from ._schedule import Schedule


def update(
    slots: Sequence[Slot],
    schedule: Schedule,
    step: int,
    samples: Samples,
    generator: torch.Generator,
) -> None:
    """Prunes and grows. If anything raises, nothing has changed."""
    patterns = [slot.layer.pattern for slot in slots]
    drafts = [_as_is(slot, p) for slot, p in zip(slots, patterns, strict=True)]
    target = schedule.target(step)
    if target is not None:
        drafts = _pruned(slots, drafts, target)
    score = schedule.method.score
    if score is not None:
        # All layers' first: with several processes this is where they meet.
        pairs = [_pair(slot, score, samples) for slot in slots]
        if not any(pairs):
            raise RuntimeError(
                "DynamicSparsity.step: it is time to grow edges, but no layer has seen a forward "
                "and a backward since the last call"
            )
        drafts = [
            draft if pair is None else _moved(draft, pair, score, schedule, step, generator)
            for draft, pair in zip(drafts, pairs, strict=True)
        ]
    for slot, draft, old in zip(slots, drafts, patterns, strict=True):
        if draft.pattern is not old:
            slot.rewire(draft)


def _as_is(slot: Slot, pattern: Pattern) -> Rewired:
    """Every value where it was."""
    values = slot.layer.values.detach()
    origin = torch.arange(pattern.nnz, dtype=torch.int32, device=values.device)
    return Rewired(pattern, values, tuple(slot.state().values()), origin)


def _pruned(slots: Sequence[Slot], drafts: list[Rewired], density: float) -> list[Rewired]:
    """The largest magnitudes of all layers together remain."""
    keep = int(density * sum(slot.size for slot in slots))
    values = [d.values[: d.pattern.nnz] for d in drafts]
    if keep >= sum(v.shape[0] for v in values):
        return drafts
    threshold = magnitude_threshold(values, keep, strict=True)
    # A NaN goes, too: it is above nothing.
    return [
        prune_and_grow(d.values, d.pattern, ~(v.abs() > threshold), state=d.state)
        for d, v in zip(drafts, values, strict=True)
    ]


def _pair(slot: Slot, score: str, samples: Samples) -> tuple[Tensor | None, Tensor | None] | None:
    """What the layer's edges are scored by; None: it took no part in the step."""
    return (None, None) if score == "random" else samples.of(slot.layer)


def _moved(
    draft: Rewired,
    pair: tuple[Tensor | None, Tensor | None],
    score: str,
    schedule: Schedule,
    step: int,
    generator: torch.Generator,
) -> Rewired:
    """The layer's smallest magnitudes give way to as many new edges."""
    pattern = draft.pattern
    count = schedule.moving(step, pattern.nnz)
    if count == 0 or pattern.density == 1:
        return draft
    pruned = _smallest(draft.values[: pattern.nnz], count, None)
    growth = grow_topk(*pair, pattern, count, score, pruned=pruned, generator=generator)
    return prune_and_grow(draft.values, pattern, pruned, growth, state=draft.state)
