"""head_scores: what heads look at, against the maps that it is read off today."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..common import suite
from ..common.call import Call
from ..common.public import public


class HeadSize(NamedTuple):
    """Causal self-attention over ``rows`` tokens; ``copies`` of one random text, or Zipf's."""

    batch: int
    heads: int
    rows: int
    size: int
    copies: int | None
    source: str

    @property
    def work(self) -> int:
        """Scores of the whole map."""
        return self.batch * self.heads * self.rows**2

    def tokens(self) -> Tensor:
        """``(batch, rows)``, the same in each sequence."""
        generator = torch.Generator().manual_seed(1)
        if self.copies is None:  # 2 % of the pairs are equal at 2048 tokens
            weight = 1 / torch.arange(1.0, 50_001)
            tokens = torch.multinomial(weight, self.rows, replacement=True, generator=generator)
        else:
            text = torch.randperm(self.rows // self.copies, generator=generator)
            tokens = text.repeat(self.copies)
        return tokens.expand(self.batch, -1)


_SIZES = {
    "1x16x2048x64": HeadSize(1, 16, 2048, 64, 2, "GPT-2 medium's heads, random tokens twice"),
    "1x16x2048x64 zipf": HeadSize(1, 16, 2048, 64, None, "the same heads on a text"),
    "32x4x48x16": HeadSize(32, 4, 48, 16, 2, "a batch of examples/induction_head.py"),
}


def _maps(query: Tensor, key: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
    """As in TransformerLens: the attention maps, and masks of what is looked for."""
    n = query.shape[2]
    unseen = torch.ones(n, n, dtype=torch.bool, device=query.device).triu(1)
    scores = (query @ key.mT) * query.shape[3] ** -0.5
    p = scores.masked_fill_(unseen, -torch.inf).softmax(-1)
    equal = (tokens[:, :, None] == tokens[:, None]).tril(-1)
    count = equal.any(-1).sum(-1)[:, None]
    earlier = (p[..., 1:] * equal[:, None, :, :-1]).sum((-1, -2)) / count
    previous = p.diagonal(-1, -2, -1).mean(-1)
    return previous, p.diagonal(0, -2, -1).mean(-1), p[..., 0].mean(-1), earlier


_NAMES = ("previous_token", "current_token", "sink", "prefix_matching")


def build(impl: str, size: HeadSize, dtype: torch.dtype, device: str) -> Call:
    """Four scores, stacked, of queries and keys. One of

    - synops: with ``lse`` known, as attention leaves it;
    - attention: the same, and the attention that leaves it;
    - torch: the maps, as one that asks for scores has them made beside fused attention.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (size.batch, size.heads, size.rows, size.size)
    query, key = (
        torch.randn(shape, generator=generator).to(device, dtype) for _ in ("query", "key")
    )
    tokens = size.tokens().to(device)
    if impl == "torch":
        return Call(lambda q, k: torch.stack(_maps(q, k, tokens)), (query, key))
    attention, scores = public("entropy.attention_with_stats"), public("entropy.head_scores")

    def lse_of(q: Tensor, k: Tensor) -> Tensor:
        return attention(q, k, k, is_causal=True, stats="lse")[1].lse

    def of(q: Tensor, k: Tensor, lse: Tensor) -> Any:
        found = scores(q, k, lse, tokens, scores=_NAMES)
        return torch.stack([getattr(found, name) for name in _NAMES])

    if impl == "synops":
        lse = lse_of(query, key)
        return Call(lambda q, k: of(q, k, lse), (query, key))
    if impl == "attention":
        return Call(lambda q, k: of(q, k, lse_of(q, k)), (query, key))
    raise ValueError(impl)


class HeadScores(suite.ForwardSuite):
    """On one thread."""

    op = "entropy.head_scores"
    impls = ("synops", "torch", "attention")
    cases = _SIZES

    def build(
        self,
        impl: str,
        size: HeadSize,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> Call:
        return build(impl, size, dtype, device)
