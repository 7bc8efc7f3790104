"""prune_and_grow: one step of dynamic sparse training: some weights leave, others begin at 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._check import check_device, check_float, check_shape, check_tensor, dtype_name, fail
from ._grow_topk import Growth, check_entries
from ._magnitude_threshold import check_count, magnitude_threshold
from ._pattern import Pattern
from ._rewiring_ops import carry, grow_dense, rewire, without

_OP = "prune_and_grow"


class Rewired(NamedTuple):
    """A layer after some of its entries left and others came.

    Attributes:
        pattern: the new :class:`Pattern`, of the old one's capacity.
        values: ``(capacity,)``, in the order of the new pattern: 0 at what grew, and behind nnz.
        state: the same of every tensor of ``state``.
        origin: ``(nnz,)``, int32: where an entry was among the old values, -1 where it grew.
    """

    pattern: Pattern
    values: Tensor
    state: tuple[Tensor, ...]
    origin: Tensor


def prune_and_grow(
    values: Tensor,
    pattern: Pattern,
    prune: int | float | Tensor,
    grow: Growth | Tensor | None = None,
    *,
    state: Sequence[Tensor] = (),
    backend: str | None = None,
) -> Rewired:
    """A sparse layer without some of its entries, and with others.

    Same numbers as

        weight, grad = pattern.scatter(values), grad.abs()
        left = weight.abs()[mask].topk(k, largest=False).indices       # of the entries, in order
        mask[tuple(mask.nonzero()[left].t())] = False
        mask.view(-1)[grad.masked_fill(mask, -1).flatten().topk(k).indices] = True
        weight, exp_avg, exp_avg_sq = weight * mask, exp_avg * mask, exp_avg_sq * mask

    for ``prune=k, grow=grad``, on values in place of matrices. Nothing is changed in place, and
    what is wrong raises before anything is computed from it: the caller has the old layer or the
    new one. ``values`` may be a Parameter; to go on with it, copy the result into it under
    ``torch.no_grad()``, and ``state`` into its optimizer's.

    An edge that is pruned and grown in the same call keeps its value and state, as in the official
    codes of RigL and GraNet. All that grows otherwise begins at 0.

    Args:
        values: ``(capacity,)`` of the pattern, float32, float64, bfloat16 or float16. What lies
            behind nnz is not read.
        pattern: :class:`Pattern` of shape ``(out, in)``.
        prune: how many entries leave, those with the smallest magnitude; as a float in [0, 1] a
            fraction of nnz, rounded as in ``torch.nn.utils.prune``; or ``(nnz,)``, bool, True for
            those that do. Of equal magnitudes the later positions leave first, NaN before all.
        grow: the edges that come. A :class:`Growth`, as :func:`grow_topk` with ``pruned=`` returns
            it; or positions ``output * in + input``, int64 and ascending, each absent or pruned in
            this call; or a matrix ``(out, in)``, the dense gradient: then as many come as left,
            those with its largest magnitudes among what is absent or was just pruned (of equal ones
            the lower positions, NaN last). None: nothing grows.
        state: tensors like ``values``, of any of these dtypes (the moments of an optimizer).
        backend: ``"auto"``, ``"cpp"``, ``"triton"`` or ``"reference"``; default as chosen by
            :func:`synops.backend`.

    Returns:
        :class:`Rewired`. No gradient.

    Raises:
        TypeError: an argument is no tensor, Pattern or number, or of another dtype.
        ValueError: a shape, device, count or position is wrong, or more entries come than
            ``capacity`` has room for.
        RuntimeError: ``backend`` cannot run here.

    Source: U. Evci et al., arXiv:1911.11134 (RigL, ``_get_update_op`` of its code); S. Liu et al.,
    arXiv:2106.10404 (GraNet); D. Mocanu et al., arXiv:1707.04780 (SET).
    """
    if not isinstance(pattern, Pattern):
        fail(TypeError, _OP, "pattern", "be a synops.sparse.Pattern", type(pattern).__name__)
    state = _checked_like_values(values, pattern, state)
    if isinstance(prune, Tensor):
        check_entries(_OP, "prune", prune, pattern)
        leaves, count = prune, int(prune.count_nonzero())
    else:
        count = check_count(_OP, "prune", prune, pattern.nnz)
        leaves = None  # found once the rest is known to be right
    edges = _checked_grow(grow, pattern, count)
    come = count if edges is None else edges.shape[0]
    if pattern.nnz - count + come > pattern.capacity:
        rule = f"leave at most capacity = {pattern.capacity} entries"
        fail(ValueError, _OP, "grow", rule, pattern.nnz - count + come)

    if leaves is None:
        leaves = _smallest(values.detach()[: pattern.nnz], count, backend)
    old = pattern.crow, pattern.col, pattern.shape[1]
    if edges is None:
        assert isinstance(grow, Tensor)
        entries = pattern.crow, pattern.col, leaves
        edges = grow_dense(grow.detach(), *entries, count, backend=backend)[0]
    try:
        crow, col, origin = rewire(*old, leaves, edges, backend=backend)
    except RuntimeError:
        _check_edges(edges, leaves, pattern)
        raise
    new = Pattern._planned(_OP, crow, col, pattern.shape, pattern.capacity)
    carried = tuple(carry(t.detach(), origin, backend=backend) for t in (values, *state))
    return Rewired(new, carried[0], carried[1:], origin)


def _checked_like_values(values: Any, pattern: Pattern, state: Any) -> tuple[Tensor, ...]:
    """``state`` as a tuple; it and values are numbers of the pattern's entries."""
    if isinstance(state, Tensor) or not isinstance(state, Sequence):
        fail(TypeError, _OP, "state", "be a sequence of tensors", type(state).__name__)
    named = [("values", values), *((f"state[{i}]", t) for i, t in enumerate(state))]
    for name, t in named:
        check_float(_OP, name, t)
        check_shape(_OP, name, t, "(capacity,)", (pattern.capacity,))
        check_device(_OP, name, t, pattern.col, "the Pattern")
    return tuple(state)


def _checked_grow(grow: Any, pattern: Pattern, count: int) -> Tensor | None:
    """The edges that grow, which may still be wrong ones; None: from a matrix, ``count`` of them.

    Their order and places are checked as they are used; see :func:`_check_edges`.
    """
    if grow is None:
        return pattern.crow.new_empty(0, dtype=torch.int64)
    edges = grow.edges if isinstance(grow, Growth) else grow
    check_tensor(_OP, "grow", edges)
    check_device(_OP, "grow", edges, pattern.col, "the Pattern")
    if edges.dtype == torch.int64:
        if edges.dim() != 1:
            fail(ValueError, _OP, "grow", "have shape (k,)", tuple(edges.shape))
        return edges.contiguous()
    if not edges.is_floating_point():
        fail(TypeError, _OP, "grow", "be int64 positions or a matrix", dtype_name(edges.dtype))
    check_float(_OP, "grow", edges)
    check_shape(_OP, "grow", edges, "(out, in)", pattern.shape)
    return None


def _smallest(values: Tensor, count: int, backend: str | None) -> Tensor:
    """True for the ``count`` smallest magnitudes; of equal ones the last, and NaN before all."""
    keep = values.shape[0] - count
    if keep == 0:  # no threshold is above inf
        return torch.ones_like(values, dtype=torch.bool)
    threshold = magnitude_threshold(values, keep, backend=backend)
    size = values.abs()
    leaves = size < threshold
    more = count - int(leaves.count_nonzero())
    if more == 0:
        return leaves  # as a rule: nothing is equal to the threshold but one, and there is no NaN
    leaves |= size.isnan()
    more = count - int(leaves.count_nonzero())
    if more > 0:
        leaves[(size == threshold).nonzero()[-more:, 0]] = True
    elif more < 0:  # among NaN, the first ones stay
        leaves[size.isnan().nonzero()[:-more, 0]] = False
    return leaves


def _check_edges(edges: Tensor, leaves: Tensor, pattern: Pattern) -> None:
    """Raises for the first position that cannot grow."""
    rows, cols = pattern.shape
    outside = ((edges < 0) | (edges >= rows * cols)).nonzero()
    if outside.numel():
        at = int(outside[0])
        rule = f"lie in [0, out * in) = [0, {rows * cols})"
        fail(ValueError, _OP, "grow", rule, f"{int(edges[at])} at position {at}")
    descents = (edges.diff() <= 0).nonzero()
    if descents.numel():
        at = int(descents[0]) + 1
        got = f"{int(edges[at])} at position {at} after {int(edges[at - 1])}"
        fail(ValueError, _OP, "grow", "ascend strictly", got)
    crow, col = without(pattern.crow, pattern.col, cols, leaves)
    row = torch.repeat_interleave(torch.arange(rows, device=col.device), crow.diff().long())
    present = torch.isin(edges, row * cols + col).nonzero()
    if present.numel():
        at = int(present[0])
        rule = "be edges that the pattern lacks or that leave in this call"
        fail(ValueError, _OP, "grow", rule, f"{int(edges[at])} at position {at}, which stays")
