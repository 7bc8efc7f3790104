"""token_stats against float64, at the edges of its kernels and of what softmax is defined for."""

import math

import pytest
import torch
from token_samples import (
    ALL,
    DTYPES,
    GRADS,
    IGNORED,
    TOLERANCE,
    Sample,
    check_gradient,
    check_stats,
    expected,
    expected_gradient,
    gradient,
    incoming,
    sample,
    stats_of,
)
from torch.nn.functional import log_softmax

from synops.entropy import Stats, token_stats

EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)
SIZES = [
    1,  # one logit: everything is exact
    10,  # classes; part of a vector
    17,  # one past an AVX-512 vector
    64,  # the longest row that is turned to columns
    65,  # the first that is not, a row a lane
    256,  # the longest of these
    257,  # the first with sums of its own
    2049,  # one past a block
    32769,  # one past a piece
]


@pytest.mark.usefixtures("isa")
@EVERY_DTYPE
@pytest.mark.parametrize("size", SIZES)
def test_reference(size, dtype):
    """Statistics and gradients; 19 rows: a vector of them and a rest."""
    s = sample(19 if size < 1000 else 5, size, dtype)
    check_stats(stats_of(s), expected(s), dtype)
    grads = incoming(s)
    check_gradient(gradient(s, grads), expected_gradient(s, grads), s, grads)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("size", [10, 3000])
@pytest.mark.parametrize("name", GRADS)
def test_each_gradient_alone(name, size):
    s = sample(7, size, torch.float64)
    grads = incoming(s)
    got = gradient(s, grads, (name,))
    check_gradient(got, expected_gradient(s, grads, (name,)), s, grads)
    alone = [g if n == name else torch.zeros_like(g) for g, n in zip(grads, GRADS, strict=True)]
    torch.testing.assert_close(got, gradient(s, alone), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("size", [10, 300])
def test_gradient_is_autograds(size):
    """Of the definition, where it has no -inf to stumble on."""
    x = torch.randn(6, size, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(size, (6,))
    got = token_stats(x, labels, temperature=0.7, stats=ALL)
    log_p = log_softmax(x / 0.7, -1)
    p = log_p.exp()
    entropy = -(p * log_p).sum(-1)
    want = (
        log_p.gather(-1, labels[:, None])[:, 0],
        entropy,
        (p * log_p.square()).sum(-1) - entropy.square(),
        (x / 0.7).logsumexp(-1),
        p.square().sum(-1),
    )
    for name, other in zip(GRADS, want, strict=True):
        one = getattr(got, name)
        torch.testing.assert_close(one, other)
        g = torch.randn(6, dtype=torch.float64)
        (of_one,) = torch.autograd.grad(one, x, g, retain_graph=True)
        (of_other,) = torch.autograd.grad(other, x, g, retain_graph=True)
        torch.testing.assert_close(of_one, of_other)
    for name in ("max_prob", "plogp2"):
        assert not getattr(got, name).requires_grad


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("size", [12, 5000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("offset", [30, -300, 3000, 1e6])
def test_any_offset(offset, dtype, size):
    """Moments are centred at the largest logit: an uncentred sum is off by 2e-3 at 3000."""
    s = sample(9, size, dtype, offset)
    check_stats(stats_of(s), expected(s), dtype)
    grads = incoming(s)
    check_gradient(gradient(s, grads), expected_gradient(s, grads), s, grads)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("size", [12, 5000])
@pytest.mark.parametrize("temperature", [0.01, 0.3, 10.0])
def test_temperature(temperature, size):
    s = sample(9, size, torch.float32)._replace(temperature=temperature)
    got, want = stats_of(s), expected(s)
    for name in ("entropy", "varentropy", "max_prob", "collision", "plogp2"):
        torch.testing.assert_close(
            getattr(got, name).double(), getattr(want, name), rtol=0, atol=2 * TOLERANCE[name]
        )
    for name in ("lse", "logprob"):  # up to 1000 at .01
        torch.testing.assert_close(
            getattr(got, name).double(), getattr(want, name), rtol=3e-7, atol=1e-5
        )
    grads = incoming(s)
    want = expected_gradient(s, grads)
    got = gradient(s, grads).double()
    assert (got - want).norm() <= 1e-5 * want.norm()


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("size", [9, 600, 70000])
def test_degenerate_rows(size):
    """Defined where torch's expression gives NaN."""
    x = torch.full((4, size), -torch.inf)
    x[1, size - 1] = 5.0  # a single logit
    x[2] = 2.0  # uniform
    x[3, 0] = torch.nan
    labels = torch.tensor([0, size - 1, 1, 1])
    got = token_stats(x, labels, stats=ALL)
    for name in ALL:
        nothing = -torch.inf if name in ("lse", "logprob") else 0.0
        assert getattr(got, name)[0] == nothing, name
        single = {"lse": 5.0, "max_prob": 1.0, "collision": 1.0}.get(name, 0.0)
        assert getattr(got, name)[1] == single, name
        assert getattr(got, name)[3].isnan() or name == "logprob", name
    torch.testing.assert_close(got.entropy[2], torch.tensor(math.log(size)), rtol=0, atol=1e-5)
    assert got.varentropy[2] <= 2e-5
    x = x[:3].requires_grad_()
    got = token_stats(x, labels[:3], stats=ALL)
    grad = torch.autograd.grad([getattr(got, n) for n in GRADS], x, [torch.ones(3)] * 5)[0]
    assert grad.isfinite().all()
    assert not grad[0].any()


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("size", [9, 600])
def test_infinite_logit(size):
    """As log_softmax: NaN, and nothing else breaks."""
    x = torch.randn(3, size)
    x[1, 2] = torch.inf
    got = token_stats(x, stats=("entropy", "lse", "varentropy"))
    assert got.entropy[1].isnan()
    assert got.entropy[[0, 2]].isfinite().all()


@pytest.mark.parametrize("size", [9, 600])
def test_labels(size):
    """Ignored, or without probability: no gradient through logprob, the rest as ever."""
    x = torch.randn(3, size)
    x[1, 4] = -torch.inf
    x.requires_grad_()
    labels = torch.tensor([IGNORED, 4, 4])
    got = token_stats(x, labels)
    assert got.logprob[0] == 0
    assert got.logprob[1] == -torch.inf
    (grad,) = torch.autograd.grad(got.logprob.nan_to_num(neginf=0).sum(), x)
    assert not grad[:2].any()
    assert grad[2].any()
    got = token_stats(x, torch.tensor([7, 4, 4]), ignore_index=7)
    assert got.logprob[0] == 0
    for kind in (torch.int32, torch.uint8):
        same = token_stats(x, torch.tensor([1, 4, 4], dtype=kind))
        assert torch.equal(same.logprob, token_stats(x, torch.tensor([1, 4, 4])).logprob)


@pytest.mark.parametrize("size", [10, 300])
class TestLayout:
    def test_shapes(self, size):
        for lead in ((), (4,), (2, 3), (2, 1, 3), (2, 2, 2, 2)):
            x, y = torch.randn(*lead, size), torch.randint(size, lead)
            got = token_stats(x, y, stats=ALL)
            want = token_stats(x.reshape(-1, size), y.reshape(-1), stats=ALL)
            for name in ALL:
                assert torch.equal(getattr(got, name), getattr(want, name).reshape(lead))

    def test_rows_anywhere(self, size):
        """Shifted, strided, expanded and transposed logits; NaN in between is not read."""
        x = torch.full((3, 8, size + 5), torch.nan)
        x[:, :-1, :size] = torch.randn(3, 7, size)
        shifted = x[:, :-1, :size]
        for view in (shifted, shifted[:, ::2], shifted[1:, 3]):
            got = token_stats(view, stats=ALL[1:])
            dense = token_stats(view.contiguous(), stats=ALL[1:])
            assert all(torch.equal(a, b) for a, b in zip(got[1:7], dense[1:7], strict=True))
        turned = torch.randn(size, 6).t()
        got, dense = token_stats(turned), token_stats(turned.contiguous())
        assert torch.equal(got.entropy, dense.entropy)
        wide = torch.randn(1, size).expand(5, size)
        assert torch.equal(token_stats(wide).entropy, token_stats(wide.contiguous()).entropy)

    def test_gradient_of_a_view(self, size):
        x = torch.randn(2, 5, size + 3, requires_grad=True)
        (grad,) = torch.autograd.grad(token_stats(x[:, :-1, 1:-2]).entropy.sum(), x)
        dense = x[:, :-1, 1:-2].detach().contiguous().requires_grad_()
        (want,) = torch.autograd.grad(token_stats(dense).entropy.sum(), dense)
        assert torch.equal(grad[:, :-1, 1:-2], want)
        assert not grad[:, -1].any()

    def test_empty(self, size):
        x = torch.randn(0, size, requires_grad=True)
        got = token_stats(x, torch.zeros(0, dtype=torch.long), stats=ALL)
        assert all(t.shape == (0,) for t in got[:7])
        got.entropy.sum().backward()
        assert x.grad.shape == (0, size)


def test_no_columns():
    got = token_stats(torch.randn(3, 0), stats=ALL[1:])
    assert torch.equal(got.lse, torch.full((3,), -torch.inf))
    assert not got.entropy.any()


@pytest.mark.parametrize("size", [10, 100_000])
def test_threads(size, threads):
    """One row or many: the same bits."""
    for rows in (1, 40 if size == 10 else 3):
        s = sample(rows, size, torch.float32)
        grads = incoming(s)
        results = []
        for count in (1, 2, 3):
            threads(count)
            results.append((*stats_of(s)[:7], gradient(s, grads)))
        for other in results[1:]:
            assert all(map(torch.equal, results[0], other))


@pytest.mark.triton
@EVERY_DTYPE
@pytest.mark.parametrize("size", [1, 10, 300, 5000])
def test_triton(size, dtype):
    """Short rows, several to a block; one block; several of them."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    s = sample(7, size, dtype)
    here = s._replace(logits=s.logits.to(device), labels=s.labels.to(device))
    got = Stats(*(t if t is None else t.cpu() for t in stats_of(here, backend="triton")))
    check_stats(got, expected(s), dtype)
    grads = incoming(s)
    there = [g.to(device) for g in grads]
    check_gradient(
        gradient(here, there, backend="triton").cpu(), expected_gradient(s, grads), s, grads
    )


def test_samples_are_what_they_say():
    s = sample(6, 12, torch.float32)
    assert isinstance(s, Sample)
    want = expected(s)
    assert want.entropy[2] == 0
    assert want.logprob[3] == -torch.inf
    assert s.labels[4] == IGNORED
