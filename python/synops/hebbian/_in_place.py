"""What a rule writes in place wants no gradient and shares no memory."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .._check import fail
from .._library import _functorch_active, _modes

APART = "share no memory with another argument"
PLAIN = (Tensor, torch.nn.Parameter)
_FIRST = operator.itemgetter(0)


def check_written(
    op: str, written: Mapping[str, Tensor | None], read: Sequence[Tensor | None]
) -> None:
    """Nothing of ``written`` requires grad in grad mode, or overlaps itself or another tensor.

    What is only ``read`` may share memory among itself. Memory is not looked at where tensors have
    none: compiled, mapped, fake, meta.
    """
    grad = torch.is_grad_enabled()
    hidden = torch.compiler.is_compiling() or _functorch_active() or _modes() > 0
    for name, t in written.items():
        if t is None:
            continue
        if grad and t.requires_grad:
            rule = "not require grad, or be updated under torch.no_grad()"
            fail(ValueError, op, name, rule, "one that does")
        hidden = hidden or t.is_meta or type(t) not in PLAIN
    if hidden:
        return
    for name, t in written.items():
        if t is None or t.is_contiguous():
            continue
        if torch._debug_has_internal_overlap(t) == 1:
            fail(ValueError, op, name, "not overlap itself", f"strides {t.stride()}")
    end = 0  # of those before, in the order of their addresses: one look at each, 3 us in all
    found = [(t.data_ptr(), t) for t in (*written.values(), *read) if t is not None]
    for first, t in sorted(found, key=_FIRST):
        if first < end:
            _check_pairs(op, written, read)
            break
        end = first + _reach(t)


def as_it_is(weight: Tensor) -> bool:
    """Whether an op can write it: rows of contiguous elements that do not overlap."""
    return weight.is_contiguous() or (
        weight.dim() == 2 and weight.stride(1) == 1 and weight.stride(0) >= weight.shape[1]
    )


def _check_pairs(
    op: str, written: Mapping[str, Tensor | None], read: Sequence[Tensor | None]
) -> None:
    spans = [
        None if t is None else (t.data_ptr(), t.data_ptr() + _reach(t))
        for t in (*written.values(), *read)
    ]
    for i, name in enumerate(written):
        if (mine := spans[i]) is None:
            continue
        for theirs in spans[i + 1 :]:
            if theirs is not None and mine[0] < theirs[1] and theirs[0] < mine[1]:
                fail(ValueError, op, name, APART, "one that does")


def _reach(t: Tensor) -> int:
    """Bytes from the first element of ``t`` to behind the last."""
    if t.is_contiguous() or not t.numel():
        return t.nbytes
    last = sum((n - 1) * step for n, step in zip(t.shape, t.stride(), strict=True))
    return (last + 1) * t.element_size()
