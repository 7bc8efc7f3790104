"""delta_rule: fast weights over a sequence, against the loop over time and forms in chunks."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common import suite
from ..common.call import Call
from ..common.public import public
from ..common.sizes import FAST_WEIGHTS, FastWeightSize


def series(size: FastWeightSize) -> tuple[Tensor, ...]:
    """query, key of norm 1, value, beta and, if gated, decay; float64 whose numbers are float32."""
    generator = torch.Generator().manual_seed(0)
    batch, heads, steps, keys, values, _, gated = size

    def normal(*last: int) -> Tensor:
        return torch.randn(batch, heads, steps, *last, generator=generator)

    key = F.normalize(normal(keys), dim=-1)
    tensors = [normal(keys), key, normal(values), normal().sigmoid()]
    if gated:  # as a Mamba gate at the start of training: .99 on average
        tensors.append(torch.exp(-0.02 * F.softplus(normal())))
    return tuple(t.float().double() for t in tensors)


def loop(query: Tensor, key: Tensor, value: Tensor, beta: Tensor, decay: Tensor | None) -> Tensor:
    """Step by step: a decay, two products with the state and an outer one."""
    batch, heads, _, size = query.shape
    state = query.new_zeros(batch, heads, size, value.shape[-1])
    outputs = []
    query = query * size**-0.5
    ones = beta if decay is None else decay
    parts = (t.unbind(2) for t in (query, key, value, beta, ones))
    for q, k, v, b, a in zip(*parts, strict=True):
        if decay is not None:
            state = state * a[..., None, None]
        error = b[..., None] * (v - (k[..., None, :] @ state)[..., 0, :])
        state = state + k[..., :, None] * error[..., None, :]
        outputs.append((q[..., None, :] @ state)[..., 0, :])
    return torch.stack(outputs, 2)


def chunked(
    query: Tensor, key: Tensor, value: Tensor, beta: Tensor, decay: Tensor | None, chunk: int = 32
) -> Tensor:
    """In chunks, as arXiv:2406.06484 (sections 3.2 and 3.3) and, with a decay, 2412.06464 have it:
    what depends on the state is three products a chunk, all else is done for all chunks at once,
    and the triangular system by one call of LAPACK's.
    """
    batch, heads, steps, size = query.shape
    width = min(chunk, steps)
    left = -steps % width

    def blocks(t: Tensor) -> Tensor:
        if left:
            t = F.pad(t, (0, 0, 0, left))
        return t.reshape(batch * heads, -1, width, t.shape[-1])

    q, k, v = blocks(query * size**-0.5), blocks(key), blocks(value)
    b = blocks(beta[..., None])
    products, scores = (b * k) @ k.mT, (q @ k.mT).tril()
    k_first = k_last = k
    kept = None
    if decay is not None:
        log = blocks(decay.log()[..., None]).cumsum(2)  # from the chunk's beginning
        between = (log - log.mT).tril().exp()
        products, scores = products * between, scores * between
        kept = log[:, :, -1:].exp()
        q, k_first = q * log.exp(), k * log.exp()
        k_last = k * (log[:, :, -1:] - log).exp()
    system = products.tril(-1) + torch.eye(width, dtype=q.dtype, device=q.device)
    solved = torch.linalg.solve_triangular(
        system, torch.cat((b * v, b * k_first), -1), upper=False, unitriangular=True
    )
    wanted, read = solved.split((v.shape[-1], size), -1)
    state = q.new_zeros(batch * heads, size, v.shape[-1])
    outputs = []
    parts = (q, read, wanted, scores, k_last.mT)
    for i, (q_i, read_i, wanted_i, scores_i, k_i) in enumerate(
        zip(*(t.unbind(1) for t in parts), strict=True)
    ):
        error = torch.baddbmm(wanted_i, read_i, state, alpha=-1)
        outputs.append(torch.baddbmm(scores_i @ error, q_i, state))
        if kept is not None:
            state = state * kept[:, i]
        state = torch.baddbmm(state, k_i, error)
    whole = torch.stack(outputs, 1).reshape(batch, heads, steps + left, -1)
    return whole[:, :, :steps]


def build(impl: str, size: FastWeightSize, dtype: torch.dtype, device: str) -> Call:
    """The output, with gradients to all inputs, by

    - synops;
    - torch: in chunks of 32, the best of 16, 32, 64 and 128 at heads of 64;
    - loop: step by step;
    - compile: torch.compile of the chunks.
    """
    inputs = tuple(t.to(device, dtype) for t in series(size))

    def whole(form: Callable[..., Tensor]) -> Call:
        return Call(lambda q, k, v, b, a=None: form(q, k, v, b, a), inputs)

    if impl == "synops":
        delta_rule = public("hebbian.delta_rule")
        return whole(lambda q, k, v, b, a: delta_rule(q, k, v, b, decay=a).output)
    if impl in ("torch", "compile"):
        return whole(torch.compile(chunked) if impl == "compile" else chunked)
    if impl == "loop":
        return whole(loop)
    raise ValueError(impl)


class DeltaRule(suite.TrainingSuite):
    """On one thread."""

    op = "hebbian.delta_rule"
    impls = ("synops", "torch", "loop", "compile")
    cases = FAST_WEIGHTS

    def build(
        self,
        impl: str,
        size: FastWeightSize,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> Call:
        return build(impl, size, dtype, device)


class DeltaRule2Threads(DeltaRule):
    """Heads, and slices of their weights, are shared out."""

    threads = 2
