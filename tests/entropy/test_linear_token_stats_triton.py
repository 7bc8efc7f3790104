"""The Triton kernels of linear_token_stats, through the public function with backend="triton".

On a GPU, or interpreted on the CPU: ``TRITON_INTERPRET=1 pytest -m triton``, where a program takes
milliseconds, so that shapes are small. The float64 answers are computed on the CPU.
"""

import pytest
import torch
from heads import DIFFERENTIABLE, DTYPES, STATS, Head, check_stats, exact, head

from synops._library import launcher
from synops.entropy import linear_token_stats

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
triton = pytest.mark.triton
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)

# tokens, features, vocabulary. The first are for every dtype.
SHAPES = [
    (1, 1, 1),  # smaller than every tile
    (5, 16, 65),  # one past a tile of the vocabulary; rows of whole 16 elements
    (65, 17, 70),  # one past a tile of tokens; ragged rows
    (3, 70, 40),  # several steps of features
    (2, 3, 2100),  # parts of two tiles, the last one shorter
]


def incoming(h, names=DIFFERENTIABLE):
    wide = torch.float64 if h.hidden.dtype == torch.float64 else torch.float32
    return {name: torch.randn(h.labels.shape, dtype=wide) for name in names}


def verify(h, temperature=1.0, **options):
    """Statistics and gradients of a head, all of whose labels count."""
    leaves = Head(*(t.to(DEVICE) for t in h)).leaves()
    grads = incoming(h)
    got = linear_token_stats(
        *leaves, temperature=temperature, stats=STATS, backend="triton", **options
    )
    want = exact(h, temperature, grads)
    on_cpu = got._replace(**{name: getattr(got, name).cpu() for name in STATS})
    check_stats(on_cpu, want.stats, h.hidden.dtype)
    results = torch.autograd.grad(
        [getattr(got, name) for name in grads],
        leaves.inputs(),
        [g.to(DEVICE) for g in grads.values()],
    )
    # The interpreter cuts to bfloat16 where a GPU rounds: up to an ulp, always towards zero, which
    # the comparison of vectors would see.
    vector = h.hidden.dtype != torch.bfloat16 or DEVICE == "cuda"
    for g, bound in zip(results, want.gradients, strict=True):
        bound.check(g.cpu(), vector=vector)


@triton
class TestAnswers:
    @every_dtype
    @pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
    def test_every_dtype(self, shape, dtype):
        verify(head(*shape, dtype), 0.75)

    @pytest.mark.parametrize("shape", SHAPES[3:], ids=str)
    def test_float32(self, shape):
        verify(head(*shape))

    def test_several_chunks(self, monkeypatch):
        """Of the vocabulary in the backward: a chunk has 8 tiles at least."""
        module = "synops.kernels.entropy.linear_token_stats_backward"
        monkeypatch.setattr(f"{module}._CHUNK_BYTES", 0)
        verify(head(3, 5, 600))

    @pytest.mark.parametrize("temperature", [0.01, 10.0])
    def test_temperatures(self, temperature):
        verify(head(5, 16, 70), temperature)

    def test_offset(self):
        h = head(5, 16, 70)
        verify(h._replace(bias=h.bias + 3000))

    def test_masked_tokens(self):
        h = head(5, 16, 200)
        bias = h.bias.clone()
        bias[:70] = -torch.inf
        verify(h._replace(bias=bias, labels=h.labels % 100 + 100))

    def test_nothing_but_minus_inf(self):
        h = Head(*(t.to(DEVICE) for t in head(5, 4, 70)))
        h.bias.fill_(-torch.inf)
        leaves = h.leaves()
        got = linear_token_stats(*leaves, stats=STATS, backend="triton")
        for name in STATS:
            want = -torch.inf if name in ("lse", "logprob") else 0
            assert bool((getattr(got, name) == want).all()), name
        outputs = [getattr(got, name) for name in DIFFERENTIABLE]
        grads = [torch.ones_like(s) for s in outputs]
        for g in torch.autograd.grad(outputs, leaves.inputs(), grads):
            assert not g.any()

    def test_label_that_does_not_count(self):
        """Ignored, or of a logit of -inf: no gradient, and nobody else's is changed."""
        h = Head(*(t.to(DEVICE) for t in head(4, 4, 70)))
        h.bias[3] = -torch.inf
        h.labels[0], h.labels[1], h.labels[2:] = -100, 3, 5
        leaves = h.leaves()
        got = linear_token_stats(*leaves, stats="logprob", backend="triton").logprob
        assert got[0] == 0
        assert got[1] == -torch.inf
        (grad,) = torch.autograd.grad(got, leaves.hidden, torch.ones_like(got))
        assert not grad[:2].any()
        assert bool(grad[2:].any(1).all())

    @pytest.mark.parametrize("shape", [(0, 5, 7), (3, 0, 7), (3, 5, 0)], ids=str)
    def test_empty(self, shape):
        tokens, features, vocabulary = shape
        x = torch.randn(tokens, features, device=DEVICE, requires_grad=True)
        w = torch.randn(vocabulary, features, device=DEVICE, requires_grad=True)
        got = linear_token_stats(x, w, backend="triton")
        assert got.entropy.shape == (tokens,)
        for grad, t in zip(torch.autograd.grad(got.entropy.sum(), (x, w)), (x, w), strict=True):
            assert grad.shape == t.shape
            assert not grad.any()

    @pytest.mark.parametrize("needed", range(1, 4))
    def test_gradients_that_are_needed(self, needed):
        h = Head(*(t.to(DEVICE) for t in head(5, 4, 70)))
        x = h.hidden.requires_grad_(bool(needed & 1))
        w = h.weight.requires_grad_(bool(needed & 2))
        inputs = [t for t in (x, w) if t.requires_grad]
        results = [
            torch.autograd.grad(linear_token_stats(x, w, backend=name).entropy.sum(), inputs)
            for name in ("triton", "reference")
        ]
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other)

    def test_label_out_of_range(self):
        """The raw op reads nothing outside; nobody else's statistics are changed."""
        h = Head(*(t.to(DEVICE) for t in head(4, 4, 70)))
        h.labels[1], h.labels[2] = 2**40, -7
        run = launcher("linear_token_stats")
        logprob, *_ = run(h.hidden, h.weight, h.labels, h.bias, 1.0, -100, 1)
        assert logprob.isnan().tolist() == [False, True, True, False]

    def test_bad_arguments(self):
        h = Head(*(t.to(DEVICE) for t in head(4, 4, 70)))
        run = launcher("linear_token_stats")
        for args in (
            (h.hidden[0], h.weight, h.labels, h.bias, 1.0, -100, 1),
            (h.hidden, h.weight[:, 1:], h.labels, h.bias, 1.0, -100, 1),
            (h.hidden, h.weight, h.labels[1:], h.bias, 1.0, -100, 1),
            (h.hidden, h.weight, h.labels, h.bias[1:], 1.0, -100, 1),
            (h.hidden, h.weight, None, h.bias, 1.0, -100, 1),
            (h.hidden, h.weight, h.labels, h.bias, 0.0, -100, 1),
            (h.hidden.int(), h.weight, h.labels, h.bias, 1.0, -100, 1),
        ):
            with pytest.raises(RuntimeError):
                run(*args)
