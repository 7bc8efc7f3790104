"""Where tokens occurred before, and sums of an attention over all such places.

Positions are sorted by token, so that the occurrences of a token lie side by side, in order. The
attention between c occurrences of a token is then a c x c block: a product of c rows of queries and
c of keys, each gathered once, where a list of the pairs would gather c^2 / 2 rows of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Numbers in a piece of work, scores or gathered elements: 4 MB in float32.
PIECE = 1 << 20


class Attention(NamedTuple):
    """What single probabilities of a self-attention are computed from."""

    query: Tensor  # (B, H, N, D)
    key: Tensor  # (B, Hkv, N, D)
    lse: Tensor  # (B, H, N)
    attn_mask: Tensor | None  # 4 dimensions that broadcast to (B, H, N, N)
    window: int | None
    scale: float

    def bias(self, batch: Tensor, row: Tensor, key: Tensor) -> Tensor | None:
        """What is added to the scores at these places, which broadcast to 4 dimensions whose second
        is 1, and heads (or 1) in the result; None: nothing anywhere."""
        bias = None
        if self.attn_mask is not None:
            heads = torch.arange(self.attn_mask.shape[1], device=row.device)
            index = (batch, heads.view(-1, 1, 1), row, key)
            sizes = self.attn_mask.shape
            bias = self.attn_mask[tuple(i * (n > 1) for i, n in zip(index, sizes, strict=True))]
            if bias.dtype == torch.bool:
                bias = torch.zeros_like(bias, dtype=self.lse.dtype).masked_fill(~bias, -torch.inf)
            bias = bias.to(self.lse.dtype)
        if self.window is not None:
            far = (row - key).abs() >= self.window
            zero = torch.zeros_like(far, dtype=self.lse.dtype) if bias is None else bias
            bias = zero.masked_fill(far, -torch.inf)
        return bias


class Occurrences(NamedTuple):
    """Tokens sorted; all (B, N)."""

    order: Tensor  # positions by token, those of a token in order
    starts: Tensor  # bool, in that order: the first occurrence of a token
    latest: Tensor  # of each position: the last one before with its token; -1: none


class Group(NamedTuple):
    """g tokens that occur about equally often, at most c times."""

    batch: Tensor  # (g,)
    at: Tensor  # (g, c), where they occur, in order; behind that any position
    size: Tensor  # (g,)


def occurrences(tokens: Tensor, exists: Tensor) -> Occurrences:
    """Of ``tokens`` (B, N), where they exist; the others occur once each. Nothing comes to the
    host."""
    tokens = tokens.long()
    order = tokens.argsort(stable=True, dim=1)
    missing = ~exists.gather(1, order)
    order = order.gather(1, missing.byte().argsort(stable=True, dim=1))
    found, missing = tokens.gather(1, order), ~exists.gather(1, order)
    starts = torch.ones_like(exists)
    starts[:, 1:] = (found[:, 1:] != found[:, :-1]) | missing[:, 1:]
    before = torch.where(starts, -1, order.roll(1, 1))
    return Occurrences(order, starts, before.gather(1, order.argsort(1)))


def earlier_sum(attention: Attention, found: Occurrences, shift: int) -> Tensor:
    r"""Sums over i of p[i, k + shift] at all earlier occurrences k of the token of i: (B, H).

    The number and sizes of groups come to the host once. Memory is O(N D), with gradients too: the
    backward computes a piece of work again.
    """
    query, key, lse, *_ = attention
    total = lse.new_zeros(lse.shape[:2])
    if not lse.numel():
        return total
    again = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, lse))
    attention = attention._replace(
        query=query.contiguous(),  # once, not at each piece that takes rows of it
        key=key.contiguous(),
        # rows that see nothing: lse = inf makes every probability 0
        lse=lse.masked_fill(lse == -torch.inf, torch.inf),
    )
    heads, _, size = query.shape[1:]
    for group in _groups(found, heads, size):
        c = group.at.shape[1]
        rows = max(1, PIECE // (heads * c))
        # The first occurrence has none before. The largest piece comes first: in growing ones,
        # none fits where the last was (1 GB of holes in glibc's heap for 4096 equal tokens).
        for first in reversed(range(1, c, rows)):
            piece = (attention, group, first, min(first + rows, c), shift)
            if again:
                part = checkpoint(_piece, *piece, use_reentrant=False, preserve_rng_state=False)
            else:
                part = _piece(*piece)
            total = total.index_add(0, group.batch, part)
    return total


def _groups(found: Occurrences, heads: int, size: int) -> Iterator[Group]:
    """Tokens that occur more than once, by powers of 2, in pieces."""
    b, n = found.order.shape
    start = found.starts.flatten().nonzero().squeeze(1).cpu()
    count = start.diff(append=start.new_tensor([b * n]))
    low, high = 1, int(count.max())
    while low < high:
        chosen = (count > low) & (count <= 2 * low)
        low *= 2
        if not chosen.any():
            continue
        starts, counts = start[chosen], count[chosen]
        c = int(counts.max())
        step = max(1, PIECE // (heads * c * max(c, size)))
        for s, m in zip(starts.split(step), counts.split(step), strict=True):
            place = (s[:, None] + torch.arange(c)).clamp(max=b * n - 1)
            s, m, place = (t.to(found.order.device) for t in (s, m, place))
            yield Group(s // n, found.order.flatten()[place], m)


def _piece(attention: Attention, group: Group, first: int, last: int, shift: int) -> Tensor:
    """The sums of each token's occurrences from ``first`` to before ``last``: (g, H)."""
    query, key, lse, *_ = attention
    _, heads, n, size = query.shape
    kv_heads = key.shape[1]
    row, at = group.at[:, first:last], (group.at[:, : last - 1] + shift).clamp(max=n - 1)

    def rows(of: Tensor, where: Tensor) -> Tensor:
        """Those of each token and head, as (g, heads, where, ...)."""
        h = of.shape[1]
        head = group.batch[:, None] * h + torch.arange(h, device=where.device)
        number = n * head[:, :, None] + where[:, None]
        taken = of.flatten(0, 2).index_select(0, number.flatten()).to(lse.dtype)
        return taken.view(*number.shape, *of.shape[3:])

    q = rows(query, row).view(len(row), kv_heads, -1, size)
    scores = attention.scale * (q @ rows(key, at).mT).view(len(row), heads, row.shape[1], -1)
    batch, i, j = group.batch.view(-1, 1, 1, 1), row[:, None, :, None], at[:, None, None]
    bias = attention.bias(batch, i, j)
    if bias is not None:
        scores = scores + bias
    rank = torch.arange(last, device=row.device)
    earlier = rank[: last - 1] < rank[first:, None]
    seen = earlier & (rank[first:] < group.size[:, None])[..., None]
    x = scores - rows(lse[..., None], row)
    return x.masked_fill(~seen[:, None], -torch.inf).exp().sum((-1, -2))
