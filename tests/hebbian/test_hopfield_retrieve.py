"""hopfield_retrieve against its reference, the loop that people write, and hopfield-layers."""

import math

import pytest
import torch
import torch.nn.functional as F
from hopfield_samples import CASES, DTYPES, STATS, Case, check, doubled, loop, run, sample

from close import assert_close
from machine import GLIBC
from synops.benchmarks.common import memory
from synops.hebbian import hopfield_retrieve

MOVING = ("blocks and a rest", "values", "few rows of heads", "a vector")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_reference(name, dtype, isa):
    s = sample(CASES[name], dtype)
    check(run(s), run(doubled(s), "reference"), s, dtype)


@pytest.mark.parametrize("name", MOVING)
def test_stopping(name, isa):
    """Rows stop at different steps; float64, in which no rounding moves a stop."""
    s = sample(CASES[name]._replace(steps=6, tolerance=0.02), torch.float64)
    s = s._replace(beta=s.beta * 3)
    got = run(s)
    assert len(got.found.iterations.unique()) > 1 or s.state.dim() == 1
    check(got, run(s, "reference"), s, torch.float64)


@pytest.mark.parametrize("name", [n for n in CASES if n != "no rows"])
def test_reference_is_the_loop(name):
    """The reference, forward and backward, against autograd of the loop and the paper's energy."""
    s = sample(CASES[name], torch.float64)
    leaves = [t.detach().requires_grad_() for t in s[:4] if t is not None]
    values = leaves[2] if s.values is not None else None
    shaped = s.state.dim() == 1
    state = leaves[0][None] if shaped else leaves[0]
    output, *stats = loop(state, leaves[1], values, leaves[-1], s.options["steps"])
    if shaped:
        output, stats = output[0], [t[:, 0] for t in stats]
    grads = torch.autograd.grad((output, *stats), leaves, s.grads)
    got = run(s, "reference")
    torch.testing.assert_close(got.found.output, output)
    for name, w in zip(STATS, stats, strict=True):
        torch.testing.assert_close(getattr(got.found, name), w, rtol=1e-10, atol=1e-12)
    for g, w in zip(got.grads, grads, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-9, atol=1e-10)


def _hopfield_layers(q, k, v, scaling, update_steps_max, update_steps_eps):
    """The loop of hopfield-layers' hflayers/functional.py, written anew from what it does: q, k, v
    (heads, rows, size). (It does not resolve from the package index.)"""
    xi, before, step = None, None, 0
    active = torch.ones(q.shape[0], dtype=torch.bool)
    while active.any():
        if xi is not None:
            q = torch.where(active[:, None, None], xi @ k, q)
        p = (scaling.reshape(-1, 1, 1) * q @ k.mT).softmax(-1)
        xi = p if xi is None else torch.where(active[:, None, None], p, xi)
        active = torch.full_like(active, step < update_steps_max or update_steps_max < 0)
        if before is not None:
            active &= (before - xi).norm(dim=(1, 2)) > update_steps_eps
        before, step = xi, step + 1
    return xi @ v


@pytest.mark.parametrize("more", [0, 2])
def test_hopfield_layers(more):
    s = sample(CASES["attention"], torch.float64)
    one = [t[0] for t in s[:3]]
    want = _hopfield_layers(*one, s.beta, more, 1e-12)
    got = hopfield_retrieve(*one, beta=s.beta, steps=more + 1).output
    torch.testing.assert_close(got, want)
    # with every query at its fixed point, both have stopped
    want = _hopfield_layers(*one, 4 * s.beta, -1, 1e-12)
    found = hopfield_retrieve(*one, beta=4 * s.beta, steps=1000, tolerance=1e-12)
    torch.testing.assert_close(found.output, want, rtol=1e-8, atol=1e-8)
    assert found.iterations.max() < 1000


def test_one_step_with_values_is_attention():
    s = sample(CASES["attention"], torch.float32)
    got = hopfield_retrieve(*s[:3], beta=0.3, steps=1).output
    want = F.scaled_dot_product_attention(*(t.double() for t in s[:3]), scale=0.3)
    assert_close(got, want, torch.float32, s.patterns.shape[-2])


@pytest.mark.parametrize("backend", ["cpp", "reference"])
@pytest.mark.parametrize("rows", [2, 40])
def test_a_row_alone(rows, backend):
    """A row makes the same steps whichever rows are beside it, moving, at rest or NaN; rows of one
    call are the same to the bit."""
    s = sample(Case((rows, 8), (50, 8)), torch.float32)
    state = s.state.clone()
    state[rows // 2 :] = s.patterns[: rows - rows // 2]
    options = {"beta": 9.0, "steps": 8, "tolerance": 1e-3, "backend": backend}
    whole = hopfield_retrieve(state, s.patterns, **options)
    state[-1] = torch.nan
    other = hopfield_retrieve(state, s.patterns, **options)
    assert torch.equal(whole.output[:-1], other.output[:-1])
    assert torch.equal(whole.entropy[:, :-1], other.entropy[:, :-1])
    assert other.output[-1].isnan().all()
    assert other.iterations[-1] == 8
    for i in range(0, rows, 7):
        alone = hopfield_retrieve(s.state[i] if i < rows // 2 else state[i], s.patterns, **options)
        torch.testing.assert_close(alone.output, other.output[i], rtol=1e-5, atol=1e-6)
        assert alone.iterations == whole.iterations[i]


def test_a_row_at_rest_keeps_its_statistics():
    s = sample(Case((20, 8), (50, 8)), torch.float64)
    options = {"beta": 12.0, "steps": 30, "stats": STATS}
    stopped = hopfield_retrieve(s.state, s.patterns, tolerance=1e-3, **options)
    whole = hopfield_retrieve(s.state, s.patterns, **options)
    assert whole.iterations.eq(30).all()
    assert stopped.iterations.max() < 30
    for i, made in enumerate(stopped.iterations.tolist()):
        for name in STATS:
            got, want = getattr(stopped, name)[:, i], getattr(whole, name)[:, i]
            assert torch.equal(got[:made], want[:made])
            assert (got[made:] == got[made - 1]).all()
        part = hopfield_retrieve(s.state, s.patterns, beta=12.0, steps=made)
        assert torch.equal(stopped.output[i], part.output[i])


@pytest.mark.parametrize("name", ["few rows", "blocks and a rest", "values", "batches"])
def test_threads(name, threads):
    """Neither results nor gradients depend on how many there are."""
    s = sample(CASES[name], torch.float32)
    answers = []
    for count in (1, 2, 3):
        threads(count)
        answers.append(run(s))
    for other in answers[1:]:
        assert torch.equal(other.found.output, answers[0].found.output)
        assert torch.equal(other.found.entropy, answers[0].found.entropy)
        assert all(map(torch.equal, other.grads, answers[0].grads))


def test_two_runs_are_one():
    s = sample(CASES["blocks and a rest"], torch.float32)
    whole = hopfield_retrieve(s.state, s.patterns, beta=2.0, steps=5)
    half = hopfield_retrieve(s.state, s.patterns, beta=2.0, steps=2)
    rest = hopfield_retrieve(half.output, s.patterns, beta=2.0, steps=3)
    assert torch.equal(whole.output, rest.output)
    assert torch.equal(whole.entropy, torch.cat([half.entropy, rest.entropy]))


def test_large_and_small_beta():
    """From the mean of all patterns, of entropy ln N, to the nearest one, of entropy 0."""
    x = F.normalize(torch.randn(100, 16), dim=-1)
    near = x[:7] + 0.05 * torch.randn(7, 16)
    low = hopfield_retrieve(near, x, beta=1e-6, stats=STATS)
    torch.testing.assert_close(low.output, x.mean(0).expand(7, -1), rtol=0, atol=1e-6)
    torch.testing.assert_close(low.entropy, torch.full((1, 7), math.log(100)))
    assert torch.isfinite(low.energy).all()
    high = hopfield_retrieve(near, x, beta=1e4, stats=STATS)
    assert torch.equal(high.output, x[:7])
    assert (high.entropy < 1e-6).all()
    assert (high.entropy >= 0).all()


def test_memory():
    """Nothing of queries x patterns is kept: the graph holds a state and two numbers a step."""
    state, patterns = torch.randn(200, 8, requires_grad=True), torch.randn(300, 8)
    kept = []

    def pack(t):
        kept.append(t.numel())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        hopfield_retrieve(state, patterns, beta=1.0, steps=4)
    assert max(kept) <= 3 * state.numel()


@pytest.mark.skipif(not GLIBC, reason="resident memory is read on Linux")
def test_peak_memory():
    """Queries x patterns would be 64 MB, three times with gradients."""
    state, patterns = torch.randn(2000, 8, requires_grad=True), torch.randn(8000, 8)

    def retrieve(rows):
        hopfield_retrieve(state[:rows], patterns, beta=1.0, steps=3).output.sum().backward()

    retrieve(10)
    assert memory.peak_growth(lambda: retrieve(2000)) < 0.15 * 4 * 2000 * 8000
