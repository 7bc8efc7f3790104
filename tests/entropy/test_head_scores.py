"""head_scores against loops over the whole softmax."""

import pytest
import torch
from head_maps import ALL, loops, probabilities
from no_sync import NoSync
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from synops.entropy import _occurrences, attention_with_stats, head_scores

NO_WAIT = ALL[:4]


def inputs(dtype=torch.float64, b=3, heads=4, kv_heads=2, n=23, size=6):
    """Query, key and tokens: some that occur often, some once."""
    tokens = torch.randint(5, (b, n))
    tokens[:, ::4] = torch.arange(100, 100 + len(tokens[0, ::4]))
    made = [torch.randn(b, h, n, size).to(dtype) for h in (heads, kv_heads)]
    return *made, tokens


def lse_of(query, key, **options):
    _, stats = attention_with_stats(query, key, key, enable_gqa=True, stats="lse", **options)
    return stats.lse


def check(got, want, **tolerance):
    tolerance = tolerance or {"rtol": 0, "atol": 1e-6}
    for name, g, w in zip(ALL, got, want, strict=True):
        torch.testing.assert_close(g.double(), w, equal_nan=True, **tolerance, msg=name)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str
)
def test_is_the_mean_of_the_softmax(dtype, kv_heads):
    query, key, tokens = inputs(dtype, kv_heads=kv_heads)
    lse = lse_of(query, key, is_causal=True, scale=0.4)
    got = head_scores(query, key, lse, tokens, scale=0.4)
    assert all(score.dtype == lse.dtype and score.shape == (3, 4) for score in got)
    check(got, loops(probabilities(query, key, scale=0.4), tokens))


MASKS = {
    "bool": lambda: torch.rand(3, 1, 23, 23) < 0.7,
    "bool, of keys": lambda: torch.rand(3, 1, 1, 23) < 0.7,
    "float, of heads": lambda: torch.randn(4, 1, 23, dtype=torch.float64),
    "half, 2-D": lambda: torch.randn(23, 23).half(),
    "window alone": lambda: None,
}


@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize("kind", MASKS)
def test_masked_attention(kind, window):
    """Not causal, too: what a mask or a window hides is not looked at. Some rows see nothing."""
    query, key, tokens = inputs(torch.float16 if kind.startswith("half") else torch.float64)
    attn_mask = MASKS[kind]()
    if kind == "bool":
        attn_mask[:, :, 5] = False
    options = {"attn_mask": attn_mask, "window": window}
    got = head_scores(query, key, lse_of(query, key, **options), tokens, **options)
    p = probabilities(query, key, **options, is_causal=False)
    check(got, loops(p, tokens))


def test_padding():
    """On either side, in the middle, everywhere, nowhere."""
    query, key, tokens = inputs(b=5)
    mask = torch.ones(5, 23, dtype=torch.bool)
    mask[0, :6] = mask[1, -6:] = mask[2, 9:12] = mask[3] = False
    attn_mask = mask[:, None, None] & torch.ones(23, 23, dtype=torch.bool).tril()
    lse = lse_of(query, key, attn_mask=attn_mask)
    got = head_scores(query, key, lse, tokens, mask=mask, attn_mask=attn_mask)
    want = loops(probabilities(query, key, attn_mask), tokens, mask)
    check(got, want)
    assert all(score[3].isnan().all() and score[4].isfinite().all() for score in got)


@pytest.mark.parametrize("piece", [1, 50, 1000])
def test_in_pieces(piece, monkeypatch):
    """Of rows of a token, of tokens of a group, of everything; a sequence of one token."""
    query, key, tokens = inputs()
    tokens[1] = 7
    lse = lse_of(query, key, is_causal=True)
    monkeypatch.setattr(_occurrences, "PIECE", piece)
    check(head_scores(query, key, lse, tokens), loops(probabilities(query, key), tokens))


@pytest.mark.parametrize("piece", [50, 1 << 20])
def test_gradients(piece, monkeypatch):
    """Through lse as well, with padding and rows that see nothing."""
    query, key, tokens = inputs()
    query.requires_grad_(), key.requires_grad_()
    mask = torch.rand(3, 23) < 0.8
    attn_mask = torch.ones(23, 23, dtype=torch.bool).tril()
    attn_mask[8] = False
    lse = lse_of(query, key, attn_mask=attn_mask)
    monkeypatch.setattr(_occurrences, "PIECE", piece)
    got = head_scores(query, key, lse, tokens, mask=mask, attn_mask=attn_mask)
    want = loops(probabilities(query, key, attn_mask), tokens, mask)
    for name, g, w in zip(ALL, got, want, strict=True):
        grad = torch.randn(3, 4, dtype=torch.float64)
        grads = [torch.autograd.grad(x, (query, key), grad, retain_graph=True) for x in (g, w)]
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b, msg=name)


@pytest.mark.parametrize("name", ["sink", "induction", "prefix_matching"])
def test_gradients_of_gradients(name):
    query, key, tokens = inputs(b=1, heads=2, kv_heads=1, n=6, size=2)
    leaves = [t.requires_grad_() for t in (query, key, torch.randn(1, 2, 6).double() + 2)]
    call = lambda *args: getattr(head_scores(*args, tokens, scores=name), name)  # noqa: E731
    assert torch.autograd.gradgradcheck(call, leaves)


def test_gradient_of_nothing():
    """A sequence without a repeated token: NaN, and gradients of 0."""
    query, key = (t.requires_grad_() for t in inputs(b=1)[:2])
    lse = lse_of(query, key, is_causal=True)
    got = head_scores(query, key, lse, torch.arange(23)[None])
    assert all(got[ALL.index(name)].isnan().all() for name in ALL[3:])
    for grad in torch.autograd.grad(got.induction.sum() + got.prefix_matching.sum(), (query, key)):
        assert not grad.any()


def test_repeated_once():
    """Random tokens and the same again: one occurrence before, so both scores are one stripe."""
    query, key, _ = inputs(n=24)
    tokens = torch.stack([torch.randperm(12) for _ in range(3)]).repeat(1, 2)
    got = head_scores(query, key, lse_of(query, key, is_causal=True), tokens)
    stripe = probabilities(query, key).diagonal(-11, -2, -1)[..., 1:].mean(-1)
    torch.testing.assert_close(got.induction, stripe)
    torch.testing.assert_close(got.prefix_matching, stripe)


def test_what_was_asked_for():
    query, key, tokens = inputs()
    lse = lse_of(query, key, is_causal=True)
    everything = head_scores(query, key, lse, tokens)
    assert [score is None for score in head_scores(query, key, lse)] == [False] * 3 + [True] * 3
    for name in ALL:
        got = head_scores(query, key, lse, tokens, scores=name)
        assert [score is None for score in got] == [name != other for other in ALL]
        assert torch.equal(getattr(got, name), getattr(everything, name))
    got = head_scores(query, key, lse, tokens, scores=["sink", "prefix_matching"])
    assert torch.equal(got.prefix_matching, everything.prefix_matching)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int64], ids=str)
def test_tokens_are_any_integers(dtype):
    """And tensors may lie in any order: (B, N, H, D) turned, every other token."""
    query, key, tokens = inputs()
    lse = lse_of(query, key, is_causal=True)
    apart = torch.zeros(3, 46, dtype=dtype)
    apart[:, ::2] = tokens.to(dtype)
    turned = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (query, key)]
    got = head_scores(*turned, lse.mT.contiguous().mT, apart[:, ::2])
    check(got, head_scores(query, key, lse, tokens))


def test_at_the_edges():
    """One position; none; no sequence; no head."""
    one = head_scores(
        *(torch.randn(1, 2, 1, 4) for _ in "qk"), torch.zeros(1, 2, 1), torch.ones(1, 1).long()
    )
    assert one.previous_token.isnan().all()
    assert one.prefix_matching.isnan().all()
    assert one.current_token.isfinite().all()
    assert torch.equal(one.sink, one.current_token)
    for shape in ((2, 2, 0, 4), (0, 2, 5, 4), (2, 0, 5, 4)):
        b, _, n, _ = shape
        got = head_scores(
            torch.randn(shape),
            torch.randn(shape),
            torch.zeros(shape[:3]),
            torch.zeros(b, n).long(),
            mask=torch.ones(b, n, dtype=torch.bool),
        )
        assert all(score.shape == shape[:2] and score.isnan().all() for score in got)


def test_never_waits_for_the_device():
    query, key, tokens = inputs(torch.float32)
    mask = torch.rand(3, 23) < 0.8
    attn_mask = torch.rand(3, 1, 23, 23) < 0.7
    lse = lse_of(query, key, attn_mask=attn_mask)
    # the check of an index on the CPU, where nothing waits, looks at its largest
    meta = [t.to("meta") for t in (query, key, lse, tokens, mask, attn_mask)]
    with NoSync():
        head_scores(*meta[:4], scores=NO_WAIT, mask=meta[4], attn_mask=meta[5], window=9)


def test_compiled():
    query, key, tokens = inputs(torch.float32)
    lse = lse_of(query, key, is_causal=True)
    compiled = torch.compile(head_scores, fullgraph=True, backend="aot_eager")
    got = compiled(query, key, lse, tokens, scores=NO_WAIT)
    want = head_scores(query, key, lse, tokens, scores=NO_WAIT)
    for g, w in zip(got[:4], want[:4], strict=True):
        torch.testing.assert_close(g, w)


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any op returns."""

    found = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves(made) if isinstance(t, torch.Tensor)]
        self.found = max([self.found, *sizes])
        return made


def test_memory_where_all_tokens_are_equal(monkeypatch):
    """The worst case: every pair counts. No tensor, forward or backward, is larger than a piece,
    and what the graph keeps does not grow with the pairs (4 x 256^2 = 262144 times 5 tensors)."""
    monkeypatch.setattr(_occurrences, "PIECE", 1 << 13)
    query, key = (torch.randn(1, 4, 256, 8, requires_grad=True) for _ in "qk")
    lse = torch.full((1, 4, 256), 9.0, requires_grad=True)
    tokens = torch.zeros(1, 256, dtype=torch.int64)
    kept = []

    def keep(t):
        kept.append(t.numel())
        return t

    with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        score = head_scores(query, key, lse, tokens, scores="prefix_matching").prefix_matching
        score.sum().backward()
    assert query.grad.any()
    assert largest.found <= 1 << 13
    assert sum(kept) < 10_000


Q, K = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8)
LSE, TOKENS = torch.randn(2, 4, 5), torch.zeros(2, 5, dtype=torch.int64)
BAD = {
    "query": ((Q[0], K, LSE), {}, ValueError, "query must have 4 dimensions"),
    "query: size": (
        (Q[..., :0], K[..., :0], LSE),
        {},
        ValueError,
        "query must have a head size of at least 1, got 0",
    ),
    "key: rows": (
        (Q, K[:, :, :4], LSE),
        {},
        ValueError,
        "key must have the positions of query (5), got 4",
    ),
    "lse": ((Q, K, LSE.double()), {}, TypeError, "lse must be float32, got float64"),
    "tokens: shape": (
        (Q, K, LSE, TOKENS[0]),
        {},
        ValueError,
        "tokens must have shape (B, N) = (2, 5), got (5,)",
    ),
    "tokens: dtype": (
        (Q, K, LSE, TOKENS.float()),
        {},
        TypeError,
        "tokens must be integers, got float32",
    ),
    "tokens: none": (
        (Q, K, LSE),
        {"scores": "induction"},
        ValueError,
        "tokens must be given for induction, got None",
    ),
    "scores": (
        (Q, K, LSE),
        {"scores": ("sink", "sinks")},
        ValueError,
        "scores must be of previous_token, current_token, sink, induction, prefix_matching, "
        "duplicate_token, got 'sinks'",
    ),
    "scores: type": (
        (Q, K, LSE),
        {"scores": 3},
        TypeError,
        "scores must be names of scores, got int",
    ),
    "mask: dtype": (
        (Q, K, LSE),
        {"mask": TOKENS},
        TypeError,
        "mask must be bool, got int64",
    ),
    "mask: shape": (
        (Q, K, LSE),
        {"mask": TOKENS[:, :4].bool()},
        ValueError,
        "mask must have shape (B, N) = (2, 5), got (2, 4)",
    ),
    "attn_mask": (
        (Q, K, LSE),
        {"attn_mask": torch.zeros(4, 5)},
        ValueError,
        "attn_mask must be broadcastable to (B, H, N, M) = (2, 4, 5, 5), got (4, 5)",
    ),
    "attn_mask: gradient": (
        (Q, K, LSE),
        {"attn_mask": torch.zeros(5, 5, requires_grad=True)},
        NotImplementedError,
        "attn_mask has no gradient here; detach() it",
    ),
    "window": ((Q, K, LSE), {"window": 0}, ValueError, "window must be at least 1, got 0"),
    "scale": ((Q, K, LSE), {"scale": "1"}, TypeError, "scale must be a number, got str"),
}


@pytest.mark.parametrize(("args", "options", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input(args, options, error, message):
    with pytest.raises(error) as raised:
        head_scores(*args, **options)
    assert str(raised.value).startswith(f"head_scores: {message}")
