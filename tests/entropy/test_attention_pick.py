"""attention_pick against the softmax written out."""

import pytest
import torch

from synops.entropy import attention_pick, attention_with_stats

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def inputs(dtype=torch.float64, heads=4, kv_heads=2, rows=9, keys=11, size=6):
    made = [(2, heads, rows, size), (2, kv_heads, keys, size)]
    return [torch.randn(shape).to(dtype) for shape in made]


def dense(query, key, index, scale, is_causal=False):
    """Gathered from the whole matrix; 0 where the index is negative."""
    key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    scores = scale * query @ key.mT
    if is_causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        scores = scores.masked_fill(~seen, -torch.inf)
    at = index.expand(*scores.shape[:3], index.shape[-1])
    return scores.softmax(-1).gather(-1, at.clamp(min=0)).masked_fill(at < 0, 0)


def indices(rows, keys):
    """Shared by the heads, and of each."""
    shared = torch.randint(-2, keys, (rows, 3))
    return {"shared": shared, "each": torch.randint(-2, keys, (2, 4, rows, 3))}


@pytest.mark.parametrize("kind", ["shared", "each"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_is_the_softmax(dtype, kind, kv_heads):
    query, key = inputs(dtype, kv_heads=kv_heads)
    index = indices(9, 11)[kind]
    _, stats = attention_with_stats(query, key, key, scale=0.4, enable_gqa=True, stats="lse")
    got = attention_pick(query, key, stats.lse, index, scale=0.4)
    want = dense(query.double(), key.double(), index, 0.4)
    assert got.dtype == stats.lse.dtype
    torch.testing.assert_close(got.double(), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["shared", "each"])
def test_gradients_go_through_lse(kind):
    """Of the whole softmax, though only some of its entries are computed."""
    query, key = (t.requires_grad_() for t in inputs())
    index = indices(9, 11)[kind]
    grad = torch.randn(2, 4, 9, 3, dtype=torch.float64)
    _, stats = attention_with_stats(query, key, key, enable_gqa=True, stats="lse")
    got = torch.autograd.grad(attention_pick(query, key, stats.lse, index), (query, key), grad)
    want = torch.autograd.grad(dense(query, key, index, 6**-0.5), (query, key), grad)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w)


def test_previous_token():
    """A causal head; the first row has no previous token."""
    query, key = inputs(rows=11)
    _, stats = attention_with_stats(query, key, key, is_causal=True, enable_gqa=True, stats="lse")
    index = torch.arange(11)[:, None] - 1
    got = attention_pick(query, key, stats.lse, index)
    assert not got[:, :, 0].any()
    torch.testing.assert_close(got, dense(query, key, index, 6**-0.5, is_causal=True))


def test_rows_without_keys():
    """0, and no NaN in the gradients; scores of dropped keys may overflow."""
    query, key = (t.requires_grad_() for t in inputs(torch.float32))
    lse = torch.full((2, 4, 9), -torch.inf)
    lse[:, :, 3] = 5.0
    index = torch.full((9, 2), -1)
    index[0] = 4
    big = query * 1e30
    picked = attention_pick(big, key, lse, index)
    assert not picked.any()
    for grad in torch.autograd.grad(picked.sum(), (query, key)):
        assert not grad.any()


def test_empty():
    query, key = inputs(rows=0)
    lse = torch.zeros(2, 4, 0, dtype=torch.float64)
    assert attention_pick(query, key, lse, torch.zeros(0, 3).long()).shape == (2, 4, 0, 3)
    query, key = inputs()
    lse = torch.zeros(2, 4, 9, dtype=torch.float64)
    assert attention_pick(query, key, lse, torch.zeros(9, 0).long()).shape == (2, 4, 9, 0)


def test_compiled():
    query, key = inputs(torch.float32)
    lse, index = torch.randn(2, 4, 9), torch.randint(-1, 11, (9, 2))
    compiled = torch.compile(attention_pick, fullgraph=True, backend="aot_eager")
    got, want = compiled(query, key, lse, index), attention_pick(query, key, lse, index)
    torch.testing.assert_close(got, want)


Q, K = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 6, 8)
LSE, INDEX = torch.randn(2, 4, 5), torch.zeros(5, 3, dtype=torch.int64)
BAD = {
    "query": ((Q[0], K, LSE, INDEX), ValueError, "query must have 4 dimensions"),
    "key: dtype": ((Q, K.half(), LSE, INDEX), TypeError, "key must have the dtype of query"),
    "key: size": ((Q, K[..., :7], LSE, INDEX), ValueError, "key must have shape (B, Hkv, M, D)"),
    "key: heads": (
        (Q[:, :3], K, LSE, INDEX),
        ValueError,
        "key must have heads that divide those of query (3), got 2",
    ),
    "lse: dtype": ((Q, K, LSE.double(), INDEX), TypeError, "lse must be float32, got float64"),
    "lse: shape": (
        (Q, K, LSE[:, :2], INDEX),
        ValueError,
        "lse must have shape (B, H, N) = (2, 4, 5), got (2, 2, 5)",
    ),
    "index: dtype": ((Q, K, LSE, INDEX.int()), TypeError, "index must be int64, got int32"),
    "index: shape": (
        (Q, K, LSE, INDEX[:4]),
        ValueError,
        "index must have shape (N, R) = (5, R) or (B, H, N, R) = (2, 4, 5, R), got (4, 3)",
    ),
    "index: range": ((Q, K, LSE, INDEX + 6), IndexError, "index must be below M = 6, got 6"),
}


@pytest.mark.parametrize(("args", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input(args, error, message):
    with pytest.raises(error) as raised:
        attention_pick(*args)
    assert str(raised.value).startswith(f"attention_pick: {message}")
