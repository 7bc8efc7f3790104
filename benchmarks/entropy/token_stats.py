"""token_stats: log-probability and entropy of tokens, against what is written today."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from ..common import suite
from ..common.call import Call
from ..common.public import public
from ..common.sizes import TOKENS, TOKENS_BFLOAT16, TOKENS_THREADED, TokenSize


def build(impl: str, size: TokenSize, dtype: torch.dtype, device: str) -> Call:
    """The sum of log-probability and entropy of each row (so that one gradient reaches both), by

    - synops;
    - torch: one log_softmax, gather, and the sum of p log p, in float32;
    - compile: torch.compile of it;
    - softmax: softmax and logsumexp apart, lse - sum p z, which TRL and verl call
      ``entropy_from_logits``.
    """
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(size.rows, size.vocabulary, generator=generator) * 3
    # "bench" asks for float64 where it wants what is exact, of the same rounded logits
    logits = logits.to(size.dtype).to(device, size.dtype if dtype == torch.float32 else dtype)
    labels = torch.randint(size.vocabulary, (size.rows,), generator=generator).to(device)
    at = labels.unsqueeze(-1)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    if impl == "synops":
        token_stats = public("entropy.token_stats")

        def ours(x: Tensor) -> Tensor:
            got = token_stats(x, labels)
            return got.logprob + got.entropy

        return Call(ours, (logits,))

    def expression(x: Tensor) -> Tensor:
        log_p = log_softmax(x, -1, dtype=wide)
        return log_p.gather(-1, at).squeeze(-1) - (log_p.exp() * log_p).sum(-1)

    def softmax(x: Tensor) -> Tensor:
        x = x.to(wide)
        lse = x.logsumexp(-1)
        entropy = lse - (x.softmax(-1) * x).sum(-1)
        return x.gather(-1, at).squeeze(-1) - x.logsumexp(-1) + entropy

    if impl == "torch":
        return Call(expression, (logits,))
    if impl == "compile":
        return Call(torch.compile(expression), (logits,))
    if impl == "softmax":
        return Call(softmax, (logits,))
    raise ValueError(impl)


class TokenStats(suite.TrainingSuite):
    """On one thread."""

    op = "entropy.token_stats"
    impls = ("synops", "torch", "compile", "softmax")
    cases = TOKENS
    table_cases = TOKENS_BFLOAT16

    def build(
        self, impl: str, size: TokenSize, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Call:
        return build(impl, size, dtype, device)


class TokenStats2Threads(TokenStats):
    """Where there is enough work to share."""

    cases = TOKENS_THREADED
    threads = 2
