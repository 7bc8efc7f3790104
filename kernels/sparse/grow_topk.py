"""grow_topk (CUDA): scores of absent edges by strips of outputs, the best k carried along.

The product is torch's own, whose strip of scores stays in L2: a kernel of ours would be fused with
no more than an absolute value. A strip is sorted together with the best so far; a stable sort
leaves equal scores in the order of their positions. The strip is the only buffer beside the
operands, and the host waits for nothing.

Not measured: the strip is from the size of L2, no GPU was at hand.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from synops._reference.sparse import grow_topk as reference
from synops._reference.sparse.pattern import rows_of

from ..common.launch import require, require_floats, require_index

_STRIP = 1 << 23  # scores: 32 MB of the 50 MB of L2 that Hopper has


def grow_topk(
    grad_output: Tensor | None,
    input: Tensor | None,
    crow: Tensor,
    col: Tensor,
    in_features: int,
    k: int,
    score: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    op = "grow_topk"
    _check(op, crow, col, in_features, k)
    outputs, present = crow.shape[0] - 1, rows_of(crow, col) * in_features + col.long()
    if score == reference.RANDOM:

        def noise(first: int, last: int) -> Tensor:
            return reference.noise(seed, first * in_features, last * in_features, crow.device)

        return _best(noise, torch.float32, present, outputs, in_features, k)
    require(grad_output is not None and input is not None, op, "tensors are missing")
    assert grad_output is not None
    assert input is not None
    require_floats(op, input, grad_output)
    require(input.device == crow.device, op, "tensors must be on one device")
    sides = [(input.shape[0], outputs), (input.shape[0], in_features)]
    require([grad_output.shape, input.shape] == sides, op, f"shapes must be {sides}")
    post, pre = reference.sides(grad_output, input, score)

    def products(first: int, last: int) -> Tensor:
        scores = (post[:, first:last].t() @ pre).flatten()
        return _ranked(scores.abs_() if score == reference.GRAD else scores)

    return _best(products, pre.dtype, present, outputs, in_features, k)


def grow_topk_dense(
    scores: Tensor, crow: Tensor, col: Tensor, pruned: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    op = "grow_topk_dense"
    require_floats(op, scores)
    require(scores.dim() == 2, op, "scores must have 2 dimensions")
    require(
        pruned.dtype == torch.bool and pruned.shape == col.shape and pruned.device == crow.device,
        op,
        f"pruned must be bool of shape {tuple(col.shape)} on {crow.device}",
    )
    outputs, in_features = crow.shape[0] - 1, scores.shape[1]
    _check(op, crow, col, in_features, k, int(pruned.count_nonzero()))
    require(scores.device == crow.device, op, "tensors must be on one device")
    require(scores.shape[0] == outputs, op, f"scores must have {outputs} rows")
    wide = torch.float64 if scores.dtype == torch.float64 else torch.float32

    def magnitudes(first: int, last: int) -> Tensor:
        return _ranked(scores[first:last].to(wide).abs().flatten())

    # of no strip: those that count as absent
    present = torch.where(pruned, -1, rows_of(crow, col) * in_features + col.long())
    return _best(magnitudes, wide, present, outputs, in_features, k)


def _check(op: str, crow: Tensor, col: Tensor, in_features: int, k: int, gone: int = 0) -> None:
    require_index(op, crow, crow, col)
    absent = (crow.shape[0] - 1) * in_features - col.shape[0] + gone
    require(0 <= k <= absent, op, f"k must lie in [0, {absent}], got {k}")


def _ranked(scores: Tensor) -> Tensor:
    """In place: a NaN below all numbers."""
    return scores.nan_to_num_(-torch.inf, torch.inf, -torch.inf)


def _best(
    scores_of: Callable[[int, int], Tensor],
    dtype: torch.dtype,
    present: Tensor,
    outputs: int,
    in_features: int,
    k: int,
) -> tuple[Tensor, Tensor]:
    """The best k edges at other positions, from the scores of rows [first, last) at a time."""
    nowhere = outputs * in_features  # the position of what is not a candidate: behind all others
    index = torch.empty(0, dtype=torch.int64, device=present.device)
    best = torch.empty(0, dtype=dtype, device=present.device)
    rows = max(1, _STRIP // max(1, in_features))
    for first in range(0, outputs, rows):
        last = min(outputs, first + rows)
        begin, end = first * in_features, last * in_features
        places = torch.arange(
            begin, end + 1, device=present.device
        )  # one more, which is written to
        inside = (present >= begin) & (present < end)  # for entries of other strips
        places[torch.where(inside, present, end) - begin] = nowhere
        index, order = torch.cat([index, places[:-1]]).sort(stable=True)
        scores = torch.cat([best, scores_of(first, last)])[order]
        scores = torch.where(index == nowhere, -torch.inf, scores)
        order = scores.sort(descending=True, stable=True).indices[:k]
        best, index = scores[order], index[order]
    index, order = index.sort()
    return index, best[order]
