"""Inputs of hopfield_retrieve, what float64 makes of them, and how near an answer must be."""

from typing import NamedTuple

import torch
from torch import Tensor

from close import accumulator
from synops.hebbian import HopfieldRetrieval, hopfield_retrieve

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
STATS = ("entropy", "energy")


class Case(NamedTuple):
    """Shapes of state, patterns, values and beta, and options."""

    state: tuple[int, ...]
    patterns: tuple[int, ...]
    values: tuple[int, ...] | None = None
    beta: tuple[int, ...] = ()
    steps: int = 2
    tolerance: float | None = None


# Up to 2 rows of a head read the patterns in parts of 1024; more in blocks of 6 to 96 rows and of
# 256 patterns, in panels of 64 to 8. Gradients are made in blocks of 48 rows.
CASES = {
    "one of each": Case((1, 1), (1, 1)),
    "a vector": Case((5,), (7, 5), steps=3),
    "few rows": Case((2, 33), (2100, 33), steps=3),
    "few rows of heads": Case((2, 3, 2, 5), (2, 1, 1030, 5), (3, 1030, 20), ()),
    "blocks and a rest": Case((101, 33), (323, 33), steps=3),
    "attention": Case((2, 3, 10, 16), (2, 3, 40, 16), (2, 3, 40, 9), (3,), steps=1),
    "values": Case((2, 3, 10, 16), (3, 40, 16), (40, 40), (3,), steps=3),
    "shared, a beta a head": Case((2, 3, 50, 8), (70, 8), None, (3,)),
    "batches": Case((4, 1, 7, 6), (4, 1, 9, 6), (9, 3), (1,)),
    "a state for all memories": Case((7, 6), (3, 9, 6), steps=3),
    "long patterns": Case((7, 300), (40, 300), steps=2),
    "no rows": Case((2, 0, 4), (5, 4), (5, 3)),
}


class Sample(NamedTuple):
    state: Tensor
    patterns: Tensor
    values: Tensor | None
    beta: Tensor
    options: dict
    grads: tuple[Tensor, ...]  # of output, entropy and energy


def sample(case: Case, dtype: torch.dtype) -> Sample:
    """A sample; patterns of length about 1.5, so that a state moves on at every step."""
    state, patterns = torch.randn(case.state), torch.randn(case.patterns)
    scale = 1.5 / case.patterns[-1] ** 0.5
    values = None if case.values is None else torch.randn(case.values).to(dtype)
    beta = (1 + torch.rand(case.beta)).to(accumulator(dtype))
    options = {"steps": case.steps, "tolerance": case.tolerance}
    tensors = (state * scale).to(dtype), (patterns * scale).to(dtype), values, beta
    answer = hopfield_retrieve(*tensors[:3], beta=beta, stats=STATS, **options, backend="reference")
    results = (answer.output, answer.entropy, answer.energy)
    grads = tuple(torch.randn(t.shape).to(t.dtype) for t in results)
    return Sample(*tensors, options, grads)


def doubled(s: Sample) -> Sample:
    """The same numbers in float64."""
    return Sample(
        *(None if t is None else t.double() for t in s[:4]),
        s.options,
        tuple(t.double() for t in s.grads),
    )


def loop(
    state: Tensor, patterns: Tensor, values: Tensor | None, beta: Tensor, steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What people write, with the energy of the paper: output, entropy and energy."""
    beta = beta.reshape(-1, 1, 1) if beta.numel() > 1 else beta.reshape(())
    entropies, energies = [], []
    for t in range(steps):
        scores = beta * state @ patterns.mT
        p = scores.softmax(-1)
        entropies.append(-(p * p.log()).sum(-1))
        count = torch.tensor(patterns.shape[-2]).double()
        largest = patterns.square().sum(-1).amax(-1, keepdim=True)
        inverse = 1 / beta.reshape(-1, 1) if beta.dim() else 1 / beta
        lse = inverse * (scores.logsumexp(-1) - count.log())
        energies.append(state.square().sum(-1) / 2 - lse + largest / 2)
        state = p @ (patterns if values is None or t + 1 < steps else values)
    return state, torch.stack(entropies), torch.stack(energies)


class Answer(NamedTuple):
    found: HopfieldRetrieval
    grads: tuple[Tensor, ...]


def run(s: Sample, backend: str | None = None) -> Answer:
    leaves = [None if t is None else t.detach().requires_grad_() for t in s[:4]]
    found = hopfield_retrieve(
        *leaves[:3], beta=leaves[3], stats=STATS, **s.options, backend=backend
    )
    results = (found.output, found.entropy, found.energy)
    grads = torch.autograd.grad(results, [t for t in leaves if t is not None], s.grads)
    return Answer(found, grads)


def check(got: Answer, want: Answer, s: Sample, dtype: torch.dtype) -> None:
    """``want`` is of the same numbers in float64.

    Steps amplify what is rounded, some gradients a thousandfold: how much, a float64 answer to
    inputs that are moved a little tells. An answer is right that inputs some ulps away could have;
    in 16 bits the state is rounded after each step, and an ulp is one of these.
    """
    assert torch.equal(got.found.iterations, want.found.iterations)
    assert not (got.found.entropy < 0).any()
    wide = accumulator(dtype)
    moved = _results(run(_moved(doubled(s)), "reference"))
    kinds = [dtype, wide, wide, *[dtype] * (len(got.grads) - 1), wide]
    ulp = torch.finfo(dtype).eps * (8 if wide == dtype else 2)
    # Terms of the sums that gradients are: those of beta, and beta g . x x, of which the mean over
    # p is subtracted.
    size = float(want.grads[0].norm() * s.state.double().norm())
    if s.patterns.numel() > 0:
        longest = float(s.patterns.double().square().sum(-1).max())
        size += (
            float(s.beta.max())
            * longest
            * float(torch.cat([g.double().flatten() for g in s.grads]).norm())
        )
    for i, (g, w, m, kind) in enumerate(
        zip(_results(got), _results(want), moved, kinds, strict=True)
    ):
        assert g.dtype == kind
        assert g.shape == w.shape
        far = w.norm() + (m - w).norm() / _APART + (size if i > len(STATS) else 0)
        assert (g.double() - w).norm() <= ulp * far, f"result {i}"


_APART = 1e-7


def _moved(s: Sample) -> Sample:
    """By as much, relatively."""
    tensors = (None if t is None else t * (1 + _APART * torch.randn_like(t)) for t in s[:4])
    return Sample(*tensors, s.options, s.grads)


def _results(a: Answer) -> tuple[Tensor, ...]:
    return (a.found.output.detach(), *(getattr(a.found, n).detach() for n in STATS), *a.grads)
