"""The three public forms of a sparse layer behind one face, for what they must all do alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import sparse_samples
from sparse_samples import Answer, Sample
from torch import Tensor

from synops.sparse import Pattern, masked_linear, sparse_linear


@dataclass(frozen=True)
class Layer:
    """One form: what its weight is, and the call."""

    name: str
    values: bool  # its weight is the values of the kept entries, not a dense tensor
    topology: Callable[[Tensor], Tensor | Pattern]  # from the mask, what the call takes
    call: Callable[..., Tensor]  # (input, weight, topology, bias, *, backend)

    def weight(self, s: Sample) -> Tensor:
        return s.values if self.values else s.weight

    def bind(self, mask: Tensor, **options) -> Callable[..., Tensor]:
        """(input, weight, bias) -> output; the topology is made once."""
        topology = self.topology(mask)
        return lambda input, weight, bias=None: self.call(input, weight, topology, bias, **options)

    def check(self, s: Sample, *, backend: str = "cpp") -> Answer:
        """Forward and every gradient against the reference; "cpp" keeps masked_linear off BLAS."""
        got = sparse_samples.run(self.bind(s.mask, backend=backend), s, self.weight(s))
        sparse_samples.check(got, s, values=self.values)
        return got


SPARSE = Layer("sparse_linear", True, Pattern.from_mask, sparse_linear)
MASKED = Layer("masked_linear", False, lambda mask: mask, masked_linear)
MASKED_PATTERN = Layer("masked_linear-Pattern", False, Pattern.from_mask, masked_linear)
LAYERS = [SPARSE, MASKED, MASKED_PATTERN]
