"""grow_topk: which absent edges dynamic sparse training should grow."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._check import (
    check_device,
    check_float,
    check_like,
    check_shape,
    check_tensor,
    dtype_name,
    fail,
)
from .._library import Op
from ._pattern import Pattern
from ._rewiring_ops import without

SCORES = ("grad", "cosine", "pearson", "random")


class Growth(NamedTuple):
    """Absent edges, in ascending order.

    Attributes:
        edges: ``(k,)``, int64: ``output * in + input``, positions in the flattened weight.
        scores: ``(k,)``, float32 (float64 for float64 input).
    """

    edges: Tensor
    scores: Tensor


def _fake(grad_output: Tensor | None, input: Tensor | None, crow: Tensor, *rest: Any) -> Any:
    k = rest[2]
    wide = input is not None and input.dtype == torch.float64
    dtype = torch.float64 if wide else torch.float32
    return crow.new_empty(k, dtype=torch.int64), crow.new_empty(k, dtype=dtype)


_op = Op("grow_topk", fake=_fake)


def grow_topk(
    grad_output: Tensor | None,
    input: Tensor | None,
    pattern: Pattern,
    k: int,
    score: str = "grad",
    *,
    pruned: Tensor | None = None,
    generator: torch.Generator | None = None,
    backend: str | None = None,
) -> Growth:
    r"""The ``k`` edges with the best scores among those that a pattern lacks.

    .. math:: s_{oi} = \Bigl|\sum_b g_{bo} x_{bi}\Bigr|, \qquad (o, i) \notin \text{pattern}

    Same edges as

        scores = (grad_output.t() @ input).abs().masked_fill(pattern.mask(), -torch.inf)
        edges = scores.flatten().topk(k).indices.sort().values

    but the scores exist one block at a time: nothing of size out x in is allocated. Edges with
    equal scores are taken in the order of their positions, edges with a NaN after all others, and
    the result does not depend on the number of threads.

    Args:
        grad_output: ``(..., out)``, the gradient of the layer's output, float32, float64, bfloat16
            or float16; for co-activity its output. Not needed for "random".
        input: ``(..., in)``, of the same samples and dtype. Not needed for "random".
        pattern: :class:`Pattern` of shape ``(out, in)``.
        k: at most the number of absent edges, those in ``pruned`` among them.
        score: "grad": magnitude of the dense weight's gradient (RigL, GraNet); "cosine": cosine
            similarity of the two units over the samples, 0 where a unit is silent (the Hebbian
            growth of G2GNet); "pearson": their correlation; "random": uniform (SET).
        pruned: ``(nnz,)``, bool: entries of the pattern that may be grown again, since they leave
            at the same time (:func:`prune_and_grow`): they count as absent.
        generator: of "random"; on the CPU, so that all processes of a training can share its seed.
        backend: ``"auto"``, ``"cpp"``, ``"triton"`` or ``"reference"``; default as chosen by
            :func:`synops.backend`.

    Returns:
        :class:`Growth`. No gradient.

    Raises:
        TypeError: not tensors or not a Pattern, or dtypes differ.
        ValueError: a shape, device, ``k`` or the name of a score is wrong.
        RuntimeError: ``backend`` cannot run here.

    Source: U. Evci et al., arXiv:1911.11134 (RigL); S. Liu et al., arXiv:2106.10404 (GraNet);
    D. Mocanu et al., arXiv:1707.04780 (SET); arXiv:2508.14140 (G2GNet).
    """
    op = "grow_topk"
    if not isinstance(pattern, Pattern):
        fail(TypeError, op, "pattern", "be a synops.sparse.Pattern", type(pattern).__name__)
    if score not in SCORES:
        fail(ValueError, op, "score", f"be one of {', '.join(SCORES)}", repr(score))
    crow, col = pattern.crow, pattern.col
    if pruned is not None:
        check_entries(op, "pruned", pruned, pattern)
        crow, col = without(crow, col, pattern.shape[1], pruned, backend=backend)
    absent = pattern.shape[0] * pattern.shape[1] - col.shape[0]
    if isinstance(k, bool) or not isinstance(k, int):
        fail(TypeError, op, "k", "be an int", type(k).__name__)
    if not 0 <= k <= absent:
        fail(ValueError, op, "k", f"lie in [0, {absent}], the number of absent edges", k)
    if score == "random":
        seed = int(torch.randint(2**63 - 1, (), generator=generator))
        post = pre = None
    else:
        seed = 0
        post, pre = _samples(op, grad_output, input, pattern)
    args = crow, col, pattern.shape[1], k, SCORES.index(score), seed
    return Growth(*_op(post, pre, *args, backend=backend))


def _samples(op: str, grad_output: Any, input: Any, pattern: Pattern) -> tuple[Tensor, Tensor]:
    """Both as (samples, features)."""
    check_float(op, "input", input)
    check_like(op, "grad_output", grad_output, input)
    check_device(op, "pattern", pattern.col, input, "input")
    rows, cols = pattern.shape
    if input.dim() < 1 or input.shape[-1] != cols:
        rule = f"have shape (..., in) = (..., {cols})"
        fail(ValueError, op, "input", rule, tuple(input.shape))
    if grad_output.shape != (*input.shape[:-1], rows):
        rule = f"have shape (..., out) = {(*input.shape[:-1], rows)}"
        fail(ValueError, op, "grad_output", rule, tuple(grad_output.shape))
    samples = input.shape[:-1].numel()
    return grad_output.detach().reshape(samples, rows), input.detach().reshape(samples, cols)


def check_entries(op: str, argument: str, chosen: Any, pattern: Pattern) -> None:
    """A bool for each entry of the pattern."""
    check_tensor(op, argument, chosen)
    if chosen.dtype != torch.bool:
        fail(TypeError, op, argument, "be bool", dtype_name(chosen.dtype))
    check_shape(op, argument, chosen, "(nnz,)", (pattern.nnz,))
    check_device(op, argument, chosen, pattern.col, "the Pattern")
