"""Statistics of a softmax: their names, the mask by which an op is asked for them, the answer, and
checks of what they are computed with.

With p = softmax(s) and nats throughout:

    logprob     log p of the label (token statistics)
    entropy     H = -sum p log p
    varentropy  sum p (log p)^2 - H^2, the variance of log p
    lse         log sum exp s
    max_prob    max p (no gradient)
    collision   sum p^2
    plogp2      sum p^2 log p (no gradient)
    received    sums of p over the rows: what each key receives (attention only)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .._check import fail
from .._library import traced

NAMES = (
    "logprob", "entropy", "varentropy", "lse", "max_prob", "collision", "plogp2", "received",
)  # fmt: skip
BIT = {name: 1 << i for i, name in enumerate(NAMES)}


class Stats(NamedTuple):
    """What was asked for, in float32 (float64 for float64 input); None for the rest."""

    logprob: Tensor | None = None
    entropy: Tensor | None = None
    varentropy: Tensor | None = None
    lse: Tensor | None = None
    max_prob: Tensor | None = None
    collision: Tensor | None = None
    plogp2: Tensor | None = None
    received: Tensor | None = None


def mask_of(op: str, stats: Sequence[str] | str, known: Sequence[str]) -> int:
    """The bits of ``stats``, each one of ``known``.

    Raises:
        TypeError: not strings.
        ValueError: none of ``known``, or no statistic at all.
    """
    asked = (stats,) if isinstance(stats, str) else stats
    try:
        asked = tuple(asked)
    except TypeError:
        fail(TypeError, op, "stats", "be names of statistics", type(stats).__name__)
    mask = 0
    for name in asked:
        if not isinstance(name, str):
            fail(TypeError, op, "stats", "be names of statistics", type(name).__name__)
        if name not in known:
            fail(ValueError, op, "stats", f"be of {', '.join(known)}", repr(name))
        mask |= BIT[name]
    return mask


def check_labels(op: str, labels: Tensor, size: int, ignore_index: int) -> None:
    """In [0, size) or ignored; looked at on the CPU, where that costs no synchronisation."""
    if not labels.is_cpu or not labels.numel() or traced(labels):
        return
    low, high = torch.aminmax(labels)
    if low >= 0 and high < size:
        return
    wrong = labels[((labels < 0) | (labels >= size)) & (labels != ignore_index)]
    if wrong.numel():
        rule = f"lie in [0, {size}) or be ignore_index ({ignore_index})"
        fail(IndexError, op, "labels", rule, int(wrong[0]))


def check_temperature(op: str, temperature: float) -> None:
    """A positive, finite number."""
    if not isinstance(temperature, (int, float)) or isinstance(temperature, bool):
        fail(TypeError, op, "temperature", "be a number", type(temperature).__name__)
    if not (temperature > 0 and math.isfinite(temperature)):
        fail(ValueError, op, "temperature", "be positive and finite", temperature)


def asked_for(
    op: str, labels: Tensor | None, stats: Sequence[str] | str | None, known: Sequence[str]
) -> int:
    """The bits of ``stats``, or of what is computed when nothing is said."""
    if stats is None:
        return BIT["entropy"] | (BIT["logprob"] if labels is not None else 0)
    mask = mask_of(op, stats, known)
    if labels is None and mask & BIT["logprob"]:
        fail(ValueError, op, "labels", "be given for logprob", None)
    return mask
