"""linear_token_stats against float64: statistics, gradients, edges, determinism, memory."""

import pytest
import torch
from heads import DIFFERENTIABLE, DTYPES, STATS, check_stats, exact, head
from torch.nn.functional import linear, log_softmax

import synops
from machine import GLIBC
from synops.benchmarks.common import memory
from synops.entropy import Stats, linear_token_stats

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)

# tokens, features, vocabulary
SHAPES = [
    (1, 1, 1),  # one of everything
    (3, 2, 13),  # a group of rows but one, and one feature pair
    (17, 33, 15),  # a group and a row; an odd number of features; more than a vector of tokens
    (33, 40, 113),  # a panel and a token; a tile of 8 groups and a row
    (16, 24, 900),  # half a panel; more than a round of tiles in the backward
    (70, 8, 300),  # several panels; a tile is of any number of features
    (2, 1200, 230),  # tiles of fewer groups, since they are long
    (2, 9, 7300),  # more tiles than parts
]


def incoming(h, names=DIFFERENTIABLE):
    wide = torch.float64 if h.hidden.dtype == torch.float64 else torch.float32
    return {name: torch.randn(h.labels.shape, dtype=wide) for name in names}


def gradients(got, grads, inputs):
    return torch.autograd.grad([getattr(got, name) for name in grads], inputs, list(grads.values()))


@pytest.mark.usefixtures("isa")
@every_dtype
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_answers(shape, dtype):
    """All statistics and the three gradients of all of them together."""
    h = head(*shape, dtype)
    leaves, grads = h.leaves(), incoming(h)
    got = linear_token_stats(*leaves, temperature=0.75, stats=STATS)
    want = exact(h, 0.75, grads)
    check_stats(got, want.stats, dtype)
    for g, bound in zip(gradients(got, grads, leaves.inputs()), want.gradients, strict=True):
        bound.check(g, vector=True)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_each_gradient(name):
    h = head(40, 24, 250)
    leaves, grads = h.leaves(), incoming(h, [name])
    got = linear_token_stats(*leaves, stats=name)
    for g, bound in zip(
        gradients(got, grads, leaves.inputs()), exact(h, 1.0, grads).gradients, strict=True
    ):
        bound.check(g, vector=True)


@pytest.mark.usefixtures("isa")
@every_dtype
@pytest.mark.parametrize("temperature", [1e-2, 0.1, 1.0, 10.0])
def test_temperatures(temperature, dtype):
    h = head(20, 16, 130, dtype)
    leaves, grads = h.leaves(), incoming(h)
    got = linear_token_stats(*leaves, temperature=temperature, stats=STATS)
    want = exact(h, temperature, grads)
    check_stats(got, want.stats, dtype)
    for g, bound in zip(gradients(got, grads, leaves.inputs()), want.gradients, strict=True):
        bound.check(g, vector=True)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("offset", [-3000.0, 30.0, 3000.0])
def test_offsets(offset):
    """What is the same for all logits changes lse alone; gradients are as exact as without it."""
    h = head(20, 16, 500)
    h = h._replace(bias=h.bias + offset)
    leaves, grads = h.leaves(), incoming(h)
    got = linear_token_stats(*leaves, stats=STATS)
    want = exact(h, 1.0, grads)
    check_stats(got, want.stats, torch.float32)
    for g, bound in zip(gradients(got, grads, leaves.inputs()), want.gradients, strict=True):
        bound.check(g, vector=True)


@pytest.mark.usefixtures("isa")
def test_large_vocabulary():
    """Normal inputs: statistics of as many terms as a model has."""
    x, w = torch.randn(4, 16), torch.randn(50257, 16)
    y = torch.randint(0, 50257, (4,))
    got = linear_token_stats(x, w, y, stats=STATS)
    want = linear_token_stats(x.double(), w.double(), y, stats=STATS, backend="reference")
    check_stats(got, {name: getattr(want, name) for name in STATS}, torch.float32)


@pytest.mark.usefixtures("isa")
@every_dtype
def test_masked_tokens(dtype):
    """-inf in the bias: probability 0, gradient 0; a label there is -inf and has no gradient."""
    h = head(40, 12, 300, dtype)
    out = torch.rand(300) < 0.5
    out[:130], out[-1] = True, False  # a whole tile
    labels = h.labels.clone()
    labels[:20] = torch.where(out)[0][torch.arange(20)]
    labels[20:] = torch.where(~out)[0][torch.arange(20)]
    h = h._replace(bias=h.bias.masked_fill(out, -torch.inf), labels=labels)
    leaves, grads = h.leaves(), incoming(h)
    got = linear_token_stats(*leaves, stats=STATS)
    assert bool((got.logprob[:20] == -torch.inf).all())
    counted = {k: v.clone() for k, v in grads.items()}
    counted["logprob"][:20] = 0
    safe = h._replace(labels=torch.where(out[labels], torch.tensor(299), labels))
    want = exact(safe, 1.0, counted)
    want.stats["logprob"][:20] = 0
    got_all = got._replace(logprob=got.logprob.masked_fill(out[labels], 0))
    check_stats(got_all, want.stats, dtype)
    results = gradients(got, grads, leaves.inputs())
    for g, bound in zip(results, want.gradients, strict=True):
        bound.check(g, vector=True)
    assert not results[1][out].any()
    assert not results[2][out].any()


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_nothing_but_minus_inf(backend):
    h = head(20, 5, 30)
    h = h._replace(bias=torch.full((30,), -torch.inf))
    got = linear_token_stats(*h, stats=STATS, backend=backend)
    for name in STATS:
        want = -torch.inf if name in ("lse", "logprob") else 0
        assert bool((getattr(got, name) == want).all()), name
    ops, args = torch.ops.synops, (h.hidden, h.weight, h.labels, h.bias)
    run = synops._library.reference if backend == "reference" else lambda name: getattr(ops, name)
    *_, saved = run("linear_token_stats")(*args, 1.0, -100, 127)
    g = [torch.randn(20) for _ in range(5)]
    for grad in run("linear_token_stats_backward")(*args, saved, *g, 1.0, True, True, True):
        assert not grad.any()


@pytest.mark.usefixtures("isa")
@every_dtype
@pytest.mark.parametrize("index", [-100, 7])
def test_ignore_index(index, dtype):
    """Log-probability 0 without a gradient; the other statistics as ever. A class may be it."""
    h = head(40, 12, 300, dtype)
    labels = torch.where(torch.arange(40) % 3 == 0, index, h.labels)
    leaves, grads = h.leaves()._replace(labels=labels), incoming(h)
    got = linear_token_stats(*leaves, stats=STATS, ignore_index=index)
    counted = {k: v.clone() for k, v in grads.items()}
    counted["logprob"][labels == index] = 0
    want = exact(h._replace(labels=labels.clamp(min=0)), 1.0, counted)
    want.stats["logprob"][labels == index] = 0
    check_stats(got, want.stats, dtype)
    for g, bound in zip(gradients(got, grads, leaves.inputs()), want.gradients, strict=True):
        bound.check(g, vector=True)
    assert not linear_token_stats(h.hidden, h.weight, torch.full((40,), -100)).logprob.any()


@pytest.mark.usefixtures("isa")
def test_nan_stays_in_its_row():
    h = head(40, 12, 300)
    want = linear_token_stats(*h, stats=STATS)
    h.hidden[5, 3] = torch.nan
    got = linear_token_stats(*h, stats=STATS)
    others = torch.arange(40) != 5
    for name in STATS:
        assert bool(getattr(got, name)[5].isnan()), name
        assert torch.equal(getattr(got, name)[others], getattr(want, name)[others])


@pytest.mark.usefixtures("isa")
def test_empty():
    for tokens, features, vocabulary in ((0, 5, 7), (3, 0, 7), (3, 5, 0), (0, 0, 0)):
        x = torch.randn(tokens, features, requires_grad=True)
        w = torch.randn(vocabulary, features, requires_grad=True)
        b = torch.randn(vocabulary, requires_grad=True)
        y = torch.full((tokens,), -100)
        got = linear_token_stats(x, w, y, b, stats=STATS)
        assert all(s.shape == (tokens,) for s in got[:7])
        if vocabulary == 0:
            assert bool((got.lse == -torch.inf).all())
            assert not got.entropy.any()
        else:
            torch.testing.assert_close(got.lse, b.logsumexp(-1).expand(tokens))
        loss = sum(s[s.isfinite()].sum() for s in got[:7])
        grads = torch.autograd.grad(loss, (x, w, b))
        assert [g.shape for g in grads] == [x.shape, w.shape, b.shape]
        assert not grads[0].any()
        assert not grads[1].any()
        if tokens:
            torch.testing.assert_close(
                grads[2].sum(), torch.tensor(float(tokens * (vocabulary > 0)))
            )


class TestForms:
    def test_leading_dimensions(self):
        h = head(24, 12, 50)
        want = linear_token_stats(*h)
        got = linear_token_stats(
            h.hidden.view(2, 3, 4, 12), h.weight, h.labels.view(2, 3, 4), h.bias
        )
        assert got.entropy.shape == got.logprob.shape == (2, 3, 4)
        assert torch.equal(got.entropy.flatten(), want.entropy)
        assert torch.equal(got.logprob.flatten(), want.logprob)
        one = linear_token_stats(h.hidden[0], h.weight, h.labels[0], h.bias)
        assert one.entropy.shape == ()
        assert torch.equal(one.entropy, want.entropy[0])

    @every_dtype
    def test_strides(self, dtype):
        """Slices of wider rows, transposed and expanded memory."""
        h = head(24, 12, 50, dtype)
        leaves, grads = h.leaves(), incoming(h)
        want = linear_token_stats(*leaves)
        to = gradients(want, {k: grads[k] for k in ("logprob", "entropy")}, leaves.inputs())
        wide = torch.full((24, 31), torch.nan, dtype=dtype)
        wide[:, 3:15] = h.hidden
        tall = torch.full((50, 29), torch.nan, dtype=dtype)
        tall[:, 1:13] = h.weight
        labels = torch.stack([h.labels, h.labels], 1)[:, 0]
        biases = torch.stack([h.bias, h.bias], 1)[:, 0]
        forms = [
            (wide[:, 3:15], tall[:, 1:13]),
            (h.hidden.t().contiguous().t(), h.weight.t().contiguous().t()),
        ]
        for x, w in forms:
            args = [t.detach().requires_grad_() for t in (x, w, biases)]
            got = linear_token_stats(args[0], args[1], labels, args[2])
            assert torch.equal(got.entropy, want.entropy)
            assert torch.equal(got.logprob, want.logprob)
            expanded = {"logprob": grads["logprob"], "entropy": grads["entropy"]}
            for g, t in zip(gradients(got, expanded, args), to, strict=True):
                assert torch.equal(g, t)
        got = linear_token_stats(h.hidden[:1].expand(24, 12), h.weight, None, h.bias)
        assert torch.equal(got.entropy, want.entropy[:1].expand(24))

    def test_gradients_that_are_expanded(self):
        h = head(24, 12, 50).leaves()
        (got,) = torch.autograd.grad(linear_token_stats(*h).entropy.sum(), h.hidden)
        (want,) = torch.autograd.grad(linear_token_stats(*h).entropy, h.hidden, torch.ones(24))
        assert torch.equal(got, want)

    def test_what_is_asked_for(self):
        h = head(5, 12, 50)
        everything = linear_token_stats(*h, stats=STATS)
        for name in STATS:
            got = linear_token_stats(*h, stats=name)
            assert torch.equal(getattr(got, name), getattr(everything, name))
            assert [k for k in Stats._fields if getattr(got, k) is not None] == [name]
        got = linear_token_stats(h.hidden, h.weight)
        assert [k for k in Stats._fields if getattr(got, k) is not None] == ["entropy"]
        got = linear_token_stats(h.hidden, h.weight, h.labels)
        assert got.logprob is not None
        assert got.entropy is not None

    @pytest.mark.parametrize("needed", range(1, 8))
    def test_gradients_that_are_needed(self, needed):
        h = head(40, 12, 300)
        leaves, grads = h.leaves(), incoming(h)
        want = gradients(linear_token_stats(*leaves, stats=STATS), grads, leaves.inputs())
        inputs = [
            t.detach().requires_grad_(bool(needed >> i & 1)) for i, t in enumerate(h.inputs())
        ]
        got = linear_token_stats(inputs[0], inputs[1], h.labels, inputs[2], stats=STATS)
        asked = [(t, w) for t, w in zip(inputs, want, strict=True) if t.requires_grad]
        for g, (_, w) in zip(gradients(got, grads, [t for t, _ in asked]), asked, strict=True):
            assert torch.equal(g, w)

    def test_no_gradient(self):
        h = head(5, 12, 50).leaves()
        got = linear_token_stats(*h, stats=STATS)
        assert not got.max_prob.requires_grad
        assert not got.plogp2.requires_grad
        assert got.lse.requires_grad

    def test_is_torchs(self):
        """The expression of the docstring."""
        h = head(24, 12, 50)
        logp = log_softmax(linear(h.hidden, h.weight, h.bias) / 0.5, -1)
        got = linear_token_stats(*h, temperature=0.5)
        torch.testing.assert_close(got.logprob, logp.gather(-1, h.labels[:, None])[:, 0])
        torch.testing.assert_close(got.entropy, -(logp.exp() * logp).sum(-1))

    def test_autocast(self):
        h = head(24, 12, 50)
        want = linear_token_stats(*(t if t is h.labels else t.bfloat16() for t in h))
        with torch.autocast("cpu", torch.bfloat16):
            got = linear_token_stats(*h)
        assert torch.equal(got.entropy, want.entropy)


def everything(h, grads):
    leaves = h.leaves()
    got = linear_token_stats(*leaves, stats=STATS)
    return [*got[:7], *gradients(got, grads, leaves.inputs())]


@pytest.mark.usefixtures("isa")
@every_dtype
@pytest.mark.parametrize("shape", [(70, 40, 1000), (200, 64, 20)], ids=str)
def test_same_bits_on_any_number_of_threads(shape, dtype, threads):
    h = head(*shape, dtype)
    h = h._replace(hidden=(h.hidden * 1.1).to(dtype))  # sums that are rounded
    grads = incoming(h)
    threads(1)
    want = everything(h, grads)
    for n in (2, 3, 7):
        threads(n)
        for one, other in zip(everything(h, grads), want, strict=True):
            assert torch.equal(one, other)


@pytest.mark.usefixtures("isa")
@every_dtype
@pytest.mark.parametrize("shape", [(70, 40, 300), (70, 1203, 50)], ids=str)
def test_tokens_do_not_depend_on_each_other(shape, dtype):
    """The same bits packed and not packed, as up to a vector of them are read."""
    h = head(*shape, dtype)
    h = h._replace(hidden=(h.hidden * 1.1).to(dtype))  # sums that are rounded
    want = linear_token_stats(*h, stats=STATS)
    ends = (1, 2, 3, 4, 8, 9, 12, 13, 16, 17)
    for some in (*(slice(0, n) for n in ends), slice(5, 22), slice(30, 70)):
        got = linear_token_stats(h.hidden[some], h.weight, h.labels[some], h.bias, stats=STATS)
        for name in STATS:
            assert torch.equal(getattr(got, name), getattr(want, name)[some])


@pytest.mark.skipif(not GLIBC, reason="the measure is glibc's")
def test_memory():
    """No tensor of the size of the logits: 64 MB here, and four times that in torch."""
    x, w = torch.randn(512, 32, requires_grad=True), torch.randn(32768, 32)
    y = torch.randint(0, 32768, (512,))

    def run(rows=slice(None)):
        got = linear_token_stats(x[rows], w, y[rows])
        torch.autograd.grad(got.logprob.sum() + got.entropy.sum(), x)

    run(slice(0, 2))
    assert memory.peak_growth(run) < 0.15 * 4 * 512 * 32768
