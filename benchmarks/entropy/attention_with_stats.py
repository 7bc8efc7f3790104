"""attention_with_stats: attention with its entropies, against torch's attention without any."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from ..common import suite
from ..common.call import Call
from ..common.public import public


class AttentionSize(NamedTuple):
    """Self-attention, or of rows that come late: then of ``keys``."""

    batch: int
    heads: int
    rows: int
    size: int
    is_causal: bool
    source: str
    keys: int | None = None
    dtype: torch.dtype = torch.float32

    @property
    def key_shape(self) -> tuple[int, ...]:
        """Of keys and values."""
        return self.batch, self.heads, self.keys or self.rows, self.size

    @property
    def work(self) -> int:
        """Multiply-adds of both products."""
        half = 2 if self.is_causal else 1
        return 2 * self.rows * math.prod(self.key_shape) // half


_BERT = "batch of 4 at BERT-base's 512 tokens, 16 heads"
_GPT = "GPT-2 medium's 16 heads at 2048 tokens"
_LONG = "8 heads at 8192 tokens: memory for scores would be 2 GB"
_LLAMA = "head size of Llama, 2048 tokens"
_DECODE = "one new token of Llama 7B"
_VERY_LONG = "one head at 32768 tokens: memory for scores would be 4 GB"
_OVERHEAD = "next to no arithmetic: the cost of a call"
_SIZES = {
    "4x16x512x64": AttentionSize(4, 16, 512, 64, False, _BERT),
    "4x16x512x64 causal": AttentionSize(4, 16, 512, 64, True, _BERT),
    "1x16x2048x64": AttentionSize(1, 16, 2048, 64, False, _GPT),
    "1x16x2048x64 causal": AttentionSize(1, 16, 2048, 64, True, _GPT),
    "1x1x8x8": AttentionSize(1, 1, 8, 8, False, _OVERHEAD),
}
_MEMORY = {
    "1x16x2048x64": _SIZES["1x16x2048x64"],
    "1x1x32768x64": AttentionSize(1, 1, 32768, 64, False, _VERY_LONG),
}
_LARGE = {
    "1x8x8192x64": AttentionSize(1, 8, 8192, 64, False, _LONG),
    "1x8x8192x64 causal": AttentionSize(1, 8, 8192, 64, True, _LONG),
    "2x8x2048x128": AttentionSize(2, 8, 2048, 128, False, _LLAMA),
    "2x8x2048x128 causal": AttentionSize(2, 8, 2048, 128, True, _LLAMA),
    "1x32x1x128 of 2048": AttentionSize(1, 32, 1, 128, False, _DECODE, 2048),
    "1x32x1x128 of 8192": AttentionSize(1, 32, 1, 128, False, _DECODE, 8192),
}
_TABLES = _LARGE | {
    f"{name} bf16": size._replace(dtype=torch.bfloat16)
    for name, size in (_SIZES | _LARGE).items()
    if size.source is not _OVERHEAD
}


def _two_calls(query: Tensor, key: Tensor, value: Tensor, is_causal: bool) -> Any:
    """Exact and O(N): H = lse - scale q . (p k), and p k is attention with the keys for values."""
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    output, lse = flash(query, key, value, 0.0, is_causal)
    mean = sdpa(query, key, key, is_causal=is_causal)
    return output, lse - (query * mean).sum(-1) / query.shape[-1] ** 0.5


def _eager(query: Tensor, key: Tensor, value: Tensor, is_causal: bool) -> Any:
    scores = query @ key.mT / query.shape[-1] ** 0.5
    if is_causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, -torch.inf)
    log_p = scores.log_softmax(-1)
    p = log_p.exp()
    return p @ value, -(p * log_p.masked_fill(p == 0, 0)).sum(-1)


def build(impl: str, size: AttentionSize, dtype: torch.dtype, device: str) -> Call:
    """One of

    - synops: output and entropy;
    - synops_plain: the output alone, of the same kernel;
    - torch: ``F.scaled_dot_product_attention``, the output alone;
    - two_calls: the exact entropy by a second attention; forward only, torch has no gradient of
      its lse;
    - eager: the scores materialised.

    Gradients are those of the output: entropies are made and not used.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = ((size.batch, size.heads, size.rows, size.size), size.key_shape, size.key_shape)
    # "bench" asks for float64 where it wants what is exact, of the same rounded inputs
    kind = size.dtype if dtype == torch.float32 else dtype
    inputs = tuple(
        torch.randn(shape, generator=generator).to(size.dtype).to(device, kind) for shape in shapes
    )
    causal = size.is_causal
    if impl in ("synops", "synops_plain"):
        attention = public("entropy.attention_with_stats")
        stats = ("entropy",) if impl == "synops" else ()
        return Call(lambda q, k, v: attention(q, k, v, is_causal=causal, stats=stats)[0], inputs)
    if impl == "torch":
        return Call(lambda q, k, v: sdpa(q, k, v, is_causal=causal), inputs)
    if impl == "two_calls":
        return Call(lambda q, k, v: _two_calls(q, k, v, causal)[0], inputs)
    if impl == "eager":
        if size.rows > 8192:
            raise NotImplementedError("more memory than most machines have")
        return Call(lambda q, k, v: _eager(q, k, v, causal)[0], inputs)
    raise ValueError(impl)


class AttentionWithStats(suite.TrainingSuite):
    """On one thread."""

    op = "entropy.attention_with_stats"
    impls = ("synops", "torch", "two_calls", "eager")
    cases = _SIZES
    table_impls = ("synops_plain",)
    table_cases = _TABLES

    def build(
        self,
        impl: str,
        size: AttentionSize,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> Call:
        return build(impl, size, dtype, device)


class AttentionWithStats2Threads(AttentionWithStats):
    """On two."""

    threads = 2


class AttentionWithStatsMemory(suite.MemorySuite):
    """Peak memory: O(N) against N x N."""

    op = "entropy.attention_with_stats"
    impls = ("synops", "torch", "eager")
    cases = _MEMORY
    small = _SIZES["1x1x8x8"]

    def build(
        self,
        impl: str,
        size: AttentionSize,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> Call:
        return build(impl, size, dtype, device)
