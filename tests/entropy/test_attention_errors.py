"""attention_with_stats on what it cannot take: typed errors, and raw ops that stay in memory."""

import pytest
import torch

from synops.entropy import attention_with_stats

Q, K, V = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 6, 8), torch.randn(2, 4, 6, 3)
MASK = torch.ones(5, 6, dtype=torch.bool)
BAD = {
    "query: no tensor": ((None, K, V), {}, TypeError, "query must be a torch.Tensor"),
    "query: integers": ((Q.int(), K, V), {}, TypeError, "query must be float32, float64"),
    "query: 3-D": ((Q[0], K, V), {}, ValueError, "query must have 4 dimensions (batch, heads,"),
    "query: size 0": (
        (Q[..., :0], K[..., :0], V),
        {},
        ValueError,
        "query must have a head size of 1 to 256, got 0",
    ),
    "query: size 257": (
        (torch.empty(2, 4, 5, 257), torch.empty(2, 4, 6, 257), V),
        {},
        ValueError,
        "query must have a head size of 1 to 256, got 257",
    ),
    "key: dtype": ((Q, K.double(), V), {}, TypeError, "key must have the dtype of query (float32)"),
    "key: device": (
        (Q, K.to("meta"), V),
        {},
        ValueError,
        "key must be on the device of query (cpu), got meta",
    ),
    "key: size": (
        (Q, K[..., :7], V),
        {},
        ValueError,
        "key must have shape (B, Hkv, M, D) = (2, Hkv, M, 8), got (2, 4, 6, 7)",
    ),
    "key: heads": (
        (Q, K[:, :2], V[:, :2]),
        {},
        ValueError,
        "key must have the heads of query (4) unless enable_gqa, got 2",
    ),
    "key: heads that do not divide": (
        (Q, K[:, :3], V[:, :3]),
        {"enable_gqa": True},
        ValueError,
        "key must have heads that divide those of query (4), got 3",
    ),
    "value: keys": (
        (Q, K, V[:, :, :5]),
        {},
        ValueError,
        "value must have shape (B, Hkv, M, Dv) = (2, 4, 6, Dv), got (2, 4, 5, 3)",
    ),
    "value: size": (
        (Q, K, V[..., :0]),
        {},
        ValueError,
        "value must have a head size of 1 to 256, got 0",
    ),
    "mask: shape": (
        (Q, K, V, MASK[:, :5]),
        {},
        ValueError,
        "attn_mask must be broadcastable to (B, H, N, M) = (2, 4, 5, 6), got (5, 5)",
    ),
    "mask: 5-D": (
        (Q, K, V, MASK[None, None, None]),
        {},
        ValueError,
        "attn_mask must be broadcastable",
    ),
    "mask: integers": (
        (Q, K, V, MASK.int()),
        {},
        TypeError,
        "attn_mask must be bool, float32 or have the dtype of query (float32), got int32",
    ),
    "mask: causal": (
        (Q, K, V, MASK),
        {"is_causal": True},
        ValueError,
        "attn_mask must be None with is_causal, got both",
    ),
    "causal": ((Q, K, V), {"is_causal": 1}, TypeError, "is_causal must be a bool, got 1"),
    "window: 0": ((Q, K, V), {"window": 0}, ValueError, "window must be at least 1, got 0"),
    "window: 1.5": ((Q, K, V), {"window": 1.5}, TypeError, "window must be an int, got float"),
    "scale": ((Q, K, V), {"scale": "1"}, TypeError, "scale must be a number, got str"),
    "stats: logprob": (
        (Q, K, V),
        {"stats": ("logprob",)},
        ValueError,
        "stats must be of entropy, varentropy, lse, max_prob, received, got 'logprob'",
    ),
}


@pytest.mark.parametrize(("args", "options", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input(args, options, error, message):
    with pytest.raises(error) as raised:
        attention_with_stats(*args, **options)
    assert str(raised.value).startswith(f"attention_with_stats: {message}")


def test_gradient_of_the_mask_is_refused():
    mask = torch.zeros(5, 6, requires_grad=True)
    with pytest.raises(NotImplementedError, match="attn_mask has no gradient here"):
        attention_with_stats(Q, K, V, mask)
    with torch.no_grad():
        attention_with_stats(Q, K, V, mask)


def test_double_backward_is_refused():
    query = Q.clone().requires_grad_()
    output, _ = attention_with_stats(query, K, V)
    (grad,) = torch.autograd.grad(output.sum(), query, create_graph=True)
    with pytest.raises(NotImplementedError, match="double backward"):
        grad.sum().backward()


def raw(query=Q, key=K, value=V, mask=None, causal=False, window=-1):
    return torch.ops.synops.attention_with_stats(
        query, key, value, mask, causal, window, 0.3, 1 << 1
    )


RAW = {
    "3-D": {"query": Q[0]},
    "dtype": {"key": K.double()},
    "integers": {"query": Q.int(), "key": K.int(), "value": V.int()},
    "batch": {"key": K[:1]},
    "heads": {"key": K[:, :3], "value": V[:, :3]},
    "heads of value": {"value": V[:, :2]},
    "no heads": {"key": K[:, :0], "value": V[:, :0]},
    "keys": {"value": V[:, :, :5]},
    "size": {"key": K[..., :7]},
    "size 0": {"query": Q[..., :0], "key": K[..., :0]},
    "mask: sides": {"mask": MASK},
    "mask: keys": {"mask": MASK[None, None, :, :5]},
    "mask: integers": {"mask": MASK.int()[None, None]},
}


@pytest.mark.parametrize("options", RAW.values(), ids=RAW)
def test_raw_op_refuses(options):
    with pytest.raises(RuntimeError):
        raw(**options)


def test_raw_op_takes_any_window():
    for window in (-(2**62), 0, 2**62, 2**63 - 1):
        for causal in (False, True):
            output, _, entropy, *_ = raw(causal=causal, window=window)
            assert output.isfinite().all()
            assert entropy.isfinite().all()


BACKWARD = {
    "grad_output": {0: torch.ones(2, 4, 5, 2)},
    "grad_lse": {1: torch.ones(2, 4, 4)},
    "grad_entropy: dtype": {2: torch.ones(2, 4, 5).double()},
    "grad_varentropy: 4-D": {3: torch.ones(2, 4, 5, 1)},
    "query": {4: Q[..., :7]},
    "output": {8: torch.ones(2, 4, 4, 3)},
    "output: 3-D": {8: torch.ones(2, 4, 5)},
    "lse": {9: torch.ones(2, 4, 6)},
    "no lse": {9: torch.empty(0)},
    "no entropy": {10: torch.empty(0)},
    "no varentropy": {11: torch.empty(0)},
}


@pytest.mark.parametrize("change", BACKWARD.values(), ids=BACKWARD)
def test_raw_backward_refuses(change):
    stat = torch.ones(2, 4, 5)
    args = [torch.ones(2, 4, 5, 3), stat, stat, stat, Q, K, V, None, torch.ones(2, 4, 5, 3)]
    args += [stat, stat, stat, False, -1, 0.3, True, True, True]
    torch.ops.synops.attention_with_stats_backward(*args)
    for i, other in change.items():
        args[i] = other
    with pytest.raises(RuntimeError):
        torch.ops.synops.attention_with_stats_backward(*args)
