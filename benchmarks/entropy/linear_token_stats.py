"""linear_token_stats: a language-model head with its entropy, against logits that exist."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common import suite
from ..common.call import Call
from ..common.public import public


class HeadSize(NamedTuple):
    """Tokens, features and vocabulary of a head."""

    tokens: int
    features: int
    vocabulary: int
    source: str
    dtype: torch.dtype = torch.float32

    @property
    def work(self) -> int:
        """Multiply-adds of the product."""
        return self.tokens * self.features * self.vocabulary


_QWEN = "head of Qwen2.5-0.5B (896 features, 151936 tokens), "
_PART = "a tenth of the vocabulary of "
_QWEN3 = "head of Qwen3-0.6B, 2048 tokens"
_STEP = "a step of decoding: the weight is read for one token"
_STEPS = "a step of decoding 8 sequences"
_FEW = "32000 rows of " + _QWEN + "a small training batch"
_CALL = "next to no arithmetic: the cost of a call"
# Append only: results of older commits are stored by name.
HEADS: dict[str, HeadSize] = {
    "512x896x151936": HeadSize(512, 896, 151936, _QWEN + "512 tokens"),
    "256x896x16384": HeadSize(256, 896, 16384, _PART + _QWEN + "256 tokens"),
    "4x8x16": HeadSize(4, 8, 16, _CALL),
    "512x896x151936 bf16": HeadSize(512, 896, 151936, _QWEN + "512 tokens", torch.bfloat16),
    "256x896x16384 bf16": HeadSize(256, 896, 16384, _PART + _QWEN + "256 tokens", torch.bfloat16),
    "1x896x151936": HeadSize(1, 896, 151936, _QWEN + _STEP),
    "1x896x151936 bf16": HeadSize(1, 896, 151936, _QWEN + _STEP, torch.bfloat16),
    "8x896x151936": HeadSize(8, 896, 151936, _QWEN + _STEPS),
    "8x896x151936 bf16": HeadSize(8, 896, 151936, _QWEN + _STEPS, torch.bfloat16),
}
_THREADED = ("512x896x151936", "512x896x151936 bf16", "4x8x16", "1x896x151936", "1x896x151936 bf16")
THREADED = {name: HEADS[name] for name in _THREADED}
TRAINED = {f"{name} training": HEADS[name] for name in ("256x896x16384", "4x8x16")}
TABLES = {
    "2048x1024x151936": HeadSize(2048, 1024, 151936, _QWEN3),
    "2048x1024x151936 bf16": HeadSize(2048, 1024, 151936, _QWEN3, torch.bfloat16),
    "16x896x32000": HeadSize(16, 896, 32000, _FEW),
    "16x896x32000 bf16": HeadSize(16, 896, 32000, _FEW, torch.bfloat16),
}
MEMORY = {"512x64x32768": HeadSize(512, 64, 32768, "logits of 64 MB")}


def _inputs(size: HeadSize, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of the size that a model's have: a standard deviation of 3."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(size.tokens, size.features, generator=generator)
    weight = torch.randn(size.vocabulary, size.features, generator=generator)
    labels = torch.randint(0, size.vocabulary, (size.tokens,), generator=generator)
    weight *= 3 / size.features**0.5
    return hidden.to(device, dtype), weight.to(device, dtype), labels.to(device)


def _of_torch(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """(2, tokens): log-probability and entropy, as people write them."""
    logp = F.log_softmax(F.linear(hidden, weight), -1)
    logprob = logp.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return torch.stack((logprob, -(logp.exp() * logp).sum(-1)))


def build(impl: str, size: HeadSize, dtype: torch.dtype, device: str) -> Call:
    """One of

    - synops: log-probability and entropy;
    - torch: logits (in bfloat16, rounded to it), log_softmax, gather and the sum of the entropy;
    - compile: torch.compile of it;
    - gemm: the product alone, which has no statistic at all;
    - cross_entropy: F.linear_cross_entropy, which has no entropy.
    """
    # "bench" asks for float64 where it wants what is exact
    hidden, weight, labels = _inputs(size, size.dtype if dtype == torch.float32 else dtype, device)

    def first(output: Tensor) -> tuple[Tensor, ...]:
        return (output[0],)  # the log-probability, which all have

    if impl == "synops":
        linear_token_stats = public("entropy.linear_token_stats")

        def fused(h: Tensor, w: Tensor) -> Tensor:
            got = linear_token_stats(h, w, labels)
            return torch.stack((got.logprob, got.entropy))

        return Call(fused, (hidden, weight), first)
    if impl == "torch":
        return Call(lambda h, w: _of_torch(h, w, labels), (hidden, weight), first)
    if impl == "compile":
        if size.vocabulary > 20000 or size.dtype == torch.bfloat16:
            raise NotImplementedError("compiled at one size, since the product is torch's own")
        compiled = torch.compile(_of_torch)
        return Call(lambda h, w: compiled(h, w, labels), (hidden, weight), first)
    if impl == "gemm":

        def picked(logits: Any) -> tuple[Tensor, ...]:
            return (logits.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1),)

        return Call(F.linear, (hidden, weight), picked)
    if impl == "cross_entropy":
        if not hasattr(F, "linear_cross_entropy"):
            raise NotImplementedError("this torch has no F.linear_cross_entropy")

        def loss(h: Tensor, w: Tensor) -> Tensor:
            return F.linear_cross_entropy(h, w, labels, reduction="none")

        # its gradients are those of the log-probability alone
        return Call(loss, (hidden, weight), lambda output: (-output,), lambda *grads: ())
    raise ValueError(impl)


class LinearTokenStats(suite.ForwardSuite):
    """On one thread."""

    op = "entropy.linear_token_stats"
    impls = ("synops", "torch", "compile", "gemm", "cross_entropy")
    cases = HEADS

    def build(
        self, impl: str, size: HeadSize, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        return build(impl, size, dtype, device)


class LinearTokenStats2Threads(LinearTokenStats):
    """On two threads, by the wall clock."""

    cases = THREADED
    threads = 2


class LinearTokenStatsTraining(suite.TrainingSuite):
    """With the gradients of both operands, on one thread; all heads for tables, in both modes."""

    op = "entropy.linear_token_stats"
    impls = ("synops", "torch", "compile")
    cases = TRAINED
    table_impls = ("gemm", "cross_entropy")
    table_cases: ClassVar[dict[str, Any]] = HEADS | TABLES

    def build(
        self, impl: str, size: HeadSize, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        return build(impl, size, dtype, device)


class LinearTokenStatsMemory(suite.MemorySuite):
    """What a call adds to 64 MB of logits, which it does not have."""

    op = "entropy.linear_token_stats"
    impls = ("synops", "torch", "gemm")
    cases = MEMORY
    small = HEADS["4x8x16"]

    def build(
        self, impl: str, size: HeadSize, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        return build(impl, size, dtype, device)
